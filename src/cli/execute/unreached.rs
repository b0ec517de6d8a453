//! When `execute` stops waiting for a tenant that no attempt of its job ever reached: that looks like a mistake in the configuration,
//! which no retry repairs. The job stays open, so that nothing is lost if it was not one.

use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::tenant::{Tenants, never_reached};
use iolaus_activities::{Clock, FailureRecord};

use crate::cli::wait::current;
use crate::client::{JobClient, JobDetail, Target};

/// Between two looks at the job.
const LOOK: Duration = Duration::from_secs(1);

/// Ends when no attempt of the job reached its tenant for this long, with the last failure. `tenants` are those that this process asks;
/// none where others work the job.
pub(crate) async fn unreached(
    client: &Arc<dyn JobClient>,
    target: &Target,
    tenants: &Tenants,
    limit: Duration,
    clock: &dyn Clock,
) -> FailureRecord {
    let mut since = None;
    loop {
        clock.deadline(LOOK).await;
        let Ok((_, job)) = current(client, target).await else { continue };
        match failure(&job, tenants) {
            None => since = None,
            Some(failure) => {
                let since = *since.get_or_insert(clock.monotonic());
                if !limit.is_zero() && clock.monotonic().saturating_sub(since) >= limit {
                    return failure;
                }
            }
        }
    }
}

/// How a job failed last, if it never reached its tenant. A checkpoint proves nothing: some are saved before the first request.
fn failure(job: &JobDetail, tenants: &Tenants) -> Option<FailureRecord> {
    let reached = job.failures.iter().any(|failed| !never_reached(&failed.failure.code));
    if reached || !job.job.state.is_open() {
        return None;
    }
    // An attempt that repeats its request fails late or never: then the client of this process knows.
    let here = tenants.get(&job.job.tenant).ok();
    let said_here = here.and_then(|tenant| tenant.unreached()).map(|(_, failure)| failure.record());
    if tenants.names().next().is_some() { said_here } else { job.failures.last().map(|failed| failed.failure.clone()) }
}
