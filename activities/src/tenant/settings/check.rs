//! Checks the settings of one tenant: addresses, limits, and that there is one way to log in.

use std::time::Duration;

use super::{SettingsError, TenantSettings, form};
use crate::tenant::credentials::Credentials;
use crate::tenant::link::{Bases, is_in_cluster, is_loopback};

/// Settings that were checked. Absent parts answer every request with a failure that says what to set.
pub(in crate::tenant) struct Checked {
    pub(in crate::tenant) bases: Option<Bases>,
    pub(in crate::tenant) credentials: Option<Credentials>,
}

/// What is wrong with one key: the key, the problem, the hint.
pub(in crate::tenant) type Refusal = (&'static str, String, &'static str);

/// Checks the settings of one tenant, and reads its secret once, so that a file that is not there is found now.
pub(in crate::tenant) fn check(tenant: &str, settings: &TenantSettings) -> Result<Checked, SettingsError> {
    let refuse = |(key, problem, hint)| SettingsError { tenant: tenant.to_owned(), key, problem, hint };
    let bases = check_settings(settings).map_err(refuse)?;
    let credentials = Credentials::of(settings).map_err(refuse)?;
    Ok(Checked { bases, credentials })
}

/// Whether credentials would travel in the clear. On this machine nobody listens in, and inside the tenant's cluster the services have no
/// other addresses.
fn encrypted(settings: &TenantSettings) -> Result<(), Refusal> {
    if settings.allow_cleartext {
        return Ok(());
    }
    for (key, text, is_service) in [
        ("base_url", &settings.base_url, false),
        ("heracles_url", &settings.heracles_url, true),
        ("metastore_url", &settings.metastore_url, true),
        ("keycloak_url", &settings.keycloak_url, true),
    ] {
        let Ok(url) = reqwest::Url::parse(text.trim()) else { continue };
        if url.scheme() == "http" && !is_loopback(&url) && !(is_service && is_in_cluster(&url)) {
            let problem = "is http:// to another machine, which would send the credentials unencrypted".to_owned();
            return Err((key, problem, "write https://, or set allow_cleartext = true for this tenant if that network is trusted"));
        }
    }
    Ok(())
}

/// The same without a secret: addresses and limits.
pub(in crate::tenant) fn check_settings(settings: &TenantSettings) -> Result<Option<Bases>, Refusal> {
    limits(settings)?;
    form::address(settings)?;
    let bases = Bases::of(settings)?;
    encrypted(settings)?;
    Ok(bases)
}

