//! The life of a job on the embedded host: every rule of states, attempts, timeouts, cancels and ids.

use std::time::Duration;

use iolaus::client::{Cancelled, ClientError, ListFilter};
use iolaus::intake::{JobRequest, OptionOverrides};
use iolaus::job::{IdConflictPolicy, IdReusePolicy, JobState};
use iolaus_activities::{Clock, Status};
use serde_json::json;

use crate::support::host::{TestHost, probe_job, target};
use crate::support::probe::Act;

fn code(verdict: &iolaus_activities::VerdictRecord) -> &str {
    verdict.failure.as_ref().map_or("", |failure| failure.code.as_str())
}

#[tokio::test]
async fn a_job_ends_with_the_activitys_own_verdict() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("yes", [Act::Pass]).await;
    host.enqueue_acts("no", [Act::Refuse]).await;
    let yes = host.verdict("yes").await;
    assert_eq!((yes.status, yes.attempts, yes.message.as_deref()), (Status::Passed, 1, Some("it passed")));
    assert_eq!(yes.trace_id.len(), 32);
    let no = host.verdict("no").await;
    assert_eq!((no.status, no.checks.len(), no.failure), (Status::Failed, 1, None));
    assert_eq!(host.detail("no").await.job.state, JobState::Completed, "a verdict `failed` is no failed job");
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_passing_failure_is_retried_after_its_delay_and_counted() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("flaky", [Act::Unavailable, Act::RetryAfter(90), Act::Pass]).await;
    // By the policy at jitter 0.5, then as long as the tenant asked for.
    for (attempt, delay) in [(1, Duration::from_millis(750)), (2, Duration::from_secs(90))] {
        let job = host.until("flaky", |job| job.state == JobState::Retryable && job.attempts == attempt).await;
        assert_eq!(Duration::try_from(job.run_at.duration_since(host.clock.now())).unwrap(), delay);
        host.pass(delay).await;
    }
    let verdict = host.verdict_now("flaky").await;
    assert_eq!((verdict.status, verdict.attempts, verdict.duration_ms), (Status::Passed, 3, 90_750));
    assert_eq!(host.probe.attempts("flaky"), [1, 2, 3]);
    let failures = host.detail("flaky").await.failures;
    assert_eq!(failures.iter().map(|failure| failure.attempt).collect::<Vec<_>>(), [1, 2]);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn attempts_that_are_used_up_and_failures_that_are_final_discard_the_job() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("down", [Act::Unavailable]).await;
    host.enqueue_acts("denied", [Act::Denied]).await;
    let down = host.verdict("down").await;
    assert_eq!((down.status, down.attempts, code(&down)), (Status::Unresolved, 4, "probe.unavailable"));
    let denied = host.verdict("denied").await;
    assert_eq!((denied.status, denied.attempts, code(&denied)), (Status::Unresolved, 1, "probe.denied"));
    assert_eq!(denied.facts["who"], "me", "a failure's facts are the verdict's");
    assert_eq!(host.detail("denied").await.job.state, JobState::Discarded);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_panic_is_a_failure_of_that_attempt_and_no_more() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("panics", [Act::Panic, Act::Pass]).await;
    assert_eq!(host.verdict("panics").await.status, Status::Passed);
    let failures = host.detail("panics").await.failures;
    assert_eq!(failures[0].failure.code, "activity.panicked");
    assert!(failures[0].failure.message.contains("the probe panics"));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn the_next_attempt_starts_from_the_last_checkpoint() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("steps", [Act::SaveThenFail(vec![json!(1), json!({"step": 2})]), Act::Recall]).await;
    assert_eq!(host.verdict("steps").await.facts["checkpoint"], json!({"step": 2}));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_over_its_limit_is_refused_with_its_size() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("fat", [Act::SaveThenFail(vec![json!("x".repeat(64 * 1024))])]).await;
    let verdict = host.verdict("fat").await;
    assert_eq!((verdict.attempts, code(&verdict)), (1, "output.too_large"));
    assert!(verdict.message.unwrap().contains("65538 bytes"));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn start_to_close_drops_the_attempt_and_tries_again() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("slow", [Act::Sleep(61), Act::Pass]).await;
    let verdict = host.verdict("slow").await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 2));
    assert_eq!(host.detail("slow").await.failures[0].failure.code, "timeout.start_to_close");
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_heartbeat_timeout_is_measured_on_the_activitys_own_signs_of_life() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let mut lively = probe_job("lively", [Act::Beat { every: 5, times: 9 }]);
    lively.options.heartbeat = Some(Duration::from_secs(8));
    let mut silent = probe_job("silent", [Act::Sleep(9), Act::Pass]);
    silent.options.heartbeat = Some(Duration::from_secs(8));
    host.enqueue(lively).await.unwrap();
    assert_eq!(host.verdict("lively").await.attempts, 1);
    host.enqueue(silent).await.unwrap();
    assert_eq!(host.verdict("silent").await.attempts, 2);
    assert_eq!(host.detail("silent").await.failures[0].failure.code, "timeout.heartbeat");
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn schedule_to_close_bounds_the_whole_whether_waiting_or_running() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let bounded = |id, acts: Vec<Act>| {
        let options = OptionOverrides { schedule_to_close: Some(Duration::from_secs(30)), ..OptionOverrides::default() };
        JobRequest { options, ..probe_job(id, acts) }
    };
    host.enqueue(bounded("running", vec![Act::Sleep(31)])).await.unwrap();
    let running = host.verdict("running").await;
    assert_eq!((running.status, code(&running)), (Status::Unresolved, "timeout.schedule_to_close"));
    host.enqueue(bounded("postponed", vec![Act::RetryAfter(31)])).await.unwrap();
    let postponed = host.verdict("postponed").await;
    assert_eq!((postponed.attempts, code(&postponed)), (1, "probe.unavailable"), "a delay past the bound closes now");
    assert!(postponed.duration_ms < 30_000);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn schedule_to_start_closes_what_no_worker_took() {
    let host = TestHost::new();
    let mut job = probe_job("unclaimed", [Act::Pass]);
    job.options.schedule_to_start = Some(Duration::from_secs(10));
    host.enqueue(job).await.unwrap();
    host.pass(Duration::from_secs(10)).await;
    let verdict = host.verdict_now("unclaimed").await;
    assert_eq!((verdict.status, verdict.attempts, code(&verdict)), (Status::Unresolved, 0, "timeout.schedule_to_start"));
    assert_eq!((verdict.started_at, verdict.duration_ms), (None, 10_000));
}

