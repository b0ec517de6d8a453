//! Everything that ends an attempt or an execution. Writes of an attempt are fenced by its lease token: zero rows is a lost lease, a
//! normal outcome. Every closed execution gets exactly one verdict, in the same transaction.

use std::sync::Arc;

use iolaus_activities::{FailureRecord, TimeoutKind, clip, timestamp};
use jiff::Timestamp;
use rusqlite::{ErrorCode, OptionalExtension, params};
use serde_json::Value;

use super::isolation::Owned;
use super::rows::{self, ms, to_json};
use super::{StoreError, Tx};
use crate::embedded::hub::Closed;
use crate::executor::{self, Closing, Decision, Execution};
use crate::job::JobState;

/// What became of the end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finished {
    /// It is durable.
    Done,
    /// The attempt did not own its lease any more; nothing was written.
    LeaseLost,
    /// Somebody asked to cancel meanwhile, so the attempt must not be retried: decide again.
    CancelRequested,
}

/// Failed attempts of one execution that are kept.
const FAILURES: i64 = 20;
/// What was closed before a time, but for steps whose sequence is still there.
pub(super) const OLD: &str = "SELECT j.id, j.activity, j.tenant, j.state FROM jobs j WHERE j.finished_at IS NOT NULL AND j.finished_at < ?1 \
     AND NOT EXISTS (SELECT 1 FROM jobs s WHERE s.id = j.parent_id) ORDER BY j.finished_at LIMIT ?2";

