//! Rows to types and back. What is stored is ours: a row that does not read is a damaged file, and says which column.

use std::collections::BTreeMap;
use std::str::FromStr;

use iolaus_activities::{ActivityOptions, SlotClass};
use jiff::Timestamp;
use rusqlite::types::{FromSqlError, ToSqlOutput, Type, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql};
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::executor::Execution;
use crate::job::{Job, JobState, TraceContext};

/// Ids and counts stay far below this, whatever a queue has lived through: a sum with one of them does not overflow.
pub(super) const MOST: i64 = 1 << 62;

/// The columns that [`job`] reads, from `jobs` as `j`.
pub(super) const JOB_COLUMNS: &str = "j.job_id, j.run_id, j.activity, j.activity_version, j.tenant, j.state, j.priority, j.attempt, \
     j.run_at, j.enqueued_at, j.started_at, j.finished_at, j.cancel_requested_at, \
     (SELECT w.name FROM workers w WHERE w.id = j.worker_id), (SELECT c.stalled_since FROM job_checkpoints c WHERE c.id = j.id AND j.state = 'running')";

pub(super) fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        job_id: parsed(row, 0)?,
        run_id: parsed(row, 1)?,
        activity: row.get(2)?,
        activity_version: row.get(3)?,
        tenant: row.get(4)?,
        state: parsed(row, 5)?,
        priority: row.get(6)?,
        attempts: row.get(7)?,
        run_at: time(row, 8)?,
        enqueued_at: time(row, 9)?,
        started_at: optional_time(row, 10)?,
        finished_at: optional_time(row, 11)?,
        cancel_requested: row.get::<_, Option<i64>>(12)?.is_some(),
        // A worker's row, which says nothing about whether this one is sound.
        worker: optional_lossy(row, 13)?,
        stalled_since: optional_time(row, 14)?,
        paused: None,
    })
}

/// An execution with what a transaction needs beside it.
pub(super) struct Stored {
    pub(super) execution: Execution,
    pub(super) state: JobState,
    pub(super) token: i64,
    pub(super) cancel_requested: bool,
    /// Attempts that it was given only to undo.
    pub(super) undo_attempts: u32,
    /// Workers in a row that died while they ran it.
    pub(super) deaths: u32,
    pub(super) cancel_reason: Option<String>,
    pub(super) slot_class: SlotClass,
    pub(super) run_at: Timestamp,
    pub(super) input: String,
    /// Why the stored options do not decode; the execution then has the default ones.
    pub(super) undecodable: Option<String>,
}

/// Loads one execution.
pub(super) fn load(conn: &Connection, id: i64) -> Result<Option<Stored>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT j.job_id, j.run_id, j.activity, j.activity_version, j.tenant, j.state, j.attempt, j.drains, j.lease_token, \
                j.cancel_requested_at, j.slot_class, j.run_at, j.enqueued_at, j.started_at, j.close_by, \
                i.options, i.traceparent, i.tracestate, i.cancel_reason, i.input, j.undo_attempts, j.deaths \
         FROM jobs j JOIN job_inputs i ON i.id = j.id WHERE j.id = ?1",
    )?;
    Ok(statement.query_row([id], stored).optional()?)
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let slot_class = match row.get_ref(10)?.as_str()? {
        "waits" => SlotClass::Waits,
        _ => SlotClass::Work,
    };
    let options = json(row, 15);
    Ok(Stored {
        undecodable: options.as_ref().err().map(|error: &rusqlite::Error| format!("the stored options do not decode: {error}")),
        execution: Execution {
            job_id: parsed(row, 0)?,
            run_id: parsed(row, 1)?,
            activity: row.get(2)?,
            tenant: row.get(4)?,
            attempts: row.get(6)?,
            drains: row.get(7)?,
            options: options.unwrap_or_default(),
            enqueued_at: time(row, 12)?,
            started_at: optional_time(row, 13)?,
            close_by: optional_time(row, 14)?,
            trace: TraceContext { traceparent: row.get(16)?, tracestate: row.get(17)? },
        },
        state: parsed(row, 5)?,
        token: row.get(8)?,
        cancel_requested: row.get::<_, Option<i64>>(9)?.is_some(),
        undo_attempts: row.get(20)?,
        deaths: row.get(21)?,
        cancel_reason: row.get(18)?,
        slot_class,
        run_at: time(row, 11)?,
        input: row.get(19)?,
    })
}

pub(super) fn labels(text: Option<String>) -> Result<BTreeMap<String, String>, serde_json::Error> {
    text.map_or_else(|| Ok(BTreeMap::new()), |text| serde_json::from_str(&text))
}

/// When an execution that waits until `run_at` closes by itself.
pub(super) fn expires_at(options: &ActivityOptions, run_at: Timestamp, close_by: Option<Timestamp>) -> Option<i64> {
    let start_by = options.timeouts.schedule_to_start.map(|limit| run_at.saturating_add(limit).unwrap_or(Timestamp::MAX));
    start_by.into_iter().chain(close_by).min().map(ms)
}

/// Unix milliseconds, as stored.
pub(super) fn ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// From Unix milliseconds.
pub(super) fn at_ms(ms: i64) -> Result<Timestamp, jiff::Error> {
    Timestamp::from_millisecond(ms)
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    at_ms(row.get(column)?).map_err(|error| damaged(column, error))
}

pub(super) fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    match row.get::<_, Option<i64>>(column)? {
        Some(_) => time(row, column).map(Some),
        None => Ok(None),
    }
}

/// The time in a row that only people look at, and that no other row may depend on: one that is not a time is the nearest that is.
pub(super) fn nearest_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(nearest(row.get_ref(column)?.as_i64().unwrap_or_default()))
}

/// The time that is nearest to what is stored.
pub(super) fn nearest(stored: i64) -> Timestamp {
    at_ms(stored.clamp(ms(Timestamp::MIN), ms(Timestamp::MAX))).unwrap_or_default()
}

/// A text, with replacement characters where it is not UTF-8.
pub(super) fn lossy(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes().unwrap_or_default()).into_owned())
}

pub(super) fn optional_lossy(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    if row.get_ref(column)? == ValueRef::Null { Ok(None) } else { lossy(row, column).map(Some) }
}

/// A text as it is stored, UTF-8 or not, so that a search can go on after one that is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text(Vec<u8>);

impl Text {
    pub(super) fn read(row: &Row<'_>, column: usize) -> rusqlite::Result<Self> {
        Ok(Self(row.get_ref(column)?.as_bytes()?.to_vec()))
    }

    /// `None` if it is not UTF-8.
    pub(super) fn as_str(&self) -> Option<&str> {
        str::from_utf8(&self.0).ok()
    }
}

impl ToSql for Text {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

pub(super) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?.as_str()?.parse().map_err(|error| damaged(column, error))
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|error| damaged(column, error))
}

pub(super) fn damaged(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(FromSqlError::Other(Box::new(error))))
}

/// JSON of our own types, which always serialises.
pub(super) fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)).into())
}
