//! Whether other processes have the database open, and which files it is made of while they do. Each of them holds a shared lock on the
//! file `-open` beside it; the first has written there which files those are. So a process that comes later tells a log that was removed
//! under the others from one that SQLite took away itself when the last of them had left. The queue's time stands there, too.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::StoreError;
use crate::embedded::files::{FileId, Identity, StateDirectory};
use crate::embedded::queue_clock::QueueClock;

const PAUSE: Duration = Duration::from_millis(5);
/// A process that leaves, or that only looks, has the lock for a moment without the files.
const TRIES: u32 = 100;
/// The length of what is written.
const RECORD: usize = 192;

/// Which start of the machine this is; the time since then means nothing to another machine.
#[cfg(target_os = "linux")]
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// This process's lock.
#[derive(Debug)]
pub(super) struct InUse(File);

/// What is written in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    identity: Identity,
    /// The origin of the queue's time, and the start of the machine that it counts from.
    time: Option<(i64, String)>,
}

impl InUse {
    pub(super) fn new(place: &StateDirectory) -> Result<Self, StoreError> {
        Ok(Self(place.beside("open")?))
    }

    /// Counts this process, which holds the turnstile, among those that have the database open. Fails if others have files open that are
    /// not there any more. The clock then shows their time, or starts anew if there are none.
    pub(super) fn enter(&self, place: &StateDirectory, clock: &QueueClock) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            match self.0.try_lock() {
                // No other process is here. None can come before the lock is shared: it would need the turnstile, or a record.
                Ok(()) => {
                    self.0.set_len(0)?;
                    clock.start_anew();
                    return Ok(self.0.lock_shared()?);
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Err(TryLockError::WouldBlock) => {
                    let (now, recorded) = (place.identity()?, self.recorded());
                    let files = recorded.as_ref().map(|recorded| recorded.identity);
                    // Where the database itself is another one, the others are not on it, and write to it no more.
                    let is_other = files.is_some_and(|files| now.is_none_or(|now| now.database != files.database));
                    if (is_other || now.is_some() && now == files) && self.try_share()? {
                        adopt(clock, recorded);
                        return Ok(());
                    }
                    std::thread::park_timeout(PAUSE);
                }
            }
        }
        Err(StoreError::Removed)
    }

    /// The same without the turnstile. False, and it is not counted, if it cannot be told so that the files are those of the others.
    pub(super) fn join(&self, now: &Identity, clock: &QueueClock) -> Result<bool, StoreError> {
        // A record without a time of this machine is left to `enter`, which makes another one if no process is here.
        let is_of_these = |recorded: &Record| recorded.identity == *now && recorded.boot() == Some(boot_id());
        if !self.recorded().is_some_and(|recorded| is_of_these(&recorded)) || !self.try_share()? {
            return Ok(false);
        }
        // Read again: before the lock was shared another process may have come first, and started the time anew.
        let recorded = self.recorded().filter(is_of_these);
        if recorded.is_none() {
            self.leave()?;
            return Ok(false);
        }
        adopt(clock, recorded);
        Ok(true)
    }

    /// Takes the time of the processes that have the database open, if there are any, without counting this one among them.
    pub(super) fn look(&self, clock: &QueueClock) {
        if matches!(self.0.try_lock(), Err(TryLockError::WouldBlock)) {
            adopt(clock, self.recorded());
        } else {
            self.leave().ok();
        }
    }

    /// Takes this process out again.
    pub(super) fn leave(&self) -> Result<(), StoreError> {
        Ok(self.0.unlock()?)
    }

    /// Writes which files the database is made of, and the time. The caller holds the turnstile.
    pub(super) fn record(&self, identity: &Identity, clock: &QueueClock) -> Result<(), StoreError> {
        let record = Record { identity: *identity, time: Some((clock.origin(), boot_id())) };
        if self.recorded().is_none_or(|recorded| recorded.identity != *identity) {
            self.0.write_all_at(format!("{:<RECORD$}", to_text(&record)).as_bytes(), 0)?;
        }
        Ok(())
    }

    fn recorded(&self) -> Option<Record> {
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

impl Record {
    fn boot(&self) -> Option<String> {
        self.time.as_ref().map(|(_, boot)| boot.clone())
    }
}

/// Nothing is adopted from a process of another machine, or of a build that wrote no time.
fn adopt(clock: &QueueClock, recorded: Option<Record>) {
    if let Some((origin, boot)) = recorded.and_then(|recorded| recorded.time)
        && boot == boot_id()
    {
        clock.adopt(origin);
    }
}

#[cfg(target_os = "linux")]
fn boot_id() -> String {
    let id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let id: String = id.chars().filter(|char| char.is_ascii_hexdigit()).take(32).collect();
    if id.is_empty() { "-".to_owned() } else { id }
}

#[cfg(not(target_os = "linux"))]
fn boot_id() -> String {
    "-".to_owned()
}

fn to_text(record: &Record) -> String {
    let file = |id: Option<FileId>| id.map_or_else(|| "-".to_owned(), |(device, inode)| format!("{device}:{inode}"));
    let Identity { database, wal, shm } = record.identity;
    let time = record.time.as_ref().map_or_else(String::new, |(origin, boot)| format!(" {origin} {boot}"));
    format!("{} {} {}{time}\n", file(Some(database)), file(wal), file(shm))
}

fn from_text(text: &str) -> Option<Record> {
    let mut words = text.split_whitespace();
    let mut file = || {
        let (device, inode) = words.next()?.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    };
    let identity = Identity { database: file()?, wal: file(), shm: file() };
    let time = words.next().and_then(|origin| Some((origin.parse().ok()?, words.next()?.to_owned())));
    Some(Record { identity, time })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use iolaus_activities::{Clock, ManualClock, SystemClock};
    use jiff::SignedDuration;

    #[test]
    fn what_is_written_is_read_again() {
        let most = (u64::MAX, u64::MAX);
        let time = Some((i64::MIN, "f".repeat(32)));
        for (identity, time) in [
            (Identity { database: most, wal: Some(most), shm: Some(most) }, time.clone()),
            (Identity { database: (0, 1), wal: None, shm: None }, time),
            (Identity { database: (0, 1), wal: None, shm: Some(most) }, None),
        ] {
            let record = Record { identity, time };
            assert!(to_text(&record).len() <= RECORD);
            assert_eq!(from_text(&format!("{:<RECORD$}", to_text(&record))), Some(record));
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
        let clock = QueueClock::new(Arc::new(SystemClock::new()));
        let before = place.identity().unwrap().unwrap();
        assert!(!other.join(&before, &clock).unwrap(), "no process has said which files they are");
        one.enter(&place, &clock).unwrap();
        one.record(&before, &clock).unwrap();
        assert!(other.join(&before, &clock).unwrap());
        other.leave().unwrap();
        std::fs::remove_file(dir.path().join("q.db-wal")).unwrap();
        assert!(matches!(other.enter(&place, &clock), Err(StoreError::Removed)));
        assert!(matches!(place.verify(&before), Err(StoreError::Replaced { path }) if path.ends_with("q.db-wal")));
        one.leave().unwrap();
        other.enter(&place, &clock).unwrap();
    }

    #[test]
    fn processes_share_the_time_of_the_first_of_them_and_start_anew_after_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        for name in ["q.db", "q.db-wal", "q.db-shm"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let place = StateDirectory::open(&path).unwrap();
        let files = place.identity().unwrap().unwrap();
        let machine = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
        let process = || (InUse::new(&place).unwrap(), QueueClock::new(machine.clone()));
        let (first, time) = process();
        first.enter(&place, &time).unwrap();
        first.record(&files, &time).unwrap();
        machine.jump(SignedDuration::from_hours(-1));
        let ((second, joined), (third, entered), (fourth, looked)) = (process(), process(), process());
        assert!(second.join(&files, &joined).unwrap());
        third.enter(&place, &entered).unwrap();
        fourth.look(&looked);
        for clock in [joined, entered, looked] {
            assert_eq!(clock.now(), time.now());
        }
        for left in [first, second, third] {
            left.leave().unwrap();
        }
        std::fs::remove_file(dir.path().join("q.db-wal")).unwrap();
        let (next, anew) = process();
        assert!(!next.join(&place.identity().unwrap().unwrap(), &anew).unwrap(), "these are not the files that were written there");
        next.enter(&place, &anew).unwrap();
        assert_eq!(anew.now(), machine.now());
    }

    #[test]
    fn the_time_of_another_start_of_the_machine_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("q.db"), "").unwrap();
        let place = StateDirectory::open(&dir.path().join("q.db")).unwrap();
        let files = place.identity().unwrap().unwrap();
        let in_use = InUse::new(&place).unwrap();
        let clock = QueueClock::new(Arc::new(SystemClock::new()));
        let origin = clock.origin();
        for time in [None, Some((7, "another".to_owned()))] {
            let record = Record { identity: files, time };
            in_use.0.write_all_at(format!("{:<RECORD$}", to_text(&record)).as_bytes(), 0).unwrap();
            assert!(!in_use.join(&files, &clock).unwrap(), "{record:?}");
            adopt(&clock, Some(record));
            assert_eq!(clock.origin(), origin);
        }
    }
}
