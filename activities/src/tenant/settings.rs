//! What configures one tenant. Reading files and the environment is the program's; files that hold a secret are read in `credentials`, so
//! that no other room ever holds one.

mod check;
mod form;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::duration;

pub(super) use check::{Checked, Refusal, check, check_settings};
pub(super) use form::{secret as secret_form, warning};

/// The settings of one tenant.
///
/// ```
/// # use iolaus_activities::tenant::TenantSettings;
/// let settings: TenantSettings = serde_json::from_str(r#"{"base_url": "https://acme.example.com", "index_lag": "20s"}"#).unwrap();
/// assert_eq!(settings.index_lag.as_secs(), 20);
/// assert!(serde_json::from_str::<TenantSettings>(r#"{"base_ulr": ""}"#).is_err());
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantSettings {
    /// Where the tenant is, as in `https://acme.example.com`; `INTERNAL` for a program inside the tenant's cluster. Empty: not configured.
    pub base_url: String,
    /// The workflow service inside the cluster, where its paths have no prefix. Empty: as `base_url` says.
    pub heracles_url: String,
    /// The metastore inside the cluster, where its paths have no prefix. Empty: as `base_url` says.
    pub metastore_url: String,
    /// Keycloak. Empty: as `base_url` says.
    pub keycloak_url: String,
    /// The API key. One of the three ways to log in.
    pub api_key: Option<SecretString>,
    /// A file that holds the API key. Instead of `api_key`.
    pub api_key_file: Option<PathBuf>,
    /// The id of an OAuth client, as in `oauth-client-…`. One of the three ways to log in.
    pub oauth_client_id: String,
    /// Its secret.
    pub oauth_client_secret: Option<SecretString>,
    /// A file that holds its secret. Instead of `oauth_client_secret`.
    pub oauth_client_secret_file: Option<PathBuf>,
    /// The id of a Keycloak client with a service account. One of the three ways to log in.
    pub keycloak_client_id: String,
    /// Its secret.
    pub keycloak_client_secret: Option<SecretString>,
    /// A file that holds its secret. Instead of `keycloak_client_secret`.
    pub keycloak_client_secret_file: Option<PathBuf>,
    /// The Keycloak realm of that client.
    pub keycloak_realm: String,
    /// The proxy to go through, as in `http://user:password@proxy.example.com:3128`. Absent or empty: what `HTTPS_PROXY`, `HTTP_PROXY` and
    /// `NO_PROXY` say.
    pub proxy: Option<SecretString>,
    /// Whether credentials may be sent over `http://` to another machine.
    pub allow_cleartext: bool,
    /// A file of PEM certificates that are trusted besides those of the machine.
    pub ca_file: Option<PathBuf>,
    /// What kind of workflow service the tenant has.
    pub generation: Generation,
    /// How long a connection may take to open.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long one request may take, its answer's body included.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// How long the tenant may take until a started run is found by a search.
    #[serde(with = "duration")]
    pub index_lag: Duration,
    /// How long after a submission of unknown fate a search that finds nothing is taken for "was not applied".
    #[serde(with = "duration")]
    pub reconcile_window: Duration,
    /// By how much the tenant's timestamps and our clock may disagree where its `Date` headers do not tell its clock within a second.
    #[serde(with = "duration")]
    pub clock_tolerance: Duration,
    /// How long a run that is being followed may stay unfound.
    #[serde(with = "duration")]
    pub index_grace: Duration,
    /// For how long a tenant may refuse to show what was started there before that decides.
    #[serde(with = "duration")]
    pub look_patience: Duration,
    /// How long after a direct grant was read back the connection is read once more, since another writer may have replaced the list
    /// of admins meanwhile; 0: it is not.
    #[serde(with = "duration")]
    pub grant_recheck: Duration,
    /// How long to wait between two looks at a run, once it is no longer young.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// How many requests may be sent in a second on average; 0: no limit.
    pub requests_per_second: u32,
    /// How many may be sent at once after a pause.
    pub request_burst: u32,
    /// How many requests may be in flight at once.
    pub max_requests: usize,
    /// How many attempts of one slot class a worker may run for it at once; 0: as many as leave the other tenants their share.
    pub max_jobs: usize,
    /// The longest body that is read, in bytes.
    pub body_limit: usize,
    /// How many pages of one search are read.
    pub max_pages: usize,
}

impl TenantSettings {
    /// Checks addresses and limits. No file is read.
    pub fn check(&self, tenant: &str) -> Result<(), SettingsError> {
        let refuse = |(key, problem, hint)| SettingsError { tenant: tenant.to_owned(), key, problem, hint };
        check_settings(self).map(drop).map_err(refuse)
    }
}

impl Default for TenantSettings {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            heracles_url: String::new(),
            metastore_url: String::new(),
            keycloak_url: String::new(),
            api_key: None,
            api_key_file: None,
            oauth_client_id: String::new(),
            oauth_client_secret: None,
            oauth_client_secret_file: None,
            keycloak_client_id: String::new(),
            keycloak_client_secret: None,
            keycloak_client_secret_file: None,
            keycloak_realm: "default".to_owned(),
            proxy: None,
            allow_cleartext: false,
            ca_file: None,
            generation: Generation::Auto,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            index_lag: Duration::from_secs(10),
            reconcile_window: Duration::from_secs(60),
            clock_tolerance: Duration::from_secs(5),
            index_grace: Duration::from_secs(60),
            look_patience: Duration::from_secs(600),
            grant_recheck: Duration::from_secs(3),
            poll_interval: Duration::from_secs(5),
            requests_per_second: 100,
            request_burst: 100,
            max_requests: 32,
            max_jobs: 0,
            body_limit: 8 * 1024 * 1024,
            max_pages: 20,
        }
    }
}

/// What kind of workflow service a tenant has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// Go by the input of each job.
    #[default]
    Auto,
    /// Workflows and runs.
    Argo,
    /// Apps and their runs, under `/v1/app`.
    Native,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Argo => "argo",
            Self::Native => "native",
        })
    }
}

/// Why the settings of a tenant are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tenant `{tenant}`: `{key}` {problem}; {hint}")]
pub struct SettingsError {
    /// The tenant's name.
    pub tenant: String,
    /// The setting.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
    /// How to fix it.
    pub hint: &'static str,
}
