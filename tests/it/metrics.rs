//! What is counted, as Prometheus reads it.

use std::time::Duration;

use iolaus::client::PauseKind;
use iolaus::telemetry::Meters;

use crate::support::host::{TestHost, probe_job, target};
use crate::support::probe::Act;

/// What a scrape answers.
struct Scrape(String);

impl Scrape {
    async fn of(meters: &Meters) -> Self {
        let meters = meters.clone();
        Self(tokio::task::spawn_blocking(move || meters.text().unwrap()).await.unwrap())
    }

    /// The value of a series, whose labels are written in the order of the alphabet.
    fn value(&self, series: &str) -> f64 {
        let value = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in\n{}", self.0)).parse().unwrap()
    }

    fn has(&self, part: &str) -> bool {
        self.0.contains(part)
    }
}

#[tokio::test]
async fn attempts_verdicts_and_times_are_counted_once_by_activity_and_tenant() {
    let meters = Meters::new();
    let host = TestHost::measured(&meters);
    let worker = host.worker().await;
    host.enqueue_acts("passes", [Act::Pass]).await;
    host.enqueue_acts("refuses", [Act::Refuse]).await;
    host.enqueue_acts("twice", [Act::Unavailable, Act::Pass]).await;
    host.enqueue_acts("never", [Act::Denied]).await;
    for id in ["passes", "refuses", "twice", "never"] {
        host.verdict(id).await;
    }
    worker.drain().await.unwrap();
    let scrape = Scrape::of(&meters).await;
    for (series, value) in [
        (r#"iolaus_job_attempts_total{activity="probe",outcome="completed",tenant="default"}"#, 3.0),
        (r#"iolaus_job_attempts_total{activity="probe",outcome="retry_scheduled",tenant="default"}"#, 1.0),
        (r#"iolaus_job_attempts_total{activity="probe",outcome="discarded",tenant="default"}"#, 1.0),
        (r#"iolaus_job_verdicts_total{activity="probe",tenant="default",verdict="passed"}"#, 2.0),
        (r#"iolaus_job_verdicts_total{activity="probe",tenant="default",verdict="failed"}"#, 1.0),
        (r#"iolaus_job_verdicts_total{activity="probe",tenant="default",verdict="unresolved"}"#, 1.0),
        (r#"iolaus_job_wait_duration_seconds_count{activity="probe",tenant="default"}"#, 5.0),
        (r#"iolaus_job_duration_seconds_count{activity="probe",verdict="passed"}"#, 2.0),
        (r#"messaging_process_duration_seconds_count{activity="probe"}"#, 3.0),
        (
            r#"messaging_client_sent_messages_total{messaging_destination_name="probe",messaging_operation_name="send",messaging_system="iolaus"}"#,
            4.0,
        ),
        (
            r#"messaging_client_consumed_messages_total{messaging_destination_name="probe",messaging_operation_name="receive",messaging_system="iolaus"}"#,
            5.0,
        ),
        (
            r#"messaging_client_operation_duration_seconds_count{messaging_destination_name="probe",messaging_operation_name="ack",messaging_system="iolaus"}"#,
            5.0,
        ),
        (r#"iolaus_lease_lost_total{activity="probe"}"#, 0.0),
    ] {
        assert!((scrape.value(series) - value).abs() < 1e-9, "{series} is {}, not {value}", scrape.value(series));
    }
    assert!(scrape.value("iolaus_store_commits_total") >= 6.0);
    assert!((scrape.value("iolaus_store_commits_total") - scrape.value("iolaus_store_commit_size_count")).abs() < 1e-9);
    assert!(!scrape.has("otel_metric_overflow"));
}

#[tokio::test]
async fn gauges_tell_how_the_queue_and_the_slots_stand() {
    let meters = Meters::new();
    let host = TestHost::measured(&meters);
    let worker = host.worker().await;
    host.enqueue_acts("runs", [Act::Gate]).await;
    host.until_sql("SELECT count(*) = 1 FROM jobs WHERE state = 'running'").await;
    host.client.pause(PauseKind::Tenant, "default".into(), None).await.unwrap();
    host.enqueue_acts("waits", [Act::Pass]).await;
    host.clock.advance(Duration::from_secs(3)).await;
    let scrape = Scrape::of(&meters).await;
    for (series, value) in [
        (r#"iolaus_jobs{activity="probe",state="running",tenant="default"}"#, 1.0),
        (r#"iolaus_jobs{activity="probe",state="available",tenant="default"}"#, 1.0),
        (r#"iolaus_jobs_oldest_age_seconds{activity="probe",tenant="default"}"#, 3.0),
        (r#"iolaus_job_running_age_max_seconds{activity="probe"}"#, 3.0),
        (r#"iolaus_worker_slots_used{slot_class="work"}"#, 1.0),
        (r#"iolaus_worker_slots_used{slot_class="waits"}"#, 0.0),
        (r#"iolaus_worker_slots_limit{slot_class="work"}"#, 4.0),
        (r#"iolaus_tenant_paused{reason="operator",tenant="default"}"#, 1.0),
        ("iolaus_worker_claim_time_seconds", 1_767_225_600.0),
    ] {
        assert!((scrape.value(series) - value).abs() < 1e-3, "{series} is {}, not {value}", scrape.value(series));
    }
    host.probe.gate.add_permits(1);
    host.client.resume(PauseKind::Tenant, "default".into()).await.unwrap();
    host.verdict("waits").await;
    host.verdict("runs").await;
    worker.drain().await.unwrap();
    drop(host);
    assert!(!Scrape::of(&meters).await.has("iolaus_worker_slots_used{"), "a worker that is gone has no slots");
}

#[tokio::test]
async fn what_is_not_configured_is_other_and_no_id_is_a_label() {
    let meters = Meters::new();
    let host = TestHost::measured(&meters);
    let worker = host.worker().await;
    for n in 0..3 {
        let mut request = probe_job(&format!("secret-id-{n}"), [Act::Pass]);
        request.tenant = Some("other".into());
        host.enqueue(request).await.unwrap();
        host.verdict(&format!("secret-id-{n}")).await;
    }
    worker.drain().await.unwrap();
    let scrape = Scrape::of(&meters).await;
    assert!((scrape.value(r#"iolaus_job_verdicts_total{activity="probe",tenant="other",verdict="passed"}"#) - 3.0).abs() < 1e-9);
    assert!(!scrape.has("secret-id"));
}

#[tokio::test]
async fn a_rescue_is_counted_with_the_attempt_that_was_lost() {
    let meters = Meters::new();
    let host = TestHost::measured(&meters);
    let dying = host.another();
    let dead = dying.worker().await;
    host.enqueue_acts("n", [Act::Gate, Act::Pass]).await;
    host.probe.started.notified().await;
    drop(dead);
    let worker = host.worker().await;
    let verdict = host.pass_time(Duration::from_millis(500), host.client.wait(target("n"))).await.unwrap();
    assert_eq!(verdict.attempts, 2);
    worker.drain().await.unwrap();
    let scrape = Scrape::of(&meters).await;
    let lost = r#"iolaus_job_attempts_total{activity="probe",outcome="lost",tenant="default"}"#;
    assert!((scrape.value(lost) - 1.0).abs() < 1e-9);
    assert!((scrape.value(r#"iolaus_worker_rescues_total{activity="probe"}"#) - 1.0).abs() < 1e-9);
}

/// Another process holds the write lock for longer than a write may take, while attempts end.
#[tokio::test]
async fn an_end_of_unknown_fate_is_counted_as_what_it_was_and_not_as_a_lost_lease() {
    let meters = Meters::new();
    let host = TestHost::measured(&meters).with_write_timeout(Duration::from_secs(2));
    let worker = host.worker().await;
    for (id, act) in [("passes", Act::Gate), ("denied", Act::GateThenDenied), ("down", Act::GateThenUnavailable)] {
        host.enqueue_acts(id, [act, Act::Pass]).await;
    }
    host.until_sql("SELECT count(*) = 3 FROM jobs WHERE state = 'running'").await;
    host.clock.until_at_rest().await;
    let lock = std::fs::File::open(host.path().with_file_name("iolaus.db-write")).unwrap();
    lock.lock().unwrap();
    host.probe.gate.add_permits(3);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    // It waits behind the three ends, and so outlasts them.
    host.client.resume(PauseKind::Tenant, "nobody".into()).await.unwrap_err();
    lock.unlock().unwrap();
    host.clock.advance(Duration::from_secs(5)).await;
    host.verdict_now("down").await;
    worker.drain().await.unwrap();
    let scrape = Scrape::of(&meters).await;
    for (series, value) in [
        (r#"iolaus_job_attempts_total{activity="probe",outcome="completed",tenant="default"}"#, 2.0),
        (r#"iolaus_job_attempts_total{activity="probe",outcome="retry_scheduled",tenant="default"}"#, 1.0),
        (r#"iolaus_job_attempts_total{activity="probe",outcome="discarded",tenant="default"}"#, 1.0),
        (r#"iolaus_job_verdicts_total{activity="probe",tenant="default",verdict="passed"}"#, 2.0),
        (r#"iolaus_job_verdicts_total{activity="probe",tenant="default",verdict="unresolved"}"#, 1.0),
        (r#"iolaus_lease_lost_total{activity="probe"}"#, 0.0),
    ] {
        assert!((scrape.value(series) - value).abs() < 1e-9, "{series} is {}, not {value}", scrape.value(series));
    }
}
