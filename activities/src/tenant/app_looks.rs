//! Looking at runs of apps. The tenant's API shows one at a time, and its index shows many in one request but lags. So the index is asked
//! for all of them together, and a run is asked for by itself only if the index shows it at its end, or does not show it: its end is
//! taken from nowhere else. How often that is done is bounded, however many wait.

use std::time::Duration;

use super::Tenant;
use super::app_runs::qualified_name;
use super::looks::Looks;
use super::pace::Pace;
use super::runs::{Kind, Run, Standing};
use crate::failure::Failure;

/// So many runs are read one by one in each `poll_interval`: of those that the index shows at their end, and of the others.
const READS: u32 = 100;

/// The looks of one tenant at runs of apps.
pub(super) struct AppLooks {
    shared: Looks,
    /// For runs that the index shows at their end. As a rule each needs one read.
    ended: Pace,
    /// For all others, which may need one at each look.
    others: Pace,
}

impl AppLooks {
    pub(super) fn new(interval: Duration, now: Duration) -> Self {
        let pace = || Pace::new(f64::from(READS) / interval.as_secs_f64().max(0.001), READS, now);
        Self { shared: Looks::at(Kind::App), ended: pace(), others: pace() }
    }
}

impl Tenant {
    /// One look at one run of an app; None if there is none of this id. Without the slug, or if the index is of no help, the run itself
    /// is read. What is shown at its end is so.
    pub async fn look_at_app_run(&self, id: &str, slug: Option<&str>) -> Result<Option<Run>, Failure> {
        let indexed = match slug {
            Some(slug) => self.look_with_others(&self.app_looks.shared, &qualified_name(slug, id)).await?,
            None => None,
        };
        let pace = match &indexed {
            Some(run) if run.standing() == Standing::Active => return Ok(indexed),
            Some(_) => &self.app_looks.ended,
            None => &self.app_looks.others,
        };
        let early = pace.take(self.clock.monotonic());
        if !early.is_zero() {
            self.clock.sleep(early).await;
        }
        let run = self.app_run(id).await?;
        let known = indexed.map(|known| (known.finished_at, known.creator));
        Ok(run.map(|run| {
            let (finished_at, creator) = known.unwrap_or_default();
            Run { finished_at, creator, ..run }
        }))
    }
}
