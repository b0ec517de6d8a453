//! Stores jobs, under the id policies, and retries them by hand.

use iolaus_activities::FailureRecord;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::rows::{self, ms, parsed, to_json};
use super::{StoreError, Tx};
use crate::client::{OtherJob, Target, checks};
use crate::job::{IdConflictPolicy, IdReusePolicy, JobId, JobState, NewJob, RunId, SEQUENCE, TraceContext};

/// What became of a request to open an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is open now.
    Open { id: i64, run_id: RunId },
    /// It was open before, for the same activity and tenant.
    Existing { id: i64, run_id: RunId, input_differs: bool },
    /// The id is open for another activity or tenant.
    Other(Box<OtherJob>),
    /// The id is taken and the policy says no.
    Taken { run_id: RunId, state: JobState },
}

/// What became of a retry by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Retried {
    Open(RunId),
    NotFound,
    StillOpen,
    /// It is a step, and goes with its sequence.
    Step {
        sequence: String,
    },
    /// It ended as `rerun.ambiguous`; the safe command, if the verdict names one.
    NeedsAcceptDuplicate(Option<String>),
}

/// Where an execution stands beside others.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// It is a sequence, which no worker ever takes: it is running from the start until its last step has ended.
    pub(super) is_sequence: bool,
    /// The sequence that it is a step of.
    pub(super) parent: Option<i64>,
    /// When that must be closed.
    pub(super) close_by: Option<Timestamp>,
}

pub(super) struct Newest {
    pub(super) id: i64,
    pub(super) run_id: RunId,
    pub(super) state: JobState,
    activity: String,
    tenant: String,
}

/// A job with its large columns as text, made before the writer sees it.
pub(crate) struct JobRows {
    pub(crate) job: NewJob,
    run_id: String,
    input: String,
    options: String,
    labels: Option<String>,
}

impl JobRows {
    pub(crate) fn new(job: NewJob) -> Result<Self, StoreError> {
        let labels = if job.labels.is_empty() { None } else { Some(to_json(&job.labels)?) };
        Ok(Self { run_id: job.run_id.to_string(), input: to_json(&job.input)?, options: to_json(&job.options)?, labels, job })
    }

    /// How much memory it keeps, about: its input is there as a value and as text.
    pub(super) fn bytes(&self) -> usize {
        2 * self.input.len() + self.options.len() + self.labels.as_ref().map_or(0, String::len)
    }
}