#[tokio::test]
async fn a_delayed_job_starts_when_it_is_due() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue(JobRequest { delay: Some(Duration::from_secs(3600)), ..probe_job("later", [Act::Pass]) }).await.unwrap();
    assert_eq!(host.detail("later").await.job.state, JobState::Scheduled);
    host.pass(Duration::from_secs(3_600)).await;
    let verdict = host.verdict_now("later").await;
    assert_eq!(verdict.duration_ms, 3_600_000);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn jobs_start_by_priority() {
    let host = TestHost::new();
    for (id, priority) in [("e", 5), ("c", 3), ("a", 1)] {
        host.enqueue(JobRequest { priority: Some(priority), ..probe_job(id, [Act::Pass]) }).await.unwrap();
    }
    let options = iolaus::embedded::WorkerOptions { slots_work: 1, ..host.worker_options() };
    let worker = iolaus::embedded::Worker::start(&host.embedded, options).await.unwrap();
    for id in ["e", "c", "a"] {
        host.verdict(id).await;
    }
    assert_eq!(host.probe.order(), ["a", "c", "e"]);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn cancelling_what_waits_closes_it_at_once() {
    let host = TestHost::new();
    host.enqueue_acts("queued", [Act::Pass]).await;
    let cancelled = host.client.cancel(target("queued"), Some("not needed".into())).await.unwrap();
    assert_eq!(cancelled, Cancelled::Closed);
    let verdict = host.verdict("queued").await;
    assert_eq!((verdict.status, verdict.attempts, code(&verdict)), (Status::Cancelled, 0, "cancelled"));
    assert_eq!(verdict.message.as_deref(), Some("not needed"));
    assert_eq!(host.client.cancel(target("queued"), None).await.unwrap(), Cancelled::AlreadyClosed);
}

#[tokio::test]
async fn a_running_attempt_is_told_to_stop_and_closes_as_cancelled() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("polite", [Act::UntilStopped]).await;
    host.probe.started.notified().await;
    assert_eq!(host.client.cancel(target("polite"), Some("enough".into())).await.unwrap(), Cancelled::Requested);
    let verdict = host.verdict("polite").await;
    assert_eq!((verdict.status, verdict.message.as_deref()), (Status::Cancelled, Some("enough")));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn an_attempt_that_ignores_a_cancel_is_dropped_after_the_grace() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("deaf", [Act::Ignore]).await;
    host.probe.started.notified().await;
    host.client.cancel(target("deaf"), None).await.unwrap();
    let verdict = host.pass_time(Duration::from_secs(1), host.client.wait(target("deaf"))).await.unwrap();
    assert_eq!(verdict.status, Status::Cancelled);
    assert!((10_000..13_000).contains(&verdict.duration_ms), "the grace is ten seconds: {} ms", verdict.duration_ms);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_verdict_that_comes_after_a_requested_cancel_still_completes() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("late", [Act::Gate]).await;
    host.probe.started.notified().await;
    host.client.cancel(target("late"), None).await.unwrap();
    host.probe.gate.add_permits(1);
    assert_eq!(host.verdict("late").await.status, Status::Passed);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_drained_attempt_gives_its_number_back() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("moved", [Act::UntilStopped]).await;
    host.probe.started.notified().await;
    host.pass_time(Duration::from_secs(1), worker.drain()).await.unwrap();
    let job = host.detail("moved").await.job;
    assert_eq!((job.state, job.attempts), (JobState::Available, 0));
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM workers"), 0, "a worker that drained is gone");
    assert_eq!(host.sql::<i64>("SELECT drains FROM jobs"), 1);
    host.client.cancel(target("moved"), None).await.unwrap();
}

