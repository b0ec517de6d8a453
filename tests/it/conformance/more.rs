//! What others do to a job: ids, cancels, drains, retries by hand, lists, delays.

use std::sync::Arc;
use std::time::Duration;

use iolaus::client::{Cancelled, ClientError, ListFilter, Target};
use iolaus::intake::JobRequest;
use iolaus::job::{IdConflictPolicy, IdReusePolicy, JobState};
use iolaus_activities::Status;
use serde_json::json;

use super::{Case, Run, code};
use crate::support::probe::Act;

pub(super) const CASES: &[(&str, Run)] = &[
    ("the_conflict_policy_decides_while_an_execution_is_open", |case| Box::pin(conflicts(case))),
    ("the_reuse_policy_decides_once_it_is_closed", |case| Box::pin(reuse(case))),
    ("cancelling_what_waits_closes_it_at_once", |case| Box::pin(cancel_queued(case))),
    ("a_cancel_reaches_the_running_attempt_with_its_reason", |case| Box::pin(cancel_running(case))),
    ("an_open_job_of_another_tenant_is_a_conflict_whatever_the_policy", |case| Box::pin(other_tenant(case))),
    ("an_attempt_that_ignores_a_cancel_is_dropped", |case| Box::pin(cancel_ignored(case))),
    ("a_verdict_after_a_requested_cancel_still_completes", |case| Box::pin(cancel_too_late(case))),
    ("a_failure_after_a_requested_cancel_closes_as_cancelled", |case| Box::pin(cancel_then_failure(case))),
    ("a_cancel_waits_for_the_answer_to_an_effect", |case| Box::pin(cancel_during_effect(case))),
    ("an_attempt_that_a_cancel_drops_says_what_may_continue", |case| Box::pin(cancel_drops(case))),
    ("a_cancel_between_two_attempts_says_what_continues", |case| Box::pin(cancel_between_attempts(case))),
    ("the_jobs_of_one_worker_know_of_each_others_effects", |case| Box::pin(effects_of_others(case))),
    ("a_drained_attempt_goes_on_from_its_checkpoint", |case| Box::pin(drain(case))),
    ("a_delayed_job_starts_when_it_is_due", |case| Box::pin(delay(case))),
    ("many_wait_for_one_verdict_and_unknown_jobs_are_said_to_be", |case| Box::pin(waiters(case))),
    ("a_retry_by_hand_is_a_new_execution_without_the_old_checkpoint", |case| Box::pin(retry(case))),
    ("a_list_shows_open_and_closed_jobs_in_pages", |case| Box::pin(list(case))),
    ("a_job_is_shown_as_it_was_asked_for", |case| Box::pin(shown(case))),
    ("many_jobs_are_stored_at_once_and_one_refusal_keeps_no_other_out", |case| Box::pin(many(case))),
];

async fn conflicts(case: Arc<Case>) {
    let first = case.enqueue_acts("job", [Act::Pass]).await;
    let again = case.enqueue(case.job("job", [Act::Refuse])).await;
    assert!(
        matches!(&again, Err(ClientError::Conflict { run_id, state, .. }) if *run_id == first.run_id && state.is_open()),
        "{again:?}"
    );
    let request = JobRequest { id_conflict_policy: IdConflictPolicy::UseExisting, ..case.job("job", [Act::Refuse]) };
    let existing = case.enqueue(request).await.unwrap();
    assert_eq!((existing.run_id, existing.existing, first.existing), (first.run_id, true, false));
    assert!(existing.input_differs, "it was asked something else");
    let same = JobRequest { id_conflict_policy: IdConflictPolicy::UseExisting, ..case.job("job", [Act::Pass]) };
    assert!(!case.enqueue(same).await.unwrap().input_differs);
    let worker = case.worker().await;
    assert_eq!(case.verdict("job").await.status, Status::Passed);
    worker.drain().await;
}

async fn other_tenant(case: Arc<Case>) {
    let first = case.enqueue_acts("job", [Act::Pass]).await;
    let id_conflict_policy = IdConflictPolicy::UseExisting;
    let request = JobRequest { id_conflict_policy, tenant: Some("other".into()), ..case.job("job", [Act::Pass]) };
    let refused = case.enqueue(request).await;
    let Err(ClientError::OtherJob(other)) = refused else { panic!("it is another job: {refused:?}") };
    assert_eq!((other.run_id, other.tenant.as_str(), other.asked_tenant.as_str()), (first.run_id, "default", "other"));
    let worker = case.worker().await;
    assert_eq!(case.verdict("job").await.tenant, "default");
    worker.drain().await;
}

