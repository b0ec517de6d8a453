//! The SQLite file: one writer thread that group-commits, reads on their own connections. Everything above speaks in operations; SQL
//! stays in this folder.

mod claim;
mod closing;
mod enqueue;
mod read;
mod rows;
mod schema;
mod turnstile;
mod workers;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use iolaus_activities::Clock;
use rusqlite::Connection;
use tokio::sync::oneshot;

pub(super) use claim::{ClaimRequest, ClaimScope, Claimed, Claimer};
pub(super) use closing::Finished;
pub(super) use enqueue::{Admission, Retried};
pub(super) use read::{closed_among, counts, detail, find, list, oldest_due, pauses, verdict, workers as workers_status};
pub(super) use workers::{WorkerBeat, WorkerRegistration, beats, cancel_requests};
pub(super) use writer::Tx;

use super::files;
use super::hub::Hub;
use writer::{Operation, Writer};

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
    /// The file is on a network file system, where SQLite's WAL does not work.
    #[error(
        "the file is on a network file system ({kind}), which cannot keep a queue safe; set database.allow_network_filesystem to use it all the same"
    )]
    NetworkFileSystem {
        /// What it is.
        kind: &'static str,
    },
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
    fn io(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }

    /// Whether a write may have been kept all the same.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::CommitUnknown(_))
    }
}

/// A handle to the file. Cheap to share; the file closes with the last one.
pub(super) struct Store {
    path: PathBuf,
    operations: tokio::sync::mpsc::Sender<Operation>,
    readers: Arc<Mutex<Vec<Connection>>>,
    hub: Arc<Hub>,
}

/// Operations that may wait for the writer; past that, callers wait for room.
const QUEUE: usize = 4096;
/// Idle read connections that are kept.
const READERS: usize = 2;

impl Store {
    /// Opens or creates the file and starts its writer.
    pub(super) fn open(path: &Path, allow_network: bool, hub: Arc<Hub>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        if let Some(parent) = path.parent() {
            files::create_private_dir(parent).map_err(StoreError::io)?;
            if let (false, Some(kind)) = (allow_network, super::filesystem::network_kind(parent)) {
                return Err(StoreError::NetworkFileSystem { kind });
            }
        }
        let (operations, receiver) = tokio::sync::mpsc::channel(QUEUE);
        Writer::start(path, receiver, hub.clone(), clock)?;
        Ok(Arc::new(Self { path: path.to_owned(), operations, readers: Arc::default(), hub }))
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What happens to jobs, as it is committed.
    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Runs an operation in the next transaction and answers when that is durable. An SQL error undoes this operation alone.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        apply: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.operations.send(Operation::new(apply, reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Asks the writer to look for claimable jobs. `ready`: there may be new ones that it has not seen.
    pub(super) async fn nudge(&self, ready: bool) {
        // A closed store has nothing to claim.
        self.operations.send(Operation::nudge(ready)).await.ok();
    }

    /// Registers somebody who takes claimed jobs.
    pub(super) async fn add_claimer(&self, claimer: Arc<dyn Claimer>) {
        self.operations.send(Operation::add_claimer(claimer)).await.ok();
    }

    /// Runs a read on a connection of its own.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (path, readers) = (self.path.clone(), self.readers.clone());
        let task = tokio::task::spawn_blocking(move || {
            let idle = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let conn = idle.map_or_else(|| schema::open_reader(&path), Ok)?;
            let result = query(&conn);
            let mut idle = readers.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < READERS && result.is_ok() {
                idle.push(conn);
            }
            result
        });
        task.await.map_err(|_| StoreError::Closed)?
    }
}
