//! The embedded host: a SQLite file, one machine, many processes. It keeps jobs (`store`), tells the process what happens to them
//! (`hub`, `wake`, `rounds`), and runs them (`worker`).
//!
//! Invariants: only the writer thread writes; nothing outside the file changes before COMMIT has returned; every write of an attempt
//! is fenced by its lease token; liveness is the worker's and is judged on the rescuer's monotonic clock, or by what three processes saw
//! in turn; a step of the wall clock moves nothing (`queue_clock`); no transaction does more than a step of maintenance; every closed execution has exactly one verdict.

mod client;
mod disk;
mod error;
mod essential;
mod execute;
mod files;
mod filesystem;
mod hub;
mod lock_table;
mod log_limit;
mod permissions;
mod queue_clock;
mod rounds;
mod store;
mod wake;
mod wal;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use iolaus_activities::{Clock, shell_word};
use serde::Serialize;

pub use disk::DiskSpeed;
pub(crate) use execute::work;
pub use execute::{Executed, execute};
pub(crate) use queue_clock::describe as describe_step;
pub use store::{Backlog, BareJob, BareLoop, Claims, Finding, FsckOptions, FsckReport, RepairReport, Severity, fill};
pub use worker::{Readiness, Worker, WorkerOptions};

use crate::client::{ClientError, JobClient};
use crate::executor::CancelPlans;
use crate::telemetry::Metrics;
use error::StoreError;
use files::StateDirectory;
use hub::Hub;
use queue_clock::QueueClock;
use store::Store;
use wake::Waker;

/// The version of SQLite that is built in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// How to open the file.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The database file; created if it is not there.
    pub path: PathBuf,
    /// Use it on a network file system all the same.
    pub allow_network_filesystem: bool,
    /// A worker whose beat has not changed for this long is dead.
    pub worker_timeout: Duration,
    /// Closed executions are kept this long, or longer where the workers of the queue keep them longer.
    pub retention: Duration,
    /// What a commit outlives.
    pub durability: Durability,
    /// How many bytes of jobs may wait in this process to be stored. A job that is larger is stored alone.
    pub max_waiting_bytes: usize,
    /// How long an enqueue waits for room, before it is refused as overloaded.
    pub enqueue_timeout: Duration,
    /// How long a write may take, before it is answered that its fate is not known.
    pub write_timeout: Duration,
    /// Workers in a row that may die while they run one job; then it is set aside.
    pub max_deaths: u32,
    /// How many bytes of write-ahead log are no cause for a warning.
    pub wal_warn_bytes: u64,
    /// Where what happens is counted.
    pub metrics: Metrics,
    /// What the activities of the jobs in it say about cancelling them.
    pub cancel_plans: CancelPlans,
}

/// The default of [`EmbeddedOptions::max_deaths`].
pub(crate) const MAX_DEATHS: u32 = 5;

/// What a commit outlives. Only the benchmark says anything but `Full`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A power cut: SQLite's `synchronous=FULL`.
    #[default]
    Full,
    /// The end of the process, but no power cut: `synchronous=NORMAL`.
    Normal,
}

impl EmbeddedOptions {
    /// The defaults, for a file.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            allow_network_filesystem: false,
            worker_timeout: Duration::from_secs(10),
            retention: Duration::from_secs(7 * 24 * 3600),
            durability: Durability::Full,
            max_waiting_bytes: 64 << 20,
            enqueue_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(15),
            max_deaths: MAX_DEATHS,
            wal_warn_bytes: 256 << 20,
            metrics: Metrics::default(),
            cancel_plans: CancelPlans::default(),
        }
    }
}

/// An open database.
pub struct Embedded {
    store: Arc<Store>,
    clock: Arc<QueueClock>,
    options: EmbeddedOptions,
    rounds: OnceLock<rounds::Rounds>,
    maintained: AtomicBool,
}

