//! `cargo bench --bench embedded`: what README says about the embedded host's speed and size. Each number stands beside the bare
//! thing that bounds it, measured in the same run: machines are noisy, ratios are not.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use iolaus::client::Target;
use iolaus::embedded::{Embedded, EmbeddedOptions, Worker, WorkerOptions};
use iolaus::intake::{Intake, JobRequest};
use iolaus::job::TraceContext;
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Activity, ActivityContext, ActivityError, Clock, Registry, SystemClock, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const JOBS: usize = 1_000;
const STARTS: usize = 20;
const IDLE: Duration = Duration::from_secs(10);

/// Tells when it was started.
struct Started(mpsc::UnboundedSender<Instant>);

#[derive(Serialize, Deserialize, JsonSchema)]
struct Nothing {}

impl Activity for Started {
    const NAME: &'static str = "started";
    type Input = Nothing;

    async fn run(&self, _: &ActivityContext, _: Nothing) -> Result<Verdict, ActivityError> {
        self.0.send(now()).ok();
        Ok(Verdict::passed("started"))
    }
}

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    println!(
        "directory {}, {} cores, {JOBS} jobs one at a time\n",
        directory.path().display(),
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    pickup(directory.path());
    starts(directory.path());
    idle(directory.path());
}

/// Enqueue call to the start of the attempt, in one process, beside a bare commit of the same rows on the same disk.
fn pickup(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (started, mut starts) = mpsc::unbounded_channel();
        let registry = Registry::default().with(Started(started));
        let intake = Intake::new(&registry, BTreeMap::default(), vec!["default".into()]);
        let host = Embedded::open(EmbeddedOptions::at(directory.join("pickup.db")), clock.clone()).expect("it opens");
        let worker = Worker::start(&host, worker_options(registry)).await.expect("it starts");
        let client = host.client();
        let bare = Bare::open(&directory.join("bare.db"));
        let (mut commits, mut pickups) = (Vec::new(), Vec::new());
        for n in 0..JOBS {
            commits.push(bare.commit(n));
            let request = JobRequest { activity: "started".into(), input: serde_json::json!({}), ..JobRequest::default() };
            let job = intake.admit(request, TraceContext::generate(), clock.now()).expect("it is admitted");
            let job_id = job.job_id.clone();
            let called = now();
            client.enqueue(job).await.expect("it is stored");
            pickups.push(starts.recv().await.expect("it starts").duration_since(called));
            client.wait(Target::newest(job_id)).await.expect("it ends");
        }
        worker.drain().await.expect("it drains");
        print("bare commit of the same rows", &mut commits);
        print("enqueue call to start of the attempt", &mut pickups);
        let beyond = median(&pickups).saturating_sub(median(&commits));
        println!("p50 beyond the bare commit: {:.3} ms\n", ms(beyond));
    });
}

/// Start of the process to its `ready`.
fn starts(directory: &Path) {
    let mut starts: Vec<Duration> = (0..STARTS).map(|_| WorkerProcess::start(directory).ready_after).collect();
    print("process start to ready", &mut starts);
    println!();
}

/// Memory and processor time of a worker that has nothing to do.
fn idle(directory: &Path) {
    let worker = WorkerProcess::start(directory);
    let before = cpu_ticks(worker.child.id());
    std::thread::park_timeout(IDLE);
    let ticks = cpu_ticks(worker.child.id()) - before;
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.child.id())).expect("it runs");
    let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    println!(
        "idle worker over {IDLE:?}: {}, {ticks} ticks of processor time (10 ms each)",
        resident.split_whitespace().collect::<Vec<_>>().join(" ")
    );
}

struct WorkerProcess {
    child: Child,
    ready_after: Duration,
}

impl WorkerProcess {
    fn start(directory: &Path) -> Self {
        let called = now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_iolaus"))
            .arg("worker")
            .env_clear()
            .env("HOME", directory)
            .env("ATLAN_BASE_URL", "https://tenant.example")
            .env("ATLAN_API_KEY", "none")
            .env("IOLAUS_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("the worker is ready")), "it is ready");
        Self { child, ready_after: called.elapsed() }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is gone");
    }
}

/// One connection that commits the rows of a job and no more.
struct Bare(rusqlite::Connection);

impl Bare {
    fn open(path: &Path) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        drop(Embedded::open(EmbeddedOptions::at(path), clock).expect("it opens"));
        let conn = rusqlite::Connection::open(path).expect("it opens");
        conn.pragma_update(None, "synchronous", "FULL").expect("it is set");
        Self(conn)
    }

    fn commit(&self, n: usize) -> Duration {
        let called = now();
        let insert = "BEGIN IMMEDIATE; \
             INSERT INTO jobs(job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, run_at, enqueued_at) \
               VALUES (hex(randomblob(18)), hex(randomblob(18)), 'started', 1, 'work', 'default', 'available', 3, 1, 1); \
             INSERT INTO job_inputs(id, input, options, traceparent) \
               VALUES (last_insert_rowid(), '{}', hex(randomblob(100)), hex(randomblob(27))); \
             COMMIT";
        self.0.execute_batch(insert).unwrap_or_else(|error| panic!("commit {n}: {error}"));
        called.elapsed()
    }
}

fn worker_options(registry: Registry) -> WorkerOptions {
    WorkerOptions {
        registry,
        tenants: Tenants::none(),
        throttles: Arc::default(),
        slots_work: 8,
        slots_waits: 8,
        drain_deadline: Duration::from_secs(5),
        cancel_grace: Duration::from_secs(5),
        stall_after: Duration::from_secs(600),
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum()
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!("{what:<40} p50 {:>8.3} ms   p99 {:>8.3} ms", ms(median(times)), ms(p99));
}

fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
