//! Every database file that a version of this program wrote opens in this one, and its jobs go on. There is one file for each schema
//! version since the fourth, `tests/fixtures/queue-vN.db`. Whoever adds a schema version writes its file, once, with
//! `cargo test --test it -- --ignored files::write_the_file_of_this_version`, and never touches those that are there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use iolaus::client::PauseKind;
use iolaus::intake::JobRequest;
use iolaus::job::{JobState, Throttle, Throttles};
use iolaus::sequence::{SequenceRequest, StepRequest};
use iolaus_activities::Status;
use serde_json::json;

use crate::support::host::{TestHost, probe_job, target};
use crate::support::probe::Act;

/// Its parts of before the fourth are in `upgrades.rs`.
const FIRST: usize = 4;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn file_of(version: usize) -> PathBuf {
    directory().join(format!("queue-v{version}.db"))
}

/// The version of this build's schema.
fn version() -> usize {
    usize::try_from(TestHost::new().sql::<i64>("PRAGMA user_version")).unwrap()
}

fn throttled() -> Arc<Throttles> {
    let throttle = Throttle { max_running: 0, max_starts_per_second: 1000.0 };
    Arc::new(Throttles { activities: [("probe".to_owned(), throttle)].into(), ..Throttles::default() })
}

/// A queue with a job in every state.
#[tokio::test]
#[ignore = "writes the file of a new schema version, once"]
async fn write_the_file_of_this_version() {
    let mut host = TestHost::with_worker_timeout(Duration::from_secs(10));
    host.throttles = throttled();
    let worker = host.worker().await;
    host.enqueue_acts("passed", [Act::Pass]).await;
    host.enqueue_acts("failed", [Act::Refuse]).await;
    host.enqueue_acts("dead", [Act::Denied]).await;
    for id in ["passed", "failed", "dead"] {
        host.verdict(id).await;
    }
    host.enqueue_acts("retried", [Act::SaveThenFail(vec![json!({"step": 2})]), Act::Recall]).await;
    host.until_sql("SELECT count(*) = 1 FROM jobs WHERE state = 'retryable'").await;
    host.client.pause(PauseKind::Tenant, "other".into(), Some("maintenance".into())).await.unwrap();
    host.enqueue(JobRequest { tenant: Some("other".into()), ..probe_job("held", [Act::Pass]) }).await.unwrap();
    host.enqueue(JobRequest { delay: Some(Duration::from_secs(600)), ..probe_job("later", [Act::Pass]) }).await.unwrap();
    host.enqueue(JobRequest { delay: Some(Duration::from_secs(60)), ..probe_job("cancelled", [Act::Pass]) }).await.unwrap();
    host.client.cancel(target("cancelled"), Some("not today".into())).await.unwrap();
    let step = |name: &str, act| StepRequest {
        name: Some(name.into()),
        activity: "probe".into(),
        input: json!({ "acts": [act] }),
        ..StepRequest::default()
    };
    let steps = vec![step("first", json!("pass")), step("second", json!("gate")), step("third", json!("pass"))];
    host.enqueue_sequence(SequenceRequest { steps, job_id: Some("sequence".into()), ..SequenceRequest::default() }).await.unwrap();
    host.enqueue_acts("running", [Act::Gate, Act::Pass]).await;
    host.until_sql("SELECT count(*) = 2 FROM jobs WHERE state = 'running' AND worker_id IS NOT NULL").await;
    let to = file_of(version());
    assert!(!to.exists(), "{} is there, and stays as it is", to.display());
    let copy = format!("VACUUM INTO '{}'", to.display());
    rusqlite::Connection::open(host.path()).unwrap().execute_batch(&copy).unwrap();
    host.probe.gate.add_permits(2);
    host.client.resume(PauseKind::Tenant, "other".into()).await.unwrap();
    for id in ["running", "sequence", "held", "later", "retried"] {
        host.verdict(id).await;
    }
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn the_file_of_every_version_opens_and_its_jobs_go_on() {
    let newest = version();
    for version in FIRST..=newest {
        let file = file_of(version);
        assert!(file.exists(), "there is no {}: see the head of this file", file.display());
        jobs_go_on(&file).await;
    }
}

async fn jobs_go_on(file: &Path) {
    let mut host = TestHost::on_file(Duration::from_secs(10), |path| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(file, path).unwrap();
        // Its worker died with its build, and long ago: a file with a live worker of another version is not upgraded.
        rusqlite::Connection::open(path).unwrap().execute("UPDATE workers SET beat_at = beat_at - 3600000", []).unwrap();
    });
    host.throttles = throttled();
    for (id, state) in [
        ("passed", JobState::Completed),
        ("failed", JobState::Completed),
        ("dead", JobState::Discarded),
        ("cancelled", JobState::Cancelled),
        ("retried", JobState::Retryable),
        ("held", JobState::Available),
        ("later", JobState::Scheduled),
        ("running", JobState::Running),
        ("sequence", JobState::Running),
        ("sequence/1", JobState::Completed),
        ("sequence/2", JobState::Running),
    ] {
        assert_eq!(host.detail(id).await.job.state, state, "{id} in {}", file.display());
    }
    assert_eq!(host.detail("retried").await.checkpoint, Some(json!({"step": 2})));
    let status = host.client.status().await.unwrap();
    assert_eq!(status.presence.pauses[0].reason.as_deref(), Some("maintenance"));
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM start_rates"), 1);
    host.client.resume(PauseKind::Tenant, "other".into()).await.unwrap();
    let worker = host.worker().await;
    host.probe.gate.add_permits(1);
    for (id, attempts) in [("held", 1), ("retried", 2), ("running", 2), ("sequence", 0), ("later", 1)] {
        let verdict = host.pass_time(Duration::from_secs(2), host.client.wait(target(id))).await.unwrap();
        assert_eq!(verdict.status, Status::Passed, "{id} in {}: {verdict:?}", file.display());
        assert!(attempts == 0 || verdict.attempts == attempts, "{id}: {verdict:?}");
    }
    for (id, status) in [("failed", Status::Failed), ("dead", Status::Unresolved), ("cancelled", Status::Cancelled)] {
        assert_eq!(host.client.wait(target(id)).await.unwrap().status, status, "{id}");
    }
    worker.drain().await.unwrap();
}
