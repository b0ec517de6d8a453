//! What `iolaus bench` measures: the embedded host, beside the bare thing that bounds it, on the same disk in the same run. Machines are
//! noisy; the ratios of one run are not. Not here: other queues, which have programs of their own under `benches/peers`.

mod backlog;
mod latency;
mod noop;
mod throughput;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

pub use backlog::{ClaimCost, Memory};
pub use latency::Latency;
pub use throughput::Throughput;

use crate::embedded::Durability;

/// What to measure, and how much of it.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Tasks that enqueue, one call for each job.
    pub producers: usize,
    /// Jobs of each round.
    pub jobs: usize,
    /// Attempts at once.
    pub slots: usize,
    /// Rounds, of which the median counts.
    pub rounds: usize,
    /// What a commit outlives.
    pub durability: Durability,
    /// Jobs of a large backlog.
    pub backlog: u64,
}

/// Where it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processor cores.
    pub cores: usize,
    /// The system, as it names itself.
    pub system: String,
    /// The version of this program.
    pub version: &'static str,
    /// The version of SQLite in it.
    pub sqlite: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let told = |file: &str| std::fs::read_to_string(file).map(|text| text.trim().to_owned()).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            system: format!("{} {}", std::env::consts::OS, told("/proc/sys/kernel/osrelease")),
            version: env!("CARGO_PKG_VERSION"),
            sqlite: crate::embedded::sqlite_version().to_owned(),
        }
    }
}

/// How times are spread, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    /// Half are shorter.
    pub p50_ms: f64,
    /// All but one in a hundred are.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at =
            |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self { p50_ms: ms(at(50)), p99_ms: ms(at(99)), max_ms: ms(at(100)) }
    }
}

/// A directory of the benchmark's own, which goes with it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one below `parent`.
    pub fn below(parent: &Path) -> std::io::Result<Self> {
        let path = parent.join(format!("iolaus-bench-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// A file in it that is not there yet.
    fn file(&self) -> PathBuf {
        self.0.join(format!("{}.db", uuid::Uuid::new_v4().simple()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(directory = %self.0.display(), %error, "the benchmark's files could not be removed");
        }
    }
}

/// Measures how many jobs a second go through.
pub async fn throughput(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Throughput> {
    throughput::measure(scratch, settings).await
}

/// Measures how long it takes until a job starts, and what a second process sees.
pub async fn latency(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Latency> {
    latency::measure(scratch, settings).await
}

/// Measures what claiming one job costs before backlogs of several kinds.
pub fn claims(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Vec<ClaimCost>> {
    backlog::claims(scratch, settings)
}

/// Measures the memory of worker processes.
pub async fn memory(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Memory> {
    backlog::memory(scratch, settings).await
}

/// What the benchmark's other process does: enqueues into a file, and answers with what it saw as JSON.
pub async fn enqueue_from_here(file: PathBuf, settings: &Settings) -> anyhow::Result<String> {
    latency::enqueue_from_here(&noop::Queue::at(file, settings)?, settings.jobs).await
}

/// What another one does: works a file until it is killed. `ready` is called once it does.
pub async fn work_from_here(file: PathBuf, settings: &Settings, ready: impl FnOnce()) -> anyhow::Result<std::convert::Infallible> {
    let queue = noop::Queue::at(file, settings)?;
    ready();
    backlog::work_from_here(&queue, settings).await
}
