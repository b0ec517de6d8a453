//! The life of a job: verdicts, retries, timeouts, checkpoints.

use std::sync::Arc;
use std::time::Duration;

use iolaus::intake::{JobRequest, OptionOverrides};
use iolaus::job::JobState;
use iolaus_activities::{Category, Status};
use serde_json::json;

use super::{Case, Run, code};
use crate::support::probe::Act;

const SECOND: Duration = Duration::from_secs(1);

pub(super) const CASES: &[(&str, Run)] = &[
    ("a_job_ends_with_the_activitys_own_verdict", |case| Box::pin(own_verdict(case))),
    ("a_retryable_failure_is_tried_again", |case| Box::pin(tried_again(case))),
    ("a_retry_is_never_sooner_than_the_tenant_asked", |case| Box::pin(retry_after(case))),
    ("attempts_that_are_used_up_discard_the_job", |case| Box::pin(used_up(case))),
    ("a_final_failure_is_not_tried_again", |case| Box::pin(final_failure(case))),
    ("a_code_that_the_job_calls_final_is", |case| Box::pin(final_by_option(case))),
    ("a_panic_is_a_failure_of_that_attempt_and_no_more", |case| Box::pin(panics(case))),
    ("start_to_close_drops_the_attempt", |case| Box::pin(start_to_close(case))),
    ("heartbeat_is_measured_on_the_activitys_own_signs_of_life", |case| Box::pin(heartbeat(case))),
    ("schedule_to_close_bounds_the_whole", |case| Box::pin(schedule_to_close(case))),
    ("a_delay_that_passes_schedule_to_close_ends_the_job_now", |case| Box::pin(no_time_for_a_retry(case))),
    ("schedule_to_start_closes_what_no_worker_took", |case| Box::pin(schedule_to_start(case))),
    ("the_next_attempt_starts_from_the_last_checkpoint", |case| Box::pin(checkpoints(case))),
    ("an_attempt_outlives_every_timer_of_the_host_while_it_beats", |case| Box::pin(long_attempt(case))),
    ("a_checkpoint_over_its_limit_is_refused", |case| Box::pin(large_checkpoint(case))),
    ("waits_have_slots_of_their_own", |case| Box::pin(waits(case))),
];

fn with(request: JobRequest, change: impl FnOnce(&mut OptionOverrides)) -> JobRequest {
    let mut request = request;
    change(&mut request.options);
    request
}

async fn own_verdict(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("yes", [Act::Pass]).await;
    case.enqueue_acts("no", [Act::Refuse]).await;
    let (yes, no) = (case.verdict("yes").await, case.verdict("no").await);
    assert_eq!((yes.status, yes.attempts, yes.message.as_deref()), (Status::Passed, 1, Some("it passed")));
    assert_eq!((no.status, no.failure.is_none(), no.checks[0].passed), (Status::Failed, true, false));
    let detail = case.detail("yes").await;
    assert_eq!((yes.job_id, yes.run_id.as_str()), (case.id("yes"), detail.job.run_id.to_string().as_str()));
    assert_eq!((detail.job.state, detail.job.attempts), (JobState::Completed, 1));
    assert_eq!(detail.verdict.map(|verdict| (verdict.trace_id, verdict.started_at)), Some((yes.trace_id, yes.started_at)));
    assert!(yes.started_at.is_some_and(|at| at >= yes.enqueued_at && at <= yes.finished_at));
    worker.drain().await;
}

async fn tried_again(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::Unavailable, Act::Pass]).await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 2));
    assert_eq!(case.probe.attempts(&case.id("job")), [1, 2]);
    worker.drain().await;
}

async fn retry_after(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::RetryAfter(2), Act::Pass]).await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 2));
    assert!(verdict.duration_ms >= 2_000, "{verdict:?}");
    worker.drain().await;
}

async fn used_up(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue(with(case.job("job", [Act::Unavailable]), |options| options.maximum_attempts = Some(2))).await.unwrap();
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, code(&verdict), verdict.attempts), (Status::Unresolved, "probe.unavailable", 2));
    let detail = case.detail("job").await;
    assert_eq!((detail.job.state, detail.job.attempts), (JobState::Discarded, 2));
    let last = detail.failures.last().unwrap();
    assert_eq!((last.attempt, last.failure.code.as_str()), (2, "probe.unavailable"));
    worker.drain().await;
}

async fn final_failure(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::Denied, Act::Pass]).await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, code(&verdict), verdict.attempts), (Status::Unresolved, "probe.denied", 1));
    assert_eq!((verdict.facts["who"].as_str(), verdict.failure.unwrap().category), (Some("me"), Category::Permission));
    worker.drain().await;
}

