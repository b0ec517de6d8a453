//! Whether other processes have the database open, and which files it is made of while they do. Each of them holds a shared lock on the
//! file `-open` beside it; the first has written there which files those are. So a process that comes later tells a log that was removed
//! under the others from one that SQLite took away itself when the last of them had left. The queue's time stands there, too.
//!
//! Each of them also locks the database itself (`database_lock`): where `-open` is not the one of the others, for it was removed or the
//! database has two names, that lock tells of them. What is written stays after the last has ended, so that a database that is put in the
//! place of another one is not merged with the log of that one.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iolaus_activities::{Clock as _, SystemClock};

use super::StoreError;
use super::database_lock::{Beside, DatabaseLock};
use super::turnstile::{PATIENCE, Turn, Turnstile};
use crate::embedded::files::{Births, FileId, Identity, StateDirectory, path_beside};
use crate::embedded::permissions;
use crate::embedded::queue_clock::QueueClock;
use crate::embedded::wake::{News, Waker};

const PAUSE: Duration = Duration::from_millis(5);
/// A process that leaves, or that only looks, has the lock for a moment without the files.
const TRIES: u32 = 100;
/// A process whose files were removed stops within it, once it is woken.
const REMOVED_PATIENCE: Duration = Duration::from_secs(3);
/// The length of what is written.
const RECORD: usize = 256;

/// Which start of the machine this is; the time since then means nothing to another machine.
#[cfg(target_os = "linux")]
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// This process's locks.
#[derive(Debug)]
pub(super) struct InUse {
    /// The one on the database itself, let go of first.
    database: Mutex<Option<DatabaseLock>>,
    file: File,
}

/// What is written in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    identity: Identity,
    /// The origin of the queue's time, and the start of the machine that it counts from.
    time: Option<(i64, String)>,
    births: Births,
}

impl InUse {
    pub(super) fn new(place: &StateDirectory) -> Result<Self, StoreError> {
        Ok(Self { database: Mutex::default(), file: place.beside("open")? })
    }

