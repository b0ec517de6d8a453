//! `iolaus jobs retry`: a closed job again, or many by filter.

use std::str::FromStr;

use clap::Args;

use crate::cli::App;
use crate::cli::exit::{Exit, Problem};
use crate::cli::input::utf8;
use crate::cli::render::plain_line;
use crate::client::{Enqueued, RetryFilter, Target};
use crate::job::{JobId, JobState, RunId};

/// Open a new execution of a closed job, or of many: same id, input and options
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "\
Examples:
  iolaus jobs retry nightly
  iolaus jobs retry nightly --accept-duplicate
  iolaus jobs retry --state discarded --activity workflow_rerun --code tenant.unavailable --dry-run",
    long_about = "Open a new execution of a closed job, or of many: same id, input and options, attempt 1.\n\n\
        With filters instead of an id: every discarded or cancelled job that matches all of them, oldest first, if nothing newer of the \
        same id is there. A few are retried in each transaction, so that it may be interrupted and said again."
)]
pub(crate) struct Retry {
    /// The job's id
    #[arg(value_name = "JOB_ID", value_parser = JobId::from_str, required_unless_present_any = ["states", "activity", "tenant", "code"])]
    job_id: Option<JobId>,
    /// One execution of it; the newest if absent
    #[arg(long, value_name = "RUN_ID", value_parser = RunId::from_str, requires = "job_id")]
    run_id: Option<RunId>,
    /// Every job in this state: discarded or cancelled. May be repeated
    #[arg(long = "state", value_name = "STATE", value_parser = JobState::from_str, conflicts_with = "job_id")]
    states: Vec<JobState>,
    /// Every dead job of this activity
    #[arg(long, value_name = "NAME", value_parser = utf8(), conflicts_with = "job_id")]
    activity: Option<String>,
    /// Every dead job of this tenant
    #[arg(long, value_name = "NAME", value_parser = utf8(), conflicts_with = "job_id")]
    tenant: Option<String>,
    /// Every dead job whose verdict has this failure code
    #[arg(long, value_name = "CODE", value_parser = utf8(), conflicts_with = "job_id")]
    code: Option<String>,
    /// Only tell which would be retried
    #[arg(long, conflicts_with = "job_id")]
    dry_run: bool,
    /// Retry although a run may have been started whose fate is unknown, so that there may be two
    #[arg(long)]
    accept_duplicate: bool,
}

impl Retry {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let host = app.open()?;
        let Some(job_id) = self.job_id else { return self.matching(app, &host).await };
        let enqueued = host.client().retry(Target { job_id, run_id: self.run_id }, self.accept_duplicate).await?;
        app.out.outcome(&enqueued, || format!("{} is open again as run {}", enqueued.job_id, enqueued.run_id));
        Ok(Exit::Passed)
    }

    async fn matching(self, app: &App, host: &crate::cli::host::Host) -> anyhow::Result<Exit> {
        let filter = RetryFilter {
            states: self.states,
            activity: self.activity,
            tenant: self.tenant,
            code: self.code,
            accept_duplicate: self.accept_duplicate,
            dry_run: self.dry_run,
        };
        let (mut retried, mut skipped, mut cursor) = (0_u64, 0_u64, None);
        loop {
            let page = host.client().retry_matching(filter.clone(), cursor).await?;
            for enqueued in &page.retried {
                retried += 1;
                tell(app, enqueued);
            }
            for left_out in &page.skipped {
                skipped += 1;
                let instead = left_out.instead.as_deref().map_or_else(String::new, |instead| format!("; instead: {instead}"));
                app.out.note(&plain_line(&format!("{} may start a second run, and was left out{instead}", left_out.job_id)));
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        let done = if filter.dry_run { "would be retried" } else { "retried" };
        app.out.note(&format!("{retried} {done}, {skipped} left out"));
        if skipped > 0 && !filter.dry_run {
            return Err(Problem::usage(format!("{skipped} jobs ended as rerun.ambiguous and were not retried"))
                .hint("--accept-duplicate retries them, too, and may start second runs")
                .into());
        }
        Ok(Exit::Passed)
    }
}

fn tell(app: &App, enqueued: &Enqueued) {
    app.out.outcome(enqueued, || plain_line(enqueued.job_id.as_str()));
}
