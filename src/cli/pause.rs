//! `iolaus pause` and `iolaus resume`: stored, for all workers.

use clap::{Args, Subcommand};
use iolaus_activities::shell_word;

use super::App;
use super::exit::{Exit, Problem};
use super::input::utf8;
use crate::client::PauseKind;

/// Stop claiming jobs of an activity or a tenant, on all workers, until it is resumed
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  iolaus pause activity workflow_rerun --reason 'maintenance window'
  iolaus pause tenant default")]
pub(crate) enum Pause {
    /// Every job of an activity
    #[command(after_help = "Example:\n  iolaus pause activity workflow_rerun --reason 'maintenance window'")]
    Activity(PauseArgs),
    /// Every job of a tenant
    #[command(after_help = "Example:\n  iolaus pause tenant default --reason 'upgrade of the tenant'")]
    Tenant(PauseArgs),
}

/// Take a pause back
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  iolaus resume activity workflow_rerun
  iolaus resume tenant default")]
pub(crate) enum Resume {
    /// Every job of an activity
    #[command(after_help = "Example:\n  iolaus resume activity workflow_rerun")]
    Activity(ResumeArgs),
    /// Every job of a tenant
    #[command(after_help = "Example:\n  iolaus resume tenant default")]
    Tenant(ResumeArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PauseArgs {
    /// Its name
    #[arg(value_parser = utf8())]
    name: String,
    /// Why, for `iolaus status`
    #[arg(long, value_name = "TEXT", value_parser = utf8())]
    reason: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ResumeArgs {
    /// Its name
    #[arg(value_parser = utf8())]
    name: String,
}

impl Pause {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let (kind, PauseArgs { name, reason }) = match self {
            Self::Activity(args) => (PauseKind::Activity, args),
            Self::Tenant(args) => (PauseKind::Tenant, args),
        };
        known(app, kind, &name)?;
        app.open()?.client().pause(kind, name.clone(), reason).await?;
        let said = serde_json::json!({"kind": kind, "name": name, "paused": true});
        app.out.outcome(&said, || format!("{0} {name} is paused; iolaus resume {0} {1}", kind.as_str(), shell_word(&name)));
        Ok(Exit::Passed)
    }
}

impl Resume {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let (kind, ResumeArgs { name }) = match self {
            Self::Activity(args) => (PauseKind::Activity, args),
            Self::Tenant(args) => (PauseKind::Tenant, args),
        };
        let was_paused = app.open()?.client().resume(kind, name.clone()).await?;
        let said = serde_json::json!({"kind": kind, "name": name, "paused": false, "was_paused": was_paused});
        let what = if was_paused { "is resumed" } else { "was not paused" };
        app.out.outcome(&said, || format!("{} {name} {what}", kind.as_str()));
        Ok(Exit::Passed)
    }
}

/// A pause of what is not there would hold nothing, silently.
fn known(app: &App, kind: PauseKind, name: &str) -> anyhow::Result<()> {
    let names: Vec<String> = match kind {
        PauseKind::Activity => app.intake()?.activities().map(|info| info.name.to_owned()).collect(),
        PauseKind::Tenant => app.config.tenants.keys().cloned().collect(),
    };
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let problem = Problem::usage(format!("{} `{name}` is unknown; there are {}", kind.as_str(), names.join(", ")));
    Err(problem.into())
}
