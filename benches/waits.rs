//! `cargo bench --bench waits`: what it costs a worker and a tenant to wait for many workflow runs at once. A real `iolaus worker` before
//! a real `iolaus sandbox`, each in a process of its own. The runs stay Running all the time, and each is asked for every 5 s.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use iolaus::embedded::{Embedded, EmbeddedOptions};
use iolaus::intake::{Intake, JobRequest};
use iolaus::job::TraceContext;
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Clock, SystemClock};
use serde_json::{Value, json};

/// How many waits there are at once, in each round, unless arguments say otherwise: `cargo bench --bench waits -- 1000`.
const WAITS: [usize; 3] = [1, 100, 10_000];
const WORKFLOW: &str = "atlan-snowflake-1684500500";
/// The `poll_interval` of every wait, in seconds.
const INTERVAL: u32 = 5;
/// How many intervals are measured.
const INTERVALS: u32 = 12;
/// How long the waits may take to be claimed and to come into step. Young runs are looked at more often.
const WARM_UP: Duration = Duration::from_secs(60);
/// How many submissions and enqueues are under way at once.
const AT_ONCE: usize = 32;
/// A clock tick of `/proc/PID/stat`, in milliseconds.
const TICK: u64 = 10;

fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("it is the first");
    let directory = tempfile::tempdir().expect("a directory");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores; each run is asked for every {INTERVAL} s; {INTERVALS} intervals after {} s\n", WARM_UP.as_secs());
    let (sandbox, said) = Process::start(
        Command::new(env!("CARGO_BIN_EXE_iolaus"))
            .args(["sandbox", "--output", "json", "--listen", "127.0.0.1:0", "--already-active", "allow", "--running", "1d"])
            .stdout(Stdio::piped()),
        |child| Box::new(child.stdout.take().expect("it is piped")),
        "base_url",
    );
    let said: Value = serde_json::from_str(&said).expect("one line of JSON");
    let base = said["base_url"].as_str().expect("an address");
    let mut rounds: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    if rounds.is_empty() {
        rounds = WAITS.to_vec();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let runs = runtime.block_on(submit(base, rounds.iter().copied().max().unwrap_or(0)));
    println!(
        "| waits | requests per interval | fewer than one look per run | worker's CPU per interval | of one core | resident memory |"
    );
    println!("|---|---|---|---|---|---|");
    for waits in rounds {
        round(&runtime, directory.path(), base, &runs[..waits]);
    }
    drop(sandbox);
}

fn round(runtime: &tokio::runtime::Runtime, directory: &Path, base: &str, runs: &[String]) {
    let path = directory.join(format!("{}.db", runs.len()));
    runtime.block_on(enqueue(&path, runs));
    let (worker, _) = Process::start(
        Command::new(env!("CARGO_BIN_EXE_iolaus"))
            .arg("worker")
            .env("HOME", directory)
            .env("ATLAN_BASE_URL", base)
            .env("ATLAN_API_KEY", "sandbox-api-token")
            .env("IOLAUS_DATABASE__PATH", &path)
            .env("IOLAUS_LOG", "info")
            .stderr(Stdio::piped()),
        |child| Box::new(child.stderr.take().expect("it is piped")),
        "the worker is ready",
    );
    std::thread::park_timeout(WARM_UP);
    let (asked, ticks) = (runtime.block_on(requests(base)), worker.ticks());
    std::thread::park_timeout(Duration::from_secs(u64::from(INTERVAL * INTERVALS)));
    let (asked, ticks) = (runtime.block_on(requests(base)) - asked, worker.ticks() - ticks);
    assert_eq!(running(&path), runs.len(), "every wait is still waiting");
    let per_interval = asked as f64 / f64::from(INTERVALS);
    let cpu = (ticks * TICK) as f64 / f64::from(INTERVALS);
    println!(
        "| {} | {per_interval:.1} | {:.0} times | {cpu:.1} ms | {:.2} % | {:.1} MB |",
        runs.len(),
        runs.len() as f64 / per_interval,
        cpu / f64::from(INTERVAL) / 10.0,
        worker.resident_kb() as f64 / 1024.0
    );
}

/// Starts so many runs, and answers their names.
async fn submit(base: &str, number: usize) -> Vec<String> {
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    let body = json!({"namespace": "default", "resourceKind": "WorkflowTemplate", "resourceName": WORKFLOW});
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..AT_ONCE {
        let (http, body, url) = (http.clone(), body.clone(), format!("{base}/api/service/workflows/submit"));
        tasks.spawn(async move {
            let mut names = Vec::new();
            for _ in (worker..number).step_by(AT_ONCE) {
                let answer = http.post(&url).bearer_auth("sandbox-api-token").json(&body).send().await.expect("an answer");
                let run: Value = answer.json().await.expect("a run");
                names.push(run["metadata"]["name"].as_str().expect("a name").to_owned());
            }
            names
        });
    }
    tasks.join_all().await.concat()
}

async fn enqueue(path: &Path, runs: &[String]) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let intake = Intake::new(&iolaus_activities::shipped(&Tenants::none()), BTreeMap::default(), vec!["default".into()]);
    let client = Embedded::open(EmbeddedOptions::at(path), clock.clone()).expect("it opens").client();
    let mut tasks = tokio::task::JoinSet::new();
    for run in runs {
        let input = json!({"run": run, "poll_interval": format!("{INTERVAL}s")});
        let request = JobRequest { activity: "await_completion".into(), input, ..JobRequest::default() };
        let job = intake.admit(request, TraceContext::generate(), clock.now()).expect("it is admitted");
        let client = client.clone();
        tasks.spawn(async move { client.enqueue(job).await.expect("it is stored") });
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await;
        }
    }
    tasks.join_all().await;
}

fn running(path: &Path) -> usize {
    let conn = rusqlite::Connection::open(path).expect("it opens");
    let count: i64 = conn.query_row("SELECT count(*) FROM jobs WHERE state = 'running'", [], |row| row.get(0)).expect("a number");
    usize::try_from(count).expect("a count")
}

/// How many requests the tenant has had so far.
async fn requests(base: &str) -> u64 {
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    let answer = http.get(format!("{base}/sandbox/requests")).send().await.expect("an answer");
    let all: Vec<Value> = answer.json().await.expect("a list");
    all.last().and_then(|newest| newest["n"].as_u64()).unwrap_or(0)
}

/// A child that is gone when this is.
struct Process(Child);

type Pipe = Box<dyn std::io::Read + Send>;

impl Process {
    /// Starts a child, and waits for the line that says that it is there. What it says after that is read and forgotten.
    fn start(command: &mut Command, pipe: fn(&mut Child) -> Pipe, there: &str) -> (Self, String) {
        let mut child = command.spawn().expect("it starts");
        let mut lines = BufReader::new(pipe(&mut child)).lines().map_while(Result::ok);
        let said = lines.find(|line| line.contains(there)).expect("it is there");
        std::thread::spawn(move || lines.for_each(drop));
        (Self(child), said)
    }

    /// Processor time so far, of all its threads.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum()
    }

    fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.split_whitespace().next().and_then(|kb| kb.parse().ok()).expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it is gone");
    }
}
