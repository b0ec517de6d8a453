//! `iolaus execute`: one job, worked in this process, and its verdict.

mod unreached;

use clap::Args;
use iolaus_activities::shell_word;
use tracing::{Instrument, Span};

use super::args::JobArgs;
use super::exit::Exit;
use super::host::Executed;
use super::input::utf8;
use super::signals::Signals;
use super::wait::{self, By};
use super::{App, enqueue, render};
use crate::client::Target;
use crate::job::{IdConflictPolicy, NewJob};
use crate::telemetry;

pub(crate) use unreached::unreached;

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus execute publish_preflight \\
      user_id=8c1e2d8a-1564-4e95-8b14-ea14522fcf61 \\
      connection_qualified_name=default/snowflake/1234567890
  iolaus execute workflow_rerun type=snowflake since=2026-01-31T02:00:00Z --job-id nightly
  iolaus execute await_completion run=csa-api-token-connection-admin-1684500411-t7s8b timeout=2h";

/// Enqueue a job, work it in this process, print its verdict, exit by it
#[derive(Debug, Clone, Args)]
#[command(
    after_help = EXAMPLES,
    long_about = "Enqueue a job, work it in this process, print its verdict, exit by it.\n\n\
        No worker is needed. If a job of the same id is open for the same activity and tenant, it is worked here when no live worker \
        holds it, else waited for; the output then has `existing: true`, and `input_differs: true` if it was asked something else.\n\
        A tenant that no attempt reaches (a wrong address, a redirect, a certificate) ends the command with 5 after \
        worker.unreached_timeout; the job stays open.\n\
        SIGTERM, SIGHUP and Ctrl-C give the job back and exit with 5; the same command continues where it stopped."
)]
pub(crate) struct Execute {
    /// What to do, as in `publish_preflight`
    #[arg(value_name = "ACTIVITY", value_parser = utf8())]
    activity: String,
    #[command(flatten)]
    job: JobArgs,
}

impl Execute {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let intake = app.intake()?;
        let info = intake.activities().find(|info| info.name == self.activity);
        let request = self.job.request(&self.activity, info, IdConflictPolicy::UseExisting)?;
        let command = telemetry::command_span("execute");
        let job = command.in_scope(|| app.admit(&intake, request))?;
        app.require_tenant_here(&job.tenant)?;
        work(app, job, command).await
    }
}

/// Enqueues a job, or a sequence, and works it here.
pub(super) async fn work(app: &App, job: NewJob, command: Span) -> anyhow::Result<Exit> {
    let signals = Signals::listen()?;
    let host = app.open()?;
    host.check_may_work()?;
    app.out.progress(&format!("{}: {} on {}", job.job_id, job.activity, host.client().place()));
    let began = app.clock.monotonic();
    let enqueued = enqueue::surely(host.client().as_ref(), job).instrument(command.clone()).await?;
    enqueue::note_existing(app, &enqueued);
    let target = Target::run(enqueued.job_id.clone(), enqueued.run_id);
    let by = if host.works_here() { By::Us } else { By::Others };
    let executed = tokio::select! {
        biased;
        executed = host.execute(app, &enqueued, signals).instrument(command) => executed?,
        never = wait::watch(app, host.client(), &target, by) => match never {},
    };
    match executed {
        Executed::Verdict(verdict) => {
            app.out.outcome(&enqueue::Answered::new(&*verdict, &enqueued), || render::verdict(&verdict, app.out.has_colour()));
            Ok(Exit::of_status(verdict.status))
        }
        Executed::NotYet(why) => {
            let detail = host.client().get(target).await?;
            let answered = enqueue::Answered::new(&detail.job, &enqueued);
            app.out.outcome(&answered, || render::detail(&detail, app.out.has_colour()));
            let after = app.clock.monotonic().saturating_sub(began).as_secs();
            let word = shell_word(enqueued.job_id.as_str());
            app.out.note(&format!("not yet, after {after} s: {why}; continue with the same command and --job-id {word}"));
            Ok(Exit::NotYet)
        }
    }
}
