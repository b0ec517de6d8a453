//! The command line: one file per command, exit codes in [`exit`], data to stdout and all else to stderr. It reaches jobs through
//! [`JobClient`](crate::client::JobClient) alone; `host` is the one file that knows which host that is.

mod args;
mod bench;
mod clean;
mod completions;
mod confirm;
mod demo;
pub mod descriptors;
mod doctor;
mod enqueue;
mod execute;
pub mod exit;
mod fsck;
mod host;
mod input;
mod jobs;
mod oauth_clients;
pub mod out;
mod pause;
mod render;
mod runs;
mod sandbox;
mod schema;
mod sequence;
pub mod signals;
mod status;
mod strict_json;
mod tenant_args;
pub mod threads;
mod tokens;
mod wait;
mod whoami;
mod worker;
mod workflows;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use iolaus_activities::{Clock, SystemClock};

use crate::config::{Config, ConfigError, Environment};
use crate::telemetry::{Meters, TelemetrySettings};

use exit::Exit;
use out::{Out, OutputFormat};

const EXAMPLES: &str = "\
Examples:
  iolaus demo                                           see it all in one process
  iolaus execute workflow_rerun type=snowflake          one job, and its verdict
  iolaus worker                                         work what others enqueue
  iolaus enqueue workflow_rerun type=snowflake --wait   one job for a worker

Exit codes:
  0 passed, 1 failed, 2 usage or bad input, 3 unresolved, 4 cancelled, 5 not yet,
  6 queue or host unusable";

/// A durable activity worker for Atlan tenants
#[derive(Debug, Clone, Parser)]
#[command(name = "iolaus", version, after_help = EXAMPLES, propagate_version = true, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct Global {
    /// The configuration file [default: `IOLAUS_CONFIG`, else `~/.config/iolaus/config.toml` if there is one]
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// How data is written to stdout [default: text on a terminal, one line of JSON otherwise]
    #[arg(long, global = true, value_name = "FORMAT")]
    output: Option<OutputFormat>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Execute(execute::Execute),
    Enqueue(enqueue::Enqueue),
    #[command(subcommand)]
    Sequence(sequence::Sequence),
    Worker(worker::Worker),
    Status(status::Status),
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    #[command(subcommand)]
    Pause(pause::Pause),
    #[command(subcommand)]
    Resume(pause::Resume),
    #[command(subcommand)]
    Workflows(workflows::Workflows),
    #[command(subcommand)]
    Runs(runs::Runs),
    #[command(subcommand, name = "oauth-clients")]
    OAuthClients(oauth_clients::OAuthClients),
    #[command(subcommand)]
    Tokens(tokens::Tokens),
    Whoami(whoami::Whoami),
    Doctor(doctor::Doctor),
    Fsck(fsck::Fsck),
    Sandbox(sandbox::Sandbox),
    Schema(schema::Schema),
    Bench(bench::Bench),
    Completions(completions::Completions),
}

/// What a command works with.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) out: Out,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) meters: Meters,
}

impl Cli {
    /// The streams, as `--output` wants them.
    pub fn out(&self) -> Out {
        Out::of_process(self.global.output)
    }

    /// Whether a signal asks this command to stop in order. It ends all others.
    pub fn drains(&self) -> bool {
        match &self.command {
            Command::Worker(_) | Command::Execute(_) | Command::Sandbox(_) => true,
            Command::Sequence(sequence) => sequence.drains(),
            Command::Jobs(jobs) => matches!(jobs, jobs::Jobs::Wait(_)),
            _ => false,
        }
    }

    /// What is configured. Commands that need nothing of it are not stopped by a mistake in it.
    pub fn configure(&self, environment: &Environment) -> Result<Config, ConfigError> {
        match self.command {
            Command::Demo(_) | Command::Schema(_) | Command::Completions(_) | Command::Sandbox(_) => demo::configure(environment),
            Command::Doctor(_) => Config::load_leniently(self.global.config.clone(), environment),
            _ => Config::load(self.global.config.clone(), environment),
        }
    }

    /// How this command logs: long-running ones tell what they do, the others only what is wrong. A verdict that is printed is not
    /// logged too, unless a filter asks for it.
    pub fn telemetry(&self, config: &Config) -> TelemetrySettings {
        let own = match self.command {
            Command::Worker(_) | Command::Sandbox(_) => "info",
            Command::Demo(_) => "error",
            _ => "warn,iolaus::verdict=off",
        };
        let configured = config.log.level.as_str();
        let filter = if configured.is_empty() { own } else { configured };
        TelemetrySettings { filter: filter.to_owned(), format: config.log.format }
    }

    /// Runs the command.
    pub async fn run(self, config: Config, meters: Meters) -> anyhow::Result<Exit> {
        let app = App { config, out: self.out(), clock: Arc::new(SystemClock::new()), meters };
        match self.command {
            Command::Demo(demo) => demo.run(app).await,
            Command::Execute(execute) => execute.run(&app).await,
            Command::Enqueue(enqueue) => enqueue.run(&app).await,
            Command::Sequence(sequence) => sequence.run(&app).await,
            Command::Worker(worker) => worker.run(&app).await,
            Command::Status(status) => status.run(&app).await,
            Command::Jobs(jobs) => jobs.run(&app).await,
            Command::Pause(pause) => pause.run(&app).await,
            Command::Resume(resume) => resume.run(&app).await,
            Command::Workflows(workflows) => workflows.run(&app).await,
            Command::Runs(runs) => runs.run(&app).await,
            Command::OAuthClients(clients) => clients.run(&app).await,
            Command::Tokens(tokens) => tokens.run(&app).await,
            Command::Whoami(whoami) => whoami.run(&app).await,
            Command::Doctor(doctor) => doctor.run(&app).await,
            Command::Fsck(fsck) => fsck.run(&app).await,
            Command::Sandbox(sandbox) => sandbox.run(&app).await,
            Command::Schema(schema) => schema.run(&app),
            Command::Bench(bench) => bench.run(&app).await,
            Command::Completions(completions) => completions.run(app.out),
        }
    }
}

/// Tells an error and its hint on stderr, and gives its exit code.
pub fn report(out: Out, error: &anyhow::Error) -> Exit {
    let (exit, hint) = exit::explain(error);
    out.error(&render::plain_line(&chain(error)), hint.as_deref().map(render::plain_line).as_deref());
    exit
}

/// An error with its causes, without those that it tells itself.
fn chain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| match cause.to_string() {
        cause if told.ends_with(&cause) => told,
        cause if told.is_empty() => cause,
        cause => format!("{told}: {cause}"),
    })
}

#[cfg(test)]
mod tests;
