//! The embedded host: a SQLite file, one machine, many processes. It keeps jobs (`store`), tells the process what happens to them
//! (`hub`, `wake`, `rounds`), and runs them (`worker`).
//!
//! Invariants: only the writer thread writes; nothing outside the file changes before COMMIT has returned; every write of an attempt
//! is fenced by its lease token; liveness is the worker's and is judged on the rescuer's monotonic clock; every closed execution has
//! exactly one verdict.

mod client;
mod execute;
mod files;
mod filesystem;
mod hub;
mod name;
mod rounds;
mod store;
mod wake;
mod worker;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use iolaus_activities::Clock;

pub use execute::{Executed, execute};
pub use name::is_worker_here;
pub use worker::{Worker, WorkerOptions};

use crate::client::{ClientError, JobClient};
use hub::Hub;
use store::{Store, StoreError};
use wake::Waker;

/// How to open the file.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The database file; created if it is not there.
    pub path: PathBuf,
    /// Use it on a network file system all the same.
    pub allow_network_filesystem: bool,
    /// A worker whose beat has not changed for this long is dead.
    pub worker_timeout: Duration,
    /// Closed executions are kept this long.
    pub retention: Duration,
}

impl EmbeddedOptions {
    /// The defaults, for a file.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            allow_network_filesystem: false,
            worker_timeout: Duration::from_secs(10),
            retention: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// An open database.
pub struct Embedded {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    options: EmbeddedOptions,
    rounds: OnceLock<rounds::Rounds>,
}

impl Embedded {
    /// Opens the file, creating or migrating it.
    pub fn open(options: EmbeddedOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, ClientError> {
        let opened = open_store(&options, clock.clone());
        let store = opened.map_err(|error| unavailable(&options.path.display().to_string(), error))?;
        Ok(Arc::new(Self { store, clock, options, rounds: OnceLock::new() }))
    }

    /// The door to the jobs in it.
    pub fn client(self: &Arc<Self>) -> Arc<dyn JobClient> {
        Arc::new(client::EmbeddedClient::new(self.clone()))
    }

    /// Starts to look after the file: due and expiring jobs, what other processes did. Once, by whoever first needs it.
    fn look_after(self: &Arc<Self>) {
        self.rounds.get_or_init(|| rounds::Rounds::start(self.store.clone(), self.clock.clone()));
    }

    fn unavailable(&self, error: StoreError) -> ClientError {
        unavailable(&self.store.path().display().to_string(), error)
    }
}

fn open_store(options: &EmbeddedOptions, clock: Arc<dyn Clock>) -> Result<Arc<Store>, StoreError> {
    if let Some(parent) = options.path.parent() {
        files::create_private_dir(parent)?;
    }
    Store::open(&options.path, options.allow_network_filesystem, Hub::new(Waker::new(&options.path)), clock)
}

fn unavailable(place: &str, error: StoreError) -> ClientError {
    ClientError::Unavailable { place: place.to_owned(), unknown: error.is_unknown(), source: Box::new(error) }
}
