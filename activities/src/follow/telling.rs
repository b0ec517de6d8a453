//! What is told of a run: the verdict that its end is, its facts, and the commands that go on with it.

use serde_json::{Map, Value, json};

use crate::context::ActivityContext;
use crate::tenant::{Kind, Run, Standing, Tenant};
use crate::text::shell_word;
use crate::timestamp;
use crate::verdict::Verdict;

/// A run of an app that ended badly shows its status alone. What went wrong is asked for once, and a verdict does without where the
/// tenant does not say.
pub(crate) async fn with_the_tenants_words(ctx: &ActivityContext, tenant: &Tenant, run: Run) -> Run {
    if run.kind == Kind::Workflow || run.standing() != Standing::Ended {
        return run;
    }
    match ctx.unless_stopped(tenant.app_run_message(&run.name)).await {
        Ok(Ok(message)) => Run { message, ..run },
        Ok(Err(failure)) => {
            tracing::info!(run = run.name, code = %failure.code, "the tenant did not say why the run ended so");
            run
        }
        Err(_) => run,
    }
}

/// The verdict that the end of a run is.
pub(crate) fn conclude(run: &Run) -> Verdict {
    let phase = run.phase.as_deref().unwrap_or("unknown");
    let verdict = if run.standing() == Standing::Succeeded {
        Verdict::passed(format!("run {} succeeded", run.name))
    } else {
        let said = run.message.as_deref().map(|said| format!(": {said}")).unwrap_or_default();
        Verdict::failed(format!("run {} ended as {phase}{said}", run.name))
    };
    facts(run).into_iter().fold(verdict, |verdict, (name, value)| verdict.fact(&name, value))
}

/// What there is to say about a run, in every verdict alike.
pub(crate) fn facts(run: &Run) -> Map<String, Value> {
    Map::from_iter([
        ("workflow".to_owned(), json!(run.workflow)),
        ("run".to_owned(), json!(run.name)),
        ("phase".to_owned(), json!(run.phase)),
        ("created_at".to_owned(), json!(run.created_at.map(timestamp::format))),
        ("creator".to_owned(), json!(run.creator)),
        ("generation".to_owned(), json!(run.kind.generation())),
    ])
}

/// The command that waits for a run again.
pub(crate) fn resume(ctx: &ActivityContext, kind: Kind, run: &str) -> String {
    let field = match kind {
        Kind::Workflow => "run",
        Kind::App => "app_run",
    };
    command(ctx, &format!("await_completion {} timeout=24h", shell_word(&format!("{field}={run}"))))
}

/// A command that executes an activity on this tenant. The words are quoted already.
pub(crate) fn command(ctx: &ActivityContext, words: &str) -> String {
    on_tenant(ctx.tenant(), format!("iolaus execute {words}"))
}

/// The command that lists the runs of a workflow or app.
pub(crate) fn runs_command(tenant: &str, kind: Kind, workflow: &str) -> String {
    on_tenant(tenant, format!("iolaus runs list --{} {}", kind.noun(), shell_word(workflow)))
}

/// The command that stops a run.
pub(crate) fn stop_command(tenant: &str, run: &str) -> String {
    on_tenant(tenant, format!("iolaus runs stop {}", shell_word(run)))
}

/// The command that finds API tokens by their display name.
pub(crate) fn tokens_command(tenant: &str, name: &str) -> String {
    on_tenant(tenant, format!("iolaus tokens find {}", shell_word(name)))
}

fn on_tenant(tenant: &str, command: String) -> String {
    if tenant == "default" { command } else { format!("{command} --tenant {}", shell_word(tenant)) }
}
