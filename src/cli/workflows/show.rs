//! `iolaus workflows show`: one workflow, with its last runs.

use clap::Args;
use iolaus_activities::tenant::{Kind, Listed, Run, RunFilter, Tenant, where_to_look};
use iolaus_activities::{Category, Failure};
use serde::Serialize;

use super::Shown;
use crate::cli::App;
use crate::cli::exit::Exit;
use crate::cli::render::{moment, table};
use crate::cli::runs::{self, ShownRun};
use crate::cli::tenant_args::{OfTenant, kinds, lacks_kind, note_rest, path_name};

/// One workflow by its name, or one app by its slug, with its last runs
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus workflows show atlan-snowflake-1684500411
  iolaus workflows show snowflake-prod-5d01c7aa --runs 20 --output json")]
pub(crate) struct Show {
    /// The workflow's name; of an app, its slug
    #[arg(value_name = "NAME", value_parser = path_name())]
    name: String,
    /// How many of its last runs, 1 to 50
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    runs: u8,
    #[command(flatten)]
    tenant: OfTenant,
}

/// A workflow with its last runs.
#[derive(Debug, Serialize)]
struct WithRuns {
    #[serde(flatten)]
    workflow: Shown,
    /// The one that started last.
    last_run: Option<ShownRun>,
    runs: Vec<ShownRun>,
    total_runs: Option<u64>,
}

impl Show {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = self.tenant.open(app)?;
        let workflow = find(&tenant, &self.name).await?;
        let runs = last_runs(&tenant, &workflow, usize::from(self.runs)).await?;
        let last = runs.rows.iter().max_by_key(|run| run.started_at).or(runs.rows.first());
        let shown = WithRuns {
            workflow,
            last_run: last.cloned().map(ShownRun::of),
            runs: runs.rows.iter().cloned().map(ShownRun::of).collect(),
            total_runs: runs.total,
        };
        app.out.data(&shown, || text(&shown))?;
        note_rest(app, &runs, "run", "--runs shows more, iolaus runs list --workflow all of them");
        Ok(Exit::Passed)
    }
}

/// The workflow or app of this name, or `workflow.not_found`. A tenant that may have both is asked for both.
async fn find(tenant: &Tenant, name: &str) -> Result<Shown, Failure> {
    for kind in kinds(tenant) {
        let found = match kind {
            Kind::Workflow => tenant.workflow(name).await.map(|found| found.map(Shown::from)),
            Kind::App => tenant.app(name).await.map(|found| found.map(Shown::from)),
        };
        match found {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(failure) if lacks_kind(&failure) && kinds(tenant).len() > 1 => {}
            Err(failure) => return Err(failure),
        }
    }
    let message = format!("tenant {} has no workflow named {name}", tenant.name());
    let hint = where_to_look(tenant.name(), name);
    Err(Failure::new("workflow.not_found", Category::NotFound, message).suggest(hint))
}

async fn last_runs(tenant: &Tenant, workflow: &Shown, limit: usize) -> Result<Listed<Run>, Failure> {
    let filter = RunFilter { workflow: Some(workflow.handle().to_owned()), ..RunFilter::default() };
    if workflow.slug.is_some() { tenant.list_app_runs(&filter, limit).await } else { tenant.list_runs(&filter, limit).await }
}

fn text(shown: &WithRuns) -> String {
    let workflow = &shown.workflow;
    let mut rows = vec![("name", workflow.name.clone())];
    rows.extend(workflow.slug.clone().map(|slug| ("slug", slug)));
    rows.push(("package", workflow.package.clone().unwrap_or_default()));
    rows.push(("created", moment(workflow.created_at)));
    rows.push(("creator", workflow.creator.clone().unwrap_or_default()));
    match &shown.last_run {
        None => rows.push(("last run", "none".to_owned())),
        Some(run) => {
            rows.push(("last run", run.name.clone()));
            rows.push(("phase", run.phase.clone().unwrap_or_default()));
            rows.push(("started", moment(run.started_at)));
            rows.push(("finished", moment(run.finished_at)));
            rows.extend(run.message.clone().map(|message| ("message", message)));
        }
    }
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let head = table(&["WORKFLOW", ""], &rows);
    if shown.runs.is_empty() {
        return head;
    }
    let runs: Vec<_> = shown.runs.iter().map(runs::row).collect();
    format!("{head}\n{}", table(&runs::COLUMNS, &runs))
}
