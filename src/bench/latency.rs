//! From the enqueue call to the start of the attempt, one job at a time; and what a second process sees beside a busy worker.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use iolaus_activities::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::noop::{Noop, Queue, worker_options};
use super::{Scratch, Settings, Spread, throughput};
use crate::client::Target;
use crate::embedded::{BareLoop, Worker};

/// Jobs of a series.
const JOBS: usize = 1_000;
/// Between two jobs at low load.
const PAUSE: Duration = Duration::from_millis(2);

/// Times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// A commit of the same rows by the bare loop, from call to answer.
    pub bare_commit: Spread,
    /// Enqueue call to the start of the attempt, in one process.
    pub pickup: Spread,
    /// The same when another process enqueues.
    pub pickup_across: Spread,
    /// Enqueue call to its answer, in a second process beside a worker that is kept busy.
    pub enqueue_beside_busy_worker: Spread,
}

pub(super) async fn measure(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Latency> {
    let (bare_commit, pickup) = in_one_process(scratch, settings).await?;
    Ok(Latency {
        bare_commit,
        pickup,
        pickup_across: across(scratch, settings).await?,
        enqueue_beside_busy_worker: beside_busy_worker(scratch, settings).await?,
    })
}

/// The bare commit and the job take turns, so that both meet the same disk.
async fn in_one_process(scratch: &Scratch, settings: &Settings) -> anyhow::Result<(Spread, Spread)> {
    let queue = Queue::open(scratch, settings)?;
    let (started, mut starts) = mpsc::unbounded_channel();
    let registry = Registry::default().with(Noop::telling(queue.clock.clone(), started));
    let worker = Worker::start(&queue.host, worker_options(registry, settings.slots)).await?;
    let client = queue.host.client();
    let bare = BareLoop::start(&scratch.file(), settings.durability, false)?;
    let verdict = throughput::verdict_of_one(&Queue::open(scratch, settings)?, settings).await?;
    let (mut commits, mut pickups) = (Vec::new(), Vec::new());
    for _ in 0..JOBS {
        let row = crate::embedded::BareJob::new(queue.job()?, &verdict);
        let called = queue.clock.monotonic();
        bare.enqueue(row).await?;
        commits.push(queue.clock.monotonic().saturating_sub(called));
        let job = queue.job_sent_now()?;
        let stored = client.enqueue(job).await?;
        pickups.push(starts.recv().await.context("it starts")?);
        client.wait(Target::run(stored.job_id, stored.run_id)).await?;
    }
    worker.drain().await?;
    Ok((Spread::of(commits), Spread::of(pickups)))
}

async fn across(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Spread> {
    let queue = Queue::open(scratch, settings)?;
    let (started, mut starts) = mpsc::unbounded_channel();
    let registry = Registry::default().with(Noop::telling(queue.clock.clone(), started));
    let worker = Worker::start(&queue.host, worker_options(registry, settings.slots)).await?;
    other_process(&queue, JOBS).await?;
    worker.drain().await?;
    let mut pickups = Vec::new();
    while let Ok(pickup) = starts.try_recv() {
        pickups.push(pickup);
    }
    Ok(Spread::of(pickups))
}

async fn beside_busy_worker(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Spread> {
    let queue = Arc::new(Queue::open(scratch, settings)?);
    let worker = Worker::start(&queue.host, worker_options(Registry::default().with(Noop::default()), settings.slots)).await?;
    let busy = async {
        loop {
            if let Err(error) = throughput::enqueue_all(&queue, settings).await {
                break error;
            }
        }
    };
    let answers = tokio::select! {
        answers = other_process(&queue, JOBS) => answers?,
        error = busy => return Err(error),
    };
    throughput::until_worked_off(&queue).await?;
    worker.drain().await?;
    Ok(Spread::of(answers))
}

/// What the other process tells.
#[derive(Serialize, Deserialize)]
struct Answers {
    micros: Vec<u64>,
}

/// Lets another process enqueue so many jobs, one at a time, and answers how long each call took there.
async fn other_process(queue: &Queue, jobs: usize) -> anyhow::Result<Vec<Duration>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--enqueuer"]).arg(&queue.path).args(["--jobs", &jobs.to_string()]);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let ended = tokio::task::spawn_blocking(move || command.output()).await??;
    anyhow::ensure!(ended.status.success(), "the enqueueing process failed");
    let told = String::from_utf8(ended.stdout)?;
    let answers: Answers = serde_json::from_str(&told)?;
    Ok(answers.micros.into_iter().map(Duration::from_micros).collect())
}

/// The other process: enqueues, one job at a time, and tells on stdout how long each call took.
pub(super) async fn enqueue_from_here(queue: &Queue, jobs: usize) -> anyhow::Result<String> {
    let client = queue.host.client();
    let mut answers = Answers { micros: Vec::with_capacity(jobs) };
    for _ in 0..jobs {
        let job = queue.job_sent_now()?;
        let called = queue.clock.monotonic();
        client.enqueue(job).await?;
        answers.micros.push(u64::try_from((queue.clock.monotonic().saturating_sub(called)).as_micros())?);
        queue.clock.sleep(PAUSE).await;
    }
    Ok(serde_json::to_string(&answers)?)
}
