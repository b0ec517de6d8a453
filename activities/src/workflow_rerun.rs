//! `workflow_rerun`: one run of a workflow that the tenant has, and its end.

mod input;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::activity::{Activity, ActivityError, ActivityOptions, InputError, Timeouts};
use crate::await_completion::{native_is_absent, waits};
use crate::context::ActivityContext;
use crate::failure::{Category, Failure};
use crate::follow::{Follow, OnCancel, alive, command, conclude, deadline, facts};
use crate::submission::{Adopt, Effort, Obtained, Origin, Rules, Submitter};
use crate::tenant::{Generation, Run, Standing, Tenant, Tenants, Workflow, find_command, package_name, where_to_look};
use crate::text::clip;
use crate::timestamp;
use crate::verdict::Verdict;

pub use input::{Pick, Until, WorkflowRerunInput};

/// How many of several matching workflows are listed.
const LISTED: usize = 10;

/// Runs a workflow again and, by default, waits for the run to end.
///
/// Repeat story: the intent to submit is saved before the request leaves, and the run that an answer names is saved after it. An
/// attempt that finds an intent without an answer searches the tenant's runs instead of submitting: a run created at or after the
/// intent is adopted, and only a search that was answered `reconcile_window` after the intent and shows none allows another
/// submission. The limit: a tenant whose index shows a run later than that can be made to run twice, unless `unknown_fate` is `fail`.
pub struct WorkflowRerun {
    tenants: Arc<Tenants>,
}

/// What outlives an attempt.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    /// When the first attempt began.
    #[serde(with = "timestamp")]
    begun: Timestamp,
    #[serde(with = "timestamp")]
    deadline: Timestamp,
    /// None until the workflow is known and something was submitted or found.
    effort: Option<Effort>,
}

impl WorkflowRerun {
    /// Runs workflows of these tenants.
    pub fn new(tenants: Arc<Tenants>) -> Self {
        Self { tenants }
    }
}

impl Activity for WorkflowRerun {
    const NAME: &'static str = "workflow_rerun";
    type Input = WorkflowRerunInput;

    fn options(input: &Self::Input) -> ActivityOptions {
        if input.waits() {
            return waits(input.timeout);
        }
        ActivityOptions {
            timeouts: Timeouts {
                start_to_close: Duration::from_secs(300),
                schedule_to_close: Some(Duration::from_secs(6 * 3600)),
                ..Timeouts::default()
            },
            ..ActivityOptions::default()
        }
    }

    fn validate(input: &Self::Input) -> Result<(), InputError> {
        input.check()
    }

    async fn run(&self, ctx: &ActivityContext, input: Self::Input) -> Result<Verdict, ActivityError> {
        let tenant = self.tenants.get(ctx.tenant())?;
        check_generation(&tenant, &input)?;
        let Checkpoint { begun, deadline, effort } = begin(ctx, &input).await?;
        let mut effort = match effort {
            Some(effort) => effort,
            None => Effort::new(&alive(ctx, &"finding the workflow", resolve(ctx, &tenant, &input)).await??),
        };
        let checkpoint = |effort: &Effort| json!(Checkpoint { begun, deadline, effort: Some(effort.clone()) });
        let again = input.words();
        let rules = Rules { adopt: adopt(&input), unknown_fate: input.unknown_fate, deadline, begun, again: &again };
        let obtained = Submitter { ctx, tenant: &tenant, rules, checkpoint: &checkpoint }.obtain(&mut effort).await?;
        finish(ctx, &tenant, &input, deadline, obtained).await
    }
}

/// Awaits the run, if that is asked for and it is not at its end yet, and concludes.
async fn finish(
    ctx: &ActivityContext,
    tenant: &Tenant,
    input: &WorkflowRerunInput,
    deadline: Timestamp,
    obtained: Obtained,
) -> Result<Verdict, ActivityError> {
    let Obtained { run, origin } = obtained;
    let told = |verdict| told(verdict, origin, input.since);
    if run.standing() != Standing::Active {
        return Ok(told(conclude(&run)));
    }
    if input.until == Until::Submitted {
        let verdict = Verdict::passed(format!("run {} is active; its outcome was not awaited", run.name));
        let verdict = facts(&run).into_iter().fold(verdict, |verdict, (name, value)| verdict.fact(&name, value));
        return Ok(told(verdict));
    }
    let started = origin == Origin::Started;
    let on_cancel = match (input.stop_on_cancel, started) {
        (false, _) => OnCancel::Leave,
        (true, true) => OnCancel::Stop,
        (true, false) => OnCancel::LeaveOthers,
    };
    let follow = Follow { tenant, run: &run.name, deadline, poll_interval: None, on_cancel, named_by_tenant: true };
    let ended = follow.to_its_end(ctx).await.map_err(|error| with_facts(error, &run, started))?;
    Ok(told(conclude(&ended)))
}

