//! What a cluster does otherwise than the embedded host: a test for each row of the table, and none without a row.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use iolaus::client::{Cancelled, ClientError, ListFilter, PauseKind, Target};
use iolaus::job::JobState;
use iolaus::sandbox::SandboxOptions;
use iolaus::sequence::{SequenceRequest, StepRequest};
use iolaus::temporal::CAPABILITIES;
use iolaus_activities::Status;
use serde_json::{Value, json};

use crate::cli::harness::{CONNECTION, Place, USER};
use crate::conformance::cluster::Queue;
use crate::conformance::{Case, code, own_name};
use crate::containers::engine;
use crate::support::cluster::{Cluster, program};
use crate::support::probe::Act;

type Row = fn(Arc<Case>, Arc<Cluster>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

const ROWS: &[(&str, Row)] = &[
    ("finer_states", |case, _| Box::pin(finer_states(case))),
    ("list_by_tenant", |case, cluster| Box::pin(list_by_tenant(case, cluster))),
    ("lists_lag", |_, cluster| Box::pin(lists_lag(cluster))),
    ("pause", |case, cluster| Box::pin(pause(case, cluster))),
    ("run_id", |case, _| Box::pin(run_id(case))),
    ("drain", |case, _| Box::pin(drain(case))),
    ("held_tenant", |_, cluster| Box::pin(held_tenant(cluster))),
    ("undo_after_cancel", |case, _| Box::pin(undo_after_cancel(case))),
    ("effects", |case, _| Box::pin(effects(case))),
    ("unknown_version", |case, _| Box::pin(unknown_version(case))),
    ("failures", |case, _| Box::pin(failures(case))),
    ("limits", |_, cluster| Box::pin(limits(cluster))),
    ("workers", |case, _| Box::pin(workers(case))),
    ("sequence_ids", |case, _| Box::pin(sequence_ids(case))),
    ("steps", |case, _| Box::pin(steps(case))),
    ("sequence_cancel", |case, _| Box::pin(sequence_cancel(case))),
    ("sequences_in_lists", |case, _| Box::pin(sequences_in_lists(case))),
    ("oldest_due", |case, _| Box::pin(oldest_due(case))),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_capability_table_is_as_it_says() {
    let told: BTreeSet<_> = CAPABILITIES.iter().map(|row| row.name).collect();
    let tested: BTreeSet<_> = ROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(told, tested, "a row without a test, or a test without a row");
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    for row in CAPABILITIES {
        let line = format!("| {} | {} | {} |", row.name.replace('_', " "), row.embedded, row.temporal);
        assert!(readme.contains(&line), "README's table lacks: {line}");
    }
    let Some(cluster) = Cluster::shared() else { return };
    let rows = ROWS.iter().map(|(name, row)| {
        let own = own_name();
        let case = Arc::new(Case::on(Arc::new(Queue::new(cluster.address(), &own)), &own));
        (*name, tokio::spawn(row(case, cluster.clone())))
    });
    let mut failed = Vec::new();
    for (name, row) in rows.collect::<Vec<_>>() {
        if let Err(error) = row.await {
            failed.push(format!("{name}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activity_that_is_completed_by_hand_has_a_verdict_that_says_so() {
    let Some(cluster) = Cluster::shared() else { return };
    let own = own_name();
    let case = Case::on(Arc::new(Queue::new(cluster.address(), &own)), &own);
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::UntilStopped]).await;
    case.until_started("job").await;
    tool(&cluster, &format!("activity complete --activity-id {} --result {{\"done\":true}}", case.id("job"))).await;
    let verdict = case.verdict("job").await;
    assert_eq!(
        (verdict.status, code(&verdict), &verdict.facts["result"]),
        (Status::Unresolved, "result.undecodable", &json!({"done": true}))
    );
    assert!(verdict.message.unwrap().contains("by hand"));
    worker.drain().await;
}

fn unsupported<T: std::fmt::Debug>(answer: &Result<T, ClientError>, says: &str) {
    assert!(
        matches!(answer, Err(ClientError::Unsupported { what, host: "temporal" }) if what.contains(says)),
        "`{says}`: {answer:?}"
    );
}

fn step(act: &Act) -> StepRequest {
    let input = json!({ "acts": [act] });
    StepRequest { activity: "probe".into(), input, ..StepRequest::default() }
}

fn sequence(case: &Case, id: &str, act: &Act) -> SequenceRequest {
    SequenceRequest { steps: vec![step(act)], job_id: Some(case.id(id)), ..SequenceRequest::default() }
}

/// The program on a task queue of its own.
fn place(cluster: &Cluster) -> Place {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("IOLAUS_HOST__KIND", "temporal");
    place.set("IOLAUS_TEMPORAL__ADDRESS", cluster.address());
    place.set("IOLAUS_TEMPORAL__TASK_QUEUE", own_name());
    place
}

async fn finer_states(case: Arc<Case>) {
    for state in JobState::ALL.into_iter().filter(|state| state.is_open()) {
        let filter = ListFilter { states: vec![state], ..ListFilter::default() };
        unsupported(&case.host.client().list(filter, 10, None).await, state.as_str());
    }
}

async fn list_by_tenant(case: Arc<Case>, cluster: Arc<Cluster>) {
    // With the attribute it is a case of the conformance suite.
    let bare = Queue::without_attribute(cluster.address(), &case.id("queue"));
    let filter = ListFilter { tenant: Some("default".into()), ..ListFilter::default() };
    unsupported(&crate::conformance::HostUnderTest::client(&bare).list(filter, 10, None).await, "temporal.tenant_attribute");
}

async fn lists_lag(cluster: Arc<Cluster>) {
    let ran = tokio::task::spawn_blocking(move || place(&cluster).run("jobs list")).await.unwrap();
    assert!(ran.code == 0 && ran.stderr.contains("seconds behind"), "{ran:?}");
}

/// Runs the cluster's own command line tool.
async fn tool(cluster: &Arc<Cluster>, words: &str) {
    let words = format!("{words} --address {}", cluster.address());
    let run = move || engine::run(program().to_str().unwrap(), words.split(' '));
    tokio::task::spawn_blocking(run).await.unwrap();
}

async fn pause(case: Arc<Case>, cluster: Arc<Cluster>) {
    let client = case.host.client();
    unsupported(&client.pause(PauseKind::Activity, "probe".into(), None).await, "a pause of activity");
    unsupported(&client.resume(PauseKind::Tenant, "default".into()).await, "a pause of tenant");
    case.enqueue_acts("job", [Act::Pass]).await;
    let id = case.id("job");
    tool(&cluster, &format!("activity pause --activity-id {id}")).await;
    let job = case.detail("job").await.job;
    let resume = job.paused.expect("it is shown as paused").resume;
    assert!(resume.starts_with(&format!("temporal activity unpause --activity-id {id} --run-id ")), "{resume}");
    let open = ListFilter { states: JobState::ALL.into_iter().filter(|state| state.is_open()).collect(), ..ListFilter::default() };
    let listed = async {
        while client.list(open.clone(), 10, None).await.unwrap().jobs.iter().all(|job| job.job_id.as_str() != id) {
            tokio::task::yield_now().await;
        }
    };
    case.within(listed).await;
    let (words, place) = resume.split_once(" --address ").expect("it says where");
    assert!(place.contains(cluster.address()) && place.ends_with("--namespace default"), "{place}");
    tool(&cluster, words.strip_prefix("temporal ").unwrap()).await;
    let worker = case.worker().await;
    assert_eq!(case.verdict("job").await.status, Status::Passed);
    worker.drain().await;
}

async fn run_id(case: Arc<Case>) {
    let job = case.admit(case.job("job", [Act::Pass]));
    let client = case.host.client();
    let first = client.enqueue(job.clone()).await.unwrap();
    assert_ne!(first.run_id, job.run_id);
    let again = client.enqueue(job).await.unwrap();
    assert_eq!(again.run_id, first.run_id, "the same request is one execution, whatever its policies say");
}

async fn drain(case: Arc<Case>) {
    let worker = case.worker().await;
    let mut request = case.job("job", [Act::UntilStopped]);
    request.options.maximum_attempts = Some(1);
    case.enqueue(request).await.unwrap();
    case.until_started("job").await;
    worker.drain().await;
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, code(&verdict), verdict.attempts), (Status::Unresolved, "worker.drained", 1));
}

async fn held_tenant(cluster: Arc<Cluster>) {
    tokio::task::spawn_blocking(move || {
        let mut place = place(&cluster);
        place.set("ATLAN_API_KEY", "nobody");
        let _worker = place.start("worker");
        let ran = place.run(&format!("execute publish_preflight {USER} {CONNECTION} --maximum-attempts 2 --initial-interval 1s"));
        let verdict: Value = ran.json();
        assert_eq!(
            (ran.code, verdict["failure"]["category"].as_str(), verdict["attempts"].as_u64()),
            (3, Some("AUTH"), Some(2)),
            "{ran:?}"
        );
    })
    .await
    .unwrap();
}

async fn undo_after_cancel(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::SaveThenRetryAfter(json!({"undo": "r-1"}), 600), Act::Undo]).await;
    case.within(async { while case.detail("job").await.job.state != JobState::Retryable {} }).await;
    assert_eq!(case.host.client().cancel(case.target("job"), None).await.unwrap(), Cancelled::Closed);
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, &verdict.facts["last_checkpoint"]), (Status::Cancelled, &json!({"undo": "r-1"})));
    assert!(verdict.message.unwrap().contains("was not undone"));
    worker.drain().await;
}

