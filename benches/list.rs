//! `cargo bench --bench list -- 10000000`: how long `iolaus jobs list` takes with each filter in a file with so many jobs (a million by
//! default), most of them closed. The file is written beside the temporary files, or in `IOLAUS_BENCH_DIR`.
//!
//! From the oldest: a tenth waits for a paused tenant; a rare tenant and a rare activity have a few jobs in every state; the rest passed,
//! and on top of it a tenth is due.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use iolaus::client::ListFilter;
use iolaus::embedded::{Embedded, EmbeddedOptions};
use iolaus::job::JobState;
use iolaus_activities::{Clock, SystemClock};
use rusqlite::Connection;

/// Lists with each filter.
const ROUNDS: usize = 200;
const PAGE: usize = 50;

/// Rows that are alike.
struct Part {
    rows: u64,
    activity: &'static str,
    tenant: &'static str,
    state: JobState,
}

fn parts(jobs: u64) -> Vec<Part> {
    let part = |rows, activity, tenant, state| Part { rows, activity, tenant, state };
    let mut parts = vec![part(jobs / 10, "rerun", "paused", JobState::Available)];
    for (activity, tenant) in [("rerun", "rare"), ("rare", "default"), ("preflight", "default")] {
        parts.extend(JobState::ALL.map(|state| part(20, activity, tenant, state)));
    }
    parts.push(part(jobs / 10 * 4, "preflight", "default", JobState::Completed));
    parts.push(part(jobs / 10 * 4, "rerun", "default", JobState::Completed));
    parts.push(part(jobs / 10, "rerun", "default", JobState::Available));
    parts
}

fn main() {
    let jobs = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let directory = std::env::var_os("IOLAUS_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    let path = directory.path().join("iolaus.db");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    drop(Embedded::open(EmbeddedOptions::at(&path), clock.clone()).expect("it is created"));
    fill(&path, jobs);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let host = runtime.block_on(async { Embedded::open(EmbeddedOptions::at(&path), clock.clone()) }).expect("it opens");
    println!("{jobs} jobs, {ROUNDS} lists of {PAGE} with each filter");
    println!("{:<50} {:>5} {:>9} {:>9}", "filter", "rows", "p50 ms", "p99 ms");
    for (name, filter) in filters() {
        let (mut took, mut rows) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let began = clock.monotonic();
            let page = runtime.block_on(host.client().list(filter.clone(), PAGE, None)).expect("it lists");
            took.push(clock.monotonic().saturating_sub(began));
            rows = page.jobs.len();
        }
        took.sort_unstable();
        let at = |percent: usize| ms(took[(took.len() * percent).div_ceil(100) - 1]);
        println!("{name:<50} {rows:>5} {:>9.2} {:>9.2}", at(50), at(99));
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Each state, of every activity and tenant that differs, and some together.
fn filters() -> Vec<(String, ListFilter)> {
    let states = std::iter::once(Vec::new()).chain(JobState::ALL.map(|state| vec![state]));
    let open: Vec<JobState> = JobState::ALL.into_iter().filter(|state| state.is_open()).collect();
    let dead = vec![JobState::Discarded, JobState::Cancelled];
    let mut filters = Vec::new();
    for states in states.chain([open, dead]) {
        for (activity, tenant) in [
            (None, None),
            (Some("preflight"), None),
            (Some("rare"), None),
            (None, Some("rare")),
            (None, Some("paused")),
            (None, Some("unknown")),
            (Some("preflight"), Some("default")),
        ] {
            let named: Vec<&str> = states.iter().map(|state: &JobState| state.as_str()).collect();
            let name = format!("{} {} {}", named.join("+"), activity.unwrap_or("-"), tenant.unwrap_or("-"));
            let (activity, tenant) = (activity.map(str::to_owned), tenant.map(str::to_owned));
            filters.push((name, ListFilter { states: states.clone(), activity, tenant }));
        }
    }
    filters
}

/// Writes the rows as the store would have left them, without what no list reads.
fn fill(path: &Path, jobs: u64) {
    let conn = Connection::open(path).expect("it opens");
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; BEGIN").expect("it is set");
    let mut from = 1;
    for Part { rows, activity, tenant, state } in parts(jobs) {
        let (to, state) = (from + rows - 1, state.as_str());
        conn.execute_batch(&format!(
            "CREATE TEMP TABLE n AS WITH RECURSIVE n(id) AS (SELECT {from} UNION ALL SELECT id + 1 FROM n WHERE id < {to}) SELECT id FROM n; \
             INSERT INTO jobs(id, job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, run_at, enqueued_at, \
                              finished_at) \
               SELECT id, printf('nightly-%024d', id), printf('00000000-0000-7000-8000-%012d', id), '{activity}', 1, 'work', '{tenant}', \
                      '{state}', 3, 1, 1, CASE WHEN '{state}' IN ('completed', 'discarded', 'cancelled') THEN 1 END FROM n; \
             INSERT INTO job_verdicts(id, status, verdict) \
               SELECT id, 'passed', hex(zeroblob(200)) FROM n WHERE '{state}' IN ('completed', 'discarded', 'cancelled'); \
             INSERT INTO job_counts VALUES ('{activity}', '{tenant}', '{state}', {rows}) \
               ON CONFLICT DO UPDATE SET count = count + excluded.count; \
             DROP TABLE n"
        ))
        .expect("they are stored");
        from = to + 1;
    }
    conn.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").expect("it is kept");
}
