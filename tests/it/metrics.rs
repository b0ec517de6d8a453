//! What is counted, as Prometheus reads it.

use std::time::Duration;

use iolaus::client::PauseKind;
use iolaus::telemetry::{AttemptEnd, Known, Meters, Metrics};
use iolaus_activities::{Status, VerdictRecord};
use jiff::Timestamp;

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

    /// The values of all series of a metric.
    fn all(&self, metric: &str) -> Vec<f64> {
        let values = self.0.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{')?.rsplit(' ').next());
        values.map(|value| value.parse().unwrap()).collect()
    }

    fn sum(&self, metric: &str) -> u64 {
        let sum: f64 = self.all(metric).iter().sum();
        format!("{sum:.0}").parse().unwrap()
    }

    fn lines(&self) -> usize {
        self.0.lines().filter(|line| !line.starts_with('#')).count()
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

const TENANTS: usize = 3_000;

fn tenant(n: usize) -> String {
    format!("t-{n:04}")
}

/// As many jobs as there are tenants, each of another: all of them wait since the same time, for tenants that are paused. As many have
/// ended, in both ways.
async fn of_three_thousand_tenants(named: usize) -> (Scrape, TestHost) {
    let meters = Meters::new();
    let tenants: Vec<String> = (0..TENANTS).map(tenant).collect();
    let known = Known::new(["probe"], tenants.iter().map(String::as_str)).with_max_tenants(named);
    let metrics = Metrics::new(&meters, known);
    let host = TestHost::measured_as(metrics.clone());
    let worker = host.worker().await;
    host.client.pause(PauseKind::Activity, "probe".into(), None).await.unwrap();
    host.enqueue_acts("one", [Act::Pass]).await;
    // The same row again and again, each with a tenant of its own.
    let columns = "activity, activity_version, slot_class, state, priority, run_at, enqueued_at";
    host.tamper(&format!(
        "WITH RECURSIVE n(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n WHERE id < {TENANTS} - 1) \
           INSERT INTO jobs(job_id, run_id, tenant, {columns}) \
           SELECT printf('copy-%d', n.id), printf('00000000-0000-7000-8000-%012d', n.id), printf('t-%04d', n.id), {columns} \
           FROM n, (SELECT {columns} FROM jobs WHERE job_id = 'one'); \
         DELETE FROM jobs WHERE job_id = 'one'; \
         INSERT INTO pauses(kind, name, paused_at) SELECT 'tenant', tenant, 0 FROM jobs"
    ));
    for name in &tenants {
        let times = [Duration::from_secs(1); 3];
        let [waited, ran, stored] = times;
        let outcome = "completed";
        metrics.attempt(&AttemptEnd { activity: "probe", tenant: name, outcome, error: None, waited, ran, stored });
        metrics.verdict(&passed(name));
    }
    host.clock.advance(Duration::from_secs(7)).await;
    let scrape = Scrape::of(&meters).await;
    worker.drain().await.unwrap();
    (scrape, host)
}

fn passed(tenant: &str) -> VerdictRecord {
    VerdictRecord {
        job_id: "n".into(),
        run_id: "r".into(),
        activity: "probe".into(),
        tenant: tenant.into(),
        status: Status::Passed,
        message: None,
        checks: Vec::new(),
        facts: serde_json::Map::new(),
        failure: None,
        attempts: 1,
        enqueued_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: Timestamp::UNIX_EPOCH,
        duration_ms: 1_000,
        trace_id: "t".into(),
    }
}

/// What has a label for the tenant.
const BY_TENANT: [&str; 5] = [
    "iolaus_jobs",
    "iolaus_tenant_paused",
    "iolaus_job_attempts_total",
    "iolaus_job_verdicts_total",
    "iolaus_job_wait_duration_seconds_count",
];

#[tokio::test]
async fn three_thousand_tenants_with_jobs_have_a_series_each_and_their_sum_is_the_true_number() {
    let (scrape, _host) = of_three_thousand_tenants(TENANTS).await;
    for metric in BY_TENANT {
        assert_eq!((scrape.all(metric).len(), scrape.sum(metric)), (TENANTS, TENANTS as u64), "{metric}");
    }
    let ages = scrape.all("iolaus_jobs_oldest_age_seconds");
    assert!(ages.len() == TENANTS && ages.iter().all(|age| (age - 7.0).abs() < 1e-3), "{}", ages.len());
    assert!(!scrape.has("otel_metric_overflow"));
}

#[tokio::test]
async fn tenants_beyond_those_that_are_named_are_counted_together_as_other() {
    let (scrape, _host) = of_three_thousand_tenants(100).await;
    for metric in BY_TENANT {
        assert_eq!((scrape.all(metric).len(), scrape.sum(metric)), (101, TENANTS as u64), "{metric}");
    }
    for series in [
        r#"iolaus_jobs{activity="probe",state="available",tenant="other"}"#,
        r#"iolaus_tenant_paused{reason="operator",tenant="other"}"#,
        r#"iolaus_job_attempts_total{activity="probe",outcome="completed",tenant="other"}"#,
    ] {
        assert!((scrape.value(series) - 2_900.0).abs() < 1e-9, "{series} is {}", scrape.value(series));
    }
    let age = scrape.value(r#"iolaus_jobs_oldest_age_seconds{activity="probe",tenant="other"}"#);
    assert!((age - 7.0).abs() < 1e-3, "{age}");
    assert!(scrape.has(r#"tenant="t-0099""#) && !scrape.has("t-0100") && !scrape.has("otel_metric_overflow"));
}

#[tokio::test]
async fn a_scrape_has_as_many_series_with_ten_thousand_tenants_as_with_ten_if_the_same_have_jobs() {
    let mut series = Vec::new();
    for configured in [10, 10_000] {
        let meters = Meters::new();
        let names: Vec<String> = (0..configured).map(tenant).chain(["default".to_owned()]).collect();
        let host = TestHost::measured_as(Metrics::new(&meters, Known::new(["probe"], names.iter().map(String::as_str))));
        let worker = host.worker().await;
        host.enqueue_acts("one", [Act::Pass]).await;
        host.verdict("one").await;
        worker.drain().await.unwrap();
        series.push(Scrape::of(&meters).await.lines());
    }
    assert_eq!(series[0], series[1]);
}
