//! The SQLite file: one writer thread that group-commits, reads on their own connections. Everything above speaks in operations; SQL
//! stays in this folder.

mod backlog;
mod bare;
mod cancel;
mod claim;
mod closing;
mod counts;
mod database_lock;
mod dying;
mod effects;
mod enqueue;
mod fair;
mod fsck;
mod in_use;
mod isolation;
mod listing;
mod maintenance;
mod observed;
mod opening;
mod operation;
mod paused;
mod read;
mod retention;
mod retrying;
mod room;
mod rows;
mod schema;
mod sequences;
mod served;
mod shares;
mod starting;
mod throttling;
mod turnstile;
mod unreadable;
mod workers;
mod writer;

#[cfg(test)]
mod model;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod power_cut;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

pub use backlog::{Backlog, Claims, fill};
pub use bare::{BareJob, BareLoop};
pub(super) use claim::{ClaimRequest, ClaimScope, Claimed, Claimer};
pub(super) use closing::Finished;
pub(super) use counts::counts;
pub(super) use effects::other_effects;
pub(super) use enqueue::{Admission, JobRows, Retried};
pub use fsck::{Finding, FsckOptions, FsckReport, RepairReport, Severity};
pub(super) use fsck::{check as fsck, sample};
pub(super) use maintenance::needs_maintenance;
pub(super) use observed::{longest_running, oldest_due, oldest_due_of_each};
pub(super) use read::{closed_among, detail, find, holds, is_open, list, pauses, verdict, workers as workers_status};
pub(super) use retention::retention_of_workers;
pub(super) use retrying::Cursor as RetryCursor;
pub(super) use schema::APPLICATION_ID;
pub(super) use served::ServedTenants;
pub(super) use shares::{Holds, ShareTable, Shares};
pub(super) use turnstile::Holder;
pub(super) use workers::{StoredHold, WorkerBeat, WorkerRegistration, beats, cancel_requests};
pub(super) use writer::{BATCH, Tx};

use super::EmbeddedOptions;
pub(super) use super::error::StoreError;
use super::files::{Identity, StateDirectory};
use super::hub::Hub;
use super::queue_clock::QueueClock;
use in_use::InUse;
use opening::Opened;
use operation::Operation;
use room::Room;
use turnstile::Turnstile;
use writer::Writer;

/// A handle to the file. Cheap to share; the file closes with the last one.
pub(super) struct Store {
    place: Arc<StateDirectory>,
    /// The files that every connection of this process is on.
    identity: Identity,
    turnstile: Arc<Turnstile>,
    operations: tokio::sync::mpsc::Sender<Operation>,
    /// How many operations were handed to the writer.
    asked: AtomicU64,
    readers: Arc<Readers>,
    reads: Semaphore,
    hub: Arc<Hub>,
    room: Room,
    write_timeout: Duration,
}

/// The connections that read.
struct Readers {
    idle: Mutex<Vec<Connection>>,
    /// Let go of after them.
    _in_use: Arc<InUse>,
}

/// Operations that may wait for the writer; past that, callers wait for room.
const QUEUE: usize = 4096;
/// Of these, how many may be enqueues: the rest is for what a worker writes about its own attempts.
const ENQUEUES: usize = QUEUE / 4 * 3;
/// Idle read connections that are kept.
const READERS: usize = 2;
/// With less space, in bytes, a queue is as good as full.
const LEAST_SPACE: u64 = 1 << 20;
/// Reads at once; past that, callers wait for their turn.
const READS: usize = 8;

impl Store {
    /// Opens or creates the file and starts its writer.
    pub(super) fn open(
        options: &EmbeddedOptions,
        place: Arc<StateDirectory>,
        hub: Arc<Hub>,
        clock: Arc<QueueClock>,
    ) -> Result<Arc<Self>, StoreError> {
        let opened = Opened::new(options, &place, &clock)?;
        let (identity, turnstile, in_use) = (opened.identity, opened.turnstile.clone(), opened.in_use.clone());
        let (operations, receiver) = tokio::sync::mpsc::channel(QUEUE);
        Writer::start(opened, options, receiver, hub.clone(), clock)?;
        let room = Room::new(options.max_waiting_bytes, ENQUEUES, options.enqueue_timeout);
        Ok(Arc::new(Self {
            place,
            identity,
            turnstile,
            operations,
            asked: AtomicU64::new(0),
            readers: Arc::new(Readers { idle: Mutex::default(), _in_use: in_use }),
            reads: Semaphore::new(READS),
            hub,
            room,
            write_timeout: options.write_timeout,
        }))
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        self.place.database()
    }

