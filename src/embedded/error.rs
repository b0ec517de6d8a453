//! What can go wrong with the file.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::ErrorCode;

use super::filesystem;
use super::store::Holder;

/// Why the store did not do something. Cheap to clone: a failed commit answers everyone who was in it.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum StoreError {
    /// SQLite refused.
    #[error(transparent)]
    Sql(#[from] Arc<rusqlite::Error>),
    /// The file system refused.
    #[error(transparent)]
    Io(Arc<io::Error>),
    /// A commit failed: it is not known whether it was kept.
    #[error("the commit failed: {0}")]
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
    /// The writer thread is gone.
    #[error("the queue is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(Arc::new(error))
    }
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
        matches!(self, Self::Upgraded { .. } | Self::Replaced { .. })
    }

    /// What helps, where that is known.
    pub(super) fn mend(&self) -> Option<Cow<'static, str>> {
        if let Self::Unsafe { fix, .. } = self {
            return Some(fix.clone().into());
        }
        if let Self::Locked { holder: Some(Holder { process, .. }) } | Self::Stuck { holder: Some(Holder { process, .. }) } = self {
            return Some(format!("if that process is stopped, continue it with `kill -CONT {process}`, or end it").into());
        }
        self.constant_hint().map(Cow::Borrowed)
    }

    fn constant_hint(&self) -> Option<&'static str> {
        const FULL: &str = "make room on its file system; what was acknowledged is there, and a worker goes on by itself";
        const DENIED: &str = "its directory must be writable for whoever runs this, or database.path name another";
        const FILES: &str = "this process may open too few files: raise the limit (`ulimit -n`) to 256 or more";
        const OTHER: &str = "it was left as it is; set IOLAUS_DATABASE__PATH to another path";
        const AGAIN: &str = "the processes that use it stop on their own within seconds; then start them again. Never delete or replace \
             files of a queue in use";
        const DAMAGED: &str = "the file is damaged: stop every process that uses it, keep a copy, and put a backup back or try `sqlite3 FILE .recover`; \
             iolaus fsck names the commands";
        match self {
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
