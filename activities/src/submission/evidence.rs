//! What the tenant's runs say about an effort: which of them satisfies it, and whether that one may be believed.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Adopt, Effort, Origin, PHASELESS, Progress, Submitter, stopped};
use crate::activity::ActivityError;
use crate::failure::{Category, Failure};
use crate::follow::alive;
use crate::tenant::{Kind, Run, Standing};

/// What a search says.
pub(super) enum Judged {
    Satisfied(Run, Origin),
    Older(Run),
    Nothing,
}

impl Submitter<'_> {
    /// One search: what it says, and all that it shows. A run of an app is gone by only once the tenant has shown the run itself: the
    /// index lags, and the id is taken from a name. A hit that cannot be confirmed so is not adopted, and is no proof of absence either;
    /// but it hides no run that can be.
    pub(super) async fn find(
        &self,
        effort: &Effort,
        adopt: Adopt,
        step: &'static str,
    ) -> Result<Result<(Judged, Vec<Run>), Failure>, ActivityError> {
        let shown = match self.runs(effort, self.search_bound(effort, adopt), step).await? {
            Ok(runs) => runs,
            Err(failure) => return Ok(Err(failure)),
        };
        let (mut runs, mut doubtful) = (shown.clone(), None);
        let mut confirmed = BTreeSet::new();
        loop {
            let judged = self.judge(effort, adopt, &runs);
            let (hit, vital) = match &judged {
                Judged::Satisfied(run, origin) => (run.clone(), *origin != Origin::Running),
                Judged::Older(run) => (run.clone(), false),
                Judged::Nothing => return Ok(doubtful.map_or(Ok((judged, shown)), |hit| Err(unconfirmed(&hit)))),
            };
            if hit.kind == Kind::Workflow || confirmed.contains(&hit.name) {
                return Ok(Ok((judged, shown)));
            }
            match self.shown(effort, &hit, step).await? {
                Ok(Some(run)) => {
                    confirmed.insert(run.name.clone());
                    runs.iter_mut().filter(|known| known.name == run.name).for_each(|known| known.clone_from(&run));
                }
                Ok(None) => {
                    runs.retain(|run| run.name != hit.name);
                    // Should another one be active all the same, the tenant refuses a second.
                    if vital {
                        doubtful = Some(hit);
                    }
                }
                Err(failure) => return Ok(Err(failure)),
            }
        }
    }

    /// The run of an app that the index shows, as it is now; None if it is not there or another app's.
    async fn shown(&self, effort: &Effort, hit: &Run, step: &'static str) -> Result<Result<Option<Run>, Failure>, ActivityError> {
        let progress = Progress { step, workflow: &effort.workflow };
        let read = alive(self.ctx, &progress, self.tenant.app_run(&hit.name)).await.map_err(|stop| stopped(stop, effort))?;
        Ok(read.map(|run| {
            let run = run.filter(|run| run.workflow.as_deref() == Some(effort.workflow.as_str()))?;
            let (created_at, hit) = (run.created_at.or(hit.created_at), hit.clone());
            Some(Run { created_at, finished_at: hit.finished_at, creator: hit.creator, ..run })
        }))
    }

    async fn runs(
        &self,
        effort: &Effort,
        bound: Option<Timestamp>,
        step: &'static str,
    ) -> Result<Result<Vec<Run>, Failure>, ActivityError> {
        let progress = Progress { step, workflow: &effort.workflow };
        self.ctx.heartbeat(&progress);
        let found = async {
            match effort.kind {
                Kind::Workflow => self.tenant.runs_of(&effort.workflow, bound).await,
                Kind::App => self.tenant.app_runs_of(&effort.workflow, bound).await,
            }
        };
        alive(self.ctx, &progress, found).await.map_err(|stop| stopped(stop, effort))
    }

    /// What a list of runs, the newest first, says.
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
                        // What an app has not started yet will have been started after any `since`.
                        let unstarted = run.kind == Kind::App;
                        let recent = run.created_at.map_or(unstarted, |created| created >= self.tenant.earliest(since));
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
}

/// Whether a run can be the effect of a submission of ours. One that was seen before cannot, nor one that did nothing; one without a
/// readable time of creation can, as long as it is active.
fn is_evidence(effort: &Effort, run: &Run, bound: Option<Timestamp>) -> bool {
    !effort.before.contains(&run.name)
        && !run.was_skipped()
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

fn unconfirmed(hit: &Run) -> Failure {
    let message = format!("the index shows run {}, but the tenant does not show that run of that app", hit.name);
    Failure::new("run.unconfirmed", Category::DataIntegrity, message).with_retryable(true)
}
