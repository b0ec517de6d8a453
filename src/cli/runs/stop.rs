//! `iolaus runs stop`: the one command here that changes something at the tenant, so a person is asked and a program has to confirm.

use clap::Args;
use iolaus_activities::Failure;
use iolaus_activities::tenant::{Kind, Standing, StopError};
use serde::Serialize;

use super::find;
use crate::cli::App;
use crate::cli::confirm;
use crate::cli::exit::Exit;
use crate::cli::render::moment;
use crate::cli::tenant_args::{OfTenant, command, path_name};

/// Ask the tenant to stop a run. What it did so far is not undone; you are asked first, unless --yes
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus runs stop atlan-snowflake-1684500500-f4aw5
  iolaus runs stop atlan-snowflake-1684500500-f4aw5 --yes

Exit codes: 0 the tenant was asked to stop it, or it had ended; 2 no terminal to ask at and no --yes;
3 the tenant did not accept it or could not be asked; 4 you said no")]
pub(crate) struct Stop {
    /// The run
    #[arg(value_name = "RUN", value_parser = path_name())]
    run: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    tenant: OfTenant,
}

#[derive(Debug, Serialize)]
struct Stopped<'a> {
    run: &'a str,
    phase: Option<&'a str>,
    stop_requested: bool,
}

impl Stop {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        if !self.yes && !confirm::can_ask(app) {
            return Err(confirm::no_terminal(&format!("stopping {} needs a confirmation", self.run)).into());
        }
        let tenant = self.tenant.open(app)?;
        let run = find(&tenant, &self.run).await?;
        let phase = run.phase.as_deref();
        let tell = |stop_requested: bool, told: &str| {
            let stopped = Stopped { run: &self.run, phase, stop_requested };
            app.out.outcome(&stopped, || crate::cli::clean::line(told));
        };
        if run.standing() != Standing::Active {
            tell(false, &format!("{} has ended already: {}", self.run, phase.unwrap_or("no phase")));
            return Ok(Exit::Passed);
        }
        if !self.yes {
            let workflow = run.workflow.as_deref().unwrap_or("an unknown workflow");
            let started = run.started_at.map(|at| format!(", started {}", moment(Some(at)))).unwrap_or_default();
            let what =
                format!("run {} of {workflow} of tenant {} is {}{started}.", self.run, tenant.name(), phase.unwrap_or("new"));
            if !confirm::ask(app, &what, "Stop it? What it did so far is not undone.").await? {
                tell(false, &format!("{} is left as it is", self.run));
                return Ok(Exit::Cancelled);
            }
        }
        let show = command(tenant.name(), &format!("runs show {}", iolaus_activities::shell_word(&self.run)));
        let asked = match run.kind {
            Kind::Workflow => tenant.stop_run(&self.run).await,
            Kind::App => tenant.cancel_app_run(&self.run).await,
        };
        asked.map_err(|error| match error {
            StopError::NotAsked(failure) => {
                Failure { suggested_action: failure.suggested_action.or_else(|| Some(show.clone())), ..failure }
            }
            StopError::UnknownFate(failure) => {
                let message = format!("{}; whether {} was asked to stop is not known", failure.message, self.run);
                Failure { message, ..failure }.suggest(show.clone())
            }
        })?;
        tell(true, &format!("the tenant was asked to stop {}; {show} shows its end", self.run));
        Ok(Exit::Passed)
    }
}
