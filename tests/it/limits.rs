//! Limits on what runs and what starts, over all workers of a file.

use std::sync::Arc;
use std::time::Duration;

use iolaus::embedded::{Backlog, Executed, execute, fill};
use iolaus::intake::JobRequest;
use iolaus::job::{JobState, Throttle, Throttles};
use iolaus::sequence::{SequenceRequest, StepRequest};
use iolaus_activities::Status;
use serde_json::json;

use crate::support::host::{TestHost, probe_job, target};
use crate::support::probe::Act;

const RUNNING: &str = "SELECT count(*) FROM jobs WHERE state = 'running'";

fn of_activity(throttle: Throttle) -> Arc<Throttles> {
    Arc::new(Throttles { activities: [("probe".to_owned(), throttle)].into(), ..Throttles::default() })
}

fn at_once(max_running: u32) -> Throttle {
    Throttle { max_running, ..Throttle::default() }
}

fn a_second(max_starts_per_second: f64) -> Throttle {
    Throttle { max_starts_per_second, ..Throttle::default() }
}

#[tokio::test]
async fn no_more_of_an_activity_run_than_its_limit_on_all_workers_together() {
    let mut host = TestHost::new();
    host.throttles = of_activity(at_once(2));
    let mut other = host.another();
    other.throttles = host.throttles.clone();
    let workers = [host.worker().await, other.worker().await];
    for n in 0..6 {
        host.enqueue_acts(&format!("n-{n}"), [Act::Gate]).await;
    }
    for ended in 0..6 {
        host.clock.until_at_rest().await;
        assert_eq!(host.sql::<i64>(RUNNING), (6 - ended).min(2), "{ended} have ended");
        host.probe.gate.add_permits(1);
        host.until_sql(&format!("SELECT count(*) = {} FROM job_verdicts", ended + 1)).await;
        // One that another process ended is made known by a wake.
        host.until_sql(&format!("SELECT count(*) = {} FROM jobs WHERE state = 'running'", (5 - ended).min(2))).await;
    }
    for worker in workers {
        worker.drain().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_dead_worker_held_counts_no_more_once_it_is_rescued() {
    let mut host = TestHost::with_worker_timeout(Duration::from_secs(10));
    host.throttles = of_activity(at_once(1));
    let dying = host.another();
    let worker = dying.worker().await;
    host.enqueue_acts("held", [Act::Ignore, Act::Pass]).await;
    host.probe.started.notified().await;
    host.enqueue_acts("next", [Act::Pass]).await;
    drop(worker);
    let worker = host.worker().await;
    let verdict = host.pass_time(Duration::from_secs(1), host.client.wait(target("next"))).await.unwrap();
    assert_eq!(verdict.status, Status::Passed);
    host.pass_time(Duration::from_secs(1), host.client.wait(target("held"))).await.unwrap();
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_tenants_limit_holds_it_back_and_nobody_else() {
    let mut host = TestHost::new();
    host.throttles = Arc::new(Throttles { tenants: [("other".to_owned(), at_once(1))].into(), ..Throttles::default() });
    let worker = host.worker().await;
    for n in 0..2 {
        let job = JobRequest { tenant: Some("other".into()), ..probe_job(&format!("other-{n}"), [Act::Gate]) };
        host.enqueue(job).await.unwrap();
    }
    host.enqueue_acts("mine-0", [Act::Gate]).await;
    host.enqueue_acts("mine-1", [Act::Gate]).await;
    host.clock.until_at_rest().await;
    assert_eq!(host.sql::<i64>(RUNNING), 3);
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs WHERE state = 'available' AND tenant = 'other'"), 1);
    host.probe.gate.add_permits(4);
    host.until_sql("SELECT count(*) = 4 FROM job_verdicts").await;
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn starts_are_no_faster_than_their_rate_over_all_workers_and_go_on_by_themselves() {
    let mut host = TestHost::new();
    host.throttles = of_activity(a_second(2.0));
    let mut other = host.another();
    other.throttles = host.throttles.clone();
    let workers = [host.worker().await, other.worker().await];
    for n in 0..6 {
        host.enqueue_acts(&format!("n-{n}"), [Act::Pass]).await;
    }
    let verdicts = "SELECT count(*) FROM job_verdicts";
    host.clock.until_at_rest().await;
    host.until_sql("SELECT count(*) = 2 FROM job_verdicts").await;
    host.clock.until_at_rest().await;
    assert_eq!(host.sql::<i64>(verdicts), 2, "a second's worth at once");
    for more in 1..=4 {
        host.clock.advance(Duration::from_millis(499)).await;
        assert_eq!(host.sql::<i64>(verdicts), 1 + more, "not yet");
        host.clock.advance(Duration::from_millis(1)).await;
        host.until_sql(&format!("SELECT count(*) = {} FROM job_verdicts", 2 + more)).await;
    }
    for worker in workers {
        worker.drain().await.unwrap();
    }
}

#[tokio::test]
async fn whoever_works_one_job_alone_keeps_to_the_limit_too() {
    let mut host = TestHost::new();
    host.throttles = of_activity(a_second(0.5));
    let first = host.admit(probe_job("first", [Act::Pass])).unwrap();
    let second = host.admit(probe_job("second", [Act::Pass])).unwrap();
    let mut starts = Vec::new();
    for job in [first, second] {
        let executed = host.drive(execute(&host.embedded, host.worker_options(), job, std::future::pending())).await.unwrap();
        let Executed::Verdict(verdict) = executed else { panic!("it ended") };
        starts.push(verdict.started_at.unwrap());
    }
    assert!(starts[1].duration_since(starts[0]).as_secs() >= 2, "{starts:?}");
}

#[tokio::test]
async fn ten_jobs_of_a_tenant_do_not_stand_behind_a_hundred_thousand_of_another() {
    let alike = TestHost::new().admit(probe_job("alike", [Act::Pass])).unwrap();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let crowd = Backlog { tenant: Some("crowd"), ..Backlog::due(100_000) };
    let few = Backlog { tenant: Some("few"), ..Backlog::due(10) };
    let host = TestHost::on_file(Duration::from_secs(10), |path| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        fill(path, &alike, &[crowd, few], now).unwrap();
    });
    let worker = host.worker().await;
    host.until_sql("SELECT count(*) = 10 FROM jobs WHERE tenant = 'few' AND state = 'completed'").await;
    worker.drain().await.unwrap();
    let ids: Vec<String> = (100_001..=100_010).map(|n| format!("backlog-{n:024}")).collect();
    let behind = host.probe.order().iter().rposition(|id| ids.contains(id)).unwrap();
    assert!(behind < 40, "the last of the ten was number {behind} of all");
}

fn two_steps(job_id: &str, delay: Option<Duration>) -> SequenceRequest {
    let step = |name: &str| StepRequest {
        name: Some(name.into()),
        activity: "probe".into(),
        input: json!({ "acts": ["pass"] }),
        ..StepRequest::default()
    };
    let steps = vec![step("first"), step("second")];
    SequenceRequest { steps, job_id: Some(job_id.into()), delay, ..SequenceRequest::default() }
}

#[tokio::test]
async fn an_open_sequence_takes_no_place_of_its_tenants_limit() {
    let mut host = TestHost::new();
    host.throttles = Arc::new(Throttles { tenants: [("default".to_owned(), at_once(1))].into(), ..Throttles::default() });
    let worker = host.worker().await;
    for n in 0..3 {
        host.enqueue_sequence(two_steps(&format!("later-{n}"), Some(Duration::from_secs(3600)))).await.unwrap();
    }
    host.enqueue_sequence(two_steps("now", None)).await.unwrap();
    host.enqueue_acts("job", [Act::Pass]).await;
    for _ in 0..20 {
        host.clock.advance(Duration::from_secs(1)).await;
    }
    for id in ["now", "job"] {
        assert_eq!(host.detail(id).await.job.state, JobState::Completed, "{id}");
    }
    for n in 0..3 {
        host.client.cancel(target(&format!("later-{n}")), None).await.unwrap();
    }
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn starts_continue_at_their_rate_after_the_clock_was_set_back() {
    let mut host = TestHost::new();
    host.throttles = of_activity(a_second(1.0));
    let worker = host.worker().await;
    host.enqueue_acts("before", [Act::Pass]).await;
    host.verdict_now("before").await;
    host.clock.jump(jiff::SignedDuration::from_hours(-1));
    for n in 0..3 {
        host.enqueue_acts(&format!("after-{n}"), [Act::Pass]).await;
    }
    for started in 1..=3 {
        host.clock.advance(Duration::from_secs(1)).await;
        host.clock.advance(Duration::from_millis(10)).await;
        let done: i64 = host.sql("SELECT count(*) FROM job_verdicts WHERE id > 1");
        assert_eq!(done, started, "one a second");
    }
    worker.drain().await.unwrap();
}
