//! One row that cannot be read sets aside one execution: it is closed with a verdict that names what is wrong, and neither the
//! transaction that came across it nor the other executions notice.

use std::sync::Arc;

use iolaus_activities::{ActivityOptions, Category, Failure, VerdictRecord, codes};
use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::fsck::JobRow;
use super::rows::{self, Stored, ms, to_json};
use super::{StoreError, Tx};
use crate::executor;
use crate::job::{JobId, JobState, RunId, TraceContext};

/// What to do about it.
const HINT: &str =
    "iolaus fsck checks every row of the queue's file; iolaus jobs retry starts the job again once its input is right";

/// What is wrong with a row, if that is what an error is about, and not the file or the transaction.
pub(super) fn problem(error: &StoreError) -> Option<String> {
    let StoreError::Sql(error) = error else { return None };
    match error.as_ref() {
        rusqlite::Error::FromSqlConversionFailure(_, _, source) => Some(source.to_string()),
        error @ (rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..)
        | rusqlite::Error::InvalidColumnType(..)) => Some(error.to_string()),
        _ => None,
    }
}

impl Tx<'_> {
    /// Loads an execution. One that cannot be read is set aside, and `None`; so is one that is not there. `counted` is the state that
    /// it is counted under, where that is not the one in its row.
    pub(super) fn load_or_set_aside(&mut self, id: i64, counted: Option<JobState>) -> Result<Option<Stored>, StoreError> {
        let why = match rows::load(self.conn, id) {
            Ok(Some(stored)) => return Ok(Some(stored)),
            Ok(None) => None,
            Err(error) => Some(problem(&error).ok_or(error)?),
        };
        self.set_aside(id, counted, why)?;
        Ok(None)
    }

    /// Makes every row of an execution readable, and closes it if it is open. False if there is no such execution.
    pub(super) fn set_aside(&mut self, id: i64, counted: Option<JobState>, why: Option<String>) -> Result<bool, StoreError> {
        let Some(row) = JobRow::find(self.conn, id)? else { return Ok(false) };
        let problems = self.make_readable(&row)?;
        let Some(stored) = rows::load(self.conn, id)? else { return Ok(false) };
        self.recount(counted.or(row.state), &stored);
        if !stored.state.is_open() {
            return Ok(true);
        }
        let problems = if problems.is_empty() { why.unwrap_or_default() } else { problems.join("; ") };
        let execution = &stored.execution;
        tracing::error!(
            job_id = %execution.job_id, run_id = %execution.run_id, row = id, problem = problems,
            hint = HINT, "a job that cannot be read was set aside"
        );
        let message =
            format!("what the queue's file holds of job {} cannot be read, so it was set aside: {problems}", execution.job_id);
        let failure = Failure::new(codes::INPUT_UNDECODABLE, Category::DataIntegrity, message).suggest(HINT);
        let closing = Arc::new(executor::discarded(execution, &failure, self.now));
        // Only a damaged file has a verdict of an open execution.
        self.conn.prepare_cached("DELETE FROM job_verdicts WHERE id = ?1")?.execute([id])?;
        self.close(id, stored.token, stored.state, &closing)
    }

    /// An execution is counted under the state of its row again.
    pub(super) fn recount(&mut self, counted: Option<JobState>, stored: &Stored) {
        if counted != Some(stored.state) {
            self.counts.moved(&stored.execution.activity, &stored.execution.tenant, counted, Some(stored.state));
        }
    }

    /// Replaces what does not decode by what does, and answers with what it replaced.
    pub(super) fn make_readable(&self, row: &JobRow) -> Result<Vec<String>, StoreError> {
        let known = self.ids_in_verdict(row.id)?;
        let mut problems = Vec::new();
        for (column, problem) in &row.unreadable {
            problems.push(format!("{column} {problem}"));
            let value = self.replacement(row, column, known.as_ref());
            self.conn.execute(&format!("UPDATE jobs SET {column} = ?2 WHERE id = ?1"), params![row.id, value])?;
        }
        self.make_input_readable(row.id, &mut problems)?;
        Ok(problems)
    }

    fn replacement(&self, row: &JobRow, column: &str, known: Option<&(JobId, RunId)>) -> SqlValue {
        match column {
            "job_id" => known.map_or_else(|| format!("unreadable-{}", row.id), |(job_id, _)| job_id.to_string()).into(),
            "run_id" => known.map_or_else(|| RunId::generate(self.now), |(_, run_id)| *run_id).to_string().into(),
            "activity" => row.activity.clone().into(),
            "tenant" => row.tenant.clone().into(),
            "slot_class" => "work".to_owned().into(),
            "state" if row.finished_at.is_some() => JobState::Discarded.as_str().to_owned().into(),
            "state" => JobState::Available.as_str().to_owned().into(),
            "activity_version" => 1.into(),
            "priority" => 3.into(),
            "attempt" | "drains" | "lease_token" | "undo_attempts" => 0.into(),
            "run_at" | "enqueued_at" => ms(self.now).into(),
            _ => SqlValue::Null,
        }
    }

    /// The ids that its verdict has, if that can be read.
    fn ids_in_verdict(&self, id: i64) -> Result<Option<(JobId, RunId)>, StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT verdict FROM job_verdicts WHERE id = ?1")?;
        let verdict = statement.query_row([id], |row| Ok(rows::json::<VerdictRecord>(row, 0).ok())).optional()?.flatten();
        Ok(verdict.and_then(|verdict| Some((verdict.job_id.parse().ok()?, verdict.run_id.parse().ok()?))))
    }

    fn make_input_readable(&self, id: i64, problems: &mut Vec<String>) -> Result<(), StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT input, options, labels, traceparent, tracestate, cancel_reason FROM job_inputs WHERE id = ?1",
        )?;
        let mut found = statement.query([id])?;
        let Some(row) = found.next()? else {
            problems.push("its input is missing (job_inputs has no row of it)".to_owned());
            let (options, trace) = (to_json(&ActivityOptions::default())?, TraceContext::generate());
            self.conn
                .prepare_cached("INSERT INTO job_inputs(id, input, options, traceparent) VALUES (?1, 'null', ?2, ?3)")?
                .execute(params![id, options, trace.traceparent])?;
            return Ok(());
        };
        let mut wrong = Vec::new();
        for (index, column) in ["input", "options", "labels", "traceparent", "tracestate", "cancel_reason"].into_iter().enumerate()
        {
            if let Some(problem) = input_problem(column, row.get_ref(index)?) {
                let bytes = row.get_ref(index)?.as_bytes().unwrap_or_default();
                let value = match column {
                    // What is there stays there, as a text.
                    "input" => to_json(&Value::String(String::from_utf8_lossy(bytes).into_owned()))?.into(),
                    "options" => to_json(&ActivityOptions::default())?.into(),
                    "traceparent" => TraceContext::generate().traceparent.into(),
                    _ => SqlValue::Null,
                };
                wrong.push((column, problem, value));
            }
        }
        for (column, problem, value) in wrong {
            problems.push(format!("{column} {problem}"));
            self.conn.execute(&format!("UPDATE job_inputs SET {column} = ?2 WHERE id = ?1"), params![id, value])?;
        }
        Ok(())
    }
}

/// What is wrong with a column of `job_inputs`.
pub(super) fn input_problem(column: &str, value: ValueRef<'_>) -> Option<String> {
    let text = match value {
        ValueRef::Null if matches!(column, "labels" | "tracestate" | "cancel_reason") => return None,
        ValueRef::Text(bytes) => match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => return Some(format!("is not UTF-8: {error}")),
        },
        other => return Some(format!("is {} and not text", other.data_type())),
    };
    match column {
        "input" => serde_json::from_str::<Value>(text).err().map(|error| format!("is not JSON: {error}")),
        "options" => serde_json::from_str::<ActivityOptions>(text).err().map(|error| format!("do not decode: {error}")),
        "labels" => rows::labels(Some(text.to_owned())).err().map(|error| format!("do not decode: {error}")),
        _ => None,
    }
}
