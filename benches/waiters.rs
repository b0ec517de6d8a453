//! `cargo bench --bench waiters`: jobs a second with 32 producers, alone and beside 300 `iolaus jobs wait` processes that wait for other jobs
//! of the same queue. Rounds of both take turns. `cargo bench --bench waiters -- 100` starts as many processes as it says.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]

#[expect(dead_code, reason = "another benchmark reads the metrics of a queue")]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use iolaus::client::Target;

use support::{Queue, median};

/// Processes that wait, unless an argument says otherwise.
const WAITERS: usize = 300;
/// Enqueues that are under way at once.
const PRODUCERS: usize = 32;
/// Jobs of one round, and rounds of each kind.
const JOBS: usize = 20_000;
const ROUNDS: usize = 7;
/// How long the jobs that are waited for stay where they are.
const DELAY: Duration = Duration::from_secs(86_400);
/// How long the processes may take to start.
const START_SECONDS: u32 = 300;

fn main() {
    let waiters = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(WAITERS);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("iolaus.db");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores; {} build\n", if cfg!(debug_assertions) { "a debug" } else { "a release" });
    let queue = runtime.block_on(Queue::open(&path, 1));
    let waited_for = runtime.block_on(queue.enqueue(waiters, 1, PRODUCERS, Some(DELAY)));
    let mut rounds: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        rounds[0].push(runtime.block_on(queue.jobs_a_second(JOBS, 1, PRODUCERS)));
        let waiting: Vec<Waiter> = waited_for.iter().map(|job| Waiter::start(directory.path(), &path, job)).collect();
        until_all_wait(&path, waiters);
        rounds[1].push(runtime.block_on(queue.jobs_a_second(JOBS, 1, PRODUCERS)));
        // Each is still waiting: none was measured that had ended.
        waiting.into_iter().for_each(Waiter::end);
    }
    println!("alone: {:.0?}; beside {waiters} waiters: {:.0?}", rounds[0], rounds[1]);
    let [alone, beside] = rounds.map(median);
    println!("medians: {alone:.0} and {beside:.0} jobs a second, ratio {:.2}", beside / alone);
    runtime.block_on(queue.worker.drain()).expect("it drains");
}

/// Until each process has a socket of its own, on which it is told of the end of its job, and has looked at the job once.
fn until_all_wait(database: &Path, waiters: usize) {
    let sockets = || {
        let entries = std::fs::read_dir(wake_directory(database)).expect("it is there");
        entries
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().len() > "0123456789abcdef.sock".len() + 32))
            .count()
    };
    for _ in 0..START_SECONDS {
        if sockets() >= waiters {
            std::thread::park_timeout(Duration::from_secs(5));
            return;
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
    panic!("{} of {waiters} processes wait after {START_SECONDS} s", sockets());
}

fn wake_directory(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wake");
    name.into()
}

/// A process of `iolaus jobs wait`.
struct Waiter(Child);

impl Waiter {
    fn start(home: &Path, database: &Path, job: &Target) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iolaus"));
        command.args(["jobs", "wait", job.job_id.as_str()]).env("HOME", home).env("IOLAUS_DATABASE__PATH", database);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it starts"))
    }

    fn end(mut self) {
        assert!(self.0.try_wait().expect("it can be asked").is_none(), "it waits");
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it is gone");
    }
}
