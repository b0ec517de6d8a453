//! Checks the settings of one tenant: addresses, limits, and that there is one way to log in.

use std::time::Duration;

use super::{SettingsError, TenantSettings, form};
use crate::tenant::credentials::Credentials;
use crate::tenant::link::Bases;

/// Settings that were checked. Absent parts answer every request with a failure that says what to set.
pub(in crate::tenant) struct Checked {
    pub(in crate::tenant) bases: Option<Bases>,
    pub(in crate::tenant) credentials: Option<Credentials>,
}

/// What is wrong with one key: the key, the problem, the mend.
pub(in crate::tenant) type Refusal = (&'static str, String, &'static str);

/// Checks the settings of one tenant, and reads its secret once, so that a file that is not there is found now.
pub(in crate::tenant) fn check(tenant: &str, settings: &TenantSettings) -> Result<Checked, SettingsError> {
    let refuse = |(key, problem, mend)| SettingsError { tenant: tenant.to_owned(), key, problem, mend };
    limits(settings).map_err(refuse)?;
    form::address(settings).map_err(refuse)?;
    let bases = Bases::of(settings).map_err(refuse)?;
    let credentials = Credentials::of(settings).map_err(refuse)?;
    Ok(Checked { bases, credentials })
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

    fn refused(settings: &TenantSettings) -> String {
        check("acme", settings).err().expect("it is refused").to_string()
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