#[tokio::test]
async fn the_job_of_a_dead_worker_is_rescued_and_its_lost_attempt_counts() {
    let host = TestHost::with_worker_timeout(Duration::from_secs(10));
    let dying = host.another();
    let worker = dying.worker().await;
    host.enqueue_acts("orphan", [Act::Gate, Act::Pass]).await;
    host.probe.started.notified().await;
    // It renews nothing any more, as after kill -9; its attempt even goes on.
    drop(worker);
    let rescuer = host.worker().await;
    let verdict = host.pass_time(Duration::from_millis(500), host.client.wait(target("orphan"))).await.unwrap();
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 2));
    assert_eq!(host.detail("orphan").await.failures[0].failure.code, "worker.lost");
    rescuer.drain().await.unwrap();
}

#[tokio::test]
async fn an_attempt_that_lost_its_lease_writes_nothing() {
    let host = TestHost::with_worker_timeout(Duration::from_secs(10));
    let frozen = host.another();
    let worker = frozen.worker().await;
    host.enqueue_acts("stolen", [Act::Gate, Act::Refuse]).await;
    host.probe.started.notified().await;
    drop(worker);
    let rescuer = host.worker().await;
    let verdict = host.pass_time(Duration::from_millis(500), host.client.wait(target("stolen"))).await.unwrap();
    assert_eq!(verdict.status, Status::Failed);
    // Now the first attempt wakes up and wants to say `passed`.
    host.probe.gate.add_permits(1);
    host.clock.until_at_rest().await;
    assert_eq!(host.detail("stolen").await.verdict.unwrap().status, Status::Failed);
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM job_verdicts"), 1);
    rescuer.drain().await.unwrap();
}

