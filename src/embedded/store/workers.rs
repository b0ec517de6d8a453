//! Who is alive. A worker renews one row; a rescuer compares beats that it has seen on its own monotonic clock, and compares again
//! inside the rescue's transaction. How long a worker may be silent is said by the worker itself, in its row.

use std::time::Duration;

use iolaus_activities::SlotClass;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::rows::{self, ms};
use super::{Finished, ServedTenants, StoreError, Tx};
use crate::client::PauseKind;
use crate::executor::{self, WorkerDeath};
use crate::job::JobId;

/// A wait outlives so many times as many deaths of its workers as a job of class `work` does.
const WAITS_OUTLIVE: u32 = 10;

/// What a worker says of itself.
#[derive(Debug, Clone)]
pub(crate) struct WorkerRegistration {
    pub(crate) name: String,
    pub(crate) activities: Vec<&'static str>,
    pub(crate) tenants: ServedTenants,
    /// When it is dead if its beat has not changed.
    pub(crate) timeout: Duration,
    /// The one job that it works, with its steps; `None`: whatever it can run.
    pub(crate) job_id: Option<JobId>,
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
    /// When the worker is dead if that does not change.
    pub(crate) timeout: Duration,
}

impl Tx<'_> {
    pub(crate) fn register_worker(&mut self, worker: &WorkerRegistration) -> Result<i64, StoreError> {
        let now = ms(self.now);
        self.conn.execute(
            "INSERT INTO workers(name, version, activities, beat_at, started_at, timeout_ms, job_id) VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6)",
            params![
                worker.name,
                env!("CARGO_PKG_VERSION"),
                rows::to_json(&worker.activities)?,
                now,
                i64::try_from(worker.timeout.as_millis()).unwrap_or(i64::MAX),
                worker.job_id.as_ref().map(JobId::as_str),
            ],
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
        // Only whether it changes has a meaning, and it must be able to, whatever is stored.
        let mut statement =
            self.conn.prepare_cached("UPDATE workers SET beat = (beat & 4611686018427387903) + 1, beat_at = ?2 WHERE id = ?1")?;
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
            self.conn.execute("DELETE FROM silent_workers WHERE worker_id = ?1", [worker_id])?;
            self.forget_served(worker_id)?;
        }
        Ok(())
    }

    /// Changes what a worker shows of tenants that it does not ask for now; `None`: it asks again. `clears`: it showed nothing before. A
    /// worker without a row shows nothing.
    pub(crate) fn show_holds(
        &mut self,
        worker_id: i64,
        clears: bool,
        changes: &[(String, Option<StoredHold>)],
    ) -> Result<(), StoreError> {
        if clears {
            self.conn.execute("DELETE FROM worker_holds WHERE worker_id = ?1", [worker_id])?;
        }
        for (tenant, hold) in changes {
            self.conn
                .prepare_cached("DELETE FROM worker_holds WHERE worker_id = ?1 AND tenant = ?2")?
                .execute(params![worker_id, tenant])?;
            let Some(hold) = hold else { continue };
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
        let limit = self.maintenance.limit();
        let ids = self.ids("SELECT id FROM jobs WHERE state = 'running' AND worker_id = ?1 LIMIT ?2", params![seen.id, limit])?;
        let mut taken = 0;
        for id in &ids {
            taken += usize::from(self.isolated(*id, |tx| tx.take_from_dead(*id, &seen.name))?.is_some());
        }
        let more = self.maintenance.took(ids.len(), limit) && taken > 0;
        if !more {
            self.unregister_worker(seen.id)?;
        }
        self.after.wake_others = true;
        Ok((taken, more))
    }

    fn take_from_dead(&mut self, id: i64, worker: &str) -> Result<(), StoreError> {
        let Some(stored) = self.load_or_set_aside(id, None)? else { return Ok(()) };
        let cancel = self.unanswered_cancel(id, &stored)?;
        let at_most = match stored.slot_class {
            SlotClass::Work => self.max_deaths,
            // A wait is one long attempt beside many others, and hardly ever what kills them.
            SlotClass::Waits => self.max_deaths.saturating_mul(WAITS_OUTLIVE),
        };
        let death = WorkerDeath { worker, in_a_row: stored.deaths.saturating_add(1), at_most };
        let decision = executor::rescued(&stored.execution, &death, &cancel, self.now, self.jitter);
        let finished = self.finish(id, stored.token, &decision)?;
        debug_assert_eq!(finished, Finished::Done, "decided in this transaction, with the cancel request in view");
        // The end of any other attempt starts the count anew.
        self.conn.prepare_cached("UPDATE jobs SET deaths = ?2 WHERE id = ?1")?.execute(params![id, death.in_a_row])?;
        self.after.rescued.push((stored.execution.activity, stored.execution.tenant));
        Ok(())
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
    let mut statement = conn.prepare_cached("SELECT id, name, beat, timeout_ms FROM workers")?;
    let beats = statement.query_map([], |row| {
        Ok(WorkerBeat { id: row.get(0)?, name: rows::lossy(row, 1)?, beat: row.get(2)?, timeout: milliseconds(row.get(3)?) })
    })?;
    Ok(beats.collect::<rusqlite::Result<_>>()?)
}

/// The cancel requests for what a worker runs.
pub(crate) fn cancel_requests(conn: &Connection, worker_id: i64) -> Result<Vec<(i64, Option<String>)>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT j.id, i.cancel_reason FROM jobs j JOIN job_inputs i ON i.id = j.id \
         WHERE j.state = 'running' AND j.worker_id = ?1 AND j.cancel_requested_at IS NOT NULL",
    )?;
    let requests = statement.query_map([worker_id], |row| Ok((row.get(0)?, rows::optional_lossy(row, 1)?)))?;
    Ok(requests.collect::<rusqlite::Result<_>>()?)
}

/// When a worker last renewed its row, by its own wall clock: for people only.
pub(super) fn is_live(last_beat: Timestamp, now: Timestamp, worker_timeout: Duration) -> bool {
    now.duration_since(last_beat).unsigned_abs() <= worker_timeout
}

/// As stored. Never negative.
pub(super) fn milliseconds(stored: i64) -> Duration {
    Duration::from_millis(stored.unsigned_abs())
}
