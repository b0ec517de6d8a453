//! One row of `jobs`, read as far as it can be: what does not decode is named instead of failing the read.

use std::str::FromStr;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::embedded::store::StoreError;
use crate::embedded::store::rows;
use crate::job::{JobId, JobState, Refused, RunId};

/// The columns that [`JobRow::read`] wants, in its order.
pub(crate) const COLUMNS: &str = "id, job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, attempt, \
     drains, lease_token, worker_id, parent_id, run_at, expires_at, close_by, enqueued_at, started_at, finished_at, \
     cancel_requested_at, undo_attempts, deaths";

/// A column that does not decode, and why.
pub(crate) type Unreadable = (&'static str, String);

/// One execution. Texts are as stored, with replacement characters where they are not UTF-8; times are Unix milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobRow {
    pub(crate) id: i64,
    pub(crate) job_id: String,
    pub(crate) run_id: String,
    pub(crate) activity: String,
    pub(crate) tenant: String,
    /// `None` where the stored word is not a state.
    pub(crate) state: Option<JobState>,
    pub(crate) attempt: i64,
    pub(crate) lease_token: i64,
    pub(crate) worker_id: Option<i64>,
    pub(crate) parent_id: Option<i64>,
    pub(crate) expires_at: Option<i64>,
    pub(crate) enqueued_at: i64,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
    /// What does not decode.
    pub(crate) unreadable: Vec<Unreadable>,
}

impl JobRow {
    /// Reads [`COLUMNS`]. An error is one of the file, never of the row.
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut reader = Reader { row, unreadable: Vec::new() };
        let mut job = Self {
            id: row.get(0)?,
            job_id: reader.text(1, "job_id")?,
            run_id: reader.text(2, "run_id")?,
            activity: reader.text(3, "activity")?,
            tenant: reader.text(6, "tenant")?,
            state: None,
            attempt: reader.counter(9, "attempt")?,
            lease_token: reader.number(11, "lease_token")?.unwrap_or_default(),
            worker_id: reader.number(12, "worker_id")?,
            parent_id: reader.number(13, "parent_id")?,
            expires_at: reader.time(15, "expires_at")?,
            enqueued_at: reader.required_time(17, "enqueued_at")?,
            started_at: reader.time(18, "started_at")?,
            finished_at: reader.time(19, "finished_at")?,
            unreadable: Vec::new(),
        };
        reader.number_from_0(4, "activity_version", u32::MAX)?;
        reader.number_from_0(8, "priority", u32::MAX)?;
        for (column, name) in [(10, "drains"), (21, "undo_attempts"), (22, "deaths")] {
            reader.counter(column, name)?;
        }
        reader.required_time(14, "run_at")?;
        reader.time(16, "close_by")?;
        reader.time(20, "cancel_requested_at")?;
        reader.text(5, "slot_class")?;
        let state = reader.text(7, "state")?;
        job.state = reader.parse("state", &state);
        reader.parse::<JobId>("job_id", &job.job_id);
        reader.parse::<RunId>("run_id", &job.run_id);
        job.unreadable = reader.unreadable;
        Ok(job)
    }

    /// The row of an execution.
    pub(crate) fn find(conn: &Connection, id: i64) -> Result<Option<Self>, StoreError> {
        let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"))?;
        let mut found = statement.query([id])?;
        Ok(found.next()?.map(Self::read).transpose()?)
    }

    /// Whether a column holds something, readable or not.
    pub(crate) fn has(&self, value: Option<i64>, column: &str) -> bool {
        value.is_some() || self.unreadable.iter().any(|(unreadable, _)| *unreadable == column)
    }

    /// Whether it should be open: its state says so, or, where that is not readable, the time of its end is missing.
    pub(crate) fn is_open(&self) -> bool {
        self.state.map_or(self.finished_at.is_none(), JobState::is_open)
    }
}

struct Reader<'r> {
    row: &'r Row<'r>,
    unreadable: Vec<Unreadable>,
}

impl Reader<'_> {
    fn text(&mut self, column: usize, name: &'static str) -> rusqlite::Result<String> {
        match self.row.get_ref(column)? {
            ValueRef::Text(bytes) => {
                if let Err(error) = str::from_utf8(bytes) {
                    self.unreadable.push((name, format!("is not UTF-8: {error}")));
                }
                Ok(String::from_utf8_lossy(bytes).into_owned())
            }
            other => {
                self.unreadable.push((name, format!("is {} and not text", other.data_type())));
                Ok(String::new())
            }
        }
    }

    fn number(&mut self, column: usize, name: &'static str) -> rusqlite::Result<Option<i64>> {
        match self.row.get_ref(column)? {
            ValueRef::Integer(value) => Ok(Some(value)),
            ValueRef::Null => Ok(None),
            other => {
                self.unreadable.push((name, format!("is {} and not a number", other.data_type())));
                Ok(None)
            }
        }
    }

    /// A number that is counted up from 0, and must be able to be.
    fn counter(&mut self, column: usize, name: &'static str) -> rusqlite::Result<i64> {
        self.number_from_0(column, name, u32::MAX - 1)
    }

    fn number_from_0(&mut self, column: usize, name: &'static str, most: u32) -> rusqlite::Result<i64> {
        let value = self.number(column, name)?.unwrap_or(-1);
        if u32::try_from(value).ok().is_none_or(|value| value > most) {
            self.unreadable.push((name, format!("{value} is out of range")));
            return Ok(0);
        }
        Ok(value)
    }

    fn time(&mut self, column: usize, name: &'static str) -> rusqlite::Result<Option<i64>> {
        let Some(value) = self.number(column, name)? else { return Ok(None) };
        if rows::at_ms(value).is_err() {
            self.unreadable.push((name, format!("{value} is not a time")));
            return Ok(None);
        }
        Ok(Some(value))
    }

    fn required_time(&mut self, column: usize, name: &'static str) -> rusqlite::Result<i64> {
        Ok(self.time(column, name)?.unwrap_or_default())
    }

    fn parse<T: FromStr<Err = Refused>>(&mut self, name: &'static str, text: &str) -> Option<T> {
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(Refused { reason, .. }) => {
                // One that is not text was named already.
                if self.unreadable.iter().all(|(column, _)| *column != name) {
                    self.unreadable.push((name, format!("is refused: {reason}")));
                }
                None
            }
        }
    }
}