async fn effects(case: Arc<Case>) {
    let key = case.id("key");
    for id in ["first", "second"] {
        // Each by a worker of its own.
        let worker = case.worker().await;
        case.enqueue_acts(id, [Act::Reserve(key.clone())]).await;
        assert_eq!(case.verdict(id).await.message.as_deref(), Some("it was first"));
        worker.drain().await;
    }
}

async fn unknown_version(case: Arc<Case>) {
    let worker = case.worker().await;
    let mut job = case.admit(case.job("job", [Act::Pass]));
    job.activity_version = 99;
    job.options.retry.maximum_attempts = 1;
    case.host.client().enqueue(job).await.unwrap();
    let verdict = case.verdict("job").await;
    let failure = verdict.failure.clone().unwrap();
    assert_eq!((code(&verdict), failure.retryable, verdict.attempts), ("activity.version_unknown", true, 1));
    worker.drain().await;
}

async fn failures(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::Unavailable, Act::Unavailable, Act::Pass]).await;
    case.verdict("job").await;
    let failures = case.detail("job").await.failures;
    assert_eq!(failures.len(), 1, "{failures:?}");
    worker.drain().await;
}

async fn limits(cluster: Arc<Cluster>) {
    tokio::task::spawn_blocking(move || {
        let mut place = place(&cluster);
        place.set("IOLAUS_LIMITS__ACTIVITIES__PUBLISH_PREFLIGHT__MAX_RUNNING", "1");
        place.start("worker").until("[limits] is not honoured");
    })
    .await
    .unwrap();
}