#[tokio::test]
async fn the_conflict_policy_decides_while_an_execution_is_open() {
    let host = TestHost::new();
    let first = host.enqueue_acts("one", [Act::Pass]).await;
    let refused = host.enqueue(probe_job("one", [Act::Pass])).await;
    assert!(matches!(refused, Err(ClientError::Conflict { state: JobState::Available, .. })), "{refused:?}");
    let existing = JobRequest { id_conflict_policy: IdConflictPolicy::UseExisting, ..probe_job("one", [Act::Refuse]) };
    let existing = host.enqueue(existing).await.unwrap();
    assert_eq!((existing.run_id, existing.existing), (first.run_id, true));
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs"), 1);
}

#[tokio::test]
async fn the_reuse_policy_decides_once_it_is_closed() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let with = |id: &str, policy| JobRequest { id_reuse_policy: policy, ..probe_job(id, [Act::Refuse]) };
    host.enqueue_acts("refused", [Act::Refuse]).await;
    host.verdict("refused").await;
    host.enqueue_acts("dead", [Act::Denied]).await;
    host.verdict("dead").await;
    for (id, policy, admitted) in [
        ("refused", IdReusePolicy::Reject, false),
        ("refused", IdReusePolicy::AllowFailedOnly, false),
        ("refused", IdReusePolicy::Allow, true),
        ("dead", IdReusePolicy::Reject, false),
        ("dead", IdReusePolicy::AllowFailedOnly, true),
    ] {
        let answer = host.enqueue(with(id, policy)).await;
        assert_eq!(answer.is_ok(), admitted, "{id} under {policy:?}: {answer:?}");
        host.verdict(id).await;
    }
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn sending_the_same_execution_again_stores_it_once() {
    let host = TestHost::new();
    let job = host.admit(probe_job("again", [Act::Pass])).unwrap();
    let first = host.client.enqueue(job.clone()).await.unwrap();
    assert_eq!(host.client.enqueue(job).await.unwrap(), first);
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs"), 1);
}

