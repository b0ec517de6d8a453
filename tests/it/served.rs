//! A worker takes only jobs of tenants that it has an address and credentials for. The others wait for a worker that has them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iolaus::client::Missing;
use iolaus::intake::JobRequest;
use iolaus::job::JobState;
use iolaus::sandbox::{Sandbox, SandboxOptions};
use iolaus_activities::tenant::{TenantSettings, Tenants};
use iolaus_activities::{ManualClock, Status};

use crate::support::host::{TestHost, target};
use crate::support::tenant::{ENABLED, preflight, request, sandbox_clock, settings};

async fn sandbox(clock: &Arc<ManualClock>) -> Sandbox {
    Sandbox::start(SandboxOptions { clock: sandbox_clock(clock), ..SandboxOptions::default() }).await.unwrap()
}

fn tenants<const N: usize>(clock: &Arc<ManualClock>, of: [(&str, TenantSettings); N]) -> Arc<Tenants> {
    let of: BTreeMap<_, _> = of.into_iter().map(|(name, settings)| (name.to_owned(), settings)).collect();
    Tenants::new(of, clock.clone()).unwrap()
}

fn job(id: &str, tenant: &str) -> JobRequest {
    JobRequest { job_id: Some(id.into()), tenant: Some(tenant.into()), ..request("publish_preflight", preflight(ENABLED)) }
}

#[tokio::test]
async fn jobs_of_a_tenant_that_a_worker_cannot_ask_stay_available_for_a_worker_that_can() {
    let host = TestHost::new();
    let sandbox = sandbox(&host.clock).await;
    let without_key = TenantSettings { api_key: None, ..settings(&sandbox) };
    let some = tenants(&host.clock, [("default", settings(&sandbox)), ("no-key", without_key)]);
    let everything = [("default", settings(&sandbox)), ("no-key", settings(&sandbox)), ("not-configured", settings(&sandbox))];
    let all = tenants(&host.clock, everything);
    let host = host.with_tenants(all);
    let first = host.another().with_tenants(some);
    // Some wait when the worker comes, some come when it has a free slot.
    for tenant in ["no-key", "not-configured"] {
        host.enqueue_for(job(&format!("early-{tenant}"), tenant)).await;
    }
    let worker = first.worker().await;
    for tenant in ["no-key", "not-configured", "default"] {
        host.enqueue_for(job(&format!("late-{tenant}"), tenant)).await;
    }
    assert_eq!(host.client.wait(target("late-default")).await.unwrap().status, Status::Passed);
    for id in ["early-no-key", "early-not-configured", "late-no-key", "late-not-configured"] {
        let waiting = host.detail(id).await.job;
        assert_eq!((waiting.state, waiting.attempts), (JobState::Available, 0), "{id}");
    }
    let status = host.client.status().await.unwrap();
    assert_eq!(status.presence.workers[0].tenants, Some(vec!["default".to_owned()]));
    let without: Vec<_> = status.without_worker.iter().map(|of| (of.tenant.as_str(), of.jobs, of.missing)).collect();
    assert_eq!(without, [("no-key", 2, Missing::Tenant), ("not-configured", 2, Missing::Tenant)]);

    let another = host.worker().await;
    for id in ["early-no-key", "early-not-configured", "late-no-key", "late-not-configured"] {
        let verdict = host.client.wait(target(id)).await.unwrap();
        assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 1), "{id}: {verdict:?}");
    }
    assert!(host.client.status().await.unwrap().without_worker.is_empty());
    another.drain().await.unwrap();
    worker.drain().await.unwrap();
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM worker_tenants"), 0, "nothing is kept of a worker that is gone");
}

#[tokio::test]
async fn a_job_that_no_worker_could_take_in_time_says_so_in_its_verdict() {
    let host = TestHost::new();
    let sandbox = sandbox(&host.clock).await;
    let some = tenants(&host.clock, [("default", settings(&sandbox))]);
    let host = host.with_tenants(some);
    let worker = host.worker().await;
    // A worker that has found nothing more to do starts what comes next in the very transaction that stores it.
    host.enqueue(job("served", "default")).await.unwrap();
    assert_eq!(host.client.wait(target("served")).await.unwrap().status, Status::Passed);
    host.clock.until_at_rest().await;
    host.enqueue(job("lonely", "other")).await.unwrap();
    // A preflight may take two minutes in all.
    host.clock.advance(Duration::from_secs(121)).await;
    let verdict = host.client.wait(target("lonely")).await.unwrap();
    assert_eq!((verdict.status, verdict.attempts), (Status::Unresolved, 0));
    let failure = verdict.failure.unwrap();
    assert_eq!(failure.code, "timeout.schedule_to_close");
    assert!(failure.message.ends_with("; no worker has an address and credentials for tenant other"), "{failure:?}");
    worker.drain().await.unwrap();
}

/// What a claim looks at follows the tenants that have jobs, not those that are configured.
#[tokio::test]
async fn a_worker_of_a_thousand_tenants_takes_the_one_job_that_is_there() {
    let host = TestHost::new();
    let sandbox = sandbox(&host.clock).await;
    let many = (0..1_000).map(|n| (format!("tenant-{n}"), settings(&sandbox))).collect();
    let many = Tenants::new(many, host.clock.clone()).unwrap();
    let host = host.with_tenants(many);
    let worker = host.worker().await;
    host.enqueue_for(job("one", "tenant-777")).await;
    assert_eq!(host.client.wait(target("one")).await.unwrap().status, Status::Passed);
    worker.drain().await.unwrap();
}