async fn reuse(case: Arc<Case>) {
    let worker = case.worker().await;
    let first = case.enqueue_acts("good", [Act::Refuse]).await;
    case.verdict("good").await;
    let with = |id: &str, policy| JobRequest { id_reuse_policy: policy, ..case.job(id, [Act::Pass]) };
    for policy in [IdReusePolicy::Reject, IdReusePolicy::AllowFailedOnly] {
        let refused = case.enqueue(with("good", policy)).await;
        assert!(
            matches!(&refused, Err(ClientError::Conflict { run_id, state: JobState::Completed, .. }) if *run_id == first.run_id),
            "a verdict `failed` is no failed job: {refused:?}"
        );
    }
    let second = case.enqueue(with("good", IdReusePolicy::Allow)).await.unwrap();
    assert_ne!(second.run_id, first.run_id);
    assert_eq!(case.verdict("good").await.status, Status::Passed);
    case.enqueue_acts("bad", [Act::Denied]).await;
    case.verdict("bad").await;
    case.enqueue(with("bad", IdReusePolicy::AllowFailedOnly)).await.unwrap();
    assert_eq!(case.verdict("bad").await.status, Status::Passed);
    worker.drain().await;
}

async fn cancel_queued(case: Arc<Case>) {
    case.enqueue_acts("job", [Act::Pass]).await;
    let client = case.host.client();
    let cancel = || client.cancel(case.target("job"), Some("not needed".into()));
    assert_eq!(cancel().await.unwrap(), Cancelled::Closed);
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, code(&verdict), verdict.attempts), (Status::Cancelled, "cancelled", 0));
    assert_eq!(verdict.message.as_deref(), Some("not needed"));
    assert_eq!(case.detail("job").await.job.state, JobState::Cancelled);
    assert_eq!(cancel().await.unwrap(), Cancelled::AlreadyClosed);
}

async fn cancel_running(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::UntilStopped]).await;
    case.until_started("job").await;
    let cancelled = case.host.client().cancel(case.target("job"), Some("enough".into())).await.unwrap();
    assert_eq!(cancelled, Cancelled::Requested);
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.message.as_deref(), verdict.attempts), (Status::Cancelled, Some("enough"), 1));
    worker.drain().await;
}

async fn cancel_ignored(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::Ignore]).await;
    case.until_started("job").await;
    case.host.client().cancel(case.target("job"), None).await.unwrap();
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, code(&verdict)), (Status::Cancelled, "cancelled"));
    worker.drain().await;
}

async fn cancel_too_late(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::Gate]).await;
    case.until_started("job").await;
    case.host.client().cancel(case.target("job"), None).await.unwrap();
    case.probe.gate.add_permits(1);
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, case.detail("job").await.job.state), (Status::Passed, JobState::Completed));
    worker.drain().await;
}

async fn cancel_then_failure(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::GateThenDenied]).await;
    case.until_started("job").await;
    case.host.client().cancel(case.target("job"), None).await.unwrap();
    case.probe.gate.add_permits(1);
    let verdict = case.verdict("job").await;
    // On a busy machine a cluster may take an attempt for lost whose end comes late.
    let attempts = if case.host.is_cluster() { verdict.attempts } else { 1 };
    assert_eq!((verdict.status, verdict.attempts), (Status::Cancelled, attempts));
    assert_eq!(case.detail("job").await.job.state, JobState::Cancelled);
    worker.drain().await;
}

async fn cancel_during_effect(case: Arc<Case>) {
    let worker = case.worker().await;
    // Longer than the grace.
    case.enqueue_acts("job", [Act::SlowEffect { checkpoint: json!({"leave": "r-1"}), takes: 4, bound: 20 }]).await;
    case.within(case.probe.sent.notified()).await;
    case.host.client().cancel(case.target("job"), None).await.unwrap();
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.message.as_deref()), (Status::Cancelled, Some("it acted on its effect")));
    assert_eq!(case.probe.effects.load(std::sync::atomic::Ordering::SeqCst), 1);
    worker.drain().await;
}

async fn cancel_drops(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::SaveThenIgnore(json!({"leave": "r-1"}))]).await;
    case.within(case.probe.sent.notified()).await;
    case.host.client().cancel(case.target("job"), Some("enough".into())).await.unwrap();
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.facts["run"].as_str()), (Status::Cancelled, Some("r-1")));
    let message = verdict.message.unwrap();
    assert!(message.starts_with("enough; ") && message.ends_with("; run r-1 continues"), "{message}");
    worker.drain().await;
}

