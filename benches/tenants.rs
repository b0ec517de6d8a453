//! `cargo bench --bench tenants`: what it costs that many tenants are configured, of which all or only 50 have jobs: a scrape of the
//! metrics, commands, and jobs a second. `cargo bench --bench tenants -- 5000` measures one number of tenants alone. One process, a file of its own
//! for each measurement, an activity that does nothing.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]

mod support;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use iolaus::client::PauseKind;
use iolaus_activities::{Activity, Clock, SystemClock};

use support::{Noop, Queue, median, tenant};

/// How many tenants are configured, unless arguments say otherwise.
const TENANTS: [usize; 3] = [500, 1_000, 5_000];
/// How many of them have jobs, where not all have.
const BUSY: usize = 50;
/// Scrapes of each kind, of which the median and the longest count.
const SCRAPES: usize = 15;
/// Jobs of one round of throughput, and rounds. Those of both numbers of tenants take turns.
const JOBS: usize = 4_000;
const ROUNDS: usize = 7;
/// How many enqueues are under way at once.
const PRODUCERS: usize = 64;

fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("it is the first");
    let mut numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    if numbers.is_empty() {
        numbers = TENANTS.to_vec();
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores; {}\n", if cfg!(debug_assertions) { "a debug build" } else { "a release build" });
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    println!("| tenants | with jobs | one scrape, median | longest | series | bytes |");
    println!("|---|---|---|---|---|---|");
    for tenants in &numbers {
        for busy in [BUSY, *tenants] {
            runtime.block_on(scrapes(&directory.path().join(format!("scrape-{tenants}-{busy}.db")), *tenants, busy));
        }
    }
    println!("\n| tenants | `worker`, until it is ready | `status` | `jobs list` | `doctor` |");
    println!("|---|---|---|---|---|");
    for tenants in &numbers {
        commands(directory.path(), *tenants, &runtime);
    }
    println!("\n| tenants | with jobs | jobs a second | beside {BUSY} tenants | ratio |");
    println!("|---|---|---|---|---|");
    for tenants in numbers {
        let mut rounds: [Vec<f64>; 2] = Default::default();
        for round in 0..ROUNDS {
            for (of, configured) in [tenants, BUSY].into_iter().enumerate() {
                let path = directory.path().join(format!("jobs-{tenants}-{of}-{round}.db"));
                rounds[of].push(runtime.block_on(jobs_a_second(&path, configured)));
            }
        }
        let [many, few] = rounds.map(median);
        println!("| {tenants} | {BUSY} | {many:.0} | {few:.0} | {:.2} |", many / few);
    }
}

/// Every tenant that has jobs has had one, and one waits.
async fn scrapes(path: &Path, tenants: usize, busy: usize) {
    let queue = Queue::open(path, tenants).await;
    let jobs = queue.enqueue(busy, busy, PRODUCERS, None).await;
    queue.until_closed(jobs).await;
    queue.host.client().pause(PauseKind::Activity, Noop::NAME.to_owned(), None).await.expect("it is paused");
    queue.enqueue(busy, busy, PRODUCERS, None).await;
    let mut times = Vec::new();
    let (mut series, mut bytes) = (0, 0);
    for _ in 0..SCRAPES {
        let (meters, clock) = (queue.meters.clone(), queue.clock.clone());
        let scrape = tokio::task::spawn_blocking(move || {
            let began = clock.monotonic();
            let text = meters.text().expect("a text");
            (clock.monotonic().saturating_sub(began), text)
        });
        let (took, text) = scrape.await.expect("it ends");
        times.push(took.as_secs_f64() * 1e3);
        series = text.lines().filter(|line| !line.starts_with('#')).count();
        bytes = text.len();
    }
    let longest = times.iter().copied().fold(0.0, f64::max);
    println!("| {tenants} | {busy} | {:.1} ms | {longest:.1} ms | {series} | {bytes} |", median(times));
    queue.worker.drain().await.expect("it drains");
}

/// How long commands take with so many tenants in the configuration, each with a job that waits. No tenant answers.
fn commands(directory: &Path, tenants: usize, runtime: &tokio::runtime::Runtime) {
    let (config, queue) = (directory.join(format!("{tenants}.toml")), directory.join(format!("commands-{tenants}.db")));
    let sections = (0..tenants).fold(String::new(), |mut text, n| {
        let name = tenant(n);
        writeln!(text, "[tenants.{name}]\nbase_url = \"http://127.0.0.1:9\"\napi_key = \"of-the-benchmark\"").expect("a text");
        text
    });
    std::fs::write(&config, sections).expect("it is written");
    runtime.block_on(async {
        let queue = Queue::open(&queue, tenants).await;
        queue.host.client().pause(PauseKind::Activity, Noop::NAME.to_owned(), None).await.expect("it is paused");
        queue.enqueue(tenants, tenants, PRODUCERS, None).await;
        queue.worker.drain().await.expect("it drains");
    });
    let clock = SystemClock::new();
    let command = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iolaus"));
        command.args(words).env("HOME", directory).env("IOLAUS_CONFIG", &config).env("IOLAUS_DATABASE__PATH", &queue);
        command.env("IOLAUS_HTTP__LISTEN", "").env("IOLAUS_LOG", "info").stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let seconds = |began: Duration| clock.monotonic().saturating_sub(began).as_secs_f64();
    let began = clock.monotonic();
    let mut worker = command(&["worker"]).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(worker.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    lines.find(|line| line.contains("the worker is ready")).expect("it becomes ready");
    let ready = seconds(began);
    let drained = std::thread::spawn(move || lines.for_each(drop));
    let took = |words: &[&str]| {
        let began = clock.monotonic();
        command(words).status().expect("it runs");
        seconds(began)
    };
    let [status, list, doctor] = [took(&["status"]), took(&["jobs", "list"]), took(&["doctor"])];
    worker.kill().expect("it can be killed");
    worker.wait().expect("it is gone");
    drained.join().expect("it ends");
    println!("| {tenants} | {ready:.2} s | {status:.2} s | {list:.2} s | {doctor:.2} s |");
}
async fn jobs_a_second(path: &Path, tenants: usize) -> f64 {
    let queue = Queue::open(path, tenants).await;
    let measured = queue.jobs_a_second(JOBS, BUSY.min(tenants), PRODUCERS).await;
    queue.worker.drain().await.expect("it drains");
    measured
}
