//! Derives every promise of a file again from its rows: one verdict for each closed execution, fencing, counts, order of states,
//! orphans, sequences, rows that decode. It reads one snapshot, beside live workers; a repair takes the write lock, copies first, and
//! sets aside what is broken.

mod finding;
mod judge;
mod objects;
mod repair;
mod row;
mod scan;
mod tables;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use iolaus_activities::Clock;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};
use serde::Serialize;

pub use finding::{Finding, Severity};
pub(super) use row::JobRow;

use super::turnstile::Turnstile;
use super::{StoreError, retention_of_workers, rows, schema};
use crate::embedded::files::StateDirectory;
use finding::Findings;
use scan::Counted;

/// Connections that read at once, at most.
const THREADS: usize = 4;
/// Parts of the table for each of them, so that none is idle for long at the end.
const PARTS: i64 = 8;

/// The code of what SQLite finds in its own pages.
const DAMAGED: &str = "file.damaged";
/// The same of the pages of an index, which a repair builds again where SQLite can still clear them.
const INDEX_DAMAGED: &str = "index.damaged";

/// How to check a file.
#[derive(Debug, Clone)]
pub struct FsckOptions {
    /// The file.
    pub path: PathBuf,
    /// Set aside what is broken, after a copy.
    pub repair: bool,
    /// A worker that was silent for longer is dead.
    pub worker_timeout: Duration,
    /// How long closed executions are kept.
    pub retention: Duration,
}

/// What a check came to.
#[derive(Debug, Serialize)]
pub struct FsckReport {
    /// The file.
    pub place: String,
    /// Whether nothing is wrong, or nothing any more.
    pub ok: bool,
    /// Executions in the file.
    pub executions: i64,
    /// Findings by their code.
    pub by_code: BTreeMap<&'static str, u64>,
    /// The findings, up to a bound.
    pub findings: Vec<Finding>,
    /// Findings past that bound.
    pub unlisted: u64,
    /// What a repair did, if one was asked for and there was something to repair.
    pub repair: Option<RepairReport>,
}

/// What a repair did.
#[derive(Debug, Serialize)]
pub struct RepairReport {
    /// The copy of the file as it was before.
    pub copy: PathBuf,
    /// Times that the file was read and changed.
    pub passes: u32,
    /// What was left, warnings included.
    pub remaining: Vec<Finding>,
}

impl FsckReport {
    /// Whether pages of the file are damaged, and no repair here can set them right.
    pub fn is_damaged(&self) -> bool {
        let left = self.repair.iter().flat_map(|repair| &repair.remaining);
        self.by_code.contains_key(DAMAGED) || left.into_iter().any(|finding| matches!(finding.code, DAMAGED | INDEX_DAMAGED))
    }

    /// What to do about damaged pages: the commands, for this file.
    pub fn damage_hint(&self) -> String {
        let word = |suffix: &str| iolaus_activities::shell_word(&format!("{}{suffix}", self.place)).into_owned();
        let (file, wal, shm, aside, recovered) = (word(""), word("-wal"), word("-shm"), word("-damaged"), word("-recovered"));
        let (id, version) = (schema::APPLICATION_ID, schema::VERSION);
        format!(
            "stop every process that uses the file and keep a copy: `cp -p {file} {aside}; cp -p {wal} {aside}-wal`. Then put a \
             backup in its place: `rm -f {wal} {shm} && cp -p BACKUP {file}`. Without a backup, export what can be read: \
             `sqlite3 {file} .recover | sqlite3 {recovered}`, or, where sqlite3 was built without .recover and says SQL logic error: \
             `(echo 'PRAGMA auto_vacuum=2; PRAGMA application_id={id}; PRAGMA user_version={version};'; sqlite3 {file} .dump | \
             sed 's/^ROLLBACK;.*/COMMIT;/') | sqlite3 {recovered}`. Then let `IOLAUS_DATABASE__PATH={recovered} iolaus fsck --repair` set \
             aside what is incomplete, and put it in place: `rm -f {wal} {shm} && mv {recovered} {file}`"
        )
    }
}

