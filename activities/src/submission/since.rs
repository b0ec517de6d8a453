//! Which runs were created at or after the `since` of an input.

use jiff::Timestamp;

use crate::duration;
use crate::tenant::{Kind, Run, Tenant};
use crate::timestamp;

/// A `since`, on the clock by which the tenant dates its runs.
pub(super) struct SinceBound {
    since: Timestamp,
    /// The second on the tenant's clock at or after which a run counts.
    exact: Timestamp,
    /// Earlier, where the tenant's clock cannot be told within a second.
    tolerant: Timestamp,
    tolerance: String,
}

impl SinceBound {
    /// `now` is the tenant's. Its runs contradict its clock if one was created later than that.
    pub(super) fn new(tenant: &Tenant, since: Timestamp, now: Timestamp, runs: &[Run]) -> Self {
        let exact = tenant.on_its_clock(since);
        let ahead = |run: &Run| run.created_at.is_some_and(|created| created.as_second() > now.as_second() + 1);
        let certain = tenant.clock_is_certain() && !runs.iter().any(ahead);
        let tolerant = if certain { exact } else { tenant.earliest(since) };
        Self { since, exact, tolerant, tolerance: duration::format(tenant.settings().clock_tolerance) }
    }

    /// Whether a run counts. An app's run that has not started yet will have started after any `since`.
    pub(super) fn admits(&self, run: &Run) -> bool {
        run.created_at.map_or(run.kind == Kind::App, |created| created >= self.tolerant)
    }

    /// Why a run counts, with both times.
    pub(super) fn because(&self, run: &Run) -> String {
        let since = timestamp::format(self.since);
        let Some(created) = run.created_at else { return format!("it has not started yet, so it starts after {since}") };
        let shown = timestamp::format(created);
        if created >= self.exact {
            return format!("the tenant created it at {shown}, and since={since}");
        }
        format!(
            "the tenant created it at {shown}, and since={since}: its clock is not known to the second, so up to {} are allowed",
            self.tolerance
        )
    }
}
