//! A tenant that does not know us, or wants to be left alone: its jobs wait and cost nothing, and nobody else's wait with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iolaus::embedded::{Worker, WorkerOptions};
use iolaus::intake::JobRequest;
use iolaus::job::JobState;
use iolaus::sandbox::{CredentialChange, Sandbox, SandboxOptions};
use iolaus_activities::tenant::{TenantSettings, Tenants};
use iolaus_activities::{Clock, ManualClock, Status};
use serde_json::json;

use crate::support::host::{TestHost, target};
use crate::support::tenant::{CRAWLER, DISABLED, ENABLED, preflight, request, sandbox_clock, settings, submissions};

const HELD: &str = "SELECT count(*) = 1 FROM worker_holds";
const NOTHING_RUNS: &str = "SELECT count(*) = 0 FROM jobs WHERE state = 'running'";
const ALL_CLOSED: &str = "SELECT count(*) = 0 FROM jobs WHERE finished_at IS NULL";

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()))
}

async fn sandbox(clock: &Arc<ManualClock>) -> Sandbox {
    Sandbox::start(SandboxOptions { clock: sandbox_clock(clock), ..SandboxOptions::default() }).await.unwrap()
}

/// Without a pace of our own, so that no time needs to pass.
fn unpaced(sandbox: &Sandbox) -> TenantSettings {
    TenantSettings { requests_per_second: 0, ..settings(sandbox) }
}

