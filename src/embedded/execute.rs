//! Enqueues one job and works it in this process: what `iolaus execute` does. If another live worker holds it, waits for that one; if
//! a dead one does, rescues it first.

use std::future::Future;
use std::sync::Arc;

use iolaus_activities::VerdictRecord;

use super::Embedded;
use super::worker::{Worker, WorkerOptions};
use crate::client::{ClientError, Target};
use crate::job::NewJob;

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Executed {
    /// The execution is closed.
    Verdict(Box<VerdictRecord>),
    /// It was told to stop before that; the job is in the queue, for whoever comes next.
    NotYet,
}

/// Runs one job here. `stop` ends when this process should give it back.
pub async fn execute(
    host: &Arc<Embedded>,
    mut options: WorkerOptions,
    job: NewJob,
    stop: impl Future<Output = ()>,
) -> Result<Executed, ClientError> {
    options.slots_work = 1;
    options.slots_waits = 1;
    let client = host.client();
    let worker = Worker::start_one(host, options, job.job_id.clone()).await?;
    let job_id = job.job_id.clone();
    let ended = async {
        let enqueued = client.enqueue(job).await?;
        client.wait(Target::run(job_id, enqueued.run_id)).await
    };
    let executed = tokio::select! {
        biased;
        verdict = ended => verdict.map(|verdict| Executed::Verdict(Box::new(verdict))),
        () = stop => Ok(Executed::NotYet),
    };
    // Whoever told us to stop does not wait for the drain deadline.
    let drained = worker.drain_within(std::time::Duration::ZERO).await;
    match (&executed, drained) {
        // The verdict is durable; a worker's row that stays is found dead by the next worker.
        (Ok(Executed::Verdict(_)), Err(error)) => tracing::warn!(%error, "the worker could not be unregistered"),
        (_, drained) => drained?,
    }
    executed
}
