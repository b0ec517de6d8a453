//! The grant by the package: a workflow is created for it and submitted, its run is followed, and the connection is read back.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Grant, LONGEST, Method, Progress, Way};
use crate::activity::ActivityError;
use crate::failure::{Category, Failure};
use crate::follow::{Follow, OnCancel, alive};
use crate::submission::UnknownFate;
use crate::submission::{Adopt, Created, Effort, Obtained, Rules, Submitter};
use crate::tenant::{Connection, Kind, Run, Standing, TOKEN_ADMIN_PACKAGE, token_admin_name, token_admin_workflow};
use crate::text::clip;
use crate::verdict::Verdict;

/// What a run of the package ended as.
const RUN_SUCCEEDED: &str = "PackageRunSucceeded";
/// The code of a failure to create a workflow of a package that the tenant does not have.
pub(super) const ABSENT: &str = "grant.package_absent";
/// How many seconds are tried for a name that is free.
const MOST_NAMES: i64 = 60;

/// How far the workflow and its run are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Creating {
    /// Whether the workflow is known to be there. It stands under the name that the effort says.
    pub(super) created: bool,
    pub(super) effort: Effort,
}

impl Creating {
    /// What is known of workflow and run.
    pub(super) fn facts(&self) -> Map<String, Value> {
        let run = self.effort.obtained().map(|obtained| &obtained.run);
        Map::from_iter([
            ("workflow".to_owned(), json!(self.effort.workflow)),
            ("run".to_owned(), json!(run.map(|run| &run.name))),
            ("phase".to_owned(), json!(run.and_then(|run| run.phase.as_deref()))),
        ])
    }
}

impl Grant<'_> {
    pub(super) async fn by_package(&self, mut creating: Creating) -> Result<Verdict, ActivityError> {
        let Obtained { run, .. } = self.obtain(&mut creating).await.map_err(|error| self.explained(error))?;
        let run = self.followed(run).await.map_err(|error| self.explained(error))?;
        let connection = self.read_back().await?;
        let mut verdict = self.concluded(&run, &connection, creating);
        verdict.facts.extend([
            ("workflow".to_owned(), json!(run.workflow)),
            ("run".to_owned(), json!(run.name)),
            ("phase".to_owned(), json!(run.phase)),
        ]);
        Ok(verdict)
    }

    fn concluded(&self, run: &Run, connection: &Connection, creating: Creating) -> Verdict {
        let (user, name) = (&self.user, &connection.qualified_name);
        let said = run.message.as_deref().map(|said| format!(": {said}")).unwrap_or_default();
        let ended = format!("run {} ended as {}{said}", run.name, run.phase.as_deref().unwrap_or("unknown"));
        let succeeded = run.standing() == Standing::Succeeded;
        if self.is_seen(connection) {
            let mut verdict = self.seen(connection, &Way::Package(Box::new(creating)));
            if !succeeded {
                verdict.message = clip(format!("{}, although {ended}", verdict.message));
            }
            return verdict;
        }
        let message = if succeeded {
            let hint = "the package succeeds even when it may not save, so whoever runs it must be an admin of the connection";
            format!("run {} succeeded, but {user} is not among the admins of {name}: {hint}", run.name)
        } else {
            format!("{user} is not among the admins of {name}: {ended}")
        };
        self.verdict(false, message, connection, Some("package")).check(RUN_SUCCEEDED, succeeded)
    }

    /// A run of a workflow of ours, which is created for it.
    async fn obtain(&self, creating: &mut Creating) -> Result<Obtained, ActivityError> {
        let again = self.again(self.input.method);
        while !creating.created {
            let name = creating.effort.workflow.clone();
            let workflow = token_admin_workflow(&name, &self.input.connection_qualified_name, &self.token);
            let checkpoint = |effort: &Effort| self.state(false, effort);
            let submitter = Submitter { ctx: self.ctx, tenant: self.tenant, rules: self.rules(&again), checkpoint: &checkpoint };
            match submitter.create(&mut creating.effort, &workflow).await? {
                Created::Ours => {
                    creating.created = true;
                    self.save(Way::Package(Box::new(creating.clone()))).await?;
                }
                Created::Taken => creating.effort = Effort::new(Kind::Workflow, &self.free_name(Some(&name)).await?),
            }
        }
        let checkpoint = |effort: &Effort| self.state(true, effort);
        let submitter = Submitter { ctx: self.ctx, tenant: self.tenant, rules: self.rules(&again), checkpoint: &checkpoint };
        submitter.obtain(&mut creating.effort).await
    }

    /// Any run of a workflow that was created for this grant is its effect, so there is nothing to adopt.
    fn rules<'a>(&self, again: &'a str) -> Rules<'a> {
        let deadline = self.begun.checked_add(LONGEST).unwrap_or(jiff::Timestamp::MAX);
        Rules { adopt: Adopt::Nothing, unknown_fate: UnknownFate::Resend, deadline, begun: self.begun, again }
    }

    fn state(&self, created: bool, effort: &Effort) -> Value {
        json!(self.checkpoint(Way::Package(Box::new(Creating { created, effort: effort.clone() }))))
    }

    async fn followed(&self, run: Run) -> Result<Run, ActivityError> {
        if run.standing() != Standing::Active {
            return Ok(run);
        }
        let deadline = self.rules("").deadline;
        let on_cancel = OnCancel::Leave;
        Follow::of(self.tenant, &run, deadline, on_cancel).to_its_end(self.ctx).await
    }

    /// The name of a workflow that the tenant's index does not show: for this second of its clock, or the next one that is free. After
    /// a name that is `taken`, whatever the index shows, for a later second.
    pub(super) async fn free_name(&self, taken: Option<&str>) -> Result<String, ActivityError> {
        let now = self.tenant.on_its_clock(self.ctx.now()).as_second();
        let after = taken.and_then(|taken| taken.rsplit('-').next()?.parse::<i64>().ok());
        let first = after.map_or(now, |after| now.max(after.saturating_add(1)));
        let progress = Progress { step: "choosing a name", connection: &self.input.connection_qualified_name };
        for second in first..first.saturating_add(MOST_NAMES) {
            let name = token_admin_name(second);
            if alive(self.ctx, &progress, self.tenant.workflow(&name)).await??.is_none() {
                return Ok(name);
            }
        }
        let message = format!("workflows of {TOKEN_ADMIN_PACKAGE} stand under the names of the next {MOST_NAMES} seconds");
        Err(Failure::new("grant.names_taken", Category::Precondition, message).with_retryable(true).into())
    }

    /// Failures of creating and submitting, in the words of a grant.
    fn explained(&self, error: ActivityError) -> ActivityError {
        let ActivityError::Failed(failure) = error else { return error };
        let operation = failure.source.operation.as_deref();
        let failure = match failure.code.as_ref() {
            "rerun.ambiguous" => {
                let message = failure.message.clone();
                let known = Failure { suggested_action: None, ..failure };
                // Unlike a rerun it may simply be asked for again: whoever is an admin already is left alone.
                Failure { code: "grant.ambiguous".into(), message, ..known }.suggest(self.again(self.input.method))
            }
            "tenant.not_found" if operation == Some("workflows.create") => {
                let message = format!("the tenant does not have the package {TOKEN_ADMIN_PACKAGE}: {}", failure.message);
                Failure { code: ABSENT.into(), message: clip(message), ..failure }.suggest(self.again(Method::Direct))
            }
            // Asking again reads the connection first, which is more than waiting for the run would tell.
            "wait.timed_out" | "run.not_found" => failure.suggest(self.again(self.input.method)),
            _ => self.permitted(failure),
        };
        failure.into()
    }
}
