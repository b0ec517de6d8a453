//! Warns of tenants that attempts cannot reach. That looks like a mistake in the configuration, which no retry repairs, so the log says
//! so at the first failure, and not again for every job.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use iolaus_activities::tenant::never_reached;
use iolaus_activities::{Clock, timestamp};

use super::{Decision, Execution};

/// One warning of the same failure of the same tenant in this time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// When (monotonic) which failure of which tenant was warned of last. As many as there are tenants and codes.
#[derive(Debug, Default)]
pub(crate) struct UnreachedWarnings(Mutex<BTreeMap<(String, String), Duration>>);

impl UnreachedWarnings {
    /// Warns of an attempt that will be repeated although it never reached its tenant. True if it did.
    pub(crate) fn warn(&self, execution: &Execution, decision: &Decision, clock: &dyn Clock) -> bool {
        let Decision::Retry { at, failure } = decision else { return false };
        if !never_reached(&failure.code) || !self.is_due(&execution.tenant, &failure.code, clock.monotonic()) {
            return false;
        }
        tracing::warn!(
            tenant = %execution.tenant, code = %failure.code, job_id = %execution.job_id, attempt = execution.attempts,
            next_attempt = %timestamp::format(*at), hint = failure.suggested_action.as_deref().unwrap_or("iolaus doctor checks the tenant"),
            "the tenant was not reached: {}", failure.message
        );
        true
    }

    fn is_due(&self, tenant: &str, code: &str, now: Duration) -> bool {
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = warned.get(&(tenant.to_owned(), code.to_owned()));
        let is_due = last.is_none_or(|last| now.saturating_sub(*last) >= AGAIN_AFTER);
        if is_due {
            warned.insert((tenant.to_owned(), code.to_owned()), now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use iolaus_activities::{ActivityOptions, Category, Failure, ManualClock};
    use jiff::Timestamp;

    use super::*;
    use crate::job::{JobId, RunId, TraceContext};

    fn execution(tenant: &str) -> Execution {
        let opened = Timestamp::UNIX_EPOCH;
        Execution {
            job_id: JobId::from_caller("n").unwrap(),
            run_id: RunId::generate(opened),
            activity: "publish_preflight".into(),
            tenant: tenant.into(),
            attempts: 1,
            drains: 0,
            options: ActivityOptions::default(),
            enqueued_at: opened,
            started_at: None,
            close_by: None,
            trace: TraceContext::generate(),
        }
    }

    #[tokio::test]
    async fn a_tenant_that_is_not_reached_is_warned_of_once_a_minute_for_each_failure() {
        let (clock, warnings) = (ManualClock::at(Timestamp::UNIX_EPOCH), UnreachedWarnings::default());
        let retry = |code: &'static str| {
            let failure = Failure::new(code, Category::DependencyUnavailable, "no").record();
            Decision::Retry { at: Timestamp::UNIX_EPOCH, failure }
        };
        let warn = |tenant, code| warnings.warn(&execution(tenant), &retry(code), &clock);
        assert_eq!([warn("a", "tenant.unreachable"), warn("a", "tenant.unreachable")], [true, false]);
        assert_eq!([warn("a", "tenant.redirected"), warn("b", "tenant.unreachable")], [true, true]);
        assert!(!warn("c", "tenant.unavailable"), "it answered");
        clock.advance(AGAIN_AFTER).await;
        assert!(warn("a", "tenant.unreachable"));
    }
}
