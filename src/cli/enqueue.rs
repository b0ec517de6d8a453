//! `iolaus enqueue`: store jobs durably, one from arguments or many from JSON lines. All of a file is checked before any of it is
//! stored.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use iolaus_activities::duration;
use tokio::task::JoinSet;

use super::args::JobArgs;
use super::exit::{Exit, Problem};
use super::host::how_to_set;
use super::input::{self, utf8};
use super::signals::Signals;
use super::wait::{self, Waiting};
use super::{App, render};
use crate::client::{ClientError, Enqueued, JobClient, Target};
use crate::intake::{Intake, JobRequest};
use crate::job::{IdConflictPolicy, NewJob};
use crate::telemetry;

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus enqueue publish_preflight \\
      user_id=8c1e2d8a-1564-4e95-8b14-ea14522fcf61 \\
      connection_qualified_name=default/snowflake/1234567890
  iolaus enqueue workflow_rerun type=snowflake --job-id nightly --wait --timeout 2h
  echo '{\"activity\": \"workflow_rerun\", \"input\": {\"type\": \"snowflake\"}}' | iolaus enqueue --jobs -";

/// What describes one job, and would be ignored beside many.
const OF_ONE_JOB: [&str; 11] = [
    "words",
    "input",
    "input_file",
    "job_id",
    "id_conflict_policy",
    "id_reuse_policy",
    "tenant",
    "labels",
    "priority",
    "delay",
    "OptionArgs",
];
/// The most that a file of jobs may have, in bytes.
const FILE: u64 = 256 * 1024 * 1024;
/// Jobs on their way to the queue at once. They share commits.
const AT_ONCE: usize = 256;
/// How often an enqueue of unknown fate is sent again, with the same ids.
const SENDS: u32 = 3;

/// Store a job durably and print its id
#[derive(Debug, Clone, Args)]
#[command(
    after_help = EXAMPLES,
    long_about = "Store a job durably and print its id, alone on its line.\n\n\
        With --output json a line is {job_id, run_id, existing}. With --wait the verdict is printed instead, and the exit code is its own.\n\
        Many jobs come as JSON lines (`iolaus schema job_request`); without --on-error skip, one bad line stores nothing."
)]
pub(crate) struct Enqueue {
    /// What to do, as in `publish_preflight`
    #[arg(value_name = "ACTIVITY", required_unless_present = "jobs", conflicts_with = "jobs", value_parser = utf8())]
    activity: Option<String>,
    #[command(flatten)]
    job: JobArgs,
    /// Many jobs, as JSON lines in a file; `-` is stdin
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with_all = OF_ONE_JOB)]
    jobs: Option<PathBuf>,
    /// What a bad line does: store nothing, or skip that line and exit with 2 in the end
    #[arg(long, value_name = "WHAT", default_value = "stop", requires = "jobs")]
    on_error: OnError,
    /// Wait for the verdict
    #[arg(long)]
    wait: bool,
    /// Wait at most so long; then exit with 5, and the job goes on
    #[arg(long, value_name = "TIME", value_parser = duration::parse, requires = "wait")]
    timeout: Option<Duration>,
    /// Store nothing unless a live worker runs the activity; exit with 6 otherwise
    #[arg(long)]
    require_worker: bool,
}

/// What a bad line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnError {
    Stop,
    Skip,
}

/// Jobs that passed the door, and how bad the rest was.
struct Admitted {
    jobs: Vec<NewJob>,
    exit: Exit,
}