impl Tx<'_> {
    /// Ends an attempt of this process as decided. The caller tells the verdict. `again`: the same was asked before, and it is not known
    /// what became of that.
    pub(crate) fn finish_attempt(&mut self, id: i64, token: i64, decision: &Decision, again: bool) -> Result<Finished, StoreError> {
        let before = self.after.closed.len();
        let finished = match self.finish(id, token, decision)? {
            Finished::LeaseLost if again && self.has_ended_so(id, token, decision)? => Finished::Done,
            finished => finished,
        };
        self.after.closed[before..].iter_mut().filter(|closed| closed.id == id).for_each(|closed| closed.by_attempt = true);
        Ok(finished)
    }

    /// Whether an attempt has ended as decided. What it closed has its very verdict, and what it failed with stands under its lease
    /// token, where a rescue would have left another failure.
    fn has_ended_so(&self, id: i64, token: i64, decision: &Decision) -> Result<bool, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT (SELECT v.verdict FROM job_verdicts v WHERE v.id = j.id AND j.lease_token = ?2), \
                    (SELECT f.failure FROM job_failures f WHERE f.id = j.id AND f.lease_token = ?2), j.finished_at IS NOT NULL \
             FROM jobs j WHERE j.id = ?1",
        )?;
        let stored: Option<(Option<String>, Option<String>, bool)> =
            statement.query_row(params![id, token], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
        let Some((verdict, failure, is_closed)) = stored else { return Ok(false) };
        Ok(match decision {
            Decision::Close(closing) => verdict.as_deref() == Some(closing.json()),
            Decision::Retry { failure: own, .. } | Decision::Undo { failure: Some(own) } => failure == Some(to_json(own)?),
            Decision::Undo { failure: None } | Decision::GiveBack { .. } => failure.is_none() && !is_closed,
            Decision::Nothing => false,
        })
    }

    /// Ends an attempt as decided.
    pub(crate) fn finish(&mut self, id: i64, token: i64, decision: &Decision) -> Result<Finished, StoreError> {
        if let Decision::Close(closing) = decision
            && closing.state == JobState::Completed
        {
            // A verdict completes whatever was asked meanwhile: the write itself compares the lease.
            return Ok(if self.close(id, token, JobState::Running, closing)? { Finished::Done } else { Finished::LeaseLost });
        }
        let mut statement = self.conn.prepare_cached(
            "SELECT cancel_requested_at IS NOT NULL FROM jobs WHERE id = ?1 AND lease_token = ?2 AND state = 'running'",
        )?;
        let mut found = statement.query(params![id, token])?;
        let Some(row) = found.next()? else { return Ok(Finished::LeaseLost) };
        let cancel_requested: bool = row.get(0)?;
        match decision {
            Decision::Nothing => return Ok(Finished::LeaseLost),
            Decision::Close(closing) if cancel_requested && closing.state == JobState::Discarded => {
                return Ok(Finished::CancelRequested);
            }
            Decision::Close(closing) => drop(self.close(id, token, JobState::Running, closing)?),
            Decision::Retry { .. } | Decision::GiveBack { .. } if cancel_requested => return Ok(Finished::CancelRequested),
            Decision::Retry { at, failure } => self.postpone(id, token, *at, failure)?,
            Decision::Undo { failure } => self.undo(id, token, failure.as_ref())?,
            Decision::GiveBack { drained } => self.give_back(id, *drained)?,
        }
        Ok(Finished::Done)
    }

    /// Closes an execution that is in state `from` under this lease token. False, and nothing is written, if it is not. The end of a step
    /// is, in the same transaction, the beginning of the next one or the end of its sequence.
    pub(super) fn close(&mut self, id: i64, token: i64, from: JobState, closing: &Arc<Closing>) -> Result<bool, StoreError> {
        let closed = self
            .conn
            .prepare_cached(
                "UPDATE jobs SET state = ?2, finished_at = ?3, worker_id = NULL, expires_at = NULL \
                 WHERE id = ?1 AND lease_token = ?4 AND state = ?5 RETURNING parent_id",
            )?
            .query_row(params![id, closing.state.as_str(), ms(closing.verdict.finished_at), token, from.as_str()], |row| row.get(0))
            .optional()?;
        let Some(parent): Option<Option<i64>> = closed else { return Ok(false) };
        let verdict = &closing.verdict;
        let code = verdict.failure.as_ref().map(|failure| failure.code.as_str());
        let mut insert = self.conn.prepare_cached("INSERT INTO job_verdicts(id, status, code, verdict) VALUES (?1, ?2, ?3, ?4)")?;
        let stored = insert.execute(params![id, verdict.status.as_str(), code, closing.json()]);
        if matches!(&stored, Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)) {
            // Only a damaged file has a verdict of an open execution: how it ends now is what is known of it.
            tracing::error!(row = id, job_id = verdict.job_id, hint = "iolaus fsck", "a verdict of an open job was replaced");
            self.conn.prepare_cached("DELETE FROM job_verdicts WHERE id = ?1")?.execute([id])?;
            insert.execute(params![id, verdict.status.as_str(), code, closing.json()])?;
        } else {
            stored?;
        }
        if let (JobState::Discarded, Some(failure), 1..) = (closing.state, &verdict.failure, verdict.attempts) {
            self.note_failure(id, token, verdict.attempts, failure)?;
        }
        self.counts.moved(&verdict.activity, &verdict.tenant, Some(from), Some(closing.state));
        self.after.closed.push(Closed { id, closing: closing.clone(), by_attempt: false });
        // What runs has no timer.
        self.after.timers |= from != JobState::Running;
        self.after.wake_others = true;
        if let Some(sequence) = parent {
            self.advance(sequence)?;
        }
        Ok(true)
    }

    fn postpone(&mut self, id: i64, token: i64, at: Timestamp, failure: &FailureRecord) -> Result<(), StoreError> {
        let Some(stored) = rows::load(self.conn, id)? else { return Ok(()) };
        let expires = rows::expires_at(&stored.execution.options, at, stored.execution.close_by);
        self.conn
            .prepare_cached(
                "UPDATE jobs SET state = 'retryable', run_at = ?2, expires_at = ?3, worker_id = NULL, deaths = 0 WHERE id = ?1",
            )?
            .execute(params![id, ms(at), expires])?;
        let Execution { activity, tenant, .. } = &stored.execution;
        self.counts.moved(activity, tenant, Some(JobState::Running), Some(JobState::Retryable));
        self.note_failure(id, token, stored.execution.attempts, failure)?;
        self.after.timers = true;
        self.after.wake_others = true;
        Ok(())
    }

    fn give_back(&mut self, id: i64, drained: bool) -> Result<(), StoreError> {
        let Some(stored) = rows::load(self.conn, id)? else { return Ok(()) };
        let expires = rows::expires_at(&stored.execution.options, self.now, stored.execution.close_by);
        self.conn
            .prepare_cached(
                "UPDATE jobs SET state = 'available', attempt = attempt - 1, drains = drains + ?3, worker_id = NULL, expires_at = ?2, \
                 deaths = 0 WHERE id = ?1",
            )?
            .execute(params![id, expires, i64::from(drained)])?;
        let Execution { activity, tenant, .. } = &stored.execution;
        self.counts.moved(activity, tenant, Some(JobState::Running), Some(JobState::Available));
        self.after.ready = true;
        self.after.timers = true;
        self.after.wake_others = true;
        Ok(())
    }

    pub(super) fn note_failure(&self, id: i64, token: i64, attempt: u32, failure: &FailureRecord) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO job_failures(id, lease_token, attempt, at, failure) VALUES (?1,?2,?3,?4,?5)")?
            .execute(params![id, token, attempt, ms(self.now), to_json(failure)?])?;
        if token > FAILURES {
            self.conn
                .prepare_cached("DELETE FROM job_failures WHERE id = ?1 AND lease_token <= ?2")?
                .execute(params![id, token - FAILURES])?;
        }
        Ok(())
    }

    /// Makes a checkpoint durable; false if the attempt does not own its lease any more.
    pub(crate) fn save_checkpoint(&mut self, id: i64, token: i64, checkpoint: &Value) -> Result<bool, StoreError> {
        self.fenced(
            "INSERT INTO job_checkpoints(id, checkpoint) SELECT id, ?3 FROM jobs WHERE id = ?1 AND lease_token = ?2 AND state = 'running' \
             ON CONFLICT(id) DO UPDATE SET checkpoint = excluded.checkpoint",
            params![id, token, to_json(checkpoint)?],
        )
    }

    /// Shows progress to people.
    pub(crate) fn save_progress(
        &mut self,
        id: i64,
        token: i64,
        progress: Option<&Value>,
        stalled_since: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        self.fenced(
            "INSERT INTO job_checkpoints(id, progress, stalled_since) \
             SELECT id, ?3, ?4 FROM jobs WHERE id = ?1 AND lease_token = ?2 AND state = 'running' \
             ON CONFLICT(id) DO UPDATE SET progress = excluded.progress, stalled_since = excluded.stalled_since",
            params![id, token, progress.map(to_json).transpose()?, stalled_since.map(ms)],
        )
    }

    fn fenced(&self, sql: &str, params: impl rusqlite::Params) -> Result<bool, StoreError> {
        Ok(self.conn.prepare_cached(sql)?.execute(params)? > 0)
    }

    /// Closes what waited too long, a bounded number. True when there may be more.
    pub(crate) fn expire(&mut self) -> Result<bool, StoreError> {
        let (now, limit) = (ms(self.now), self.maintenance.limit());
        let ids = self.ids("SELECT id FROM jobs WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2", params![now, limit])?;
        let mut closed = 0;
        for id in &ids {
            closed += usize::from(self.isolated(*id, |tx| tx.expire_one(*id))?.is_some());
        }
        Ok(self.maintenance.took(ids.len(), limit) && closed > 0)
    }

    fn expire_one(&mut self, id: i64) -> Result<(), StoreError> {
        let Some(stored) = self.load_or_set_aside(id, None)? else { return Ok(()) };
        let whole = stored.execution.close_by.is_some_and(|at| at <= self.now);
        let kind = if whole { TimeoutKind::ScheduleToClose } else { TimeoutKind::ScheduleToStart };
        let mut failure = executor::timed_out(kind);
        let tenant = &stored.execution.tenant;
        let why = match self.what_held(tenant)? {
            None => self.not_served(tenant)?,
            held => held,
        };
        if let Some(why) = why {
            failure.message = clip(failure.message + &why);
        }
        let closing = if stored.cancel_requested {
            self.not_undone(id, &stored, &failure)?
        } else {
            Arc::new(executor::discarded(&stored.execution, &failure, self.now))
        };
        self.close(id, stored.token, stored.state, &closing).map(drop)
    }

    /// What to add for people about a job that waited too long while a worker held its tenant back.
    fn what_held(&self, tenant: &str) -> Result<Option<String>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT w.name, h.since, h.reason FROM worker_holds h JOIN workers w ON w.id = h.worker_id WHERE h.tenant = ?1 \
             ORDER BY h.since LIMIT 1",
        )?;
        let held = statement.query_row([tenant], |row| {
            let (worker, reason) = (rows::lossy(row, 0)?, rows::lossy(row, 2)?);
            let since = timestamp::format(rows::nearest_time(row, 1)?);
            Ok(format!("; worker {worker} asks nothing of tenant {tenant} since {since}: {reason}"))
        });
        Ok(held.optional()?)
    }

    /// Forgets executions that were closed before `before`, a few at a time; steps only once their sequence is forgotten. True when there
    /// may be more.
    pub(crate) fn prune(&mut self, before: Timestamp) -> Result<bool, StoreError> {
        let limit = self.maintenance.limit();
        let (old, looked_at) = self.owned(OLD, params![ms(before), limit])?;
        let (mut more, mut forgotten) = (self.maintenance.took(looked_at, limit), 0);
        for one in &old {
            let steps = self.isolated(one.id, |tx| tx.forget(one))?;
            forgotten += usize::from(steps.is_some());
            more |= steps.unwrap_or(false);
        }
        more &= forgotten > 0;
        if !old.is_empty() {
            // One step gives back one page.
            let mut vacuum = self.conn.prepare_cached("PRAGMA incremental_vacuum(256)")?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
        }
        Ok(more)
    }

    /// True if there are steps of it, which may go now.
    fn forget(&mut self, Owned { id, activity, tenant, state }: &Owned) -> Result<bool, StoreError> {
        let has_steps = self.conn.prepare_cached("SELECT 1 FROM jobs WHERE parent_id = ?1")?.exists([id])?;
        for table in ["job_inputs", "job_checkpoints", "job_verdicts", "job_failures", "jobs"] {
            self.conn.prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1"))?.execute([id])?;
        }
        self.counts.moved(activity, tenant, Some(*state), None);
        Ok(has_steps)
    }

    pub(super) fn ids(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<i64>, StoreError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let ids = statement.query_map(params, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(ids)
    }
}
