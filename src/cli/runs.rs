//! `iolaus runs`: runs of a tenant's workflows and apps, as the tenant shows them. A run is the tenant's own; jobs are ours.

mod list;
mod show;
mod stop;

use clap::Subcommand;
use iolaus_activities::tenant::{Kind, Run, Tenant};
use iolaus_activities::{Category, Failure, timestamp};
use jiff::Timestamp;
use serde::Serialize;

use super::App;
use super::exit::Exit;
use super::render::moment;
use super::tenant_args::{command, kinds, lacks_kind};

/// List, show and stop runs of a tenant's workflows
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  iolaus runs list --workflow atlan-snowflake-1684500500
  iolaus runs show atlan-snowflake-1684500500-f4aw5
  iolaus runs stop atlan-snowflake-1684500500-f4aw5")]
pub(crate) enum Runs {
    List(list::List),
    Show(show::Show),
    Stop(stop::Stop),
}

impl Runs {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        match self {
            Self::List(list) => list.run(app).await,
            Self::Show(show) => show.run(app).await,
            Self::Stop(stop) => stop.run(app).await,
        }
    }
}

/// A run as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct ShownRun {
    pub(super) name: String,
    kind: &'static str,
    workflow: Option<String>,
    pub(super) phase: Option<String>,
    #[serde(with = "timestamp::optional")]
    created_at: Option<Timestamp>,
    #[serde(with = "timestamp::optional")]
    pub(super) started_at: Option<Timestamp>,
    #[serde(with = "timestamp::optional")]
    pub(super) finished_at: Option<Timestamp>,
    creator: Option<String>,
    pub(super) message: Option<String>,
}

impl ShownRun {
    pub(super) fn of(run: Run) -> Self {
        let Run { kind, name, workflow, phase, created_at, started_at, finished_at, creator, message } = run;
        Self { name, kind: kind.noun(), workflow, phase, created_at, started_at, finished_at, creator, message }
    }
}

/// Columns of a list of runs.
pub(super) const COLUMNS: [&str; 7] = ["RUN", "WORKFLOW", "PHASE", "CREATED", "STARTED", "FINISHED", "CREATOR"];

/// A run as a row of a list.
pub(super) fn row(run: &ShownRun) -> Vec<String> {
    vec![
        run.name.clone(),
        run.workflow.clone().unwrap_or_default(),
        run.phase.clone().unwrap_or_else(|| "none yet".to_owned()),
        moment(run.created_at),
        moment(run.started_at),
        moment(run.finished_at),
        run.creator.clone().unwrap_or_default(),
    ]
}

/// The run of this name, or `run.not_found`. A tenant that may have workflows and apps is asked for both.
async fn find(tenant: &Tenant, name: &str) -> Result<Run, Failure> {
    for kind in kinds(tenant) {
        let found = match kind {
            Kind::Workflow => tenant.look(name).await,
            Kind::App => app_run(tenant, name).await,
        };
        match found {
            Ok(Some(run)) => return Ok(run),
            Ok(None) => {}
            Err(failure) if lacks_kind(&failure) && kinds(tenant).len() > 1 => {}
            Err(failure) => return Err(failure),
        }
    }
    let message = format!("tenant {} has no run named {name}, or does not show it yet", tenant.name());
    Err(Failure::new("run.not_found", Category::NotFound, message).suggest(command(tenant.name(), "runs list")))
}

/// A run of an app. What only the index knows is added as far as it is there.
async fn app_run(tenant: &Tenant, id: &str) -> Result<Option<Run>, Failure> {
    let Some(run) = tenant.app_run(id).await? else { return Ok(None) };
    let indexed = match &run.workflow {
        Some(slug) => tenant.look_at_app_run(id, Some(slug)).await.ok().flatten(),
        None => None,
    };
    let (finished_at, creator) = indexed.map(|indexed| (indexed.finished_at, indexed.creator)).unwrap_or_default();
    Ok(Some(Run { finished_at, creator, ..run }))
}