fn limits(settings: &TenantSettings) -> Result<(), Refusal> {
    for (key, duration) in [("connect_timeout", settings.connect_timeout), ("request_timeout", settings.request_timeout)] {
        if duration.is_zero() {
            return Err((key, "is zero".into(), "set a time such as 30s"));
        }
    }
    if settings.poll_interval < Duration::from_millis(100) {
        return Err(("poll_interval", "is below 100ms".into(), "set a time such as 5s"));
    }
    for (key, number, least) in [
        ("request_burst", settings.request_burst as usize, 1),
        ("max_requests", settings.max_requests, 1),
        ("body_limit", settings.body_limit, 1024),
        ("max_pages", settings.max_pages, 1),
    ] {
        if number < least {
            return Err((key, format!("is {number}"), "set at least 1 (body_limit: 1024 bytes)"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(base_url: &str) -> TenantSettings {
        TenantSettings { base_url: base_url.into(), ..TenantSettings::default() }
    }

    #[test]
    fn credentials_are_sent_to_another_machine_in_the_clear_only_where_a_setting_allows_it() {
        for url in [
            "http://acme.example.com",
            "http://10.0.0.7:8100",
            "http://sandbox:8100",
            "http://localhost.example.com",
            "http://[::2]",
        ] {
            let text = refused(&at(url));
            assert!(text.contains("`base_url` is http://") && text.contains("allow_cleartext = true"), "{text}");
            assert!(check("acme", &TenantSettings { allow_cleartext: true, ..at(url) }).is_ok(), "{url}");
        }
        for url in [
            "http://localhost:8100",
            "http://127.0.0.1:8100",
            "http://127.8.0.1",
            "http://[::1]:1",
            "https://acme.example.com",
            "INTERNAL",
            "",
        ] {
            assert!(check("acme", &at(url)).is_ok(), "{url}");
        }
        let service = |url: &str| TenantSettings { heracles_url: url.into(), ..at("INTERNAL") };
        assert!(check("acme", &service("http://heracles.svc.cluster.local")).is_ok());
        assert!(refused(&service("http://heracles.example.com")).contains("`heracles_url` is http://"));
        assert!(refused(&at("http://acme.svc.cluster.local")).contains("`base_url` is http://"));
    }

    #[test]
    fn an_address_without_a_scheme_is_refused_with_one_that_has_it() {
        for url in ["acme.atlan.com", "acme", "localhost:8100"] {
            let text = refused(&at(url));
            assert!(text.contains("`base_url`") && text.contains("https://"), "{text}");
        }
        assert!(refused(&at("acme.atlan.com")).contains("has no scheme"));
        assert!(refused(&at("localhost:8100")).contains("has no scheme"));
    }

    fn refused(settings: &TenantSettings) -> String {
        check("acme", settings).err().expect("it is refused").to_string()
    }

    #[test]
    fn a_refusal_names_the_tenant_the_key_and_the_hint_but_never_the_secret() {
        for url in ["acme", "ftp://h", "https://u:p@h", "https://h/?x=1"] {
            let text = refused(&TenantSettings { base_url: url.into(), ..TenantSettings::default() });
            assert!(text.starts_with("tenant `acme`: `base_url`") && text.contains("https://acme.example.com"), "{text}");
        }
        let secret = TenantSettings { api_key: Some("hush\nhush".into()), ..TenantSettings::default() };
        assert!(!refused(&secret).contains("hush") && !format!("{secret:?}").contains("hush"));
        for pasted in ["hush-hush", "/hush/hush"] {
            let absent = TenantSettings { api_key_file: Some(pasted.into()), ..TenantSettings::default() };
            let text = refused(&absent);
            assert!(
                text.contains("tenant `acme`: `api_key_file` names a file that cannot be read: ") && !text.contains("hush"),
                "{text}"
            );
        }
    }

    #[test]
    fn limits_of_zero_are_refused() {
        assert!(refused(&TenantSettings { max_requests: 0, ..TenantSettings::default() }).contains("max_requests"));
        assert!(refused(&TenantSettings { request_burst: 0, ..TenantSettings::default() }).contains("request_burst"));
        assert!(
            refused(&TenantSettings { request_timeout: Duration::ZERO, ..TenantSettings::default() }).contains("request_timeout")
        );
    }

    #[test]
    fn two_ways_to_log_in_or_half_of_one_are_refused_by_name() {
        let settings = |change: fn(&mut TenantSettings)| {
            let mut settings = TenantSettings::default();
            change(&mut settings);
            refused(&settings)
        };
        let both = settings(|it| {
            it.api_key = Some("k".into());
            it.oauth_client_id = "oauth-client-1".into();
            it.oauth_client_secret = Some("hush".into());
        });
        assert!(both.contains("`oauth_client_id`") && both.contains("`api_key`"), "{both}");
        let no_secret = settings(|it| it.oauth_client_id = "oauth-client-1".into());
        assert!(no_secret.contains("`oauth_client_secret` is not set"), "{no_secret}");
        let no_id = settings(|it| it.keycloak_client_secret = Some("hush".into()));
        assert!(no_id.contains("`keycloak_client_id` is not set") && !no_id.contains("hush"), "{no_id}");
        let twice = settings(|it| {
            it.api_key = Some("k".into());
            it.api_key_file = Some("/k".into());
        });
        assert!(twice.contains("`api_key_file` is set beside `api_key`"), "{twice}");
    }

    #[test]
    fn an_empty_key_is_an_absent_key() {
        let settings = TenantSettings { api_key: Some(" ".into()), ..TenantSettings::default() };
        assert!(check("acme", &settings).expect("it is accepted").credentials.is_none());
    }
}
