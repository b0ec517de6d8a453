//! More than can be stored: what finds no room is refused, with a time to come back, and what had room is stored once the file lets it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use iolaus::client::{ClientError, Enqueued, PauseKind};
use iolaus::intake::JobRequest;
use tokio::task::JoinSet;

use crate::support::host::{TestHost, probe_job};
use crate::support::probe::Act;

/// Bytes of jobs that may wait.
const ROOM: usize = 64 * 1024;
/// Each job is counted as twice its input and a little more: three have room, a fourth has none.
const NOTE: usize = 10 * 1024;
/// Enqueues that may wait, however small they are.
const ENQUEUES: usize = 3072;

/// Holds the write lock, as another process may, until it is dropped.
fn hold(host: &TestHost) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(host.path()).expect("it opens");
    conn.execute_batch("BEGIN IMMEDIATE").expect("nobody writes");
    conn
}

fn heavy(job_id: &str) -> JobRequest {
    let mut request = probe_job(job_id, [Act::Pass]);
    request.input["note"] = "x".repeat(NOTE).into();
    request
}

/// Enqueues all of these at once.
fn enqueue_all(
    host: &TestHost,
    requests: impl IntoIterator<Item = JobRequest>,
) -> JoinSet<(String, Result<Enqueued, ClientError>)> {
    let mut calls = JoinSet::new();
    for request in requests {
        let (client, job) = (host.client.clone(), host.admit(request).expect("it is a job"));
        calls.spawn(async move { (job.job_id.to_string(), client.enqueue(job).await) });
    }
    calls
}

/// The next of these to be answered are refusals. Answers with their ids.
async fn refusals(calls: &mut JoinSet<(String, Result<Enqueued, ClientError>)>, count: usize) -> BTreeSet<String> {
    let mut refused = BTreeSet::new();
    while refused.len() < count {
        let (job_id, answer) = calls.join_next().await.expect("there are more").expect("it does not panic");
        let Err(ClientError::Overloaded { place, retry_after }) = answer else { panic!("{job_id}: {answer:?}") };
        assert!(place.ends_with("iolaus.db"), "{place}");
        assert!((Duration::from_millis(100)..=Duration::from_secs(30)).contains(&retry_after), "{retry_after:?}");
        refused.insert(job_id);
    }
    refused
}

/// The rest of these are stored. Answers with their ids.
async fn stored(mut calls: JoinSet<(String, Result<Enqueued, ClientError>)>) -> BTreeSet<String> {
    let mut stored = BTreeSet::new();
    while let Some(answered) = calls.join_next().await {
        let (job_id, answer) = answered.expect("it does not panic");
        stored.insert(answer.expect("it had room").job_id.to_string());
        assert!(stored.contains(&job_id));
    }
    stored
}

#[tokio::test]
async fn jobs_that_are_too_large_together_are_refused_and_exactly_the_acknowledged_are_stored() {
    let host = TestHost::narrow(ROOM);
    let held = hold(&host);
    let mut calls = enqueue_all(&host, (0..20).map(|n| heavy(&format!("job-{n}"))));
    let refused = refusals(&mut calls, 17).await;
    drop(held);
    let acknowledged = stored(calls).await;
    assert_eq!((acknowledged.len(), host.sql::<i64>("SELECT count(*) FROM jobs")), (3, 3));
    for job_id in &refused {
        let enqueued = host.enqueue(heavy(job_id)).await.expect("there is room again");
        assert!(!enqueued.existing, "nothing was stored of it");
    }
    let worker = host.worker().await;
    for job_id in refused.iter().chain(&acknowledged) {
        host.verdict(job_id).await;
        assert_eq!(host.probe.attempts(job_id), [1], "{job_id}");
    }
    worker.drain().await.expect("it drains");
}

#[tokio::test]
async fn a_chunk_that_is_larger_than_all_of_the_room_is_stored_alone() {
    let host = TestHost::narrow(ROOM);
    let chunk = (0..20).map(|n| host.admit(heavy(&format!("job-{n}"))).expect("it is a job")).collect();
    let held = hold(&host);
    let client = host.client.clone();
    let chunk = tokio::spawn(async move { client.enqueue_many(chunk).await });
    // Tasks of one thread start in their order.
    refusals(&mut enqueue_all(&host, [probe_job("small", [Act::Pass])]), 1).await;
    drop(held);
    let answers = chunk.await.expect("it does not panic").expect("it is stored");
    assert!(answers.iter().all(Result::is_ok) && answers.len() == 20, "{answers:?}");
}

#[tokio::test]
async fn what_a_worker_and_an_operator_write_has_room_however_many_enqueue() {
    let host = TestHost::narrow(64 << 20);
    host.enqueue_acts("running", [Act::Gate]).await;
    let worker = host.worker().await;
    host.probe.started.notified().await;
    let held = hold(&host);
    let mut calls = enqueue_all(&host, (0..ENQUEUES + 28).map(|n| probe_job(&format!("job-{n}"), [Act::Pass])));
    refusals(&mut calls, 28).await;
    let client: Arc<_> = host.client.clone();
    let paused = tokio::spawn(async move { client.pause(PauseKind::Tenant, "other".into(), None).await });
    host.probe.gate.add_permits(1);
    drop(held);
    paused.await.expect("it does not panic").expect("it is no enqueue");
    host.verdict("running").await;
    assert_eq!(stored(calls).await.len(), ENQUEUES);
    worker.drain().await.expect("it drains");
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs WHERE state = 'running'"), 0);
}
