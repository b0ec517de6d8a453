//! Whether this worker can ask a job's tenant. A cluster hands out tasks without a look at the tenant, so an attempt that lands on a
//! worker without its address or credentials fails and is tried again: another worker of the task queue may have them.

use std::time::Duration;

use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Category, Failure};

/// How soon such an attempt is tried again, by whichever worker then takes it.
const ANOTHER_WORKER: Duration = Duration::from_secs(10);

/// Refuses an attempt for a tenant that is not among these, or that has no address or no credentials. A worker without any tenant
/// tries whatever a job names.
pub(super) fn check(tenants: &Tenants, name: &str) -> Result<(), Failure> {
    if tenants.names().next().is_none() {
        return Ok(());
    }
    let failure = match tenants.get(name).map(|tenant| tenant.unset()) {
        Ok(None) => return Ok(()),
        Err(_) => Failure::new("tenant.unknown", Category::Precondition, format!("tenant {name} is not configured on this worker"))
            .suggest(format!("add the section [tenants.{name}] to the configuration of every worker")),
        Ok(Some(setting)) => {
            let (code, category) = match setting {
                "base_url" => ("tenant.unconfigured", Category::Precondition),
                _ => ("credentials.missing", Category::Auth),
            };
            Failure::new(code, category, format!("tenants.{name}.{setting} is not set on this worker"))
                .suggest(format!("set tenants.{name}.{setting} in the configuration of every worker"))
        }
    };
    Err(failure.with_retryable(true).after(Some(ANOTHER_WORKER)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use iolaus_activities::SystemClock;
    use iolaus_activities::tenant::TenantSettings;

    use super::*;

    fn settings(base_url: &str, api_key: Option<&str>) -> TenantSettings {
        TenantSettings { base_url: base_url.into(), api_key: api_key.map(Into::into), ..TenantSettings::default() }
    }

    #[test]
    fn an_attempt_for_a_tenant_that_this_worker_cannot_ask_is_retried_later_and_never_discarded() {
        let of = |name: &str, settings| (name.to_owned(), settings);
        let tenants = BTreeMap::from([
            of("ready", settings("http://127.0.0.1:1", Some("key"))),
            of("no-key", settings("http://127.0.0.1:1", None)),
            of("no-address", settings("", Some("key"))),
        ]);
        let tenants = Tenants::new(tenants, Arc::new(SystemClock::new())).unwrap();
        for (name, code) in [("no-key", "credentials.missing"), ("no-address", "tenant.unconfigured"), ("other", "tenant.unknown")]
        {
            let failure = check(&tenants, name).unwrap_err();
            assert_eq!((failure.code.as_ref(), failure.retryable, failure.retry_after), (code, true, Some(ANOTHER_WORKER)));
            assert!(failure.message.contains(name) && failure.suggested_action.is_some_and(|hint| hint.contains("every worker")));
        }
        assert_eq!(check(&tenants, "ready"), Ok(()));
        assert_eq!(check(&Tenants::none(), "other"), Ok(()), "a worker without tenants tries them all");
    }
}
