//! `iolaus workflows`: what a tenant has, with the last runs of each. On a native tenant these are apps, each under its slug.

mod find;
mod list;
mod show;

use clap::Subcommand;
use iolaus_activities::tenant::{App as TenantApp, Kind, Workflow};
use iolaus_activities::timestamp;
use jiff::Timestamp;
use serde::Serialize;

use super::App;
use super::exit::Exit;
use super::render::moment;
use super::runs::ShownRun;

/// List, find and show workflows of a tenant
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  iolaus workflows list
  iolaus workflows find snowflake
  iolaus workflows show atlan-snowflake-1684500411")]
pub(crate) enum Workflows {
    List(list::List),
    Find(find::Find),
    Show(show::Show),
}

impl Workflows {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        match self {
            Self::List(list) => list.run(app).await,
            Self::Find(find) => find.run(app).await,
            Self::Show(show) => show.run(app).await,
        }
    }
}

/// A workflow or an app as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    kind: &'static str,
    /// Of an app: what it is submitted and shown by.
    slug: Option<String>,
    /// Of an app: the id of the app that it is made of.
    package: Option<String>,
    #[serde(with = "timestamp::optional")]
    created_at: Option<Timestamp>,
    creator: Option<String>,
}

/// The same with the run that started last.
#[derive(Debug, Serialize)]
struct WithLastRun {
    #[serde(flatten)]
    workflow: Shown,
    last_run: Option<ShownRun>,
}

impl From<Workflow> for Shown {
    fn from(workflow: Workflow) -> Self {
        let Workflow { name, package, created_at, creator } = workflow;
        Self { name, kind: Kind::Workflow.noun(), slug: None, package, created_at, creator }
    }
}

impl From<TenantApp> for Shown {
    fn from(app: TenantApp) -> Self {
        let TenantApp { slug, name, app_id, owner, created_at, .. } = app;
        let name = name.unwrap_or_else(|| slug.clone());
        Self { name, kind: Kind::App.noun(), slug: Some(slug), package: app_id, created_at, creator: owner }
    }
}

impl Shown {
    /// What `show` and an activity's input take.
    fn handle(&self) -> &str {
        self.slug.as_deref().unwrap_or(&self.name)
    }

    fn cells(&self, with_slug: bool) -> Vec<String> {
        let mut cells = vec![self.name.clone()];
        cells.extend(with_slug.then(|| self.slug.clone().unwrap_or_default()));
        cells.extend([self.package.clone().unwrap_or_default(), moment(self.created_at), self.creator.clone().unwrap_or_default()]);
        cells
    }
}

/// The heads of [`Shown::cells`].
fn columns(with_slug: bool) -> Vec<&'static str> {
    let slug = with_slug.then_some("SLUG");
    ["NAME"].into_iter().chain(slug).chain(["PACKAGE", "CREATED", "CREATOR"]).collect()
}