/// Adds what every verdict of a rerun says of how its run came about.
fn told(mut verdict: Verdict, origin: Origin, since: Option<Timestamp>) -> Verdict {
    let adopted = match origin {
        Origin::Started => None,
        Origin::Running => Some("it was running already".to_owned()),
        Origin::Since => Some(format!("it was created since {}", since.map(timestamp::format).unwrap_or_default())),
        Origin::AnswerLost => Some("an earlier submission of this job whose answer was lost".to_owned()),
    };
    if let Some(adopted) = adopted {
        verdict.message = clip(format!("{} (adopted: {adopted})", verdict.message));
    }
    verdict.fact("started", origin == Origin::Started).fact("generation", "argo")
}

/// The same for an end without a verdict. What is known already, the last phase above all, stays.
fn with_facts(mut error: ActivityError, run: &Run, started: bool) -> ActivityError {
    let known = match &mut error {
        ActivityError::Failed(failure) => &mut failure.facts,
        ActivityError::Cancelled { facts, .. } => facts,
        ActivityError::Interrupted => return error,
    };
    let mut all: Map<String, Value> = facts(run);
    all.extend([("started".to_owned(), json!(started)), ("generation".to_owned(), json!("argo"))]);
    all.append(known);
    *known = all;
    error
}

async fn begin(ctx: &ActivityContext, input: &WorkflowRerunInput) -> Result<Checkpoint, ActivityError> {
    if let Some(checkpoint) = ctx.checkpoint()? {
        return Ok(checkpoint);
    }
    let checkpoint = Checkpoint { begun: ctx.now(), deadline: deadline(ctx, input.timeout), effort: None };
    ctx.save(&checkpoint).await?;
    Ok(checkpoint)
}

fn adopt(input: &WorkflowRerunInput) -> Adopt {
    match input.since {
        Some(since) => Adopt::Since(since, input.older),
        None if input.idempotent => Adopt::Active,
        None => Adopt::Nothing,
    }
}

fn check_generation(tenant: &Tenant, input: &WorkflowRerunInput) -> Result<(), Failure> {
    let unsupported = |message| Err(Failure::new("generation.unsupported", Category::Unimplemented, message));
    match (tenant.settings().generation, input.app.is_some()) {
        (Generation::Argo, true) => {
            unsupported(format!("tenant `{}` is set to argo and has no apps; give `workflow` or `type`", tenant.name()))
        }
        (_, true) => Err(native_is_absent("app")),
        (Generation::Native, false) => {
            unsupported(format!("tenant `{}` is set to native and has no workflows; give `app`", tenant.name()))
        }
        (Generation::Auto | Generation::Argo, false) => Ok(()),
    }
}

/// The name of the one workflow that is meant.
async fn resolve(ctx: &ActivityContext, tenant: &Tenant, input: &WorkflowRerunInput) -> Result<String, Failure> {
    if let Some(name) = &input.workflow {
        let found = tenant.workflow(name).await?;
        return found.map(|workflow| workflow.name).ok_or_else(|| {
            let message = format!("tenant `{}` has no workflow named {name}", tenant.name());
            Failure::new("workflow.not_found", Category::NotFound, message).suggest(where_to_look(tenant.name(), name))
        });
    }
    let package = package_name(input.package.as_deref().unwrap_or_default());
    let mut found = tenant.workflows_of_package(&package).await?;
    found.sort_by_key(|workflow| std::cmp::Reverse(workflow.created_at));
    match found.as_slice() {
        [only] => Ok(only.name.clone()),
        [newest, ..] if input.pick == Pick::Newest => Ok(newest.name.clone()),
        [] => {
            let message = format!("tenant `{}` has no workflow of type {package}", tenant.name());
            Err(Failure::new("workflow.not_found", Category::NotFound, message).suggest(find_command(tenant.name(), &package)))
        }
        several => Err(ambiguous(ctx, input, &package, several)),
    }
}

fn ambiguous(ctx: &ActivityContext, input: &WorkflowRerunInput, package: &str, several: &[Workflow]) -> Failure {
    let listed = &several[..several.len().min(LISTED)];
    let names: Vec<_> = listed.iter().map(|workflow| workflow.name.as_str()).collect();
    let message = format!("{} workflows are of type {package}; the newest: {}", several.len(), names.join(", "));
    let facts: Vec<_> = listed
        .iter()
        .map(|workflow| json!({"workflow": workflow.name, "created_at": workflow.created_at.map(timestamp::format)}))
        .collect();
    let newest =
        WorkflowRerunInput { workflow: several.first().map(|workflow| workflow.name.clone()), package: None, ..input.clone() };
    let since = input.since.map(|since| format!(" since={}", timestamp::format(since))).unwrap_or_default();
    Failure::new("workflow.ambiguous", Category::Precondition, message)
        .suggest(command(ctx, &format!("{}{since}", newest.words())))
        .fact("workflows", facts)
}

#[cfg(test)]
mod tests;
