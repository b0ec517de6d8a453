//! What must hold of one execution and of the rows beside it.

use iolaus_activities::{FailureRecord, Status, VerdictRecord};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use super::finding::{Finding, Findings, Fix};
use super::row::JobRow;
use crate::embedded::store::StoreError;
use crate::embedded::store::rows::{self, MOST};
use crate::embedded::store::unreadable::input_problem;
use crate::job::{JobState, SEQUENCE, limits};
use crate::sequence::Definition;

/// What [`Judge::verdict`] wants of `job_verdicts`.
pub(super) const VERDICT_COLUMNS: &str = "id, status, code, verdict";
/// What [`Judge::input`] wants of `job_inputs`.
pub(super) const INPUT_COLUMNS: &str = "id, input, options, labels, traceparent, tracestate, cancel_reason";
/// What [`Judge::checkpoint`] wants of `job_checkpoints`.
pub(super) const CHECKPOINT_COLUMNS: &str = "id, checkpoint, progress, stalled_since";
/// What [`Judge::failure`] wants of `job_failures`.
pub(super) const FAILURE_COLUMNS: &str = "id, lease_token, attempt, at, failure";

/// Judges executions one after the other, and remembers what it decoded last: options are alike for thousands of jobs.
pub(super) struct Judge<'c> {
    conn: &'c Connection,
    options: String,
    pub(super) found: Findings,
}

/// What a verdict says about its execution.
pub(super) enum Verdict {
    Missing,
    Unreadable(String),
    Of {
        verdict: Box<VerdictRecord>,
        /// Whether the columns beside it say the same.
        columns_fit: bool,
    },
}

impl<'c> Judge<'c> {
    pub(super) fn new(conn: &'c Connection) -> Self {
        Self { conn, options: String::new(), found: Findings::default() }
    }

    /// The row itself, and what must hold between it, its verdict and the rows that it points to.
    pub(super) fn execution(&mut self, job: &JobRow, verdict: &Verdict) -> Result<(), StoreError> {
        if !job.unreadable.is_empty() {
            let problems: Vec<String> = job.unreadable.iter().map(|(column, problem)| format!("{column} {problem}")).collect();
            let fix = if matches!(verdict, Verdict::Of { .. }) { Fix::MakeReadable } else { set_aside(job) };
            self.add("job.unreadable", "jobs", problems.join("; "), fix, job);
            return Ok(());
        }
        let Some(state) = job.state else { return Ok(()) };
        self.verdict_fits(job, state, verdict);
        self.lease(job, state)?;
        if job.expires_at.is_some() && (state == JobState::Running || !state.is_open()) {
            let fix = Fix::Set { table: "jobs", column: "expires_at", value: None };
            self.add("timer.leftover", "jobs", format!("it is {state} and has a time to expire at"), fix, job);
        }
        let starts_early = job.started_at.is_some_and(|at| at < job.enqueued_at);
        let ends_early = job.finished_at.is_some_and(|at| at < job.started_at.unwrap_or(job.enqueued_at));
        if starts_early || ends_early {
            let message = "its times are out of order: the clock of this machine was set back, or the row was edited";
            self.found.add(Finding::new("clock.order", "jobs", message, Fix::Nothing).of(job).warning());
        }
        if job.activity == SEQUENCE && state.is_open() {
            self.sequence(job)?;
        }
        if let Some(parent) = job.parent_id {
            self.step(job, parent, state)?;
        }
        Ok(())
    }

