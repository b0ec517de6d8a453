//! What a large backlog costs: claiming one job of it, and memory.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use iolaus_activities::{ActivityInfo, Clock, Registry};
use serde::Serialize;

use super::noop::{Noop, Queue, worker_options};
use super::{Scratch, Settings, Spread};
use crate::embedded::{Backlog, Claims, Worker, fill};

/// The backlog that the others are compared with.
const FEW: u64 = 1_000;
/// Of jobs that this worker cannot run now, no more than these.
const MOST_OTHERS: u64 = 1_000_000;
/// Claims of a round that are measured; the rounds of all backlogs take turns. The first ones of each only read the file.
const CLAIMS: usize = 40;
const ROUNDS: usize = 20;
const WARM_UP: usize = 100;
/// An idle or working process is looked at after this long.
const WHILE: Duration = Duration::from_secs(10);

/// The cost of claiming one job, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct ClaimCost {
    /// What stands in the queue.
    pub backlog: String,
    /// The median.
    pub p50_us: f64,
    /// Times that of 1,000 ready jobs.
    pub times: f64,
}

/// Memory of a worker process, in MB, and its processor time.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// With nothing to do.
    pub idle_mb: f64,
    /// Processor time of an idle worker over ten seconds, in milliseconds.
    pub idle_cpu_ms: u64,
    /// While it works a backlog: the most that was resident.
    pub working_mb: f64,
}

pub(super) fn claims(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Vec<ClaimCost>> {
    let (many, others) = (settings.backlog, settings.backlog.min(MOST_OTHERS));
    let later = Backlog { priority: 1, later: Some(Duration::from_secs(86_400)), ..Backlog::due(others) };
    let of_another_activity = Backlog { activity: Some("an_activity_unknown_here"), priority: 1, ..Backlog::due(others) };
    let of_another_tenant = Backlog { tenant: Some("another_tenant"), priority: 3, ..Backlog::due(others) };
    let few = || Backlog::due(FEW);
    let scenarios = [
        (format!("{FEW} ready"), vec![few()]),
        (format!("{many} ready"), vec![Backlog::due(many)]),
        (format!("{FEW} ready, {others} for later at higher priority"), vec![later, few()]),
        (format!("{FEW} ready, {others} of an unknown activity in front"), vec![of_another_activity, few()]),
        (format!("{FEW} ready, {others} of another tenant in front"), vec![of_another_tenant, few()]),
    ];
    let queue = Queue::open(scratch, settings)?;
    let mut files = Vec::new();
    for (_, parts) in &scenarios {
        let path = scratch.file();
        fill(&path, &queue.job()?, parts, queue.clock.now())?;
        let mut claims = Claims::open(&path, &ActivityInfo::of::<Noop>(), queue.clock.clone())?;
        for _ in 0..WARM_UP {
            claims.claim()?;
        }
        files.push((claims, Vec::with_capacity(ROUNDS * CLAIMS)));
    }
    for _ in 0..ROUNDS {
        for (claims, took) in &mut files {
            for _ in 0..CLAIMS {
                took.push(claims.claim()?);
            }
        }
    }
    let medians: Vec<f64> = files.into_iter().map(|(_, took)| Spread::of(took).p50_ms * 1e3).collect();
    let costs = scenarios.into_iter().zip(&medians);
    Ok(costs.map(|((backlog, _), p50_us)| ClaimCost { backlog, p50_us: *p50_us, times: p50_us / medians[0] }).collect())
}

pub(super) async fn memory(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Memory> {
    let queue = Queue::open(scratch, settings)?;
    let (idle, busy) = (scratch.file(), scratch.file());
    fill(&busy, &queue.job()?, &[Backlog::due(settings.backlog)], queue.clock.now())?;
    let (idle_mb, idle_cpu_ms) = look_at_worker(&idle, queue.clock.as_ref()).await?;
    let (working_mb, _) = look_at_worker(&busy, queue.clock.as_ref()).await?;
    Ok(Memory { idle_mb, idle_cpu_ms, working_mb })
}

/// The most that was resident, and the processor time, of a worker process after a while.
async fn look_at_worker(path: &Path, clock: &dyn Clock) -> anyhow::Result<(f64, u64)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--worker"]).arg(path).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process(command.spawn()?);
    let pid = process.0.id();
    let said = process.0.stdout.take().context("it is piped")?;
    let line = tokio::task::spawn_blocking(move || BufReader::new(said).lines().next()).await?;
    line.context("it says that it works")??;
    let before = cpu_ms(pid)?;
    clock.sleep(WHILE).await;
    let (after, status) = (cpu_ms(pid)?, std::fs::read_to_string(format!("/proc/{pid}/status"))?);
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("memory is told on Linux")?;
    let kilobytes: f64 = peak.trim().trim_end_matches(" kB").parse()?;
    Ok((kilobytes / 1024.0, after - before))
}

/// A process that ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            tracing::warn!(%error, "a process of the benchmark could not be ended");
        }
    }
}

/// Processor time of a process so far; Linux counts it in ticks of 10 ms.
fn cpu_ms(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum();
    Ok(ticks * 10)
}

/// The worker process: works until it is killed.
pub(super) async fn work_from_here(queue: &Queue, settings: &Settings) -> anyhow::Result<std::convert::Infallible> {
    let worker = Worker::start(&queue.host, worker_options(Registry::default().with(Noop::default()), settings.slots)).await?;
    Err(worker.failed().await.into())
}