impl Tx<'_> {
    /// Stores a job. Sending the same run id again is harmless, which settles a commit of unknown fate.
    pub(crate) fn enqueue(&mut self, rows: &JobRows) -> Result<Admission, StoreError> {
        let job = &rows.job;
        if let Some(newest) = self.newest(&job.job_id)? {
            if let Some(id) = self.find(&Target::run(job.job_id.clone(), job.run_id))? {
                return Ok(Admission::Open { id, run_id: job.run_id });
            }
            let taken = Admission::Taken { run_id: newest.run_id, state: newest.state };
            if newest.state.is_open() {
                return match job.id_conflict_policy {
                    IdConflictPolicy::Fail => Ok(taken),
                    IdConflictPolicy::UseExisting => self.use_existing(newest, rows),
                };
            }
            let failed = matches!(newest.state, JobState::Discarded | JobState::Cancelled);
            match job.id_reuse_policy {
                IdReusePolicy::Allow => {}
                IdReusePolicy::AllowFailedOnly if failed => {}
                IdReusePolicy::AllowFailedOnly | IdReusePolicy::Reject => return Ok(taken),
            }
        }
        let id = self.insert(rows)?;
        Ok(Admission::Open { id, run_id: job.run_id })
    }

    /// Answers with an open execution, if it is of the activity and tenant that are asked for.
    fn use_existing(&self, newest: Newest, rows: &JobRows) -> Result<Admission, StoreError> {
        let (job, Newest { id, run_id, state, activity, tenant }) = (&rows.job, newest);
        if let Err(other) = checks::same_job(job, run_id, state, &activity, &tenant) {
            return Ok(Admission::Other(other));
        }
        let mut statement = self.conn.prepare_cached("SELECT input FROM job_inputs WHERE id = ?1")?;
        let stored: String = statement.query_row([id], |row| row.get(0))?;
        // Another build may write the same fields in another order.
        let is_same = stored == rows.input || serde_json::from_str::<Value>(&stored).is_ok_and(|stored| stored == job.input);
        Ok(Admission::Existing { id, run_id, input_differs: !is_same })
    }

    fn insert(&mut self, stored: &JobRows) -> Result<i64, StoreError> {
        if stored.job.activity == SEQUENCE { self.insert_sequence(stored) } else { self.insert_row(stored, &Place::default()) }
    }

    /// Stores one execution: scheduled, available, or at once running, on a slot that is free for it or as a sequence.
    pub(super) fn insert_row(&mut self, stored: &JobRows, place: &Place) -> Result<i64, StoreError> {
        let job = &stored.job;
        let delayed = job.delay.filter(|delay| !delay.is_zero());
        let run_at = delayed.map_or(self.now, |delay| self.now.saturating_add(delay).unwrap_or(Timestamp::MAX));
        let own = job.options.timeouts.schedule_to_close.map(|limit| run_at.saturating_add(limit).unwrap_or(Timestamp::MAX));
        let close_by = own.into_iter().chain(place.close_by).min();
        let slot = match &mut self.starting {
            Some(starting) if delayed.is_none() && !place.is_sequence => starting.take(self.conn, job)?,
            _ => None,
        };
        let state = match (&slot, delayed) {
            _ if place.is_sequence => JobState::Running,
            (Some(_), _) => JobState::Running,
            (None, Some(_)) => JobState::Scheduled,
            (None, None) => JobState::Available,
        };
        let expires_at = if state == JobState::Running { None } else { rows::expires_at(&job.options, run_at, close_by) };
        self.conn
            .prepare_cached(
                "INSERT INTO jobs(job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, run_at, expires_at, \
                                  close_by, enqueued_at, attempt, lease_token, started_at, worker_id, parent_id) \
                 VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?13,?14,?15,?16)",
            )?
            .execute(params![
                job.job_id.as_str(),
                stored.run_id,
                job.activity,
                job.activity_version,
                job.options.slot_class.as_str(),
                job.tenant,
                state.as_str(),
                job.priority,
                ms(run_at),
                expires_at,
                close_by.map(ms),
                ms(self.now),
                i64::from(slot.is_some()),
                slot.as_ref().map(|_| ms(self.now)),
                slot.as_ref().map(|slot| slot.worker_id),
                place.parent,
            ])?;
        let id = self.conn.last_insert_rowid();
        // Only a damaged file has an input under a new id; it would keep every job from being stored.
        self.conn
            .prepare_cached(
                "INSERT OR REPLACE INTO job_inputs(id, input, options, labels, traceparent, tracestate) VALUES (?1,?2,?3,?4,?5,?6)",
            )?
            .execute(params![id, stored.input, stored.options, stored.labels, job.trace.traceparent, job.trace.tracestate])?;
        self.counts.moved(&job.activity, &job.tenant, None, Some(state));
        if let (Some(slot), Some(starting)) = (slot, &mut self.starting) {
            starting.start(&slot, id, job, self.now, close_by);
        } else {
            self.after.ready |= state == JobState::Available;
            self.after.timers |= delayed.is_some() || expires_at.is_some();
            self.after.wake_others = true;
        }
        Ok(id)
    }

    /// Opens a new execution of a closed job: same id, input and options, no checkpoint.
    pub(crate) fn retry(
        &mut self,
        target: &Target,
        run_id: RunId,
        trace: TraceContext,
        accept_duplicate: bool,
    ) -> Result<Retried, StoreError> {
        let Some(id) = self.find(target)? else { return Ok(Retried::NotFound) };
        let Some(newest) = self.newest(&target.job_id)? else { return Ok(Retried::NotFound) };
        if self.find(&Target::run(target.job_id.clone(), run_id))?.is_some() {
            return Ok(Retried::Open(run_id));
        }
        if let Some(sequence) = self.sequence_of(id, &target.job_id)? {
            return Ok(Retried::Step { sequence });
        }
        if newest.state.is_open() {
            return Ok(Retried::StillOpen);
        }
        let ambiguous = match self.ambiguity(newest.id)? {
            None => self.ambiguity(id)?,
            ambiguous => ambiguous,
        };
        if let (false, Some(failure)) = (accept_duplicate, ambiguous) {
            return Ok(Retried::NeedsAcceptDuplicate(failure.suggested_action));
        }
        let job = self.again(id, target.job_id.clone(), run_id, trace)?;
        self.insert(&JobRows::new(job)?)?;
        Ok(Retried::Open(run_id))
    }

    fn again(&self, id: i64, job_id: JobId, run_id: RunId, trace: TraceContext) -> Result<NewJob, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT j.activity, j.activity_version, j.tenant, j.priority, i.input, i.options, i.labels \
             FROM jobs j JOIN job_inputs i ON i.id = j.id WHERE j.id = ?1",
        )?;
        Ok(statement.query_row([id], |row| {
            Ok(NewJob {
                job_id,
                run_id,
                activity: row.get(0)?,
                activity_version: row.get(1)?,
                tenant: row.get(2)?,
                input: rows::json(row, 4)?,
                options: rows::json(row, 5)?,
                labels: rows::labels(row.get(6)?).map_err(|error| rows::damaged(6, error))?,
                priority: row.get(3)?,
                delay: None,
                id_conflict_policy: IdConflictPolicy::Fail,
                id_reuse_policy: IdReusePolicy::Allow,
                trace,
            })
        })?)
    }

    /// The failure of an execution that ended as `rerun.ambiguous`, or of a step of it.
    fn ambiguity(&self, id: i64) -> Result<Option<FailureRecord>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT json_extract(verdict, '$.failure') FROM job_verdicts \
             WHERE id IN (SELECT ?1 UNION ALL SELECT id FROM jobs WHERE parent_id = ?1) AND code = 'rerun.ambiguous' LIMIT 1",
        )?;
        Ok(statement.query_row([id], |row| rows::json(row, 0)).optional()?)
    }

    pub(super) fn newest(&self, job_id: &JobId) -> Result<Option<Newest>, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT id, run_id, state, activity, tenant FROM jobs WHERE job_id = ?1 ORDER BY id DESC LIMIT 1")?;
        let newest = statement.query_row([job_id.as_str()], |row| {
            let (run_id, state) = (parsed(row, 1)?, parsed(row, 2)?);
            Ok(Newest { id: row.get(0)?, run_id, state, activity: row.get(3)?, tenant: row.get(4)? })
        });
        Ok(newest.optional()?)
    }

    fn find(&self, target: &Target) -> Result<Option<i64>, StoreError> {
        super::read::find(self.conn, target)
    }
}