    /// Every closed execution has exactly one verdict, which is its own; an open one has none.
    fn verdict_fits(&mut self, job: &JobRow, state: JobState, verdict: &Verdict) {
        let (open, ended) = (state.is_open(), job.finished_at.is_some());
        match verdict {
            Verdict::Missing if !open => {
                self.add("verdict.missing", "job_verdicts", format!("it is {state} and has no verdict"), Fix::LostVerdict, job);
            }
            Verdict::Missing if ended => {
                let fix = Fix::Set { table: "jobs", column: "finished_at", value: None };
                self.add("state.inconsistent", "jobs", format!("it is {state} and has a time of its end"), fix, job);
            }
            Verdict::Missing => {}
            Verdict::Unreadable(problem) => self.add("verdict.unreadable", "job_verdicts", problem.clone(), Fix::LostVerdict, job),
            Verdict::Of { verdict, .. } if verdict.run_id != job.run_id || verdict.job_id != job.job_id => {
                let message = format!("its verdict is that of job {}, run {}", verdict.job_id, verdict.run_id);
                self.add("verdict.foreign", "job_verdicts", message, Fix::LostVerdict, job);
            }
            Verdict::Of { verdict, .. } if open => {
                let message = format!("it is {state} and has a verdict ({})", verdict.status.as_str());
                self.add("verdict.unexpected", "job_verdicts", message, Fix::CloseByVerdict, job);
            }
            Verdict::Of { columns_fit: false, .. } => {
                let message = "the columns beside its verdict say something else than the verdict";
                self.add("verdict.columns", "job_verdicts", message.to_owned(), Fix::VerdictColumns, job);
            }
            Verdict::Of { verdict, .. } => {
                if let Some((problem, fix)) = contradiction(job, state, verdict) {
                    self.add("verdict.contradiction", "job_verdicts", problem, fix, job);
                }
            }
        }
    }

