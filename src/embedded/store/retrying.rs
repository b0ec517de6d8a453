//! Retries dead executions by filter, a few in each transaction.

use rusqlite::{OptionalExtension, Row, params};

use super::enqueue::Retried;
use super::isolation::lies_in_a_row;
use super::listing::{self, DeadLane};
use super::rows::parsed;
use super::{StoreError, Tx, unreadable};
use crate::client::{Enqueued, RetryFilter, RetryPage, RetrySkipped, Target};
use crate::job::{JobId, JobState, RunId};
use crate::telemetry;

const NOT_RETRIED: &str = "a job that cannot be read is not retried";
/// Dead executions that one transaction looks at.
const LOOKS: i64 = 256;

/// A dead execution.
struct Dead {
    id: i64,
    job_id: JobId,
    run_id: RunId,
    state: JobState,
    activity: String,
    tenant: String,
    code: Option<String>,
}

/// Where a retry by filter goes on, and the newest execution that it may touch: what it opens itself it does not retry again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) after: i64,
    pub(crate) up_to: i64,
}

impl Tx<'_> {
    /// Retries what matches among the next dead executions, oldest first. Only the newest execution of a job is retried, so that saying
    /// the same again retries nothing twice.
    pub(crate) fn retry_matching(
        &mut self,
        filter: &RetryFilter,
        cursor: Option<Cursor>,
    ) -> Result<(RetryPage, Option<Cursor>), StoreError> {
        let cursor = match cursor {
            Some(cursor) => cursor,
            None => Cursor { after: 0, up_to: self.conn.query_row("SELECT coalesce(max(id), 0) FROM jobs", [], |row| row.get(0))? },
        };
        let (dead, last) = match listing::dead_lanes(self.conn, filter)? {
            Some(lanes) => self.dead_of(&lanes, cursor)?,
            None => self.dead(cursor)?,
        };
        let next = last.map(|after| Cursor { after, ..cursor });
        let mut page = RetryPage { retried: Vec::new(), skipped: Vec::new(), next_cursor: None };
        for job in dead.into_iter().filter(|job| job.matches(filter)) {
            let row = job.id;
            match self.within_savepoint(|tx| tx.retry_dead(job, filter, &mut page))? {
                Err(error) if lies_in_a_row(&error) => tracing::error!(row, %error, hint = "iolaus fsck", NOT_RETRIED),
                done => done?,
            }
        }
        Ok((page, next))
    }

    fn retry_dead(&mut self, dead: Dead, filter: &RetryFilter, page: &mut RetryPage) -> Result<(), StoreError> {
        if self.newest(&dead.job_id)?.is_none_or(|newest| newest.id != dead.id) {
            // It was retried, or its id used again, since.
            return Ok(());
        }
        if filter.dry_run {
            page.retried.push(Enqueued { existing: true, ..Enqueued::opened(dead.job_id, dead.run_id) });
            return Ok(());
        }
        let run_id = RunId::generate(self.now);
        let trace = telemetry::context_of(&tracing::Span::none());
        match self.retry(&Target::newest(dead.job_id.clone()), run_id, trace, filter.accept_duplicate)? {
            Retried::Open(run_id) => page.retried.push(Enqueued::opened(dead.job_id, run_id)),
            Retried::NeedsAcceptDuplicate(instead) => {
                page.skipped.push(RetrySkipped { job_id: dead.job_id, run_id: dead.run_id, instead });
            }
            // Looked up in this very transaction.
            Retried::NotFound | Retried::StillOpen | Retried::Step { .. } => {}
        }
        Ok(())
    }

    /// The next dead executions of any activity and tenant, and the last that was looked at.
    fn dead(&self, cursor: Cursor) -> Result<(Vec<Dead>, Option<i64>), StoreError> {
        let mut statement = self.conn.prepare_cached(&format!("{DEAD} {NEXT_DEAD}"))?;
        let mut rows = statement.query(params![cursor.after, cursor.up_to, LOOKS])?;
        let (mut dead, mut last) = (Vec::new(), None);
        while let Some(row) = rows.next()? {
            last = Some(row.get(0)?);
            dead.extend(Dead::readable(row)?);
        }
        Ok((dead, last))
    }

    /// The same of these lanes only.
    fn dead_of(&self, lanes: &[DeadLane], cursor: Cursor) -> Result<(Vec<Dead>, Option<i64>), StoreError> {
        let mut ids = Vec::new();
        for lane in lanes {
            let key = params![lane.activity, lane.tenant, lane.state.as_str(), cursor.after, cursor.up_to, LOOKS];
            ids.extend(self.ids(DEAD_OF_LANE, key)?);
        }
        ids.sort_unstable();
        ids.truncate(usize::try_from(LOOKS).unwrap_or(usize::MAX));
        let mut statement = self.conn.prepare_cached(&format!("{DEAD} {ONE_DEAD}"))?;
        let mut dead = Vec::new();
        for id in &ids {
            dead.extend(statement.query_row([id], |row| Ok(Dead::readable(row))).optional()?.transpose()?.flatten());
        }
        Ok((dead, ids.last().copied()))
    }
}

