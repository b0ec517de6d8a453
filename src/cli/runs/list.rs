//! `iolaus runs list`: by workflow, phase and time.

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use iolaus_activities::duration;
use iolaus_activities::tenant::{Kind, MOST_LISTED, RunFilter};
use jiff::Timestamp;
use serde::Serialize;

use super::{COLUMNS, ShownRun, row};
use crate::cli::App;
use crate::cli::exit::Exit;
use crate::cli::render::table;
use crate::cli::tenant_args::{OfTenant, gather, note_rest, path_name};

/// The phases that tenants show. Any case is taken.
const PHASES: [&str; 12] = [
    "Pending",
    "Running",
    "Paused",
    "Succeeded",
    "Failed",
    "Error",
    "Stopped",
    "Terminated",
    "Skipped",
    "Omitted",
    "Cancelled",
    "TimedOut",
];

/// Runs, the newest first
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus runs list --workflow atlan-snowflake-1684500500 --limit 5
  iolaus runs list --status failed --status error --since 24h
  iolaus runs list --since 2026-11-27T00:00:00Z --output json

Exit codes: 0, also when nothing is found; 3 the tenant could not be asked")]
pub(crate) struct List {
    /// Only runs of this workflow; of an app, its slug
    #[arg(long, value_name = "NAME", value_parser = path_name())]
    workflow: Option<String>,
    /// Only runs in this phase, as in running or failed. May be repeated
    #[arg(long = "status", value_name = "PHASE", ignore_case = true, value_parser = PossibleValuesParser::new(PHASES))]
    phases: Vec<String>,
    /// Only runs created since: a time such as 2026-11-27T02:00:00Z, or as long ago as 90m or 24h
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// The most runs to list, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    #[command(flatten)]
    tenant: OfTenant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    At(Timestamp),
    Ago(Duration),
}

#[derive(Debug, Serialize)]
struct Listing<'a> {
    tenant: &'a str,
    runs: Vec<ShownRun>,
    total: Option<u64>,
    more: bool,
}

impl List {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = self.tenant.open(app)?;
        let limit = usize::from(self.limit).min(MOST_LISTED);
        let since = self.since.map(|since| match since {
            Since::At(at) => at,
            Since::Ago(ago) => tenant.on_its_clock(app.clock.now().saturating_sub(ago).unwrap_or(Timestamp::MIN)),
        });
        let phases = self.phases.iter().filter_map(|wanted| PHASES.iter().find(|known| known.eq_ignore_ascii_case(wanted)));
        let filter = RunFilter { workflow: self.workflow.clone(), phases: phases.map(ToString::to_string).collect(), since };
        let mut gathered = gather(&tenant, async |kind| match kind {
            Kind::Workflow => tenant.list_runs(&filter, limit).await,
            Kind::App => tenant.list_app_runs(&filter, limit).await,
        })
        .await?;
        let listed = &mut gathered.listed;
        // One that has no time yet is the newest.
        listed.rows.sort_by_key(|run| std::cmp::Reverse(run.created_at.unwrap_or(Timestamp::MAX)));
        listed.truncate(limit);
        let runs: Vec<ShownRun> = listed.rows.iter().cloned().map(ShownRun::of).collect();
        let rows: Vec<_> = runs.iter().map(row).collect();
        let nothing = runs.is_empty();
        let listing = Listing { tenant: tenant.name(), runs, total: listed.total, more: listed.more };
        app.out.data(&listing, || table(&COLUMNS, &rows))?;
        if nothing {
            app.out.note(&format!("tenant {} has no such run{}", tenant.name(), self.asked_for(&filter.phases)));
        }
        note_rest(app, listed, "run", "--limit shows more");
        gathered.missing.map_or(Ok(Exit::Passed), |failure| Err(failure.into()))
    }

    /// What was asked for, for an answer that is empty.
    fn asked_for(&self, phases: &[String]) -> String {
        let workflow = self.workflow.as_ref().map(|workflow| format!(" of workflow {workflow}")).unwrap_or_default();
        let phases = if phases.is_empty() { String::new() } else { format!(" in phase {}", phases.join(" or ")) };
        let since = if self.since.is_some() { " since that time" } else { "" };
        format!("{workflow}{phases}{since}")
    }
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(at) = text.parse() {
        return Ok(Since::At(at));
    }
    // A number without a unit could be anything.
    let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    let ago = duration::parse(text).ok().filter(|_| has_unit);
    ago.map(Since::Ago)
        .ok_or_else(|| format!("`{text}` is neither a time such as 2026-11-27T02:00:00Z nor how long ago, such as 90m or 24h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_how_long_ago_is_taken_and_nothing_else() {
        assert_eq!(since("1970-01-01T00:00:00Z"), Ok(Since::At(Timestamp::UNIX_EPOCH)));
        assert_eq!(since("90m"), Ok(Since::Ago(Duration::from_secs(5_400))));
        for wrong in ["yesterday", "", "2026-11-27", "5"] {
            assert!(since(wrong).is_err_and(|problem| problem.contains("90m")), "{wrong}");
        }
    }
}