impl Enqueue {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let intake = app.intake()?;
        let admitted = self.admit(app, &intake)?;
        let host = app.open()?;
        let client = host.client();
        if self.require_worker {
            let mut names: Vec<&str> = admitted.jobs.iter().map(|job| job.activity.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                wait::require_worker(client, name).await?;
            }
        }
        let tenants: BTreeSet<String> = admitted.jobs.iter().map(|job| job.tenant.clone()).collect();
        let mut exit = admitted.exit;
        let mut open = Vec::new();
        let mut jobs = admitted.jobs.into_iter();
        loop {
            let some: Vec<NewJob> = jobs.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            for stored in store(client, some).await {
                match stored {
                    Ok(enqueued) if self.wait => open.push(Target::run(enqueued.job_id, enqueued.run_id)),
                    Ok(enqueued) => tell(app, &enqueued)?,
                    // Among many, one job that is refused by its id does not hide what became of the others.
                    Err(error) if self.jobs.is_some() && !matches!(error, ClientError::Unavailable { .. }) => {
                        app.out.note(&format!("error: {error}"));
                        exit = exit.worst(Exit::Usage);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        warn_of_unset(app, &tenants);
        Ok(exit.worst(self.wait_for(app, client, open).await?))
    }

    /// The verdicts of what was stored, in order, all within one time.
    async fn wait_for(&self, app: &App, client: &Arc<dyn JobClient>, open: Vec<Target>) -> anyhow::Result<Exit> {
        let signals = Signals::listen(&app.clock)?;
        let began = app.clock.monotonic();
        let mut exit = Exit::Passed;
        for target in open {
            let passed = app.clock.monotonic().saturating_sub(began);
            let timeout = self.timeout.map(|timeout| timeout.saturating_sub(passed));
            let waiting = Waiting { app, client, signals: &signals, timeout };
            let verdict = waiting.verdict(&target).await?;
            exit = exit.worst(wait::conclude(client, app.out, &target, verdict).await?);
        }
        Ok(exit)
    }

    /// Everything that was asked for, through the door.
    fn admit(&self, app: &App, intake: &Intake) -> anyhow::Result<Admitted> {
        let Some(file) = &self.jobs else {
            let activity = self.activity.as_deref().unwrap_or_default();
            let info = intake.activities().find(|info| info.name == activity);
            let request = self.job.request(activity, info, IdConflictPolicy::Fail)?;
            let job = telemetry::command_span("enqueue").in_scope(|| app.admit(intake, request))?;
            return Ok(Admitted { jobs: vec![job], exit: Exit::Passed });
        };
        let text = input::read(file, FILE)?;
        let mut admitted = Admitted { jobs: Vec::new(), exit: Exit::Passed };
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match request(line).and_then(|request| app.admit(intake, request)) {
                Ok(job) => admitted.jobs.push(job),
                Err(error) if self.on_error == OnError::Skip => {
                    app.out.note(&format!("line {}: {error:#}; skipped", n + 1));
                    admitted.exit = Exit::Usage;
                }
                Err(error) => {
                    let problem = Problem::usage(format!("line {}: {error:#}; nothing was stored", n + 1));
                    return Err(problem.hint("--on-error skip stores the good lines").into());
                }
            }
        }
        Ok(admitted)
    }
}

/// The worker may stand elsewhere, with a configuration of its own; if it stands here, it lacks the address too.
fn warn_of_unset(app: &App, tenants: &BTreeSet<String>) {
    let unset = |name: &&String| app.config.tenant(name).is_some_and(|tenant| tenant.base_url.trim().is_empty());
    for name in tenants.iter().filter(unset) {
        let mend = how_to_set(name, "base_url");
        app.out.note(&format!("warning: tenants.{name}.base_url is not set here; a worker needs it and an API key: {mend}"));
    }
}

fn tell(app: &App, enqueued: &Enqueued) -> std::io::Result<()> {
    if app.out.is_json_asked_for() { app.out.json(enqueued) } else { app.out.line(&render::plain_line(enqueued.job_id.as_str())) }
}

fn request(line: &str) -> anyhow::Result<JobRequest> {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let request = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if path == "." { Problem::usage(inner.to_string()) } else { Problem::usage(format!("{path}: {inner}")) }
    })?;
    deserializer.end().map_err(|error| Problem::usage(error.to_string()))?;
    Ok(request)
}

/// Stores jobs at once and answers in their order.
async fn store(client: &Arc<dyn JobClient>, jobs: Vec<NewJob>) -> Vec<Result<Enqueued, ClientError>> {
    let mut tasks = JoinSet::new();
    for (n, job) in jobs.into_iter().enumerate() {
        let client = client.clone();
        tasks.spawn(async move { (n, surely(client.as_ref(), job).await) });
    }
    let mut stored = tasks.join_all().await;
    stored.sort_unstable_by_key(|(n, _)| *n);
    stored.into_iter().map(|(_, enqueued)| enqueued).collect()
}

/// Stores a job. One of unknown fate is sent again with the same ids, and finding itself there is success.
async fn surely(client: &dyn JobClient, job: NewJob) -> Result<Enqueued, ClientError> {
    let run_id = job.run_id;
    let mut sends = 1;
    loop {
        match client.enqueue(job.clone()).await {
            Err(ClientError::Unavailable { unknown: true, .. }) if sends < SENDS => sends += 1,
            Err(ClientError::Conflict { job_id, run_id: theirs, .. }) if sends > 1 && theirs == run_id => {
                return Ok(Enqueued { job_id, run_id, existing: false });
            }
            other => return other,
        }
    }
}
