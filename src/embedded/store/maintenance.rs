//! What a transaction does for the queue beside what it was asked for: a bounded number of rows, so that no other writer waits long.
//!
//! A process that lives for a moment, as `iolaus enqueue` does, does a share of it, too: where no worker runs, nothing else would. It
//! cannot wait for a beat that does not come, and so stores the beat that it saw. A worker is dead once processes have seen the same
//! beat three times, each its timeout apart: a clock that is set forward makes one of these intervals long, and never both.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::closing::OLD;
use super::retention::kept_since;
use super::rows::{self, ms};
use super::workers::{WorkerBeat, milliseconds};
use super::{StoreError, Tx};

/// Executions that one transaction promotes, closes, rescues or deletes at most, all together.
pub(super) const STEP: usize = 256;
/// As often the same beat was seen of a worker that is dead.
const DEAD_AFTER: i64 = 3;
/// Silent workers that one transaction looks at.
const SILENT: i64 = 256;

/// What a transaction may still do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maintenance {
    left: usize,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { left: STEP }
    }
}

impl Maintenance {
    /// Rows that may still be changed.
    pub(super) fn limit(self) -> i64 {
        i64::try_from(self.left).unwrap_or(i64::MAX)
    }

    /// Rows that were changed of at most `limit`. Answers whether there may be more.
    pub(super) fn took(&mut self, rows: usize, limit: i64) -> bool {
        self.left = self.left.saturating_sub(rows);
        i64::try_from(rows).unwrap_or(i64::MAX) >= limit
    }
}

/// A worker that has not renewed its row for its timeout by this process's wall clock, and what was seen of it before.
struct Silent {
    beat: WorkerBeat,
    /// Its beat, how often it was seen, and when last.
    seen: Option<(i64, i64, i64)>,
}

impl Tx<'_> {
    /// A share of all that is to be done. `retention` is this process's setting.
    pub(crate) fn maintain(&mut self, retention: Duration) -> Result<(), StoreError> {
        for silent in silent_workers(self.conn, self.now)? {
            self.note_silence(&silent)?;
        }
        self.expire()?;
        self.prune_unkept(retention)?;
        self.prune_effects()?;
        Ok(())
    }

    fn note_silence(&mut self, silent: &Silent) -> Result<(), StoreError> {
        let (worker, now) = (&silent.beat, ms(self.now));
        let timeout = i64::try_from(worker.timeout.as_millis()).unwrap_or(i64::MAX);
        let times = match silent.seen {
            Some((beat, times, at)) if beat == worker.beat && now >= at => {
                if now.saturating_sub(at) < timeout {
                    return Ok(());
                }
                times.saturating_add(1)
            }
            // Another beat, or the clock was set back.
            _ => 1,
        };
        if times >= DEAD_AFTER {
            self.rescue(worker)?;
            return Ok(());
        }
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO silent_workers(worker_id, beat, times, seen_at) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![worker.id, worker.beat, times, now])?;
        Ok(())
    }
}

/// Whether [`Tx::maintain`] would find anything. Seeks and the table of workers, no lock.
pub(crate) fn needs_maintenance(conn: &Connection, now: Timestamp, retention: Duration) -> Result<bool, StoreError> {
    if conn.prepare_cached("SELECT 1 FROM jobs WHERE expires_at <= ?1 LIMIT 1")?.exists([ms(now)])? {
        return Ok(true);
    }
    if let Some(before) = kept_since(conn, retention, now)?
        && conn.prepare_cached(OLD)?.query_row(params![ms(before), 1], |_| Ok(())).optional()?.is_some()
    {
        return Ok(true);
    }
    Ok(!silent_workers(conn, now)?.is_empty())
}

