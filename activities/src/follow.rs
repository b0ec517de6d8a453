//! Waiting for one run of a workflow or app: that run, and not the newest of its workflow. Shared by the activities that wait.

mod ownership;
mod telling;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::activity::ActivityError;
use crate::context::{ActivityContext, Stop};
use crate::failure::{Category, Failure};
use crate::tenant::{Kind, Run, Standing, StopError, Tenant};
use crate::timestamp;
use crate::user::User;

pub(crate) use telling::{command, conclude, facts, resume, runs_command, stop_command, tokens_command, with_the_tenants_words};

/// How often a long wait gives a sign of life; well within every heartbeat timeout that is of use.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// How often a run of an app is read itself, although the index shows it as active.
const ITSELF: Duration = Duration::from_secs(900);
/// How many looks in a row may fail before the attempt does.
const PATIENCE: u32 = 5;
/// The least wait after a refusal that is not taken for the last word.
const REFUSED_WAIT: Duration = Duration::from_secs(5);
/// A run of this age is looked at every `poll_interval`.
const SETTLED: Duration = Duration::from_secs(3600);
/// The default interval grows with the age of the run to this multiple.
const GROWTH: u32 = 6;
/// A run that the tenant itself named is waited for this many times longer than one that somebody typed.
const NAMED_BY_TENANT: u32 = 10;

/// Which run to wait for, and how.
pub(crate) struct Follow<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) kind: Kind,
    /// Its name, or the id of a run of an app.
    pub(crate) run: &'a str,
    /// What it is a run of, as far as that is known.
    pub(crate) workflow: Option<&'a str>,
    /// Who we were when we started it, if we did.
    pub(crate) started_by: Option<&'a User>,
    /// Saved by the caller, so that it outlives the attempt.
    pub(crate) deadline: Timestamp,
    /// The caller's own; None lets the tenant's interval grow with the run's age.
    pub(crate) poll_interval: Option<Duration>,
    pub(crate) on_cancel: OnCancel,
    /// The tenant named this run in an answer or in a search, so it exists, whether or not the index shows it.
    pub(crate) named_by_tenant: bool,
    /// An earlier attempt has followed it already.
    pub(crate) resumed: bool,
}

/// What a cancelled wait does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnCancel {
    /// It goes on.
    Leave,
    /// It goes on, although stopping was asked for: it was not started by this job.
    LeaveOthers,
    /// It is asked to stop, once.
    Stop,
}

/// What is reported at each look. A wait whose looks are answered makes progress, however long the run takes; one whose looks all fail
/// makes none, and can be seen to stall.
#[derive(Serialize)]
struct Progress<'a> {
    run: &'a str,
    phase: Option<&'a str>,
    /// When this phase was first seen.
    #[serde(with = "timestamp")]
    since: Timestamp,
    /// How many looks of this attempt were answered.
    looks: u64,
}

/// What is known of the run while it is followed.
struct Seen {
    run: Option<Run>,
    since: Timestamp,
    /// Monotonic: when it was last found, or when looking began.
    found: Duration,
    /// The unknown phase that was logged last.
    logged: Option<String>,
    looks: u64,
    /// Monotonic: when the run itself was asked for last, and not only the index.
    asked_itself: Option<Duration>,
}

impl<'a> Follow<'a> {
    /// Follows a run that the tenant named.
    pub(crate) fn of(tenant: &'a Tenant, run: &'a Run, deadline: Timestamp, on_cancel: OnCancel) -> Self {
        let (kind, workflow) = (run.kind, run.workflow.as_deref());
        Self {
            tenant,
            kind,
            run: &run.name,
            workflow,
            started_by: None,
            deadline,
            poll_interval: None,
            on_cancel,
            named_by_tenant: true,
            resumed: false,
        }
    }

