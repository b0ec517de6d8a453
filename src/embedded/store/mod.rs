//! The SQLite file: one writer thread that group-commits, reads on their own connections. Everything above speaks in operations; SQL
//! stays in this folder.

mod claim;
mod closing;
mod enqueue;
mod read;
mod rows;
mod schema;
mod shares;
mod turnstile;
mod workers;
mod writer;

#[cfg(test)]
mod model;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iolaus_activities::Clock;
use rusqlite::Connection;
use tokio::sync::oneshot;

pub(super) use claim::{ClaimRequest, ClaimScope, Claimed, Claimer};
pub(super) use closing::Finished;
pub(super) use enqueue::{Admission, Retried};
pub(super) use read::{closed_among, counts, detail, find, holds, list, oldest_due, pauses, verdict, workers as workers_status};
pub(super) use shares::{Shares, TenantShare};
pub(super) use workers::{StoredHold, WorkerBeat, WorkerRegistration, beats, cancel_requests};
pub(super) use writer::Tx;

pub(super) use super::error::StoreError;
use super::files;
use super::hub::Hub;
use writer::{Operation, Writer};

/// A connection that only reads, with the file that it was opened on.
type Reader = (Option<(u64, u64)>, Connection);

/// A handle to the file. Cheap to share; the file closes with the last one.
pub(super) struct Store {
    path: PathBuf,
    operations: tokio::sync::mpsc::Sender<Operation>,
    readers: Arc<Mutex<Vec<Reader>>>,
    hub: Arc<Hub>,
}

/// Operations that may wait for the writer; past that, callers wait for room.
const QUEUE: usize = 4096;
/// A write is answered within this time, one way or the other.
const ANSWER: Duration = Duration::from_secs(15);
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
        let asked = async {
            self.operations.send(Operation::new(apply, reply)).await.map_err(|_| self.closed())?;
            answer.await.map_err(|_| self.closed())?
        };
        // Real time, whatever the clock: this is about another process that stands still with the lock in its hands.
        tokio::time::timeout(ANSWER, asked).await.unwrap_or(Err(StoreError::Stuck))
    }

    /// Why the writer is gone.
    fn closed(&self) -> StoreError {
        self.hub.failure().unwrap_or(StoreError::Closed)
    }

    /// Ends when this process must stop using the file, with the reason.
    pub(super) async fn failed(&self) -> StoreError {
        self.operations.closed().await;
        self.closed()
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
            let file = files::identity(&path);
            let idle = readers.lock().unwrap_or_else(PoisonError::into_inner).pop().filter(|(of, _)| *of == file);
            let (_, conn) = idle.map_or_else(|| schema::open_reader(&path).map(|conn| (file, conn)), Ok)?;
            let result = query(&conn);
            let mut idle = readers.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < READERS && result.is_ok() {
                idle.push((file, conn));
            }
            result
        });
        task.await.map_err(|_| StoreError::Closed)?
    }
}
