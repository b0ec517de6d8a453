use std::collections::BTreeMap;

use iolaus_activities::{ActivityOptions, Category, Failure};
use jiff::ToSpan;
use serde_json::Value;

use super::*;
use crate::client::{AttemptFailure, WorkerStatus};
use crate::job::{JobId, RunId, Throttle, TraceContext};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn job(state: JobState) -> JobDetail {
    let job = Job {
        job_id: JobId::from_caller("n").expect("it is an id"),
        run_id: RunId::generate(NOW),
        activity: "publish_preflight".into(),
        activity_version: 1,
        tenant: "default".into(),
        state,
        priority: 3,
        attempts: 0,
        run_at: NOW + 90.seconds(),
        enqueued_at: NOW,
        started_at: None,
        finished_at: None,
        cancel_requested: false,
        worker: None,
        stalled_since: None,
        paused: None,
    };
    JobDetail {
        job,
        input: Value::Null,
        options: ActivityOptions::default(),
        labels: BTreeMap::new(),
        trace: TraceContext::generate(),
        checkpoint: None,
        progress: None,
        failures: Vec::new(),
        verdict: None,
        steps: Vec::new(),
    }
}

fn status(live: Option<bool>) -> Presence {
    let worker = |live| WorkerStatus {
        name: "elsewhere-1-0".into(),
        version: "0.1.0".into(),
        activities: vec!["publish_preflight".into()],
        tenants: Some(vec!["default".into()]),
        started_at: NOW,
        last_beat: NOW,
        running: 1,
        live,
        job_id: None,
    };
    let workers = live.map(worker).into_iter().collect();
    Presence { place: "q".into(), now: jiff::Timestamp::UNIX_EPOCH, workers, pauses: Vec::new(), holds: Vec::new() }
}

fn texts(detail: &JobDetail, status: &Presence, by: By) -> Vec<String> {
    holds(detail, status, &Throttles::default(), by, NOW).into_iter().map(|hold| hold.text).collect()
}

#[test]
fn a_job_that_is_not_due_yet_says_when_it_is() {
    let due = "n waits until it is due, at 1970-01-01T00:01:30.000Z";
    assert_eq!(texts(&job(JobState::Scheduled), &status(Some(true)), By::Others), [due]);
    assert_eq!(texts(&job(JobState::Scheduled), &status(None), By::Us), [due]);
    let mut failed = job(JobState::Retryable);
    let failure = Failure::new("tenant.unavailable", Category::DependencyUnavailable, "503").record();
    failed.failures.push(AttemptFailure { attempt: 2, at: NOW, failure });
    let next = "n waits for its next attempt, at 1970-01-01T00:01:30.000Z; attempt 2 failed: 503";
    assert_eq!(texts(&failed, &status(None), By::Us), [next]);
}

#[test]
fn the_hint_of_the_last_failure_stands_wherever_the_next_attempt_is_told() {
    let mut failed = job(JobState::Retryable);
    let failure = Failure::new("tenant.unreachable", Category::DependencyUnavailable, "refused").suggest("check the address");
    failed.failures.push(AttemptFailure { attempt: 1, at: NOW, failure: failure.record() });
    for line in [texts(&failed, &status(None), By::Us).remove(0), goes(&failed)] {
        assert!(line.contains("attempt 1 failed: refused") && line.ends_with("; hint: check the address"), "{line}");
    }
}

#[test]
fn a_pause_says_its_reason_and_how_it_ends() {
    let mut status = status(Some(true));
    let pause =
        |kind, name: &str, reason: Option<&str>| Pause { kind, name: name.into(), reason: reason.map(Into::into), paused_at: NOW };
    status.pauses = vec![
        pause(PauseKind::Activity, "publish_preflight", Some("maintenance")),
        pause(PauseKind::Tenant, "default", None),
        pause(PauseKind::Tenant, "acme", None),
    ];
    let told = [
        "activity publish_preflight is paused (maintenance); let it go on with: iolaus resume activity publish_preflight",
        "tenant default is paused; let it go on with: iolaus resume tenant default",
    ];
    assert_eq!(texts(&job(JobState::Available), &status, By::Us), told);
    assert_eq!(texts(&job(JobState::Available), &status, By::Others), told);
    assert_eq!(texts(&job(JobState::Running), &status, By::Others), [""; 0], "what runs is not held by it");
    assert_eq!(texts(&job(JobState::Completed), &status, By::Others), [""; 0]);
}

#[test]
fn a_tenant_that_a_worker_leaves_alone_says_which_since_when_and_why() {
    let mut status = status(Some(true));
    let hold = |tenant: &str| TenantHold {
        tenant: tenant.into(),
        worker: "elsewhere-1-0".into(),
        reason: "nobody knows us".into(),
        since: NOW,
        until: None,
    };
    status.holds = vec![hold("acme"), hold("default")];
    let told = "worker elsewhere-1-0 takes no job of tenant default since 1970-01-01T00:00:00.000Z, and goes on by itself: nobody knows us";
    assert_eq!(texts(&job(JobState::Available), &status, By::Others), [told]);
    status.workers[0].live = false;
    assert!(texts(&job(JobState::Available), &status, By::Others)[0].starts_with("no live worker"));
}

#[test]
fn a_job_that_somebody_else_holds_says_who() {
    let mut held = job(JobState::Running);
    held.job.worker = Some("elsewhere-1-0".into());
    let live = texts(&held, &status(Some(true)), By::Us);
    assert_eq!(live, ["n is held by the live worker elsewhere-1-0; its verdict is waited for here"]);
    let silent = texts(&held, &status(Some(false)), By::Us);
    assert!(silent.len() == 1 && silent[0].contains("silent since 1970"), "{silent:?}");
    assert_eq!(texts(&held, &status(Some(true)), By::Others), [""; 0], "that is how it should be");
}

#[test]
fn the_limits_that_a_due_job_is_within_are_named() {
    let limited = |max_running, max_starts_per_second| Throttle { max_running, max_starts_per_second };
    let of = |name: &str, limit| BTreeMap::from([(name.to_owned(), limit)]);
    let limits = Throttles { activities: of("publish_preflight", limited(2, 0.5)), tenants: of("default", limited(3, 0.0)) };
    let told = holds(&job(JobState::Available), &status(Some(true)), &limits, By::Others, NOW);
    assert!(
        told[0].text.ends_with(
            "a free slot for it, within limits.activities.publish_preflight.max_running = 2 and \
             limits.activities.publish_preflight.max_starts_per_second = 0.5 and limits.tenants.default.max_running = 3"
        ),
        "{told:?}"
    );
}

#[test]
fn a_worker_that_fell_silent_is_none() {
    let due = job(JobState::Available);
    let busy = texts(&due, &status(Some(true)), By::Others);
    assert_eq!(busy, ["n is due and waits for a worker to have a free slot for it"]);
    let silent = texts(&due, &status(Some(false)), By::Others);
    assert!(silent.len() == 1 && silent[0].starts_with("no live worker runs publish_preflight on q (elsewhere-1-0 is registered"));
    assert!(silent[0].ends_with("start one with: iolaus worker"), "{silent:?}");
    assert_eq!(
        texts(&due, &status(None), By::Others),
        ["no live worker runs publish_preflight on q; start one with: iolaus worker"]
    );
}
