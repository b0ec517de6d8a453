//! `cargo bench --bench fsck -- 10000000`: how long `iolaus fsck` takes over a file with so many closed jobs (a million by default),
//! and how much memory. The file is written beside the temporary files, or in `IOLAUS_BENCH_DIR`; ten million jobs need 25 GB.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use iolaus::client::Target;
use iolaus::embedded::{Embedded, EmbeddedOptions, Worker, WorkerOptions};
use iolaus::intake::{Intake, JobRequest};
use iolaus::job::TraceContext;
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Activity, ActivityContext, ActivityError, Clock, Registry, SystemClock, Verdict};
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows of one transaction.
const BATCH: u64 = 250_000;

struct Preflight;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Question {
    user_id: String,
    connection_qualified_name: String,
}

/// Answers as a preflight does.
impl Activity for Preflight {
    const NAME: &'static str = "preflight";
    type Input = Question;

    async fn run(&self, _: &ActivityContext, question: Question) -> Result<Verdict, ActivityError> {
        let verdict = Verdict::passed("All user publish preflight checks passed.");
        let verdict = verdict.check("UserEnabled", true).check("AtlanPublishPermission", true);
        Ok(verdict.fact("user_id", question.user_id).fact("connection_qualified_name", question.connection_qualified_name))
    }
}

fn main() {
    let jobs = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let directory = std::env::var_os("IOLAUS_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    let path = directory.path().join("iolaus.db");
    one_job(&path);
    multiply(&path, jobs);
    let clock = SystemClock::new();
    let began = clock.monotonic();
    let mut command = Command::new(env!("CARGO_BIN_EXE_iolaus"));
    let ran = command.args(["fsck", "--output", "text"]).env("IOLAUS_DATABASE__PATH", &path).output().expect("it runs");
    let took = clock.monotonic().saturating_sub(began);
    let size = std::fs::metadata(&path).expect("it is there").len() >> 20;
    println!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{jobs} closed jobs, {size} MiB, {cores} cores: {:.1} s, exit code {:?}", took.as_secs_f64(), ran.status.code());
}

/// A file with one job and its verdict, as the program itself writes them.
fn one_job(path: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let registry = Registry::default().with(Preflight);
        let intake = Intake::new(&registry, std::collections::BTreeMap::default(), vec!["default".into()]);
        let host = Embedded::open(EmbeddedOptions::at(path), clock.clone()).expect("it opens");
        let worker = Worker::start(&host, options(registry)).await.expect("it starts");
        let input = serde_json::json!({"user_id": "8c1e2d8a-1564-4e95-8b14-ea14522fcf61", "connection_qualified_name": "default/snowflake/1234567890"});
        let request = JobRequest { activity: "preflight".into(), input, ..JobRequest::default() };
        let job = intake.admit(request, TraceContext::generate(), clock.now()).expect("it is admitted");
        let target = Target::newest(job.job_id.clone());
        host.client().enqueue(job).await.expect("it is stored");
        host.client().wait(target).await.expect("it ends");
        worker.drain().await.expect("it drains");
    });
}

fn options(registry: Registry) -> WorkerOptions {
    WorkerOptions {
        registry,
        tenants: Tenants::none(),
        throttles: Arc::default(),
        slots_work: 1,
        slots_waits: 1,
        drain_deadline: std::time::Duration::from_secs(1),
        cancel_grace: std::time::Duration::from_secs(1),
        stall_after: std::time::Duration::from_secs(60),
    }
}

/// Stores the first job again under ids of its own.
fn multiply(path: &Path, jobs: u64) {
    let conn = Connection::open(path).expect("it opens");
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -65536").expect("it is set");
    let (job_id, run_id) = ("printf('nightly-%024d', n.id)", "printf('00000000-0000-7000-8000-%012d', n.id)");
    let mut from = 2;
    while from <= jobs {
        let to = jobs.min(from + BATCH - 1);
        conn.execute_batch(&format!(
            "BEGIN; CREATE TEMP TABLE n AS WITH RECURSIVE n(id) AS (SELECT {from} UNION ALL SELECT id + 1 FROM n WHERE id < {to}) SELECT id FROM n; \
             INSERT INTO jobs(id, job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, attempt, lease_token, run_at, \
                              enqueued_at, started_at, finished_at) \
               SELECT n.id, {job_id}, {run_id}, activity, activity_version, slot_class, tenant, state, priority, attempt, lease_token, run_at, \
                      enqueued_at, started_at, finished_at FROM n, jobs j WHERE j.id = 1; \
             INSERT INTO job_inputs(id, input, options, traceparent) SELECT n.id, input, options, traceparent FROM n, job_inputs i WHERE i.id = 1; \
             INSERT INTO job_verdicts(id, status, code, verdict) \
               SELECT n.id, status, code, json_set(verdict, '$.job_id', {job_id}, '$.run_id', {run_id}) FROM n, job_verdicts v WHERE v.id = 1; \
             DROP TABLE n; COMMIT"
        ))
        .expect("they are stored");
        from = to + 1;
    }
    conn.execute_batch(
        "UPDATE job_counts SET count = (SELECT count(*) FROM jobs) WHERE count > 0; PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .expect("it is kept");
}