    /// Who holds it: a running one a worker that is there, the others no one.
    fn lease(&mut self, job: &JobRow, state: JobState) -> Result<(), StoreError> {
        if job.lease_token < job.attempt {
            let message = format!("its lease token is {} after {} attempts", job.lease_token, job.attempt);
            let fix = Fix::Set { table: "jobs", column: "lease_token", value: Some(job.attempt) };
            self.add("lease.token", "jobs", message, fix, job);
        } else if job.lease_token > MOST {
            let message = format!("its lease token is {}, and the next claim cannot add to it", job.lease_token);
            let sql = "SELECT max(lease_token) FROM job_failures WHERE id = ?1 AND lease_token <= ?2";
            let failed: Option<i64> = self.conn.prepare_cached(sql)?.query_row([job.id, MOST], |row| row.get(0))?;
            let fix = Fix::Set { table: "jobs", column: "lease_token", value: Some(job.attempt.max(failed.unwrap_or(0))) };
            self.add("lease.token", "jobs", message, fix, job);
        }
        let is_claimed = state == JobState::Running && job.activity != SEQUENCE;
        match job.worker_id {
            Some(worker) if !is_claimed => {
                let fix = Fix::Set { table: "jobs", column: "worker_id", value: None };
                self.add("lease.leftover", "jobs", format!("it is {state} and names worker {worker}"), fix, job);
            }
            None if is_claimed => {
                self.add("lease.no_worker", "jobs", "it is running, and no worker holds it".to_owned(), Fix::Rescue, job);
            }
            Some(worker) if !self.conn.prepare_cached("SELECT 1 FROM workers WHERE id = ?1")?.exists([worker])? => {
                self.add(
                    "lease.no_worker",
                    "jobs",
                    format!("it is running on worker {worker}, which is not registered"),
                    Fix::Rescue,
                    job,
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// An open sequence runs, and has exactly one open step.
    fn sequence(&mut self, job: &JobRow) -> Result<(), StoreError> {
        if job.state != Some(JobState::Running) {
            self.add(
                "sequence.state",
                "jobs",
                "an open sequence is always running, and this one is not".to_owned(),
                Fix::SetAside,
                job,
            );
            return Ok(());
        }
        let mut statement = self.conn.prepare_cached("SELECT count(*) FROM jobs WHERE parent_id = ?1 AND finished_at IS NULL")?;
        let open: i64 = statement.query_row([job.id], |row| row.get(0))?;
        match open {
            1 => {}
            0 => self.add("sequence.no_step", "jobs", "an open sequence without an open step".to_owned(), Fix::Advance, job),
            more => {
                let message =
                    format!("it has {more} open steps; iolaus jobs cancel cancels it with its newest step, the others stay");
                self.add("sequence.steps", "jobs", message, Fix::Nothing, job);
            }
        }
        Ok(())
    }

    fn step(&mut self, job: &JobRow, parent: i64, state: JobState) -> Result<(), StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT job_id, activity, finished_at IS NULL FROM jobs WHERE id = ?1")?;
        let found = statement
            .query_row([parent], |row| {
                let text = |column| {
                    Ok::<_, rusqlite::Error>(
                        String::from_utf8_lossy(row.get_ref(column)?.as_bytes().unwrap_or_default()).into_owned(),
                    )
                };
                Ok((text(0)?, text(1)?, row.get::<_, bool>(2)?))
            })
            .optional()?;
        match found {
            // Steps are forgotten after their sequence: a closed one may be without it for a moment.
            None if !state.is_open() => {}
            None => {
                let fix = Fix::Set { table: "jobs", column: "parent_id", value: self.sequence_of(&job.job_id)? };
                self.add("sequence.gone", "jobs", format!("it is an open step of sequence {parent}, which is not there"), fix, job);
            }
            Some((sequence, activity, is_open)) => {
                let number = job.job_id.strip_prefix(&sequence).and_then(|rest| rest.strip_prefix('/'));
                if activity != SEQUENCE || number.is_none_or(|number| number.parse::<usize>().is_err()) {
                    let message = format!("it is a step of row {parent} ({sequence}), which does not fit its id");
                    self.add("sequence.foreign", "jobs", message, Fix::Nothing, job);
                } else if state.is_open() && !is_open {
                    self.add(
                        "sequence.closed",
                        "jobs",
                        format!("it is open, and its sequence {sequence} is closed"),
                        Fix::SetAside,
                        job,
                    );
                }
            }
        }
        Ok(())
    }

    /// The open sequence that an id says that it is a step of.
    fn sequence_of(&self, job_id: &str) -> Result<Option<i64>, StoreError> {
        let Some((sequence, _)) = job_id.rsplit_once('/') else { return Ok(None) };
        let sql = "SELECT id FROM jobs WHERE job_id = ?1 AND activity = ?2 AND finished_at IS NULL ORDER BY id DESC LIMIT 1";
        Ok(self.conn.prepare_cached(sql)?.query_row([sequence, SEQUENCE], |row| row.get(0)).optional()?)
    }

    /// Its input, options and labels. `None`: there is no row.
    pub(super) fn input(&mut self, job: &JobRow, row: Option<&Row<'_>>) -> Result<(), StoreError> {
        let fix = set_aside(job);
        let Some(row) = row else {
            self.add("input.missing", "job_inputs", "it has no row with its input".to_owned(), fix, job);
            return Ok(());
        };
        for (index, column) in [(1, "input"), (3, "labels"), (4, "traceparent"), (5, "tracestate"), (6, "cancel_reason")] {
            if let Some(problem) = input_problem(column, row.get_ref(index)?) {
                self.add("input.undecodable", "job_inputs", format!("{column} {problem}"), fix.clone(), job);
                return Ok(());
            }
        }
        let options = row.get_ref(2)?;
        if !options.as_str().is_ok_and(|text| text == self.options) {
            if let Some(problem) = input_problem("options", options) {
                self.add("input.undecodable", "job_inputs", format!("options {problem}"), fix, job);
                return Ok(());
            }
            options.as_str().unwrap_or_default().clone_into(&mut self.options);
        }
        let input = row.get_ref(1)?.as_str().unwrap_or_default();
        if job.activity == SEQUENCE {
            if let Some(error) = serde_json::from_str::<Definition>(input).err().filter(|_| job.is_open()) {
                let message = format!("it is no sequence that this version reads, and ends with its open step: {error}");
                self.found.add(Finding::new("input.no_sequence", "job_inputs", message, Fix::Nothing).of(job).warning());
            }
        } else if input.len() > limits::INPUT {
            let message = format!("its input has {} bytes; {} are the most", input.len(), limits::INPUT);
            self.found.add(Finding::new("limit.exceeded", "job_inputs", message, Fix::Nothing).of(job).warning());
        }
        Ok(())
    }

    pub(super) fn checkpoint(&mut self, job: &JobRow, row: &Row<'_>) -> Result<(), StoreError> {
        let problem = |value: ValueRef<'_>| match value {
            ValueRef::Null => None,
            value => input_problem("input", value),
        };
        if let Some(problem) = problem(row.get_ref(1)?) {
            // It may name an effect: a new attempt without it could do the same again.
            let fix = if job.is_open() { Fix::SetAside } else { delete("job_checkpoints") };
            self.add("checkpoint.undecodable", "job_checkpoints", format!("checkpoint {problem}"), fix, job);
        } else if let Some(problem) = problem(row.get_ref(2)?) {
            let fix = Fix::Set { table: "job_checkpoints", column: "progress", value: None };
            self.add("progress.undecodable", "job_checkpoints", format!("progress {problem}"), fix, job);
        } else if let ValueRef::Integer(at) = row.get_ref(3)?
            && rows::at_ms(at).is_err()
        {
            let fix = Fix::Set { table: "job_checkpoints", column: "stalled_since", value: None };
            self.add("progress.undecodable", "job_checkpoints", format!("stalled_since {at} is not a time"), fix, job);
        }
        Ok(())
    }

    pub(super) fn failure(&mut self, job: &JobRow, row: &Row<'_>) -> Result<(), StoreError> {
        let token: i64 = row.get(1)?;
        let decodes = rows::json::<FailureRecord>(row, 4);
        let problem = match decodes {
            Err(error) => format!("the failure under lease token {token} does not decode: {error}"),
            Ok(_) if rows::time(row, 3).is_err() => format!("the failure under lease token {token} has no time"),
            Ok(_) if token > job.lease_token => {
                format!("a failure under lease token {token}, and the newest is {}", job.lease_token)
            }
            Ok(_) => return Ok(()),
        };
        let fix = Fix::Delete { table: "job_failures", key: "id", lease_token: Some(token) };
        self.add("failure.unreadable", "job_failures", problem, fix, job);
        Ok(())
    }

    fn add(&mut self, code: &'static str, table: &'static str, message: String, fix: Fix, job: &JobRow) {
        self.found.add(Finding::new(code, table, message, fix).of(job));
    }
}

impl Verdict {
    /// Of a row with [`VERDICT_COLUMNS`].
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let text = |column| row.get_ref(column).map(|value| value.as_str().ok());
        let (status, code) = (text(1)?, text(2)?);
        let verdict: VerdictRecord = match rows::json(row, 3) {
            Ok(verdict) => verdict,
            Err(rusqlite::Error::FromSqlConversionFailure(_, _, source)) => {
                return Ok(Self::Unreadable(format!("its verdict does not decode: {source}")));
            }
            Err(error) => return Ok(Self::Unreadable(format!("its verdict does not decode: {error}"))),
        };
        let failure = verdict.failure.as_ref().map(|failure| failure.code.as_str());
        let columns_fit = status == Some(verdict.status.as_str()) && code == failure;
        Ok(Self::Of { verdict: Box::new(verdict), columns_fit })
    }
}

/// What a closed execution and its verdict say differently, and what is done about it.
fn contradiction(job: &JobRow, state: JobState, verdict: &VerdictRecord) -> Option<(String, Fix)> {
    if state != state_of(verdict.status) {
        return Some((format!("it is {state}, and its verdict {}", verdict.status.as_str()), Fix::CloseByVerdict));
    }
    if job.finished_at != Some(rows::ms(verdict.finished_at)) {
        return Some(("it and its verdict name different times of its end".to_owned(), Fix::CloseByVerdict));
    }
    if job.attempt != i64::from(verdict.attempts) {
        let fix = Fix::Set { table: "jobs", column: "attempt", value: Some(verdict.attempts.into()) };
        return Some((format!("it has {} attempts, and its verdict {}", job.attempt, verdict.attempts), fix));
    }
    if job.activity != verdict.activity || job.tenant != verdict.tenant {
        return Some((format!("its verdict is about {} of tenant {}", verdict.activity, verdict.tenant), Fix::Nothing));
    }
    None
}

/// The last state of an execution with this verdict.
pub(super) fn state_of(status: Status) -> JobState {
    match status {
        Status::Passed | Status::Failed => JobState::Completed,
        Status::Unresolved => JobState::Discarded,
        Status::Cancelled => JobState::Cancelled,
    }
}

/// What is done about an execution that cannot be read. A sequence ends with its open step by itself.
fn set_aside(job: &JobRow) -> Fix {
    if job.is_open() && job.activity != SEQUENCE { Fix::SetAside } else { Fix::MakeReadable }
}

pub(super) fn delete(table: &'static str) -> Fix {
    Fix::Delete { table, key: "id", lease_token: None }
}
