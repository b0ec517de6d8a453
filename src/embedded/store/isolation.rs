//! Keeps the jobs that one transaction claims, promotes, closes, rescues or forgets apart from each other. At first nothing does, because
//! a savepoint for each job costs more than the job. Where one of them fails, the transaction is undone and run again with savepoints:
//! that job is set aside, or passed over for a while if it cannot be written either, and the others go on.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::fsck::JobRow;
use super::{StoreError, Tx, rows, unreadable};
use crate::job::JobState;

/// A job that was passed over is tried again, and logged again, after this long.
const PASSED_OVER_FOR: Duration = Duration::from_secs(60);
/// Jobs that are passed over at most. Damage to more is damage to the file.
const MOST: usize = 1_024;

/// Jobs of which neither what was wanted nor their end can be written.
#[derive(Debug, Clone, Default)]
pub(super) struct PassedOver {
    rows: HashSet<i64>,
    since: Duration,
}

impl PassedOver {
    /// All of them are tried again once they were passed over for long enough. `now` is of the monotonic clock.
    pub(super) fn renew(&mut self, now: Duration) {
        if self.rows.is_empty() || now.saturating_sub(self.since) >= PASSED_OVER_FOR {
            self.rows.clear();
            self.since = now;
        }
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        !self.rows.is_empty() && self.rows.contains(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether that is news.
    fn add(&mut self, id: i64) -> bool {
        self.rows.len() < MOST && self.rows.insert(id)
    }
}

/// A job, and under what it is counted.
pub(super) struct Owned {
    pub(super) id: i64,
    pub(super) activity: String,
    pub(super) tenant: String,
    pub(super) state: JobState,
}

impl Owned {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { id: row.get(0)?, activity: row.get(1)?, tenant: row.get(2)?, state: rows::parsed(row, 3)? })
    }
}

impl Tx<'_> {
    /// The jobs that a query of `id, activity, tenant, state` finds, and how many it found in all: those that cannot be read are set aside.
    pub(super) fn owned(&mut self, sql: &str, params: impl rusqlite::Params) -> Result<(Vec<Owned>, usize), StoreError> {
        let (mut owned, mut damaged) = (Vec::new(), Vec::new());
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            match Owned::read(row).map_err(StoreError::from) {
                Ok(one) => owned.push(one),
                Err(error) => damaged.push((row.get(0)?, unreadable::problem(&error).ok_or(error)?)),
            }
        }
        let found = owned.len() + damaged.len();
        for (id, problem) in &damaged {
            self.set_aside_isolated(*id, problem)?;
        }
        Ok((owned, found))
    }

    /// Whether there are jobs that stay as they are because they cannot be written.
    pub(crate) fn passes_over(&self) -> bool {
        self.passed_over.len() > 0
    }

    /// Runs a step about one job. `None`: that failed, or would fail, for a reason that lies in its rows.
    pub(super) fn isolated<T>(
        &mut self,
        id: i64,
        step: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        if self.passed_over.contains(id) {
            return Ok(None);
        }
        if !self.isolates {
            return step(self).map(Some);
        }
        let error = match self.within_savepoint(step)? {
            Ok(done) => return Ok(Some(done)),
            Err(error) if lies_in_a_row(&error) => error,
            Err(error) => return Err(error),
        };
        let (closed, problem) = (self.after.closed.len(), error.to_string());
        let set_aside = self.within_savepoint(|tx| tx.set_aside(id, None, Some(problem)))?;
        if !self.after.closed[closed..].iter().any(|closed| closed.id == id) && self.passed_over.add(id) {
            let job_id = job_id(self.conn, id);
            let set_aside = set_aside.err().map(|error| error.to_string());
            tracing::error!(row = id, job_id, %error, set_aside, hint = "iolaus fsck", "a job that cannot be written is passed over");
        }
        Ok(None)
    }

    /// Sets a job aside that cannot be read.
    pub(super) fn set_aside_isolated(&mut self, id: i64, problem: &str) -> Result<(), StoreError> {
        self.isolated(id, |tx| tx.set_aside(id, None, Some(problem.to_owned()))).map(drop)
    }

    /// Runs a step that leaves nothing behind if it fails. The outer error is one of the transaction, which is gone.
    pub(super) fn within_savepoint<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, StoreError> {
        let (counts, mark) = (self.counts.clone(), self.after.mark());
        execute(self.conn, "SAVEPOINT step")?;
        match step(self) {
            Ok(done) => {
                execute(self.conn, "RELEASE step")?;
                Ok(Ok(done))
            }
            // As when the disk is full.
            Err(error) if self.conn.is_autocommit() => Err(error),
            Err(error) => {
                execute(self.conn, "ROLLBACK TO step")?;
                execute(self.conn, "RELEASE step")?;
                self.counts = counts;
                self.after.undo(&mark);
                Ok(Err(error))
            }
        }
    }
}

