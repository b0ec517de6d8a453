//! `workflow_rerun`: one run of a workflow or app that the tenant has, and its end.

mod input;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::activity::{Activity, ActivityError, ActivityOptions, CancelPlan, InputError, Timeouts};
use crate::await_completion::waits;
use crate::context::ActivityContext;
use crate::failure::{Category, Failure};
use crate::follow::{Follow, OnCancel, alive, command, conclude, deadline, facts, with_the_tenants_words};
use crate::submission::{Adopt, Effort, Obtained, Origin, Rules, Submitter, is_misnamed};
use crate::tenant::{Kind, Run, Standing, Tenant, Tenants, Workflow, find_command, is_absence, package_name, where_to_look};
use crate::text::clip;
use crate::timestamp;
use crate::verdict::Verdict;

pub use input::{Pick, Until, WorkflowRerunInput};

/// How often a run may turn out to have been skipped in favour of another one.
const MOST_SKIPPED: u32 = 3;
/// How many of several matching workflows are listed.
const LISTED: usize = 10;

/// Runs a workflow or an app again and, by default, waits for the run to end.
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

    fn on_cancel(tenant: &str, input: &Self::Input, checkpoint: &Value) -> CancelPlan {
        let effort = serde_json::from_value::<Checkpoint>(checkpoint.clone()).ok().and_then(|checkpoint| checkpoint.effort);
        effort.map_or_else(CancelPlan::default, |effort| effort.on_cancel(tenant, input.stop_on_cancel))
    }

    async fn run(&self, ctx: &ActivityContext, input: Self::Input) -> Result<Verdict, ActivityError> {
        let tenant = self.tenants.get(ctx.tenant())?;
        let kind = input.kind();
        tenant.should_have(kind)?;
        let Checkpoint { begun, deadline, effort } = begin(ctx, &input).await?;
        let mut effort = match effort {
            Some(effort) => effort,
            None => Effort::new(kind, &alive(ctx, &"finding what to run", resolve(ctx, &tenant, &input)).await??),
        };
        let checkpoint = |effort: &Effort| json!(Checkpoint { begun, deadline, effort: Some(effort.clone()) });
        let again = input.words();
        let rules = Rules { adopt: adopt(&input), unknown_fate: input.unknown_fate, deadline, begun, again: &again };
        let submitter = Submitter { ctx, tenant: &tenant, rules, checkpoint: &checkpoint };
        finish(&submitter, &input, &mut effort).await
    }
}

/// Obtains a run, awaits it if that is asked for, and concludes. A run that was skipped did nothing, so that as long as another one
/// satisfies the job, that one is gone by.
async fn finish(submitter: &Submitter<'_>, input: &WorkflowRerunInput, effort: &mut Effort) -> Result<Verdict, ActivityError> {
    let mut obtained = submitter.obtain(effort).await?;
    for _ in 0..MOST_SKIPPED {
        let run = match ended_or_submitted(submitter, input, effort, &obtained).await {
            Err(ActivityError::Failed(failure)) if obtained.origin == Origin::Started && is_misnamed(&failure) => {
                let ours = submitter.instead_of_misnamed(effort, &obtained.run).await?;
                obtained = ours.ok_or(failure)?;
                continue;
            }
            ended => ended?,
        };
        if run.was_skipped()
            && let Some(other) = submitter.instead_of(effort, &run).await?
        {
            obtained = other;
            continue;
        }
        let verdict = if run.standing() == Standing::Active {
            let verdict = Verdict::passed(format!("run {} is active; its outcome was not awaited", run.name));
            facts(&run).into_iter().fold(verdict, |verdict, (name, value)| verdict.fact(&name, value))
        } else {
            conclude(&with_the_tenants_words(submitter.ctx, submitter.tenant, run).await)
        };
        return Ok(told(verdict, &obtained));
    }
    let message = format!("every run of {} is skipped, although another one is active", effort.workflow);
    Err(Failure::new("run.skipped", Category::DataIntegrity, message).with_retryable(true).into())
}

/// The run at its end or, if that is not awaited, as it is.
async fn ended_or_submitted(
    submitter: &Submitter<'_>,
    input: &WorkflowRerunInput,
    effort: &Effort,
    obtained: &Obtained,
) -> Result<Run, ActivityError> {
    let (ctx, tenant, Obtained { run, origin, .. }) = (submitter.ctx, submitter.tenant, obtained);
    let started = *origin == Origin::Started;
    if run.standing() != Standing::Active {
        return Ok(run.clone());
    }
    if input.until == Until::Submitted {
        if run.kind == Kind::Workflow || !started {
            return Ok(run.clone());
        }
        // The answer to a submission names a run of an app, and does not say whether it will do anything.
        let now = alive(ctx, &"looking at the run", tenant.run_of_app(&run.name, run.workflow.as_deref()))
            .await?
            .map_err(|failure| with_facts(failure.into(), run, started))?;
        return Ok(now.unwrap_or_else(|| run.clone()));
    }
    let on_cancel = match (input.stop_on_cancel, started) {
        (false, _) => OnCancel::Leave,
        (true, true) => OnCancel::Stop,
        (true, false) => OnCancel::LeaveOthers,
    };
    let started_by = effort.user.as_ref().filter(|_| started && run.kind == Kind::Workflow);
    let follow = Follow { started_by, ..Follow::of(tenant, run, submitter.rules.deadline, on_cancel) };
    follow.to_its_end(ctx).await.map_err(|error| with_facts(error, run, started))
}

/// Adds what every verdict of a rerun says of how its run came about.
fn told(mut verdict: Verdict, obtained: &Obtained) -> Verdict {
    if obtained.origin != Origin::Started {
        // Earlier versions stored no reason.
        let because = obtained.because.as_deref().unwrap_or("no answer to this job named it");
        verdict.message = clip(format!("{} (adopted: {because})", verdict.message));
    }
    verdict.fact("started", obtained.origin == Origin::Started)
}

/// The same for an end without a verdict. What is known already, the last phase above all, stays.
fn with_facts(mut error: ActivityError, run: &Run, started: bool) -> ActivityError {
    let known = match &mut error {
        ActivityError::Failed(failure) => &mut failure.facts,
        ActivityError::Cancelled { facts, .. } => facts,
        ActivityError::Interrupted => return error,
    };
    let mut all: Map<String, Value> = facts(run);
    all.insert("started".to_owned(), json!(started));
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

/// What is to be run: the name of the one workflow that is meant, or the slug of the app.
async fn resolve(ctx: &ActivityContext, tenant: &Tenant, input: &WorkflowRerunInput) -> Result<String, Failure> {
    if let Some(slug) = &input.app {
        if tenant.has_app(slug).await? {
            return Ok(slug.clone());
        }
        let message = format!("tenant `{}` has no app of the slug {slug}", tenant.name());
        return Err(Failure::new("app.not_found", Category::NotFound, message).suggest(where_to_look(tenant.name(), slug)));
    }
    let found = named_or_of_type(ctx, tenant, input).await;
    found.map_err(|failure| if is_absence(&failure) { tenant.lacks(Kind::Workflow, failure) } else { failure })
}

/// The name of the one workflow that is meant.
async fn named_or_of_type(ctx: &ActivityContext, tenant: &Tenant, input: &WorkflowRerunInput) -> Result<String, Failure> {
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
