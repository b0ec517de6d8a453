//! How long closed executions are kept. The workers of a queue say it in its file, in the table `meta`, and no process deletes one
//! before both its own setting and the recorded one are over: a command that was started without the workers' configuration must not
//! delete what they were told to keep.
//!
//! A worker that starts records its own setting, so that an operator can lower it. A worker that lives records a longer one again with
//! each heartbeat, so that the longest of the workers that live holds.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, Tx};

/// The row of `meta`: milliseconds.
const NAME: &str = "retention_ms";

impl Tx<'_> {
    /// Records what a worker that starts is told.
    pub(crate) fn set_retention(&mut self, retention: Duration) -> Result<(), StoreError> {
        let ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        self.conn
            .prepare_cached("INSERT INTO meta(name, value) VALUES (?1, ?2) ON CONFLICT(name) DO UPDATE SET value = excluded.value")?
            .execute(params![NAME, ms.to_string()])?;
        Ok(())
    }

    /// Records it again if what is recorded is shorter, or does not read.
    pub(crate) fn hold_retention(&mut self, retention: Duration) -> Result<(), StoreError> {
        if retention_of_workers(self.conn)?.is_none_or(|recorded| recorded.as_millis() < retention.as_millis()) {
            self.set_retention(retention)?;
        }
        Ok(())
    }

    /// Deletes a share of the executions whose retention is over. `own` is this process's setting. True when there may be more.
    pub(crate) fn prune_unkept(&mut self, own: Duration) -> Result<bool, StoreError> {
        kept_since(self.conn, own, self.now)?.map_or(Ok(false), |before| self.prune(before))
    }
}

/// The time since which closed executions are kept; `None`: all of them are.
pub(super) fn kept_since(conn: &Connection, own: Duration, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let retention = retention_of_workers(conn)?.map_or(own, |recorded| recorded.max(own));
    Ok(now.checked_sub(retention).ok())
}

/// What the workers have recorded. `None` if none has, or it does not read.
pub(crate) fn retention_of_workers(conn: &Connection) -> Result<Option<Duration>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    let ms =
        statement.query_row([NAME], |row| Ok(row.get_ref(0)?.as_str().ok().and_then(|value| value.parse().ok()))).optional()?;
    Ok(ms.flatten().map(Duration::from_millis))
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;
    use crate::embedded::Durability;

    #[test]
    fn what_does_not_read_is_not_recorded_and_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let conn = schema::open_writer(&dir.path().join("t.db"), Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
        let day = Duration::from_secs(86_400);
        let now: Timestamp = "2026-01-08T00:00:00Z".parse().unwrap();
        let mut tx = Tx::new(&conn, now, 0.5);
        assert_eq!(retention_of_workers(&conn).unwrap(), None);
        assert_eq!(kept_since(&conn, 7 * day, now).unwrap(), Some("2026-01-01T00:00:00Z".parse().unwrap()));
        for value in ["'x'", "'-1'", "CAST(x'ff' AS TEXT)"] {
            conn.execute(&format!("INSERT OR REPLACE INTO meta VALUES ('retention_ms', {value})"), []).unwrap();
            assert_eq!(retention_of_workers(&conn).unwrap(), None, "{value}");
            tx.hold_retention(30 * day).unwrap();
            assert_eq!(retention_of_workers(&conn).unwrap(), Some(30 * day), "{value}");
        }
        tx.hold_retention(day).unwrap();
        assert_eq!(retention_of_workers(&conn).unwrap(), Some(30 * day), "it is shorter");
        tx.set_retention(Duration::MAX).unwrap();
        assert_eq!(kept_since(&conn, day, now).unwrap(), None, "for ever");
    }
}