    /// Counts this process among those that have the database open, and creates it if it is not there. Fails if others have files open
    /// that are not there any more. The clock then shows their time, or starts anew if there are none. Answers with the turnstile held.
    pub(super) fn enter<'t>(
        &self,
        place: &Arc<StateDirectory>,
        turnstile: &'t Turnstile,
        clock: &QueueClock,
    ) -> Result<Turn<'t>, StoreError> {
        // The turnstile is let go of between two tries: what is waited for, another process may need it for.
        repeat(place, || {
            let turn = turnstile.enter_or_give_up()?;
            self.try_enter(place, clock).map(|()| turn)
        })
    }

    fn try_enter(&self, place: &StateDirectory, clock: &QueueClock) -> Result<(), StoreError> {
        let mut refusal = StoreError::Removed;
        for _ in 0..TRIES {
            match self.file.try_lock() {
                // No other process is here. None can come before the lock is shared: it would need the turnstile, or a record.
                Ok(()) => {
                    if self.is_beside_other_log(place)? {
                        self.file.unlock()?;
                        return Err(other_log(place));
                    }
                    place.create_database()?;
                    let locked = self.lock_database(place, Beside::None);
                    if locked.is_err() {
                        self.file.unlock()?;
                    }
                    if locked? {
                        self.file.set_len(0)?;
                        if let Some(identity) = place.identity()? {
                            // Without a time no process joins: it only says whose log this is, should this process end before it says more.
                            self.write(&Record { identity, time: None, births: place.births() })?;
                        }
                        clock.start_anew();
                        return Ok(self.file.lock_shared()?);
                    }
                    // Those who have it open know another file `-open`, or are just leaving.
                    self.file.unlock()?;
                    refusal = StoreError::Apart { path: place.database().to_owned() };
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Err(TryLockError::WouldBlock) => {
                    let (now, recorded) = (place.identity()?, self.recorded());
                    let Some(recorded) = recorded else { return Err(record_lost(place)) };
                    let files = recorded.identity;
                    // Where the database itself is another one, the others are not on it, and write to it no more.
                    let is_other = now.is_none_or(|now| now.database != files.database);
                    let is_other_log = self.is_beside_other_log(place)?;
                    refusal = if is_other_log { other_log(place) } else { StoreError::Removed };
                    if !is_other_log && (is_other || now == Some(files)) {
                        place.create_database()?;
                        if self.try_share(place)? {
                            adopt(clock, Some(recorded));
                            return Ok(());
                        }
                    }
                }
            }
            std::thread::park_timeout(PAUSE);
        }
        Err(refusal)
    }

    /// The same without the turnstile. False, and it is not counted, if it cannot be told so that the files are those of the others.
    pub(super) fn join(&self, place: &StateDirectory, now: &Identity, clock: &QueueClock) -> Result<bool, StoreError> {
        // A record without a time of this machine is left to `enter`, which makes another one if no process is here.
        let is_of_these = |recorded: &Record| recorded.identity == *now && recorded.boot() == Some(boot_id());
        if !self.recorded().is_some_and(|recorded| is_of_these(&recorded)) {
            return Ok(false);
        }
        match self.try_share(place) {
            Ok(true) => {}
            // `enter` waits for that one.
            Ok(false) | Err(StoreError::LockedByOther { .. }) => return Ok(false),
            Err(error) => return Err(error),
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

    /// Takes the time of the processes that have the database open, if there are any, without counting this one among them. Fails where
    /// `enter` would.
    pub(super) fn look(&self, place: &Arc<StateDirectory>, clock: &QueueClock) -> Result<(), StoreError> {
        repeat(place, || self.try_look(place, clock))
    }

    fn try_look(&self, place: &StateDirectory, clock: &QueueClock) -> Result<(), StoreError> {
        let mut refusal = StoreError::Removed;
        for _ in 0..TRIES {
            let is_other_log = self.is_beside_other_log(place)?;
            if is_other_log {
                return Err(other_log(place));
            }
            match self.file.try_lock() {
                Ok(()) => {
                    let is_alone = self.lock_database(place, Beside::None);
                    self.leave()?;
                    if is_alone? {
                        return Ok(());
                    }
                    refusal = StoreError::Apart { path: place.database().to_owned() };
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Err(TryLockError::WouldBlock) => {
                    let (now, recorded) = (place.identity()?, self.recorded());
                    // One that only enters has it for itself, and what is recorded may be older.
                    if recorded.as_ref().map(|recorded| recorded.identity) == now && self.is_shared()? {
                        adopt(clock, recorded);
                        return Ok(());
                    }
                    refusal = if recorded.is_some() { StoreError::Removed } else { record_lost(place) };
                }
            }
            std::thread::park_timeout(PAUSE);
        }
        Err(refusal)
    }

    /// Takes this process out again.
    pub(super) fn leave(&self) -> Result<(), StoreError> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(self.file.unlock()?)
    }

    /// Whether what is written are these files and this time.
    pub(super) fn is_recorded(&self, identity: &Identity, clock: &QueueClock) -> bool {
        let is_time = |(origin, boot): (i64, String)| origin == clock.origin() || boot != boot_id();
        self.recorded().is_some_and(|recorded| recorded.identity == *identity && recorded.time.is_some_and(is_time))
    }

    /// Writes which files the database is made of, and the time, unless that is what is written: as the first process, or when a file was
    /// put over it. The caller holds the turnstile.
    pub(super) fn record(&self, place: &StateDirectory, identity: &Identity, clock: &QueueClock) -> Result<(), StoreError> {
        if !self.is_recorded(identity, clock) {
            self.write(&Record { identity: *identity, time: Some((clock.origin(), boot_id())), births: place.births() })?;
        }
        Ok(())
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        self.file.write_all_at(format!("{:<RECORD$}", to_text(record)).as_bytes(), 0)
    }

    fn recorded(&self) -> Option<Record> {
        let mut record = [0; RECORD];
        let length = self.file.read_at(&mut record, 0).ok()?;
        let mut record = from_text(std::str::from_utf8(&record[..length]).ok()?)?;
        record.identity.open = permissions::id_of(&self.file).ok();
        Some(record)
    }

    /// Whether the database was replaced, and the log of the one before is still beside it. SQLite would write that log into it.
    fn is_beside_other_log(&self, place: &StateDirectory) -> Result<bool, StoreError> {
        let (Some(now), Some(recorded)) = (place.identity()?, self.recorded()) else { return Ok(false) };
        let (births, files) = (place.births(), recorded.identity);
        let born_elsewhen = |file: usize| births[file].zip(recorded.births[file]).is_some_and(|(now, then)| now != then);
        let is_same_log = now.wal.is_some() && now.wal == files.wal && !born_elsewhen(1);
        Ok(is_same_log && (now.database != files.database || born_elsewhen(0)))
    }

    fn lock_database(&self, place: &StateDirectory, beside: Beside) -> Result<bool, StoreError> {
        let lock = DatabaseLock::take(place, beside)?;
        let is_locked = lock.is_some();
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = lock;
        Ok(is_locked)
    }

    fn is_shared(&self) -> io::Result<bool> {
        match self.file.try_lock_shared() {
            Ok(()) => self.file.unlock().map(|()| true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn try_share(&self, place: &StateDirectory) -> Result<bool, StoreError> {
        match self.file.try_lock_shared() {
            Ok(()) => {
                let locked = self.lock_database(place, Beside::Others);
                if !matches!(locked, Ok(true)) {
                    self.leave()?;
                }
                locked
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

/// Tries again where another process may soon end what keeps this one out. Those that have the queue open are woken, to look at their
/// files and at what they have recorded.
fn repeat<T>(place: &Arc<StateDirectory>, mut attempt: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // Real time, whatever the clock: this is about other processes.
    let clock = SystemClock::new();
    let began = clock.monotonic();
    let mut woken = false;
    loop {
        let refusal = match attempt() {
            Ok(done) => return Ok(done),
            Err(refusal) => refusal,
        };
        let patience = match &refusal {
            StoreError::RecordLost { .. } | StoreError::LockedByOther { .. } => PATIENCE,
            StoreError::Removed => REMOVED_PATIENCE,
            _ => return Err(refusal),
        };
        if clock.monotonic().saturating_sub(began) >= patience {
            return Err(refusal);
        }
        if !std::mem::replace(&mut woken, true)
            && let Ok(waker) = Waker::new(place.clone())
        {
            waker.wake(News { closed: &[] });
        }
        std::thread::park_timeout(PAUSE);
    }
}

fn record_lost(place: &StateDirectory) -> StoreError {
    StoreError::RecordLost { path: path_beside(place.database(), "open") }
}

fn other_log(place: &StateDirectory) -> StoreError {
    StoreError::OtherLog { path: place.database().to_owned(), log: place.log() }
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
    let id: String = id.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    if id.is_empty() { "-".to_owned() } else { id }
}

#[cfg(not(target_os = "linux"))]
fn boot_id() -> String {
    "-".to_owned()
}

fn to_text(record: &Record) -> String {
    let file = |id: Option<FileId>| id.map_or_else(|| "-".to_owned(), |(device, inode)| format!("{device}:{inode}"));
    let Identity { database, wal, shm, .. } = record.identity;
    let time = record.time.as_ref().map_or_else(|| "- -".to_owned(), |(origin, boot)| format!("{origin} {boot}"));
    let [database_born, log_born] = record.births.map(|birth| birth.map_or_else(|| "-".to_owned(), |birth| birth.to_string()));
    format!("{} {} {} {time} {database_born} {log_born}\n", file(Some(database)), file(wal), file(shm))
}

fn from_text(text: &str) -> Option<Record> {
    let mut words = text.split_whitespace();
    let mut file = || {
        let (device, inode) = words.next()?.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    };
    let identity = Identity { database: file()?, wal: file(), shm: file(), open: None };
    let (origin, boot) = (words.next().and_then(|origin| origin.parse().ok()), words.next().map(str::to_owned));
    let births = [(); 2].map(|()| words.next().and_then(|birth| birth.parse().ok()));
    Some(Record { identity, time: origin.zip(boot), births })
}

#[cfg(test)]
mod tests {
    use super::*;

    use iolaus_activities::ManualClock;
    use jiff::SignedDuration;

    #[test]
    fn what_is_written_is_read_again() {
        let most = (u64::MAX, u64::MAX);
        let time = Some((i64::MIN, "f".repeat(32)));
        for (database, wal, shm, time, births) in [
            (most, Some(most), Some(most), time.clone(), [Some(i64::MIN); 2]),
            ((0, 1), None, None, time, [None; 2]),
            ((0, 1), None, Some(most), None, [None, Some(1)]),
        ] {
            let record = Record { identity: Identity { database, wal, shm, open: None }, time, births };
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
        assert!(!other.join(&place, &before, &clock).unwrap(), "no process has said which files they are");
        one.try_enter(&place, &clock).unwrap();
        one.record(&place, &before, &clock).unwrap();
        assert!(other.join(&place, &before, &clock).unwrap());
        other.leave().unwrap();
        one.file.set_len(0).unwrap();
        assert!(!other.join(&place, &before, &clock).unwrap());
        assert!(matches!(other.try_enter(&place, &clock), Err(StoreError::RecordLost { .. })), "nothing was removed");
        assert!(!one.is_recorded(&before, &clock));
        one.record(&place, &before, &clock).unwrap();
        assert!(one.is_recorded(&before, &clock) && other.join(&place, &before, &clock).unwrap());
        other.leave().unwrap();
        std::fs::remove_file(dir.path().join("q.db-wal")).unwrap();
        assert!(matches!(other.try_enter(&place, &clock), Err(StoreError::Removed)));
        assert!(matches!(place.verify(&before), Err(StoreError::Replaced { path }) if path.ends_with("q.db-wal")));
        one.leave().unwrap();
        other.try_enter(&place, &clock).unwrap();
    }

    #[test]
    fn processes_share_the_time_of_the_first_of_them_and_start_anew_after_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        for name in ["q.db", "q.db-wal", "q.db-shm"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let place = StateDirectory::open(&path).unwrap();
        let machine = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
        let process = || (InUse::new(&place).unwrap(), QueueClock::new(machine.clone()));
        let (first, time) = process();
        let files = place.identity().unwrap().unwrap();
        first.try_enter(&place, &time).unwrap();
        first.record(&place, &files, &time).unwrap();
        machine.jump(SignedDuration::from_hours(-1));
        let ((second, joined), (third, entered), (fourth, looked)) = (process(), process(), process());
        assert!(second.join(&place, &files, &joined).unwrap());
        third.try_enter(&place, &entered).unwrap();
        fourth.look(&place, &looked).unwrap();
        for clock in [joined, entered, looked] {
            assert_eq!(clock.now(), time.now());
        }
        for left in [first, second, third] {
            left.leave().unwrap();
        }
        std::fs::remove_file(dir.path().join("q.db-wal")).unwrap();
        let (next, anew) = process();
        assert!(
            !next.join(&place, &place.identity().unwrap().unwrap(), &anew).unwrap(),
            "these are not the files that were written there"
        );
        next.try_enter(&place, &anew).unwrap();
        assert_eq!(anew.now(), machine.now());
    }

    #[test]
    fn the_time_of_another_start_of_the_machine_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("q.db"), "").unwrap();
        let place = StateDirectory::open(&dir.path().join("q.db")).unwrap();
        let in_use = InUse::new(&place).unwrap();
        let files = place.identity().unwrap().unwrap();
        let clock = QueueClock::new(Arc::new(SystemClock::new()));
        let origin = clock.origin();
        for time in [None, Some((7, "another".to_owned()))] {
            let record = Record { identity: files, time, births: [None; 2] };
            in_use.write(&record).unwrap();
            assert!(!in_use.join(&place, &files, &clock).unwrap(), "{record:?}");
            adopt(&clock, Some(record));
            assert_eq!(clock.origin(), origin);
        }
    }
}
