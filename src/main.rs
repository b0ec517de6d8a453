//! The program: sets up what a process has once, runs the command, and ends with its exit code.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rustix::process::DumpableBehavior;

use iolaus::cli::exit::Exit;
use iolaus::cli::{Cli, descriptors, report, signals, threads};
use iolaus::telemetry;

/// Jobs are made of many small strings, which the C library's allocator is slow with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the last spans may take to leave.
const FLUSH: Duration = Duration::from_secs(3);
/// How long tasks that are left over may take to end.
const LEAVE: Duration = Duration::from_secs(1);
/// Attempts wait for the network and one thread writes, so that more threads would only cost memory.
const THREADS: usize = 4;

fn main() -> ExitCode {
    // Before anything else: a signal of the first milliseconds is obeyed, too. Without handlers the defaults of the system remain.
    let caught = signals::install();
    // Other processes of this user read neither the memory nor the environment, which hold keys, and nothing is dumped to a disk.
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Once, before any TLS client is made. It fails only if a provider is installed already, which then serves as well.
    rustls::crypto::ring::default_provider().install_default().ok();
    let cli = Cli::parse();
    signals::decide(cli.drains());
    let out = cli.out();
    if let Err(error) = caught {
        out.note(&format!("warning: signals are not caught: {error}"));
    }
    if let Err(error) = hidden {
        out.note(&format!("warning: other processes of this user may read the memory of this one: {error}"));
    }
    run(cli).unwrap_or_else(|error| report(out, &error)).into()
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let out = cli.out();
    descriptors::check()?;
    threads::check()?;
    let config = cli.configure(&std::env::vars_os().collect())?;
    let guard = telemetry::init(&cli.telemetry(&config), out.is_watched());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, THREADS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.context("the runtime cannot be started")?;
    let ended = runtime.block_on(cli.run(config, guard.meters().clone()));
    runtime.shutdown_timeout(LEAVE);
    guard.shutdown(FLUSH);
    ended
}
