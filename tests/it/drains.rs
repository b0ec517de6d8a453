//! Shutting down while jobs arrive.

use std::time::Duration;

use crate::support::host::{TestHost, probe_job, target};
use crate::support::probe::Act;

/// A claim may be under way, or delivered and not started, when a drain begins. Whatever the order, the job ends up in the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_meets_an_enqueue_leaves_nothing_running() {
    let host = TestHost::new();
    for n in 0..40 {
        let job_id = format!("n{n}");
        let worker = host.worker().await;
        let (client, job) = (host.client.clone(), host.admit(probe_job(&job_id, [Act::UntilStopped])).unwrap());
        let enqueued = tokio::spawn(async move { client.enqueue(job).await });
        host.pass_time(Duration::from_secs(1), worker.drain()).await.unwrap();
        enqueued.await.unwrap().unwrap();
        assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs WHERE state = 'running'"), 0, "round {n}");
        assert_eq!(host.sql::<i64>("SELECT count(*) FROM workers"), 0, "round {n}");
        host.client.cancel(target(&job_id), None).await.unwrap();
    }
}
