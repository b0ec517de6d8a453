//! Configuration: the compiled-in defaults, then a file, then the environment. An unknown key, a wrong type or an impossible value is
//! an error that names the key, where it was set, and the hint. The reference of all keys is `config/default.toml`.

mod check;
mod keys;
mod lenient;
mod load;
mod logins;
mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use iolaus_activities::duration;
use iolaus_activities::tenant::TenantSettings;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use crate::intake::OptionOverrides;
use crate::job::Throttles;
use crate::telemetry::LogFormat;

/// The reference of all keys with their defaults, as it is compiled in.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// Everything that can be configured, checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where jobs live.
    pub host: HostConfig,
    /// The embedded host's file.
    pub database: DatabaseConfig,
    /// The cluster.
    pub temporal: TemporalConfig,
    /// How a worker works.
    pub worker: WorkerConfig,
    /// The tenants, by name.
    pub tenants: BTreeMap<String, TenantSettings>,
    /// What is said about activities, by name.
    #[serde(default)]
    pub activities: BTreeMap<String, OptionOverrides>,
    /// Limits over all workers of the queue.
    #[serde(default)]
    pub limits: Throttles,
    /// What an operator's machines ask a worker.
    pub http: HttpConfig,
    /// What is counted.
    pub metrics: MetricsConfig,
    /// Log lines.
    pub log: LogConfig,
    /// The file that was read, if any.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// What was refused and put aside. Empty, but for [`Config::load_leniently`].
    #[serde(skip)]
    pub problems: Vec<ConfigError>,
}

/// Where jobs live.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Which host.
    pub kind: HostKind,
}

/// The hosts. A build without the feature refuses the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// A SQLite file on this machine.
    Embedded,
    /// A Temporal cluster.
    Temporal,
}

/// The cluster. What is empty is said by Temporal's own environment configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemporalConfig {
    /// `host:port`.
    pub address: String,
    /// The namespace.
    pub namespace: String,
    /// The task queue of work; that of waits has `-waits` behind it.
    pub task_queue: String,
    /// An API key.
    #[serde(default)]
    pub api_key: Option<SecretString>,
    /// The file of one.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// Whether TLS is wanted.
    pub tls: bool,
    /// Whom to trust.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// The name that the cluster's certificate must have.
    #[serde(default)]
    pub tls_server_name: Option<String>,
    /// Our own certificate.
    #[serde(default)]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub tls_key_file: Option<PathBuf>,
    /// How long a connection may take to open.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// When an attempt of a silent worker is another worker's.
    #[serde(with = "duration")]
    pub heartbeat_timeout: Duration,
    /// Polls at once, of each task queue.
    pub pollers: usize,
    /// The deployment's name, for worker versioning.
    pub deployment: String,
    /// The id of this build, for the same.
    pub build_id: String,
    /// A search attribute that carries the tenant's name.
    pub tenant_attribute: String,
}

/// The embedded host's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// Absolute once loaded.
    pub path: PathBuf,
    /// Whether a network file system is tolerated.
    pub allow_network_filesystem: bool,
    /// How long closed executions are kept.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// How many bytes of jobs may wait in a process to be stored.
    pub max_waiting_bytes: usize,
    /// How long an enqueue waits for room before it is refused as overloaded.
    #[serde(with = "duration")]
    pub enqueue_timeout: Duration,
    /// How long a write may take before its fate is unknown.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// How many bytes of write-ahead log are no cause for a warning.
    pub wal_warn_bytes: u64,
}

/// How a worker works.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Attempts at once that keep the worker busy.
    pub slots_work: usize,
    /// Attempts at once that wait.
    pub slots_waits: usize,
    /// When a silent worker counts as dead.
    #[serde(with = "duration")]
    pub worker_timeout: Duration,
    /// Workers in a row that may die while they run one job.
    pub max_deaths: u32,
    /// How long a stopping worker lets attempts finish.
    #[serde(with = "duration")]
    pub drain_deadline: Duration,
    /// How long an attempt may ignore a stop.
    #[serde(with = "duration")]
    pub cancel_grace: Duration,
    /// When an attempt without progress is reported.
    #[serde(with = "duration")]
    pub stall_after: Duration,
    /// When `execute` stops waiting for a tenant that was never reached. Zero: never.
    #[serde(with = "duration")]
    pub unreached_timeout: Duration,
}

/// What an operator's machines ask a worker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Where a worker answers probes and Prometheus. `None`: nowhere.
    #[serde(deserialize_with = "address")]
    pub listen: Option<SocketAddr>,
    /// Connections at the same time.
    pub max_connections: usize,
    /// From accepting a connection to the end of its first request's head.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// From a request's head to its answer.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// From an answer to the end of the next request's head.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Whether somebody chose that, so that a worker does without only if nobody did.
    #[serde(skip)]
    pub chosen: bool,
}

/// An address with its port; empty is none.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let refused = |_| serde::de::Error::custom(format!("`{text}` is no address and port, such as 127.0.0.1:9464 or 0.0.0.0:9464"));
    text.parse().map(Some).map_err(refused)
}

/// What is counted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Tenants that are counted under their own name.
    pub max_tenants: usize,
}

/// Log lines.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A filter; empty means the command's own default.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// Why a configuration is refused. Never shows a value that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, as in `worker.slots_work`, when it is about one.
    pub key: Option<String>,
    /// Where it was set: a file, a variable.
    pub origin: String,
    /// What is wrong.
    pub problem: String,
    /// How to fix it.
    pub hint: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "configuration key `{key}` in {}: {}", self.origin, self.problem),
            None => write!(f, "configuration in {}: {}", self.origin, self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The process's environment, as an argument.
pub type Environment = Vec<(OsString, OsString)>;

impl Config {
    /// Reads what is configured. `file` must exist if it is given; so must the file that `IOLAUS_CONFIG` names.
    pub fn load(file: Option<PathBuf>, environment: &Environment) -> Result<Self, ConfigError> {
        load::load(file, environment)
    }

    /// The same as far as it can be used: what is refused is left at its default and named in `problems`.
    pub fn load_leniently(file: Option<PathBuf>, environment: &Environment) -> Result<Self, ConfigError> {
        lenient::load(file, environment)
    }

    /// The section of a tenant.
    pub fn tenant(&self, name: &str) -> Option<&TenantSettings> {
        self.tenants.get(name)
    }
}

#[cfg(test)]
mod tests;
