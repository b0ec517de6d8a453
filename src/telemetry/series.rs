//! How many series an instrument may have. The SDK gives each 2,000 and folds the rest into one, whose value is true for a counter and
//! wrong for a gauge: there it is what was observed last. So each limit follows from the values that its labels can have, and is never
//! reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry_sdk::metrics::{Instrument, Stream};

use super::names::metric;

/// The SDK's own limit, which is no more than memory that is set aside.
const DEFAULT: usize = 2_000;
/// Ways in which an attempt can end.
pub(super) const OUTCOMES: usize = 10;
/// States of a job.
const STATES: usize = 7;
/// Statuses of a verdict.
const STATUSES: usize = 4;
/// Reasons why a tenant's jobs wait.
const REASONS: usize = 2;
/// Methods and answers of one tenant's addresses that are expected. What is beyond is counted, under no address.
const EXCHANGES: usize = 12;
/// The name under which the client of tenants measures its requests.
const REQUESTS: &str = "http.client.request.duration";

/// How many activities and tenants have a name of their own on metrics. Shared by the views of a provider, which ask when an instrument
/// is made.
#[derive(Debug, Clone, Default)]
pub(super) struct SeriesLimits(Arc<(AtomicUsize, AtomicUsize)>);

impl SeriesLimits {
    /// Whoever makes instruments says this before.
    pub(super) fn know(&self, activities: usize, tenants: usize) {
        self.0.0.fetch_max(activities, Ordering::SeqCst);
        self.0.1.fetch_max(tenants, Ordering::SeqCst);
    }

    /// The view of a provider that sets the limits.
    pub(super) fn view(&self) -> impl Fn(&Instrument) -> Option<Stream> + Send + Sync + 'static {
        let limits = self.clone();
        move |instrument| Stream::builder().with_cardinality_limit(limits.of(instrument.name())?).build().ok()
    }

    /// `None`: the SDK's own is enough.
    fn of(&self, instrument: &str) -> Option<usize> {
        // Beside those with a name of their own there are the others, as one.
        let activities = self.0.0.load(Ordering::SeqCst) + 1;
        let tenants = self.0.1.load(Ordering::SeqCst) + 1;
        let most = if instrument == metric::JOBS.0 {
            activities * tenants * STATES
        } else if instrument == metric::OLDEST_AGE.0 || instrument == metric::WAIT_DURATION.0 {
            activities * tenants
        } else if instrument == metric::ATTEMPTS.0 {
            activities * tenants * OUTCOMES
        } else if instrument == metric::VERDICTS.0 {
            activities * tenants * STATUSES
        } else if instrument == metric::TENANT_PAUSED.0 {
            tenants * REASONS
        } else if instrument == REQUESTS {
            DEFAULT + tenants * EXCHANGES
        } else {
            return None;
        };
        Some(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobState;

    #[test]
    fn a_limit_is_as_many_series_as_the_labels_can_make() {
        let limits = SeriesLimits::default();
        limits.know(4, 5_000);
        limits.know(1, 1);
        assert_eq!(limits.of("iolaus.jobs"), Some(5 * 5_001 * JobState::ALL.len()));
        assert_eq!(limits.of("iolaus.tenant.paused"), Some(5_001 * 2));
        assert_eq!(limits.of("iolaus.worker.slots.used"), None);
    }
}