async fn cancel_between_attempts(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::SaveThenRetryAfter(json!({"leave": "r-1"}), 600)]).await;
    case.within(async { while case.detail("job").await.job.state != JobState::Retryable {} }).await;
    let cancelled = case.host.client().cancel(case.target("job"), Some("enough".into())).await.unwrap();
    assert_eq!(cancelled, Cancelled::Closed);
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.message.as_deref()), (Status::Cancelled, Some("enough; run r-1 continues")));
    assert_eq!((verdict.facts["run"].as_str(), verdict.attempts), (Some("r-1"), 1));
    worker.drain().await;
}

async fn effects_of_others(case: Arc<Case>) {
    let worker = case.worker().await;
    let key = case.id("key");
    case.enqueue_acts("first", [Act::Reserve(key.clone())]).await;
    let first = case.verdict("first").await;
    assert_eq!((first.message.as_deref(), &first.facts["settled"]), (Some("it was first"), &json!(true)));
    case.enqueue_acts("second", [Act::Reserve(key)]).await;
    let second = case.verdict("second").await;
    assert_eq!((&second.facts["others"], &second.facts["claimed"]), (&json!([case.id("first")]), &json!(false)));
    assert!(case.detail("second").await.checkpoint.is_none(), "a conflict saves nothing");
    worker.drain().await;
}

async fn drain(case: Arc<Case>) {
    let first = case.worker().await;
    case.enqueue_acts("job", [Act::UntilStopped, Act::Pass]).await;
    let mut alone = case.job("alone", [Act::UntilStopped]);
    alone.options.maximum_attempts = Some(1);
    case.enqueue(alone).await.unwrap();
    case.until_started("job").await;
    case.until_started("alone").await;
    first.drain().await;
    if case.host.is_cluster() {
        // A drain costs an attempt there.
        assert_eq!(code(&case.verdict("alone").await), "worker.drained");
        let second = case.worker().await;
        assert_eq!((case.verdict("job").await.status, case.detail("job").await.job.attempts), (Status::Passed, 2));
        second.drain().await;
    } else {
        assert!(case.detail("alone").await.job.state.is_open());
        assert_eq!(case.detail("job").await.job.attempts, 0);
    }
}

async fn delay(case: Arc<Case>) {
    let worker = case.worker().await;
    let request = JobRequest { delay: Some(Duration::from_secs(6)), ..case.job("job", [Act::Pass]) };
    case.enqueue(request).await.unwrap();
    assert_eq!(case.detail("job").await.job.state, JobState::Scheduled);
    let verdict = case.verdict("job").await;
    assert!(verdict.duration_ms >= 6_000 && verdict.status == Status::Passed, "{verdict:?}");
    worker.drain().await;
}

async fn waiters(case: Arc<Case>) {
    let unknown = case.host.client().get(case.target("nobody")).await;
    assert!(matches!(unknown, Err(ClientError::NotFound(_))), "{unknown:?}");
    let unknown = case.host.client().wait(case.target("nobody")).await;
    assert!(matches!(unknown, Err(ClientError::NotFound(_))), "{unknown:?}");
    let worker = case.worker().await;
    let enqueued = case.enqueue_acts("job", [Act::Gate]).await;
    let target = Target::run(enqueued.job_id, enqueued.run_id);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (client, target) = (case.host.client(), target.clone());
            tokio::spawn(async move { client.wait(target).await.unwrap() })
        })
        .collect();
    case.until_started("job").await;
    case.probe.gate.add_permits(1);
    for wait in waiting {
        assert_eq!(case.within(wait).await.unwrap().status, Status::Passed);
    }
    worker.drain().await;
}

async fn retry(case: Arc<Case>) {
    let worker = case.worker().await;
    let mut request = case.job("job", [Act::SaveThenFail(vec![json!(7)]), Act::Denied]);
    request.labels = [("team".to_owned(), "data".to_owned())].into();
    let first = case.enqueue(request).await.unwrap();
    assert_eq!(case.verdict("job").await.status, Status::Unresolved);
    let client = case.host.client();
    let second = client.retry(case.target("job"), false).await.unwrap();
    assert_ne!(first.run_id, second.run_id);
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.run_id, verdict.attempts), (second.run_id.to_string(), 2));
    assert_eq!(case.probe.attempts(&case.id("job")), [1, 2, 1, 2], "attempt 1 again, and no checkpoint kept it from failing");
    assert_eq!(case.detail("job").await.labels["team"], "data");
    // By its run id the first one is still there.
    let old = client.get(Target::run(first.job_id, first.run_id)).await.unwrap();
    assert_eq!((old.job.state, old.job.run_id), (JobState::Discarded, first.run_id));
    worker.drain().await;
    case.enqueue_acts("open", [Act::Pass]).await;
    let open = client.retry(case.target("open"), false).await;
    assert!(matches!(open, Err(ClientError::StillOpen(_))), "{open:?}");
}

