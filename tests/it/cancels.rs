//! Cancels of jobs that have done something at the tenant: between two attempts, during an effect, and when the worker dies. The effect
//! is undone, or the verdict says what remains of it.

use std::time::Duration;

use iolaus::client::{Cancelled, PauseKind};
use iolaus::intake::{JobRequest, OptionOverrides};
use iolaus::job::JobState;
use iolaus_activities::Status;
use serde_json::{Value, json};

use crate::support::host::{TestHost, probe_job, target};
use crate::support::probe::Act;

const SECOND: Duration = Duration::from_secs(1);

fn fails_after(checkpoint: Value, then: Act) -> [Act; 2] {
    [Act::SaveThenFail(vec![checkpoint]), then]
}

fn undo() -> Value {
    json!({"undo": "r-1"})
}

fn leave() -> Value {
    json!({"leave": "r-1"})
}

async fn until_retryable(host: &TestHost) {
    host.until("job", |job| job.state == JobState::Retryable).await;
}

#[tokio::test]
async fn a_cancel_between_two_attempts_says_what_continues_at_the_tenant() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("job", fails_after(leave(), Act::Pass)).await;
    until_retryable(&host).await;
    assert_eq!(host.client.cancel(target("job"), Some("enough".into())).await.unwrap(), Cancelled::Closed);
    let verdict = host.verdict_now("job").await;
    assert_eq!((verdict.status, verdict.message.as_deref()), (Status::Cancelled, Some("enough; run r-1 continues")));
    assert_eq!((verdict.facts["run"].as_str(), verdict.attempts), (Some("r-1"), 1));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_cancel_between_two_attempts_is_undone_at_once_by_one_last_attempt() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("job", fails_after(undo(), Act::Undo)).await;
    until_retryable(&host).await;
    assert_eq!(host.client.cancel(target("job"), None).await.unwrap(), Cancelled::LastAttempt);
    let verdict = host.verdict_now("job").await;
    assert_eq!((verdict.status, verdict.message.as_deref()), (Status::Cancelled, Some("it undid its effect")));
    assert_eq!((verdict.facts["acted"].as_bool(), verdict.attempts), (Some(true), 2));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_last_attempt_waits_for_a_worker_and_another_cancel_changes_nothing() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("job", fails_after(undo(), Act::Undo)).await;
    until_retryable(&host).await;
    worker.drain().await.unwrap();
    host.client.pause(PauseKind::Activity, "probe".into(), None).await.unwrap();
    for _ in 0..2 {
        assert_eq!(host.client.cancel(target("job"), None).await.unwrap(), Cancelled::LastAttempt);
    }
    let worker = host.worker().await;
    let job = host.detail("job").await.job;
    assert_eq!((job.state, job.cancel_requested), (JobState::Available, true));
    host.client.resume(PauseKind::Activity, "probe".into()).await.unwrap();
    assert_eq!(host.verdict_now("job").await.message.as_deref(), Some("it undid its effect"));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_last_attempt_that_cannot_undo_closes_the_job_with_its_failure() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("job", fails_after(undo(), Act::UndoFails)).await;
    until_retryable(&host).await;
    host.client.cancel(target("job"), None).await.unwrap();
    let verdict = host.verdict_now("job").await;
    assert_eq!((verdict.status, verdict.message.as_deref()), (Status::Cancelled, Some("the tenant is down")));
    assert_eq!((verdict.facts["stop_requested"].as_bool(), verdict.attempts), (Some(false), 2));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_last_attempt_that_no_worker_starts_is_given_up_with_its_execution() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let options = OptionOverrides { schedule_to_close: Some(60 * SECOND), ..OptionOverrides::default() };
    host.enqueue(JobRequest { options, ..probe_job("job", fails_after(undo(), Act::Undo)) }).await.unwrap();
    until_retryable(&host).await;
    worker.drain().await.unwrap();
    host.client.cancel(target("job"), None).await.unwrap();
    let verdict = host.verdict("job").await;
    assert_eq!((verdict.status, verdict.duration_ms, verdict.attempts), (Status::Cancelled, 60_000, 1));
    assert_eq!(verdict.facts["last_checkpoint"], undo());
    assert!(verdict.message.unwrap().ends_with("; what the job had begun was not undone; see the fact last_checkpoint"));
}

