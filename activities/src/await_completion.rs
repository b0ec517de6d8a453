//! `await_completion`: waits until one run of a workflow or app is at its end, and says how it ended.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::activity::{Activity, ActivityError, ActivityOptions, CancelPlan, InputError, SlotClass, Timeouts};
use crate::context::ActivityContext;
use crate::duration;
use crate::follow::{Follow, OnCancel, Waiting, conclude, continues, deadline, with_the_tenants_words};
use crate::inputs::{check_name, check_run_id, check_timeout, one_day};
use crate::tenant::{Kind, Tenants};
use crate::verdict::Verdict;

/// Waits for one workflow run: that one, not the newest of its workflow.
///
/// Repeat story: it only looks, and its deadline is saved at the first attempt, so a second attempt goes on where the first one was.
/// The one effect, asking the run to stop when the job is cancelled, may be asked twice without harm.
pub struct AwaitCompletion {
    tenants: Arc<Tenants>,
}

/// What `await_completion` takes: exactly one of `run` and `app_run`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwaitCompletionInput {
    /// The name of a workflow run, as in `atlan-snowflake-1684500411-t7s8b`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The id of a run of a native app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_run: Option<String>,
    /// How long to wait in all, from the first attempt on.
    #[serde(default = "one_day", with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// About how long to wait between two looks, a quarter more or less; less while the run is young. By default the tenant's setting,
    /// and more for a run that is hours old.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub poll_interval: Option<Duration>,
    /// Whether cancelling the job asks the tenant to stop the run.
    #[serde(default)]
    pub stop_on_cancel: bool,
}

impl AwaitCompletion {
    /// Waits at these tenants.
    pub fn new(tenants: Arc<Tenants>) -> Self {
        Self { tenants }
    }
}

impl Activity for AwaitCompletion {
    const NAME: &'static str = "await_completion";
    type Input = AwaitCompletionInput;

    fn options(input: &Self::Input) -> ActivityOptions {
        waits(input.timeout)
    }

    fn validate(input: &Self::Input) -> Result<(), InputError> {
        match (&input.run, &input.app_run) {
            (Some(run), None) => check_name("run", run)?,
            (None, Some(run)) => check_run_id("app_run", run)?,
            _ => return Err(InputError::new("run", "exactly one of `run` and `app_run` must be given")),
        }
        if input.poll_interval.is_some_and(|interval| interval < Duration::from_millis(100)) {
            return Err(InputError::new("poll_interval", "must be at least 100ms"));
        }
        check_timeout(input.timeout)
    }

    /// There is a checkpoint once it has been looked for, so it may be running.
    fn on_cancel(tenant: &str, input: &Self::Input, _: &Value) -> CancelPlan {
        if input.stop_on_cancel {
            return CancelPlan::Undo;
        }
        let run = input.run.as_ref().or(input.app_run.as_ref()).map_or("", String::as_str);
        let facts = Map::from_iter([("run".to_owned(), json!(run)), ("stop_requested".to_owned(), json!(false))]);
        CancelPlan::Close { message: Some(continues(tenant, run, "")), facts }
    }

    async fn run(&self, ctx: &ActivityContext, input: Self::Input) -> Result<Verdict, ActivityError> {
        let tenant = self.tenants.get(ctx.tenant())?;
        let (kind, run) = match (&input.run, &input.app_run) {
            (_, Some(id)) => (Kind::App, id.as_str()),
            (run, None) => (Kind::Workflow, run.as_deref().unwrap_or_default()),
        };
        tenant.should_have(kind)?;
        let resumed = ctx.attempt().checkpoint.is_some();
        let deadline = saved_deadline(ctx, input.timeout).await?;
        let on_cancel = if input.stop_on_cancel { OnCancel::Stop } else { OnCancel::Leave };
        let (poll_interval, named_by_tenant) = (input.poll_interval, false);
        let (tenant, workflow, started_by) = (&*tenant, None, None);
        let follow =
            Follow { tenant, kind, run, workflow, started_by, deadline, poll_interval, on_cancel, named_by_tenant, resumed };
        let run = follow.to_its_end(ctx).await?;
        Ok(conclude(&with_the_tenants_words(ctx, tenant, run).await))
    }
}

/// The options of a job that waits up to `timeout`.
pub(crate) fn waits(timeout: Duration) -> ActivityOptions {
    ActivityOptions {
        slot_class: SlotClass::Waits,
        timeouts: Timeouts {
            start_to_close: timeout.saturating_add(Duration::from_secs(600)),
            schedule_to_close: Some(timeout.saturating_add(Duration::from_secs(3600))),
            heartbeat: Some(Duration::from_secs(120)),
            ..Timeouts::default()
        },
        ..ActivityOptions::default()
    }
}

async fn saved_deadline(ctx: &ActivityContext, timeout: Duration) -> Result<jiff::Timestamp, ActivityError> {
    if let Some(Waiting { deadline }) = ctx.checkpoint()? {
        return Ok(deadline);
    }
    let deadline = deadline(ctx, timeout);
    ctx.save(&Waiting { deadline }).await?;
    Ok(deadline)
}

#[cfg(test)]
mod tests;