    /// What happens to jobs, as it is committed.
    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Runs an operation in the next transaction and answers when that is durable. An SQL error undoes this operation
    /// alone; it may be run again, and must then do the same.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        apply: impl FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.ask(Operation::new(apply, reply)).await.ok_or_else(|| self.closed())?;
            answer.await.map_err(|_| self.closed())?
        };
        // Real time, whatever the clock: this is about another process that stands still with the lock in its hands.
        let answer = tokio::time::timeout(self.write_timeout, asked).await;
        answer.unwrap_or_else(|_| Err(StoreError::Stuck { holder: self.turnstile.holder() }))
    }

    /// Stores these jobs in one transaction, if there is room for them to wait for it.
    pub(super) async fn enqueue(&self, rows: &Arc<Vec<JobRows>>) -> Result<Vec<Admission>, StoreError> {
        let taken = self.room.take(rows.iter().map(JobRows::bytes).sum()).await?;
        let (rows, asked) = (rows.clone(), Instant::now());
        let admissions = self.write(move |tx| {
            // It is given back when the writer lets go of this.
            let _held = &taken;
            rows.iter().map(|job| tx.enqueue(job)).collect::<Result<Vec<_>, _>>()
        });
        let admissions = admissions.await?;
        self.room.got_through(asked.elapsed());
        Ok(admissions)
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
        self.ask(Operation::nudge(ready)).await;
    }

    /// Registers somebody who takes claimed jobs.
    pub(super) async fn add_claimer(&self, claimer: Arc<dyn Claimer>) {
        self.ask(Operation::add_claimer(claimer)).await;
    }

    /// Refuses to work the jobs of another user's queue as root.
    pub(super) fn check_may_work(&self) -> Result<(), StoreError> {
        self.place.check_may_work()
    }

    /// Runs a read on a connection of its own.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.reads.acquire().await.map_err(|_| StoreError::Closed)?;
        self.check_usable()?;
        let (place, readers) = (self.place.clone(), self.readers.clone());
        let query = move || read(place.database(), &readers, query);
        // It panics where the system has no thread left for this user, and that may last a moment.
        let task = catch_unwind(AssertUnwindSafe(|| tokio::task::spawn_blocking(query))).map_err(|_| StoreError::NoThread)?;
        task.await.map_err(|_| StoreError::Closed)?
    }

    /// The same on this thread, which may block.
    pub(super) fn read_here<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.check_usable()?;
        read(self.place.database(), &self.readers, query)
    }

    /// Whether the files are those that were opened, and may be used.
    fn check_usable(&self) -> Result<(), StoreError> {
        self.hub.failure().map_or_else(|| self.place.verify(&self.identity), Err)
    }

    /// Refuses to call a queue sound whose next job may find no space.
    pub(super) fn check_space(&self) -> Result<(), StoreError> {
        let free = super::filesystem::free_bytes(self.place.directory())?;
        if free < LEAST_SPACE { Err(StoreError::NoSpace { free }) } else { Ok(()) }
    }

    /// Hands an operation to the writer. None if the writer is gone.
    async fn ask(&self, operation: Operation) -> Option<()> {
        let permit = self.operations.reserve().await.ok()?;
        // Counted where nothing can come in between, so that the writer always catches up with the count.
        self.asked.fetch_add(1, Ordering::Relaxed);
        permit.send(operation);
        Some(())
    }

    /// Ends when the writer and the reads have nothing to do; answers how many operations the writer has had. For tests, which must
    /// not move the clock while anything is under way.
    pub(super) async fn at_rest(&self) -> u64 {
        loop {
            let asked = self.asked.load(Ordering::Relaxed);
            if self.hub.served() != asked && !self.operations.is_closed() {
                // Nothing changes; it is answered after what was asked before.
                self.write(|_| Ok(())).await.ok();
            } else if self.reads.available_permits() < READS {
                drop(self.reads.acquire_many(u32::try_from(READS).unwrap_or(u32::MAX)).await);
            } else {
                return asked;
            }
        }
    }
}

/// Takes the time of the processes that have the queue open, if there are any. Fails if the files are not theirs, or do not belong together.
pub(super) fn look_beside(path: &Path, clock: &QueueClock) -> Result<(), StoreError> {
    let place = match StateDirectory::open(path) {
        Ok(place) => place,
        Err(error @ StoreError::Unsafe { .. }) => return Err(error),
        // What else is wrong with the files is for the caller to find.
        Err(_) => return Ok(()),
    };
    match InUse::new(&place) {
        Ok(in_use) if place.database_id()?.is_some() => in_use.look(&place, clock),
        _ => Ok(()),
    }
}

fn read<T>(path: &Path, readers: &Readers, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let conn = idle.map_or_else(|| schema::open_reader(path), Ok)?;
    let result = query(&conn);
    let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
    if idle.len() < READERS && result.is_ok() {
        idle.push(conn);
    }
    result
}
