//! `iolaus status`: the queue at a glance.

use std::fmt::Write;

use clap::Args;

use super::App;
use super::exit::Exit;
use super::render::{moment, table};
use crate::client::HostStatus;

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus status
  iolaus status --output json";

/// States, the oldest due job, workers, pauses
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {}

impl Status {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let status = app.open()?.client().status().await?;
        app.out.data(&status, || text(&status))?;
        Ok(Exit::Passed)
    }
}

fn text(status: &HostStatus) -> String {
    let mut text = format!("queue       {}\n", status.place);
    let oldest = if status.oldest_due.is_some() { moment(status.oldest_due) } else { "none".to_owned() };
    writeln!(text, "oldest due  {oldest}").ok();
    if !status.counts.is_empty() {
        let rows = status
            .counts
            .iter()
            .map(|count| vec![count.activity.clone(), count.tenant.clone(), count.state.to_string(), count.count.to_string()]);
        writeln!(text, "\n{}", table(&["ACTIVITY", "TENANT", "STATE", "JOBS"], &rows.collect::<Vec<_>>()).trim_end()).ok();
    }
    if status.workers.is_empty() {
        text.push_str("\nno worker is registered; start one with: iolaus worker\n");
    } else {
        let rows = status.workers.iter().map(|worker| {
            let live = if worker.live { "live" } else { "silent" };
            vec![
                worker.name.clone(),
                live.to_owned(),
                worker.version.clone(),
                worker.running.to_string(),
                moment(Some(worker.last_beat)),
            ]
        });
        let head = ["WORKER", "STATE", "VERSION", "RUNNING", "LAST BEAT"];
        writeln!(text, "\n{}", table(&head, &rows.collect::<Vec<_>>()).trim_end()).ok();
    }
    if !status.pauses.is_empty() {
        let rows = status.pauses.iter().map(|pause| {
            let reason = pause.reason.clone().unwrap_or_default();
            vec![pause.kind.as_str().to_owned(), pause.name.clone(), moment(Some(pause.paused_at)), reason]
        });
        writeln!(text, "\n{}", table(&["PAUSED", "NAME", "SINCE", "REASON"], &rows.collect::<Vec<_>>()).trim_end()).ok();
    }
    text
}