#[tokio::test]
async fn a_job_whose_worker_died_after_a_cancel_is_undone_by_another_worker() {
    let host = TestHost::with_worker_timeout(10 * SECOND);
    let dying = host.another();
    let worker = dying.worker().await;
    host.enqueue_acts("job", [Act::SaveThenIgnore(undo()), Act::Undo]).await;
    host.probe.sent.notified().await;
    assert_eq!(dying.client.cancel(target("job"), None).await.unwrap(), Cancelled::Requested);
    drop(worker);
    let rescuer = host.worker().await;
    let verdict = host.pass_time(Duration::from_millis(500), host.client.wait(target("job"))).await.unwrap();
    assert_eq!((verdict.status, verdict.attempts), (Status::Cancelled, 2));
    assert_eq!(verdict.message.as_deref(), Some("it undid its effect"));
    rescuer.drain().await.unwrap();
}

#[tokio::test]
async fn a_sequence_is_cancelled_once_the_last_attempt_of_its_step_has_undone() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let input = probe_job("step", fails_after(undo(), Act::Undo)).input;
    let steps = serde_json::from_value(json!([{"name": "one", "activity": "probe", "input": input}])).unwrap();
    let request = iolaus::sequence::SequenceRequest { steps, job_id: Some("job".into()), ..Default::default() };
    host.enqueue_sequence(request).await.unwrap();
    host.until("job/1", |job| job.state == JobState::Retryable).await;
    assert_eq!(host.client.cancel(target("job"), None).await.unwrap(), Cancelled::LastAttempt);
    let verdict = host.verdict_now("job").await;
    assert_eq!((verdict.status, &verdict.facts["steps"][0]["facts"]["acted"]), (Status::Cancelled, &json!(true)));
    worker.drain().await.unwrap();
}

fn slow_effect(takes: u64) -> Act {
    Act::SlowEffect { checkpoint: leave(), takes, bound: 30 }
}

#[tokio::test]
async fn a_cancel_during_an_effect_waits_for_the_answer_and_is_then_acted_on() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("job", [slow_effect(15)]).await;
    host.probe.sent.notified().await;
    host.client.cancel(target("job"), None).await.unwrap();
    let verdict = host.pass_time(SECOND, host.client.wait(target("job"))).await.unwrap();
    assert_eq!((verdict.status, verdict.message.as_deref()), (Status::Cancelled, Some("it acted on its effect")));
    assert_eq!(host.probe.effects.load(std::sync::atomic::Ordering::SeqCst), 1);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn an_effect_whose_answer_does_not_come_is_given_up_and_the_verdict_says_what_may_continue() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("job", [slow_effect(3_600)]).await;
    host.probe.sent.notified().await;
    host.client.cancel(target("job"), Some("enough".into())).await.unwrap();
    let verdict = host.pass_time(SECOND, host.client.wait(target("job"))).await.unwrap();
    assert_eq!((verdict.status, verdict.facts["run"].as_str()), (Status::Cancelled, Some("r-1")));
    let message = "enough; the attempt did not end in time after the cancel and was dropped; run r-1 continues";
    assert_eq!(verdict.message.as_deref(), Some(message));
    assert!((29_000..40_000).contains(&verdict.duration_ms), "the effect's bound is 30 seconds: {} ms", verdict.duration_ms);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn no_timeout_of_an_attempt_ends_it_before_the_answer_to_its_effect() {
    let timeouts = [
        OptionOverrides { start_to_close: Some(5 * SECOND), ..OptionOverrides::default() },
        OptionOverrides { heartbeat: Some(5 * SECOND), ..OptionOverrides::default() },
        OptionOverrides { schedule_to_close: Some(5 * SECOND), ..OptionOverrides::default() },
    ];
    for options in timeouts {
        let host = TestHost::new();
        let worker = host.worker().await;
        let once = OptionOverrides { maximum_attempts: Some(1), ..options };
        host.enqueue(JobRequest { options: once, ..probe_job("job", [slow_effect(15)]) }).await.unwrap();
        host.probe.sent.notified().await;
        let verdict = host.pass_time(SECOND, host.client.wait(target("job"))).await.unwrap();
        assert!(verdict.failure.is_some_and(|failure| failure.code.starts_with("timeout.")));
        assert_eq!(host.probe.effects.load(std::sync::atomic::Ordering::SeqCst), 1);
        worker.drain().await.unwrap();
    }
}

#[tokio::test]
async fn a_drain_waits_for_the_answer_to_an_effect() {
    let host = TestHost::new();
    let worker = host.worker().await;
    // The drain's deadline of 20 seconds and the grace of 10 are over sooner.
    host.enqueue_acts("job", [Act::SlowEffect { checkpoint: leave(), takes: 40, bound: 60 }, Act::Pass]).await;
    host.probe.sent.notified().await;
    host.pass_time(SECOND, worker.drain()).await.unwrap();
    assert_eq!(host.probe.effects.load(std::sync::atomic::Ordering::SeqCst), 1);
    let job = host.detail("job").await.job;
    assert_eq!((job.state, job.attempts), (JobState::Available, 0));
}
