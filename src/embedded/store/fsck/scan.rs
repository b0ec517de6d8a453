//! Walks executions in the order of their rows, and the tables beside them in step with it: each row is read once, and what belongs to
//! no execution shows by itself. Memory does not grow with the file.

use std::collections::HashMap;

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator as _;
use rusqlite::{Connection, Row, Rows, params};

use super::finding::{Finding, Findings};
use super::judge::{self, CHECKPOINT_COLUMNS, FAILURE_COLUMNS, INPUT_COLUMNS, Judge, VERDICT_COLUMNS, Verdict, delete};
use super::row::{COLUMNS, JobRow};
use crate::embedded::store::StoreError;
use crate::job::JobState;

/// What was counted on the way.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Executions by activity and tenant, and by state in the order of [`JobState::ALL`].
    pub(super) states: HashMap<(String, String), [i64; JobState::ALL.len()]>,
    pub(super) executions: i64,
    /// How many entries each partial index must have.
    pub(super) expiring: i64,
    pub(super) running: i64,
    pub(super) ended: i64,
    pub(super) steps: i64,
}

impl Counted {
    pub(super) fn of(&self, states: &[JobState]) -> i64 {
        let position = |state: &JobState| JobState::ALL.iter().position(|known| known == state).unwrap_or_default();
        self.states.values().map(|counts| states.iter().map(|state| counts[position(state)]).sum::<i64>()).sum()
    }

    fn add(&mut self, job: &JobRow) {
        self.executions += 1;
        self.expiring += i64::from(job.has(job.expires_at, "expires_at"));
        self.running += i64::from(job.state == Some(JobState::Running));
        self.ended += i64::from(job.has(job.finished_at, "finished_at"));
        self.steps += i64::from(job.parent_id.is_some());
        let Some(position) = JobState::ALL.iter().position(|state| Some(*state) == job.state) else { return };
        let key = (job.activity.clone(), job.tenant.clone());
        self.states.entry(key).or_default()[position] += 1;
    }

    pub(super) fn append(&mut self, other: Self) {
        self.executions += other.executions;
        self.expiring += other.expiring;
        self.running += other.running;
        self.ended += other.ended;
        self.steps += other.steps;
        for (key, counts) in other.states {
            let sums = self.states.entry(key).or_default();
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
}

/// Rows of a side table in the order of their executions.
struct Cursor<'s> {
    rows: Rows<'s>,
    id: Option<i64>,
    table: &'static str,
}

impl<'s> Cursor<'s> {
    fn new(rows: Rows<'s>, table: &'static str) -> rusqlite::Result<Self> {
        let mut cursor = Self { rows, id: None, table };
        cursor.advance()?;
        Ok(cursor)
    }

    fn advance(&mut self) -> rusqlite::Result<()> {
        self.rows.advance()?;
        self.id = self.rows.get().map(|row| row.get(0)).transpose()?;
        Ok(())
    }

    /// Steps over what belongs to an execution before this one, and answers with the row of this one.
    fn seek(&mut self, id: i64, found: &mut Findings) -> rusqlite::Result<Option<&Row<'s>>> {
        self.pass(found, |orphan| orphan < id)?;
        Ok(if self.id == Some(id) { self.rows.get() } else { None })
    }

    fn pass(&mut self, found: &mut Findings, is_passed: impl Fn(i64) -> bool) -> rusqlite::Result<()> {
        while let Some(orphan) = self.id.filter(|orphan| is_passed(*orphan)) {
            found.add(orphaned(self.table, orphan));
            self.advance()?;
        }
        Ok(())
    }
}

fn orphaned(table: &'static str, id: i64) -> Finding {
    Finding::new("row.orphaned", table, "it belongs to no execution", delete(table)).at(id)
}

