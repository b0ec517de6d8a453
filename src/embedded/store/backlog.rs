//! Files with a backlog, and what claiming one job of them costs: for the benchmark. Nothing here stores a job that anybody asked for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::{ActivityInfo, Clock};
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::claim::{self, ClaimRequest, ClaimScope};
use super::rows::{ms, to_json};
use super::workers::WorkerRegistration;
use super::{ServedTenants, Shares, StoreError, Tx, schema};
use crate::embedded::Durability;
use crate::job::{JobState, NewJob};

/// Jobs that are all alike.
#[derive(Debug, Clone)]
pub struct Backlog {
    /// How many.
    pub jobs: u64,
    /// Their activity; that of the job they are made after when absent.
    pub activity: Option<&'static str>,
    /// Their tenant, in the same way.
    pub tenant: Option<&'static str>,
    /// 1 (first) to 5.
    pub priority: u8,
    /// Scheduled for so much later; due now when absent.
    pub later: Option<Duration>,
}

impl Backlog {
    /// Jobs that are due.
    pub fn due(jobs: u64) -> Self {
        Self { jobs, activity: None, tenant: None, priority: 3, later: None }
    }
}

/// Fills a new file with jobs made after `job`.
pub fn fill(path: &Path, job: &NewJob, backlogs: &[Backlog], now: Timestamp) -> anyhow::Result<()> {
    let conn = schema::open_writer(path, Durability::Normal, now)?;
    for backlog in backlogs {
        fill_with(&conn, job, backlog, now)?;
    }
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

fn fill_with(conn: &Connection, job: &NewJob, backlog: &Backlog, now: Timestamp) -> Result<(), StoreError> {
    let state = if backlog.later.is_some() { JobState::Scheduled } else { JobState::Available };
    let run_at = now.saturating_add(backlog.later.unwrap_or_default()).unwrap_or(Timestamp::MAX);
    let (activity, tenant) = (backlog.activity.unwrap_or(&job.activity), backlog.tenant.unwrap_or(&job.tenant));
    let first: i64 = conn.query_row("SELECT coalesce(max(id), 0) + 1 FROM jobs", [], |row| row.get(0))?;
    let last = first + i64::try_from(backlog.jobs).unwrap_or(i64::MAX - first) - 1;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    conn.execute(
        "WITH RECURSIVE n(id) AS (SELECT ?1 UNION ALL SELECT id + 1 FROM n WHERE id < ?2) \
         INSERT INTO jobs(id, job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, run_at, enqueued_at) \
         SELECT id, printf('backlog-%024d', id), printf('00000000-0000-7000-8000-%012d', id), ?3, ?4, 'work', ?5, ?6, ?7, ?8, ?8 FROM n",
        params![first, last, activity, job.activity_version, tenant, state.as_str(), backlog.priority, ms(run_at)],
    )?;
    conn.execute(
        "WITH RECURSIVE n(id) AS (SELECT ?1 UNION ALL SELECT id + 1 FROM n WHERE id < ?2) \
         INSERT INTO job_inputs(id, input, options, traceparent) SELECT id, ?3, ?4, ?5 FROM n",
        params![first, last, to_json(&job.input)?, to_json(&job.options)?, job.trace.traceparent],
    )?;
    conn.execute(
        "INSERT INTO job_counts(activity, tenant, state, count) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT(activity, tenant, state) DO UPDATE SET count = count + excluded.count",
        params![activity, tenant, state.as_str(), last - first + 1],
    )?;
    conn.execute_batch("COMMIT")?;
    Ok(())
}

/// Claims jobs of a file, one at a time.
pub struct Claims {
    conn: Connection,
    clock: Arc<dyn Clock>,
    request: ClaimRequest,
    turns: claim::Turns,
}

impl Claims {
    /// Registers a worker with one free slot that runs this activity.
    pub fn open(path: &Path, activity: &ActivityInfo, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let conn = schema::open_writer(path, Durability::Normal, clock.now())?;
        let registration = WorkerRegistration {
            name: "bench".into(),
            activities: vec![activity.name],
            tenants: ServedTenants::All,
            timeout: Duration::from_secs(10),
            job_id: None,
        };
        let worker_id = within(&conn, clock.as_ref(), |tx| tx.register_worker(&registration))?;
        let request = ClaimRequest {
            worker_id,
            scope: ClaimScope::Any,
            activities: BTreeMap::from([(activity.name, activity.version)]),
            tenants: Arc::default(),
            work: Shares::unlimited(1),
            waits: Shares::unlimited(0),
            throttles: Arc::default(),
        };
        Ok(Self { conn, clock, request, turns: claim::Turns::default() })
    }

    /// Claims a job in a transaction of its own, and answers how long that took, the commit left out.
    pub fn claim(&mut self) -> anyhow::Result<Duration> {
        let (clock, request, turns) = (self.clock.as_ref(), &self.request, &mut self.turns);
        let (claimed, took) = within(&self.conn, clock, |tx| {
            let began = clock.monotonic();
            let (claimed, _) = claim::claim(tx, request, turns)?;
            Ok((claimed.len(), clock.monotonic().saturating_sub(began)))
        })?;
        anyhow::ensure!(claimed == 1, "a claim found {claimed} jobs");
        Ok(took)
    }
}

fn within<T>(
    conn: &Connection,
    clock: &dyn Clock,
    run: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let mut tx = Tx::new(conn, clock.now(), 0.5);
    let done = run(&mut tx)?;
    tx.counts.store(conn)?;
    conn.execute_batch("COMMIT")?;
    Ok(done)
}
