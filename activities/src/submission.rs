//! One run of one workflow, obtained once. The intent is saved before the request; a submission of unknown fate is settled by what the
//! tenant's runs show, and never repeated blindly. Shared by the activities that start runs; each keeps an [`Effort`] in its checkpoint.

mod creation;
mod effort;
mod policy;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::activity::ActivityError;
use crate::context::{ActivityContext, Stop};
use crate::failure::{Category, Failure, FailureSource};
use crate::follow::{Patience, alive, command, interval};
use crate::tenant::{Run, Standing, Submission, Tenant, new_request_id};
use crate::timestamp;

pub(crate) use creation::Created;
use effort::Intent;
pub(crate) use effort::{Effort, Obtained, Origin};
pub use policy::{Older, UnknownFate};

/// How many submissions of unknown fate one execution may make.
const MOST_SUBMISSIONS: u32 = 3;
const SETTLING: &str = "settling an unknown fate";
/// What cutting a time to the second can take from it.
const SECOND: Duration = Duration::from_secs(1);
/// How often the runs are searched while a fate is unknown.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
/// A tenant that wants to be left alone for longer is left alone between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A run that has shown no phase for this long is a leftover of the index, and no active run.
const PHASELESS: SignedDuration = SignedDuration::from_hours(1);

/// Which runs that we did not start satisfy the effort.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Adopt {
    /// None, unless the tenant refuses a second one.
    Nothing,
    /// Any active one.
    Active,
    /// One that was created at or after this time of ours and did not end badly.
    Since(Timestamp, Older),
}

/// How a run is obtained.
pub(crate) struct Rules<'a> {
    pub(crate) adopt: Adopt,
    pub(crate) unknown_fate: UnknownFate,
    /// When the execution gives up waiting.
    pub(crate) deadline: Timestamp,
    /// When the execution began; it does not submit on the strength of an index older than that.
    pub(crate) begun: Timestamp,
    /// The words of the command that asks for the same again.
    pub(crate) again: &'a str,
}

/// Obtains a run.
pub(crate) struct Submitter<'a> {
    pub(crate) ctx: &'a ActivityContext,
    pub(crate) tenant: &'a Tenant,
    pub(crate) rules: Rules<'a>,
    /// The caller's checkpoint around an effort.
    pub(crate) checkpoint: &'a (dyn Fn(&Effort) -> Value + Send + Sync),
}

#[derive(Serialize)]
struct Progress<'a> {
    step: &'static str,
    workflow: &'a str,
}

/// What a search says.
enum Judged {
    Satisfied(Run, Origin),
    Older(Run),
    Nothing,
}