    /// Looks until the run is at its end, and returns it as it ended.
    pub(crate) async fn to_its_end(&self, ctx: &ActivityContext) -> Result<Run, ActivityError> {
        let begun = ctx.monotonic();
        let mut seen = Seen { run: None, since: ctx.now(), found: begun, logged: None, looks: 0, asked_itself: None };
        let mut patience = Patience::default();
        loop {
            // Boxed: between two looks, which is nearly always, a wait keeps no room for one.
            let look = Box::pin(self.look(ctx, &mut seen));
            let looked = alive(ctx, &seen.progress(self.run), look).await;
            let wanted = match looked {
                Err(stop) => return Err(Box::pin(self.stopped(ctx, stop, &seen)).await),
                Ok(Err(failure)) => match self.tolerated(ctx, &mut patience, &seen, failure) {
                    Ok(wait) => wait,
                    Err(failure) => {
                        if let Some(run) = self.last_look(ctx, &mut seen, failure).await? {
                            return Ok(run);
                        }
                        patience = Patience::default();
                        Duration::ZERO
                    }
                },
                Ok(Ok(found)) => {
                    patience = Patience::default();
                    seen.looks += 1;
                    if let Some(run) = self.saw(ctx, &mut seen, found)? {
                        return Ok(run);
                    }
                    Duration::ZERO
                }
            };
            let progress = seen.progress(self.run);
            ctx.heartbeat(&progress);
            let left = Duration::try_from(self.deadline.duration_since(ctx.now())).unwrap_or_default();
            if left.is_zero() {
                return Err(self.timed_out(ctx, &seen).into());
            }
            let interval = self.interval(ctx, &seen, ctx.monotonic().saturating_sub(begun));
            let jittered = interval.mul_f64(ctx.random().mul_add(0.5, 0.75));
            let nap = ctx.clock().sleep(jittered.max(wanted).min(left));
            if let Err(stop) = alive(ctx, &progress, nap).await {
                return Err(Box::pin(self.stopped(ctx, stop, &seen)).await);
            }
        }
    }

    /// How long to wait after a look that failed, or the failure if it decides. Once the run is known to be there a refusal decides
    /// nothing for a while: the run continues whatever one answer says.
    fn tolerated(
        &self,
        ctx: &ActivityContext,
        patience: &mut Patience,
        seen: &Seen,
        failure: Failure,
    ) -> Result<Duration, Failure> {
        if self.named_by_tenant || self.resumed || seen.looks > 0 {
            patience.after_effect(ctx, self.tenant, failure)
        } else {
            patience.after(failure)
        }
    }

    /// Before refused looks end the wait the run is read by itself: a tenant may refuse a search for many runs and show each of them.
    async fn last_look(&self, ctx: &ActivityContext, seen: &mut Seen, failure: Failure) -> Result<Option<Run>, ActivityError> {
        if failure.retryable || (seen.looks == 0 && !self.named_by_tenant && !self.resumed) {
            return Err(self.explain(failure, seen).into());
        }
        let slug = self.slug(seen);
        let alone = async {
            match self.kind {
                Kind::Workflow => self.tenant.look_alone(self.run).await,
                Kind::App => self.tenant.run_of_app(self.run, slug.as_deref()).await,
            }
        };
        match alive(ctx, &seen.progress(self.run), alone).await {
            Err(stop) => Err(Box::pin(self.stopped(ctx, stop, seen)).await),
            Ok(Ok(found)) => Ok(self.saw(ctx, seen, found)?),
            Ok(Err(_)) => Err(self.explain(failure.suggest(resume(ctx, self.kind, self.run)), seen).into()),
        }
    }

