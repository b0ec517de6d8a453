//! Retries dead executions by filter, a few in each transaction.

use rusqlite::params;

use super::enqueue::Retried;
use super::rows::parsed;
use super::{StoreError, Tx};
use crate::client::{Enqueued, RetryFilter, RetryPage, RetrySkipped, Target};
use crate::job::{JobId, JobState, RunId};
use crate::telemetry;

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
        let dead = self.dead(cursor)?;
        let next = dead.last().map(|last| Cursor { after: last.id, ..cursor });
        let mut page = RetryPage { retried: Vec::new(), skipped: Vec::new(), next_cursor: None };
        for job in dead.into_iter().filter(|job| job.matches(filter)) {
            self.retry_dead(job, filter, &mut page)?;
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

    fn dead(&self, cursor: Cursor) -> Result<Vec<Dead>, StoreError> {
        let mut statement = self.conn.prepare_cached(DEAD)?;
        let dead = statement.query_map(params![cursor.after, cursor.up_to, LOOKS], |row| {
            Ok(Dead {
                id: row.get(0)?,
                job_id: parsed(row, 1)?,
                run_id: parsed(row, 2)?,
                state: parsed(row, 3)?,
                activity: row.get(4)?,
                tenant: row.get(5)?,
                code: row.get(6)?,
            })
        })?;
        Ok(dead.collect::<rusqlite::Result<_>>()?)
    }
}

/// Steps are not among them: they go with their sequence.
const DEAD: &str = "SELECT j.id, j.job_id, j.run_id, j.state, j.activity, j.tenant, v.code \
     FROM jobs j INDEXED BY jobs_dead LEFT JOIN job_verdicts v ON v.id = j.id \
     WHERE j.state IN ('discarded', 'cancelled') AND j.id > ?1 AND j.id <= ?2 AND j.parent_id IS NULL ORDER BY j.id LIMIT ?3";

impl Dead {
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
    use super::super::schema;
    use super::*;
    use crate::embedded::Durability;

    #[test]
    fn the_dead_are_walked_by_their_own_index_from_where_the_last_step_ended() {
        let dir = tempfile::tempdir().unwrap();
        let conn = schema::open_writer(&dir.path().join("t.db"), Durability::Full, jiff::Timestamp::UNIX_EPOCH).unwrap();
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {DEAD}")).unwrap();
        let plan =
            statement.query_map([1, 2, 3], |row| row.get::<_, String>(3)).unwrap().collect::<rusqlite::Result<Vec<_>>>().unwrap();
        let plan = plan.join("; ");
        assert!(plan.contains("jobs_dead (rowid>? AND rowid<?)") || plan.contains("jobs_dead (id>? AND id<?)"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
