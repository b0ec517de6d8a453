//! Sequences in the file: a row that runs without a worker, and its steps. The end of a step and what comes next are one transaction, so
//! that an open sequence has exactly one open step, whoever dies when.

use std::sync::Arc;

use iolaus_activities::{Status, VerdictRecord};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;
use serde_json::Value;

use super::enqueue::{JobRows, Place};
use super::rows::{self, JOB_COLUMNS, Stored, json, ms};
use super::{StoreError, Tx, dying, unreadable};
use crate::client::{Cancelled, StepDetail};
use crate::executor::{self, Conclusion};
use crate::job::{IdConflictPolicy, IdReusePolicy, JobId, NewJob, RunId};
use crate::sequence::{self, Definition, Next, Standing};

/// The verdicts of the steps that have ended, in their order.
const ENDED: &str = "SELECT v.verdict FROM jobs j JOIN job_verdicts v ON v.id = j.id WHERE j.parent_id = ?1 ORDER BY j.id";
const OPEN_STEP: &str = "SELECT id FROM jobs WHERE parent_id = ?1 AND finished_at IS NULL";

impl Tx<'_> {
    /// Stores a sequence with its first step.
    pub(super) fn insert_sequence(&mut self, stored: &JobRows) -> Result<i64, StoreError> {
        let id = self.insert_row(stored, &Place { is_sequence: true, ..Place::default() })?;
        self.go_on(id, stored.job.delay)?;
        Ok(id)
    }

    /// A step of a sequence has ended: opens the next one, or closes the sequence. It is at most one of them, so that this ends.
    pub(super) fn advance(&mut self, sequence: i64) -> Result<(), StoreError> {
        self.go_on(sequence, None)
    }

    /// The same. What cannot be read of the sequence, or of a step that has ended, ends the sequence and not the transaction.
    fn go_on(&mut self, sequence: i64, delay: Option<std::time::Duration>) -> Result<(), StoreError> {
        match self.try_to_go_on(sequence, delay) {
            Err(error) => match unreadable::problem(&error) {
                Some(problem) => self.set_aside(sequence, None, Some(problem)).map(drop),
                None => Err(error),
            },
            done => done,
        }
    }

    fn try_to_go_on(&mut self, sequence: i64, delay: Option<std::time::Duration>) -> Result<(), StoreError> {
        let loaded = self.load_or_set_aside(sequence, None)?;
        let Some(mut stored) = loaded.filter(|stored| stored.state.is_open()) else { return Ok(()) };
        dying::point();
        let ended = self.step_verdicts(sequence)?;
        stored.execution.started_at = ended.iter().find_map(|verdict| verdict.started_at);
        self.conn
            .prepare_cached("UPDATE jobs SET started_at = ?2 WHERE id = ?1")?
            .execute(params![sequence, stored.execution.started_at.map(ms)])?;
        let standing = Standing {
            cancel_requested: stored.cancel_requested,
            cancel_reason: stored.cancel_reason.clone(),
            out_of_time: stored.execution.close_by.is_some_and(|at| at <= self.now),
        };
        let conclusion = match serde_json::from_str::<Definition>(&stored.input) {
            Err(error) => sequence::undecodable(&error.to_string()),
            Ok(definition) => match sequence::next(&definition, &ended, &standing) {
                Next::Close(conclusion) => *conclusion,
                Next::Start { step, input } => return self.start_step(sequence, &stored, &definition, step, input, delay),
            },
        };
        self.conclude(sequence, &stored, conclusion)
    }

    fn conclude(&mut self, sequence: i64, stored: &Stored, conclusion: Conclusion) -> Result<(), StoreError> {
        let closing = Arc::new(executor::concluded(&stored.execution, conclusion, self.now));
        self.close(sequence, stored.token, stored.state, &closing).map(drop)
    }

    fn start_step(
        &mut self,
        sequence: i64,
        stored: &Stored,
        definition: &Definition,
        n: usize,
        input: Value,
        delay: Option<std::time::Duration>,
    ) -> Result<(), StoreError> {
        let step = &definition.steps[n];
        let of_sequence = "SELECT j.priority, i.labels FROM jobs j JOIN job_inputs i ON i.id = j.id WHERE j.id = ?1";
        let (priority, labels) = self
            .conn
            .prepare_cached(of_sequence)?
            .query_row([sequence], |row| Ok((row.get(0)?, rows::labels(row.get(1)?).map_err(|error| rows::damaged(1, error))?)))?;
        let job = NewJob {
            job_id: JobId::of_step(&stored.execution.job_id, n + 1),
            run_id: RunId::generate(self.now),
            activity: step.activity.clone(),
            activity_version: step.activity_version,
            tenant: step.tenant.clone(),
            input,
            options: step.options.clone(),
            labels,
            priority,
            delay,
            id_conflict_policy: IdConflictPolicy::Fail,
            id_reuse_policy: IdReusePolicy::Allow,
            trace: stored.execution.trace.clone(),
        };
        let place = Place { is_sequence: false, parent: Some(sequence), close_by: stored.execution.close_by };
        self.insert_row(&JobRows::new(job)?, &place).map(drop)
    }

    /// Cancels what is open of a sequence whose cancel is stored: at once, or by asking the step that runs.
    pub(super) fn cancel_open_step(&mut self, sequence: i64, reason: Option<String>) -> Result<Cancelled, StoreError> {
        let mut statement = self.conn.prepare_cached(OPEN_STEP)?;
        let open: Option<i64> = statement.query_row([sequence], |row| row.get(0)).optional()?;
        let of_step = match open {
            Some(step) => self.cancel_one(step, reason)?,
            None => self.advance(sequence).map(|()| None)?,
        };
        let closed = self.conn.prepare_cached("SELECT 1 FROM job_verdicts WHERE id = ?1")?.exists([sequence])?;
        Ok(match of_step {
            _ if closed => Cancelled::Closed,
            Some(Cancelled::LastAttempt) => Cancelled::LastAttempt,
            _ => Cancelled::Requested,
        })
    }

    /// The id of the sequence, if this execution is a step of one.
    pub(super) fn sequence_of(&self, id: i64, job_id: &JobId) -> Result<Option<String>, StoreError> {
        let is_step = self.conn.prepare_cached("SELECT 1 FROM jobs WHERE id = ?1 AND parent_id IS NOT NULL")?.exists([id])?;
        let sequence = job_id.as_str().rsplit_once('/').map_or(job_id.as_str(), |(sequence, _)| sequence);
        Ok(is_step.then(|| sequence.to_owned()))
    }

    fn step_verdicts(&self, sequence: i64) -> Result<Vec<VerdictRecord>, StoreError> {
        let mut statement = self.conn.prepare_cached(ENDED)?;
        let verdicts = statement.query_map([sequence], |row| json(row, 0))?.collect::<rusqlite::Result<_>>()?;
        Ok(verdicts)
    }
}

