//! `iolaus enqueue`: store jobs durably, one from arguments or many from JSON lines.

mod source;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use iolaus_activities::{duration, shell_word};
use serde::Serialize;

use super::args::JobArgs;
use super::exit::Exit;
use super::host::how_to_set;
use super::input::utf8;
use super::signals::Signals;
use super::wait::{self, Waiting};
use super::{App, render};
use crate::client::{ClientError, Enqueued, JobClient, Target};
use crate::intake::Intake;
use crate::job::{IdConflictPolicy, NewJob};
use crate::telemetry;
use source::{Lines, Source};

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
/// How often an enqueue of unknown fate is sent again, with the same ids.
const SENDS: u32 = 3;

/// Store a job durably and print its id
#[derive(Debug, Clone, Args)]
#[command(
    after_help = EXAMPLES,
    long_about = "Store a job durably and print its id, alone on its line.\n\n\
        With --output json a line is {job_id, run_id, existing}. With --wait the verdict is printed instead, and the exit code is its own.\n\
        Many jobs come as JSON lines (`iolaus schema job_request`), and are stored a few hundred in each transaction. All of a file is \
        checked first, and one bad line stores nothing; with --on-error skip, lines are stored as they come, however many there are."
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

impl Enqueue {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let intake = app.intake()?;
        let mut source = self.source(app, &intake)?;
        let host = app.open()?;
        let client = host.client();
        let mut watched = BTreeSet::new();
        if self.require_worker {
            watched = source.activities();
            for (activity, tenant) in &watched {
                wait::require_worker(client, activity, tenant).await?;
            }
        }
        let (mut tenants, mut exit, mut open) = (BTreeSet::new(), Exit::Passed, Vec::new());
        loop {
            let jobs = source.chunk(app, &intake)?;
            if jobs.is_empty() {
                break;
            }
            for job in &jobs {
                tenants.insert(job.tenant.clone());
                if self.require_worker && watched.insert((job.activity.clone(), job.tenant.clone())) {
                    wait::require_worker(client, &job.activity, &job.tenant).await?;
                }
            }
            for stored in store(client, jobs).await? {
                if let Ok(enqueued) = &stored {
                    note_existing(app, enqueued);
                }
                match stored {
                    Ok(enqueued) if self.wait => open.push(enqueued),
                    Ok(enqueued) => tell(app, &enqueued),
                    // Among many, one job that is refused by its id does not hide what became of the others.
                    Err(error) if self.jobs.is_some() => {
                        app.out.note(&format!("error: {error}"));
                        exit = exit.worst(Exit::Usage);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        warn_of_unset(app, &tenants);
        Ok(exit.worst(source.exit()).worst(self.wait_for(app, client, open).await?))
    }

    /// What was asked for.
    fn source(&self, app: &App, intake: &Intake) -> anyhow::Result<Source> {
        match (&self.jobs, self.on_error) {
            (Some(file), OnError::Stop) => Source::checked(app, intake, file),
            (Some(file), OnError::Skip) => Ok(Source::Lines(Lines::open(file)?)),
            (None, _) => {
                let activity = self.activity.as_deref().unwrap_or_default();
                let info = intake.activities().find(|info| info.name == activity);
                let request = self.job.request(activity, info, IdConflictPolicy::Fail)?;
                let job = telemetry::command_span("enqueue").in_scope(|| app.admit(intake, request))?;
                Ok(Source::all(vec![job]))
            }
        }
    }

    /// The verdicts of what was stored, in order, all within one time.
    async fn wait_for(&self, app: &App, client: &Arc<dyn JobClient>, open: Vec<Enqueued>) -> anyhow::Result<Exit> {
        let signals = Signals::listen()?;
        let began = app.clock.monotonic();
        let mut exit = Exit::Passed;
        for enqueued in open {
            let target = Target::run(enqueued.job_id.clone(), enqueued.run_id);
            let passed = app.clock.monotonic().saturating_sub(began);
            let timeout = self.timeout.map(|timeout| timeout.saturating_sub(passed));
            let waiting = Waiting { app, client, signals: &signals, timeout };
            let verdict = waiting.verdict(&target).await?;
            exit = exit.worst(wait::conclude(client, app.out, &enqueued, verdict).await?);
        }
        Ok(exit)
    }
}

/// The worker may stand elsewhere, with a configuration of its own; if it stands here, it lacks the address too.
pub(crate) fn warn_of_unset(app: &App, tenants: &BTreeSet<String>) {
    let unset = |name: &&String| app.config.tenant(name).is_some_and(|tenant| tenant.base_url.trim().is_empty());
    for name in tenants.iter().filter(unset) {
        let hint = how_to_set(name, "base_url");
        app.out.note(&format!("warning: tenants.{name}.base_url is not set here; a worker needs it and an API key: {hint}"));
    }
}

/// An answer about an execution that was open before this command says so.
#[derive(Debug, Serialize)]
pub(crate) struct Answered<'a, T: Serialize> {
    #[serde(flatten)]
    answer: &'a T,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    existing: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    input_differs: bool,
}

impl<'a, T: Serialize> Answered<'a, T> {
    pub(crate) fn new(answer: &'a T, enqueued: &Enqueued) -> Self {
        Self { answer, existing: enqueued.existing, input_differs: enqueued.input_differs }
    }
}

/// Says on stderr that a job was open before this command, and that it was asked something else.
pub(crate) fn note_existing(app: &App, enqueued: &Enqueued) {
    if !enqueued.existing {
        return;
    }
    let (id, word) = (&enqueued.job_id, shell_word(enqueued.job_id.as_str()));
    let text = if enqueued.input_differs {
        format!(
            "warning: {id} was open already, with another input: its verdict is about that input, and not about this one; \
             iolaus jobs show {word} shows it"
        )
    } else {
        format!("{id} was open already: this is about the open job, and nothing was stored")
    };
    app.out.note(&render::plain_line(&text));
}

/// Tells the id of what was stored, on stderr if stdout takes nothing.
pub(crate) fn tell(app: &App, enqueued: &Enqueued) {
    let id = render::plain_line(enqueued.job_id.as_str());
    let told = if app.out.is_json_asked_for() { app.out.json(enqueued) } else { app.out.line(&id) };
    app.out.surely(told, enqueued);
}

/// Stores jobs in one transaction, and answers in their order. One of unknown fate is sent again with the same ids.
async fn store(client: &Arc<dyn JobClient>, jobs: Vec<NewJob>) -> Result<Vec<Result<Enqueued, ClientError>>, ClientError> {
    let mut sends = 1;
    loop {
        match client.enqueue_many(jobs.clone()).await {
            Err(ClientError::Unavailable { unknown: true, .. }) if sends < SENDS => sends += 1,
            other => return other,
        }
    }
}

/// Stores a job. One of unknown fate is sent again with the same ids, and finding itself there is success.
pub(crate) async fn surely(client: &dyn JobClient, job: NewJob) -> Result<Enqueued, ClientError> {
    let run_id = job.run_id;
    let mut sends = 1;
    loop {
        match client.enqueue(job.clone()).await {
            Err(ClientError::Unavailable { unknown: true, .. }) if sends < SENDS => sends += 1,
            Err(ClientError::Conflict { job_id, run_id: theirs, .. }) if sends > 1 && theirs == run_id => {
                return Ok(Enqueued::opened(job_id, run_id));
            }
            other => return other,
        }
    }
}