fn host(clock: &Arc<ManualClock>, tenants: impl IntoIterator<Item = (&'static str, TenantSettings)>) -> TestHost {
    let tenants: BTreeMap<_, _> = tenants.into_iter().map(|(name, settings)| (name.to_owned(), settings)).collect();
    TestHost::on(clock.clone()).with_tenants(Tenants::new(tenants, clock.clone()).unwrap())
}

fn asked(sandbox: &Sandbox, part: &str) -> usize {
    sandbox.requests().iter().filter(|exchange| exchange.target.contains(part)).count()
}

fn job(id: &str, tenant: &str, user: &str) -> JobRequest {
    JobRequest { job_id: Some(id.into()), tenant: Some(tenant.into()), ..request("publish_preflight", preflight(user)) }
}

#[tokio::test]
async fn a_thousand_jobs_outlast_revoked_credentials_and_each_has_a_true_verdict() {
    let clock = clock();
    let sandbox = sandbox(&clock).await;
    let host = host(&clock, [("default", unpaced(&sandbox))]);
    for n in 0..1_000 {
        let user = if n % 2 == 0 { ENABLED } else { DISABLED };
        host.enqueue(job(&format!("n-{n}"), "default", user)).await.unwrap();
    }
    let worker = host.worker().await;
    host.client.wait(target("n-99")).await.unwrap();
    sandbox.change_credentials(CredentialChange::RevokeAll).unwrap();
    host.until_sql(HELD).await;
    host.until_sql(NOTHING_RUNS).await;
    let hold = host.client.status().await.unwrap().presence.holds.remove(0);
    assert!(hold.tenant == "default" && hold.worker == worker.name() && hold.until.is_none(), "{hold:?}");
    assert!(hold.reason.contains("401") && !hold.reason.contains("sandbox-api-token"), "{hold:?}");

    let (all, preflights) = (sandbox.requests().len(), asked(&sandbox, "/preflight/"));
    // The first probe comes after 3.75 s by this clock's randomness, and each further one after twice as long.
    clock.advance(Duration::from_secs(40)).await;
    let probes = sandbox.requests().len() - all;
    assert!((2..=4).contains(&probes), "{probes} probes in 40 s");
    assert_eq!(asked(&sandbox, "/preflight/"), preflights, "no job asks anything meanwhile");

    sandbox.change_credentials(CredentialChange::RestoreAll).unwrap();
    clock.advance(Duration::from_secs(60)).await;
    host.until_sql(ALL_CLOSED).await;
    assert!(host.client.status().await.unwrap().presence.holds.is_empty());
    worker.drain().await.unwrap();
    for n in 0..1_000 {
        let verdict = host.client.wait(target(&format!("n-{n}"))).await.unwrap();
        let truth = if n % 2 == 0 { Status::Passed } else { Status::Failed };
        assert_eq!((verdict.status, verdict.attempts), (truth, 1), "{verdict:#?}");
    }
    let refused = sandbox.requests().iter().filter(|exchange| exchange.status == Some(401)).count();
    assert!(asked(&sandbox, "/preflight/") <= 1_000 + 4 && refused <= 4 + 1 + 4, "{refused} requests were refused");
}

#[tokio::test]
async fn a_job_of_a_held_tenant_is_closed_when_its_time_is_up_and_can_be_cancelled() {
    let clock = clock();
    let sandbox = sandbox(&clock).await;
    sandbox.change_credentials(CredentialChange::RevokeAll).unwrap();
    let host = host(&clock, [("default", unpaced(&sandbox))]);
    let worker = host.worker().await;
    host.enqueue(job("late", "default", ENABLED)).await.unwrap();
    host.enqueue(job("unwanted", "default", ENABLED)).await.unwrap();
    host.until_sql(HELD).await;
    host.until_sql(NOTHING_RUNS).await;
    let waiting = host.detail("late").await.job;
    assert_eq!((waiting.state, waiting.attempts), (JobState::Available, 0));
    host.client.cancel(target("unwanted"), Some("enough".into())).await.unwrap();
    assert_eq!(host.client.wait(target("unwanted")).await.unwrap().status, Status::Cancelled);
    // A preflight may take two minutes in all.
    clock.advance(Duration::from_secs(121)).await;
    let verdict = host.client.wait(target("late")).await.unwrap();
    assert_eq!((verdict.status, verdict.attempts), (Status::Unresolved, 0));
    assert_eq!(verdict.failure.unwrap().code, "timeout.schedule_to_close");
    let why = format!("; worker {} asks nothing of tenant default since 2026-01-01T00:00:00.000Z: ", worker.name());
    let message = verdict.message.unwrap();
    assert!(message.contains(&why) && message.contains("(401)") && !message.contains("sandbox-api-token"), "{message}");
    worker.drain().await.unwrap();
    assert!(host.client.presence().await.unwrap().holds.is_empty(), "who is gone holds nothing");
}

#[tokio::test]
async fn whoever_works_one_job_alone_is_told_at_once_that_nobody_knows_us() {
    let clock = clock();
    let sandbox = sandbox(&clock).await;
    sandbox.change_credentials(CredentialChange::RevokeAll).unwrap();
    let host = host(&clock, [("default", unpaced(&sandbox))]);
    let job = host.admit(job("gate", "default", ENABLED)).unwrap();
    let ended = iolaus::embedded::execute(&host.embedded, host.worker_options(), job, std::future::pending()).await.unwrap();
    let iolaus::embedded::Executed::Verdict(verdict) = ended else { panic!("no verdict") };
    let failure = verdict.failure.unwrap();
    assert_eq!((verdict.status, failure.code.as_str(), verdict.attempts), (Status::Unresolved, "tenant.unauthenticated", 1));
    assert!(failure.suggested_action.is_some_and(|action| action.contains("ATLAN_API_KEY")));
}

#[tokio::test]
async fn a_worker_with_newer_credentials_goes_on_while_another_waits() {
    let clock = clock();
    let sandbox = sandbox(&clock).await;
    let host = host(&clock, [("default", unpaced(&sandbox))]);
    let stale = host.worker().await;
    sandbox
        .change_credentials(CredentialChange::Rotate {
            username: "service-account-apikey-11111111-2222-3333-4444-555555555555".into(),
            bearer: "rotated".into(),
        })
        .unwrap();
    host.enqueue(job("one", "default", ENABLED)).await.unwrap();
    host.until_sql(HELD).await;
    let rotated = TenantSettings { api_key: Some("rotated".to_owned().into()), ..unpaced(&sandbox) };
    let tenants = Tenants::new(BTreeMap::from([("default".to_owned(), rotated)]), clock.clone()).unwrap();
    let another = host.another().with_tenants(tenants);
    let fresh = another.worker().await;
    assert_eq!(host.client.wait(target("one")).await.unwrap().status, Status::Passed);
    fresh.drain().await.unwrap();
    stale.drain().await.unwrap();
}

/// One tenant hangs, one does not know us, one wants to be left alone. Time stands still, so whoever waits for them waits for ever.
#[tokio::test]
async fn slow_and_failing_tenants_do_not_hold_up_another() {
    let clock = clock();
    let (slow, locked, busy, good) = (sandbox(&clock).await, sandbox(&clock).await, sandbox(&clock).await, sandbox(&clock).await);
    let fault = |sandbox: &Sandbox, action: serde_json::Value| {
        sandbox.add_fault(serde_json::from_value(json!({"times": 0, "action": action})).unwrap());
    };
    fault(&slow, json!({"kind": "hang"}));
    locked.change_credentials(CredentialChange::RevokeAll).unwrap();
    fault(&busy, json!({"kind": "status", "status": 429, "headers": [["retry-after", "60"]]}));
    let tenants = [("slow", &slow), ("locked", &locked), ("busy", &busy), ("good", &good)];
    let host = host(&clock, tenants.map(|(name, sandbox)| (name, unpaced(sandbox))));
    let options = || WorkerOptions { slots_work: 8, ..host.worker_options() };
    for n in 0..50 {
        for tenant in ["slow", "locked", "busy"] {
            host.enqueue_for(job(&format!("{tenant}-{n}"), tenant, ENABLED)).await;
        }
    }
    let worker = Worker::start(&host.embedded, options()).await.unwrap();
    for n in 0..20 {
        host.enqueue_for(job(&format!("good-{n}"), "good", ENABLED)).await;
    }
    for n in 0..20 {
        assert_eq!(host.client.wait(target(&format!("good-{n}"))).await.unwrap().status, Status::Passed);
    }
    assert_eq!(clock.monotonic(), Duration::ZERO);
    let status = host.client.status().await.unwrap();
    let running = |tenant: &str| {
        let of = status.counts.iter().filter(|count| count.tenant == tenant && count.state == JobState::Running);
        of.map(|count| count.count).sum::<u64>()
    };
    assert!((1..8).contains(&running("slow")) && running("locked") == 0, "{status:#?}");
    assert_eq!(status.presence.holds.iter().map(|hold| hold.tenant.as_str()).collect::<Vec<_>>(), ["busy", "locked"]);
    for n in 0..50 {
        for tenant in ["slow", "locked", "busy"] {
            host.client.cancel(target(&format!("{tenant}-{n}")), None).await.unwrap();
        }
    }
    clock.advance(Duration::from_secs(11)).await;
    host.until_sql(ALL_CLOSED).await;
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_tenant_that_wants_to_be_left_alone_is_and_its_jobs_go_on_when_the_time_is_over() {
    let clock = clock();
    let sandbox = sandbox(&clock).await;
    let fault = json!({"action": {"kind": "status", "status": 503, "headers": [["retry-after", "60"]]}});
    sandbox.add_fault(serde_json::from_value(fault).unwrap());
    let host = host(&clock, [("default", unpaced(&sandbox))]);
    let worker = Worker::start(&host.embedded, WorkerOptions { slots_work: 1, ..host.worker_options() }).await.unwrap();
    for n in 0..10 {
        host.enqueue(job(&format!("n-{n}"), "default", ENABLED)).await.unwrap();
    }
    host.until_sql(HELD).await;
    host.until_sql(NOTHING_RUNS).await;
    assert_eq!(sandbox.requests().len(), 1);
    clock.advance(Duration::from_secs(59)).await;
    assert_eq!(sandbox.requests().len(), 1);
    clock.advance(Duration::from_secs(1)).await;
    host.until_sql(ALL_CLOSED).await;
    worker.drain().await.unwrap();
    for n in 0..10 {
        let verdict = host.client.wait(target(&format!("n-{n}"))).await.unwrap();
        // Whoever was answered 503 failed; whoever came after him was not even asked.
        assert_eq!((verdict.status, verdict.attempts), (Status::Passed, if n == 0 { 2 } else { 1 }), "{verdict:#?}");
    }
}

/// Whoever asks one tenant whether it knows us again may wait for its answer for long. Nobody else waits with him.
#[tokio::test]
async fn a_probe_that_hangs_keeps_no_other_tenant_from_going_on_in_time() {
    let clock = clock();
    let (locked, busy) = (sandbox(&clock).await, sandbox(&clock).await);
    locked.change_credentials(CredentialChange::RevokeAll).unwrap();
    let fault = json!({"action": {"kind": "status", "status": 503, "headers": [["retry-after", "23"]]}});
    busy.add_fault(serde_json::from_value(fault).unwrap());
    let host = host(&clock, [("locked", unpaced(&locked)), ("busy", unpaced(&busy))]);
    let worker = Worker::start(&host.embedded, WorkerOptions { slots_work: 2, ..host.worker_options() }).await.unwrap();
    for n in 0..10 {
        host.enqueue_for(job(&format!("busy-{n}"), "busy", ENABLED)).await;
    }
    host.enqueue_for(job("locked", "locked", ENABLED)).await;
    host.until_sql("SELECT count(*) = 2 FROM worker_holds").await;
    host.until_sql(NOTHING_RUNS).await;
    // The one that was asked is due again when the time is over, and would take the others along.
    host.client.cancel(target("busy-0"), None).await.unwrap();
    locked.add_fault(serde_json::from_value(json!({"times": 0, "action": {"kind": "hang"}})).unwrap());
    let asked_before = locked.requests().len();
    clock.advance(Duration::from_secs(4)).await;
    assert_eq!(locked.requests().len(), asked_before + 1, "the probe is under way");
    // The last of the host's own looks over the queue, which would find those jobs, is over before their time has come.
    clock.advance(Duration::from_secs(18)).await;
    assert_eq!(busy.requests().len(), 1);
    clock.advance(Duration::from_secs(1)).await;
    host.until_sql("SELECT count(*) = 0 FROM jobs WHERE tenant = 'busy' AND finished_at IS NULL").await;
    assert_eq!(clock.monotonic(), Duration::from_secs(23));
    host.client.cancel(target("locked"), None).await.unwrap();
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_tenant_never_has_more_jobs_at_once_than_it_may() {
    let clock = clock();
    let sandbox = sandbox(&clock).await;
    sandbox.add_fault(serde_json::from_value(json!({"times": 0, "action": {"kind": "hang"}})).unwrap());
    let host = host(&clock, [("default", TenantSettings { max_jobs: 2, ..unpaced(&sandbox) })]);
    let worker = host.worker().await;
    for n in 0..10 {
        host.enqueue(job(&format!("n-{n}"), "default", ENABLED)).await.unwrap();
    }
    host.until_sql("SELECT count(*) = 2 FROM jobs WHERE state = 'running'").await;
    host.until_so("two preflights", || asked(&sandbox, "/preflight/") == 2).await;
    // Whoever is cancelled makes room for one more, and no more than one.
    host.client.cancel(target("n-0"), None).await.unwrap();
    host.until_so("a third preflight", || asked(&sandbox, "/preflight/") == 3).await;
    clock.until_at_rest().await;
    assert_eq!(asked(&sandbox, "/preflight/"), 3);
    assert!(host.sql::<bool>("SELECT count(*) <= 2 FROM jobs WHERE state = 'running'"));
    for n in 1..10 {
        host.client.cancel(target(&format!("n-{n}")), None).await.unwrap();
    }
    host.until_sql(ALL_CLOSED).await;
    worker.drain().await.unwrap();
}

/// Lets time pass until the tenant is held.
async fn until_held(host: &TestHost) {
    for _ in 0..60 {
        if host.sql::<bool>(HELD) {
            return;
        }
        host.clock.advance(Duration::from_secs(1)).await;
    }
    panic!("the tenant is not held within a minute");
}

/// A tenant that is down answers every request with 503, and says no time. Five hundred reruns do not ask it five hundred times.
#[tokio::test]
async fn five_hundred_reruns_at_a_dead_tenant_ask_it_a_few_times_and_go_on_when_it_is_back() {
    let clock = clock();
    let sandbox = sandbox(&clock).await;
    let host = host(&clock, [("default", unpaced(&sandbox))]);
    sandbox.add_fault(serde_json::from_value(json!({"times": 0, "action": {"kind": "status", "status": 503}})).unwrap());
    for n in 0..500 {
        let input = json!({"workflow": CRAWLER, "until": "submitted"});
        host.enqueue(JobRequest { job_id: Some(format!("n-{n}")), ..request("workflow_rerun", input) }).await.unwrap();
    }
    let worker = host.worker().await;
    let second = async |asked: &mut Vec<usize>| {
        let before = sandbox.requests().len();
        clock.advance(Duration::from_secs(1)).await;
        asked.push(sandbox.requests().len() - before);
    };
    let mut asked = Vec::new();
    until_held(&host).await;
    for _ in 0..60 {
        second(&mut asked).await;
    }
    assert!(asked.iter().all(|requests| *requests <= 3) && asked.iter().sum::<usize>() <= 12, "requests each second: {asked:?}");
    let hold = host.client.presence().await.unwrap().holds.remove(0);
    assert!(hold.reason.contains("only probed until it answers") && hold.reason.contains("503"), "{hold:?}");
    let spent: i64 = host.sql("SELECT sum(attempt) FROM jobs");
    assert!(spent <= 8, "{spent} attempts were spent by five hundred jobs in a minute");

    sandbox.clear_faults();
    let back = clock.monotonic();
    while !host.sql::<bool>(ALL_CLOSED) {
        clock.advance(Duration::from_secs(1)).await;
        assert!(clock.monotonic() < back + Duration::from_secs(120), "they continue when a probe is answered");
    }
    for n in 0..500 {
        let verdict = host.client.wait(target(&format!("n-{n}"))).await.unwrap();
        assert!(verdict.status == Status::Passed && verdict.attempts <= 3, "{verdict:#?}");
    }
    assert!(host.client.presence().await.unwrap().holds.is_empty());
    worker.drain().await.unwrap();
}

/// An effect of unknown fate is looked for as soon as the tenant answers, however long that takes, and is not sent again.
#[tokio::test]
async fn an_effect_of_unknown_fate_outlasts_a_tenant_that_fails_at_everything() {
    let clock = clock();
    let sandbox = sandbox(&clock).await;
    let host = host(&clock, [("default", unpaced(&sandbox))]);
    let input = json!({"workflow": CRAWLER, "until": "submitted"});
    host.enqueue(JobRequest { job_id: Some("lost".into()), ..request("workflow_rerun", input) }).await.unwrap();
    let fault = |fault: serde_json::Value| sandbox.add_fault(serde_json::from_value(fault).unwrap());
    fault(json!({"path": "/submit", "action": {"kind": "cut_after_applying"}}));
    fault(json!({"path": "/submit", "nth": 2, "times": 0, "action": {"kind": "status", "status": 503}}));
    let worker = host.worker().await;
    let seconds = async |until: &dyn Fn() -> bool| {
        for _ in 0..120 {
            if until() {
                return;
            }
            clock.advance(Duration::from_secs(1)).await;
        }
        panic!("that does not come about within two minutes");
    };
    seconds(&|| !submissions(&sandbox).is_empty()).await;
    fault(json!({"times": 0, "action": {"kind": "status", "status": 503}}));
    for n in 0..20 {
        host.enqueue(job(&format!("n-{n}"), "default", ENABLED)).await.unwrap();
    }
    until_held(&host).await;
    clock.advance(Duration::from_secs(300)).await;
    sandbox.clear_faults();
    seconds(&|| host.sql::<bool>("SELECT count(*) = 1 FROM jobs WHERE job_id = 'lost' AND finished_at IS NOT NULL")).await;
    let verdict = host.client.wait(target("lost")).await.unwrap();
    assert_eq!((verdict.status, submissions(&sandbox).len()), (Status::Passed, 1), "{verdict:#?}");
    seconds(&|| host.sql::<bool>(ALL_CLOSED)).await;
    worker.drain().await.unwrap();
}
