//! What verbs read. Each runs on a connection that cannot write.

use iolaus_activities::VerdictRecord;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::listing::Bounds;
use super::rows::{self, JOB_COLUMNS, json, optional_time, time};
use super::{StoreError, listing, sequences, unreadable, workers};
use crate::client::{AttemptFailure, JobDetail, JobPage, ListFilter, Pause, PauseKind, Target, TenantHold, WorkerStatus};
use crate::job::{Job, SEQUENCE, TraceContext};

/// The rowid of an execution.
pub(crate) fn find(conn: &Connection, target: &Target) -> Result<Option<i64>, StoreError> {
    let run_id = target.run_id.map(|run| run.to_string());
    let mut statement =
        conn.prepare_cached("SELECT id FROM jobs WHERE job_id = ?1 AND (?2 IS NULL OR run_id = ?2) ORDER BY id DESC LIMIT 1")?;
    Ok(statement.query_row(params![target.job_id.as_str(), run_id], |row| row.get(0)).optional()?)
}

/// An execution with all that is known of it.
pub(crate) fn detail(conn: &Connection, target: &Target) -> Result<Option<JobDetail>, StoreError> {
    let Some(id) = find(conn, target)? else { return Ok(None) };
    let sql = format!(
        "SELECT {JOB_COLUMNS}, i.input, i.options, i.labels, i.traceparent, i.tracestate, c.checkpoint, c.progress, v.verdict \
         FROM jobs j JOIN job_inputs i ON i.id = j.id LEFT JOIN job_checkpoints c ON c.id = j.id LEFT JOIN job_verdicts v ON v.id = j.id \
         WHERE j.id = ?1"
    );
    let detail = conn.prepare_cached(&sql)?.query_row([id], |row| {
        Ok(JobDetail {
            job: rows::job(row)?,
            input: json(row, 15)?,
            options: json(row, 16)?,
            labels: rows::labels(row.get(17)?).map_err(|error| rows::damaged(17, error))?,
            trace: TraceContext { traceparent: row.get(18)?, tracestate: row.get(19)? },
            checkpoint: optional_json(row, 20)?,
            progress: optional_json(row, 21)?,
            failures: Vec::new(),
            verdict: optional_json(row, 22)?,
            steps: Vec::new(),
        })
    });
    let Some(mut detail) = detail.optional()? else { return Ok(None) };
    let mut statement = conn.prepare_cached("SELECT attempt, at, failure FROM job_failures WHERE id = ?1 ORDER BY lease_token")?;
    let failures = statement
        .query_map([id], |row| Ok(AttemptFailure { attempt: row.get(0)?, at: time(row, 1)?, failure: json(row, 2)? }))?
        .collect::<rusqlite::Result<_>>()?;
    detail.failures = failures;
    if detail.job.activity == SEQUENCE {
        detail.steps = sequences::steps(conn, id, &detail.input)?;
    }
    Ok(Some(detail))
}

/// The verdict of an execution, once it is closed.
pub(crate) fn verdict(conn: &Connection, id: i64) -> Result<Option<VerdictRecord>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT verdict FROM job_verdicts WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| json(row, 0)).optional()?)
}

/// Which of these executions are closed, or forgotten since.
pub(crate) fn closed_among(conn: &Connection, ids: &[i64]) -> Result<Vec<i64>, StoreError> {
    let mut closed = Vec::new();
    for id in ids {
        if !is_open(conn, *id)? {
            closed.push(*id);
        }
    }
    Ok(closed)
}

/// Whether an execution is there and open.
pub(crate) fn is_open(conn: &Connection, id: i64) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached("SELECT 1 FROM jobs WHERE id = ?1 AND finished_at IS NULL")?.exists([id])?)
}

/// A page of executions, newest first.
pub(crate) fn list(conn: &Connection, filter: &ListFilter, limit: usize, before: Option<i64>) -> Result<JobPage, StoreError> {
    list_within(conn, filter, limit, before, &listing::BOUNDS)
}

