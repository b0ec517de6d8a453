//! `iolaus status`: the queue at a glance.

use std::fmt::Write;

use clap::Args;

use super::App;
use super::exit::{Exit, Problem};
use super::host::Host;
use super::render::{moment, table};
use crate::client::{HostStatus, Missing, Presence};

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus status
  iolaus status --output json
  iolaus status --require-worker=here     the probe of a container that works

Exit codes: 0, or 6 without the worker that --require-worker asks for";

/// States, the oldest due job, workers, pauses
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// Exit 6 unless a live worker is there: anywhere (the default), or here, on this machine or in this container. `iolaus execute` is none
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_missing_value = "anywhere")]
    require_worker: Option<Where>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Where {
    /// Any worker of this queue
    Anywhere,
    /// One that was started on this machine, or in this container
    Here,
}

impl Status {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let host = app.open()?;
        let Some(place) = self.require_worker else {
            let status = host.client().status().await?;
            app.out.data(&status, || text(&status))?;
            return Ok(Exit::Passed);
        };
        // A health check asks this every few seconds: it counts no jobs.
        let presence = host.client().presence().await?;
        app.out.data(&presence, || workers(&presence))?;
        Self::require(place, &presence)
    }

    fn require(place: Where, status: &Presence) -> anyhow::Result<Exit> {
        let counts = |name: &str| place == Where::Anywhere || Host::is_worker_here(name);
        if status.live().any(|worker| counts(&worker.name)) {
            return Ok(Exit::Passed);
        }
        let of = if place == Where::Here { " of this machine" } else { "" };
        let problem = Problem::unusable(format!("no live worker{of} works on {}", status.place));
        Err(problem.hint("start one with: iolaus worker").into())
    }
}

fn text(status: &HostStatus) -> String {
    let mut text = format!("queue       {}\n", status.presence.place);
    let oldest = if status.oldest_due.is_some() { moment(status.oldest_due) } else { "none".to_owned() };
    writeln!(text, "oldest due  {oldest}").ok();
    if !status.counts.is_empty() {
        let rows = status
            .counts
            .iter()
            .map(|count| vec![count.activity.clone(), count.tenant.clone(), count.state.to_string(), count.count.to_string()]);
        writeln!(text, "\n{}", table(&["ACTIVITY", "TENANT", "STATE", "JOBS"], &rows.collect::<Vec<_>>()).trim_end()).ok();
    }
    if !status.without_worker.is_empty() {
        let rows = status.without_worker.iter().map(|waiting| {
            let missing = match waiting.missing {
                Missing::Worker => "any worker",
                Missing::Activity => "a worker that runs the activity",
                Missing::Tenant => "a worker with an address and credentials for the tenant",
            };
            vec![waiting.activity.clone(), waiting.tenant.clone(), waiting.jobs.to_string(), missing.to_owned()]
        });
        let head = ["JOBS WITHOUT A WORKER", "TENANT", "OPEN", "MISSING"];
        writeln!(text, "\n{}", table(&head, &rows.collect::<Vec<_>>()).trim_end()).ok();
    }
    text.push_str(&workers(&status.presence));
    text
}

fn workers(status: &Presence) -> String {
    let mut text = String::new();
    if status.workers.is_empty() {
        text.push_str("\nno worker is registered; start one with: iolaus worker\n");
    } else {
        let rows = status.workers.iter().map(|worker| {
            let live = if worker.live { "live" } else { "silent" };
            let of_one = if worker.job_id.is_some() { ", one job" } else { "" };
            vec![
                worker.name.clone(),
                format!("{live}{of_one}"),
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
    if !status.holds.is_empty() {
        let rows = status.holds.iter().map(|hold| {
            let until = hold.until.map_or_else(|| "a probe is answered".to_owned(), |until| moment(Some(until)));
            vec![hold.tenant.clone(), hold.worker.clone(), moment(Some(hold.since)), until, hold.reason.clone()]
        });
        let head = ["TENANT HELD", "BY WORKER", "SINCE", "UNTIL", "REASON"];
        writeln!(text, "\n{}", table(&head, &rows.collect::<Vec<_>>()).trim_end()).ok();
    }
    text
}
