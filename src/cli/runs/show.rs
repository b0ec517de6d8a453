//! `iolaus runs show`: one run as the tenant shows it now.

use clap::Args;
use iolaus_activities::tenant::{Kind, Run, Standing, Tenant};

use super::{ShownRun, find};
use crate::cli::App;
use crate::cli::exit::Exit;
use crate::cli::render::{moment, table};
use crate::cli::tenant_args::{OfTenant, path_name};

/// One run by its name; of an app, by its id
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus runs show csa-api-token-connection-admin-1684500411-t7s8b
  iolaus runs show csa-api-token-connection-admin-1684500411-t7s8b --output json")]
pub(crate) struct Show {
    /// The run
    #[arg(value_name = "RUN", value_parser = path_name())]
    run: String,
    #[command(flatten)]
    tenant: OfTenant,
}

impl Show {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = self.tenant.open(app)?;
        let run = find(&tenant, &self.run).await?;
        let shown = ShownRun::of(with_message(&tenant, run).await);
        app.out.data(&shown, || text(&shown))?;
        Ok(Exit::Passed)
    }
}

/// What went wrong in a run of an app is told by its steps, as far as they can be read.
async fn with_message(tenant: &Tenant, run: Run) -> Run {
    let silent = run.kind == Kind::App && run.standing() == Standing::Ended && run.message.is_none();
    let message = if silent { tenant.app_run_message(&run.name).await.ok().flatten() } else { run.message.clone() };
    Run { message, ..run }
}

fn text(run: &ShownRun) -> String {
    let rows = [
        ("name", Some(run.name.clone())),
        (run.kind, run.workflow.clone()),
        ("phase", Some(run.phase.clone().unwrap_or_else(|| "none yet".to_owned()))),
        ("created", run.created_at.map(|at| moment(Some(at)))),
        ("started", run.started_at.map(|at| moment(Some(at)))),
        ("finished", run.finished_at.map(|at| moment(Some(at)))),
        ("creator", run.creator.clone()),
        ("message", run.message.clone()),
    ];
    let rows = rows.into_iter().filter_map(|(name, value)| Some(vec![name.to_owned(), value?]));
    table(&["RUN", ""], &rows.collect::<Vec<_>>())
}