/// Checks a file, and repairs it if that is asked for.
pub(crate) fn check(options: &FsckOptions, clock: &dyn Clock) -> Result<FsckReport, StoreError> {
    if !options.path.exists() {
        return Err(StoreError::Missing);
    }
    schema::check_current(&open(&options.path)?)?;
    if options.repair {
        return repair::repair(options, clock);
    }
    Ok(scan(options, clock, false)?.report(options))
}

/// Checks a bounded number of executions, however many there are: how many were looked at, and what was found.
pub(crate) fn sample(conn: &Connection) -> Result<(usize, Vec<Finding>), StoreError> {
    let (found, looked_at) = scan::sample(conn)?;
    Ok((looked_at, found.kept()))
}

/// What one reading of a file found.
struct Scan {
    found: Findings,
    counted: Counted,
    /// Every row was read: of a damaged file, or by a damaged index, not all are, and what is counted then means nothing.
    is_complete: bool,
}

impl Scan {
    fn report(&self, options: &FsckOptions) -> FsckReport {
        let (findings, by_code) = (self.found.kept(), self.found.by_code());
        let listed = u64::try_from(findings.len()).unwrap_or(u64::MAX);
        FsckReport {
            place: options.path.display().to_string(),
            ok: self.found.is_clean(),
            executions: self.counted.executions,
            unlisted: by_code.values().sum::<u64>().saturating_sub(listed),
            by_code,
            findings,
            repair: None,
        }
    }
}

/// A part of the work.
#[derive(Debug, Clone, Copy)]
enum Task {
    Pages,
    Contents,
    Small,
    Entries,
    Range(i64, i64),
}

#[derive(Default)]
struct Outcome {
    found: Findings,
    counted: Counted,
    counts: Vec<tables::StoredCount>,
    entries: Vec<(&'static str, i64)>,
    indexes: Vec<tables::WrongIndex>,
    /// What kept a part of the work from its end.
    broken: Vec<String>,
}

/// Reads the whole file. `has_turn`: the caller holds the write lock.
fn scan(options: &FsckOptions, clock: &dyn Clock, has_turn: bool) -> Result<Scan, StoreError> {
    let conns = snapshots(&options.path, has_turn)?;
    let schema = conns.first().map(objects::check).transpose()?.unwrap_or_default();
    if !schema.can_be_read {
        // Every statement below names these tables and indexes.
        let count = |conn: &Connection| conn.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0)).ok();
        let executions = conns.first().and_then(count).unwrap_or_default();
        let counted = Counted { executions, ..Counted::default() };
        return Ok(Scan { found: schema.found, counted, is_complete: false });
    }
    // Where the workers delete earlier than this process would, what is missing was deleted by them.
    let recorded = conns.first().and_then(|conn| retention_of_workers(conn).ok().flatten());
    let retention = recorded.map_or(options.retention, |recorded| recorded.min(options.retention));
    let oldest_kept = clock.now().saturating_sub(retention).map_or(i64::MIN, rows::ms);
    let parts = PARTS.saturating_mul(i64::try_from(conns.len()).unwrap_or(1));
    let tasks = conns.first().map(|conn| tasks(conn, parts)).unwrap_or_default();
    let (tasks, outcome) = (Mutex::new(tasks), Mutex::new(Outcome::default()));
    std::thread::scope(|scope| {
        let (tasks, outcome) = (&tasks, &outcome);
        let threads: Vec<_> = conns.into_iter().map(|conn| scope.spawn(move || work(&conn, oldest_kept, tasks, outcome))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(StoreError::Panicked)))
    })?;
    let Outcome { mut found, counted, counts, entries, indexes, broken } =
        outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.append(schema.found);
    // A wrong index alone leads to rows that are not there; SQLite's own check says where else the damage is.
    if indexes.is_empty() && !found.has(DAMAGED) {
        for error in &broken {
            found.add(tables::damaged(error));
        }
    }
    let is_complete = broken.is_empty() && !found.has(DAMAGED);
    let mut wrong: BTreeMap<String, tables::WrongIndex> = BTreeMap::new();
    let counted_wrong = if is_complete { tables::indexes(&entries, &counted) } else { Vec::new() };
    for index in indexes.into_iter().chain(counted_wrong) {
        // Whichever check came first: damage is the cause of whatever else is wrong.
        let known = wrong.get(&index.index);
        if known.is_none_or(|known| !known.is_damaged && index.is_damaged) {
            wrong.insert(index.index.clone(), index);
        }
    }
    for index in wrong.into_values() {
        found.add(index.finding());
    }
    if is_complete {
        found.append(tables::counts(counts, &counted));
    }
    Ok(Scan { found, counted, is_complete })
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let conn = schema::open_reader(path)?;
    // The end of a check moves nothing from the log into the file.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(conn)
}

