//! One run of one workflow or app, obtained once. The intent is saved before the request; a submission of unknown fate is settled by what the
//! tenant's runs show, and never repeated blindly. Shared by the activities that start runs; each keeps an [`Effort`] in its checkpoint.

mod absence;
mod already_active;
mod cancel;
mod creation;
mod effort;
mod evidence;
mod failures;
mod misnamed;
mod policy;
mod reserve;
mod since;
mod skipped;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::activity::ActivityError;
use crate::context::ActivityContext;
use crate::effects::EffectOutcome;
use crate::failure::{Category, Failure};
use crate::follow::{Patience, alive, interval};
use crate::tenant::{Kind, Run, Submission, Tenant, new_request_id};
use crate::timestamp;

pub(crate) use creation::Created;
use effort::Intent;
pub(crate) use effort::{Effort, Obtained, Origin};
use evidence::Judged;
use failures::explain;
pub(crate) use misnamed::is_misnamed;
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
/// A search that found nothing is believed for this long; the effects of other jobs of the queue are known beyond it.
const SEARCH_VALID: Duration = Duration::from_secs(5);
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

impl Submitter<'_> {
    /// Goes on from wherever the effort stands until there is a run.
    pub(crate) async fn obtain(&self, effort: &mut Effort) -> Result<Obtained, ActivityError> {
        loop {
            if let Some(obtained) = &effort.obtained {
                return Ok(obtained.clone());
            }
            if effort.intent.is_some() {
                self.reconcile(effort).await?;
            } else if effort.searched_at.is_some() {
                self.submit(effort).await?;
            } else if let Some(obtained) = self.search(effort).await? {
                self.obtained(effort, &obtained).await?;
            }
        }
    }

    /// One submission, saved before it is sent and after it is answered. Not raced with a stop: nothing may be dropped in between.
    async fn submit(&self, effort: &mut Effort) -> Result<(), ActivityError> {
        let progress = Progress { step: "submitting", workflow: &effort.workflow };
        let identity = match effort.kind {
            // Which part of the API serves us depends on who we are.
            Kind::Workflow => {
                Some(alive(self.ctx, &progress, self.tenant.whoami_with_id()).await.map_err(|stop| self.stopped(stop, effort))??)
            }
            Kind::App => {
                if self.tenant.clock_ahead().is_none() {
                    // The intent is to be put on the tenant's clock, which only an answer shows.
                    alive(self.ctx, &progress, self.tenant.whoami()).await.map_err(|stop| self.stopped(stop, effort))??;
                }
                None
            }
        };
        let ready = alive(self.ctx, &progress, self.tenant.ready(effort.operation())).await;
        let permit = ready.map_err(|stop| self.stopped(stop, effort))?.map_err(|failure| explain(failure, effort))?;
        if self.ctx.now() >= self.rules.deadline {
            return Err(self.timed_out(effort, "no run was submitted").into());
        }
        let request_id = new_request_id();
        let others = self.reserve(effort, identity.as_deref(), &request_id).await?;
        if !others.is_empty() {
            drop(permit);
            return match self.wait_for(effort, others).await? {
                Some(obtained) => self.obtained(effort, &obtained).await.map(drop),
                None => Ok(()),
            };
        }
        let submission = self.ctx.effect(self.tenant.longest_effect(), async {
            match &identity {
                Some(identity) => self.tenant.submit(permit, identity, &effort.workflow, &request_id).await,
                None => self.tenant.submit_app(permit, &effort.workflow, &request_id).await,
            }
        });
        match submission.await {
            Submission::Applied(run) => self.applied(effort, run).await,
            Submission::NotApplied(failure) => {
                self.not_applied(effort).await?;
                Err(explain(failure, effort).into())
            }
            Submission::AlreadyActive(failure) => self.refused(effort, failure).await,
            Submission::UnknownFate(failure) => {
                tracing::warn!(workflow = effort.workflow, request_id, code = %failure.code, "a submission of unknown fate; searching");
                effort.answer_lost(self.ctx);
                effort.refused_by = is_kept_away(&failure).then(|| failure.message.clone());
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
        let (mut patience, began) = (Patience::default(), self.ctx.monotonic());
        let settings = self.tenant.settings();
        let refused = effort.already_active.is_some();
        let adopt = if refused { self.in_the_way() } else { Adopt::Nothing };
        // When (monotonic) the index has had its time to show what was there as the answer came.
        let indexed = intent.lost_at.unwrap_or(began).saturating_add(settings.index_lag.min(settings.reconcile_window));
        // Until when (monotonic) a search is waited for that proves absence, once the window is over.
        let mut until_proven = None;
        let judged = loop {
            let (asked, asked_monotonic) = (self.ctx.now(), self.ctx.monotonic());
            let nap = match self.find(effort, adopt, SETTLING).await? {
                Ok((Judged::Satisfied(obtained), _)) if obtained.origin == Origin::AnswerLost => {
                    if self.obtained(effort, &obtained).await? {
                        return Ok(());
                    }
                    // Another job has the better claim to it since the search began.
                    Duration::ZERO
                }
                Ok((judged, shown)) => {
                    if refused && self.is_named(effort, &judged, &shown.runs, asked_monotonic >= indexed).await? {
                        return Ok(());
                    }
                    let left = self.inconclusive_for(&intent, asked, asked_monotonic, began);
                    match (left.is_zero(), self.doubt(effort, adopt, &shown)) {
                        (true, None) => break judged,
                        (true, Some(doubt)) => {
                            let window = asked_monotonic.saturating_add(settings.reconcile_window);
                            if asked_monotonic >= *until_proven.get_or_insert(window) {
                                return Err(self.ambiguous(effort, Some(&doubt)).into());
                            }
                            RECONCILE_INTERVAL
                        }
                        (false, _) => left.min(RECONCILE_INTERVAL),
                    }
                }
                Err(failure) => {
                    let wanted =
                        patience.after_effect(self.ctx, self.tenant, failure).map_err(|failure| self.unsettled(failure, effort))?;
                    RECONCILE_INTERVAL.max(wanted)
                }
            };
            self.nap(effort, SETTLING, nap).await?;
        };
        if refused {
            return self.never_named(effort, &judged).await;
        }
        if effort.disputed.is_some() {
            return self.settle_dispute(effort).await;
        }
        let too_many = effort.submissions >= MOST_SUBMISSIONS && effort.refused_by.is_none();
        if self.rules.unknown_fate == UnknownFate::Fail || too_many {
            return Err(self.ambiguous(effort, None).into());
        }
        if let Some(said) = effort.refused_by.take() {
            return self.kept_away(effort, said).await;
        }
        tracing::warn!(workflow = effort.workflow, submissions = effort.submissions, "no run has appeared; submitting again");
        effort.intent = None;
        effort.searched_at = None;
        Ok(())
    }

    /// A firewall or proxy answered in the tenant's place, and no run has appeared. That can last for hours, so the retry policy decides
    /// when to try again: such a submission does not count as one whose answer was lost.
    async fn kept_away(&self, effort: &mut Effort, said: String) -> Result<(), ActivityError> {
        effort.intent = None;
        effort.searched_at = None;
        effort.submissions = effort.submissions.saturating_sub(1).max(1);
        self.save(effort).await?;
        let failure = Failure::new("tenant.unavailable", Category::DependencyUnavailable, said);
        let hint = "check what stands between this machine and the tenant: a firewall, a proxy, a login page";
        Err(explain(failure.suggest(hint), effort).into())
    }

    /// For how long a search that shows nothing, asked at this moment, would still have been too early. Counted from when the answer was
    /// lost or, if that was in another attempt, from the intent: on the tenant's clock, and on ours as well, for one wrong `Date` is no
    /// proof that time has passed. The intent may be dated by another machine's clock, so ours is believed only for the window itself,
    /// from when this attempt `began` to search.
    fn inconclusive_for(&self, intent: &Intent, asked: Timestamp, asked_monotonic: Duration, began: Duration) -> Duration {
        let window = self.tenant.settings().reconcile_window;
        if let Some(lost_at) = intent.lost_at {
            return lost_at.saturating_add(window).saturating_sub(asked_monotonic);
        }
        let at = intent.at.tenants_latest.unwrap_or(intent.at.tenants);
        let tenants = until(add(at, window.saturating_add(SECOND)), self.tenant.between_on_its_clock(asked).0);
        let ours = until(add(intent.at.ours, window), asked);
        tenants.max(ours.min(began.saturating_add(window).saturating_sub(asked_monotonic)))
    }

    /// Searches for a run that satisfies the effort. Where `adopt` wants none, the search still learns which runs there are: none of these
    /// is the effect of the submission that follows.
    async fn search(&self, effort: &mut Effort) -> Result<Option<Obtained>, ActivityError> {
        let (ctx, settings, adopt) = (self.ctx, self.tenant.settings(), self.rules.adopt);
        let begun = ctx.now();
        let settled = match adopt {
            // A run that is submitted earlier would not satisfy whoever asks for the same again.
            // Later than `since` by any difference of the clocks, so that the run counts for a second try of the same.
            Adopt::Since(since, _) => add(self.rules.begun, settings.index_lag).max(add(since, settings.clock_tolerance)),
            _ => begun,
        };
        if settled > self.rules.deadline {
            let settled = timestamp::format(settled);
            return Err(self.timed_out(effort, &format!("none may be submitted before {settled}, as `since` says")).into());
        }
        let mut patience = Patience::default();
        loop {
            let asked = ctx.now();
            let usual = interval(until(asked, begun), None, settings.poll_interval);
            let nap = match self.find(effort, adopt, "searching").await? {
                Err(failure) => usual.max(patience.after(failure).map_err(|failure| explain(failure, effort))?),
                Ok((judged, shown)) => match judged {
                    Judged::Satisfied(obtained) => return Ok(Some(obtained)),
                    Judged::Older(run) => usual.min(self.older(effort, &run)?),
                    Judged::Nothing if asked >= settled => {
                        if let Some(doubt) = self.doubt(effort, adopt, &shown) {
                            usual.max(patience.after(self.no_proof(effort, &doubt))?)
                        } else {
                            effort.saw_before(&shown, self.tenant.earliest(asked));
                            effort.searched_at = Some(asked);
                            return Ok(None);
                        }
                    }
                    Judged::Nothing => usual.min(until(settled, asked)),
                },
            };
            self.nap(effort, "searching", nap).await?;
        }
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

    /// An answer named the run of our submission. Should it have been there before, or be known as another job's run, then the tenant has
    /// answered with that.
    async fn applied(&self, effort: &mut Effort, run: Run) -> Result<(), ActivityError> {
        let outcome = EffectOutcome::Applied { run: run.name.clone() };
        let mut next = effort.clone();
        next.intent = None;
        if effort.was_there_before(&run, self.tenant.settings().clock_tolerance) {
            let because = Some("the tenant answered with a run that was there before".to_owned());
            next.obtained = Some(Obtained { run, origin: Origin::Running, because });
            self.ctx.settle(&(self.checkpoint)(&next), &effort.key(), EffectOutcome::NotApplied).await?;
            *effort = next;
            return Ok(());
        }
        if effort.is_of_another_user(&run) {
            return self.disputed(effort, &run).await;
        }
        next.obtained = Some(Obtained::started(run.clone()));
        if !self.ctx.settle(&(self.checkpoint)(&next), &effort.key(), outcome).await? {
            let because = Some("the tenant answered with a run that another job submitted".to_owned());
            next.obtained = Some(Obtained { run, origin: Origin::OtherJob, because });
            self.ctx.settle(&(self.checkpoint)(&next), &effort.key(), EffectOutcome::NotApplied).await?;
        }
        *effort = next;
        Ok(())
    }

    /// The last submission is proven to be without effect.
    async fn not_applied(&self, effort: &mut Effort) -> Result<(), ActivityError> {
        effort.not_applied();
        if effort.submissions > 0 {
            // An earlier one may still have had an effect, and keeps the intent that other jobs see.
            return self.save(effort).await;
        }
        self.ctx.settle(&(self.checkpoint)(effort), &effort.key(), EffectOutcome::NotApplied).await?;
        Ok(())
    }

    /// Saves the run that was found. False, and nothing is saved, if it is evidence that another job has claimed meanwhile.
    async fn obtained(&self, effort: &mut Effort, obtained: &Obtained) -> Result<bool, ActivityError> {
        let mut next = effort.clone();
        next.intent = None;
        next.obtained = Some(obtained.clone());
        if obtained.origin == Origin::AnswerLost {
            let outcome = if Self::may_claim(effort, obtained) {
                EffectOutcome::Applied { run: obtained.run.name.clone() }
            } else {
                EffectOutcome::NotApplied
            };
            if !self.ctx.settle(&(self.checkpoint)(&next), &effort.key(), outcome).await? {
                effort.of_others.insert(obtained.run.name.clone());
                return Ok(false);
            }
        } else {
            self.save(&next).await?;
        }
        *effort = next;
        Ok(true)
    }

    async fn save(&self, effort: &Effort) -> Result<(), ActivityError> {
        Ok(self.ctx.save(&(self.checkpoint)(effort)).await?)
    }

    async fn nap(&self, effort: &Effort, step: &'static str, nap: Duration) -> Result<(), ActivityError> {
        let progress = Progress { step, workflow: &effort.workflow };
        alive(self.ctx, &progress, self.ctx.clock().sleep(nap)).await.map_err(|stop| self.stopped(stop, effort))
    }
}

/// Whether a refusal came, of something that is not the tenant. A 408 is of one that waited for its answer.
fn is_kept_away(failure: &Failure) -> bool {
    failure.source.http_status.is_some_and(|status| (400..500).contains(&status) && status != 408)
}

fn until(end: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(now)).unwrap_or_default()
}

fn add(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}