/// The same with other bounds.
pub(super) fn list_within(
    conn: &Connection,
    filter: &ListFilter,
    limit: usize,
    before: Option<i64>,
    bounds: &Bounds,
) -> Result<JobPage, StoreError> {
    // What is counted and what is there must be of one moment.
    let snapshot = conn.unchecked_transaction()?;
    let mut ids = listing::newest(&snapshot, filter, before.unwrap_or(i64::MAX), limit.saturating_add(1), bounds)?;
    let more = ids.len() > limit;
    ids.truncate(limit);
    let mut statement = snapshot.prepare_cached(&format!("SELECT {JOB_COLUMNS}, j.id FROM jobs j WHERE j.id = ?1"))?;
    let mut jobs = Vec::with_capacity(ids.len());
    for id in &ids {
        let job = statement.query_row([id], |row| readable(row, rows::job(row))).optional()?;
        jobs.extend(job.flatten());
    }
    Ok(JobPage { jobs, next_cursor: ids.last().filter(|_| more).map(ToString::to_string) })
}

/// One row that does not decode hides itself, and not the others.
fn readable(row: &rusqlite::Row<'_>, job: rusqlite::Result<Job>) -> rusqlite::Result<Option<Job>> {
    let error = match job.map_err(StoreError::from) {
        Ok(job) => return Ok(Some(job)),
        Err(error) => error,
    };
    let Some(problem) = unreadable::problem(&error) else { return rows::job(row).map(Some) };
    let id: i64 = row.get(15)?;
    tracing::error!(row = id, problem, hint = "iolaus fsck", "a job that cannot be read is left out of the list");
    Ok(None)
}

/// The workers that are registered.
pub(crate) fn workers(conn: &Connection, now: Timestamp) -> Result<Vec<WorkerStatus>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT name, version, activities, started_at, beat_at, \
                (SELECT count(*) FROM jobs j WHERE j.state = 'running' AND j.worker_id = w.id), t.tenants, timeout_ms, job_id \
         FROM workers w LEFT JOIN worker_tenants t ON t.worker_id = w.id ORDER BY id",
    )?;
    let workers = statement.query_map([], |row| {
        // A row that is damaged in part is shown as far as it can be read, and hides no other.
        let last_beat = rows::nearest_time(row, 4)?;
        Ok(WorkerStatus {
            name: rows::lossy(row, 0)?,
            version: rows::lossy(row, 1)?,
            activities: json(row, 2).unwrap_or_default(),
            tenants: optional_json(row, 6).unwrap_or_else(|_| Some(Vec::new())),
            started_at: rows::nearest_time(row, 3)?,
            last_beat,
            running: count(row, 5)?,
            live: workers::is_live(last_beat, now, workers::milliseconds(row.get(7)?)),
            job_id: rows::optional_lossy(row, 8)?,
        })
    })?;
    Ok(workers.collect::<rusqlite::Result<_>>()?)
}

/// What is paused.
pub(crate) fn pauses(conn: &Connection) -> Result<Vec<Pause>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT kind, name, reason, paused_at FROM pauses ORDER BY kind, name")?;
    let pauses = statement.query_map([], |row| {
        let kind = if rows::lossy(row, 0)? == PauseKind::Tenant.as_str() { PauseKind::Tenant } else { PauseKind::Activity };
        let (name, reason) = (rows::lossy(row, 1)?, rows::optional_lossy(row, 2)?);
        Ok(Pause { kind, name, reason, paused_at: rows::nearest_time(row, 3)? })
    })?;
    Ok(pauses.collect::<rusqlite::Result<_>>()?)
}

/// What workers do not ask of tenants for now.
pub(crate) fn holds(conn: &Connection) -> Result<Vec<TenantHold>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT h.tenant, w.name, h.reason, h.since, h.until FROM worker_holds h JOIN workers w ON w.id = h.worker_id ORDER BY 1, 2",
    )?;
    let holds = statement.query_map([], |row| {
        Ok(TenantHold {
            tenant: rows::lossy(row, 0)?,
            worker: rows::lossy(row, 1)?,
            reason: rows::lossy(row, 2)?,
            since: rows::nearest_time(row, 3)?,
            until: optional_time(row, 4).unwrap_or_default(),
        })
    })?;
    Ok(holds.collect::<rusqlite::Result<_>>()?)
}

fn optional_json<T: serde::de::DeserializeOwned>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => json(row, column).map(Some),
    }
}

fn count(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}
