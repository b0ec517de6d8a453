//! `iolaus workflows list`: everything that can be run, without its runs: one request for each page.

use clap::Args;
use iolaus_activities::tenant::{Kind, Listed, MOST_LISTED};
use serde::Serialize;

use super::{Shown, columns};
use crate::cli::App;
use crate::cli::exit::Exit;
use crate::cli::render::table;
use crate::cli::tenant_args::{OfTenant, gather, note_rest};

/// All workflows, the newest first; on a native tenant all apps, each with its slug
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus workflows list
  iolaus workflows list --limit 20 --tenant acme --output json

Exit codes: 0, also when there is none; 3 the tenant could not be asked")]
pub(crate) struct List {
    /// The most to list, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    #[command(flatten)]
    tenant: OfTenant,
}

#[derive(Debug, Serialize)]
struct Listing<'a> {
    tenant: &'a str,
    workflows: &'a [Shown],
    total: Option<u64>,
    more: bool,
}

impl List {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = self.tenant.open(app)?;
        let limit = usize::from(self.limit).min(MOST_LISTED);
        let mut gathered = gather(&tenant, async |kind| match kind {
            Kind::Workflow => tenant.list_workflows(limit).await.map(shown),
            Kind::App => tenant.list_apps(limit).await.map(shown),
        })
        .await?;
        let listed = &mut gathered.listed;
        listed.rows.sort_by_key(|workflow| std::cmp::Reverse(workflow.created_at));
        listed.truncate(limit);
        let listing = Listing { tenant: tenant.name(), workflows: &listed.rows, total: listed.total, more: listed.more };
        app.out.data(&listing, || text(&listed.rows))?;
        if listed.rows.is_empty() {
            app.out.note(&format!("tenant {} has no workflow that these credentials may see", tenant.name()));
        }
        note_rest(app, listed, "workflow", "--limit shows more");
        gathered.missing.map_or(Ok(Exit::Passed), |failure| Err(failure.into()))
    }
}

fn shown<T>(listed: Listed<T>) -> Listed<Shown>
where
    Shown: From<T>,
{
    let Listed { rows, total, more, unreadable } = listed;
    Listed { rows: rows.into_iter().map(Shown::from).collect(), total, more, unreadable }
}

/// Apps have a slug beside the name that people gave them.
fn text(workflows: &[Shown]) -> String {
    let with_slug = workflows.iter().any(|workflow| workflow.slug.is_some());
    table(&columns(with_slug), &workflows.iter().map(|workflow| workflow.cells(with_slug)).collect::<Vec<_>>())
}
