//! When a submission was answered with "a run is active". The answer may be that to a second arrival of the request, as where a proxy sends
//! it twice, and the run in the way the effect of the first. So the intent stays until that run is named: then it is known whether it was
//! there before, or is another's, or is one that may be ours.

use jiff::Timestamp;

use super::effort::Refusal;
use super::evidence::is_active;
use super::failures::unseen;
use super::{Adopt, Effort, Judged, MOST_SUBMISSIONS, Obtained, Submitter, UnknownFate};
use crate::activity::ActivityError;
use crate::failure::Failure;
use crate::tenant::Run;

impl Submitter<'_> {
    /// Keeps the intent, with what was answered.
    pub(super) async fn refused(&self, effort: &mut Effort, failure: Failure) -> Result<(), ActivityError> {
        tracing::warn!(workflow = effort.workflow, "a run is in the way of the submission; searching which");
        effort.answer_lost(self.ctx);
        effort.already_active = Some(Refusal { message: failure.message, source: failure.source });
        self.save(effort).await
    }

    /// Which runs that are not ours may be in the way of a submission.
    pub(super) fn in_the_way(&self) -> Adopt {
        match self.rules.adopt {
            Adopt::Nothing => Adopt::Active,
            adopt => adopt,
        }
    }

    /// Whether the run in the way is named: one that is active and not the effect of this effort. The submission then was without effect.
    /// To be asked only once the index has had its time, for until then it may show a run as active that has ended, and not yet ours,
    /// which was started after that.
    pub(super) async fn is_named(&self, effort: &mut Effort, judged: &Judged, now: Timestamp) -> Result<bool, ActivityError> {
        match judged {
            Judged::Satisfied(obtained) if is_active(&obtained.run, self.tenant.on_its_clock(now)) => {
                effort.obtained = Some(obtained.clone());
            }
            // It is waited for as if the submission had never been sent.
            Judged::Older(_) => {}
            _ => return Ok(false),
        }
        effort.searched_at = None;
        self.not_applied(effort).await?;
        Ok(true)
    }

    /// The window is over, and no run was named. What the tenant refused is sent again, in a further attempt.
    pub(super) async fn never_named(&self, effort: &mut Effort, judged: &Judged) -> Result<(), ActivityError> {
        let satisfied = matches!(judged, Judged::Satisfied(_));
        if !satisfied && (self.rules.unknown_fate == UnknownFate::Fail || effort.submissions >= MOST_SUBMISSIONS) {
            return Err(self.ambiguous(effort, None).into());
        }
        effort.intent = None;
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
