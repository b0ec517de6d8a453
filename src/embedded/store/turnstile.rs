//! Fairness between processes that write one database. SQLite's busy handler polls, so a process beside a saturated writer starves;
//! two lock files give a queue instead: take *turn*, take *write*, release *turn*.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::embedded::files;

/// The two lock files of a database.
pub(super) struct Turnstile {
    turn: File,
    write: File,
}

impl Turnstile {
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        Ok(Self { turn: lock_file(database, "turn")?, write: lock_file(database, "write")? })
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
