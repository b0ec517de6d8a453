//! Whether a run that is followed is the one that was started. An answer can name another one, and only what the tenant shows of it later
//! says so; such a run is not followed on, and never stopped.

use super::{Follow, Seen, runs_command};
use crate::context::ActivityContext;
use crate::failure::{Category, Failure};
use crate::tenant::{Kind, Run, StopError};

impl Follow<'_> {
    /// Why a run that is shown cannot be the one that was started, in words.
    pub(super) fn contradiction(&self, run: &Run) -> Option<String> {
        if let Some((of, shown)) = self.workflow.zip(run.workflow.as_deref()).filter(|(of, shown)| of != shown) {
            return Some(format!("is a run of {shown}, not of {of}"));
        }
        let creator = run.creator.as_deref().filter(|by| self.started_by.is_some_and(|user| user.is_not(by)))?;
        Some(format!("was created by {creator}, not by us"))
    }

    pub(super) fn not_ours(&self, ctx: &ActivityContext, why: &str, seen: &Seen) -> Failure {
        let message = format!("run {}, which the tenant named, {why}; it is neither followed nor stopped", self.run);
        let failure = Failure::new("run.unconfirmed", Category::DataIntegrity, message).with_retryable(false);
        let look = self.workflow.map(|workflow| format!("see `{}`", runs_command(ctx.tenant(), self.kind, workflow)));
        self.explain(failure.suggest(look.unwrap_or_default()), seen)
    }

    /// Asks the tenant to stop the run. One that no look has shown yet may turn out to be another one than the answer promised.
    pub(super) async fn stop_run(&self, ctx: &ActivityContext, seen: &Seen) -> Result<(), StopError> {
        if self.workflow.is_some() && seen.run.is_none() {
            let shown = match self.kind {
                Kind::Workflow => self.tenant.look_alone(self.run).await,
                Kind::App => self.tenant.app_run(self.run).await,
            };
            if let Some(why) = shown.ok().flatten().and_then(|run| self.contradiction(&run)) {
                return Err(StopError::NotAsked(self.not_ours(ctx, &why, seen)));
            }
        }
        match self.kind {
            Kind::Workflow => self.tenant.stop_run(self.run).await,
            Kind::App => self.tenant.cancel_app_run(self.run).await,
        }
    }
}
