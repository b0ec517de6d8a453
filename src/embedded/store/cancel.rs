//! Cancels executions: at once, by storing the request for the attempt that runs, or by one more attempt that only undoes.

use std::sync::Arc;

use iolaus_activities::FailureRecord;
use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::rows::{self, Stored, ms};
use super::{StoreError, Tx};
use crate::client::{Cancelled, Target};
use crate::executor::{self, Cancel, Closing, Decision, MAX_UNDO_ATTEMPTS, Unanswered};
use crate::job::{JobState, SEQUENCE};

impl Tx<'_> {
    /// Cancels an execution. `None` when there is none.
    pub(crate) fn cancel(&mut self, target: &Target, reason: Option<String>) -> Result<Option<Cancelled>, StoreError> {
        match super::read::find(self.conn, target)? {
            Some(id) => self.cancel_one(id, reason),
            None => Ok(None),
        }
    }

    pub(super) fn cancel_one(&mut self, id: i64, reason: Option<String>) -> Result<Option<Cancelled>, StoreError> {
        // One that cannot be read is closed by that.
        let Some(mut stored) = self.load_or_set_aside(id, None)? else { return Ok(Some(Cancelled::Closed)) };
        if !stored.state.is_open() {
            return Ok(Some(Cancelled::AlreadyClosed));
        }
        let waits = stored.state != JobState::Running;
        if waits && stored.cancel_requested {
            return Ok(Some(Cancelled::LastAttempt));
        }
        stored.cancel_reason = stored.cancel_reason.or(reason);
        if waits {
            return self.cancel_waiting(id, &stored).map(Some);
        }
        self.store_request(id, stored.cancel_reason.as_deref())?;
        self.after.wake_others = true;
        if stored.execution.activity == SEQUENCE {
            return self.cancel_open_step(id, stored.cancel_reason).map(Some);
        }
        self.after.cancel_requested.push((id, stored.cancel_reason));
        Ok(Some(Cancelled::Requested))
    }

    fn cancel_waiting(&mut self, id: i64, stored: &Stored) -> Result<Cancelled, StoreError> {
        let cancel = self.unanswered(id, stored)?;
        if let Decision::Close(closing) = executor::unanswered(&stored.execution, None, &cancel, self.now) {
            self.close(id, stored.token, stored.state, &closing)?;
            return Ok(Cancelled::Closed);
        }
        self.store_request(id, stored.cancel_reason.as_deref())?;
        self.make_available_to_undo(id, stored, false)?;
        Ok(Cancelled::LastAttempt)
    }

    fn store_request(&self, id: i64, reason: Option<&str>) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, ?2) WHERE id = ?1")?
            .execute(params![id, ms(self.now)])?;
        self.conn
            .prepare_cached("UPDATE job_inputs SET cancel_reason = coalesce(cancel_reason, ?2) WHERE id = ?1")?
            .execute(params![id, reason])?;
        Ok(())
    }

    /// What the cancel of an execution does that its activity has not answered.
    fn unanswered(&self, id: i64, stored: &Stored) -> Result<Unanswered, StoreError> {
        let checkpoint = self.checkpoint(id)?;
        let input = serde_json::from_str(&stored.input).unwrap_or(Value::Null);
        Ok(Unanswered {
            reason: stored.cancel_reason.clone(),
            plan: self.plans.plan(&stored.execution.tenant, &stored.execution.activity, input, checkpoint.as_ref()),
            may_undo: stored.undo_attempts < MAX_UNDO_ATTEMPTS,
            checkpoint,
        })
    }

    /// The cancel, if one was requested, of an execution whose attempt ended without an answer to it.
    pub(super) fn unanswered_cancel(&self, id: i64, stored: &Stored) -> Result<Cancel, StoreError> {
        if stored.cancel_requested { self.unanswered(id, stored).map(Cancel::Unanswered) } else { Ok(Cancel::NotRequested) }
    }

    /// The same for an attempt of this process. One that has lost its lease learns nothing, and finds that out when it ends.
    pub(crate) fn cancel_of_attempt(&self, id: i64, token: i64) -> Result<Cancel, StoreError> {
        match rows::load(self.conn, id)?.filter(|stored| stored.token == token) {
            Some(stored) => self.unanswered_cancel(id, &stored),
            None => Ok(Cancel::NotRequested),
        }
    }

    /// The end of an execution that waited too long for its last attempt.
    pub(super) fn not_undone(
        &self,
        id: i64,
        stored: &Stored,
        failure: &iolaus_activities::Failure,
    ) -> Result<Arc<Closing>, StoreError> {
        let cancel = Unanswered { may_undo: false, ..self.unanswered(id, stored)? };
        match executor::unanswered(&stored.execution, Some(failure), &cancel, self.now) {
            Decision::Close(closing) => Ok(closing),
            _ => Ok(Arc::new(executor::discarded(&stored.execution, failure, self.now))),
        }
    }

    /// Ends an attempt so that the next one only undoes.
    pub(super) fn undo(&mut self, id: i64, token: i64, failure: Option<&FailureRecord>) -> Result<(), StoreError> {
        let Some(stored) = rows::load(self.conn, id)? else { return Ok(()) };
        if let Some(failure) = failure {
            self.note_failure(id, token, stored.execution.attempts, failure)?;
        }
        self.make_available_to_undo(id, &stored, failure.is_none())
    }

    /// It waits for a worker no longer than the execution may take, and has a new time to start.
    fn make_available_to_undo(&mut self, id: i64, stored: &Stored, not_counted: bool) -> Result<(), StoreError> {
        let given_back = not_counted && stored.state == JobState::Running;
        self.conn
            .prepare_cached(
                "UPDATE jobs SET state = 'available', run_at = ?2, expires_at = close_by, worker_id = NULL, attempt = attempt - ?3, \
                 undo_attempts = undo_attempts + 1 WHERE id = ?1",
            )?
            .execute(params![id, ms(self.now), i64::from(given_back)])?;
        let execution = &stored.execution;
        self.counts.moved(&execution.activity, &execution.tenant, Some(stored.state), Some(JobState::Available));
        self.after.ready = true;
        self.after.timers = true;
        self.after.wake_others = true;
        Ok(())
    }

    /// The last checkpoint that was saved. Text that is no JSON stays text.
    pub(super) fn checkpoint(&self, id: i64) -> Result<Option<Value>, StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT checkpoint FROM job_checkpoints WHERE id = ?1")?;
        let checkpoint = statement.query_row([id], |row| {
            // What is no text is none of an activity, which says so when it reads it.
            Ok(row.get_ref(0)?.as_bytes_or_null()?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
        });
        let checkpoint: Option<String> = checkpoint.optional()?.flatten();
        Ok(checkpoint.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }
}

#[cfg(test)]
mod tests;
