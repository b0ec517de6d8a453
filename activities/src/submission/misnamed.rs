//! When the answer to a submission named a run that is not ours: of another user, of another workflow, or one that is never found. The
//! tenant said that it had carried the submission out, so ours is searched for, and nothing is sent again.

use super::{Adopt, Effort, Judged, Obtained, SETTLING, Submitter, explain};
use crate::activity::ActivityError;
use crate::failure::Failure;
use crate::tenant::Run;

impl Submitter<'_> {
    /// Another user's run was the answer, so the fate of the submission is unknown.
    pub(super) async fn disputed(&self, effort: &mut Effort, named: &Run) -> Result<(), ActivityError> {
        let creator = named.creator.as_deref().unwrap_or_default();
        tracing::warn!(
            workflow = effort.workflow,
            run = named.name,
            creator,
            "the tenant answered with another user's run; searching"
        );
        effort.disputed = Some(format!("run {}, which {creator} created", named.name));
        effort.answer_lost(self.ctx);
        self.save(effort).await
    }

    /// No run of ours has appeared. Another one satisfies the effort where it would have before the submission.
    pub(super) async fn settle_dispute(&self, effort: &mut Effort) -> Result<(), ActivityError> {
        match self.find(effort, self.rules.adopt, SETTLING).await? {
            Ok((Judged::Satisfied(obtained), _)) if self.obtained(effort, &obtained).await? => Ok(()),
            Ok(_) => Err(self.ambiguous(effort, None).into()),
            Err(failure) => Err(explain(failure, effort).into()),
        }
    }

    /// The run of ours that a search shows instead of the one that an answer named; None if none has appeared in `reconcile_window`.
    pub(crate) async fn instead_of_misnamed(&self, effort: &mut Effort, named: &Run) -> Result<Option<Obtained>, ActivityError> {
        tracing::warn!(workflow = effort.workflow, run = named.name, "the run of the answer is not ours; searching for ours");
        effort.of_others.insert(named.name.clone());
        self.appears(effort, Adopt::Nothing, SETTLING).await
    }
}

/// Whether a failure to follow a run that an answer named says that it is not ours, or that there is none: nothing of it was ever seen.
pub(crate) fn is_misnamed(failure: &Failure) -> bool {
    let seen = failure.facts.get("phase").is_some_and(|phase| !phase.is_null());
    failure.code == "run.unconfirmed" || (failure.code == "run.not_found" && !seen)
}
