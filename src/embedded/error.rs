//! What can go wrong with the file.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::ErrorCode;

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
    /// The file was deleted or replaced while it was open.
    #[error("the file was deleted or replaced while it was in use")]
    Replaced,
    /// The writer has not answered for long.
    #[error("there was no answer in time; another process may hold the write lock and stand still")]
    Stuck,
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
        matches!(self, Self::CommitUnknown(_) | Self::Stuck)
    }
}

impl StoreError {
    /// What helps, where that is known.
    pub(super) fn mend(&self) -> Option<&'static str> {
        const FULL: &str = "make room on its file system; what was acknowledged is there, and a worker goes on by itself";
        const DENIED: &str = "its directory must be writable for whoever runs this, or database.path name another";
        const DAMAGED: &str = "the file is damaged: stop every process that uses it, keep a copy, and try `sqlite3 FILE .recover`";
        match self {
            Self::Sql(error) | Self::CommitUnknown(error) => match error.sqlite_error_code()? {
                ErrorCode::DiskFull => Some(FULL),
                ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Some(DENIED),
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Some(DAMAGED),
                _ => None,
            },
            Self::Io(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(FULL),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Some(DENIED),
                _ => None,
            },
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
