//! `iolaus jobs`: list, show, wait, cancel, retry.

mod retry;

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use iolaus_activities::{duration, shell_word, timestamp};

use super::exit::Exit;
use super::input::utf8;
use super::render::{self, table};
use super::signals::Signals;
use super::wait::{self, Waiting};
use super::{App, wait::require_worker};
use crate::client::{Cancelled, Enqueued, ListFilter, Target};
use crate::job::{Job, JobId, JobState, Refused, RunId};

/// List, show, wait for, cancel and retry jobs
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  iolaus jobs list --state running --state retryable
  iolaus jobs show nightly")]
pub(crate) enum Jobs {
    List(List),
    Show(Show),
    Wait(Wait),
    Cancel(Cancel),
    Retry(retry::Retry),
}

/// Jobs, newest first
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus jobs list
  iolaus jobs list --state discarded --activity workflow_rerun --limit 20 --output json")]
pub(crate) struct List {
    /// Only this state: open, which is scheduled, available, running or retryable; completed, discarded or cancelled. May be repeated
    #[arg(long = "state", value_name = "STATE", value_parser = states)]
    states: Vec<States>,
    /// Only this activity
    #[arg(long, value_name = "NAME", value_parser = utf8())]
    activity: Option<String>,
    /// Only this tenant
    #[arg(long, value_name = "NAME", value_parser = utf8())]
    tenant: Option<String>,
    /// How many, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Where to go on, as the page before said
    #[arg(long, value_name = "CURSOR", value_parser = utf8())]
    cursor: Option<String>,
}

/// One job with all that is known of it
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus jobs show nightly
  iolaus jobs show nightly --run-id 019b0a7e-0000-7000-8000-000000000000 --output json")]
pub(crate) struct Show {
    #[command(flatten)]
    which: Which,
}

/// Wait for the verdict of a job and exit by it
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus jobs wait nightly
  iolaus jobs wait nightly --timeout 10m --require-worker")]
pub(crate) struct Wait {
    #[command(flatten)]
    which: Which,
    /// At most so long; then exit with 5, and the job goes on
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Exit with 6 unless a live worker runs the activity
    #[arg(long)]
    require_worker: bool,
}

/// Cancel a job; one that runs is asked to stop
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus jobs cancel nightly --reason 'the source is down'")]
pub(crate) struct Cancel {
    #[command(flatten)]
    which: Which,
    /// Why, for the verdict
    #[arg(long, value_name = "TEXT", value_parser = utf8())]
    reason: Option<String>,
}

/// Which execution.
#[derive(Debug, Clone, Args)]
struct Which {
    /// The job's id
    #[arg(value_name = "JOB_ID", value_parser = JobId::from_str)]
    job_id: JobId,
    /// One execution of it; the newest if absent
    #[arg(long, value_name = "RUN_ID", value_parser = RunId::from_str)]
    run_id: Option<RunId>,
}

impl Which {
    fn target(self) -> Target {
        Target { job_id: self.job_id, run_id: self.run_id }
    }
}

impl Jobs {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        match self {
            Self::List(list) => list.run(app).await,
            Self::Show(show) => show.run(app).await,
            Self::Wait(wait) => wait.run(app).await,
            Self::Cancel(cancel) => cancel.run(app).await,
            Self::Retry(retry) => retry.run(app).await,
        }
    }
}

impl List {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let states = self.states.into_iter().flat_map(|states| states.0).collect();
        let filter = ListFilter { states, activity: self.activity, tenant: self.tenant };
        let host = app.open()?;
        let page = host.client().list(filter, usize::from(self.limit), self.cursor).await?;
        let rows: Vec<Vec<String>> = page.jobs.iter().map(row).collect();
        app.out.data(&page, || table(&["JOB ID", "ACTIVITY", "TENANT", "STATE", "ATTEMPTS", "ENQUEUED", "FINISHED"], &rows))?;
        if let Some(cursor) = page.next_cursor.filter(|_| !app.out.is_json()) {
            app.out.note(&format!("there are more: --cursor {cursor}"));
        }
        if host.lists_lag() {
            app.out.note("a cluster's list may be some seconds behind; iolaus jobs show JOB_ID is not");
        }
        Ok(Exit::Passed)
    }
}

/// One state, or all the open ones.
#[derive(Debug, Clone)]
pub(crate) struct States(Vec<JobState>);

fn states(text: &str) -> Result<States, Refused> {
    match text {
        "open" => Ok(States(JobState::ALL.into_iter().filter(|state| state.is_open()).collect())),
        state => state.parse().map(|state| States(vec![state])),
    }
}

fn row(job: &Job) -> Vec<String> {
    vec![
        job.job_id.to_string(),
        job.activity.clone(),
        job.tenant.clone(),
        job.state.to_string(),
        job.attempts.to_string(),
        timestamp::format(job.enqueued_at),
        render::moment(job.finished_at),
    ]
}

impl Show {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let mut detail = app.open()?.client().get(self.which.target()).await?;
        if !detail.job.state.is_open() {
            // What the last attempt was about to do, which the verdict has overtaken.
            detail.progress = None;
        }
        app.out.data(&detail, || render::detail(&detail, app.out.has_colour()))?;
        Ok(Exit::Passed)
    }
}

impl Wait {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let signals = Signals::listen()?;
        let host = app.open()?;
        let client = host.client();
        // The execution that is the newest now, so that a retry meanwhile does not change what is waited for.
        let detail = client.get(self.which.target()).await?;
        if self.require_worker && detail.job.state.is_open() {
            let job = detail.at_hand();
            require_worker(client, &job.activity, &job.tenant).await?;
        }
        let job = detail.job;
        let job = Enqueued::opened(job.job_id, job.run_id);
        let target = Target::run(job.job_id.clone(), job.run_id);
        let waiting = Waiting { app, client, signals: &signals, timeout: self.timeout };
        let verdict = waiting.verdict(&target).await?;
        wait::conclude(client, app.out, &job, verdict).await
    }
}

impl Cancel {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let job_id = self.which.job_id.clone();
        let (host, target) = (app.open()?, self.which.target());
        let client = host.client();
        let cancelled = client.cancel(target.clone(), self.reason).await?;
        let said = serde_json::json!({"job_id": job_id, "cancel": cancelled});
        app.out.outcome(&said, || match cancelled {
            Cancelled::Closed => format!("{job_id} is cancelled"),
            Cancelled::Requested => {
                let word = shell_word(job_id.as_str());
                format!("{job_id} runs and was asked to stop; iolaus jobs wait {word} tells how it ends")
            }
            Cancelled::LastAttempt => {
                let word = shell_word(job_id.as_str());
                format!("{job_id} gets one last attempt, which undoes what it began; iolaus jobs wait {word} tells how it ends")
            }
            Cancelled::AlreadyClosed => format!("{job_id} was closed already; nothing changed"),
        });
        if cancelled == Cancelled::LastAttempt {
            for line in wait::waits_for(app, client, &target).await {
                app.out.note(&line);
            }
        }
        Ok(Exit::Passed)
    }
}