async fn list(case: Arc<Case>) {
    let client = case.host.client();
    case.enqueue_acts("cancelled", [Act::Pass]).await;
    client.cancel(case.target("cancelled"), None).await.unwrap();
    let worker = case.worker().await;
    case.enqueue_acts("completed", [Act::Pass]).await;
    case.enqueue_acts("discarded", [Act::Denied]).await;
    case.verdict("completed").await;
    case.verdict("discarded").await;
    worker.drain().await;
    let mut other = case.job("open", [Act::Pass]);
    other.tenant = Some("other".into());
    case.enqueue(other).await.unwrap();
    let open = JobState::ALL.into_iter().filter(|state| state.is_open()).collect::<Vec<_>>();
    for (states, id) in [
        (open, "open"),
        (vec![JobState::Completed], "completed"),
        (vec![JobState::Discarded], "discarded"),
        (vec![JobState::Cancelled], "cancelled"),
    ] {
        let filter = ListFilter { states, activity: Some("probe".into()), ..ListFilter::default() };
        assert_eq!(listed(&case, filter, 10, 1).await, [case.id(id)]);
    }
    let of_other = ListFilter { tenant: Some("other".into()), ..ListFilter::default() };
    assert_eq!(listed(&case, of_other, 10, 1).await, [case.id("open")]);
    let mut all = listed(&case, ListFilter::default(), 3, 4).await;
    all.sort_unstable();
    assert_eq!(all, ["cancelled", "completed", "discarded", "open"].map(|id| case.id(id)));
}

/// The ids of a list, page after page, once it has as many as are there: a cluster's list may lag.
async fn listed(case: &Case, filter: ListFilter, limit: usize, wanted: usize) -> Vec<String> {
    let client = case.host.client();
    case.within(async {
        loop {
            let (mut ids, mut cursor) = (Vec::new(), None);
            loop {
                let page = client.list(filter.clone(), limit, cursor).await.unwrap();
                ids.extend(page.jobs.iter().map(|job| job.job_id.to_string()));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            if ids.len() >= wanted || !case.host.is_cluster() {
                return ids;
            }
        }
    })
    .await
}

async fn shown(case: Arc<Case>) {
    let mut request = case.job("job", [Act::Echo]);
    request.input["note"] = json!("as it was");
    request.labels = [("team".to_owned(), "data".to_owned())].into();
    request.priority = Some(1);
    request.tenant = Some("other".into());
    let job = case.admit(request);
    let enqueued = case.host.client().enqueue(job.clone()).await.unwrap();
    let detail = case.detail("job").await;
    assert_eq!((detail.job.run_id, detail.job.state), (enqueued.run_id, JobState::Available));
    assert_eq!((detail.job.tenant.as_str(), detail.job.priority, detail.job.attempts), ("other", 1, 0));
    assert_eq!((&detail.input, &detail.options, &detail.labels), (&job.input, &job.options, &job.labels));
    assert_eq!((&detail.trace, detail.job.activity_version), (&job.trace, job.activity_version));
    let worker = case.worker().await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.tenant.as_str(), &verdict.facts["note"]), ("other", &json!("as it was")));
    assert_eq!(verdict.trace_id, job.trace.trace_id());
    worker.drain().await;
}

async fn many(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("taken", [Act::Gate]).await;
    let jobs = ["a", "taken", "b"].map(|id| case.admit(case.job(id, [Act::Pass]))).to_vec();
    let answers = case.host.client().enqueue_many(jobs).await.unwrap();
    assert!(matches!(&answers[..], [Ok(_), Err(ClientError::Conflict { .. }), Ok(_)]), "{answers:?}");
    assert_eq!((case.verdict("a").await.status, case.verdict("b").await.status), (Status::Passed, Status::Passed));
    case.probe.gate.add_permits(1);
    case.verdict("taken").await;
    worker.drain().await;
}
