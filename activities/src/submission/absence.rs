//! When a search that shows no run is proof that there is none. One that hides hits, or shows some that cannot be read, is no proof.

use super::evidence::is_active;
use super::{Adopt, Effort, Submitter, explain};
use crate::failure::{Category, Failure};
use crate::follow::runs_command;
use crate::tenant::{Kind, Nameless, Run, RunsShown, Standing};
use crate::timestamp;

impl Submitter<'_> {
    /// Why there may be a run that satisfies the effort although a search shows none, in words; None: there is none.
    pub(super) fn doubt(&self, effort: &Effort, adopt: Adopt, shown: &RunsShown) -> Option<String> {
        if effort.first.is_none() && adopt == Adopt::Nothing {
            return None;
        }
        if !shown.reaches {
            return Some("a search does not show all runs that it counts".to_owned());
        }
        if let Some(run) = shown.runs.iter().find(|run| effort.contradicts_names(run)) {
            let created = run.created_at.map(timestamp::format).unwrap_or_default();
            return Some(format!("run {} was not shown before, but is said to be created at {created}", run.name));
        }
        let in_question = |run: &Run| self.may_be_evidence(effort, run) || self.may_satisfy(adopt, run);
        shown.nameless.iter().find(|hit| in_question(&hit.run)).map(Nameless::describe)
    }

    /// Whether a run without a name may be the effect of a submission of ours. No name tells it from those that were there before, so
    /// its time does, where it has one.
    fn may_be_evidence(&self, effort: &Effort, run: &Run) -> bool {
        let Some(first) = effort.first else { return false };
        let earliest = self.tenant.earliest(first.ours).min(first.tenants);
        run.created_at.is_none_or(|created| created >= earliest) && !run.was_skipped() && !effort.is_of_another_user(run)
    }

    /// Whether a run without a name may satisfy the effort as `adopt` says. One of an app whose name is only no id is like one that the
    /// tenant does not show: should it be active all the same, the tenant refuses a second.
    fn may_satisfy(&self, adopt: Adopt, run: &Run) -> bool {
        if run.kind == Kind::App && run.workflow.is_some() {
            return false;
        }
        let active = is_active(run, self.tenant.on_its_clock(self.ctx.now()));
        match adopt {
            Adopt::Nothing => false,
            Adopt::Active => active,
            Adopt::Since(since, _) => {
                let recent = run.created_at.is_none_or(|created| created >= self.tenant.earliest(since));
                active || recent && run.standing() == Standing::Succeeded
            }
        }
    }

    /// The failure that such a search is where only its proof allows to go on.
    pub(super) fn no_proof(&self, effort: &Effort, doubt: &str) -> Failure {
        let (tenant, workflow) = (self.tenant.name(), &effort.workflow);
        let message = format!("tenant `{tenant}` does not show which runs of {workflow} there are: {doubt}");
        let failure = Failure::new("tenant.unreadable", Category::DependencyUnavailable, message).with_retryable(true);
        let look = runs_command(self.ctx.tenant(), effort.kind, workflow);
        explain(failure.suggest(format!("see `{look}`; idempotent=false without since= submits whatever runs there are")), effort)
    }
}
