//! A sandbox under the same clock as the host, and a client of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iolaus::sandbox::{Sandbox, SandboxOptions, What};
use iolaus_activities::tenant::{TenantSettings, Tenants};
use iolaus_activities::{Clock, ManualClock};

/// The bearer that most tests use: an API token, which may administer every connection but the refusing one.
pub(crate) const API_TOKEN: &str = "sandbox-api-token";

pub(crate) struct TestTenant {
    pub(crate) sandbox: Sandbox,
    pub(crate) tenants: Arc<Tenants>,
}

impl TestTenant {
    /// The tenant `default`, on the given clock; its runs take about twenty seconds and searches lag two behind.
    pub(crate) async fn start(clock: &Arc<ManualClock>, bearer: &str) -> Self {
        let its = clock.clone();
        let options = SandboxOptions {
            clock: Arc::new(move || its.now().as_millisecond()),
            running: Duration::from_secs(20),
            index_lag: Duration::from_secs(2),
            ..SandboxOptions::default()
        };
        let sandbox = Sandbox::start(options).await.unwrap();
        // Another test may have installed it already.
        rustls::crypto::ring::default_provider().install_default().ok();
        let settings = TenantSettings { base_url: sandbox.base_url(), api_key: Some(bearer.into()), ..TenantSettings::default() };
        let tenants = Tenants::new(BTreeMap::from([("default".to_owned(), settings)]), clock.clone()).unwrap();
        Self { sandbox, tenants }
    }

    /// What was really applied, by kind, oldest first.
    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        let kind = |what: &What| match what {
            What::RunSubmitted { .. } => "run_submitted",
            What::RunStopped { .. } => "run_stopped",
            What::WorkflowCreated { .. } => "workflow_created",
            What::WorkflowUpdated { .. } => "workflow_updated",
            What::WorkflowArchived { .. } => "workflow_archived",
            What::OwnerChanged { .. } => "owner_changed",
            What::AdminsReplaced { .. } => "admins_replaced",
            What::AdminGrantedByRun { .. } => "admin_granted_by_run",
        };
        self.sandbox.effects().iter().map(|effect| kind(&effect.what)).collect()
    }
}
