//! How a sandbox behaves, as whoever starts it says.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::automation::AutomationAccess;
use super::state::Settings;
use super::time::{self, Sleep, TimeSource};

/// How a sandbox behaves.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct SandboxOptions {
    /// Where it listens; port 0 takes a free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// Its clock. Default: the machine's.
    pub clock: TimeSource,
    /// How a late answer waits: in real time, unless a test owns the clock.
    pub sleep: Sleep,
    /// Which surface of workflows it has. Default [`Generation::Argo`].
    pub generation: Generation,
    /// How long a run is Pending. Default 300 ms.
    pub pending: Duration,
    /// How long a run is then Running. Default 1.5 s.
    pub running: Duration,
    /// Searches see a creation or change only so long after it. Default 0.
    pub index_lag: Duration,
    /// What a submit gets while a run of the same workflow is active. Default [`AlreadyActive::Masked500`].
    pub already_active: AlreadyActive,
    /// So many effects, and so many exchanges, are kept, the newest. Default 100,000.
    pub ledger_limit: usize,
    /// Plays the services inside the tenant's cluster: the workflow service without `/api/service`, the metastore under
    /// `/api/atlas/v2`. Default false.
    pub in_cluster: bool,
    /// Only who is named as an admin of a connection, or holds `$admin_connections`, may administer it. Default false.
    pub strict_admins: bool,
    /// How long issued access tokens live, cut to seconds, where a client has no lifetime of its own. Default: 600 s of an OAuth
    /// client, 300 s of Keycloak.
    pub token_lifetime: Option<Duration>,
    /// So many requests are served in a second, further ones get a 429 with `Retry-After`; 0: no limit. Default 0.
    pub requests_per_second: u32,
    /// A 401 is plain text in place of JSON. Default false.
    pub plain_401: bool,
    /// Whether answers carry a `Date` header, by the sandbox's clock. Default true.
    pub date_header: bool,
    /// How far all times of the tenant are ahead of its `Date` header, in milliseconds; negative: behind. Default 0.
    pub clock_skew: i64,
    /// The Automation Engine runs the workflows of an argo tenant: a submit answers only `run_id`, and no index of runs shows the
    /// run. Default false.
    pub native_engine: bool,
    /// What the Automation Engine's own API answers. Default [`AutomationAccess::Allowed`].
    pub automation: AutomationAccess,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: time::system_clock(),
            sleep: time::system_sleep(),
            generation: Generation::default(),
            pending: Duration::from_millis(300),
            running: Duration::from_millis(1_500),
            index_lag: Duration::ZERO,
            already_active: AlreadyActive::default(),
            ledger_limit: 100_000,
            in_cluster: false,
            strict_admins: false,
            token_lifetime: None,
            requests_per_second: 0,
            plain_401: false,
            date_header: true,
            clock_skew: 0,
            native_engine: false,
            automation: AutomationAccess::default(),
        }
    }
}

impl SandboxOptions {
    /// What of them the tenant's state goes by.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            generation: self.generation,
            pending: time::millis(self.pending),
            running: time::millis(self.running),
            index_lag: time::millis(self.index_lag),
            already_active: self.already_active,
            strict_admins: self.strict_admins,
            token_seconds: self.token_lifetime.map(|life| i64::try_from(life.as_secs()).unwrap_or(i64::MAX).max(1)),
            plain_401: self.plain_401,
            native_engine: self.native_engine,
            automation: self.automation,
        }
    }
}

impl fmt::Debug for SandboxOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SandboxOptions")
            .field("listen", &self.listen)
            .field("generation", &self.generation)
            .field("pending", &self.pending)
            .field("running", &self.running)
            .field("index_lag", &self.index_lag)
            .field("already_active", &self.already_active)
            .field("ledger_limit", &self.ledger_limit)
            .field("in_cluster", &self.in_cluster)
            .field("strict_admins", &self.strict_admins)
            .field("token_lifetime", &self.token_lifetime)
            .field("requests_per_second", &self.requests_per_second)
            .field("plain_401", &self.plain_401)
            .field("date_header", &self.date_header)
            .field("clock_skew", &self.clock_skew)
            .field("native_engine", &self.native_engine)
            .field("automation", &self.automation)
            .finish_non_exhaustive()
    }
}

/// The two generations of tenants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// Workflows and runs; `/v1/app` is 404.
    #[default]
    Argo,
    /// `/v1/app`; there is no workflow template, and none can be stored.
    Native,
}

/// How a second submit is answered while a run of the same workflow is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlreadyActive {
    /// 500 whose message contains `AE-WF-409-03`, as tenants really do.
    #[default]
    Masked500,
    /// 409 with code `AE-WF-409-03`.
    Conflict409,
    /// Served: several runs of one workflow are active at once.
    Allow,
}