impl Submitter<'_> {
    /// Goes on from wherever the effort stands until there is a run.
    pub(crate) async fn obtain(&self, effort: &mut Effort) -> Result<Obtained, ActivityError> {
        loop {
            if let Some(obtained) = &effort.obtained {
                return Ok(obtained.clone());
            }
            if effort.intent.is_some() {
                self.reconcile(effort).await?;
            } else if let Some((run, origin)) = self.search(effort, None).await? {
                self.obtained(effort, run, origin).await?;
            } else {
                self.submit(effort).await?;
            }
        }
    }

    /// One submission, saved before it is sent and after it is answered. Not raced with a stop: nothing may be dropped in between.
    async fn submit(&self, effort: &mut Effort) -> Result<(), ActivityError> {
        let progress = Progress { step: "submitting", workflow: &effort.workflow };
        let identity = alive(self.ctx, &progress, self.tenant.whoami()).await.map_err(|stop| stopped(stop, effort))??;
        let permit = alive(self.ctx, &progress, self.tenant.permit()).await.map_err(|stop| stopped(stop, effort))?;
        if self.ctx.now() >= self.rules.deadline {
            return Err(self.timed_out(effort, "no run was submitted").into());
        }
        let request_id = new_request_id();
        *effort = effort.clone().with_intent(self.ctx, self.tenant, &request_id);
        self.save(effort).await?;
        match self.tenant.submit(permit, &identity, &effort.workflow, &request_id).await {
            Submission::Applied(run) => self.obtained(effort, run, Origin::Started).await,
            Submission::NotApplied(failure) => {
                effort.not_applied();
                self.save(effort).await?;
                Err(explain(failure, effort).into())
            }
            Submission::AlreadyActive(failure) => {
                effort.not_applied();
                self.save(effort).await?;
                match self.search(effort, Some(failure)).await? {
                    Some((run, origin)) => self.obtained(effort, run, origin).await,
                    None => Ok(()),
                }
            }
            Submission::UnknownFate(failure) => {
                tracing::warn!(workflow = effort.workflow, request_id, code = %failure.code, "a submission of unknown fate; searching");
                effort.answer_lost(self.ctx);
                let wanted = failure.retry_after.unwrap_or_default();
                if wanted > LONGEST_WAIT {
                    return Err(explain(failure.with_retryable(true), effort).into());
                }
                self.nap(effort, SETTLING, wanted).await
            }
        }
    }

    /// Settles an unknown fate: by evidence, or by a search without any that was made late enough. Then it may be sent again.
    async fn reconcile(&self, effort: &mut Effort) -> Result<(), ActivityError> {
        let Some(intent) = effort.intent.clone() else { return Ok(()) };
        let bound = self.evidence_bound(effort);
        let mut patience = Patience::default();
        loop {
            let (asked, asked_monotonic) = (self.ctx.now(), self.ctx.monotonic());
            let nap = match self.runs(effort, bound, SETTLING).await? {
                Ok(runs) => {
                    if let Some(run) = best(runs.into_iter().filter(|run| is_evidence(effort, run, bound))) {
                        return self.obtained(effort, run, Origin::AnswerLost).await;
                    }
                    let left = self.inconclusive_for(&intent, asked, asked_monotonic);
                    if left.is_zero() {
                        break;
                    }
                    left.min(RECONCILE_INTERVAL)
                }
                Err(failure) => {
                    let wanted = patience.after(failure).map_err(|failure| explain(failure, effort))?;
                    RECONCILE_INTERVAL.max(wanted)
                }
            };
            self.nap(effort, SETTLING, nap).await?;
        }
        if self.rules.unknown_fate == UnknownFate::Fail || effort.submissions >= MOST_SUBMISSIONS {
            return Err(self.ambiguous(effort).into());
        }
        tracing::warn!(workflow = effort.workflow, submissions = effort.submissions, "no run has appeared; submitting again");
        effort.intent = None;
        Ok(())
    }

    /// For how long a search that shows nothing, asked at this moment, would still have been too early. Counted from when the answer was
    /// lost or, if that was in another attempt, from the intent: on the tenant's clock, since another machine's may differ from ours.
    fn inconclusive_for(&self, intent: &Intent, asked: Timestamp, asked_monotonic: Duration) -> Duration {
        let window = self.tenant.settings().reconcile_window;
        match intent.lost_at {
            Some(lost_at) => lost_at.saturating_add(window).saturating_sub(asked_monotonic),
            None => until(add(intent.at.tenants, window.saturating_add(SECOND)), self.tenant.on_its_clock(asked)),
        }
    }

    /// Searches for a run that satisfies the effort. After a `conflict` there must be one; finding none is then a failure.
    async fn search(&self, effort: &mut Effort, mut conflict: Option<Failure>) -> Result<Option<(Run, Origin)>, ActivityError> {
        let (ctx, settings) = (self.ctx, self.tenant.settings());
        let adopt = match self.rules.adopt {
            Adopt::Nothing if conflict.is_some() => Adopt::Active,
            Adopt::Nothing if effort.first.is_none() => return Ok(None),
            adopt => adopt,
        };
        let begun = ctx.now();
        let settled = match (&conflict, adopt) {
            (Some(_), _) => add(begun, settings.index_lag),
            (None, Adopt::Since(..)) => add(self.rules.begun, settings.index_lag),
            _ => begun,
        };
        let mut patience = Patience::default();
        loop {
            let asked = ctx.now();
            let usual = interval(until(asked, begun), None, settings.poll_interval);
            let nap = match self.runs(effort, self.search_bound(effort, adopt), "searching").await? {
                Err(failure) => usual.max(patience.after(failure).map_err(|failure| explain(failure, effort))?),
                Ok(runs) => match self.judge(effort, adopt, &runs) {
                    Judged::Satisfied(run, origin) => return Ok(Some((run, origin))),
                    Judged::Older(run) => {
                        // This is the run that was in the way.
                        conflict = None;
                        usual.min(self.older(effort, &run)?)
                    }
                    Judged::Nothing if asked >= settled => {
                        effort.saw_before(&runs, self.tenant.earliest(asked));
                        return conflict.map_or(Ok(None), |failure| Err(unseen(effort, failure).into()));
                    }
                    Judged::Nothing => usual.min(until(settled, asked)),
                },
            };
            self.nap(effort, "searching", nap).await?;
        }
    }

    fn judge(&self, effort: &Effort, adopt: Adopt, runs: &[Run]) -> Judged {
        let evidence = self.evidence_bound(effort);
        let now = self.tenant.on_its_clock(self.ctx.now());
        let active = |run: &&Run| match (&run.phase, run.created_at) {
            (None, Some(created)) => now.duration_since(created) < PHASELESS,
            _ => run.standing() == Standing::Active,
        };
        let wanted = |run: &&Run| {
            is_evidence(effort, run, evidence)
                || match adopt {
                    Adopt::Nothing => false,
                    Adopt::Active => active(run),
                    Adopt::Since(since, _) => {
                        let recent = run.created_at.is_some_and(|created| created >= self.tenant.earliest(since));
                        recent && (active(run) || run.standing() == Standing::Succeeded)
                    }
                }
        };
        let (wanted, others): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(wanted);
        if let Some(run) = best(wanted.into_iter().cloned()) {
            let origin = match adopt {
                _ if is_evidence(effort, &run, evidence) => Origin::AnswerLost,
                Adopt::Since(..) => Origin::Since,
                Adopt::Nothing | Adopt::Active => Origin::Running,
            };
            return Judged::Satisfied(run, origin);
        }
        let older = others.into_iter().find(active).filter(|_| matches!(adopt, Adopt::Since(..)));
        older.map_or(Judged::Nothing, |run| Judged::Older(run.clone()))
    }

    /// An active run that is older than `since`: how long it may still be waited for, or why it may not.
    fn older(&self, effort: &Effort, run: &Run) -> Result<Duration, Failure> {
        let Adopt::Since(since, older) = self.rules.adopt else { return Ok(Duration::ZERO) };
        let phase = run.phase.as_deref().unwrap_or("active");
        if older == Older::Fail {
            let message = format!("run {} of {} is {phase} and older than {since}", run.name, effort.workflow);
            let failure = Failure::new("rerun.older_active", Category::Precondition, message).fact("run", run.name.as_str());
            return Err(explain(failure.suggest("wait for it with older=wait, or stop it"), effort));
        }
        let left = until(self.rules.deadline, self.ctx.now());
        if left.is_zero() {
            return Err(self
                .timed_out(effort, &format!("the older run {} is still {phase}", run.name))
                .fact("run", run.name.as_str()));
        }
        Ok(left)
    }

    async fn obtained(&self, effort: &mut Effort, run: Run, origin: Origin) -> Result<(), ActivityError> {
        effort.intent = None;
        effort.obtained = Some(Obtained { run, origin });
        self.save(effort).await
    }

    async fn save(&self, effort: &Effort) -> Result<(), ActivityError> {
        Ok(self.ctx.save(&(self.checkpoint)(effort)).await?)
    }

    async fn runs(
        &self,
        effort: &Effort,
        bound: Option<Timestamp>,
        step: &'static str,
    ) -> Result<Result<Vec<Run>, Failure>, ActivityError> {
        let progress = Progress { step, workflow: &effort.workflow };
        self.ctx.heartbeat(&progress);
        let found = self.tenant.runs_of(&effort.workflow, bound);
        alive(self.ctx, &progress, found).await.map_err(|stop| stopped(stop, effort))
    }

    async fn nap(&self, effort: &Effort, step: &'static str, nap: Duration) -> Result<(), ActivityError> {
        let progress = Progress { step, workflow: &effort.workflow };
        alive(self.ctx, &progress, self.ctx.clock().sleep(nap)).await.map_err(|stop| stopped(stop, effort))
    }

    /// The second at or after which a run may be the effect of our first submission.
    fn evidence_bound(&self, effort: &Effort) -> Option<Timestamp> {
        let tolerance = self.tenant.settings().clock_tolerance;
        effort.first.map(|first| first.tenants.saturating_sub(tolerance).unwrap_or(first.tenants))
    }

    /// How far back a search must read.
    fn search_bound(&self, effort: &Effort, adopt: Adopt) -> Option<Timestamp> {
        let since = match adopt {
            Adopt::Since(since, _) => Some(self.tenant.earliest(since)),
            Adopt::Nothing | Adopt::Active => None,
        };
        self.evidence_bound(effort).into_iter().chain(since).min()
    }

    fn timed_out(&self, effort: &Effort, what: &str) -> Failure {
        let message = format!("the time for a run of {} is up; {what}", effort.workflow);
        let failure = Failure::new("wait.timed_out", Category::Timeout, message).with_retryable(false);
        explain(failure.suggest(command(self.ctx, self.rules.again)), effort)
    }

    fn ambiguous(&self, effort: &Effort) -> Failure {
        let (workflow, window) = (&effort.workflow, self.tenant.settings().reconcile_window.as_secs());
        let times = if effort.submissions == 1 { "once".to_owned() } else { format!("{} times", effort.submissions) };
        let message = format!("{workflow} was submitted {times}, the answer was lost, and no run has appeared within {window} s");
        let source = FailureSource {
            operation: Some("workflows.submit".into()),
            request_id: effort.intent.as_ref().map(|intent| intent.request_id.clone()),
            ..FailureSource::default()
        };
        let failure = Failure::new("rerun.ambiguous", Category::Precondition, message).with_source(source);
        let since = effort.first.map(|first| format!(" since={}", timestamp::format(first.ours))).unwrap_or_default();
        explain(failure.suggest(command(self.ctx, &format!("{}{since}", self.rules.again))), effort)
    }
}