/// The steps of a sequence, those that were not started included.
pub(super) fn steps(conn: &Connection, sequence: i64, input: &Value) -> Result<Vec<StepDetail>, StoreError> {
    let sql = format!(
        "SELECT {JOB_COLUMNS}, v.status FROM jobs j LEFT JOIN job_verdicts v ON v.id = j.id WHERE j.parent_id = ?1 ORDER BY j.id"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let started = statement.query_map([sequence], |row| {
        let status: Option<String> = row.get(15)?;
        Ok((rows::job(row)?, status.and_then(|status| Status::deserialize(Value::String(status)).ok())))
    })?;
    let mut started = started.collect::<rusqlite::Result<Vec<_>>>()?.into_iter();
    // One that does not decode is closed as such, and has no steps to show.
    let definition = Definition::deserialize(input).unwrap_or(Definition { steps: Vec::new() });
    let detail = |step: sequence::Step| {
        let (job, status) = started.next().map_or((None, None), |(job, status)| (Some(job), status));
        StepDetail { name: step.name, activity: step.activity, job, status }
    };
    Ok(definition.steps.into_iter().map(detail).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Target;
    use crate::embedded::Durability;
    use crate::embedded::store::closing::OLD;
    use crate::embedded::store::schema;
    use crate::job::{SEQUENCE, TraceContext};
    use iolaus_activities::ActivityOptions;
    use jiff::{SignedDuration, Timestamp};
    use serde_json::json;

    fn sequence(steps: usize, now: Timestamp) -> NewJob {
        let step = |n: usize| {
            json!({"name": format!("s{n}"), "activity": "probe", "activity_version": 1, "tenant": "default", "gate": "soft", "input": {},
                "options": ActivityOptions::default()})
        };
        NewJob {
            job_id: JobId::from_caller("nightly").unwrap(),
            run_id: RunId::generate(now),
            activity: SEQUENCE.to_owned(),
            activity_version: 1,
            tenant: "default".into(),
            input: json!({"steps": (0..steps).map(step).collect::<Vec<_>>()}),
            options: ActivityOptions::default(),
            labels: std::collections::BTreeMap::new(),
            priority: 3,
            delay: None,
            id_conflict_policy: IdConflictPolicy::Fail,
            id_reuse_policy: IdReusePolicy::Allow,
            trace: TraceContext::generate(),
        }
    }

    #[test]
    fn what_goes_on_with_a_sequence_and_what_is_forgotten_is_found_by_its_index() {
        let dir = tempfile::tempdir().unwrap();
        let conn = schema::open_writer(&dir.path().join("t.db"), Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
        for (sql, index) in [
            (ENDED, "jobs_by_parent (parent_id=?)"),
            (OPEN_STEP, "jobs_by_parent (parent_id=?)"),
            (OLD, "jobs_closed (finished_at>? AND finished_at<?)"),
        ] {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let values = vec![1; statement.parameter_count()];
            let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3));
            let plan = rows.unwrap().collect::<rusqlite::Result<Vec<_>>>().unwrap().join("; ");
            assert!(plan.contains(index) && !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }

    #[test]
    fn steps_and_their_verdicts_are_kept_until_their_sequence_is_forgotten_and_then_go_too() {
        let dir = tempfile::tempdir().unwrap();
        let opened: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let conn = schema::open_writer(&dir.path().join("t.db"), Durability::Full, opened).unwrap();
        let day = |n: i64| opened + SignedDuration::from_hours(24 * n);
        let at = |now: Timestamp| Tx::new(&conn, now, 0.5);
        let rows = || conn.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)).unwrap();
        let cancel = |id: &str, now| at(now).cancel(&Target::newest(id.parse().unwrap()), None).unwrap();

        at(opened).enqueue(&JobRows::new(sequence(3, opened)).unwrap()).unwrap();
        cancel("nightly/1", day(1));
        cancel("nightly/2", day(2));
        // Old enough by themselves, and wanted by the open sequence.
        assert!(!at(day(30)).prune(day(20)).unwrap());
        assert_eq!(rows(), 4);
        cancel("nightly/3", day(31));
        let verdict: String = conn.query_row("SELECT verdict FROM job_verdicts WHERE id = 1", [], |row| row.get(0)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&verdict).unwrap()["facts"]["steps"].as_array().unwrap().len(), 3);
        // Closed, and not old enough yet.
        assert!(!at(day(40)).prune(day(31)).unwrap());
        assert_eq!(rows(), 4);
        // The sequence goes first, and says that there is more; nothing is left then.
        assert!(at(day(40)).prune(day(32)).unwrap());
        assert_eq!(rows(), 3);
        assert!(!at(day(40)).prune(day(32)).unwrap());
        assert_eq!(rows(), 0);
        for table in ["job_inputs", "job_verdicts"] {
            assert_eq!(conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)), Ok(0), "{table}");
        }
    }
}
