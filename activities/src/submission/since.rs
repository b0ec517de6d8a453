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
}

impl SinceBound {
    /// `now` is the tenant's. Its runs contradict its clock if one was created later than that.
    pub(super) fn new(tenant: &Tenant, since: Timestamp, now: Timestamp, runs: &[Run]) -> Self {
        if tenant.clock_is_certain() && !contradicts(runs, now) {
            // The first second that it can have been: to miss a run that counts would start a second one.
            let (exact, _) = tenant.between_on_its_clock(since);
            return Self { since, exact, tolerant: exact };
        }
        Self { since, exact: tenant.on_its_clock(since), tolerant: tenant.earliest(since) }
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
            duration::format(self.exact.duration_since(self.tolerant).unsigned_abs())
        )
    }
}

/// Whether a run was created later than it is `now`, so that the clock that dates runs is another one.
pub(super) fn contradicts(runs: &[Run], now: Timestamp) -> bool {
    runs.iter().any(|run| run.created_at.is_some_and(|created| created.as_second() > now.as_second() + 1))
}
