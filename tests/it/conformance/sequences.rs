//! Sequences on every host.

use std::sync::Arc;
use std::time::Duration;

use iolaus::client::{Cancelled, ClientError, ListFilter};
use iolaus::job::JobState;
use iolaus::sequence::{Gate, SequenceRequest, StepRequest};
use iolaus_activities::Status;
use serde_json::json;

use super::{Case, Run, code};
use crate::support::probe::Act;

use Gate::{Hard, Soft};

pub(super) const CASES: &[(&str, Run)] = &[
    ("steps_run_one_after_the_other_with_one_verdict_and_one_trace", |case| Box::pin(steps(case))),
    ("a_hard_step_that_does_not_pass_ends_the_sequence_as_itself", |case| Box::pin(gates(case))),
    ("a_fact_of_an_earlier_step_is_the_input_of_a_later_one", |case| Box::pin(facts(case))),
    ("cancelling_a_sequence_cancels_its_open_step_and_starts_none", |case| Box::pin(cancel(case))),
    ("schedule_to_close_bounds_all_steps_of_a_sequence", |case| Box::pin(bounded(case))),
    ("a_retry_of_a_sequence_begins_at_its_first_step", |case| Box::pin(retry(case))),
    ("the_id_policies_of_a_sequence_are_those_of_any_job", |case| Box::pin(policies(case))),
];

fn step(gate: Gate, acts: impl IntoIterator<Item = Act>) -> StepRequest {
    let acts = acts.into_iter().map(|act| serde_json::to_value(act).unwrap()).collect::<Vec<_>>();
    StepRequest { activity: "probe".into(), gate, input: json!({ "acts": acts }), ..StepRequest::default() }
}

/// Steps that are named `s1`, `s2`, ….
fn sequence(case: &Case, id: &str, steps: impl IntoIterator<Item = StepRequest>) -> SequenceRequest {
    let named = steps.into_iter().enumerate().map(|(n, step)| StepRequest { name: Some(format!("s{}", n + 1)), ..step });
    SequenceRequest { steps: named.collect(), job_id: Some(case.id(id)), ..SequenceRequest::default() }
}

async fn steps(case: Arc<Case>) {
    let worker = case.worker().await;
    let request = SequenceRequest {
        labels: [("team".to_owned(), "data".to_owned())].into(),
        priority: Some(2),
        ..sequence(&case, "job", [step(Hard, [Act::Pass]), step(Soft, [Act::Refuse]), step(Hard, [Act::Pass])])
    };
    let enqueued = case.enqueue_sequence(request).await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.activity.as_str(), verdict.status, verdict.attempts), ("sequence", Status::Passed, 0));
    assert_eq!(verdict.message.as_deref(), Some("2 of 3 steps passed; soft and not passed: s2"));
    assert_eq!(verdict.checks.iter().map(|check| check.passed).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(verdict.facts["steps"][1]["message"], "the tenant said no");
    assert_eq!(case.probe.order(), [1, 2, 3].map(|n| format!("{}/{n}", case.id("job"))));
    let detail = case.detail("job").await;
    assert_eq!(
        (detail.job.state, detail.job.run_id, detail.job.started_at.is_some()),
        (JobState::Completed, enqueued.run_id, true)
    );
    assert_eq!((verdict.run_id, detail.steps.len()), (enqueued.run_id.to_string(), 3));
    for (n, status) in [(1, Status::Passed), (2, Status::Failed), (3, Status::Passed)] {
        let target = iolaus::client::Target::newest(format!("{}/{n}", case.id("job")).parse().unwrap());
        let step = case.host.client().get(target.clone()).await.unwrap();
        assert_eq!((step.job.state, step.job.priority, step.labels["team"].as_str()), (JobState::Completed, 2, "data"));
        let own = case.host.client().wait(target).await.unwrap();
        assert_eq!(
            (own.status, own.trace_id.as_str(), detail.steps[n - 1].status),
            (status, verdict.trace_id.as_str(), Some(status))
        );
    }
    let filter = ListFilter { activity: Some("sequence".into()), ..ListFilter::default() };
    case.within(async {
        while case.host.client().list(filter.clone(), 10, None).await.unwrap().jobs.len() != 1 {
            assert!(case.host.is_cluster(), "a list of this host does not lag");
        }
    })
    .await;
    worker.drain().await;
}

