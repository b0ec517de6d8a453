//! `iolaus demo`: a sandbox, a worker and a dozen real jobs in one process, and nothing else needed.

mod board;
mod jobs;

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use iolaus_activities::tenant::TenantSettings;
use iolaus_activities::{VerdictRecord, shell_word};
use serde::Serialize;
use tokio::task::JoinSet;

use super::exit::{Exit, Problem};
use super::out::Out;
use super::sandbox::API_KEY;
use super::{App, render};
use crate::client::{JobClient, Target};
use crate::config::{Config, ConfigError, Environment};
use crate::sandbox::{Sandbox, SandboxOptions};
use board::Board;
use jobs::Sample;

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus demo
  iolaus demo --directory /tmp/first-look --output json";

/// How long the whole may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// See it all in one process: a sandbox, a worker and a dozen real jobs
#[derive(Debug, Clone, Args)]
#[command(
    after_help = EXAMPLES,
    long_about = "See it all in one process: a sandbox, a worker and a dozen real jobs, on loopback and in a directory of its own.\n\n\
        Your configuration, your queue and your tenants are not touched. The exit code is 0 only if every verdict is the expected one."
)]
pub(crate) struct Demo {
    /// Where to keep the queue; a new directory for temporary files if absent
    #[arg(long, value_name = "DIRECTORY", value_hint = clap::ValueHint::DirPath)]
    directory: Option<PathBuf>,
}

/// What a job of the demo came to.
#[derive(Debug, Clone, Serialize)]
struct Ended {
    title: &'static str,
    as_expected: bool,
    verdict: VerdictRecord,
}

/// A configuration for commands that need none of the user's: a mistake in it does not stop them.
pub(super) fn configure(environment: &Environment) -> Result<Config, ConfigError> {
    let kept = environment.iter().filter(|(name, _)| name == "IOLAUS_LOG" || name == "RUST_LOG").cloned();
    let nowhere = ("IOLAUS_DATABASE__PATH".into(), "/nonexistent/iolaus.db".into());
    Config::load(None, &kept.chain([nowhere]).collect())
}

impl Demo {
    pub(super) async fn run(self, mut app: App) -> anyhow::Result<Exit> {
        let directory = directory(self.directory)?;
        let options = SandboxOptions { running: Duration::from_millis(1_200), ..SandboxOptions::default() };
        let sandbox = Sandbox::start(options).await.context("the sandbox cannot listen on loopback")?;
        prepare(&mut app.config, &directory, &sandbox);
        let app = app;
        if !app.out.is_json() {
            app.out.line(&format!("directory  {}\nsandbox    {}\n", directory.display(), sandbox.base_url()))?;
        }
        let host = app.open()?;
        let worker = host.start_worker(&app).await?;
        let samples = jobs::samples();
        let began = app.clock.monotonic();
        let ended = tokio::select! {
            biased;
            ended = work(&app, host.client(), &sandbox, &samples) => ended?,
            () = app.clock.deadline(PATIENCE) => return Err(Problem::unusable("the demo did not end in 30 s").into()),
        };
        let took = app.clock.monotonic().saturating_sub(began);
        worker.drain().await?;
        let url = sandbox.base_url();
        sandbox.stop().await;
        conclude(app.out, &directory, &url, &ended, took)
    }
}

fn directory(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let directory = match asked {
        Some(directory) => std::path::absolute(directory).context("the directory has no absolute name")?,
        None => std::env::temp_dir().join(format!("iolaus-demo-{}", &uuid::Uuid::new_v4().simple().to_string()[..8])),
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|error| {
        Problem::usage(format!("directory {} cannot be made: {error}", directory.display())).hint("name another with --directory")
    })?;
    Ok(directory)
}

fn prepare(config: &mut Config, directory: &Path, sandbox: &Sandbox) {
    config.database.path = directory.join("iolaus.db");
    let tenant = TenantSettings {
        base_url: sandbox.base_url(),
        api_key: Some(API_KEY.into()),
        poll_interval: Duration::from_millis(200),
        ..TenantSettings::default()
    };
    config.tenants = [("default".to_owned(), tenant)].into();
}

/// Enqueues everything and waits for every verdict, in the order of the samples.
async fn work(app: &App, client: &Arc<dyn JobClient>, sandbox: &Sandbox, samples: &[Sample]) -> anyhow::Result<Vec<Ended>> {
    let intake = app.intake()?;
    let mut board = Board::new(app.out, samples);
    let mut waits = JoinSet::new();
    let mut verdicts: Vec<Option<VerdictRecord>> = vec![None; samples.len()];
    for (n, sample) in samples.iter().enumerate() {
        if let Some(fault) = &sample.fault {
            sandbox.add_fault(fault.clone());
        }
        let job = app.admit(&intake, sample.request(n))?;
        let enqueued = client.enqueue(job).await?;
        board.enqueued(n, Target::run(enqueued.job_id, enqueued.run_id));
        let (client, target) = (client.clone(), board.target(n));
        let wait = async move { client.wait(target).await.map(|verdict| (n, verdict)) };
        if sample.fault.is_some() {
            // The fault is meant for this job alone.
            verdicts[n] = Some(wait.await?.1);
        } else {
            waits.spawn(wait);
        }
    }
    loop {
        board.draw(client, &verdicts).await;
        tokio::select! {
            biased;
            ended = waits.join_next() => match ended {
                None => break,
                Some(ended) => {
                    let (n, verdict) = ended.context("a wait failed")??;
                    verdicts[n] = Some(verdict);
                }
            },
            () = app.clock.sleep(board::LOOK) => {}
        }
    }
    board.draw(client, &verdicts).await;
    Ok(samples.iter().zip(verdicts).filter_map(|(sample, verdict)| Some(sample.judge(verdict?))).collect())
}

fn conclude(out: Out, directory: &Path, url: &str, ended: &[Ended], took: Duration) -> anyhow::Result<Exit> {
    let expected = ended.iter().filter(|ended| ended.as_expected).count();
    let well = expected == ended.len();
    let exit = if well { Exit::Passed } else { Exit::Failed };
    if out.is_json() {
        out.json(&serde_json::json!({
            "as_expected": well, "duration_ms": took.as_millis(), "directory": directory, "jobs": ended,
        }))?;
        return Ok(exit);
    }
    for (n, ended) in ended.iter().enumerate() {
        let mark = if ended.as_expected { "" } else { "   <- NOT EXPECTED" };
        out.line(&format!("{}. {}{mark}\n{}", n + 1, ended.title, render::verdict(&ended.verdict, out.has_colour())))?;
    }
    let port = url.rsplit(':').next().unwrap_or("8100");
    out.line(&format!(
        "{expected} of {} verdicts are the expected ones, in {}.",
        ended.len(),
        render::milliseconds(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    ))?;
    out.line(&next(directory, port))?;
    Ok(exit)
}

fn next(directory: &Path, port: &str) -> String {
    let database = directory.join("iolaus.db");
    format!(
        "
Try next:
  iolaus sandbox --listen 127.0.0.1:{port} &
  export ATLAN_BASE_URL=http://127.0.0.1:{port} ATLAN_API_KEY={API_KEY}
  iolaus execute publish_preflight user_id={} \\
      connection_qualified_name={}
  iolaus execute workflow_rerun type=snowflake
  iolaus doctor
  IOLAUS_DATABASE__PATH={} iolaus jobs list

The queue of this demo is all that stays, in {}; that directory may be deleted.",
        jobs::USER,
        jobs::CONNECTION,
        shell_word(&database.display().to_string()),
        directory.display()
    )
}