async fn workers(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_acts("job", [Act::Pass]).await;
    case.verdict("job").await;
    worker.drain().await;
    // Its polls are still remembered.
    assert!(case.host.client().presence().await.unwrap().workers.iter().any(|worker| worker.live));
}

async fn sequence_ids(case: Arc<Case>) {
    case.enqueue_sequence(sequence(&case, "job", &Act::Pass)).await;
    case.enqueue_acts("job", [Act::Pass]).await;
    assert_eq!(case.detail("job").await.job.activity, "probe");
}

async fn steps(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_sequence(sequence(&case, "job", &Act::Gate)).await;
    case.until_step_started("job", 1).await;
    let step = Target::newest(format!("{}/1", case.id("job")).parse().unwrap());
    unsupported(&case.host.client().cancel(step, None).await, "a step alone");
    case.probe.gate.add_permits(1);
    assert_eq!(case.verdict("job").await.status, Status::Passed);
    worker.drain().await;
}

async fn sequence_cancel(case: Arc<Case>) {
    case.enqueue_sequence(sequence(&case, "job", &Act::Pass)).await;
    assert_eq!(case.host.client().cancel(case.target("job"), None).await.unwrap(), Cancelled::Requested);
    assert!(case.detail("job").await.job.state.is_open());
    let worker = case.worker().await;
    assert_eq!(case.verdict("job").await.status, Status::Cancelled);
    worker.drain().await;
}

async fn sequences_in_lists(case: Arc<Case>) {
    let worker = case.worker().await;
    case.enqueue_sequence(sequence(&case, "many", &Act::Pass)).await;
    case.enqueue_acts("one", [Act::Pass]).await;
    case.verdict("many").await;
    case.verdict("one").await;
    let wanted = [case.id("one"), case.id("many")];
    case.within(async {
        loop {
            let page = case.host.client().list(ListFilter::default(), 10, None).await.unwrap();
            if page.jobs.iter().map(|job| job.job_id.to_string()).eq(wanted.clone()) {
                break;
            }
        }
    })
    .await;
    worker.drain().await;
}

async fn oldest_due(case: Arc<Case>) {
    case.enqueue_acts("job", [Act::Pass]).await;
    assert_eq!(case.host.client().status().await.unwrap().oldest_due, None);
}
