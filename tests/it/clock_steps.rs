//! The machine's wall clock is set while the queue is in use: nothing that runs or is due moves, in any process.

use std::sync::Arc;
use std::time::Duration;

use iolaus::intake::{JobRequest, OptionOverrides};
use iolaus::job::JobState;
use iolaus::sandbox::{Sandbox, SandboxOptions};
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{ManualClock, Status};
use jiff::SignedDuration;
use serde_json::json;

use crate::support::host::{TestHost, probe_job};
use crate::support::probe::Act;
use crate::support::tenant::{CRAWLER, request, settings, submissions};

const HOUR: Duration = Duration::from_secs(3600);
const STEPS: [SignedDuration; 2] = [SignedDuration::from_hours(-1), SignedDuration::from_hours(48)];

fn delayed(id: &str, delay: Duration) -> JobRequest {
    let options = OptionOverrides { schedule_to_start: Some(Duration::from_secs(10)), ..OptionOverrides::default() };
    JobRequest { delay: Some(delay), options, ..probe_job(id, [Act::Pass]) }
}

#[tokio::test]
async fn a_step_of_the_wall_clock_neither_delays_what_is_due_nor_discards_it() {
    for step in STEPS {
        let host = TestHost::new();
        let worker = host.worker().await;
        host.enqueue(delayed("later", HOUR)).await.unwrap();
        host.enqueue_acts("retried", [Act::RetryAfter(90), Act::Pass]).await;
        host.until("retried", |job| job.state == JobState::Retryable).await;
        host.clock.jump(step);
        // Another process, which has seen only the new wall clock.
        host.another().enqueue(delayed("from-another", HOUR)).await.unwrap();
        host.pass(Duration::from_secs(89)).await;
        assert_eq!(host.detail("retried").await.job.state, JobState::Retryable, "{step}");
        host.pass(Duration::from_secs(1)).await;
        assert_eq!(host.verdict_now("retried").await.duration_ms, 90_000, "{step}");
        host.pass(Duration::from_secs(3600 - 91)).await;
        for id in ["later", "from-another"] {
            assert_eq!(host.detail(id).await.job.state, JobState::Scheduled, "{id} {step}");
        }
        host.pass(Duration::from_secs(1)).await;
        for id in ["later", "from-another"] {
            let verdict = host.verdict_now(id).await;
            assert_eq!((verdict.status, verdict.duration_ms), (Status::Passed, 3_600_000), "{id} {step}");
        }
        worker.drain().await.unwrap();
    }
}

#[tokio::test]
async fn a_wait_for_a_run_outlasts_a_step_of_the_wall_clock_and_ends_at_its_own_time() {
    for step in STEPS {
        let machine = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
        let host = TestHost::on(machine.clone());
        // The tenant is another machine, whose clock is right.
        let tenants_clock = host.embedded.clock();
        let options = SandboxOptions {
            clock: Arc::new(move || tenants_clock.now().as_millisecond()),
            running: HOUR,
            ..SandboxOptions::default()
        };
        let sandbox = Sandbox::start(options).await.unwrap();
        let tenants = Tenants::new([("default".to_owned(), settings(&sandbox))].into(), host.embedded.clock()).unwrap();
        let host = host.with_tenants(tenants);
        let worker = host.worker().await;
        let rerun = request("workflow_rerun", json!({"workflow": CRAWLER, "timeout": "2h"}));
        host.enqueue(JobRequest { job_id: Some("rerun".into()), ..rerun }).await.unwrap();
        host.pass_time(Duration::from_secs(1), host.until_so("submitted", || submissions(&sandbox).len() == 1)).await;
        host.clock.jump(step);
        for _ in 0..50 {
            host.pass(Duration::from_secs(60)).await;
        }
        assert!(host.detail("rerun").await.job.state.is_open(), "{step}");
        for _ in 0..20 {
            host.pass(Duration::from_secs(60)).await;
        }
        let verdict = host.verdict_now("rerun").await;
        assert_eq!((verdict.status, submissions(&sandbox).len()), (Status::Passed, 1), "{step}: {verdict:#?}");
        worker.drain().await.unwrap();
    }
}

#[tokio::test]
async fn doctor_is_told_of_a_step_in_every_process() {
    let host = TestHost::new();
    assert_eq!(host.client.check().await.unwrap().wall_clock_ahead, SignedDuration::ZERO);
    for step in STEPS {
        host.clock.jump(step);
        assert_eq!(host.client.check().await.unwrap().wall_clock_ahead, step);
        assert_eq!(host.another().client.check().await.unwrap().wall_clock_ahead, step);
        host.clock.jump(-step);
    }
}
