//! What the tenant's runs say about an effort: which of them satisfies it, and whether that one may be believed.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::reserve::OtherClaims;
use super::since::{SinceBound, contradicts};
use super::{Adopt, Effort, Obtained, Origin, PHASELESS, Progress, Submitter};
use crate::activity::ActivityError;
use crate::failure::{Category, Failure};
use crate::follow::alive;
use crate::tenant::{Kind, Run, RunsShown, Standing};

/// Why a run satisfies that appeared after the tenant had answered that one is active. Nothing tells it from one that another program
/// started in that moment.
const APPEARED: &str = "it appeared after a submission of this job to which the tenant answered that a run is active";

/// What a search says.
pub(super) enum Judged {
    Satisfied(Obtained),
    Older(Run),
    Nothing,
}

/// What a search shows.
struct Shown {
    shown: RunsShown,
    /// Those of them that only the Automation Engine lists, by name.
    only_listed: BTreeSet<String>,
}

/// What the tenant says of one run that a search shows.
enum Confirmed {
    /// It is there, and so it is now.
    Run(Run),
    /// It is another app's.
    OtherApp,
    /// There is none of this id, or it cannot be seen.
    Unseen,
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
    ) -> Result<Result<(Judged, RunsShown), Failure>, ActivityError> {
        let Shown { shown, only_listed } = match self.search_runs(effort, self.search_bound(effort, adopt), step).await? {
            Ok(shown) => shown,
            Err(failure) => return Ok(Err(failure)),
        };
        let (mut runs, mut doubtful) = (shown.runs.clone(), None::<Failure>);
        let mut confirmed = BTreeSet::new();
        let others = if effort.first.is_some() { OtherClaims::read(self.ctx, effort).await? } else { OtherClaims::default() };
        loop {
            let judged = self.judge(effort, adopt, &runs, &others);
            let (hit, vital) = match &judged {
                Judged::Satisfied(Obtained { run, origin, .. }) => (run.clone(), *origin != Origin::Running),
                Judged::Older(run) => (run.clone(), false),
                Judged::Nothing => return Ok(doubtful.map_or(Ok((judged, shown)), Err)),
            };
            if hit.kind == Kind::Workflow || confirmed.contains(&hit.name) {
                return Ok(Ok((judged, shown)));
            }
            match self.shown(effort, &hit, step).await? {
                // The list gave it another time than the run itself has.
                Ok(Confirmed::Run(run)) if only_listed.contains(&run.name) && effort.is_from_before(&run) => {
                    runs.retain(|known| known.name != run.name);
                }
                Ok(Confirmed::Run(run)) => {
                    confirmed.insert(run.name.clone());
                    runs.iter_mut().filter(|known| known.name == run.name).for_each(|known| known.clone_from(&run));
                }
                Ok(other) => {
                    runs.retain(|run| run.name != hit.name);
                    // The list gives ids, the index names from which an id is taken: there it may have been the wrong part.
                    let foreign = matches!(other, Confirmed::OtherApp) && only_listed.contains(&hit.name);
                    // Should another one be active all the same, the tenant refuses a second.
                    if vital && !foreign {
                        doubtful = Some(unconfirmed(&hit));
                    }
                }
                // This hit alone cannot be read. It hides no other, and is no proof of absence.
                Err(failure) if failure.code == "tenant.unreadable" => {
                    runs.retain(|run| run.name != hit.name);
                    doubtful = Some(failure);
                }
                Err(failure) => return Ok(Err(failure)),
            }
        }
    }

    /// The run of an app that a search shows, as it is now.
    async fn shown(&self, effort: &Effort, hit: &Run, step: &'static str) -> Result<Result<Confirmed, Failure>, ActivityError> {
        let progress = Progress { step, workflow: &effort.workflow };
        let read = alive(self.ctx, &progress, self.tenant.app_run(&hit.name)).await.map_err(|stop| self.stopped(stop, effort))?;
        Ok(read.map(|run| match run {
            None => Confirmed::Unseen,
            Some(run) if run.workflow.as_deref() != Some(effort.workflow.as_str()) => Confirmed::OtherApp,
            Some(run) => {
                let (created_at, hit) = (run.created_at.or(hit.created_at), hit.clone());
                Confirmed::Run(Run { created_at, finished_at: hit.finished_at, creator: hit.creator, ..run })
            }
        }))
    }

    async fn search_runs(
        &self,
        effort: &Effort,
        bound: Option<Timestamp>,
        step: &'static str,
    ) -> Result<Result<Shown, Failure>, ActivityError> {
        let progress = Progress { step, workflow: &effort.workflow };
        self.ctx.heartbeat(&progress);
        let found = async {
            match effort.kind {
                Kind::Workflow => self.tenant.runs_of(&effort.workflow, bound).await,
                Kind::App => self.tenant.app_runs_of(&effort.workflow, bound).await,
            }
        };
        let mut shown = match alive(self.ctx, &progress, found).await.map_err(|stop| self.stopped(stop, effort))? {
            Ok(shown) => shown,
            Err(failure) => return Ok(Err(failure)),
        };
        let mut listed = alive(self.ctx, &progress, self.listed(effort)).await.map_err(|stop| self.stopped(stop, effort))?;
        listed.retain(|run| shown.runs.iter().all(|known| known.name != run.name));
        let only_listed = listed.iter().map(|run| run.name.clone()).collect();
        // The index lags, so what it lacks is newer than what it shows.
        shown.runs.splice(0..0, listed);
        Ok(Ok(Shown { shown, only_listed }))
    }

    /// The runs of an app that the Automation Engine lists and that were created after a submission of ours. Those from before are not
    /// ours, and the search before the submission may not have named them, for it asked the index alone: so the list counts only where
    /// the tenant's clock, on which both times are, is known to the second.
    async fn listed(&self, effort: &Effort) -> Vec<Run> {
        let Some(first) = effort.first.filter(|first| effort.kind == Kind::App && first.is_certain()) else { return Vec::new() };
        let mut listed = self.tenant.automation_runs_of(&effort.workflow, first.tenants).await.unwrap_or_default();
        if contradicts(&listed, self.tenant.between_on_its_clock(self.ctx.now()).1) {
            self.tenant.distrust_automation_runs();
            return Vec::new();
        }
        listed.retain(|run| run.created_at.is_some_and(|created| created >= first.tenants));
        listed
    }

    /// What a list of runs, the newest first, says. `others` is what other jobs of the queue have a claim to.
    fn judge(&self, effort: &Effort, adopt: Adopt, runs: &[Run], others: &OtherClaims) -> Judged {
        let ours = runs.iter().filter(|run| !others.include(self.tenant, run) && self.is_evidence(effort, run));
        // The oldest is the likeliest: what came later may be another queue's.
        if let Some(run) = best(ours.rev()) {
            let because = match effort.already_active {
                Some(_) => APPEARED,
                None if effort.is_by_us(run) => "an earlier submission of this job, whose answer was lost",
                None => "it appeared after a submission of this job whose answer was lost",
            };
            return satisfied(run, Origin::AnswerLost, because.to_owned());
        }
        let now = self.tenant.on_its_clock(self.ctx.now());
        let active = |run: &&Run| is_active(run, now);
        match adopt {
            Adopt::Nothing => Judged::Nothing,
            Adopt::Active => best(runs.iter().filter(active))
                .map_or(Judged::Nothing, |run| satisfied(run, Origin::Running, "it was running already".to_owned())),
            Adopt::Since(since, _) => {
                let bound = SinceBound::new(self.tenant, since, now, runs);
                let (recent, older): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(|run| bound.admits(run));
                let wanted = recent.into_iter().filter(|run| active(run) || run.standing() == Standing::Succeeded);
                match best(wanted) {
                    Some(run) => satisfied(run, Origin::Since, bound.because(run)),
                    None => older.into_iter().find(active).map_or(Judged::Nothing, |run| Judged::Older(run.clone())),
                }
            }
        }
    }

    /// Whether a run can be the effect of a submission of ours. One that was there before cannot, nor one that did nothing, nor one of
    /// somebody else; one without a readable time of creation can, as long as it is active.
    fn is_evidence(&self, effort: &Effort, run: &Run) -> bool {
        effort.first.is_some()
            && !effort.was_there_before(run, self.tenant.settings().clock_tolerance)
            && !run.was_skipped()
            && !effort.is_long_before(run)
            && !effort.is_of_another_user(run)
            && !self.was_active_before(effort, run)
            && (run.created_at.is_some() || run.standing() == Standing::Active)
    }

    /// How far back a search must read.
    fn search_bound(&self, effort: &Effort, adopt: Adopt) -> Option<Timestamp> {
        let since = match adopt {
            Adopt::Since(since, _) => Some(self.tenant.earliest(since)),
            Adopt::Nothing | Adopt::Active => None,
        };
        let evidence = effort.first.map(|first| effort.before_until.unwrap_or_else(|| self.tenant.earliest(first.ours)));
        evidence.into_iter().chain(since).min()
    }
}

/// Whether a run counts as active at this time of the tenant's.
pub(super) fn is_active(run: &Run, now: Timestamp) -> bool {
    match (&run.phase, run.created_at) {
        (None, Some(created)) => now.duration_since(created) < PHASELESS,
        _ => run.standing() == Standing::Active,
    }
}

fn satisfied(run: &Run, origin: Origin, because: String) -> Judged {
    Judged::Satisfied(Obtained { run: run.clone(), origin, because: Some(because) })
}

/// Of several runs that would do: an active one, else one that succeeded, else any; the first of its kind.
fn best<'a>(runs: impl Iterator<Item = &'a Run>) -> Option<&'a Run> {
    runs.min_by_key(|run| match run.standing() {
        Standing::Active => 0,
        Standing::Succeeded => 1,
        Standing::Ended => 2,
    })
}

fn unconfirmed(hit: &Run) -> Failure {
    let message = format!("a search shows run {}, but the tenant does not show that run of that app", hit.name);
    Failure::new("run.unconfirmed", Category::DataIntegrity, message).with_retryable(true)
}
