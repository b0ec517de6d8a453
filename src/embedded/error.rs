//! What can go wrong with the file.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::shell_word;
use rusqlite::ErrorCode;
use rustix::io::Errno;

use super::filesystem;
use super::store::Holder;

/// Why the store did not do something. Cheap to clone: a failed commit answers everyone who was in it.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum StoreError {
    /// SQLite refused.
    #[error("{}", told(.0))]
    Sql(Arc<rusqlite::Error>),
    /// The file system refused.
    #[error(transparent)]
    Io(Arc<io::Error>),
    /// One of the files may not be read and written.
    #[error("{} may not be read and written: {error}", path.display())]
    Denied {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        error: Arc<io::Error>,
    },
    /// A commit failed: it is not known whether it was kept.
    #[error("the commit failed: {}", told(.0))]
    CommitUnknown(#[source] Arc<rusqlite::Error>),
    /// The file is some other program's database.
    #[error("the file is not an iolaus database")]
    Foreign,
    /// The file is no database at all.
    #[error("the file is not an SQLite database")]
    NoDatabase,
    /// Another user could change the file, or what is beside it.
    #[error("{} {reason}", path.display())]
    Unsafe {
        /// What it is.
        path: PathBuf,
        /// Why it is not used.
        reason: String,
        /// The command that helps.
        fix: String,
    },
    /// A newer build has changed the schema.
    #[error("the file was upgraded by {by}; restart with that version")]
    Upgraded {
        /// The build.
        by: String,
    },
    /// A worker of an older build still uses the file.
    #[error("a worker of version {version} still uses the file; stop it before upgrading")]
    OldWorker {
        /// Its version.
        version: String,
    },
    /// There is no file.
    #[error("there is no such file")]
    Missing,
    /// The file is of an older schema, and was only to be read.
    #[error("the file has schema version {version}, older than this build's")]
    OldSchema {
        /// Its version.
        version: i64,
    },
    /// A worker lives, and the file was to be repaired.
    #[error("worker {name} uses the file, and a repair needs it to be left alone")]
    LiveWorker {
        /// The worker.
        name: String,
    },
    /// The file is on a network file system, where SQLite's WAL does not work.
    #[error(
        "the file is on a network file system ({kind}), which cannot keep a queue safe; set database.allow_network_filesystem to use it all the same"
    )]
    NetworkFileSystem {
        /// What it is.
        kind: &'static str,
    },
    /// A file was deleted or replaced while it was open.
    #[error("{} was deleted or replaced while it was in use; this process writes nothing more", path.display())]
    Replaced {
        /// Which of the files of the database.
        path: PathBuf,
    },
    /// Other processes have files open that are not there any more.
    #[error("files of the queue were deleted or replaced while other processes use them")]
    Removed,
    /// Other processes have the database open, and not the files beside it.
    #[error(
        "other processes use {} without the files that are beside it now: those were deleted or replaced, or the database has another name",
        path.display()
    )]
    Apart {
        /// The database.
        path: PathBuf,
    },
    /// The log is that of another database.
    #[error(
        "{} was deleted or replaced, and the log beside it is still that of the database before: together they would be damaged",
        path.display()
    )]
    OtherLog {
        /// The database.
        path: PathBuf,
        /// Its log.
        log: PathBuf,
    },
    /// Another program has locked the database.
    #[error("{} has a lock on {} (flock) and has not released it for 10 s", Holder::name(holder.as_ref()), path.display())]
    LockedByOther {
        /// The database.
        path: PathBuf,
        /// The program, where the system tells.
        holder: Option<Holder>,
    },
    /// What says which files the processes of the queue use is not there.
    #[error(
        "{} was emptied or overwritten, and no process that uses the queue has written it again for 10 s",
        path.display()
    )]
    RecordLost {
        /// The file `-open`.
        path: PathBuf,
    },
    /// Another process keeps the write lock.
    #[error("{} holds the write lock and has not released it for 10 s", Holder::name(holder.as_ref()))]
    Locked {
        /// Who had it last.
        holder: Option<Holder>,
    },
    /// The writer has not answered for long.
    #[error("there was no answer in time: {} may hold the write lock and be stopped", Holder::name(holder.as_ref()))]
    Stuck {
        /// Who had the write lock last.
        holder: Option<Holder>,
    },
    /// So little space is left that the next job may not be stored.
    #[error("its file system is nearly full: {free} bytes are free")]
    NoSpace {
        /// What is free for this user.
        free: u64,
    },
    /// Too much waits to be stored; this was not stored.
    #[error("too much waits to be stored")]
    Overloaded {
        /// When it is worth to try again.
        retry_after: Duration,
    },
    /// The code of an operation panicked; it was undone.
    #[error("an operation panicked and was undone")]
    Panicked,
    /// A task that this process cannot do without panicked.
    #[error("the task `{task}` of this process panicked")]
    TaskLost {
        /// Its name.
        task: &'static str,
    },
    /// No thread could be started to read the file.
    #[error("no thread can be started")]
    NoThread,
    /// The writer thread is gone.
    #[error("the queue is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(Arc::new(error))
    }
}

