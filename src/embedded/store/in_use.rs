//! Whether other processes have the database open, and which files it is made of while they do. Each of them holds a shared lock on the
//! file `-open` beside it; the first has written there which files those are. So a process that comes later tells a log that was removed
//! under the others from one that SQLite took away itself when the last of them had left.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::StoreError;
use crate::embedded::files::{FileId, Identity, StateDirectory};

const PAUSE: Duration = Duration::from_millis(5);
/// A process that leaves, or that only looks, has the lock for a moment without the files.
const TRIES: u32 = 100;
/// The length of what is written.
const RECORD: usize = 192;

/// This process's lock.
#[derive(Debug)]
pub(super) struct InUse(File);

impl InUse {
    pub(super) fn new(place: &StateDirectory) -> Result<Self, StoreError> {
        Ok(Self(place.beside("open")?))
    }

    /// Counts this process, which holds the turnstile, among those that have the database open. Fails if others have files open that are
    /// not there any more.
    pub(super) fn enter(&self, place: &StateDirectory) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            match self.0.try_lock() {
                // No other process is here. None can come before the lock is shared: it would need the turnstile.
                Ok(()) => return Ok(self.0.lock_shared()?),
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Err(TryLockError::WouldBlock) => {
                    let (now, recorded) = (place.identity()?, self.recorded());
                    // Where the database itself is another one, the others are not on it, and write to it no more.
                    let is_other = recorded.is_some_and(|recorded| now.is_none_or(|now| now.database != recorded.database));
                    if (is_other || now.is_some() && now == recorded) && self.try_share()? {
                        return Ok(());
                    }
                    std::thread::park_timeout(PAUSE);
                }
            }
        }
        Err(StoreError::Removed)
    }

    /// The same without the turnstile. False, and it is not counted, if it cannot be told so that the files are those of the others.
    pub(super) fn join(&self, now: &Identity) -> Result<bool, StoreError> {
        Ok(self.recorded().as_ref() == Some(now) && self.try_share()?)
    }

    /// Takes this process out again.
    pub(super) fn leave(&self) -> Result<(), StoreError> {
        Ok(self.0.unlock()?)
    }

    /// Writes which files the database is made of. The caller holds the turnstile.
    pub(super) fn record(&self, identity: &Identity) -> Result<(), StoreError> {
        if self.recorded().as_ref() != Some(identity) {
            self.0.write_all_at(format!("{:<RECORD$}", to_text(identity)).as_bytes(), 0)?;
        }
        Ok(())
    }

    fn recorded(&self) -> Option<Identity> {
        let mut record = [0; RECORD];
        self.0.read_exact_at(&mut record, 0).ok()?;
        from_text(std::str::from_utf8(&record).ok()?)
    }

    fn try_share(&self) -> io::Result<bool> {
        match self.0.try_lock_shared() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn to_text(identity: &Identity) -> String {
    let file = |id: Option<FileId>| id.map_or_else(|| "-".to_owned(), |(device, inode)| format!("{device}:{inode}"));
    format!("{} {} {}\n", file(Some(identity.database)), file(identity.wal), file(identity.shm))
}

fn from_text(text: &str) -> Option<Identity> {
    let mut files = text.split_whitespace().map(|file| {
        let (device, inode) = file.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    });
    Some(Identity { database: files.next()??, wal: files.next()?, shm: files.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let most = (u64::MAX, u64::MAX);
        for identity in
            [Identity { database: most, wal: Some(most), shm: Some(most) }, Identity { database: (0, 1), wal: None, shm: None }]
        {
            assert!(to_text(&identity).len() <= RECORD);
            assert_eq!(from_text(&format!("{:<RECORD$}", to_text(&identity))), Some(identity));
        }
        assert_eq!(from_text(""), None);
    }

    #[test]
    fn a_log_that_is_missing_is_refused_only_while_others_have_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        for name in ["q.db", "q.db-wal", "q.db-shm"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let place = StateDirectory::open(&path).unwrap();
        let (one, other) = (InUse::new(&place).unwrap(), InUse::new(&place).unwrap());
        let before = place.identity().unwrap().unwrap();
        assert!(!other.join(&before).unwrap(), "no process has said which files they are");
        one.enter(&place).unwrap();
        one.record(&before).unwrap();
        assert!(other.join(&before).unwrap());
        other.leave().unwrap();
        std::fs::remove_file(dir.path().join("q.db-wal")).unwrap();
        assert!(matches!(other.enter(&place), Err(StoreError::Removed)));
        assert!(matches!(place.verify(&before), Err(StoreError::Replaced { path }) if path.ends_with("q.db-wal")));
        one.leave().unwrap();
        other.enter(&place).unwrap();
    }
}