fn silent_workers(conn: &Connection, now: Timestamp) -> Result<Vec<Silent>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT w.id, w.name, w.beat, w.timeout_ms, s.beat, s.times, s.seen_at \
         FROM workers w LEFT JOIN silent_workers s ON s.worker_id = w.id WHERE abs(?1 - w.beat_at) > w.timeout_ms LIMIT ?2",
    )?;
    let silent = statement.query_map(params![ms(now), SILENT], |row| {
        let beat =
            WorkerBeat { id: row.get(0)?, name: rows::lossy(row, 1)?, beat: row.get(2)?, timeout: milliseconds(row.get(3)?) };
        let seen = match row.get(4)? {
            Some(seen) => Some((seen, row.get(5)?, row.get(6)?)),
            None => None,
        };
        Ok(Silent { beat, seen })
    })?;
    Ok(silent.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::backlog::{Backlog, fill};
    use super::super::model::{new_job_for_tests, registration, request};
    use super::super::{claim, schema};
    use super::*;
    use crate::embedded::Durability;
    use crate::job::JobState;

    const MINUTE: i64 = 60_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    /// A thousand jobs that are due at 0.
    fn a_thousand(dir: &Path) -> Connection {
        let path = dir.join("t.db");
        fill(&path, &new_job_for_tests(), &[Backlog::due(1_000)], at(0)).unwrap();
        let conn = schema::open_writer(&path, Durability::Full, at(0)).unwrap();
        conn.pragma_update(None, "synchronous", "OFF").unwrap();
        conn
    }

    fn register(conn: &Connection, now: i64) -> i64 {
        Tx::new(conn, at(now), 0.5).register_worker(&registration(0)).unwrap()
    }

    fn in_state(conn: &Connection, state: JobState) -> usize {
        let count: i64 = conn.query_row("SELECT count(*) FROM jobs WHERE state = ?1", [state.as_str()], |row| row.get(0)).unwrap();
        usize::try_from(count).unwrap()
    }

    /// Runs transactions until one has nothing more to do, and answers how many rows of this state each of them made.
    fn steps(conn: &Connection, state: JobState, mut run: impl FnMut(&mut Tx<'_>) -> bool) -> Vec<usize> {
        let mut steps = Vec::new();
        loop {
            let before = in_state(conn, state);
            conn.execute_batch("BEGIN").unwrap();
            let more = run(&mut Tx::new(conn, at(MINUTE), 0.5));
            conn.execute_batch("COMMIT").unwrap();
            steps.push(in_state(conn, state) - before);
            if !more {
                return steps;
            }
        }
    }

    #[test]
    fn no_transaction_closes_more_expired_jobs_than_a_step_and_none_is_started_late() {
        let dir = tempfile::tempdir().unwrap();
        let conn = a_thousand(dir.path());
        conn.execute("UPDATE jobs SET expires_at = 1000", []).unwrap();
        let worker = register(&conn, MINUTE);
        let steps = steps(&conn, JobState::Discarded, |tx| {
            let more = tx.promote().unwrap() | tx.expire().unwrap();
            // The claim of the same transaction has no step of its own.
            let (claimed, _) = claim::claim(tx, &request(worker, 4), &mut claim::Turns::default()).unwrap();
            assert!(claimed.is_empty(), "an expired job was started");
            more
        });
        assert_eq!(steps, [256, 256, 256, 232]);
    }

    #[test]
    fn no_transaction_promotes_or_rescues_more_than_a_step() {
        let dir = tempfile::tempdir().unwrap();
        let conn = a_thousand(dir.path());
        conn.execute("UPDATE jobs SET state = 'scheduled'", []).unwrap();
        let promoted = steps(&conn, JobState::Available, |tx| tx.promote().unwrap());
        assert!(promoted.iter().all(|step| *step <= STEP) && promoted.iter().sum::<usize>() == 1_000, "{promoted:?}");

        let worker = register(&conn, 0);
        conn.execute("UPDATE jobs SET state = 'running', worker_id = ?1, lease_token = 1, attempt = 1", [worker]).unwrap();
        let dead = WorkerBeat { id: worker, name: "w".into(), beat: 0, timeout: Duration::from_secs(10) };
        let rescued = steps(&conn, JobState::Retryable, |tx| tx.rescue(&dead).unwrap().1);
        assert_eq!(rescued, [256, 256, 256, 232]);
        assert_eq!(conn.query_row("SELECT count(*) FROM workers", [], |row| row.get(0)), Ok(0));
    }

    #[test]
    fn no_transaction_deletes_more_than_a_step_whatever_it_does_beside() {
        let dir = tempfile::tempdir().unwrap();
        let conn = a_thousand(dir.path());
        conn.execute("UPDATE jobs SET state = 'completed', finished_at = 0 WHERE id > 200", []).unwrap();
        conn.execute("UPDATE jobs SET expires_at = 1000 WHERE id <= 200", []).unwrap();
        let rows = || conn.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)).unwrap();
        let retention = Duration::from_millis(MINUTE.unsigned_abs() - 1);
        let mut left = vec![rows()];
        while needs_maintenance(&conn, at(MINUTE), retention).unwrap() {
            conn.execute_batch("BEGIN").unwrap();
            Tx::new(&conn, at(MINUTE), 0.5).maintain(retention).unwrap();
            conn.execute_batch("COMMIT").unwrap();
            left.push(rows());
        }
        assert_eq!(left, [1_000, 944, 688, 432, 200], "200 are closed and 56 deleted by the first");
        assert_eq!(in_state(&conn, JobState::Discarded), 200);
    }

    #[test]
    fn a_worker_is_dead_when_the_same_beat_was_seen_three_times_its_timeout_apart_and_not_by_one_leap_of_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        let conn = a_thousand(dir.path());
        let worker = register(&conn, 0);
        let look = |seconds: i64| Tx::new(&conn, at(seconds * 1_000), 0.5).maintain(Duration::MAX).unwrap();
        let is_there = || conn.query_row("SELECT count(*) FROM workers", [], |row| row.get(0)) == Ok(1);
        look(20);
        // Two days forward, and back again: one interval is long.
        look(200_000);
        look(200_005);
        assert!(is_there());
        look(30);
        look(40);
        assert!(is_there(), "the clock went back: it is counted anew");
        assert!(Tx::new(&conn, at(41_000), 0.5).beat(worker).unwrap());
        look(52);
        look(62);
        assert!(is_there(), "another beat");
        look(71);
        assert!(is_there(), "it is not silent for another timeout yet");
        look(72);
        assert!(!is_there());
    }
}
