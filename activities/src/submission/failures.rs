//! How obtaining a run ends without one, in words.

use super::effort::Refusal;
use super::{Effort, Submitter};
use crate::activity::ActivityError;
use crate::context::Stop;
use crate::failure::{Category, Failure, FailureSource, codes};
use crate::follow::{command, runs_command};
use crate::text::clip;
use crate::timestamp;

impl Submitter<'_> {
    pub(super) fn timed_out(&self, effort: &Effort, what: &str) -> Failure {
        let message = format!("the time for a run of {} is up; {what}", effort.workflow);
        let failure = Failure::new("wait.timed_out", Category::Timeout, message).with_retryable(false);
        explain(failure.suggest(command(self.ctx, self.rules.again)), effort)
    }

    /// Nothing shows what became of the submissions. `doubt`: why a run of ours may be there all the same.
    pub(super) fn ambiguous(&self, effort: &Effort, doubt: Option<&str>) -> Failure {
        let (workflow, window) = (&effort.workflow, self.tenant.settings().reconcile_window.as_secs());
        let times = if effort.submissions == 1 { "once".to_owned() } else { format!("{} times", effort.submissions) };
        let answer = match (&effort.disputed, &effort.already_active, &effort.refused_by) {
            (Some(disputed), ..) => format!("the tenant answered with {disputed}"),
            (None, Some(_), _) => "the tenant said that a run of it is active".to_owned(),
            // The words of what stands in between, which knows nothing of what the tenant did.
            (None, None, Some(said)) => format!("no answer of the tenant itself came ({said})"),
            (None, None, None) => "the answer was lost".to_owned(),
        };
        let doubt = doubt.map(|doubt| format!("; {doubt}")).unwrap_or_default();
        let message = format!(
            "{workflow} was submitted {times}, {answer}, and no run of it that can be ours has appeared within {window} s{doubt}"
        );
        let source = FailureSource {
            operation: Some(effort.operation().to_owned()),
            request_id: effort.intent.as_ref().map(|intent| intent.request_id.clone()),
            ..FailureSource::default()
        };
        let failure = Failure::new(codes::RERUN_AMBIGUOUS, Category::Precondition, clip(message)).with_source(source);
        let since = effort.first.map(|first| format!(" since={}", timestamp::format(first.ours))).unwrap_or_default();
        explain(failure.suggest(command(self.ctx, &format!("{}{since}", self.rules.again))), effort)
    }
}

impl Submitter<'_> {
    /// How a stop ends the attempt while there is no run yet.
    pub(super) fn stopped(&self, stop: Stop, effort: &Effort) -> ActivityError {
        let Stop::Cancelled { reason } = stop else { return stop.into() };
        let outcome = what_remains(self.ctx.tenant(), effort);
        let message = reason.map_or_else(|| outcome.clone(), |reason| format!("{reason}; {outcome}"));
        ActivityError::Cancelled { message: Some(message), facts: effort.facts() }
    }

    /// The tenant's runs could not be searched for so long that the fate of a submission stays unknown.
    pub(super) fn unsettled(&self, failure: Failure, effort: &Effort) -> Failure {
        if failure.retryable {
            return explain(failure, effort);
        }
        let message =
            format!("a run of {} may have been started, but its runs cannot be read: {}", effort.workflow, failure.message);
        let since = effort.first.map(|first| format!(" since={}", timestamp::format(first.ours))).unwrap_or_default();
        let known = Failure { message: clip(message), ..failure };
        explain(known.suggest(command(self.ctx, &format!("{}{since}", self.rules.again))), effort)
    }
}

/// What a cancelled effort without a run leaves at the tenant, and the command that looks.
pub(super) fn what_remains(tenant: &str, effort: &Effort) -> String {
    if effort.intent.is_none() && effort.submissions == 0 {
        return "no run was submitted".to_owned();
    }
    let look = runs_command(tenant, effort.kind, &effort.workflow);
    format!("a run of {} was submitted, and whether that had an effect is not known; see `{look}`", effort.workflow)
}

pub(super) fn unseen(effort: &Effort, refusal: &Refusal) -> Failure {
    let message = format!("the tenant says that a run of {} is active, but shows none: {}", effort.workflow, refusal.message);
    let failure = Failure::new("workflow.already_active", Category::AlreadyExists, clip(message)).with_retryable(true);
    explain(failure.with_source(refusal.source.clone()), effort)
}

pub(super) fn explain(mut failure: Failure, effort: &Effort) -> Failure {
    failure.facts.append(&mut effort.facts());
    failure
}
