//! How obtaining a run ends without one, in words.

use super::{Effort, Submitter};
use crate::activity::ActivityError;
use crate::context::Stop;
use crate::failure::{Category, Failure, FailureSource, codes};
use crate::follow::command;
use crate::timestamp;

impl Submitter<'_> {
    pub(super) fn timed_out(&self, effort: &Effort, what: &str) -> Failure {
        let message = format!("the time for a run of {} is up; {what}", effort.workflow);
        let failure = Failure::new("wait.timed_out", Category::Timeout, message).with_retryable(false);
        explain(failure.suggest(command(self.ctx, self.rules.again)), effort)
    }

    pub(super) fn ambiguous(&self, effort: &Effort) -> Failure {
        let (workflow, window) = (&effort.workflow, self.tenant.settings().reconcile_window.as_secs());
        let times = if effort.submissions == 1 { "once".to_owned() } else { format!("{} times", effort.submissions) };
        let message = format!("{workflow} was submitted {times}, the answer was lost, and no run has appeared within {window} s");
        let source = FailureSource {
            operation: Some(effort.operation().to_owned()),
            request_id: effort.intent.as_ref().map(|intent| intent.request_id.clone()),
            ..FailureSource::default()
        };
        let failure = Failure::new(codes::RERUN_AMBIGUOUS, Category::Precondition, message).with_source(source);
        let since = effort.first.map(|first| format!(" since={}", timestamp::format(first.ours))).unwrap_or_default();
        explain(failure.suggest(command(self.ctx, &format!("{}{since}", self.rules.again))), effort)
    }
}

pub(super) fn unseen(effort: &Effort, conflict: Failure) -> Failure {
    let message = format!("the tenant says that a run of {} is active, but shows none: {}", effort.workflow, conflict.message);
    let failure = Failure::new("workflow.already_active", Category::AlreadyExists, message).with_retryable(true);
    explain(failure.after(conflict.retry_after).with_source(conflict.source), effort)
}

pub(super) fn stopped(stop: Stop, effort: &Effort) -> ActivityError {
    let Stop::Cancelled { reason } = stop else { return stop.into() };
    let outcome = match (&effort.intent, effort.submissions) {
        (None, 0) => "no run was submitted",
        _ => "a run was submitted, and it is not known whether that had an effect",
    };
    let message = reason.map_or_else(|| outcome.to_owned(), |reason| format!("{reason}; {outcome}"));
    ActivityError::Cancelled { message: Some(message), facts: effort.facts() }
}

pub(super) fn explain(mut failure: Failure, effort: &Effort) -> Failure {
    failure.facts.append(&mut effort.facts());
    failure
}
