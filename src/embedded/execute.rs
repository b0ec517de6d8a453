//! Enqueues one job and works it in this process: what `iolaus execute` does. If another live worker holds it, waits for that one; if
//! a dead one does, rescues it first.

use std::future::Future;
use std::sync::Arc;

use iolaus_activities::VerdictRecord;

use super::Embedded;
use super::worker::{Worker, WorkerOptions};
use crate::client::{ClientError, Enqueued, Target};
use crate::job::NewJob;

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Executed {
    /// The execution is closed.
    Verdict(Box<VerdictRecord>),
    /// It was asked to stop before that; the job is in the queue, for the next worker.
    NotYet,
}

/// Runs one job here. `stop` ends when this process should give it back.
pub async fn execute(
    host: &Arc<Embedded>,
    options: WorkerOptions,
    job: NewJob,
    stop: impl Future<Output = ()>,
) -> Result<Executed, ClientError> {
    host.check_may_work()?;
    let enqueued = host.client().enqueue(job).await?;
    work(host, options, &enqueued, stop).await
}

/// Works one open job here. The job is stored before the worker starts: one whose id is open for another activity or tenant is refused,
/// and nothing of that other job may be worked meanwhile.
pub(crate) async fn work(
    host: &Arc<Embedded>,
    mut options: WorkerOptions,
    enqueued: &Enqueued,
    stop: impl Future<Output = ()>,
) -> Result<Executed, ClientError> {
    options.slots_work = 1;
    options.slots_waits = 1;
    let client = host.client();
    let target = Target::run(enqueued.job_id.clone(), enqueued.run_id);
    let worker = Worker::start_one(host, options, enqueued.job_id.clone()).await?;
    let executed = tokio::select! {
        biased;
        verdict = client.wait(target.clone()) => verdict.map(|verdict| Executed::Verdict(Box::new(verdict))),
        () = stop => Ok(Executed::NotYet),
    };
    // A process that was asked to stop does not wait for the drain deadline.
    let drained = worker.drain_within(std::time::Duration::ZERO).await;
    match (&executed, drained) {
        // The verdict is durable; a worker's row that stays is found dead by the next worker.
        (Ok(Executed::Verdict(_)), Err(error)) => tracing::warn!(%error, "the worker could not be unregistered"),
        (_, drained) => drained?,
    }
    match executed? {
        // The attempt may have ended the execution while it was told to stop, or on its own just before.
        Executed::NotYet => {
            Ok(host.client().get(target).await?.verdict.map_or(Executed::NotYet, |verdict| Executed::Verdict(Box::new(verdict))))
        }
        verdict @ Executed::Verdict(_) => Ok(verdict),
    }
}