/// Whether an error may be about what one row holds, and not about the disk, the lock or the program.
pub(super) fn lies_in_a_row(error: &StoreError) -> bool {
    let StoreError::Sql(sql) = error else { return false };
    unreadable::problem(error).is_some()
        || matches!(sql.as_ref(), rusqlite::Error::QueryReturnedNoRows)
        || matches!(
            sql.sqlite_error_code(),
            Some(
                ErrorCode::ConstraintViolation
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::TypeMismatch
                    | ErrorCode::TooBig
                    | ErrorCode::Unknown
            )
        )
}

fn job_id(conn: &Connection, id: i64) -> Option<String> {
    JobRow::find(conn, id).ok().flatten().map(|row| row.job_id)
}

pub(super) fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::backlog::{Backlog, fill};
    use super::super::model::{new_job_for_tests, registration};
    use super::super::schema;
    use super::super::workers::WorkerBeat;
    use super::*;
    use crate::embedded::Durability;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    /// Three due jobs, changed.
    fn three(dir: &std::path::Path, change: &str) -> Connection {
        let path = dir.join("t.db");
        fill(&path, &new_job_for_tests(), &[Backlog::due(3)], at(0)).unwrap();
        let conn = schema::open_writer(&path, Durability::Full, at(0)).unwrap();
        conn.execute_batch(change).unwrap();
        conn
    }

    fn states(conn: &Connection) -> Vec<(i64, String)> {
        let mut statement = conn.prepare("SELECT id, state FROM jobs ORDER BY id").unwrap();
        let states = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        states.collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn a_closed_job_that_cannot_be_read_keeps_no_other_from_being_forgotten_and_is_forgotten_next() {
        let dir = tempfile::tempdir().unwrap();
        let damage =
            "UPDATE jobs SET state = 'completed', finished_at = id; UPDATE jobs SET tenant = CAST(x'ff' AS TEXT) WHERE id = 1";
        let conn = three(dir.path(), damage);
        let prune = || Tx::new(&conn, at(10), 0.5).prune(at(10)).unwrap();
        prune();
        assert_eq!(states(&conn), [(1, "completed".to_owned())]);
        prune();
        assert_eq!(states(&conn), []);
    }

    /// What a rescue writes about the first job cannot be written, nor can its end.
    #[test]
    fn a_rescue_passes_over_a_job_that_cannot_be_written_and_the_worker_stays_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let conn = three(dir.path(), "UPDATE jobs SET state = 'running', worker_id = 1, lease_token = 1, attempt = 1");
        let worker = Tx::new(&conn, at(0), 0.5).register_worker(&registration(0)).unwrap();
        assert_eq!(worker, 1);
        conn.execute_batch("CREATE INDEX planted ON jobs(abs(iif(id = 1 AND state <> 'running', -9223372036854775808, 1)))")
            .unwrap();
        let dead = WorkerBeat { id: worker, name: "w".into(), beat: 0, timeout: Duration::from_secs(10) };
        let running = |id| (id, "running".to_owned());

        conn.execute_batch("BEGIN").unwrap();
        let refused = Tx::new(&conn, at(10), 0.5).rescue(&dead).unwrap_err();
        assert!(lies_in_a_row(&refused), "{refused:?}");
        conn.execute_batch("ROLLBACK; BEGIN").unwrap();
        let mut tx = Tx::new(&conn, at(10), 0.5);
        tx.isolates = true;
        assert_eq!(tx.rescue(&dead).unwrap(), (2, false));
        assert!(tx.passes_over() && tx.passed_over.contains(1));
        conn.execute_batch("COMMIT").unwrap();
        assert_eq!(states(&conn), [running(1), (2, "retryable".to_owned()), (3, "retryable".to_owned())]);

        conn.execute_batch("DROP INDEX planted").unwrap();
        let mut passed_over = tx.passed_over;
        let mut rescue = |now| {
            passed_over.renew(now);
            let mut tx = Tx::new(&conn, at(20), 0.5);
            tx.passed_over = passed_over.clone();
            tx.rescue(&dead).unwrap()
        };
        assert_eq!(rescue(Duration::from_secs(59)), (0, false), "not before a minute has gone by");
        assert_eq!(rescue(Duration::from_secs(60)), (1, false));
        assert_eq!(conn.query_row("SELECT count(*) FROM workers", [], |row| row.get(0)), Ok(0));
    }
}
