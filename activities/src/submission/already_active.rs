//! When a submission was answered with "a run is active". The answer may be that to a second arrival of the request, as where a proxy sends
//! it twice, and the run in the way the effect of the first. So the intent stays until that run is named: then it is known whether it was
//! there before, or is another's, or is one that may be ours.

use std::time::Duration;

use jiff::Timestamp;

use super::evidence::is_active;
use super::failures::unseen;
use super::{Adopt, Effort, Judged, Obtained, Origin, Submitter, UnknownFate};
use crate::activity::ActivityError;
use crate::failure::Failure;
use crate::tenant::Run;

impl Submitter<'_> {
    /// Keeps the intent, with what was answered.
    pub(super) async fn refused(&self, effort: &mut Effort, failure: Failure) -> Result<(), ActivityError> {
        tracing::warn!(workflow = effort.workflow, "a run is in the way of the submission; searching which");
        effort.answer_lost(self.ctx);
        effort.refused(self.tenant, self.ctx.now(), failure);
        self.save(effort).await
    }

    /// Which runs that are not ours may be in the way of a submission.
    pub(super) fn in_the_way(&self) -> Adopt {
        match self.rules.adopt {
            Adopt::Nothing => Adopt::Active,
            adopt => adopt,
        }
    }

    /// Whether the run in the way is named: one that was active as the submission was refused and is not the effect of this effort. The
    /// submission then was without effect. That a run is active counts only once the index has had its time (`is_indexed`), for until
    /// then it may show one as active that has ended, and not yet ours, which was started after that.
    pub(super) async fn is_named(
        &self,
        effort: &mut Effort,
        judged: &Judged,
        runs: &[Run],
        is_indexed: bool,
    ) -> Result<bool, ActivityError> {
        let now = self.tenant.on_its_clock(self.ctx.now());
        match judged {
            Judged::Satisfied(obtained) if is_indexed && is_active(&obtained.run, now) => {
                effort.obtained = Some(obtained.clone());
            }
            // It is waited for as if the submission had never been sent.
            Judged::Older(_) if is_indexed => {}
            _ => {
                let Some(run) = self.has_ended_since(effort, runs, is_indexed) else { return Ok(false) };
                if !matches!(self.rules.adopt, Adopt::Since(..)) {
                    let because = Some("it was running already".to_owned());
                    effort.obtained = Some(Obtained { run: run.clone(), origin: Origin::Running, because });
                }
            }
        }
        effort.searched_at = None;
        self.not_applied(effort).await?;
        Ok(true)
    }

    /// A run from before the submission that was in its way and has ended. At once, if it ended later than the refusal came, for it was in
    /// the way of every arrival then; later, if it ended since the submission, and the index has had its time to show ours beside it.
    fn has_ended_since<'r>(&self, effort: &Effort, runs: &'r [Run], is_indexed: bool) -> Option<&'r Run> {
        let refused = effort.already_active.as_ref()?;
        let end = if is_indexed {
            effort.intent.as_ref()?.at.tenants
        } else {
            // The tenant cuts times to the second.
            refused.at?.tenants_latest?.checked_add(Duration::from_secs(1)).ok()?
        };
        let is_from_before = |run: &Run| {
            effort.was_there_before(run, self.tenant.settings().clock_tolerance)
                || run.created_at.is_some_and(|created| self.is_before_first(effort, created))
        };
        runs.iter().find(|run| run.finished_at.is_some_and(|finished| finished >= end) && !run.was_skipped() && is_from_before(run))
    }

    /// The window is over, and no run was named. What the tenant refused is sent again, in a further attempt.
    pub(super) async fn never_named(&self, effort: &mut Effort, judged: &Judged) -> Result<(), ActivityError> {
        let satisfied = matches!(judged, Judged::Satisfied(_));
        if !satisfied && self.rules.unknown_fate == UnknownFate::Fail {
            return Err(self.ambiguous(effort, None).into());
        }
        effort.intent = None;
        // What is refused again and again has no more effects for it: of these submissions one is of unknown fate.
        effort.submissions = effort.submissions.min(1);
        effort.searched_at = None;
        self.save(effort).await?;
        // A search finds what satisfies it.
        match &effort.already_active {
            Some(refusal) if !satisfied => Err(unseen(effort, refusal).into()),
            _ => Ok(()),
        }
    }

    /// Whether an active run that is in the way of a submission was created before it. Of runs that have ended names alone decide, as after
    /// a lost answer.
    pub(super) fn was_active_before(&self, effort: &Effort, run: &Run) -> bool {
        effort.already_active.is_some()
            && run.created_at.is_some_and(|created| self.is_before_first(effort, created))
            && is_active(run, self.tenant.on_its_clock(self.ctx.now()))
    }

    /// Whether a time of the tenant's is before the first submission. Where its clock is not known to the second, what that may be off is
    /// allowed for.
    pub(super) fn is_before_first(&self, effort: &Effort, created: Timestamp) -> bool {
        effort.first.is_some_and(|first| {
            created < if first.is_certain() { first.tenants } else { self.tenant.earliest(first.ours).min(first.tenants) }
        })
    }

    /// Whether a run that was found as evidence is known to be ours, as far as the tenant tells, so that no other job may have it. One
    /// that only may be ours is left to every job.
    pub(super) fn may_claim(effort: &Effort, obtained: &Obtained) -> bool {
        effort.already_active.is_none() || effort.is_by_us(&obtained.run)
    }
}
