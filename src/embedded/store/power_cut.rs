//! What a power cut leaves: the log is cut at any byte, and everything that was acknowledged before that is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use iolaus_activities::{ActivityOptions, SystemClock};
use rusqlite::Connection;

use crate::embedded::{Embedded, EmbeddedOptions};
use crate::job::{IdConflictPolicy, IdReusePolicy, JobId, NewJob, RunId, TraceContext};

const JOBS: usize = 12;
/// The log's header; a frame with its own header and its page.
const HEADER: usize = 32;
const FRAME: usize = 24 + 4096;

fn job(n: usize) -> NewJob {
    NewJob {
        job_id: JobId::from_caller(format!("n-{n}")).unwrap(),
        run_id: RunId::generate(jiff::Timestamp::UNIX_EPOCH),
        activity: "probe".into(),
        activity_version: 1,
        tenant: "default".into(),
        input: serde_json::json!({ "text": "x".repeat(200 * n) }),
        options: ActivityOptions::default(),
        labels: BTreeMap::default(),
        priority: 3,
        delay: None,
        id_conflict_policy: IdConflictPolicy::Fail,
        id_reuse_policy: IdReusePolicy::Reject,
        trace: TraceContext::generate(),
    }
}

/// Every byte next to the border of a frame, and every 97th in between.
fn cuts(log: usize) -> impl Iterator<Item = usize> {
    (0..=log).filter(move |at| {
        let within = at.saturating_sub(HEADER) % FRAME;
        *at <= HEADER + 1 || within <= 26 || within >= FRAME - 2 || at % 97 == 0
    })
}

/// The numbers of the jobs that are there, each whole.
fn survivors(path: &Path) -> Vec<usize> {
    let file = Connection::open(path).unwrap();
    let mut whole = file.prepare("SELECT j.job_id FROM jobs j JOIN job_inputs i ON i.id = j.id ORDER BY j.id").unwrap();
    let ids = whole.query_map([], |row| row.get::<_, String>(0)).unwrap().collect::<rusqlite::Result<Vec<_>>>().unwrap();
    let rows: i64 =
        file.query_row("SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM job_inputs)", [], |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(rows).unwrap(), 2 * ids.len(), "no job is there by half");
    let counted: i64 = file.query_row("SELECT coalesce(sum(count), 0) FROM job_counts", [], |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(counted).unwrap(), ids.len());
    ids.iter().map(|id| id.strip_prefix("n-").unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn with_the_log_cut_at_any_byte_everything_acknowledged_before_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let log = dir.path().join("t.db-wal");
    // The schema is in the file itself.
    drop(Embedded::open(EmbeddedOptions::at(&path), Arc::new(SystemClock::new())).unwrap());
    Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let host = Embedded::open(EmbeddedOptions::at(&path), Arc::new(SystemClock::new())).unwrap();
    let client = host.client();
    let mut acknowledged = Vec::new();
    for n in 0..JOBS {
        client.enqueue(job(n)).await.unwrap();
        acknowledged.push(usize::try_from(std::fs::metadata(&log).unwrap().len()).unwrap());
    }
    // As they are at this moment, with the host still at work.
    let (file, log) = (std::fs::read(&path).unwrap(), std::fs::read(&log).unwrap());
    assert_eq!(log.len(), *acknowledged.last().unwrap(), "nothing was written back yet");
    let after = tempfile::tempdir().unwrap();
    let copy = after.path().join("t.db");
    let (mut tried, mut most) = (0, 0);
    for cut in cuts(log.len()) {
        std::fs::write(&copy, &file).unwrap();
        std::fs::write(after.path().join("t.db-wal"), &log[..cut]).unwrap();
        std::fs::remove_file(after.path().join("t.db-shm")).ok();
        let there = survivors(&copy);
        let promised = acknowledged.iter().filter(|length| **length <= cut).count();
        assert!(
            there.len() >= promised,
            "cut at byte {cut} of {}: {promised} were acknowledged, {} are there",
            log.len(),
            there.len()
        );
        assert_eq!(there, (0..there.len()).collect::<Vec<_>>(), "cut at byte {cut}: in order and without a hole");
        (tried, most) = (tried + 1, most.max(there.len()));
    }
    assert!(tried > 1_000 && most == JOBS, "{tried} cuts, {most} jobs at most");
}
