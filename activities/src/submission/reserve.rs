//! Taking turns with the other jobs of the queue. The intent to submit a workflow is saved only if no other job of the queue is just
//! submitting it, and if none has submitted it so recently that the tenant's index may not show that run yet.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::{Adopt, Effort, Obtained, Origin, Progress, SEARCH_VALID, Submitter, add, until};
use crate::activity::ActivityError;
use crate::context::{ActivityContext, Interrupted};
use crate::effects::{EffectState, OtherEffect, Reservation, Reserved};
use crate::follow::alive;
use crate::tenant::{Identity, Kind, Run, Standing, Tenant};

/// The first wait for another job's submission; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// No wait for another job's submission is longer.
const MAX_WAIT: Duration = Duration::from_secs(2);
const WAITING: &str = "waiting for another job to submit the same workflow";

impl Submitter<'_> {
    /// Saves the intent of a submission that is about to be sent. If other jobs are in the way nothing is saved, and these are returned.
    pub(super) async fn reserve(
        &self,
        effort: &mut Effort,
        who: Option<&Identity>,
        request_id: &str,
    ) -> Result<Vec<OtherEffect>, ActivityError> {
        let intended = effort.clone().with_intent(self.ctx, self.tenant, who, request_id);
        let reservation = Reservation {
            key: effort.key(),
            intents_since: before(self.ctx.now(), self.in_doubt_for()),
            applied_since: self.applied_since(effort),
        };
        match self.ctx.reserve(&(self.checkpoint)(&intended), reservation).await? {
            Reserved::Saved => {
                *effort = intended;
                Ok(Vec::new())
            }
            Reserved::Conflict(others) => Ok(others),
        }
    }

    /// Waits until no other job is submitting the workflow. Returns the run of another job if that satisfies the effort.
    pub(super) async fn wait_for(
        &self,
        effort: &mut Effort,
        mut others: Vec<OtherEffect>,
    ) -> Result<Option<Obtained>, ActivityError> {
        let (mut wait, mut considered, mut waited) = (FIRST_WAIT, BTreeSet::new(), false);
        loop {
            let applied_since = self.applied_since(effort).unwrap_or(Timestamp::MAX);
            for (other, run) in
                others.iter().filter(|other| other.at >= applied_since).filter_map(|other| Some((other, run_of(other)?)))
            {
                if considered.insert(run.to_owned())
                    && let Some(obtained) = self.of_other_job(effort, other, run).await?
                {
                    return Ok(Some(obtained));
                }
            }
            let in_doubt = before(self.ctx.now(), self.in_doubt_for());
            if !others.iter().any(|other| other.state == EffectState::Intent && other.at >= in_doubt) {
                // Only now: an older intent that was still open could otherwise be applied unseen.
                effort.considered_until = others.iter().map(|other| other.at).max().max(effort.considered_until);
                // What another job's submission met or started has been there before ours.
                effort.searched_at = effort.searched_at.filter(|at| !waited && until(self.ctx.now(), *at) < SEARCH_VALID);
                return Ok(None);
            }
            if self.ctx.now() >= self.rules.deadline {
                return Err(self.timed_out(effort, "another job is still submitting it").into());
            }
            self.nap(effort, WAITING, wait.mul_f64(self.ctx.random().mul_add(0.5, 0.75))).await?;
            (wait, waited) = ((wait * 2).min(MAX_WAIT), true);
            others = self.ctx.other_effects(&effort.key(), in_doubt).await?;
        }
    }

    /// The run that another job submitted, if it satisfies this effort: although the tenant's index may not show it yet, the other job
    /// knows that it is there.
    async fn of_other_job(&self, effort: &Effort, other: &OtherEffect, name: &str) -> Result<Option<Obtained>, ActivityError> {
        let progress = Progress { step: WAITING, workflow: &effort.workflow };
        let look = async {
            match effort.kind {
                Kind::Workflow => self.tenant.look(name).await,
                Kind::App => self.tenant.app_run(name).await,
            }
        };
        // What cannot be seen now is followed, as the run of an answer would be.
        let seen = alive(self.ctx, &progress, look).await.map_err(|stop| self.stopped(stop, effort))?.unwrap_or_default();
        let run = seen.unwrap_or_else(|| Run::named(effort.kind, name.to_owned(), &effort.workflow));
        let active = run.standing() == Standing::Active;
        let satisfies = match self.rules.adopt {
            Adopt::Nothing => false,
            // Active now, or at some time since this job began: by our clock, and by the tenant's where the run tells.
            Adopt::Active => {
                let begun = self.tenant.earliest(self.rules.begun);
                active || other.at >= self.rules.begun && run.finished_at.is_none_or(|finished| finished >= begun)
            }
            Adopt::Since(since, _) => other.at >= since && (active || run.standing() == Standing::Succeeded),
        };
        let because = Some(format!("job {} submitted it", other.owner.job_id));
        Ok(satisfies.then_some(Obtained { run, origin: Origin::OtherJob, because }))
    }

    /// For how long an intent of another job without a known end may still turn into a run.
    fn in_doubt_for(&self) -> Duration {
        let settings = self.tenant.settings();
        settings.request_timeout.saturating_add(settings.reconcile_window)
    }

    /// Since when an effect of another job may be missing from our last search. None: other jobs' runs do not satisfy this effort.
    fn applied_since(&self, effort: &Effort) -> Option<Timestamp> {
        if self.rules.adopt == Adopt::Nothing {
            return None;
        }
        let searched = before(effort.searched_at.unwrap_or(self.rules.begun), self.tenant.settings().index_lag);
        let considered = effort.considered_until.map(|until| add(until, Duration::from_millis(1)));
        Some(considered.map_or(searched, |considered| considered.max(searched)))
    }
}

/// What other jobs of the queue have a better claim to than an effort whose answer was lost.
#[derive(Default)]
pub(super) struct OtherClaims {
    /// Runs that they are known to have submitted. The list is bounded; what it lacks is refused when it is claimed.
    runs: BTreeSet<String>,
    /// When the first of them began to submit after we last did, if its answer is not known either. It did so because ours was
    /// too old to become a run any more, so that a run from then on is its own.
    newer_intent: Option<Timestamp>,
}

impl OtherClaims {
    pub(super) async fn read(ctx: &ActivityContext, effort: &Effort) -> Result<Self, Interrupted> {
        let others = ctx.other_effects(&effort.key(), Timestamp::MIN).await?;
        let known = others.iter().filter_map(|other| run_of(other).map(str::to_owned));
        let runs = known.chain(effort.of_others.iter().cloned()).collect();
        let ours = effort.newest.or(effort.intent.as_ref().map(|intent| intent.at)).map(|at| at.ours);
        let newer = |other: &&OtherEffect| other.state == EffectState::Intent && ours.is_some_and(|ours| other.at > ours);
        Ok(Self { runs, newer_intent: others.iter().filter(newer).map(|other| other.at).min() })
    }

    /// Whether a run is rather another job's.
    pub(super) fn include(&self, tenant: &Tenant, run: &Run) -> bool {
        let since = self.newer_intent.map(|at| tenant.earliest(at));
        self.runs.contains(&run.name) || since.is_some_and(|since| run.created_at.is_none_or(|created| created >= since))
    }
}

fn run_of(other: &OtherEffect) -> Option<&str> {
    match &other.state {
        EffectState::Applied { run } => Some(run),
        EffectState::Intent => None,
    }
}

fn before(at: Timestamp, duration: Duration) -> Timestamp {
    at.saturating_sub(duration).unwrap_or(at)
}
