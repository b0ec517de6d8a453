//! What gauges read. Seeks and small tables only: nothing here walks the backlog.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use super::claim::{MAX_LANES, first_lane, next_lane};
use super::rows::{optional_time, time};

/// Since when the oldest job of each activity and tenant is due.
pub(crate) fn oldest_due_of_each(conn: &Connection) -> Result<BTreeMap<(String, String), Timestamp>, StoreError> {
    let mut oldest = BTreeMap::new();
    let mut statement = conn.prepare_cached(HEAD)?;
    let mut lane = first_lane(conn)?;
    for _ in 0..MAX_LANES {
        let Some(current) = lane else { break };
        let mut above = 0;
        loop {
            let key = params![current.activity, current.version, current.slot_class, current.tenant, above];
            let head = statement.query_row(key, |row| Ok((time(row, 0)?, row.get::<_, i64>(1)?))).optional()?;
            let Some((at, priority)) = head else { break };
            above = priority;
            let of = oldest.entry((current.activity.clone(), current.tenant.clone())).or_insert(at);
            *of = at.min(*of);
        }
        lane = next_lane(conn, &current)?;
    }
    Ok(oldest)
}

/// The head of the next priority of a lane.
pub(super) const HEAD: &str = "SELECT run_at, priority FROM jobs INDEXED BY jobs_ready WHERE state = 'available' AND activity = ?1 \
     AND activity_version = ?2 AND slot_class = ?3 AND tenant = ?4 AND priority > ?5 ORDER BY priority, run_at LIMIT 1";

/// When the oldest due job became due.
pub(crate) fn oldest_due(conn: &Connection) -> Result<Option<Timestamp>, StoreError> {
    Ok(oldest_due_of_each(conn)?.into_values().min())
}

/// When the job of each activity that runs for longest was started first.
pub(crate) fn longest_running(conn: &Connection) -> Result<Vec<(String, Timestamp)>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT activity, min(started_at) FROM jobs INDEXED BY jobs_running \
         WHERE state = 'running' AND worker_id IS NOT NULL AND started_at IS NOT NULL GROUP BY activity",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, optional_time(row, 1)?)))?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().filter_map(|(activity, at)| Some((activity, at?))).collect())
}