/// Connections that all see the file as it is at one moment: nothing is committed while they begin.
fn snapshots(path: &Path, has_turn: bool) -> Result<Vec<Connection>, StoreError> {
    let turnstile = if has_turn { None } else { Some(Turnstile::open(StateDirectory::open(path)?.as_ref())?) };
    let _turn = turnstile.as_ref().map(Turnstile::enter_or_give_up).transpose()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let begin = |_| {
        let conn = open(path)?;
        conn.execute_batch("BEGIN; SELECT count(*) FROM meta")?;
        Ok(conn)
    };
    (0..threads).map(begin).collect()
}

/// The work, the longest first.
fn tasks(conn: &Connection, parts: i64) -> VecDeque<Task> {
    let ends = conn.query_row("SELECT min(id), max(id) FROM jobs", [], |row| {
        Ok(row.get::<_, Option<i64>>(0)?.zip(row.get::<_, Option<i64>>(1)?))
    });
    let mut tasks = VecDeque::from([Task::Pages, Task::Contents]);
    let mut from = i64::MIN;
    // Where the table is damaged, the part that meets the damage says so.
    if let Ok(Some((low, high))) = ends {
        let step = (high.saturating_sub(low) / parts).max(1_000);
        for part in 1..parts {
            let to = low.saturating_add(step.saturating_mul(part));
            if to >= high {
                break;
            }
            tasks.push_back(Task::Range(from, to.saturating_sub(1)));
            from = to;
        }
    }
    tasks.extend([Task::Range(from, i64::MAX), Task::Entries, Task::Small]);
    tasks
}

fn work(conn: &Connection, oldest_kept: i64, tasks: &Mutex<VecDeque<Task>>, outcome: &Mutex<Outcome>) -> Result<(), StoreError> {
    loop {
        let Some(task) = tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { return Ok(()) };
        let mut done = Outcome::default();
        let ran = match task {
            Task::Pages => tables::pages(conn).map(|(found, indexes)| (done.found, done.indexes) = (found, indexes)),
            Task::Contents => tables::contents(conn).map(|indexes| done.indexes = indexes),
            Task::Small => tables::small(conn, oldest_kept).map(|(found, counts)| (done.found, done.counts) = (found, counts)),
            Task::Entries => tables::entries(conn).map(|entries| done.entries = entries),
            Task::Range(from, to) => {
                scan::range(conn, from, to).map(|(found, counted)| (done.found, done.counted) = (found, counted))
            }
        };
        match ran {
            Err(StoreError::Sql(error)) if is_damage(&error) => done.broken.push(error.to_string()),
            ran => ran?,
        }
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.found.append(done.found);
        outcome.counted.append(done.counted);
        outcome.counts.extend(done.counts);
        outcome.entries.extend(done.entries);
        outcome.indexes.extend(done.indexes);
        outcome.broken.extend(done.broken);
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
