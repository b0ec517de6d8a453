//! `iolaus sequence`: jobs one after the other, from a file or a preset. Worked here, stored for a worker, or only shown.

mod args;

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use iolaus_activities::duration;

use super::exit::Exit;
use super::signals::Signals;
use super::wait::{self, Waiting};
use super::{App, enqueue, execute, render};
use crate::client::Target;
use crate::job::{IdConflictPolicy, NewJob};
use crate::sequence::Definition;
use crate::telemetry;

use args::SequenceArgs;

/// Jobs one after the other: execute, enqueue or show a sequence
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  iolaus sequence execute nightly.json --job-id nightly
  iolaus sequence show nightly.json
  iolaus schema sequence                                 what the file may say")]
pub(crate) enum Sequence {
    Execute(Execute),
    Enqueue(Enqueue),
    Show(Show),
}

/// Enqueue a sequence, work its steps in this process, print its verdict, exit by it
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus sequence execute nightly.json --job-id nightly
  iolaus sequence execute --preset connector_pipeline type=snowflake \\
      user_id=8c1e2d8a-1564-4e95-8b14-ea14522fcf61 connection=default/snowflake/1234567890")]
pub(crate) struct Execute {
    #[command(flatten)]
    sequence: SequenceArgs,
}

/// Store a sequence durably and print its id
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus sequence enqueue nightly.json --job-id nightly --wait --timeout 3h
  iolaus sequence enqueue - --delay 1h < nightly.json")]
pub(crate) struct Enqueue {
    #[command(flatten)]
    sequence: SequenceArgs,
    /// Wait for the verdict
    #[arg(long)]
    wait: bool,
    /// Wait at most so long; then exit with 5, and the sequence goes on
    #[arg(long, value_name = "TIME", value_parser = duration::parse, requires = "wait")]
    timeout: Option<Duration>,
    /// Store nothing unless live workers run the activities of all steps; exit with 6 otherwise
    #[arg(long)]
    require_worker: bool,
}

/// Check a sequence and print what would be stored: each step's input, options and gate. Nothing is stored
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus sequence show nightly.json
  iolaus sequence show --preset connector_pipeline type=snowflake user_id=8c1e2d8a connection=default/snowflake/1234567890")]
pub(crate) struct Show {
    #[command(flatten)]
    sequence: SequenceArgs,
}

impl Sequence {
    /// Whether a signal asks it to stop in order.
    pub(super) fn drains(&self) -> bool {
        matches!(self, Self::Execute(_))
    }

    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        match self {
            Self::Execute(execute) => execute.run(app).await,
            Self::Enqueue(enqueue) => enqueue.run(app).await,
            Self::Show(show) => show.run(app),
        }
    }
}

/// A sequence that passed the door, with its definition.
struct Admitted {
    job: NewJob,
    definition: Definition,
}

impl Admitted {
    fn of(app: &App, args: &SequenceArgs, conflict: IdConflictPolicy) -> anyhow::Result<Self> {
        let intake = app.intake()?;
        let job = app.admit_sequence(&intake, args.request(&intake, conflict)?)?;
        let definition = serde_json::from_value(job.input.clone())?;
        Ok(Self { job, definition })
    }

    fn tenants(&self) -> BTreeSet<String> {
        self.definition.steps.iter().map(|step| step.tenant.clone()).collect()
    }

    /// The activities with their tenants.
    fn activities(&self) -> BTreeSet<(&str, &str)> {
        self.definition.steps.iter().map(|step| (step.activity.as_str(), step.tenant.as_str())).collect()
    }
}

impl Execute {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let command = telemetry::command_span("sequence execute");
        let admitted = command.in_scope(|| Admitted::of(app, &self.sequence, IdConflictPolicy::UseExisting))?;
        for tenant in admitted.tenants() {
            app.require_tenant_here(&tenant)?;
        }
        execute::work(app, admitted.job, command).await
    }
}

impl Enqueue {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let command = telemetry::command_span("sequence enqueue");
        let admitted = command.in_scope(|| Admitted::of(app, &self.sequence, IdConflictPolicy::Fail))?;
        let host = app.open()?;
        let client = host.client();
        if self.require_worker {
            for (activity, tenant) in admitted.activities() {
                wait::require_worker(client, activity, tenant).await?;
            }
        }
        let tenants = admitted.tenants();
        let enqueued = enqueue::surely(client.as_ref(), admitted.job).await?;
        enqueue::warn_of_unset(app, &tenants);
        enqueue::note_existing(app, &enqueued);
        if !self.wait {
            enqueue::tell(app, &enqueued);
            return Ok(Exit::Passed);
        }
        let signals = Signals::listen()?;
        let target = Target::run(enqueued.job_id.clone(), enqueued.run_id);
        let waiting = Waiting { app, client, signals: &signals, timeout: self.timeout };
        let verdict = waiting.verdict(&target).await?;
        wait::conclude(client, app.out, &enqueued, verdict).await
    }
}

impl Show {
    fn run(self, app: &App) -> anyhow::Result<Exit> {
        let Admitted { job, definition } = Admitted::of(app, &self.sequence, IdConflictPolicy::Fail)?;
        let shown = serde_json::json!({"tenant": job.tenant, "priority": job.priority, "labels": job.labels,
            "schedule_to_close": job.options.timeouts.schedule_to_close.map(duration::format), "steps": definition.steps});
        app.out.data(&shown, || render::sequence(&job, &definition))?;
        Ok(Exit::Passed)
    }
}