/// Steps are not among them: they go with their sequence.
const DEAD: &str = "SELECT j.id, j.job_id, j.run_id, j.state, j.activity, j.tenant, v.code FROM jobs j";
const NEXT_DEAD: &str = "INDEXED BY jobs_dead LEFT JOIN job_verdicts v ON v.id = j.id \
     WHERE j.state IN ('discarded', 'cancelled') AND j.id > ?1 AND j.id <= ?2 AND j.parent_id IS NULL ORDER BY j.id LIMIT ?3";
const ONE_DEAD: &str = "LEFT JOIN job_verdicts v ON v.id = j.id WHERE j.id = ?1 AND j.parent_id IS NULL";
const DEAD_OF_LANE: &str = "SELECT id FROM jobs INDEXED BY jobs_delayed_or_dead \
     WHERE state IN ('scheduled', 'retryable', 'discarded', 'cancelled') AND activity = ?1 AND tenant = ?2 AND state = ?3 \
     AND id > ?4 AND id <= ?5 ORDER BY id LIMIT ?6";

impl Dead {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            job_id: parsed(row, 1)?,
            run_id: parsed(row, 2)?,
            state: parsed(row, 3)?,
            activity: row.get(4)?,
            tenant: row.get(5)?,
            code: row.get(6)?,
        })
    }

    /// `None`, and a line in the log: it cannot be read, and the others are retried.
    fn readable(row: &Row<'_>) -> Result<Option<Self>, StoreError> {
        let error = match Self::read(row).map_err(StoreError::from) {
            Ok(dead) => return Ok(Some(dead)),
            Err(error) => error,
        };
        let problem = unreadable::problem(&error).ok_or(error)?;
        let id: i64 = row.get(0)?;
        tracing::error!(row = id, problem, hint = "iolaus fsck", NOT_RETRIED);
        Ok(None)
    }

    fn matches(&self, filter: &RetryFilter) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        (filter.states.is_empty() || filter.states.contains(&self.state))
            && is(&filter.activity, &self.activity)
            && is(&filter.tenant, &self.tenant)
            && filter.code.as_ref().is_none_or(|code| self.code.as_ref() == Some(code))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::schema;
    use super::*;
    use crate::embedded::Durability;

    fn open(dir: &std::path::Path) -> Connection {
        schema::open_writer(&dir.join("t.db"), Durability::Full, jiff::Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn the_dead_are_walked_by_their_own_indexes_from_where_the_last_step_ended() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open(dir.path());
        for (sql, expected) in [
            (format!("{DEAD} {NEXT_DEAD}"), "jobs_dead (id>? AND id<?)"),
            (DEAD_OF_LANE.to_owned(), "jobs_delayed_or_dead (activity=? AND tenant=? AND state=? AND rowid>? AND rowid<?)"),
            (format!("{DEAD} {ONE_DEAD}"), "SEARCH j USING INTEGER PRIMARY KEY (rowid=?)"),
        ] {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let values = vec![1; statement.parameter_count()];
            let plan = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
            let plan = plan.collect::<rusqlite::Result<Vec<_>>>().unwrap().join("; ");
            assert!(plan.contains(expected), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }

    /// 600 dead jobs of one tenant, older than three of another, one of which is a step.
    #[test]
    fn a_retry_of_one_tenant_reads_no_dead_jobs_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open(dir.path());
        conn.execute_batch(
            "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 603) \
             INSERT INTO jobs(id, job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, parent_id, run_at, \
                              enqueued_at, finished_at) \
             SELECT id, 'j' || id, printf('00000000-0000-7000-8000-%012d', id), 'a', 1, 'work', iif(id > 600, 'few', 'many'), \
                    iif(id = 603, 'cancelled', 'discarded'), 3, iif(id = 602, 1, NULL), 0, 0, 1 FROM n; \
             INSERT INTO job_counts SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3",
        )
        .unwrap();
        let mut tx = Tx::new(&conn, jiff::Timestamp::UNIX_EPOCH, 0.5);
        let mut steps = |filter: &RetryFilter| {
            let (mut steps, mut cursor) = (Vec::new(), None);
            loop {
                let (page, next) = tx.retry_matching(filter, cursor).unwrap();
                steps.push(page.retried.iter().map(|retried| retried.job_id.to_string()).collect::<Vec<_>>());
                cursor = next;
                if cursor.is_none() {
                    return steps;
                }
            }
        };
        let dry = RetryFilter { dry_run: true, ..RetryFilter::default() };
        let of = |tenant: &str| RetryFilter { tenant: Some(tenant.to_owned()), ..dry.clone() };
        assert_eq!(steps(&of("few")), [vec!["j601".to_owned(), "j603".to_owned()], vec![]]);
        assert_eq!(steps(&of("unknown")), [Vec::<String>::new()]);
        let lengths = |steps: Vec<Vec<String>>| steps.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(steps(&of("many"))), [256, 256, 88, 0]);
        assert_eq!(lengths(steps(&dry)), [256, 256, 90, 0]);
        let cancelled = RetryFilter { states: vec![JobState::Cancelled], ..dry };
        assert_eq!(steps(&cancelled), [vec!["j603".to_owned()], vec![]]);
    }
}