#[tokio::test]
async fn a_retry_by_hand_is_a_new_execution_without_the_old_checkpoint() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let acts = [Act::SaveThenFail(vec![json!("old")]), Act::Denied];
    let first = host.enqueue_acts("redo", acts).await;
    assert!(matches!(host.client.retry(target("redo"), false).await, Err(ClientError::StillOpen(_))));
    host.verdict("redo").await;
    let again = host.client.retry(target("redo"), false).await.unwrap();
    assert_ne!(again.run_id, first.run_id);
    let verdict = host.verdict("redo").await;
    assert_eq!((verdict.run_id, verdict.attempts), (again.run_id.to_string(), 2));
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs WHERE job_id = 'redo'"), 2);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn an_ambiguous_execution_is_retried_only_with_consent() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("maybe", [Act::Denied]).await;
    host.verdict("maybe").await;
    let forge = "UPDATE job_verdicts SET code = 'rerun.ambiguous', verdict = json_set(verdict, '$.failure.code', 'rerun.ambiguous', \
                 '$.failure.suggested_action', 'iolaus execute workflow_rerun since=T')";
    rusqlite::Connection::open(host.path()).unwrap().execute(forge, []).unwrap();
    let Err(ClientError::NeedsAcceptDuplicate { instead, .. }) = host.client.retry(target("maybe"), false).await else {
        panic!("it must not be retried");
    };
    assert_eq!(instead.as_deref(), Some("iolaus execute workflow_rerun since=T"));
    host.client.retry(target("maybe"), true).await.unwrap();
    host.verdict("maybe").await;
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_paused_activity_waits_until_it_is_resumed() {
    let host = TestHost::new();
    let kind = iolaus::client::PauseKind::Activity;
    host.client.pause(kind, "probe".into(), Some("maintenance".into())).await.unwrap();
    let worker = host.worker().await;
    host.enqueue_acts("held", [Act::Pass]).await;
    assert_eq!(host.detail("held").await.job.state, JobState::Available);
    assert_eq!(host.client.presence().await.unwrap().pauses[0].reason.as_deref(), Some("maintenance"));
    assert!(host.client.resume(kind, "probe".into()).await.unwrap());
    assert_eq!(host.verdict("held").await.status, Status::Passed);
    assert!(!host.client.resume(kind, "probe".into()).await.unwrap());
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_stored_input_that_no_longer_decodes_is_a_final_failure() {
    let host = TestHost::new();
    host.enqueue_acts("old", [Act::Pass]).await;
    rusqlite::Connection::open(host.path()).unwrap().execute("UPDATE job_inputs SET input = '{\"gone\":1}'", []).unwrap();
    let worker = host.worker().await;
    let verdict = host.verdict("old").await;
    assert_eq!((verdict.attempts, code(&verdict)), (1, "input.undecodable"));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn jobs_of_unknown_activities_and_versions_wait() {
    let host = TestHost::new();
    host.enqueue_acts("newer", [Act::Pass]).await;
    host.enqueue_acts("foreign", [Act::Pass]).await;
    host.tamper("UPDATE jobs SET activity_version = 2 WHERE job_id = 'newer'");
    host.tamper("UPDATE jobs SET activity = 'unheard_of' WHERE job_id = 'foreign'");
    let worker = host.worker().await;
    host.enqueue_acts("known", [Act::Pass]).await;
    host.verdict("known").await;
    for id in ["newer", "foreign"] {
        assert_eq!(host.detail(id).await.job.state, JobState::Available, "{id}");
    }
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn waits_take_no_slot_from_work() {
    let host = TestHost::new();
    let options = iolaus::embedded::WorkerOptions { slots_work: 1, slots_waits: 1, ..host.worker_options() };
    let worker = iolaus::embedded::Worker::start(&host.embedded, options).await.unwrap();
    let mut waiting = probe_job("waiting", [Act::Gate]);
    waiting.input["waits"] = json!(true);
    host.enqueue(waiting).await.unwrap();
    host.probe.started.notified().await;
    host.enqueue_acts("working", [Act::Pass]).await;
    assert_eq!(host.verdict("working").await.status, Status::Passed);
    host.probe.gate.add_permits(1);
    host.verdict("waiting").await;
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_list_shows_the_newest_first_in_pages() {
    let host = TestHost::new();
    for id in ["a", "b", "c"] {
        host.enqueue_acts(id, [Act::Pass]).await;
    }
    host.client.cancel(target("b"), None).await.unwrap();
    let ids = |page: &iolaus::client::JobPage| page.jobs.iter().map(|job| job.job_id.to_string()).collect::<Vec<_>>();
    let first = host.client.list(ListFilter::default(), 2, None).await.unwrap();
    assert_eq!(ids(&first), ["c", "b"]);
    let rest = host.client.list(ListFilter::default(), 2, first.next_cursor).await.unwrap();
    assert_eq!((ids(&rest), rest.next_cursor), (vec!["a".to_owned()], None));
    let cancelled = ListFilter { states: vec![JobState::Cancelled], ..ListFilter::default() };
    assert_eq!(ids(&host.client.list(cancelled, 10, None).await.unwrap()), ["b"]);
    for limit in [0, 1001] {
        assert!(matches!(host.client.list(ListFilter::default(), limit, None).await, Err(ClientError::Refused(_))));
    }
}

#[tokio::test]
async fn progress_that_stands_still_is_shown_and_kills_nothing() {
    let host = TestHost::new();
    let options = iolaus::embedded::WorkerOptions { stall_after: Duration::from_secs(20), ..host.worker_options() };
    let worker = iolaus::embedded::Worker::start(&host.embedded, options).await.unwrap();
    host.enqueue_acts("stuck", [Act::Gate]).await;
    host.probe.started.notified().await;
    host.clock.advance(Duration::from_secs(21)).await;
    assert!(host.detail("stuck").await.job.stalled_since.is_some());
    host.probe.gate.add_permits(1);
    assert_eq!(host.verdict("stuck").await.attempts, 1);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn progress_over_its_limit_is_shown_as_its_size_alone() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("loud", [Act::Shout(64 * 1024)]).await;
    host.probe.started.notified().await;
    host.clock.until_at_rest().await;
    assert_eq!(host.detail("loud").await.progress.unwrap(), json!({"progress_dropped_bytes": 64 * 1024 + 2}));
    host.probe.gate.add_permits(1);
    host.verdict("loud").await;
    worker.drain().await.unwrap();
}
