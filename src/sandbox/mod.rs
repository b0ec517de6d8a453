//! The simulated tenant: a real HTTP server on loopback for trying, teaching and testing.
//!
//! It shares no type with the tenant's client, which is its worth: both are written from the wire, and neither can hide
//! the other's mistakes. It plays a tenant of either generation: *argo*, with workflows and runs, or *native*, with
//! `/v1/app`. Time comes from a closure, run phases follow from it, and nothing ticks in the background. Deliberately not
//! here: runs that a schedule starts, persistence.
//!
//! # What a sandbox holds when it starts
//!
//! Bearers:
//!
//! | bearer | user name | role | serves as |
//! |---|---|---|---|
//! | `sandbox-api-token` | `service-account-apikey-11111111-2222-3333-4444-555555555555` | `$api-token-default-access` | an API token |
//! | `sandbox-admin` | `jane` | `$admin` | a human admin |
//! | `sandbox-member` | `joe` | `$member` | a human member: `package-workflows` only |
//! | `sandbox-service-account` | `service-account-connector` | `$api-token-default-access` | a connector's pod |
//!
//! Who gets access tokens, which expire by the sandbox's clock:
//!
//! | client id | secret | where | its tokens act as | |
//! |---|---|---|---|---|
//! | `oauth-client-sandbox` | `sandbox-oauth-secret` | `oauth-clients/token` | `service-account-oauth-client-sandbox`, `$admin` | |
//! | `connector` | `sandbox-connector-secret` | Keycloak, realm `default` | `service-account-connector` | may ask the publish preflight |
//! | `atlan-argo` | `sandbox-argo-secret` | Keycloak, realm `default` | `service-account-atlan-argo`, `$admin` | may become any enabled user |
//! | each API token's | `sandbox-NAME-secret` | Keycloak, realm `default` | that API token | |
//!
//! Users, for the publish preflight and for becoming one:
//!
//! | user id | name | enabled | may publish to |
//! |---|---|---|---|
//! | `8c1e2d8a-1564-4e95-8b14-ea14522fcf61` | `jane` | yes | every connection |
//! | `5f0f9f6e-3a53-4a0e-9a39-2f3f1f1d2c10` | `joe` | yes | `default/postgres/1111111111` |
//! | `0d15ab1e-d000-4000-8000-000000000001` | `dora` | no | `default/snowflake/1234567890` |
//! | `90000000-0000-4000-8000-000000000002` | `noah` | yes | none |
//!
//! Connections:
//!
//! | qualified name | guid | name | `adminUsers` | |
//! |---|---|---|---|---|
//! | `default/snowflake/1234567890` | `c0000000-0000-4000-8000-000000000001` | `prod` | `jane` | |
//! | `default/postgres/1111111111` | `c0000000-0000-4000-8000-000000000002` | `crm` | `jane`, token `granted` | |
//! | `default/snowflake/9999999999` | `c0000000-0000-4000-8000-000000000003` | `locked` | `jane` | refuses every change of its admins |
//!
//! API tokens (the user name is `service-account-` and the client id):
//!
//! | guid | client id | display name |
//! |---|---|---|
//! | `b0000000-0000-4000-8000-000000000001` | `apikey-11111111-2222-3333-4444-555555555555` | `sandbox` |
//! | `92588c67-5ddf-4a45-8b5c-dd92f4b84e99` | `apikey-33333333-4444-5555-6666-777777777777` | `ci` |
//! | `a11ead1e-0000-4000-8000-000000000003` | `apikey-66666666-7777-8888-9999-aaaaaaaaaaaa` | `granted` |
//!
//! The value of `sandbox` is the bearer `sandbox-api-token`; nobody holds the values of the other two.
//!
//! Groups: `data_stewards` (`Data Stewards`: `jane`, `noah`) and `engineers` (`Engineers`: `joe`). One credential of a source:
//! `default-snowflake-1684500500-0`.
//!
//! Personas: `Data Stewards` (`default/xS2hdJ7TWUqhVcZHC3zoVN`), and two named `Readers` (`default/rEaDeRs1TWUqhVcZHC3zoV`,
//! `default/rEaDeRs2TWUqhVcZHC3zoV`).
//!
//! On argo, workflows, created at the second that their name ends in:
//!
//! | name | package | its runs end | seeded run |
//! |---|---|---|---|
//! | `csa-api-token-connection-admin-1684500411` | `@csa/api-token-connection-admin` | Succeeded; makes `ci` an admin of `prod` | `…-t7s8b`, Succeeded in 2023, without effect here |
//! | `atlan-snowflake-1684500500` | `@atlan/snowflake` | Succeeded | |
//! | `atlan-snowflake-miner-1684500600` | `@atlan/snowflake-miner` | Succeeded | |
//! | `atlan-postgres-1684500700` | `@atlan/postgres` | Failed, with a message | |
//! | `atlan-redshift-1684500800` | `@atlan/redshift` | Succeeded | `…-k2v9d`, Running since a minute before the start, Succeeds [`SandboxOptions::running`] after it |
//! | `atlan-tableau-1684500900`, `atlan-tableau-1684500901` | `@atlan/tableau` | Succeeded | |
//!
//! On native, workflows made of apps (all of `jane`), and no workflow template:
//!
//! | slug | name | app | its runs end | seeded run |
//! |---|---|---|---|---|
//! | `bq-prod-3f9ab2c1` | `bq-prod` | `bigquery-crawler` | Succeeded | `9e3779b97f4a7c15`, Succeeded on 2026-01-01 |
//! | `snowflake-prod-5d01c7aa` | `snowflake-prod` | `snowflake-crawler` | Succeeded | |
//! | `snowflake-queries-77e3b0f4` | `snowflake-queries` | `snowflake-miner` | Succeeded | |
//! | `postgres-crm-18c2d9e6` | `postgres-crm` | `postgres-crawler` | Failed, with a message | |
//! | `redshift-dwh-9a4be150` | `redshift-dwh` | `redshift-crawler` | Succeeded | `3c6ef372fe94f82a`, Running since a minute before the start, Succeeds [`SandboxOptions::running`] after it |
//! | `tableau-sales-0b6f8d23`, `tableau-sales-6ce1a94f` | `tableau-sales`, both | `atlan-tableau` | Succeeded | |
//!
//! Of `csa-api-token-connection-admin` no workflow can be made there: it is not ready for native. `snowflake-miner` demands
//! the input `connection`; the other apps demand none.
//!
//! # Its own routes
//!
//! `POST /sandbox/automation {"access":"forbidden"}` (an [`AutomationAccess`]), `GET /sandbox/health`, `GET /sandbox/ledger`, `GET /sandbox/requests`, `GET | POST | DELETE /sandbox/faults`,
//! `POST /sandbox/index-lag {"ms":…}`, `POST /sandbox/credentials` with a [`CredentialChange`], `POST /sandbox/runs` with a
//! [`ManualRun`]: a run that another user starts. They need no bearer, count as no exchange, and are hit by no fault. A fault in JSON:
//! `{"method":"POST","path":"/submit","nth":2,"times":1,"action":{"kind":"cut_after_applying"}}`, a change of
//! credentials: `{"kind":"revoke","bearer":"sandbox-api-token"}`. A request that a browser sends from a page of another origin is
//! refused with a 403.
//!
//! # What is a choice, because it is not publicly known or would not help
//!
//! - API tokens and admins may administer every connection but the refusing one; a real token needs to be named as its admin, as
//!   here with [`SandboxOptions::strict_admins`]. Holders of `$admin_connections` may always.
//! - Admins and API tokens may manage OAuth clients and API tokens; others get a 403. An OAuth client of an unknown role or
//!   persona is a 400, and so is a key of an update that cannot be changed.
//! - The user name of an OAuth client is `service-account-` and its client id. Its creation takes `tokenExpirySeconds` too.
//! - Keycloak finds users by their whole name; a user without a bearer becomes a `$member`.
//! - Nobody may publish to a connection that does not exist: the preflight's permission check fails, it is no 404.
//! - Stopping a run that has ended is a 400; a member at a `workflows` endpoint gets a 403.
//! - A Pending run has no `startedAt`, so that it sorts last. Equal sort values keep the newest run first.
//! - `/automation/api/v1` serves admins and API tokens; its list lags as searches do, reading one run does not. A run that is
//!   terminated there is `Terminated`. With [`SandboxOptions::native_engine`] a workflow's slug is its name, and its runs are
//!   stopped by `v1/app/runs/<run>/cancel`, as no Argo workflow of their name exists.
//! - On native a Pending run has no start either; `__timestamp` in the index is when it was created. Cancelling a run that
//!   has ended is a 400. Deleting a workflow stops no run. Lists and single reads never lag, searches do.
//! - Searches are stricter than a real index: what would silently match nothing (a field without its `.keyword`, or
//!   without its nested path) is a 400 that names it.
//! - A bulk write creates connections and replaces their admin lists only, and refuses any other type or attribute.
//! - Handing a workflow over to a user who does not exist is a 404.
//! - A schedule query is a workflow of package `@atlan/schedule-query`. Nothing runs by schedules here, so that each one with a
//!   schedule and without a run between two dates was missed between them.
//! - A test of a credential succeeds unless its host is `unreachable`.