/// What SQLite's less known codes mean: its own words for them are `disk I/O error`.
fn told(error: &rusqlite::Error) -> Cow<'static, str> {
    match extended_code(error) {
        Some(SHORT_READ) => "the database or its log was cut off while it was in use (SQLite's code 522)".into(),
        Some(NO_ROOM_FOR_SHM) => "the database or disk is full: there is no room for the file -shm (SQLite's code 4874)".into(),
        _ => error.to_string().into(),
    }
}

/// `SQLITE_IOERR_SHORT_READ`
const SHORT_READ: i32 = 522;
/// `SQLITE_IOERR_SHMSIZE`
const NO_ROOM_FOR_SHM: i32 = 4874;

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

impl StoreError {
    pub(super) fn io(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }

    /// Whether a write may have been kept all the same.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::CommitUnknown(_) | Self::Stuck { .. })
    }
}

impl StoreError {
    /// Whether this process must not use the file any more.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Upgraded { .. } | Self::Replaced { .. } | Self::TaskLost { .. })
    }

    /// Whether a file may not be opened or written, whichever it is.
    pub(super) fn is_denied(&self) -> bool {
        use ErrorCode::{CannotOpen, PermissionDenied, ReadOnly};
        let Self::Sql(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(CannotOpen | PermissionDenied | ReadOnly))
    }

    /// What helps, where that is known.
    pub(super) fn hint(&self) -> Option<Cow<'static, str>> {
        if let Self::Unsafe { fix, .. } = self {
            return Some(fix.clone().into());
        }
        let word = |path: &Path| shell_word(&path.to_string_lossy()).into_owned();
        if let Self::Denied { path, error } = self {
            let path = word(path);
            return Some(match Errno::from_io_error(error) {
                Some(Errno::PERM) => format!("if it is immutable (`lsattr {path}`): chattr -i {path}").into(),
                _ => format!("chmod u+rw {path}, as its owner").into(),
            });
        }
        if let Self::OtherLog { path, log } = self {
            let (path, log) = (word(path), word(log));
            let shm = log.replacen("-wal", "-shm", 1);
            return Some(
                format!(
                    "if {path} is a copy that was put back: mv {log} {log}-old; rm -f {shm}. Else put back the database before it"
                )
                .into(),
            );
        }
        if let Self::Locked { holder: Some(holder) } | Self::Stuck { holder: Some(holder) } = self {
            let Holder { process, is_seen, .. } = holder;
            if !is_seen {
                return Some("if a process of this queue is stopped, as in another container, continue or end it".into());
            }
            return Some(format!("if that process is stopped, continue it with `kill -CONT {process}`, or end it").into());
        }
        self.constant_hint().map(Cow::Borrowed)
    }

    fn constant_hint(&self) -> Option<&'static str> {
        const FULL: &str = "make room on its file system; what was acknowledged is there, and a worker goes on by itself";
        const DENIED: &str = "its directory must be writable for whoever runs this, or database.path name another";
        const FILES: &str = "this process may open too few files: raise the limit (`ulimit -n`) to 256 or more";
        const OTHER: &str = "it was left as it is; set IOLAUS_DATABASE__PATH to another path";
        const THREADS: &str =
            "raise the limit of processes and threads: `ulimit -u`, TasksMax= of its unit, the limit of its container";
        const RESTART: &str = "start it again; the log has the panic, which is a mistake of this program: report it";
        const AGAIN: &str = "the processes that use it stop on their own within seconds; then start them again. Never delete or replace \
             files of a queue in use";
        const APART: &str = "end every process of this queue, by whatever name it has it, then start them again with one and the same path; \
             one whose files were deleted ends on its own within seconds";
        const OTHER_LOCK: &str = "end that program, or let it wait; to copy a queue in use, let sqlite3 do it (`sqlite3 FILE \".backup COPY\"`): \
             that needs no lock of its own";
        const RECORD: &str =
            "continue the processes of this queue that are stopped (`kill -CONT`), or end all of them and start them again";
        const CUT: &str =
            "stop every process that uses it, then start them again; what was cut off is lost, and iolaus fsck checks the rest";
        const DAMAGED: &str = "the file is damaged: stop every process that uses it, keep a copy, and put a backup back or try `sqlite3 FILE .recover`; \
             iolaus fsck names the commands";
        match self {
            Self::NoThread => Some(THREADS),
            Self::TaskLost { .. } => Some(RESTART),
            Self::Sql(error) | Self::CommitUnknown(error) if extended_code(error) == Some(NO_ROOM_FOR_SHM) => Some(FULL),
            Self::Sql(error) | Self::CommitUnknown(error) if extended_code(error) == Some(SHORT_READ) => Some(CUT),
            Self::Sql(error) | Self::CommitUnknown(error) => match error.sqlite_error_code()? {
                ErrorCode::DiskFull => Some(FULL),
                ErrorCode::CannotOpen if !filesystem::has_descriptors_left() => Some(FILES),
                ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Some(DENIED),
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Some(DAMAGED),
                _ => None,
            },
            Self::Io(error) if filesystem::is_out_of_descriptors(error) => Some(FILES),
            Self::Io(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(FULL),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Some(DENIED),
                _ => None,
            },
            Self::NoSpace { .. } => Some(FULL),
            Self::NoDatabase | Self::Foreign => Some(OTHER),
            Self::Replaced { .. } | Self::Removed => Some(AGAIN),
            Self::Apart { .. } => Some(APART),
            Self::LockedByOther { .. } => Some(OTHER_LOCK),
            Self::RecordLost { .. } => Some(RECORD),
            Self::Missing => Some("set IOLAUS_DATABASE__PATH to the queue's file; the first job that is enqueued creates it"),
            Self::OldSchema { .. } => Some("iolaus status upgrades it; then run this again"),
            Self::LiveWorker { .. } => Some(
                "stop every worker of this queue and run this again; one that was killed counts as live for worker.worker_timeout",
            ),
            _ => None,
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_sqlite_calls_a_disk_error_is_told_in_plain_words_with_what_helps() {
        for (code, said, helps) in
            [(SHORT_READ, "was cut off", "stop every process"), (NO_ROOM_FOR_SHM, "disk is full", "make room")]
        {
            let error = || Arc::new(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
            for error in [StoreError::Sql(error()), StoreError::CommitUnknown(error())] {
                let (text, hint) = (error.to_string(), error.hint().unwrap_or_default().into_owned());
                assert!(text.contains(said) && !text.contains("I/O") && hint.contains(helps), "{text}; {hint}");
            }
        }
    }
}
