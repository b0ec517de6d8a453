//! Jobs a second: stored, run, and both at once, beside a bare loop that commits the same rows in groups.

use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::{Registry, VerdictRecord};
use serde::Serialize;
use tokio::task::JoinSet;

use super::noop::{Noop, Queue, worker_options};
use super::{Scratch, Settings};
use crate::client::{JobClient, Target};
use crate::embedded::{BareJob, BareLoop, Worker};

/// Jobs a second; each number is the median of the rounds, which take turns.
#[derive(Debug, Clone, Serialize)]
pub struct Throughput {
    /// Stored, with no worker.
    pub enqueue: f64,
    /// Run, of a backlog that is there.
    pub run: f64,
    /// Stored while a worker runs them, until the last verdict is durable.
    pub both: f64,
    /// The bare loop, storing alone.
    pub bare_enqueue: f64,
    /// The bare loop, storing, claiming and closing.
    pub bare_both: f64,
    /// `both` over `bare_both`.
    pub ratio: f64,
    /// Every round's `both` and `bare_both`.
    pub rounds: Vec<(f64, f64)>,
}

pub(super) async fn measure(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Throughput> {
    let (mut enqueue, mut run, mut bare_enqueue, mut rounds) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds.max(1) {
        let (stored, worked) = apart(scratch, settings).await?;
        enqueue.push(stored);
        run.push(worked);
        bare_enqueue.push(bare(scratch, settings, false).await?);
        let bare_both = bare(scratch, settings, true).await?;
        rounds.push((together(scratch, settings).await?, bare_both));
    }
    let both = median(rounds.iter().map(|round| round.0));
    let bare_both = median(rounds.iter().map(|round| round.1));
    Ok(Throughput {
        enqueue: median(enqueue),
        run: median(run),
        both,
        bare_enqueue: median(bare_enqueue),
        bare_both,
        ratio: both / bare_both,
        rounds,
    })
}

/// First all are stored, then all are run.
async fn apart(scratch: &Scratch, settings: &Settings) -> anyhow::Result<(f64, f64)> {
    let queue = Arc::new(Queue::open(scratch, settings)?);
    let began = queue.clock.monotonic();
    enqueue_all(&queue, settings).await?;
    let stored = queue.clock.monotonic();
    let worker = Worker::start(&queue.host, worker_options(Registry::default().with(Noop::default()), settings.slots)).await?;
    until_worked_off(&queue).await?;
    worker.drain().await?;
    Ok((
        per_second(settings.jobs, stored.saturating_sub(began)),
        per_second(settings.jobs, queue.clock.monotonic().saturating_sub(stored)),
    ))
}

async fn together(scratch: &Scratch, settings: &Settings) -> anyhow::Result<f64> {
    let queue = Arc::new(Queue::open(scratch, settings)?);
    let worker = Worker::start(&queue.host, worker_options(Registry::default().with(Noop::default()), settings.slots)).await?;
    let began = queue.clock.monotonic();
    enqueue_all(&queue, settings).await?;
    until_worked_off(&queue).await?;
    worker.drain().await?;
    Ok(per_second(settings.jobs, queue.clock.monotonic().saturating_sub(began)))
}

pub(super) async fn enqueue_all(queue: &Arc<Queue>, settings: &Settings) -> anyhow::Result<()> {
    let client = queue.host.client();
    let mut producers = JoinSet::new();
    for share in shares(settings) {
        let (queue, client) = (queue.clone(), client.clone());
        producers.spawn(async move {
            for _ in 0..share {
                client.enqueue(queue.job()?).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = producers.join_next().await {
        done??;
    }
    Ok(())
}

/// Stores one more job, and waits for its verdict: it is the last in its lane.
pub(super) async fn until_worked_off(queue: &Queue) -> anyhow::Result<()> {
    let client: Arc<dyn JobClient> = queue.host.client();
    let last = client.enqueue(queue.job()?).await?;
    client.wait(Target::run(last.job_id, last.run_id)).await?;
    Ok(())
}

async fn bare(scratch: &Scratch, settings: &Settings, work: bool) -> anyhow::Result<f64> {
    let queue = Queue::open(scratch, settings)?;
    let verdict = verdict_of_one(&queue, settings).await?;
    let bare = Arc::new(BareLoop::start(&scratch.file(), settings.durability, work)?);
    let mut rows = Vec::with_capacity(settings.producers);
    for share in shares(settings) {
        let jobs = (0..share).map(|_| Ok(BareJob::new(queue.job()?, &verdict))).collect::<anyhow::Result<Vec<_>>>()?;
        rows.push(jobs);
    }
    let began = queue.clock.monotonic();
    let mut producers = JoinSet::new();
    for jobs in rows {
        let bare = bare.clone();
        producers.spawn(async move {
            for job in jobs {
                bare.enqueue(job).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = producers.join_next().await {
        done??;
    }
    if work {
        bare.until_finished(settings.jobs as u64).await;
    }
    Ok(per_second(settings.jobs, queue.clock.monotonic().saturating_sub(began)))
}

/// The verdict of a real job, for its bytes.
pub(super) async fn verdict_of_one(queue: &Queue, settings: &Settings) -> anyhow::Result<VerdictRecord> {
    let worker = Worker::start(&queue.host, worker_options(Registry::default().with(Noop::default()), settings.slots)).await?;
    let client = queue.host.client();
    let stored = client.enqueue(queue.job()?).await?;
    let verdict = client.wait(Target::run(stored.job_id, stored.run_id)).await?;
    worker.drain().await?;
    Ok(verdict)
}

/// How many jobs each producer stores.
fn shares(settings: &Settings) -> impl Iterator<Item = usize> {
    let (each, rest) = (settings.jobs / settings.producers, settings.jobs % settings.producers);
    (0..settings.producers).map(move |n| each + usize::from(n < rest))
}

#[expect(clippy::cast_precision_loss, reason = "far fewer jobs than 2^52")]
fn per_second(jobs: usize, time: Duration) -> f64 {
    jobs as f64 / time.as_secs_f64()
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
