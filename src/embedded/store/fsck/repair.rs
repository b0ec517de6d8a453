//! Sets right what a check found: under the write lock, with no live worker, after a copy. Each finding is repaired by itself, and the
//! file is read again afterwards: what the report says is left is what is there.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::{Category, Clock, Failure, VerdictRecord, codes};
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::finding::{Finding, Fix};
use super::judge::state_of;
use super::scan::Counted;
use super::tables::quoted;
use super::{FsckOptions, FsckReport, JobRow, RepairReport, Scan, scan};
use crate::embedded::Durability;
use crate::embedded::files::{self, StateDirectory};
use crate::embedded::store::rows::{self, Stored, ms};
use crate::embedded::store::turnstile::Turnstile;
use crate::embedded::store::{StoreError, Tx, schema, workers};
use crate::executor::{self, Closing, WorkerDeath};
use crate::job::JobState;
use crate::telemetry;

/// Times that the file is changed and read again. One repair can show the next thing: a lost verdict a sequence without a step.
const PASSES: u32 = 8;
/// Pages that are copied at once.
const PAGES: i32 = 4096;

/// Checks a file and repairs it.
pub(super) fn repair(options: &FsckOptions, clock: &dyn Clock) -> Result<FsckReport, StoreError> {
    let place = StateDirectory::open(&options.path)?;
    let turnstile = Turnstile::open(&place)?;
    // Until this is dropped no other process writes, and enqueues wait.
    let _turn = turnstile.enter_or_give_up()?;
    let conn = schema::open_writer(&options.path, Durability::Full, clock.now())?;
    refuse_live_workers(&conn, options, clock)?;
    let mut last = scan(options, clock, true)?;
    let can_repair = |scan: &Scan| scan.found.kept().iter().any(Finding::can_repair);
    let mut report = last.report(options);
    if report.is_damaged() || !can_repair(&last) {
        return Ok(report);
    }
    let copy = copy(&conn, &place, clock)?;
    let mut passes = 0;
    while passes < PASSES && can_repair(&last) {
        passes += 1;
        pass(&conn, &last, clock)?;
        let next = scan(options, clock, true)?;
        let is_stuck = next.found == last.found;
        last = next;
        if is_stuck {
            break;
        }
    }
    report.ok = last.found.is_clean();
    report.repair = Some(RepairReport { copy, passes, remaining: last.found.kept() });
    Ok(report)
}

/// A worker that lives has its own idea of what it runs.
fn refuse_live_workers(conn: &Connection, options: &FsckOptions, clock: &dyn Clock) -> Result<(), StoreError> {
    let mut statement = conn.prepare("SELECT name, beat_at FROM workers")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        // One whose row does not decode is no reason to leave the file as it is.
        let Ok(beat_at) = rows::time(row, 1) else { continue };
        if workers::is_live(beat_at, clock.now(), options.worker_timeout) {
            return Err(StoreError::LiveWorker { name: rows::lossy(row, 0)? });
        }
    }
    Ok(())
}

/// Copies the file as it is, beside it and as private as it is.
fn copy(conn: &Connection, place: &StateDirectory, clock: &dyn Clock) -> Result<PathBuf, StoreError> {
    let now = clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let name = |n: u32| if n == 0 { format!("before-repair-{now}") } else { format!("before-repair-{now}-{n}") };
    let path_of = |name: &String| files::path_beside(place.database(), name);
    let free = (0..1_000).map(name).find(|name| !path_of(name).exists());
    let name = free.ok_or_else(|| std::io::Error::other("there are too many copies beside the file"))?;
    place.beside(&name)?;
    let path = path_of(&name);
    let copied = copy_to(conn, &path);
    if copied.is_err() {
        // Half a copy is worse than none.
        std::fs::remove_file(&path).ok();
    }
    copied.map(|()| path)
}

