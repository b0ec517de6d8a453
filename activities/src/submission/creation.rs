//! A workflow that is created and submitted in one request, once. Its name is what a creation of unknown fate is searched by; the run
//! that it started is then obtained like any other.

use std::time::Duration;

use serde_json::Value;

use super::{Effort, LONGEST_WAIT, MOST_SUBMISSIONS, Obtained, Progress, RECONCILE_INTERVAL, SETTLING, Submitter, explain};
use crate::activity::ActivityError;
use crate::failure::Failure;
use crate::follow::{Patience, alive};
use crate::tenant::{Creation, RunsShown, new_request_id};

/// How a creation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// The workflow is there, and ours. The caller saves that; its run may still have to be found.
    Ours,
    /// The name is proven to be somebody else's. Another one must be chosen.
    Taken,
}

/// What a search for the workflow says.
enum Settled {
    There(Created),
    /// A search that was made late enough shows none.
    Absent,
}

impl Submitter<'_> {
    /// Goes on from wherever the effort stands until `workflow`, which is named as the effort says, is there or its name is taken.
    pub(crate) async fn create(&self, effort: &mut Effort, workflow: &Value) -> Result<Created, ActivityError> {
        let mut conflict = None;
        loop {
            if effort.intent.is_some() {
                match (self.settle(effort, workflow).await?, conflict.take()) {
                    (Settled::There(created), _) => return Ok(created),
                    (Settled::Absent, Some(conflict)) => return Err(unseen(effort, conflict).into()),
                    (Settled::Absent, None) if effort.submissions >= MOST_SUBMISSIONS => {
                        return Err(self.ambiguous(effort, None).into());
                    }
                    (Settled::Absent, None) => {
                        tracing::warn!(workflow = effort.workflow, "no workflow has appeared; creating it again");
                    }
                }
            }
            match self.create_once(effort, workflow).await? {
                Creation::Applied(run) => {
                    effort.answer_lost(self.ctx);
                    // Another user's run is not what was created just now: ours is then found by a search.
                    if let Some(run) = run.filter(|run| !effort.is_of_another_user(run)) {
                        effort.intent = None;
                        effort.obtained = Some(Obtained::started(run));
                    }
                    return Ok(Created::Ours);
                }
                Creation::NotApplied(failure) => {
                    effort.not_applied();
                    self.save(effort).await?;
                    return Err(explain(failure, effort).into());
                }
                Creation::Taken(_) if effort.submissions == 1 => {
                    effort.not_applied();
                    self.save(effort).await?;
                    return Ok(Created::Taken);
                }
                // This creation had no effect, but an earlier one may have had one at last. The intent stays: there may be a run.
                Creation::Taken(failure) => {
                    effort.submissions -= 1;
                    effort.answer_lost(self.ctx);
                    self.save(effort).await?;
                    conflict = Some(failure);
                }
                Creation::UnknownFate(failure) => {
                    tracing::warn!(workflow = effort.workflow, code = %failure.code, "a creation of unknown fate; searching");
                    effort.answer_lost(self.ctx);
                    let wanted = failure.retry_after.unwrap_or_default();
                    if wanted > LONGEST_WAIT {
                        return Err(explain(failure.with_retryable(true), effort).into());
                    }
                    self.nap(effort, SETTLING, wanted).await?;
                }
            }
        }
    }

    /// One creation, saved before it is sent. Not raced with a stop: nothing may be dropped in between.
    async fn create_once(&self, effort: &mut Effort, workflow: &Value) -> Result<Creation, ActivityError> {
        let progress = Progress { step: "creating", workflow: &effort.workflow };
        let identity =
            alive(self.ctx, &progress, self.tenant.whoami_with_id()).await.map_err(|stop| self.stopped(stop, effort))??;
        let ready = alive(self.ctx, &progress, self.tenant.ready("workflows.create")).await;
        let permit = ready.map_err(|stop| self.stopped(stop, effort))?.map_err(|failure| explain(failure, effort))?;
        if self.ctx.now() >= self.rules.deadline {
            return Err(self.timed_out(effort, "it was not created").into());
        }
        let request_id = new_request_id();
        // No run of a workflow that is created here was there before.
        effort.saw_before(&RunsShown { complete: true, reaches: true, ..RunsShown::default() }, self.ctx.now());
        *effort = effort.clone().with_intent(self.ctx, self.tenant, Some(&identity), &request_id);
        self.save(effort).await?;
        let created = self.tenant.create_and_submit(permit, &identity, workflow, &request_id);
        Ok(self.ctx.effect(self.tenant.longest_effect(), created).await)
    }

    /// Searches for the workflow by its name until it is found, or until a search that was made late enough shows none.
    async fn settle(&self, effort: &mut Effort, workflow: &Value) -> Result<Settled, ActivityError> {
        let Some(intent) = effort.intent.clone() else { return Ok(Settled::Absent) };
        let (mut patience, began) = (Patience::default(), self.ctx.monotonic());
        loop {
            let (asked, asked_monotonic) = (self.ctx.now(), self.ctx.monotonic());
            let progress = Progress { step: SETTLING, workflow: &effort.workflow };
            self.ctx.heartbeat(&progress);
            let looked =
                alive(self.ctx, &progress, self.tenant.stands(workflow)).await.map_err(|stop| self.stopped(stop, effort))?;
            let nap = match looked {
                Ok(Some(true)) => return Ok(Settled::There(Created::Ours)),
                Ok(Some(false)) => return Ok(Settled::There(Created::Taken)),
                Ok(None) => match self.inconclusive_for(&intent, asked, asked_monotonic, began) {
                    Duration::ZERO => return Ok(Settled::Absent),
                    left => left.min(RECONCILE_INTERVAL),
                },
                Err(failure) => {
                    let wanted =
                        patience.after_effect(self.ctx, self.tenant, failure).map_err(|failure| explain(failure, effort))?;
                    RECONCILE_INTERVAL.max(wanted)
                }
            };
            self.nap(effort, SETTLING, nap).await?;
        }
    }
}

fn unseen(effort: &Effort, conflict: Failure) -> Failure {
    explain(conflict.with_retryable(true), effort)
}
