//! What processes do for the queue beside the jobs that they were started for: they close what expired, take over what dead workers
//! held, and delete old executions, in steps that let other writers in between.

use std::time::Duration;

use iolaus::client::{Missing, PauseKind};
use iolaus::embedded::{Backlog, Executed, execute, fill};
use iolaus::intake::{JobRequest, OptionOverrides};
use iolaus::job::JobState;
use iolaus::sandbox::SandboxOptions;
use iolaus_activities::Status;

use crate::cli::harness::Place;
use crate::support::host::{TestHost, probe_job, target};
use crate::support::probe::Act;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const EXPIRED: &str = "SELECT count(*) FROM jobs WHERE state = 'available' AND expires_at IS NOT NULL";

/// A queue whose jobs have all waited too long.
fn expired(jobs: u64) -> TestHost {
    let alike = TestHost::new().admit(probe_job("alike", [Act::Pass])).unwrap();
    let long_ago = "2025-01-01T00:00:00Z".parse().unwrap();
    TestHost::on_file(10 * SECOND, |path| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        fill(path, &alike, &[Backlog::due(jobs)], long_ago).unwrap();
        rusqlite::Connection::open(path).unwrap().execute("UPDATE jobs SET expires_at = run_at + 60000", []).unwrap();
    })
}

#[tokio::test]
async fn an_enqueue_gets_through_while_twenty_thousand_jobs_expire() {
    let host = expired(20_000);
    let other = host.another();
    let worker = host.worker().await;
    // Behind the first claim of the worker.
    host.client.resume(PauseKind::Tenant, "nobody".into()).await.unwrap();
    other.enqueue(JobRequest { tenant: Some("other".into()), ..probe_job("urgent", [Act::Pass]) }).await.unwrap();
    let left: i64 = host.sql(EXPIRED);
    assert!(left > 0, "it waited until all of them were closed");
    host.until_sql(&format!("SELECT ({EXPIRED}) = 0")).await;
    assert_eq!(host.verdict_now("urgent").await.status, Status::Passed);
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM job_verdicts WHERE code = 'timeout.schedule_to_start'"), 20_000);
    assert_eq!(host.probe.order(), ["urgent"], "none of them was started late");
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_worker_is_dead_after_its_own_worker_timeout_and_not_after_the_rescuers() {
    let host = TestHost::with_worker_timeout(60 * SECOND);
    let patient = host.worker().await;
    host.enqueue_acts("long", [Act::Gate]).await;
    host.probe.started.notified().await;
    let hasty = host.another_with_worker_timeout(10 * SECOND);
    let rescuer = hasty.worker().await;
    for _ in 0..55 {
        host.clock.advance(SECOND).await;
    }
    let job = host.detail("long").await.job;
    assert_eq!((job.state, job.attempts), (JobState::Running, 1), "{job:?}");
    assert!(host.client.presence().await.unwrap().workers.iter().all(|worker| worker.live));
    host.probe.gate.add_permits(1);
    let verdict = host.verdict_now("long").await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 1));
    patient.drain().await.unwrap();
    rescuer.drain().await.unwrap();
}

#[tokio::test]
async fn a_process_that_works_one_job_is_no_worker_for_others() {
    let host = TestHost::with_worker_timeout(10 * SECOND);
    let other = host.another();
    let job = host.admit(probe_job("own", [Act::Gate])).unwrap();
    let executing = execute(&other.embedded, other.worker_options(), job, std::future::pending());
    let asking = async {
        host.probe.started.notified().await;
        let presence = host.client.presence().await.unwrap();
        host.probe.gate.add_permits(1);
        presence
    };
    let (executed, presence) = tokio::join!(executing, asking);
    assert!(matches!(executed.unwrap(), Executed::Verdict(_)));
    assert_eq!(presence.missing("probe", "default"), Some(Missing::Worker), "{presence:?}");
}

fn unlimited(job_id: &str, act: Act) -> JobRequest {
    let options = OptionOverrides { maximum_attempts: Some(0), start_to_close: Some(3_600 * SECOND), ..OptionOverrides::default() };
    JobRequest { options, ..probe_job(job_id, [act]) }
}

