//! What configures one tenant, and what is wrong with it. Reading files and the environment is the program's; the key's file is read
//! here, once, so that no other room ever holds it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::duration;

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
    /// Where the tenant is, as in `https://acme.example.com`. Empty: not configured.
    pub base_url: String,
    /// The API key. Absent or empty: not configured.
    pub api_key: Option<SecretString>,
    /// A file that holds the API key; read once. Instead of `api_key`.
    pub api_key_file: Option<PathBuf>,
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
    /// By how much the tenant's timestamps and its `Date` header may disagree.
    #[serde(with = "duration")]
    pub clock_tolerance: Duration,
    /// How long a run that is being followed may stay unfound.
    #[serde(with = "duration")]
    pub index_grace: Duration,
    /// How long to wait between two looks at a run, once it is no longer young.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// How many requests may be in flight at once.
    pub max_requests: usize,
    /// How many attempts of one slot class a worker may run for it at once; 0: as many as leave the other tenants their share.
    pub max_jobs: usize,
    /// The longest body that is read, in bytes.
    pub body_limit: usize,
    /// How many pages of one search are read.
    pub max_pages: usize,
}

impl Default for TenantSettings {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            api_key: None,
            api_key_file: None,
            generation: Generation::Auto,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            index_lag: Duration::from_secs(10),
            reconcile_window: Duration::from_secs(60),
            clock_tolerance: Duration::from_secs(5),
            index_grace: Duration::from_secs(60),
            poll_interval: Duration::from_secs(5),
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
#[error("tenant `{tenant}`: `{key}` {problem}; {mend}")]
pub struct SettingsError {
    /// The tenant's name.
    pub tenant: String,
    /// The setting.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
    /// How to mend it.
    pub mend: &'static str,
}

/// Settings that were checked. Absent parts answer every request with a failure that says what to set.
pub(super) struct Checked {
    /// Ends in `/`.
    pub(super) base: Option<Url>,
    /// `Bearer …`, marked as sensitive.
    pub(super) authorization: Option<HeaderValue>,
}

/// Checks the settings of one tenant and reads its key.
pub(super) fn check(tenant: &str, settings: &TenantSettings) -> Result<Checked, SettingsError> {
    let refuse = |key, problem: String, mend| SettingsError { tenant: tenant.to_owned(), key, problem, mend };
    for (key, duration) in [("connect_timeout", settings.connect_timeout), ("request_timeout", settings.request_timeout)] {
        if duration.is_zero() {
            return Err(refuse(key, "is zero".into(), "set a time such as 30s"));
        }
    }
    if settings.poll_interval < Duration::from_millis(100) {
        return Err(refuse("poll_interval", "is below 100ms".into(), "set a time such as 5s"));
    }
    for (key, number, least) in [
        ("max_requests", settings.max_requests, 1),
        ("body_limit", settings.body_limit, 1024),
        ("max_pages", settings.max_pages, 1),
    ] {
        if number < least {
            return Err(refuse(key, format!("is {number}"), "set at least 1 (body_limit: 1024 bytes)"));
        }
    }
    let base = base(&settings.base_url).map_err(|problem| {
        refuse("base_url", problem, "write an address such as https://acme.example.com, without user, query or fragment")
    })?;
    let authorization = authorization(settings).map_err(|(key, problem, mend)| refuse(key, problem, mend))?;
    Ok(Checked { base, authorization })
}

fn base(text: &str) -> Result<Option<Url>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let mut url = Url::parse(text).map_err(|error| format!("is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("is no http or https address".into());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("has parts that do not belong there".into());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(Some(url))
}

type Refusal = (&'static str, String, &'static str);

fn authorization(settings: &TenantSettings) -> Result<Option<HeaderValue>, Refusal> {
    let given = settings.api_key.as_ref().filter(|key| !key.expose_secret().trim().is_empty());
    let (setting, key) = match (given, &settings.api_key_file) {
        (Some(_), Some(_)) => {
            return Err(("api_key_file", "is set beside `api_key`".into(), "set one of the two"));
        }
        (Some(key), None) => ("api_key", key.clone()),
        (None, Some(file)) => {
            let read = std::fs::read_to_string(file).map_err(|error| {
                ("api_key_file", format!("{} cannot be read: {error}", file.display()), "name a readable file that holds the key")
            })?;
            ("api_key_file", SecretString::from(read))
        }
        (None, None) => return Ok(None),
    };
    let key = key.expose_secret().trim();
    if key.is_empty() {
        return Ok(None);
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
        .map_err(|_| (setting, "holds characters that no key has".into(), "paste the key again, without line breaks"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: &TenantSettings) -> String {
        check("acme", settings).err().expect("it is refused").to_string()
    }

    #[test]
    fn a_base_url_is_taken_with_and_without_its_slash_and_path() {
        for (text, expected) in [
            ("http://h", "http://h/"),
            ("http://h/", "http://h/"),
            ("http://h/t", "http://h/t/"),
            ("https://h:8443/t/", "https://h:8443/t/"),
        ] {
            assert_eq!(base(text).expect(text).expect(text).as_str(), expected);
        }
        assert_eq!(base("  "), Ok(None));
    }

    #[test]
    fn a_refusal_names_the_tenant_the_key_and_the_mend_but_never_the_secret() {
        for url in ["acme", "ftp://h", "https://u:p@h", "https://h/?x=1"] {
            let text = refused(&TenantSettings { base_url: url.into(), ..TenantSettings::default() });
            assert!(text.starts_with("tenant `acme`: `base_url`") && text.contains("https://acme.example.com"), "{text}");
        }
        let secret = TenantSettings { api_key: Some("hush\nhush".into()), ..TenantSettings::default() };
        assert!(!refused(&secret).contains("hush") && !format!("{secret:?}").contains("hush"));
        let absent = TenantSettings { api_key_file: Some("/nowhere/key".into()), ..TenantSettings::default() };
        assert!(refused(&absent).contains("/nowhere/key"));
    }

    #[test]
    fn limits_of_zero_are_refused() {
        assert!(refused(&TenantSettings { max_requests: 0, ..TenantSettings::default() }).contains("max_requests"));
        assert!(
            refused(&TenantSettings { request_timeout: Duration::ZERO, ..TenantSettings::default() }).contains("request_timeout")
        );
    }

    #[test]
    fn an_empty_key_is_an_absent_key() {
        let settings = TenantSettings { api_key: Some(" ".into()), ..TenantSettings::default() };
        assert!(check("acme", &settings).expect("it is accepted").authorization.is_none());
    }
}