impl Embedded {
    /// Opens the file, creating or migrating it.
    pub fn open(options: EmbeddedOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, ClientError> {
        let clock = Arc::new(QueueClock::new(clock));
        let opened = open_store(&options, clock.clone());
        let store = opened.map_err(|error| unavailable(&options.path.display().to_string(), error))?;
        Ok(Arc::new(Self { store, clock, options, rounds: OnceLock::new(), maintained: AtomicBool::new(false) }))
    }

    /// The door to the jobs in it.
    pub fn client(self: &Arc<Self>) -> Arc<dyn JobClient> {
        Arc::new(client::EmbeddedClient::new(self.clone()))
    }

    /// The time of this queue, which a step of the wall clock does not move. It is the clock for what runs its jobs.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Starts to look after the file: due and expiring jobs, what other processes did. Once, by whoever first needs it.
    fn look_after(self: &Arc<Self>) {
        self.rounds.get_or_init(|| rounds::Rounds::start(&self.store, &self.clock, self.options.wal_warn_bytes));
    }

    /// Does a bounded share of what the queue needs, once in the life of this process: where no worker runs, nothing else does. What was
    /// asked for is done already, and an error here is no error of that.
    async fn maintain(&self) {
        if self.maintained.swap(true, Ordering::Relaxed) {
            return;
        }
        let (now, retention) = (self.clock.now(), self.options.retention);
        let done = match self.store.read(move |conn| store::needs_maintenance(conn, now, retention)).await {
            Ok(true) => self.store.write(move |tx| tx.maintain(retention)).await,
            looked => looked.map(drop),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "this process's share of the queue's maintenance was not done");
        }
    }

    /// Ends when what was asked of the file before has been answered. The answer changes with every row that this process changes.
    /// For tests that own the clock: it must not move while anything is under way.
    #[doc(hidden)]
    pub async fn at_rest(&self) -> u64 {
        self.store.at_rest().await
    }

    /// Refuses to work the jobs of another user's queue with what only root may read. Asked before anything is stored to be worked here.
    pub(crate) fn check_may_work(&self) -> Result<(), ClientError> {
        self.store.check_may_work().map_err(|error| self.unavailable(error))
    }

    fn unavailable(&self, error: StoreError) -> ClientError {
        unavailable(&self.store.path().display().to_string(), error)
    }
}

/// Checks a file, beside whatever uses it, and repairs it if that is asked for. May block for long.
pub(crate) fn fsck(options: &FsckOptions, clock: Arc<dyn Clock>) -> Result<FsckReport, ClientError> {
    let clock = QueueClock::new(clock);
    let checked = store::look_beside(&options.path, &clock).and_then(|()| store::fsck(options, &clock));
    checked.map_err(|error| unavailable(&options.path.display().to_string(), error))
}

/// What is not safe about the place of a queue and still no reason to refuse it, each with the command that helps.
pub(crate) fn place_warnings(path: &Path) -> Vec<(String, String)> {
    let resolved = path.canonicalize().or_else(|_| path.parent().unwrap_or(path).canonicalize().map(|above| above.join("queue")));
    let Ok(path) = resolved else { return Vec::new() };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let open = permissions::replaceable_by_all(directory).into_iter().map(|(above, mode)| {
        let message = format!("{} is writable by every user (mode {mode:04o}), who can replace the queue in it", above.display());
        (message, format!("chmod o-w {}", shell_word(&above.to_string_lossy())))
    });
    let shared = permissions::mode_where_others_create(directory).map(|mode| {
        let message = format!(
            "{} is writable by other users (mode {mode:04o}), who can keep the queue from being opened by a file of theirs beside it",
            directory.display()
        );
        (message, "set database.path to a file in a directory of your own (mode 0700)".to_owned())
    });
    let theirs = StateDirectory::open(&path).and_then(|place| place.check_may_work()).err();
    let theirs = theirs.filter(|error| matches!(error, StoreError::Unsafe { .. }));
    open.chain(shared).chain(theirs.map(|error| (error.to_string(), error.hint().unwrap_or_default().into_owned()))).collect()
}

/// Measures the disk of a queue's file. Blocks for most of a second.
pub(crate) fn measure_disk(path: &Path, clock: &dyn Clock) -> Result<DiskSpeed, ClientError> {
    disk::measure(path, clock).map_err(|error| unavailable(&path.display().to_string(), error))
}

fn open_store(options: &EmbeddedOptions, clock: Arc<QueueClock>) -> Result<Arc<Store>, StoreError> {
    let place = StateDirectory::open(&options.path)?;
    if let (false, Some(kind)) = (options.allow_network_filesystem, filesystem::network_kind(place.directory())) {
        return Err(StoreError::NetworkFileSystem { kind });
    }
    // Nothing is left beside a file that is no queue.
    place.check_kind(store::APPLICATION_ID)?;
    let hub = Hub::new(Waker::new(place.clone())?, options.metrics.clone());
    Store::open(options, place, hub, clock)
}

fn unavailable(place: &str, error: StoreError) -> ClientError {
    if let StoreError::Overloaded { retry_after } = error {
        return ClientError::Overloaded { place: place.to_owned(), retry_after };
    }
    ClientError::Unavailable { place: place.to_owned(), unknown: error.is_unknown(), hint: error.hint(), source: Box::new(error) }
}
