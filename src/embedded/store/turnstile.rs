//! Fairness between processes that write one database. SQLite's busy handler polls, so a process beside a saturated writer starves;
//! two lock files give a queue instead: take *turn*, take *write*, release *turn*.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::embedded::files;

const PAUSE: Duration = Duration::from_millis(5);
const TRIES: u32 = 2_000;

/// The two lock files of a database.
pub(super) struct Turnstile {
    turn: File,
    write: File,
}

impl Turnstile {
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        Ok(Self { turn: lock_file(database, "turn")?, write: lock_file(database, "write")? })
    }

    /// The same, but gives up after about ten seconds: for opening, where nobody is in a hurry and somebody waits for an answer.
    pub(super) fn enter_or_give_up(&self) -> io::Result<Turn<'_>> {
        for _ in 0..TRIES {
            match self.write.try_lock() {
                Ok(()) => return Ok(Turn { write: &self.write }),
                Err(TryLockError::WouldBlock) => std::thread::park_timeout(PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the write lock and does not go on"))
    }

    /// Waits for this process's turn to write. The kernel releases both locks if the process dies.
    pub(super) fn enter(&self) -> io::Result<Turn<'_>> {
        self.turn.lock()?;
        let entered = self.write.lock();
        self.turn.unlock()?;
        entered.map(|()| Turn { write: &self.write })
    }
}

/// The right to write, until dropped.
pub(super) struct Turn<'a> {
    write: &'a File,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.write.unlock() {
            tracing::error!(%error, "the write lock could not be released");
        }
    }
}

fn lock_file(database: &Path, name: &str) -> io::Result<File> {
    files::private_file(&files::beside(database, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn only_one_at_a_time_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("t.db");
        let busy = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let turnstile = Turnstile::open(&database).unwrap();
                    for _ in 0..200 {
                        let turn = turnstile.enter().unwrap();
                        assert!(!busy.swap(true, Ordering::SeqCst), "two were inside at once");
                        busy.store(false, Ordering::SeqCst);
                        drop(turn);
                    }
                });
            }
        });
    }
}
