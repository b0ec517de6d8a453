//! A sandbox and a host on one clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iolaus::intake::JobRequest;
use iolaus::sandbox::{Fault, Generation, Sandbox, SandboxOptions, What};
use iolaus_activities::tenant::{TenantSettings, Tenants};
use iolaus_activities::{Clock, ManualClock, VerdictRecord};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::host::TestHost;

pub(crate) const ENABLED: &str = "8c1e2d8a-1564-4e95-8b14-ea14522fcf61";
pub(crate) const DISABLED: &str = "0d15ab1e-d000-4000-8000-000000000001";
pub(crate) const CONNECTION: &str = "default/snowflake/1234567890";
/// A token that is an admin of nothing, and its user.
pub(crate) const TOKEN: &str = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99";
pub(crate) const TOKEN_USER: &str = "service-account-apikey-33333333-4444-5555-6666-777777777777";
pub(crate) const CRAWLER: &str = "atlan-snowflake-1684500500";
pub(crate) const FAILING: &str = "atlan-postgres-1684500700";
pub(crate) const RUNNING: &str = "atlan-redshift-1684500800";

pub(crate) const APP: &str = "snowflake-prod-5d01c7aa";
pub(crate) const FAILING_APP: &str = "postgres-crm-18c2d9e6";
pub(crate) const RUNNING_APP: &str = "redshift-dwh-9a4be150";
pub(crate) const RUNNING_APP_RUN: &str = "3c6ef372fe94f82a";
pub(crate) const BOTH: [Generation; 2] = [Generation::Argo, Generation::Native];

/// What a rerun of something that is idle and will succeed is asked for with.
pub(crate) fn idle(generation: Generation) -> Value {
    match generation {
        Generation::Argo => json!({"workflow": CRAWLER}),
        Generation::Native => json!({"app": APP}),
    }
}

/// An object with more fields.
pub(crate) fn with(mut object: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("no object: {more}") };
    object.as_object_mut().unwrap().extend(more);
    object
}

pub(crate) struct TestTenant {
    pub(crate) host: TestHost,
    pub(crate) sandbox: Sandbox,
}

impl TestTenant {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn of(generation: Generation) -> Self {
        Self::with(|options| options.generation = generation).await
    }

    /// With an index that lags by so many seconds.
    pub(crate) async fn lagging(generation: Generation, seconds: u64) -> Self {
        Self::with(|options| (options.generation, options.index_lag) = (generation, Duration::from_secs(seconds))).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut SandboxOptions)) -> Self {
        let host = TestHost::new();
        let mut options = SandboxOptions {
            clock: sandbox_clock(&host.clock),
            pending: Duration::from_secs(2),
            running: Duration::from_secs(30),
            ..SandboxOptions::default()
        };
        change(&mut options);
        let sandbox = Sandbox::start(options).await.unwrap();
        let tenants = tenants(&sandbox, &host.clock);
        Self { host: host.with_tenants(tenants), sandbox }
    }

    /// A host with an empty disk, before the same tenant.
    pub(crate) fn with_an_empty_disk(self) -> Self {
        let Self { host, sandbox } = self;
        let clock = host.clock.clone();
        let tenants = tenants(&sandbox, &clock);
        Self { host: TestHost::on(clock).with_tenants(tenants), sandbox }
    }

    pub(crate) fn fault(&self, fault: Value) {
        self.sandbox.add_fault(serde_json::from_value::<Fault>(fault).unwrap());
    }

    /// Enqueues, works and waits.
    pub(crate) async fn run(&self, activity: &str, input: Value) -> VerdictRecord {
        let worker = self.host.worker().await;
        let enqueued = self.host.enqueue(request(activity, input)).await.unwrap();
        let verdict = self.host.verdict(enqueued.job_id.as_str()).await;
        worker.drain().await.unwrap();
        verdict
    }

    /// A client of the tenant with other settings.
    pub(crate) fn tenants_with(&self, change: impl FnOnce(&mut TenantSettings)) -> Arc<Tenants> {
        let mut settings = settings(&self.sandbox);
        change(&mut settings);
        Tenants::new(BTreeMap::from([("default".to_owned(), settings)]), self.host.clock.clone()).unwrap()
    }

    /// A client of the tenant of its own.
    pub(crate) fn tenants(&self) -> Arc<Tenants> {
        tenants(&self.sandbox, &self.host.clock)
    }

    /// What was really applied, by kind, oldest first.
    pub(crate) fn applied(&self) -> Vec<String> {
        let effects = self.sandbox.effects().into_iter();
        effects.map(|effect| serde_json::to_value(effect).unwrap()["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// The runs that were really submitted, of workflows and of apps.
    pub(crate) fn submissions(&self) -> Vec<String> {
        submissions(&self.sandbox)
    }
}

/// The runs that were really submitted, of workflows and of apps.
pub(crate) fn submissions(sandbox: &Sandbox) -> Vec<String> {
    let run = |effect: iolaus::sandbox::Effect| match effect.what {
        What::RunSubmitted { run, .. } | What::AppRunSubmitted { run, .. } => Some(run),
        _ => None,
    };
    sandbox.effects().into_iter().filter_map(run).collect()
}

/// A run that was really submitted.
#[derive(Debug, Clone)]
pub(crate) struct SubmittedRun {
    pub(crate) run: String,
    pub(crate) request_id: String,
    pub(crate) at: Timestamp,
    /// When it was stopped before its end.
    pub(crate) stopped: Option<Timestamp>,
}

/// The runs of workflows that were really submitted, oldest first.
pub(crate) fn submitted_runs(sandbox: &Sandbox) -> Vec<SubmittedRun> {
    let mut runs: Vec<SubmittedRun> = Vec::new();
    for effect in sandbox.effects() {
        let at = effect.at.parse().unwrap();
        match effect.what {
            What::RunSubmitted { run, request_id, .. } => {
                runs.push(SubmittedRun { run, request_id: request_id.unwrap_or_default(), at, stopped: None });
            }
            What::RunStopped { run, .. } => {
                runs.iter_mut().filter(|known| known.run == run).for_each(|known| known.stopped = Some(at));
            }
            _ => {}
        }
    }
    runs
}

pub(crate) fn request(activity: &str, input: Value) -> JobRequest {
    JobRequest { activity: activity.into(), input, ..JobRequest::default() }
}

pub(crate) fn preflight(user: &str) -> Value {
    json!({"user_id": user, "connection_qualified_name": CONNECTION})
}

pub(crate) fn grant(method: &str) -> Value {
    json!({"connection_qualified_name": CONNECTION, "api_token_guid": TOKEN, "method": method})
}

pub(crate) fn sandbox_clock(clock: &Arc<ManualClock>) -> Arc<dyn Fn() -> i64 + Send + Sync> {
    let clock = clock.clone();
    Arc::new(move || clock.now().as_millisecond())
}

fn tenants(sandbox: &Sandbox, clock: &Arc<ManualClock>) -> Arc<Tenants> {
    Tenants::new(BTreeMap::from([("default".to_owned(), settings(sandbox))]), clock.clone()).unwrap()
}

/// What leads to a sandbox, as an API token of it.
pub(crate) fn settings(sandbox: &Sandbox) -> TenantSettings {
    TenantSettings {
        base_url: sandbox.base_url(),
        api_key: Some("sandbox-api-token".to_owned().into()),
        ..TenantSettings::default()
    }
}