/// Whether a run can be the effect of a submission of ours. One that was seen before cannot; one without a readable time of creation can,
/// as long as it is active.
fn is_evidence(effort: &Effort, run: &Run, bound: Option<Timestamp>) -> bool {
    !effort.before.contains(&run.name)
        && bound.is_some_and(|bound| run.created_at.map_or(run.standing() == Standing::Active, |created| created >= bound))
}

/// Of several runs that would do: an active one, else one that succeeded, else any; the newest of its kind.
fn best(runs: impl Iterator<Item = Run>) -> Option<Run> {
    runs.min_by_key(|run| match run.standing() {
        Standing::Active => 0,
        Standing::Succeeded => 1,
        Standing::Ended => 2,
    })
}

fn unseen(effort: &Effort, conflict: Failure) -> Failure {
    let message = format!("the tenant says that a run of {} is active, but shows none: {}", effort.workflow, conflict.message);
    let failure = Failure::new("workflow.already_active", Category::AlreadyExists, message).with_retryable(true);
    explain(failure.after(conflict.retry_after).with_source(conflict.source), effort)
}

fn stopped(stop: Stop, effort: &Effort) -> ActivityError {
    let Stop::Cancelled { reason } = stop else { return stop.into() };
    let outcome = match (&effort.intent, effort.submissions) {
        (None, 0) => "no run was submitted",
        _ => "a run was submitted, and it is not known whether that had an effect",
    };
    let message = reason.map_or_else(|| outcome.to_owned(), |reason| format!("{reason}; {outcome}"));
    ActivityError::Cancelled { message: Some(message), facts: effort.facts() }
}

fn explain(mut failure: Failure, effort: &Effort) -> Failure {
    failure.facts.append(&mut effort.facts());
    failure
}

fn until(end: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(now)).unwrap_or_default()
}

fn add(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}
