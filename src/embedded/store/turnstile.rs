//! Fairness between processes that write one database. SQLite's busy handler polls, so a process beside a saturated writer starves;
//! two lock files give a queue instead: take *turn*, take *write*, release *turn*. In *write* stands who had it last.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use iolaus_activities::{Clock, SystemClock};

use super::StoreError;
use crate::embedded::files::StateDirectory;
use crate::embedded::{lock_table, permissions};

const PAUSE: Duration = Duration::from_millis(5);
/// How long opening waits for another process.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The length of the note in the lock file.
const NOTE: usize = 96;

/// The two lock files of a database.
pub(super) struct Turnstile {
    turn: File,
    write: File,
    /// What this process writes into the lock file that it holds.
    note: String,
}

/// The process that holds the write lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded) struct Holder {
    pub(in crate::embedded) process: u32,
    /// Its program and subcommand.
    pub(in crate::embedded) command: String,
    /// Whether the system says that it holds the lock. Else it only had it last.
    pub(in crate::embedded) is_seen: bool,
}

impl Holder {
    /// How a message calls it.
    pub(in crate::embedded) fn name(holder: Option<&Self>) -> String {
        match holder {
            Some(Self { process, command, is_seen: true }) => format!("process {process} ({command})"),
            Some(Self { process, command, .. }) => format!("another process (process {process}, {command}, had it last)"),
            None => "another process".to_owned(),
        }
    }
}

impl Turnstile {
    pub(super) fn open(place: &StateDirectory) -> Result<Self, StoreError> {
        Ok(Self { turn: place.beside("turn")?, write: place.beside("write")?, note: note(std::process::id(), std::env::args()) })
    }

    /// The same, but gives up after about ten seconds: for opening, where nobody is in a hurry and somebody waits for an answer.
    pub(super) fn enter_or_give_up(&self) -> Result<Turn<'_>, StoreError> {
        // Real time, whatever the clock: this is about another process that has stopped.
        let clock = SystemClock::new();
        let began = clock.monotonic();
        while clock.monotonic().saturating_sub(began) < PATIENCE {
            match self.write.try_lock() {
                Ok(()) => return Ok(self.entered()),
                Err(TryLockError::WouldBlock) => std::thread::park_timeout(PAUSE),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        Err(StoreError::Locked { holder: self.holder() })
    }

    /// Waits for this process's turn to write. The kernel releases both locks if the process dies.
    pub(super) fn enter(&self) -> io::Result<Turn<'_>> {
        self.turn.lock()?;
        let entered = self.write.lock();
        self.turn.unlock()?;
        entered.map(|()| self.entered())
    }

    fn entered(&self) -> Turn<'_> {
        // Only others read it, for their messages: a full disk must not keep this process from its turn.
        if self.noted().as_deref() != Some(&self.note) && self.write.write_all_at(self.note.as_bytes(), 0).is_err() {
            tracing::debug!("the write lock does not name its holder");
        }
        Turn { write: &self.write }
    }

    /// The other process that holds the write lock, or keeps all others from their turn; where the system does not tell, the one that had
    /// the lock last.
    pub(super) fn holder(&self) -> Option<Holder> {
        let last = self.last();
        let holding = |file: &File| {
            let locks = lock_table::locks(permissions::id_of(file).ok()?.1);
            locks.into_iter().map(|lock| lock.process).find(|process| *process != std::process::id())
        };
        let Some(process) = holding(&self.write).or_else(|| holding(&self.turn)) else { return last };
        // Its note has its subcommand, too.
        let command = last.filter(|last| last.process == process).map_or_else(|| lock_table::command(process), |last| last.command);
        Some(Holder { process, command, is_seen: true })
    }

    /// The other process that had the write lock last.
    fn last(&self) -> Option<Holder> {
        let noted = self.noted().filter(|noted| *noted != self.note)?;
        let (process, command) = noted.trim_end().split_once(' ')?;
        Some(Holder { process: process.parse().ok()?, command: command.to_owned(), is_seen: false })
    }

    fn noted(&self) -> Option<String> {
        let mut note = [0; NOTE];
        self.write.read_exact_at(&mut note, 0).ok()?;
        String::from_utf8(note.to_vec()).ok()
    }
}

/// The program's name and its subcommand; never an argument, which may be confidential.
fn note(process: u32, mut arguments: impl Iterator<Item = String>) -> String {
    let program = arguments.next().unwrap_or_default();
    let program = Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or("iolaus");
    let is_command = |word: &String| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let command = arguments.next().filter(|word| is_command(word) && !word.starts_with('-')).unwrap_or_default();
    let text: String =
        format!("{process} {program} {command}").chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(NOTE - 1).collect();
    format!("{:<width$}\n", text.trim_end(), width = NOTE - 1)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn only_one_at_a_time_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let place = StateDirectory::open(&dir.path().join("t.db")).unwrap();
        let busy = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let turnstile = Turnstile::open(&place).unwrap();
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

    #[test]
    fn the_holder_is_known_by_process_and_command_and_not_by_its_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let place = StateDirectory::open(&dir.path().join("t.db")).unwrap();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().into_iter();
        let other =
            Turnstile { note: note(4711, words(&["/opt/bin/iolaus", "enqueue", "secret=1"])), ..Turnstile::open(&place).unwrap() };
        let us = Turnstile::open(&place).unwrap();
        assert_eq!(us.holder(), None);
        let turn = other.enter().unwrap();
        assert_eq!(us.holder(), Some(Holder { process: 4711, command: "iolaus enqueue".into(), is_seen: false }));
        drop(turn);
        drop(us.enter().unwrap());
        assert_eq!(us.holder(), None, "it had it last itself");
        let odd = note(u32::MAX, words(&[&"x".repeat(500), "--token=secret"]));
        assert!(odd.len() == NOTE && !odd.contains("secret"), "{odd}");
    }
}