mod admin;
mod answer;
mod apps;
mod arrival;
mod automation;
mod connections;
mod credentials;
mod cron;
mod faults;
mod grant;
mod identity;
mod jwt;
mod keycloak;
mod keys;
mod ledger;
mod listener;
mod listing;
mod manual_runs;
mod metastore;
mod oauth_clients;
mod options;
mod personas;
mod preflight;
mod probe;
mod rate;
mod runs;
mod search;
mod seed;
mod server;
mod state;
mod stored_credentials;
mod submit;
mod time;
mod tokens;
mod users;
mod workflows;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fmt, io};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use automation::AutomationAccess;
pub use credentials::CredentialChange;
pub use faults::{Action, Fault};
pub use ledger::{Effect, Exchange, What};
pub use manual_runs::ManualRun;
pub use options::{AlreadyActive, Generation, SandboxOptions};
pub use probe::probe;
pub use time::{Sleep, TimeSource};

use server::Shared;

/// A listening sandbox. Dropping it closes its port and its connections.
pub struct Sandbox {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sandbox").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Seeds a tenant and listens; the error is that of binding the address.
    pub async fn start(options: SandboxOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let tenant = seed::tenant(options.settings(), options.ledger_limit, (options.clock)().saturating_add(options.clock_skew));
        let shared = Shared::new(Arc::new(Mutex::new(tenant)), options);
        let shared = Arc::new(shared);
        let (stop, stopped) = watch::channel(false);
        let accepting = tokio::spawn(listener::run(listener, shared.clone(), stopped));
        Ok(Self { address, shared, stop, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address:port`, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was really applied, oldest first.
    pub fn effects(&self) -> Vec<Effect> {
        self.shared.effects()
    }

    /// Every exchange with the tenant, oldest first.
    pub fn requests(&self) -> Vec<Exchange> {
        self.shared.requests()
    }

    /// Adds a fault that the program wrote itself. Panics where [`Self::try_add_fault`] would refuse it.
    pub fn add_fault(&self, fault: Fault) {
        self.try_add_fault(fault).expect("a fault that can stand");
    }

    /// Adds a fault from outside; the error says why it cannot stand (no such status, too many faults).
    pub fn try_add_fault(&self, fault: Fault) -> Result<(), FaultRefused> {
        self.shared.add_fault(fault).map_err(FaultRefused)
    }

    /// Drops every standing fault.
    pub fn clear_faults(&self) {
        self.shared.clear_faults();
    }

    /// How many exchanges faults have hit since the start.
    pub fn faults_fired(&self) -> u64 {
        self.shared.standing_faults().0
    }

    /// Changes how far searches lag behind.
    pub fn set_index_lag(&self, lag: Duration) {
        self.shared.set_index_lag(lag);
    }

    /// Changes what the Automation Engine's own API answers.
    pub fn set_automation_access(&self, access: AutomationAccess) {
        self.shared.set_automation_access(access);
    }

    /// Changes what the tenant accepts; the error says why it cannot (no such bearer or client).
    pub fn change_credentials(&self, change: CredentialChange) -> Result<(), ChangeRefused> {
        self.shared.change_credentials(change).map_err(ChangeRefused)
    }

    /// Starts a run as another user does by hand, and answers its name or id; the error says what does not exist.
    pub fn start_manual_run(&self, manual: &ManualRun) -> Result<String, ManualRunRefused> {
        self.shared.start_manual_run(manual).map_err(ManualRunRefused)
    }

    /// The admin users of a connection as they are; empty for an unknown one.
    pub fn admin_users(&self, connection_qn: &str) -> Vec<String> {
        self.shared.admin_users(connection_qn)
    }

    /// Stops accepting, lets answers under way finish within two seconds, and closes the rest.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.accepting).await {
            tracing::warn!(%error, "sandbox did not stop in order");
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A fault that cannot stand, and why.
#[derive(Debug, thiserror::Error)]
#[error("fault refused: {0}")]
pub struct FaultRefused(String);

/// A change of credentials that cannot be made, and why.
#[derive(Debug, thiserror::Error)]
#[error("credentials not changed: {0}")]
pub struct ChangeRefused(String);

/// A run that cannot be started by hand, and why.
#[derive(Debug, thiserror::Error)]
#[error("run not started: {0}")]
pub struct ManualRunRefused(String);

#[cfg(test)]
mod tests;