/// Lets a worker start an attempt of a job, and die.
async fn killed_by(host: &TestHost, job_id: &str, attempt: usize) {
    let dying = host.another();
    let worker = dying.worker().await;
    for _ in 0..120 {
        if host.probe.attempts(job_id).len() >= attempt || host.detail(job_id).await.job.state == JobState::Discarded {
            break;
        }
        host.clock.advance(SECOND).await;
    }
    drop(worker);
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_set_aside_with_unlimited_attempts_too() {
    let host = TestHost::with_worker_timeout(10 * SECOND);
    host.enqueue(unlimited("killer", Act::Ignore)).await.unwrap();
    for attempt in 1..=5 {
        killed_by(&host, "killer", attempt).await;
    }
    let worker = host.worker().await;
    for _ in 0..40 {
        host.clock.advance(SECOND).await;
    }
    let detail = host.detail("killer").await;
    assert_eq!((detail.job.state, detail.job.attempts), (JobState::Discarded, 5), "{detail:?}");
    let failure = detail.verdict.unwrap().failure.unwrap();
    assert_eq!((failure.code.as_str(), failure.retryable), ("worker.lost", false));
    assert!(failure.message.starts_with("5 workers in a row died while they ran it"), "{}", failure.message);
    assert!(failure.suggested_action.unwrap().contains("iolaus jobs retry killer"));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_wait_outlives_the_job_that_kills_its_workers() {
    let host = TestHost::with_worker_timeout(10 * SECOND);
    host.enqueue(unlimited("killer", Act::Ignore)).await.unwrap();
    let mut wait = unlimited("wait", Act::UntilStopped);
    wait.input["waits"] = true.into();
    host.enqueue(wait).await.unwrap();
    for attempt in 1..=5 {
        let dying = host.another();
        let worker = dying.worker().await;
        for _ in 0..120 {
            if ["killer", "wait"].iter().all(|job_id| host.probe.attempts(job_id).len() >= attempt) {
                break;
            }
            host.clock.advance(SECOND).await;
        }
        drop(worker);
    }
    let worker = host.worker().await;
    for _ in 0..40 {
        host.clock.advance(SECOND).await;
    }
    assert_eq!(host.detail("killer").await.job.state, JobState::Discarded);
    let wait = host.detail("wait").await.job;
    assert_eq!((wait.state, wait.attempts), (JobState::Running, 6), "{wait:?}");
    host.client.cancel(target("wait"), None).await.unwrap();
    assert_eq!(host.verdict_now("wait").await.status, Status::Cancelled);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn an_enqueue_deletes_old_executions_and_closes_expired_ones_where_no_worker_does() {
    let host = TestHost::with_worker_timeout(10 * SECOND);
    let worker = host.worker().await;
    host.enqueue_acts("old", [Act::Pass]).await;
    host.verdict_now("old").await;
    worker.drain().await.unwrap();
    let options = OptionOverrides { schedule_to_start: Some(60 * SECOND), ..OptionOverrides::default() };
    host.enqueue(JobRequest { options, ..probe_job("late", [Act::Pass]) }).await.unwrap();
    host.clock.advance_without_waiting(Duration::from_secs(8 * 24 * 3600));
    host.another().enqueue_acts("next", [Act::Pass]).await;
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs WHERE job_id = 'old'"), 0);
    assert_eq!(host.sql::<String>("SELECT state FROM jobs WHERE job_id = 'late'"), "discarded");
    host.client.cancel(target("next"), None).await.unwrap();
}

const OLD: &str = "SELECT count(*) FROM jobs WHERE job_id = 'old'";
const RECORDED: &str = "SELECT CAST(value AS INTEGER) / 86400000 FROM meta WHERE name = 'retention_ms'";

/// A queue whose worker kept closed executions for so long, and has drained.
async fn kept_for(retention: Duration) -> TestHost {
    let host = TestHost::with_worker_timeout(10 * SECOND).keeping(retention);
    let worker = host.worker().await;
    host.enqueue_acts("old", [Act::Pass]).await;
    host.verdict_now("old").await;
    worker.drain().await.unwrap();
    host
}

#[tokio::test]
async fn a_process_that_works_no_queue_keeps_closed_executions_as_long_as_the_workers_do() {
    let host = kept_for(30 * DAY).await;
    host.clock.advance_without_waiting(8 * DAY);
    let other = host.another_keeping(7 * DAY);
    other.enqueue_acts("next", [Act::Pass]).await;
    assert_eq!(host.sql::<i64>(OLD), 1, "an enqueue deleted what the workers keep");
    // One that works a single job, and lives long enough to delete something.
    let job = host.admit(probe_job("own", [Act::Gate])).unwrap();
    let executing = execute(&other.embedded, other.worker_options(), job, std::future::pending());
    let passing = async {
        host.probe.started.notified().await;
        for _ in 0..70 {
            host.pass(SECOND).await;
        }
        host.probe.gate.add_permits(1);
    };
    let (executed, ()) = tokio::join!(executing, passing);
    assert!(matches!(executed.unwrap(), Executed::Verdict(_)));
    assert_eq!((host.sql::<i64>(OLD), host.sql::<i64>(RECORDED)), (1, 30), "an execute is no worker of the queue");
    host.clock.advance_without_waiting(23 * DAY);
    host.another_keeping(7 * DAY).enqueue_acts("later", [Act::Pass]).await;
    assert_eq!(host.sql::<i64>(OLD), 0, "it is older than anyone keeps it");
    for job in ["next", "later"] {
        host.client.cancel(target(job), None).await.unwrap();
    }
}

#[tokio::test]
async fn the_file_says_the_longest_retention_of_the_workers_that_live_and_that_of_the_last_one() {
    let host = kept_for(30 * DAY).await;
    let short = host.another_keeping(7 * DAY);
    let worker = host.worker().await;
    let hasty = short.worker().await;
    for _ in 0..5 {
        host.pass(SECOND).await;
    }
    assert_eq!(host.sql::<i64>(RECORDED), 30, "the one that keeps longer lives");
    worker.drain().await.unwrap();
    hasty.drain().await.unwrap();
    short.worker().await.drain().await.unwrap();
    assert_eq!(host.sql::<i64>(RECORDED), 7, "the setting was lowered");
    host.clock.advance_without_waiting(8 * DAY);
    short.another().enqueue_acts("next", [Act::Pass]).await;
    assert_eq!(host.sql::<i64>(OLD), 0);
    host.client.cancel(target("next"), None).await.unwrap();
}

#[test]
fn doctor_warns_of_a_retention_that_is_not_that_of_the_workers() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let same = place.run("doctor");
    assert!(same.code == 0 && !same.stdout.contains("database.retention"), "{same:?}");
    place.set("IOLAUS_DATABASE__RETENTION", "60s");
    let other = place.run("doctor");
    let said = "database.retention is 1m here and 7d for the workers of this queue";
    assert!(other.code == 0 && other.stdout.contains(said), "{other:?}");
    assert_eq!(place.run("fsck").code, 0);
    assert_eq!(worker.terminate().code, 0);
}

#[tokio::test]
async fn processes_that_only_enqueue_take_over_what_a_dead_execute_held() {
    let host = TestHost::with_worker_timeout(10 * SECOND);
    let dying = host.another();
    let worker = dying.worker().await;
    host.enqueue(unlimited("held", Act::Ignore)).await.unwrap();
    host.probe.started.notified().await;
    drop(worker);
    for n in 0..3 {
        host.clock.advance_without_waiting(Duration::from_secs(20));
        host.another().enqueue_acts(&format!("n-{n}"), [Act::Pass]).await;
    }
    assert_eq!(host.sql::<String>("SELECT state FROM jobs WHERE job_id = 'held'"), "retryable");
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM workers"), 0);
    for id in ["held", "n-0", "n-1", "n-2"] {
        host.client.cancel(target(id), None).await.unwrap();
    }
}