/// Checks the executions with `from <= id <= to`, and the rows beside them.
pub(super) fn range(conn: &Connection, from: i64, to: i64) -> Result<(Findings, Counted), StoreError> {
    let select = |columns: &str, table: &str, order: &str| {
        conn.prepare(&format!("SELECT {columns} FROM {table} WHERE id >= ?1 AND id <= ?2 ORDER BY {order}"))
    };
    let (mut jobs, mut inputs) = (select(COLUMNS, "jobs", "id")?, select(INPUT_COLUMNS, "job_inputs", "id")?);
    let mut checkpoints = select(CHECKPOINT_COLUMNS, "job_checkpoints", "id")?;
    let mut verdicts = select(VERDICT_COLUMNS, "job_verdicts", "id")?;
    let mut failures = select(FAILURE_COLUMNS, "job_failures", "id, lease_token")?;
    let span = params![from, to];
    let mut inputs = Cursor::new(inputs.query(span)?, "job_inputs")?;
    let mut checkpoints = Cursor::new(checkpoints.query(span)?, "job_checkpoints")?;
    let mut verdicts = Cursor::new(verdicts.query(span)?, "job_verdicts")?;
    let mut failures = Cursor::new(failures.query(span)?, "job_failures")?;
    let (mut judge, mut counted) = (Judge::new(conn), Counted::default());
    let mut jobs = jobs.query(span)?;
    while let Some(row) = jobs.next()? {
        let job = JobRow::read(row)?;
        counted.add(&job);
        let verdict = verdicts.seek(job.id, &mut judge.found)?.map_or(Ok(Verdict::Missing), Verdict::of)?;
        judge.execution(&job, &verdict)?;
        if verdicts.id == Some(job.id) {
            verdicts.advance()?;
        }
        let found = inputs.seek(job.id, &mut judge.found)?;
        judge.input(&job, found)?;
        if inputs.id == Some(job.id) {
            inputs.advance()?;
        }
        if let Some(row) = checkpoints.seek(job.id, &mut judge.found)? {
            judge.checkpoint(&job, row)?;
            checkpoints.advance()?;
        }
        while let Some(row) = failures.seek(job.id, &mut judge.found)? {
            judge.failure(&job, row)?;
            failures.advance()?;
        }
    }
    for cursor in [&mut inputs, &mut checkpoints, &mut verdicts, &mut failures] {
        cursor.pass(&mut judge.found, |_| true)?;
    }
    Ok((judge.found, counted))
}

/// Executions that a look at a sample takes from each end of the table, and of what is open.
const SAMPLE: i64 = 100;
/// Where they are taken from: what was stored last and first, what is due and running, and a spread over the whole.
const SAMPLES: [&str; 6] = [
    "SELECT id FROM jobs ORDER BY id DESC LIMIT ?1",
    "SELECT id FROM jobs ORDER BY id LIMIT ?1",
    "SELECT id FROM jobs INDEXED BY jobs_ready WHERE state = 'available' LIMIT ?1",
    "SELECT id FROM jobs INDEXED BY jobs_due WHERE state IN ('scheduled', 'retryable') ORDER BY run_at LIMIT ?1",
    "SELECT id FROM jobs INDEXED BY jobs_running WHERE state = 'running' LIMIT ?1",
    "WITH RECURSIVE ends(low, high) AS (SELECT (SELECT min(id) FROM jobs), (SELECT max(id) FROM jobs)), \
       n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1) \
     SELECT (SELECT id FROM jobs WHERE id >= low + (high - low) / ?1 * i LIMIT 1) FROM n, ends WHERE low IS NOT NULL",
];

/// Checks a bounded number of executions, however many there are: what was found, and how many were looked at.
pub(super) fn sample(conn: &Connection) -> Result<(Findings, usize), StoreError> {
    let mut ids = std::collections::BTreeSet::new();
    for sql in SAMPLES {
        let mut statement = conn.prepare(sql)?;
        let found = statement.query_map([SAMPLE], |row| row.get::<_, Option<i64>>(0))?;
        ids.extend(found.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten());
    }
    let looked = ids.len();
    let mut judge = Judge::new(conn);
    for id in ids {
        let Some(job) = JobRow::find(conn, id)? else { continue };
        one(conn, &job, &mut judge)?;
    }
    Ok((judge.found, looked))
}

/// The same of one execution.
fn one(conn: &Connection, job: &JobRow, judge: &mut Judge<'_>) -> Result<(), StoreError> {
    let select = |columns: &str, table: &str| conn.prepare_cached(&format!("SELECT {columns} FROM {table} WHERE id = ?1"));
    let mut verdicts = select(VERDICT_COLUMNS, "job_verdicts")?;
    let verdict = verdicts.query([job.id])?.next()?.map_or(Ok(Verdict::Missing), judge::Verdict::of)?;
    judge.execution(job, &verdict)?;
    judge.input(job, select(INPUT_COLUMNS, "job_inputs")?.query([job.id])?.next()?)?;
    if let Some(row) = select(CHECKPOINT_COLUMNS, "job_checkpoints")?.query([job.id])?.next()? {
        judge.checkpoint(job, row)?;
    }
    let mut failures = select(FAILURE_COLUMNS, "job_failures")?;
    let mut failures = failures.query([job.id])?;
    while let Some(row) = failures.next()? {
        judge.failure(job, row)?;
    }
    Ok(())
}
