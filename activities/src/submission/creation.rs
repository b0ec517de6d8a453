//! A workflow that is created and submitted in one request, once. Its name is what a creation of unknown fate is searched by; the run
//! that it started is then obtained like any other.

use std::time::Duration;

use serde_json::Value;

use super::{Effort, LONGEST_WAIT, MOST_SUBMISSIONS, Obtained, Progress, RECONCILE_INTERVAL, SETTLING, Submitter, explain};
use crate::activity::ActivityError;
use crate::failure::Failure;
use crate::follow::{Patience, alive};
use crate::tenant::{Creation, Namesake, RunsShown, new_request_id};

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
    /// It is there, and nothing shows whose it is.
    Unclear,
    /// A search that was made late enough shows none.
    Absent,
}

/// A creation was refused because its name is taken.
struct Taken {
    failure: Failure,
    /// Whether no creation had been sent before. What stands under the name is then somebody else's, or was created by an earlier arrival
    /// of that same request, as where a proxy sends it twice.
    is_first: bool,
}

impl Submitter<'_> {
    /// Goes on from wherever the effort stands until `workflow`, which is named as the effort says, is there or its name is taken.
    pub(crate) async fn create(&self, effort: &mut Effort, workflow: &Value) -> Result<Created, ActivityError> {
        let mut taken: Option<Taken> = None;
        loop {
            if effort.intent.is_some() {
                let is_first = taken.as_ref().is_some_and(|taken| taken.is_first);
                match (self.settle(effort, workflow, is_first).await?, taken.take()) {
                    (Settled::There(Created::Ours), _) => return Ok(Created::Ours),
                    // One of ours would be shown by now.
                    (Settled::There(Created::Taken), _) | (Settled::Absent, Some(Taken { is_first: true, .. })) => {
                        effort.not_applied();
                        self.save(effort).await?;
                        return Ok(Created::Taken);
                    }
                    (Settled::Unclear, _) => {
                        let doubt = "a workflow stands under its name, and does not show whose it is or what for";
                        return Err(self.ambiguous(effort, Some(doubt)).into());
                    }
                    (Settled::Absent, Some(taken)) => return Err(explain(taken.failure.with_retryable(true), effort).into()),
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
                Creation::Taken(failure) if effort.submissions == 1 => {
                    effort.answer_lost(self.ctx);
                    taken = Some(Taken { failure, is_first: true });
                }
                // This creation had no effect, but an earlier one may have had one at last. The intent stays: there may be a run.
                Creation::Taken(failure) => {
                    effort.submissions -= 1;
                    effort.answer_lost(self.ctx);
                    self.save(effort).await?;
                    taken = Some(Taken { failure, is_first: false });
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

    /// Searches for the workflow by its name until it is found, or until a search that was made late enough shows none. What is there after
    /// a creation of unknown fate is ours unless it shows that it is not, and `after_conflict` it is ours only if it shows that.
    async fn settle(&self, effort: &Effort, workflow: &Value, after_conflict: bool) -> Result<Settled, ActivityError> {
        let Some(intent) = effort.intent.clone() else { return Ok(Settled::Absent) };
        let (mut patience, began) = (Patience::default(), self.ctx.monotonic());
        loop {
            let (asked, asked_monotonic) = (self.ctx.now(), self.ctx.monotonic());
            let progress = Progress { step: SETTLING, workflow: &effort.workflow };
            self.ctx.heartbeat(&progress);
            let looked =
                alive(self.ctx, &progress, self.tenant.stands(workflow)).await.map_err(|stop| self.stopped(stop, effort))?;
            let nap = match looked {
                Ok(Some(found)) if after_conflict => return Ok(self.whose(effort, &found)),
                Ok(Some(Namesake { is_same: Some(false), .. })) => return Ok(Settled::There(Created::Taken)),
                Ok(Some(_)) => return Ok(Settled::There(Created::Ours)),
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

    /// Whose a workflow is that a creation of ours met.
    fn whose(&self, effort: &Effort, found: &Namesake) -> Settled {
        let creator = found.workflow.creator.as_deref().filter(|creator| !creator.is_empty());
        let user = effort.user.as_ref();
        let is_by_another = user.zip(creator).is_some_and(|(user, by)| user.is_not(by));
        let is_by_us = user.zip(creator).is_some_and(|(user, by)| user.is(by));
        let is_from_before = found.workflow.created_at.is_some_and(|created| self.is_before_first(effort, created));
        match found.is_same {
            Some(false) => Settled::There(Created::Taken),
            _ if is_by_another || is_from_before => Settled::There(Created::Taken),
            None if !is_by_us => Settled::Unclear,
            _ => Settled::There(Created::Ours),
        }
    }
}