    /// One look. The runs of apps are looked at together as soon as it is known whose they are, and once in a while each by itself: an
    /// index that stands still must not hide the end of a run.
    fn look(&self, ctx: &ActivityContext, seen: &mut Seen) -> impl Future<Output = Result<Option<Run>, Failure>> + use<'a> {
        let now = ctx.monotonic();
        let slug = self.slug(seen);
        let together = slug.is_some() && seen.asked_itself.is_none_or(|last| now.saturating_sub(last) < ITSELF);
        if !together || seen.asked_itself.is_none() {
            seen.asked_itself = Some(now);
        }
        let (tenant, kind, run) = (self.tenant, self.kind, self.run);
        async move {
            match kind {
                Kind::Workflow => tenant.look(run).await,
                Kind::App => tenant.look_at_run_of_app(run, slug.as_deref(), together).await,
            }
        }
    }

    /// The app that it is a run of: the one that was submitted, or else the first that was shown.
    fn slug(&self, seen: &Seen) -> Option<String> {
        let known = self.workflow.or_else(|| seen.run.as_ref()?.workflow.as_deref());
        known.filter(|_| self.kind == Kind::App).map(str::to_owned)
    }

    /// Takes in what a look found; Some when it is the end.
    fn saw(&self, ctx: &ActivityContext, seen: &mut Seen, found: Option<Run>) -> Result<Option<Run>, Failure> {
        let Some(mut run) = found else {
            let settings = self.tenant.settings();
            let grace = settings.index_grace * if self.named_by_tenant || seen.run.is_some() { NAMED_BY_TENANT } else { 1 };
            let missing = ctx.monotonic().saturating_sub(seen.found);
            return if missing < grace { Ok(None) } else { Err(self.not_found(ctx, missing, seen)) };
        };
        seen.found = ctx.monotonic();
        if let Some(why) = self.contradiction(&run) {
            return Err(self.not_ours(ctx, &why, seen));
        }
        if run.standing() != Standing::Active {
            return Ok(Some(run));
        }
        if !run.phase_is_known() && seen.logged != run.phase {
            tracing::warn!(run = self.run, phase = run.phase, "a phase that this build does not know; taken for not ended");
            seen.logged.clone_from(&run.phase);
        }
        if seen.phase() != run.phase.as_deref() {
            seen.since = ctx.now();
        }
        run.workflow = run.workflow.or_else(|| seen.run.take()?.workflow);
        seen.run = Some(run);
        Ok(None)
    }

    /// A second for a young run, more with its age, never more than the caller allows.
    fn interval(&self, ctx: &ActivityContext, seen: &Seen, followed: Duration) -> Duration {
        let created = seen.run.as_ref().and_then(|run| run.created_at);
        let age = created.map(|created| self.tenant.on_its_clock(ctx.now()).duration_since(created));
        let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or(followed);
        interval(age, self.poll_interval, self.tenant.settings().poll_interval)
    }

    async fn stopped(&self, ctx: &ActivityContext, stop: Stop, seen: &Seen) -> ActivityError {
        let Stop::Cancelled { reason } = stop else { return stop.into() };
        let (requested, outcome) = match self.on_cancel {
            OnCancel::Leave => (false, continues(ctx.tenant(), self.run, "")),
            OnCancel::LeaveOthers => (false, continues(ctx.tenant(), self.run, ", since it was not started by this job")),
            OnCancel::Stop if ctx.may_act().is_err() => return ActivityError::Interrupted,
            OnCancel::Stop => match ctx.effect(self.tenant.longest_effect() * 2, self.stop_run(ctx, seen)).await {
                Ok(()) => (true, format!("run {} was asked to stop", self.run)),
                Err(StopError::NotAsked(failure)) => (false, format!("run {} could not be asked to stop: {failure}", self.run)),
                Err(StopError::UnknownFate(failure)) => {
                    let again = stop_command(ctx.tenant(), self.run);
                    (false, format!("whether run {} was asked to stop is not known: {failure}; ask again with `{again}`", self.run))
                }
            },
        };
        let message = reason.map_or_else(|| outcome.clone(), |reason| format!("{reason}; {outcome}"));
        let mut facts = self.facts(seen);
        facts.insert("stop_requested".into(), requested.into());
        ActivityError::Cancelled { message: Some(message), facts }
    }

    fn timed_out(&self, ctx: &ActivityContext, seen: &Seen) -> Failure {
        let phase = seen.phase().unwrap_or("in no phase yet");
        let message = format!("the time for run {} is up; it was last seen {phase}", self.run);
        let failure = Failure::new("wait.timed_out", Category::Timeout, message).with_retryable(false);
        self.explain(failure.suggest(resume(ctx, self.kind, self.run)), seen)
    }

    fn not_found(&self, ctx: &ActivityContext, missing: Duration, seen: &Seen) -> Failure {
        let seconds = missing.as_secs();
        let message = match seen.phase() {
            Some(phase) => format!("run {} was last seen {phase} and has not been found for {seconds} s", self.run),
            None => format!("run {} was not found within {seconds} s", self.run),
        };
        let failure = Failure::new("run.not_found", Category::NotFound, message);
        if self.named_by_tenant {
            failure.suggest(resume(ctx, self.kind, self.run))
        } else {
            failure.suggest(match self.kind {
                Kind::Workflow => "check the name: a run is named after its workflow with five letters or digits behind it",
                Kind::App => "check the id: it is what a submission answers, and the last part of a run's qualified name",
            })
        }
    }

    fn explain(&self, mut failure: Failure, seen: &Seen) -> Failure {
        failure.facts.append(&mut self.facts(seen));
        failure
    }

    fn facts(&self, seen: &Seen) -> Map<String, Value> {
        Map::from_iter([("run".to_owned(), json!(self.run)), ("phase".to_owned(), json!(seen.phase()))])
    }
}

