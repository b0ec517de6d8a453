//! Who is alive. A worker renews one row; a rescuer compares beats that it has seen on its own monotonic clock, and compares again
//! inside the rescue's transaction.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::rows::{self, ms};
use super::{Finished, ServedTenants, StoreError, Tx};
use crate::client::PauseKind;
use crate::executor;

/// Executions that one rescue takes.
const RESCUES: i64 = 256;

/// What a worker says of itself.
#[derive(Debug, Clone)]
pub(crate) struct WorkerRegistration {
    pub(crate) name: String,
    pub(crate) activities: Vec<&'static str>,
    pub(crate) tenants: ServedTenants,
}

/// A tenant of which a worker asks nothing for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredHold {
    pub(crate) tenant: String,
    pub(crate) reason: String,
    pub(crate) since: Timestamp,
    pub(crate) until: Option<Timestamp>,
}

/// A beat that somebody has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerBeat {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) beat: i64,
}

impl Tx<'_> {
    pub(crate) fn register_worker(&mut self, worker: &WorkerRegistration) -> Result<i64, StoreError> {
        let now = ms(self.now);
        self.conn.execute(
            "INSERT INTO workers(name, version, activities, beat_at, started_at) VALUES (?1, ?2, ?3, ?4, ?4)",
            params![worker.name, env!("CARGO_PKG_VERSION"), rows::to_json(&worker.activities)?, now],
        )?;
        self.after.ready = true;
        let id = self.conn.last_insert_rowid();
        self.note_served(id, &worker.tenants)?;
        Ok(id)
    }

    /// Whether a worker has a row: it is not there any more once the worker was taken for dead.
    pub(super) fn is_registered(&self, worker_id: i64) -> Result<bool, StoreError> {
        Ok(self.conn.prepare_cached("SELECT 1 FROM workers WHERE id = ?1")?.exists([worker_id])?)
    }

    /// Renews a worker's row; false if it was declared dead.
    pub(crate) fn beat(&mut self, worker_id: i64) -> Result<bool, StoreError> {
        let mut statement = self.conn.prepare_cached("UPDATE workers SET beat = beat + 1, beat_at = ?2 WHERE id = ?1")?;
        Ok(statement.execute(params![worker_id, ms(self.now)])? > 0)
    }

    /// Removes a worker that has stopped in order. One that still holds something stays, falls silent, and is rescued: an execution
    /// without a worker's row would be nobody's for ever.
    pub(crate) fn unregister_worker(&mut self, worker_id: i64) -> Result<(), StoreError> {
        let gone = self.conn.execute(
            "DELETE FROM workers WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND worker_id = ?1)",
            [worker_id],
        )?;
        if gone > 0 {
            self.conn.execute("DELETE FROM worker_holds WHERE worker_id = ?1", [worker_id])?;
            self.forget_served(worker_id)?;
        }
        Ok(())
    }

    /// Shows what a worker does not ask for now, in place of what it showed before. A worker without a row shows nothing.
    pub(crate) fn show_holds(&mut self, worker_id: i64, holds: &[StoredHold]) -> Result<(), StoreError> {
        self.conn.execute("DELETE FROM worker_holds WHERE worker_id = ?1", [worker_id])?;
        for hold in holds {
            self.conn
                .prepare_cached(
                    "INSERT INTO worker_holds(worker_id, tenant, reason, since, until) SELECT id, ?2, ?3, ?4, ?5 FROM workers WHERE id = ?1",
                )?
                .execute(params![worker_id, hold.tenant, hold.reason, ms(hold.since), hold.until.map(ms)])?;
        }
        Ok(())
    }

    /// Takes a dead worker's executions away from it, if its beat is still the one that was seen. True when there is more to take.
    pub(crate) fn rescue(&mut self, seen: &WorkerBeat) -> Result<(usize, bool), StoreError> {
        let unchanged: bool = self.conn.query_row(
            "SELECT EXISTS(SELECT 1 FROM workers WHERE id = ?1 AND beat = ?2)",
            params![seen.id, seen.beat],
            |row| row.get(0),
        )?;
        if !unchanged {
            return Ok((0, false));
        }
        let ids = self.ids("SELECT id FROM jobs WHERE state = 'running' AND worker_id = ?1 LIMIT ?2", params![seen.id, RESCUES])?;
        for id in &ids {
            let Some(stored) = self.load_or_set_aside(*id, None)? else { continue };
            let cancel = self.unanswered_cancel(*id, &stored)?;
            let decision = executor::rescued(&stored.execution, &seen.name, &cancel, self.now, self.jitter);
            let finished = self.finish(*id, stored.token, &decision)?;
            self.after.rescued.push((stored.execution.activity.clone(), stored.execution.tenant.clone()));
            debug_assert_eq!(finished, Finished::Done, "decided in this transaction, with the cancel request in view");
        }
        let more = ids.len() >= usize::try_from(RESCUES).unwrap_or(usize::MAX);
        if !more {
            self.unregister_worker(seen.id)?;
        }
        self.after.wake_others = true;
        Ok((ids.len(), more))
    }

    pub(crate) fn pause(&mut self, kind: PauseKind, name: &str, reason: Option<&str>) -> Result<(), StoreError> {
        self.conn.execute(
            "INSERT INTO pauses(kind, name, reason, paused_at) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT(kind, name) DO UPDATE SET reason = excluded.reason",
            params![kind.as_str(), name, reason, ms(self.now)],
        )?;
        Ok(())
    }

    pub(crate) fn resume(&mut self, kind: PauseKind, name: &str) -> Result<bool, StoreError> {
        let removed = self.conn.execute("DELETE FROM pauses WHERE kind = ?1 AND name = ?2", params![kind.as_str(), name])?;
        self.after.ready = true;
        self.after.wake_others = true;
        Ok(removed > 0)
    }
}

/// Every worker's beat, as it stands now.
pub(crate) fn beats(conn: &Connection) -> Result<Vec<WorkerBeat>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT id, name, beat FROM workers")?;
    let beats = statement.query_map([], |row| Ok(WorkerBeat { id: row.get(0)?, name: row.get(1)?, beat: row.get(2)? }))?;
    Ok(beats.collect::<rusqlite::Result<_>>()?)
}

/// The cancel requests for what a worker runs.
pub(crate) fn cancel_requests(conn: &Connection, worker_id: i64) -> Result<Vec<(i64, Option<String>)>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT j.id, i.cancel_reason FROM jobs j JOIN job_inputs i ON i.id = j.id \
         WHERE j.state = 'running' AND j.worker_id = ?1 AND j.cancel_requested_at IS NOT NULL",
    )?;
    let requests = statement.query_map([worker_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(requests.collect::<rusqlite::Result<_>>()?)
}

/// When a worker last renewed its row, by its own wall clock: for people only.
pub(super) fn is_live(last_beat: Timestamp, now: Timestamp, worker_timeout: std::time::Duration) -> bool {
    now.duration_since(last_beat).unsigned_abs() <= worker_timeout
}