fn copy_to(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let mut to = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    Backup::new(conn, &mut to)?.run_to_completion(PAGES, Duration::ZERO, None)?;
    to.close().map_err(|(_, error)| error)?;
    File::open(path)?.sync_all()?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Makes the schema what this build defines, each part of it in a transaction of its own.
fn restore_schema(conn: &Connection, seen: &Scan) -> Result<(), StoreError> {
    for finding in seen.found.kept() {
        let Fix::Schema(statements) = &finding.fix else { continue };
        if let Err(error) = conn.execute_batch(&format!("BEGIN IMMEDIATE; {statements}; COMMIT")) {
            if !conn.is_autocommit() {
                conn.execute_batch("ROLLBACK")?;
            }
            tracing::error!(%error, statements, "the schema could not be repaired");
        }
    }
    Ok(())
}

/// Builds wrong indexes again, each table's in a transaction of its own: SQLite cannot always clear a damaged one, and then cannot commit.
fn build_indexes(conn: &Connection, seen: &Scan) -> Result<(), StoreError> {
    let table = |finding: &Finding| if let Fix::Reindex(table) = &finding.fix { Some(table.clone()) } else { None };
    for table in seen.found.kept().iter().filter_map(table).collect::<BTreeSet<_>>() {
        if let Err(error) = conn.execute_batch(&format!("BEGIN IMMEDIATE; REINDEX {}; COMMIT", quoted(&table))) {
            if !conn.is_autocommit() {
                conn.execute_batch("ROLLBACK")?;
            }
            tracing::error!(%error, table, "the indexes of a table could not be built again");
        }
    }
    Ok(())
}

/// Repairs what one reading found, in one transaction.
fn pass(conn: &Connection, seen: &Scan, clock: &dyn Clock) -> Result<(), StoreError> {
    // The schema and its indexes first: what follows is found by them.
    restore_schema(conn, seen)?;
    build_indexes(conn, seen)?;
    if !seen.is_complete {
        // The next reading sees every row.
        return Ok(());
    }
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let mut tx = Tx::new(conn, clock.now(), clock.random());
    let repaired = tx.repair_all(seen);
    if let Err(error) = repaired.and_then(|()| tx.counts.store(conn)) {
        if !conn.is_autocommit() {
            conn.execute_batch("ROLLBACK")?;
        }
        return Err(error);
    }
    conn.execute_batch("COMMIT").map_err(|error| StoreError::CommitUnknown(Arc::new(error)))?;
    for closed in &tx.after.closed {
        telemetry::verdict_event(&closed.closing.verdict, &closed.closing.logged());
    }
    Ok(())
}

impl Tx<'_> {
    fn repair_all(&mut self, seen: &Scan) -> Result<(), StoreError> {
        let mut findings = seen.found.kept();
        // The counts as of what was seen first: what follows adds its own changes to them.
        self.store_counts(&seen.counted)?;
        // A sequence without a step goes on last: another repair may have given it its step back.
        findings.sort_by_key(|finding| finding.fix == Fix::Advance);
        for finding in &findings {
            let counts = self.counts.clone();
            self.conn.execute_batch("SAVEPOINT finding")?;
            match self.repair_one(finding) {
                Ok(()) => self.conn.execute_batch("RELEASE finding")?,
                Err(error) if self.conn.is_autocommit() => return Err(error),
                Err(error) => {
                    self.conn.execute_batch("ROLLBACK TO finding; RELEASE finding")?;
                    self.counts = counts;
                    tracing::error!(%error, code = finding.code, row = finding.row, "a finding could not be repaired");
                }
            }
        }
        Ok(())
    }

    fn store_counts(&self, counted: &Counted) -> Result<(), StoreError> {
        self.conn.execute("DELETE FROM job_counts", [])?;
        let mut insert = self.conn.prepare("INSERT INTO job_counts(activity, tenant, state, count) VALUES (?1, ?2, ?3, ?4)")?;
        for ((activity, tenant), counts) in &counted.states {
            for (state, count) in JobState::ALL.iter().zip(counts).filter(|(_, count)| **count != 0) {
                insert.execute(params![activity, tenant, state.as_str(), count])?;
            }
        }
        Ok(())
    }

    fn repair_one(&mut self, finding: &Finding) -> Result<(), StoreError> {
        let id = finding.row.unwrap_or_default();
        match &finding.fix {
            Fix::Nothing | Fix::Counts | Fix::Reindex(_) | Fix::Schema(_) => Ok(()),
            Fix::SetAside | Fix::MakeReadable => {
                let why = format!("{}: {}", finding.code, finding.message);
                self.set_aside_if(id, finding.fix == Fix::SetAside, why)
            }
            Fix::LostVerdict => self.lose_verdict(id, &finding.message),
            Fix::CloseByVerdict => self.close_by_verdict(id),
            Fix::VerdictColumns => self.verdict(id)?.map_or(Ok(()), |verdict| {
                let code = verdict.failure.as_ref().map(|failure| failure.code.as_str());
                let sql = "UPDATE job_verdicts SET status = ?2, code = ?3 WHERE id = ?1";
                Ok(self.conn.execute(sql, params![id, verdict.status.as_str(), code]).map(drop)?)
            }),
            Fix::Rescue => self.rescue_one(id),
            Fix::Advance => {
                let sql = "SELECT 1 FROM jobs WHERE parent_id = ?1 AND finished_at IS NULL";
                if self.conn.prepare_cached(sql)?.exists([id])? { Ok(()) } else { self.advance(id) }
            }
            Fix::Set { table, column, value } => {
                Ok(self.conn.execute(&format!("UPDATE {table} SET {column} = ?2 WHERE id = ?1"), params![id, value]).map(drop)?)
            }
            Fix::Delete { table, key, lease_token } => {
                let sql = match lease_token {
                    Some(token) => format!("DELETE FROM {table} WHERE {key} = ?1 AND lease_token = {token}"),
                    None => format!("DELETE FROM {table} WHERE {key} = ?1"),
                };
                Ok(self.conn.execute(&sql, [id]).map(drop)?)
            }
            Fix::DeleteNamed { table, kind, name } => {
                let sql = format!("DELETE FROM {table} WHERE kind = ?1 AND name = ?2");
                Ok(self.conn.execute(&sql, params![kind, name]).map(drop)?)
            }
            Fix::DeleteHold { worker, tenant } => {
                let sql = "DELETE FROM worker_holds WHERE worker_id = ?1 AND tenant = ?2";
                Ok(self.conn.execute(sql, params![worker, tenant]).map(drop)?)
            }
            Fix::Pause { kind, name } => {
                let sql = "UPDATE pauses SET reason = NULL, paused_at = ?3 WHERE kind = ?1 AND name = ?2";
                Ok(self.conn.execute(sql, params![kind, name, ms(self.now)]).map(drop)?)
            }
            Fix::NextId { table, after } => {
                let moved = self.conn.execute("UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1", params![table, after])?;
                if moved == 0 {
                    self.conn.execute("INSERT INTO sqlite_sequence(name, seq) VALUES (?1, ?2)", params![table, after])?;
                }
                Ok(())
            }
            Fix::Renumber(to) => self.renumber(id, *to),
        }
    }

    /// No attempt knows the execution by its old id: no worker lives.
    fn renumber(&mut self, id: i64, to: i64) -> Result<(), StoreError> {
        for table in ["jobs", "job_inputs", "job_checkpoints", "job_verdicts", "job_failures"] {
            self.conn.execute(&format!("UPDATE {table} SET id = ?2 WHERE id = ?1"), [id, to])?;
        }
        Ok(self.conn.execute("UPDATE jobs SET parent_id = ?2 WHERE parent_id = ?1", [id, to]).map(drop)?)
    }

    fn set_aside_if(&mut self, id: i64, closes: bool, why: String) -> Result<(), StoreError> {
        if closes {
            return self.set_aside(id, None, Some(why)).map(drop);
        }
        let Some(row) = JobRow::find(self.conn, id)? else { return Ok(()) };
        self.make_readable(&row)?;
        if let Some(stored) = rows::load(self.conn, id)? {
            self.recount(row.state, &stored);
        }
        Ok(())
    }

    /// A closed execution gets a verdict in place of the one that was lost, and an open one that had one ends with it.
    fn lose_verdict(&mut self, id: i64, problem: &str) -> Result<(), StoreError> {
        let Some(row) = JobRow::find(self.conn, id)? else { return Ok(()) };
        self.make_readable(&row)?;
        let Some(stored) = rows::load(self.conn, id)? else { return Ok(()) };
        let ended = row.finished_at.and_then(|at| rows::at_ms(at).ok()).unwrap_or(self.now);
        let closing = Arc::new(lost(&stored, problem, ended));
        let code = closing.verdict.failure.as_ref().map(|failure| failure.code.as_str());
        self.conn.execute("DELETE FROM job_verdicts WHERE id = ?1", [id])?;
        self.conn.execute(
            "INSERT INTO job_verdicts(id, status, code, verdict) VALUES (?1, ?2, ?3, ?4)",
            params![id, closing.verdict.status.as_str(), code, closing.json()],
        )?;
        self.end(id, row.state, &stored, closing.state, ms(ended))?;
        self.after.closed.push(crate::embedded::hub::Closed { id, closing, by_attempt: false });
        Ok(())
    }

    /// State and end of an execution become those of its verdict.
    fn close_by_verdict(&mut self, id: i64) -> Result<(), StoreError> {
        let Some(row) = JobRow::find(self.conn, id)? else { return Ok(()) };
        let (Some(verdict), Some(stored)) = (self.verdict(id)?, rows::load(self.conn, id)?) else { return Ok(()) };
        self.end(id, row.state, &stored, state_of(verdict.status), ms(verdict.finished_at))
    }

    fn end(&mut self, id: i64, counted: Option<JobState>, stored: &Stored, state: JobState, at: i64) -> Result<(), StoreError> {
        let sql = "UPDATE jobs SET state = ?2, finished_at = ?3, worker_id = NULL, expires_at = NULL WHERE id = ?1";
        self.conn.execute(sql, params![id, state.as_str(), at])?;
        self.counts.moved(&stored.execution.activity, &stored.execution.tenant, counted, Some(state));
        Ok(())
    }

    /// A running execution without a worker: its attempt is lost.
    fn rescue_one(&mut self, id: i64) -> Result<(), StoreError> {
        let Some(stored) = self.load_or_set_aside(id, None)? else { return Ok(()) };
        if stored.state != JobState::Running {
            return Ok(());
        }
        let cancel = self.unanswered_cancel(id, &stored)?;
        // Nothing says that the job has killed it.
        let death = WorkerDeath { worker: "(not registered)", in_a_row: 1, at_most: u32::MAX };
        let decision = executor::rescued(&stored.execution, &death, &cancel, self.now, self.jitter);
        self.finish(id, stored.token, &decision).map(drop)
    }

    fn verdict(&self, id: i64) -> Result<Option<VerdictRecord>, StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT verdict FROM job_verdicts WHERE id = ?1")?;
        Ok(statement.query_row([id], |row| Ok(rows::json(row, 0).ok())).optional()?.flatten())
    }
}

/// The end of an execution that is closed, and whose own verdict is lost.
fn lost(stored: &Stored, problem: &str, ended: jiff::Timestamp) -> Closing {
    let job_id = &stored.execution.job_id;
    let message = format!("the verdict of job {job_id} was lost, and how it ended is not known: {problem}");
    let hint = "look at the tenant for what it did before you retry it; iolaus fsck --repair made a copy of the file first";
    let failure = Failure::new(codes::STORE_UNAVAILABLE, Category::DataIntegrity, message).suggest(hint);
    executor::discarded(&stored.execution, &failure, ended)
}
