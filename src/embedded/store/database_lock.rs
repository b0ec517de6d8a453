//! A lock on the database file itself. It holds whatever the name of the file is and whatever became of the files beside it, and so tells a
//! process whose `-open` is new, or another one, that the database is in use.
//!
//! SQLite locks the same file with fcntl(2). On Linux the two kinds of locks do not meet, but when a process closes any descriptor of a
//! file, it loses all its fcntl locks on that file. So one descriptor for each database is kept for the whole process, and closed when no
//! connection of the process is open.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::sync::{Mutex, PoisonError};

use super::StoreError;
use crate::embedded::files::{FileId, StateDirectory};
use crate::embedded::{filesystem, lock_table, permissions};

/// The databases that this process has locked.
static LOCKED: Mutex<BTreeMap<FileId, Locked>> = Mutex::new(BTreeMap::new());

struct Locked {
    /// The locked descriptor, and others of the same file that must not be closed before.
    files: Vec<File>,
    members: usize,
}

/// A share of this process's lock on a database.
#[derive(Debug)]
pub(super) struct DatabaseLock {
    /// None where nothing can be locked.
    id: Option<FileId>,
}

/// Which processes may have the database locked beside this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    None,
    Others,
}

impl DatabaseLock {
    /// Locks the database. None if another process of the queue is in the way, or the file was replaced at this moment; an error if
    /// another program is.
    pub(super) fn take(place: &StateDirectory, beside: Beside) -> Result<Option<Self>, StoreError> {
        // Elsewhere, and over a network, such a lock is one of fcntl and keeps SQLite out.
        if !cfg!(target_os = "linux") || filesystem::network_kind(place.directory()).is_some() {
            return Ok(Some(Self { id: None }));
        }
        let mut locked = LOCKED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = place.database_id()?
            && let Some(entry) = locked.get_mut(&id)
        {
            if beside == Beside::None {
                return Ok(None);
            }
            entry.members += 1;
            return Ok(Some(Self { id: Some(id) }));
        }
        let file = place.open_database()?;
        let id = permissions::id_of(&file)?;
        if let Some(entry) = locked.get_mut(&id) {
            entry.files.push(file);
            return Ok(None);
        }
        let taken = match beside {
            Beside::None => file.try_lock(),
            Beside::Others => file.try_lock_shared(),
        };
        match taken {
            Err(TryLockError::WouldBlock) => return check_ours(place, &file, id).map(|()| None),
            Err(TryLockError::Error(error)) => return Err(error.into()),
            // Linux makes it a shared one in one step.
            Ok(()) if beside == Beside::None => file.lock_shared()?,
            Ok(()) => {}
        }
        locked.insert(id, Locked { files: vec![file], members: 1 });
        Ok(Some(Self { id: Some(id) }))
    }
}

/// Refuses a lock that no process of the queue holds. Each of those has the database open with SQLite, too, which keeps a lock of its own
/// on it from the first read to the end; only the moment between the two is not told apart, and is soon over.
fn check_ours(place: &StateDirectory, file: &File, id: FileId) -> Result<(), StoreError> {
    let locks = lock_table::locks(id.1);
    let other = |holder| Err(StoreError::LockedByOther { path: place.database().to_owned(), holder });
    if let Some(holder) = lock_table::other_program(&locks) {
        return other(Some(holder));
    }
    // The table does not show the processes of other containers, but the system knows of their locks.
    if locks.is_empty() && !permissions::has_record_lock(file)? {
        return other(None);
    }
    Ok(())
}

impl Drop for DatabaseLock {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut locked = LOCKED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = locked.get_mut(&id) {
            entry.members -= 1;
            if entry.members == 0 {
                // A process that was forked a moment ago has the same lock until it runs its program: closing it is not enough.
                entry.files.iter().for_each(|file| drop(file.unlock()));
                locked.remove(&id);
            }
        }
    }
}
