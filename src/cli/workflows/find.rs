//! `iolaus workflows find`: by type, with the last run of each.

use clap::Args;
use iolaus_activities::Failure;
use iolaus_activities::tenant::{App as TenantApp, Kind, Listed, MOST_LISTED, RunFilter, Tenant, package_name};

use super::{Shown, WithLastRun, columns};
use crate::cli::App;
use crate::cli::exit::Exit;
use crate::cli::render::table;
use crate::cli::runs::ShownRun;
use crate::cli::tenant_args::{OfTenant, command, gather, not_empty};

/// The search of a package reads no more workflows than this.
const MOST_FOUND: usize = 50;

/// Workflows of a type (package), newest first
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus workflows find snowflake --max-results 5
  iolaus workflows find csa-api-token-connection-admin
  iolaus workflows find @csa/api-token-connection-admin --tenant acme --output json

Exit codes: 0, also when nothing is found; 3 the tenant could not be asked")]
pub(crate) struct Find {
    /// The package, as in snowflake, atlan-snowflake or @atlan/snowflake; of apps, also the app's id, as in snowflake-crawler
    #[arg(value_name = "TYPE", value_parser = not_empty())]
    package: String,
    /// How many at most, 1 to 50
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    max_results: u8,
    #[command(flatten)]
    tenant: OfTenant,
}

impl Find {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = self.tenant.open(app)?;
        let mut is_found = false;
        let mut gathered = gather(&tenant, async |kind| match kind {
            Kind::Workflow => {
                let found = workflows(&tenant, &self.package).await;
                is_found = found.as_ref().is_ok_and(|found| !found.rows.is_empty());
                found
            }
            // A tenant that has workflows of the type is of the older generation.
            Kind::App if is_found => Ok(Listed { rows: Vec::new(), total: Some(0), more: false, unreadable: 0 }),
            Kind::App => apps(&tenant, &self.package).await,
        })
        .await?;
        let found = &mut gathered.listed;
        let (total, more) = (found.rows.len(), found.more);
        found.rows.truncate(usize::from(self.max_results));
        let mut shown = Vec::with_capacity(found.rows.len());
        for workflow in found.rows.drain(..) {
            shown.push(with_last_run(&tenant, workflow).await?);
        }
        app.out.data(&shown, || text(&shown))?;
        if shown.is_empty() {
            let package = package_name(&self.package);
            let list = command(tenant.name(), "workflows list");
            app.out.note(&format!("tenant {} has no workflow of package {package}; {list} shows all", tenant.name()));
        } else if total > shown.len() || more {
            let least = if more { "at least " } else { "" };
            app.out.note(&format!("{} of {least}{total} are shown; --max-results shows more", shown.len()));
        }
        gathered.missing.map_or(Ok(Exit::Passed), |failure| Err(failure.into()))
    }
}

async fn workflows(tenant: &Tenant, package: &str) -> Result<Listed<Shown>, Failure> {
    let found = tenant.workflows_of_package(package).await?;
    let more = found.len() >= MOST_FOUND;
    Ok(Listed { rows: found.into_iter().map(Shown::from).collect(), total: None, more, unreadable: 0 })
}

/// The tenant finds no apps by what they are made of, so all are read.
async fn apps(tenant: &Tenant, package: &str) -> Result<Listed<Shown>, Failure> {
    let all = tenant.list_apps(MOST_LISTED).await?;
    let of_type = |app: &TenantApp| app.app_id.as_deref().is_some_and(|id| is_of_type(id, package));
    let rows = all.rows.into_iter().filter(of_type).map(Shown::from).collect();
    Ok(Listed { rows, total: None, more: all.more, unreadable: 0 })
}

/// Whether an app such as `snowflake-crawler` is of the type `snowflake`, however that is written.
fn is_of_type(app_id: &str, wanted: &str) -> bool {
    let bare = |name: &str| {
        let name = name.trim();
        let starts = ["@atlan/", "@csa/", "atlan-", "csa-"];
        starts.iter().find_map(|start| name.strip_prefix(start)).unwrap_or(name).to_owned()
    };
    let (app, wanted) = (bare(app_id), bare(wanted));
    app == wanted || app.strip_prefix(&wanted).is_some_and(|rest| rest.starts_with('-'))
}

async fn with_last_run(tenant: &Tenant, workflow: Shown) -> Result<WithLastRun, Failure> {
    let last_run = match &workflow.slug {
        None => tenant.last_run(&workflow.name).await?,
        Some(slug) => {
            let filter = RunFilter { workflow: Some(slug.clone()), ..RunFilter::default() };
            tenant.list_app_runs(&filter, 1).await?.rows.into_iter().next()
        }
    };
    Ok(WithLastRun { workflow, last_run: last_run.map(ShownRun::of) })
}

fn text(found: &[WithLastRun]) -> String {
    let with_slug = found.iter().any(|found| found.workflow.slug.is_some());
    let rows = found.iter().map(|found| {
        let run = found.last_run.as_ref();
        let phase = run.map_or_else(|| "never ran".to_owned(), |run| run.phase.clone().unwrap_or_default());
        let mut cells = found.workflow.cells(with_slug);
        cells.extend([run.map(|run| run.name.clone()).unwrap_or_default(), phase]);
        cells
    });
    let head: Vec<_> = columns(with_slug).into_iter().chain(["LAST RUN", "PHASE"]).collect();
    table(&head, &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_of_the_type_that_its_id_begins_with() {
        for (app, wanted, expected) in [
            ("snowflake-crawler", "snowflake", true),
            ("snowflake-crawler", "@atlan/snowflake", true),
            ("snowflake-crawler", "snowflake-crawler", true),
            ("atlan-tableau", "tableau", true),
            ("csa-api-token-connection-admin", "@csa/api-token-connection-admin", true),
            ("snowflake-crawler", "snow", false),
            ("snowflake-crawler", "snowflake-miner", false),
        ] {
            assert_eq!(is_of_type(app, wanted), expected, "{app} {wanted}");
        }
    }
}