async fn gates(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_sequence(sequence(&case, "no", [step(Hard, [Act::Refuse]), step(Hard, [Act::Pass])])).await;
    case.enqueue_sequence(sequence(&case, "broken", [step(Hard, [Act::Denied]), step(Hard, [Act::Pass])])).await;
    let (no, broken) = (case.verdict("no").await, case.verdict("broken").await);
    assert_eq!((no.status, no.failure.is_none(), no.checks[1].message.as_deref()), (Status::Failed, true, Some("not started")));
    assert_eq!((broken.status, code(&broken)), (Status::Unresolved, "probe.denied"));
    assert_eq!(case.detail("no").await.job.state, JobState::Completed);
    assert_eq!(case.detail("broken").await.job.state, JobState::Discarded);
    assert!(!case.probe.order().iter().any(|id| id.ends_with("/2")), "{:?}", case.probe.order());
    worker.drain().await;
}

async fn facts(case: Arc<Case>) {
    let worker = case.worker().await;
    let mut echo = step(Hard, [Act::Echo]);
    echo.input["note"] = json!({"from": "s1", "fact": "run"});
    let tells = step(Hard, [Act::Tell(json!({"run": "run-7"}))]);
    case.enqueue_sequence(sequence(&case, "told", [tells, echo.clone()])).await;
    assert_eq!(case.verdict("told").await.facts["steps"][1]["facts"]["note"], "run-7");
    case.enqueue_sequence(sequence(&case, "missing", [step(Hard, [Act::Pass]), echo])).await;
    let missing = case.verdict("missing").await;
    assert_eq!((missing.status, code(&missing)), (Status::Unresolved, "sequence.fact_missing"));
    worker.drain().await;
}

async fn cancel(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_sequence(sequence(&case, "job", [step(Hard, [Act::UntilStopped]), step(Hard, [Act::Pass])])).await;
    case.until_step_started("job", 1).await;
    let client = case.host.client();
    assert_eq!(client.cancel(case.target("job"), Some("enough".into())).await.unwrap(), Cancelled::Requested);
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, code(&verdict), verdict.message.as_deref()), (Status::Cancelled, "cancelled", Some("enough")));
    let detail = case.detail("job").await;
    assert_eq!((detail.job.state, detail.steps[0].status), (JobState::Cancelled, Some(Status::Cancelled)));
    assert!(detail.steps[1].job.is_none());
    assert_eq!(client.cancel(case.target("job"), None).await.unwrap(), Cancelled::AlreadyClosed);
    worker.drain().await;
}

async fn bounded(case: Arc<Case>) {
    let worker = case.worker().await;
    let mut request = sequence(&case, "job", [step(Hard, [Act::Pass]), step(Hard, [Act::Ignore]), step(Hard, [Act::Pass])]);
    request.schedule_to_close = Some(Duration::from_secs(2));
    case.enqueue_sequence(request).await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, code(&verdict)), (Status::Unresolved, "timeout.schedule_to_close"));
    assert_eq!(case.detail("job").await.job.state, JobState::Discarded);
    worker.drain().await;
}

async fn retry(case: Arc<Case>) {
    let worker = case.worker().await;
    let first = case.enqueue_sequence(sequence(&case, "job", [step(Hard, [Act::Denied])])).await;
    case.verdict("job").await;
    let client = case.host.client();
    let step = iolaus::client::Target::newest(format!("{}/1", case.id("job")).parse().unwrap());
    let alone = client.retry(step, false).await;
    assert!(matches!(&alone, Err(ClientError::Refused(refused)) if refused.reason.contains("is a step")), "{alone:?}");
    let second = client.retry(case.target("job"), false).await.unwrap();
    assert_ne!(first.run_id, second.run_id);
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.run_id, verdict.status), (second.run_id.to_string(), Status::Unresolved));
    worker.drain().await;
}

async fn policies(case: Arc<Case>) {
    let steps = || sequence(&case, "job", [step(Hard, [Act::Pass])]);
    let first = case.enqueue_sequence(SequenceRequest { delay: Some(Duration::from_secs(2)), ..steps() }).await;
    let using = Some(iolaus::job::IdConflictPolicy::UseExisting);
    let again = case.enqueue_sequence(SequenceRequest { id_conflict_policy: using, ..steps() }).await;
    assert_eq!((again.run_id, again.existing), (first.run_id, true));
    let worker = case.worker().await;
    let verdict = case.verdict("job").await;
    assert!(verdict.status == Status::Passed && verdict.duration_ms >= 2_000, "{verdict:?}");
    worker.drain().await;
}