/// Runs a future that changes nothing, and gives signs of life while it takes long. A stop drops it.
pub(crate) async fn alive<F: Future>(ctx: &ActivityContext, progress: &impl Serialize, future: F) -> Result<F::Output, Stop> {
    let mut future = std::pin::pin!(future);
    loop {
        tokio::select! {
            biased;
            output = ctx.unless_stopped(&mut future) => return output,
            () = ctx.clock().deadline(SIGN_OF_LIFE) => ctx.heartbeat(progress),
        }
    }
}

impl Seen {
    fn progress<'a>(&'a self, run: &'a str) -> Progress<'a> {
        Progress { run, phase: self.phase(), since: self.since, looks: self.looks }
    }

    fn phase(&self) -> Option<&str> {
        self.run.as_ref()?.phase.as_deref()
    }
}

/// What a cancelled job says of a run that it does not stop.
pub(crate) fn continues(tenant: &str, run: &str, why: &str) -> String {
    format!("run {run} continues{why}; stop it with `{}`", stop_command(tenant, run))
}

/// What may fail a few times in a row before the attempt does.
#[derive(Default)]
pub(crate) struct Patience {
    failed: u32,
    /// Monotonic: since when every answer has been a refusal.
    refused_since: Option<Duration>,
}

impl Patience {
    /// How long the tenant wants to be left alone at least, or the failure once it is final or one too many.
    pub(crate) fn after(&mut self, failure: Failure) -> Result<Duration, Failure> {
        self.failed += 1;
        if !failure.retryable || self.failed >= PATIENCE {
            return Err(failure);
        }
        tracing::info!(code = %failure.code, failed = self.failed, "reading from the tenant failed; reading again");
        Ok(failure.retry_after.unwrap_or_default())
    }

    /// The same for a read after an effect. A refusal is repeated for `look_patience` before it decides: what was started continues.
    pub(crate) fn after_effect(&mut self, ctx: &ActivityContext, tenant: &Tenant, failure: Failure) -> Result<Duration, Failure> {
        if failure.retryable {
            self.refused_since = None;
            return self.after(failure);
        }
        let now = ctx.monotonic();
        let since = *self.refused_since.get_or_insert(now);
        if now.saturating_sub(since) >= tenant.settings().look_patience {
            return Err(failure);
        }
        if since == now {
            tracing::warn!(code = %failure.code, %failure, "the tenant refused to show what was started; asking again");
        }
        Ok(failure.retry_after.unwrap_or_default().max(REFUSED_WAIT))
    }
}

/// When a wait that may take `timeout` from now ends.
pub(crate) fn deadline(ctx: &ActivityContext, timeout: Duration) -> Timestamp {
    SignedDuration::try_from(timeout).ok().and_then(|timeout| ctx.now().checked_add(timeout).ok()).unwrap_or(Timestamp::MAX)
}

/// How long to wait before the next look at a run of this age.
pub(crate) fn interval(age: Duration, own: Option<Duration>, usual: Duration) -> Duration {
    let young = Duration::from_secs(1);
    if let Some(own) = own {
        return (age / 10).clamp(young.min(own), own);
    }
    let grown = usual.mul_f64(age.as_secs_f64() / SETTLED.as_secs_f64()).min(usual * GROWTH);
    (age / 10).clamp(young.min(usual), usual).max(grown)
}

/// The checkpoint of a wait.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Waiting {
    #[serde(with = "timestamp")]
    pub(crate) deadline: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_grow_rarer_with_the_age_of_the_run() {
        let (s, usual) = (Duration::from_secs, Duration::from_secs(5));
        for (age, own, expected) in [
            (s(0), None, s(1)),
            (s(20), None, s(2)),
            (s(600), None, s(5)),
            (s(3_600), None, s(5)),
            (s(4 * 3_600), None, s(20)),
            (s(1_000 * 3_600), None, s(30)),
            (s(0), Some(Duration::from_millis(200)), Duration::from_millis(200)),
            (s(1_000 * 3_600), Some(s(60)), s(60)),
            (Duration::MAX, None, s(30)),
        ] {
            assert_eq!(interval(age, own, usual), expected, "{age:?} {own:?}");
        }
    }
}
