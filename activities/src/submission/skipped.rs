//! When the run that a submission was answered with did nothing. A tenant that has an active run of an app takes a second submission in,
//! names a run of its own for it, and skips that run at once. Where a submission reached the tenant twice, or an earlier one turns out to
//! have been applied after all, the run that does the work is another one, and only its end is the end of ours.

use std::time::Duration;

use super::{Adopt, Effort, Judged, Obtained, RECONCILE_INTERVAL, Submitter, explain};
use crate::activity::ActivityError;
use crate::follow::Patience;
use crate::tenant::Run;

const STEP: &str = "looking for the run instead of which ours was skipped";

impl Submitter<'_> {
    /// The run that satisfies the effort instead of one that was skipped, as soon as a search shows one; None if none has appeared in
    /// `reconcile_window`, so that having been skipped is the end.
    pub(crate) async fn instead_of(&self, effort: &mut Effort, skipped: &Run) -> Result<Option<Obtained>, ActivityError> {
        // Something was active, or ours would not have been skipped.
        let adopt = self.in_the_way();
        tracing::warn!(workflow = effort.workflow, run = skipped.name, "the run was skipped; looking for the one that was active");
        self.appears(effort, adopt, STEP).await
    }

    /// The run that satisfies the effort, as soon as a search shows one; None once a search has proven that none has appeared in
    /// `reconcile_window`.
    pub(super) async fn appears(
        &self,
        effort: &mut Effort,
        adopt: Adopt,
        step: &'static str,
    ) -> Result<Option<Obtained>, ActivityError> {
        let enough = self.ctx.monotonic().saturating_add(self.tenant.settings().reconcile_window);
        let mut patience = Patience::default();
        loop {
            let asked = self.ctx.monotonic();
            let nap = match self.find(effort, adopt, step).await? {
                Ok((Judged::Satisfied(obtained), _)) if self.obtained(effort, &obtained).await? => {
                    return Ok(effort.obtained.clone());
                }
                Ok((_, shown)) => match enough.saturating_sub(asked) {
                    Duration::ZERO => match self.doubt(effort, adopt, &shown) {
                        None => return Ok(None),
                        Some(doubt) => RECONCILE_INTERVAL.max(patience.after(self.no_proof(effort, &doubt))?),
                    },
                    left => left.min(RECONCILE_INTERVAL),
                },
                Err(failure) => RECONCILE_INTERVAL.max(patience.after(failure).map_err(|failure| explain(failure, effort))?),
            };
            self.nap(effort, step, nap).await?;
        }
    }
}
