//! `iolaus workflows`: what a tenant has, with the last run of each.

use std::sync::Arc;

use clap::{Args, Subcommand};
use iolaus_activities::tenant::{Run, Tenant, Workflow, package_name, where_to_look};
use iolaus_activities::{Category, Failure, timestamp};
use jiff::Timestamp;
use serde::Serialize;

use super::App;
use super::exit::Exit;
use super::input::utf8;
use super::render::{moment, table};

/// Find and show workflows of a tenant
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  iolaus workflows find snowflake
  iolaus workflows show atlan-snowflake-1684500411")]
pub(crate) enum Workflows {
    Find(Find),
    Show(Show),
}

/// Workflows of a type (package), newest first
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus workflows find snowflake --max-results 5
  iolaus workflows find @csa/api-token-connection-admin --tenant acme --output json")]
pub(crate) struct Find {
    /// The package, as in snowflake, atlan-snowflake or @atlan/snowflake
    #[arg(value_name = "TYPE", value_parser = utf8())]
    package: String,
    /// How many at most, 1 to 50
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    max_results: u8,
    /// The tenant to ask
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = utf8())]
    tenant: String,
}

/// One workflow by its name
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus workflows show atlan-snowflake-1684500411")]
pub(crate) struct Show {
    /// The workflow's name
    #[arg(value_name = "NAME", value_parser = utf8())]
    name: String,
    /// The tenant to ask
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = utf8())]
    tenant: String,
}

/// A workflow as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    package: Option<String>,
    #[serde(with = "timestamp::optional")]
    created_at: Option<Timestamp>,
    creator: Option<String>,
    last_run: Option<ShownRun>,
}

#[derive(Debug, Serialize)]
struct ShownRun {
    name: String,
    phase: Option<String>,
    #[serde(with = "timestamp::optional")]
    started_at: Option<Timestamp>,
    #[serde(with = "timestamp::optional")]
    finished_at: Option<Timestamp>,
    message: Option<String>,
}

impl Workflows {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        match self {
            Self::Find(find) => find.run(app).await,
            Self::Show(show) => show.run(app).await,
        }
    }
}

impl Find {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = app.tenants()?.get(&self.tenant)?;
        let mut found = tenant.workflows_of_package(&self.package).await?;
        let total = found.len();
        found.truncate(usize::from(self.max_results));
        let mut shown = Vec::with_capacity(found.len());
        for workflow in found {
            shown.push(with_last_run(&tenant, workflow).await?);
        }
        let rows: Vec<Vec<String>> = shown.iter().map(row).collect();
        app.out.data(&shown, || table(&["NAME", "PACKAGE", "CREATED", "CREATOR", "LAST RUN", "PHASE"], &rows))?;
        if shown.is_empty() {
            app.out.note(&format!("tenant {} has no workflow of package {}", self.tenant, package_name(&self.package)));
        } else if total > shown.len() {
            app.out.note(&format!("{} of {total} are shown; --max-results shows more", shown.len()));
        }
        Ok(Exit::Passed)
    }
}

impl Show {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = app.tenants()?.get(&self.tenant)?;
        let Some(workflow) = tenant.workflow(&self.name).await? else {
            let message = format!("tenant {} has no workflow named {}", self.tenant, self.name);
            return Err(Failure::new("workflow.not_found", Category::NotFound, message)
                .suggest(where_to_look(&self.tenant, &self.name))
                .into());
        };
        let shown = with_last_run(&tenant, workflow).await?;
        app.out.data(&shown, || text(&shown))?;
        Ok(Exit::Passed)
    }
}

async fn with_last_run(tenant: &Arc<Tenant>, workflow: Workflow) -> Result<Shown, Failure> {
    let last_run = tenant.last_run(&workflow.name).await?.map(shown_run);
    let Workflow { name, package, created_at, creator } = workflow;
    Ok(Shown { name, package, created_at, creator, last_run })
}

fn shown_run(run: Run) -> ShownRun {
    ShownRun { name: run.name, phase: run.phase, started_at: run.started_at, finished_at: run.finished_at, message: run.message }
}

fn row(shown: &Shown) -> Vec<String> {
    let run = shown.last_run.as_ref();
    vec![
        shown.name.clone(),
        shown.package.clone().unwrap_or_default(),
        moment(shown.created_at),
        shown.creator.clone().unwrap_or_default(),
        run.map(|run| run.name.clone()).unwrap_or_default(),
        run.map_or_else(|| "never ran".to_owned(), |run| run.phase.clone().unwrap_or_default()),
    ]
}

fn text(shown: &Shown) -> String {
    let mut rows = vec![
        vec!["name".to_owned(), shown.name.clone()],
        vec!["package".to_owned(), shown.package.clone().unwrap_or_default()],
        vec!["created".to_owned(), moment(shown.created_at)],
        vec!["creator".to_owned(), shown.creator.clone().unwrap_or_default()],
    ];
    match &shown.last_run {
        None => rows.push(vec!["last run".to_owned(), "none".to_owned()]),
        Some(run) => {
            rows.push(vec!["last run".to_owned(), run.name.clone()]);
            rows.push(vec!["phase".to_owned(), run.phase.clone().unwrap_or_default()]);
            rows.push(vec!["started".to_owned(), moment(run.started_at)]);
            rows.push(vec!["finished".to_owned(), moment(run.finished_at)]);
            rows.extend(run.message.clone().map(|message| vec!["message".to_owned(), message]));
        }
    }
    table(&["WORKFLOW", ""], &rows)
}