async fn final_by_option(case: Arc<Case>) {
    let worker = case.worker().await;
    let codes = vec!["probe.unavailable".to_owned()];
    case.enqueue(with(case.job("job", [Act::Unavailable]), |options| options.non_retryable_codes = Some(codes))).await.unwrap();
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Unresolved, 1));
    worker.drain().await;
}

async fn panics(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::Panic, Act::Pass]).await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 2));
    case.enqueue(with(case.job("last", [Act::Panic]), |options| options.maximum_attempts = Some(1))).await.unwrap();
    assert_eq!(code(&case.verdict("last").await), "activity.panicked");
    worker.drain().await;
}

async fn start_to_close(case: Arc<Case>) {
    let worker = case.worker().await;
    // The attempt that passes has as long: on a busy machine it needs more than a moment.
    let short = |options: &mut OptionOverrides| options.start_to_close = Some(5 * SECOND);
    case.enqueue(with(case.job("job", [Act::Ignore, Act::Pass]), short)).await.unwrap();
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 2));
    let request = with(with(case.job("last", [Act::Ignore]), short), |options| options.maximum_attempts = Some(1));
    case.enqueue(request).await.unwrap();
    assert_eq!(code(&case.verdict("last").await), "timeout.start_to_close");
    worker.drain().await;
}

async fn heartbeat(case: Arc<Case>) {
    let worker = case.worker().await;
    // Between two beats there is time for a busy machine to be late.
    let short = |options: &mut OptionOverrides| options.heartbeat = Some(Duration::from_secs(8));
    let silent = with(with(case.job("silent", [Act::Ignore]), short), |options| options.maximum_attempts = Some(1));
    case.enqueue(silent).await.unwrap();
    case.enqueue(with(case.job("alive", [Act::Beat { every: 1, times: 10 }]), short)).await.unwrap();
    assert_eq!(code(&case.verdict("silent").await), "timeout.heartbeat");
    let alive = case.verdict("alive").await;
    assert_eq!((alive.status, alive.attempts), (Status::Passed, 1));
    worker.drain().await;
}

async fn schedule_to_close(case: Arc<Case>) {
    let short = |options: &mut OptionOverrides| options.schedule_to_close = Some(SECOND);
    // Before there is a worker at all.
    case.enqueue(with(case.job("waiting", [Act::Pass]), short)).await.unwrap();
    let verdict = case.verdict("waiting").await;
    assert_eq!((verdict.status, code(&verdict), verdict.attempts), (Status::Unresolved, "timeout.schedule_to_close", 0));
    assert_eq!((verdict.started_at, case.detail("waiting").await.job.state), (None, JobState::Discarded));
    let worker = case.worker().await;
    case.enqueue(with(case.job("running", [Act::Ignore]), short)).await.unwrap();
    let verdict = case.verdict("running").await;
    assert_eq!((verdict.status, code(&verdict)), (Status::Unresolved, "timeout.schedule_to_close"));
    worker.drain().await;
}

async fn no_time_for_a_retry(case: Arc<Case>) {
    let worker = case.worker().await;
    let request = with(case.job("job", [Act::RetryAfter(600)]), |options| options.schedule_to_close = Some(60 * SECOND));
    case.enqueue(request).await.unwrap();
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, code(&verdict), verdict.attempts), (Status::Unresolved, "probe.unavailable", 1));
    worker.drain().await;
}

async fn schedule_to_start(case: Arc<Case>) {
    case.enqueue(with(case.job("job", [Act::Pass]), |options| options.schedule_to_start = Some(SECOND))).await.unwrap();
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, code(&verdict), verdict.attempts), (Status::Unresolved, "timeout.schedule_to_start", 0));
}

async fn checkpoints(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::SaveThenFail(vec![json!(1), json!(2)]), Act::Recall]).await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.attempts, &verdict.facts["checkpoint"]), (Status::Passed, 2, &json!(2)));
    assert_eq!(case.detail("job").await.checkpoint, Some(json!(2)));
    worker.drain().await;
}

/// Longer than the timers that an SDK keeps for itself: five seconds beyond the heartbeat timeout of ten.
async fn long_attempt(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::SaveEvery(3, 6)]).await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 1));
    assert_eq!(case.detail("job").await.checkpoint, Some(json!(5)));
    worker.drain().await;
}

async fn large_checkpoint(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::SaveThenFail(vec![json!("x".repeat(70_000))])]).await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, code(&verdict), verdict.attempts), (Status::Unresolved, "output.too_large", 1));
    worker.drain().await;
}

async fn waits(case: Arc<Case>) {
    let worker = case.worker().await;
    let mut wait = case.job("wait", [Act::Gate]);
    wait.input["waits"] = json!(true);
    case.enqueue(wait).await.unwrap();
    case.until_started("wait").await;
    case.probe.gate.add_permits(1);
    assert_eq!(case.verdict("wait").await.status, Status::Passed);
    worker.drain().await;
}
