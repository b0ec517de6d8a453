//! What must hold of the file as a whole: counts, indexes, ids, workers and effects.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::finding::{Finding, Findings, Fix};
use super::scan::Counted;
use crate::client::PauseKind;
use crate::embedded::store::StoreError;
use crate::embedded::store::rows::{self, MOST, Text, lossy};
use crate::job::JobState;

/// Every index of `jobs`, and the condition that its entries meet.
const INDEXES: [(&str, &str); 10] = [
    ("jobs_by_job_id", "1"),
    ("jobs_ready", "state = 'available'"),
    ("jobs_due", "state IN ('scheduled', 'retryable')"),
    ("jobs_expiring", "expires_at IS NOT NULL"),
    ("jobs_running", "state = 'running'"),
    ("jobs_closed", "finished_at IS NOT NULL"),
    ("jobs_dead", "state IN ('discarded', 'cancelled')"),
    ("jobs_by_parent", "parent_id IS NOT NULL"),
    ("jobs_by_owner", "1"),
    ("jobs_delayed_or_dead", "state IN ('scheduled', 'retryable', 'discarded', 'cancelled')"),
];
/// Lines of SQLite's own check that are kept.
const LINES: u32 = 100;

/// An index that does not hold what its table does.
pub(super) struct WrongIndex {
    pub(super) index: String,
    table: String,
    problem: String,
    /// Its pages cannot be read, or contradict each other.
    pub(super) is_damaged: bool,
}

impl WrongIndex {
    pub(super) fn finding(self) -> Finding {
        let code = if self.is_damaged { super::INDEX_DAMAGED } else { "index.wrong" };
        Finding::new(code, self.table.clone(), format!("the index {}: {}", self.index, self.problem), Fix::Reindex(self.table))
    }
}

/// SQLite's own check of the pages: what it finds in those of a table cannot be set right row by row.
pub(super) fn pages(conn: &Connection) -> Result<(Findings, Vec<WrongIndex>), StoreError> {
    let (mut found, mut indexes) = (Findings::default(), Vec::new());
    let trees = trees(conn)?;
    for line in lines(conn, &format!("PRAGMA quick_check({LINES})"))? {
        let of_tree = match line.strip_prefix("Tree ").and_then(|rest| rest.split(' ').next()?.parse::<i64>().ok()) {
            Some(root) => trees.get(&root),
            None => {
                page_of(&line).and_then(|page| owner(conn, page)).and_then(|name| trees.values().find(|(tree, _)| *tree == name))
            }
        };
        match of_tree {
            Some((index, table)) if index != table => {
                indexes.push(WrongIndex { index: index.clone(), table: table.clone(), problem: line, is_damaged: true });
            }
            Some((table, _)) => found.add(damaged(format!("table {table}: {line}"))),
            None => match wrong_index(conn, &line)? {
                Some(index) => indexes.push(index),
                // A value that breaks a rule of the schema is one of a row, and the page that holds it is sound.
                None if line.contains("constraint failed in") || line.contains(" value in ") => {
                    found.add(Finding::new("value.refused", "(rows)", line, Fix::Nothing));
                }
                None => found.add(damaged(line)),
            },
        }
    }
    Ok((found, indexes))
}

/// The page at the end of a line that names no tree: `Fragmentation of 0 bytes reported as 40 on page 17`.
fn page_of(line: &str) -> Option<i64> {
    line.rsplit_once(" page ")?.1.parse().ok()
}

/// The table or index that a page belongs to, if damage lets it be found.
fn owner(conn: &Connection, page: i64) -> Option<String> {
    conn.query_row("SELECT name FROM dbstat WHERE pageno = ?1", [page], |row| row.get(0)).ok()
}

/// Rows that their indexes lack. (An entry without its row shows by the number of entries: see [`entries`].)
pub(super) fn contents(conn: &Connection) -> Result<Vec<WrongIndex>, StoreError> {
    let mut tables =
        conn.prepare("SELECT DISTINCT tbl_name FROM sqlite_schema WHERE type = 'index' ORDER BY tbl_name = 'jobs' DESC")?;
    let tables = tables.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut found = Vec::new();
    for table in tables {
        for line in lines(conn, &format!("PRAGMA integrity_check({})", quoted(&table)))? {
            found.extend(wrong_index(conn, &line)?);
        }
    }
    Ok(found)
}

/// What a check of SQLite says, one thing in each line.
fn lines(conn: &Connection, check: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare(check)?;
    let mut rows = statement.query([])?;
    let mut lines = Vec::new();
    loop {
        match rows.next() {
            Ok(Some(row)) => lines.extend(row.get::<_, String>(0)?.lines().map(str::to_owned)),
            Ok(None) => break,
            // The damage that it has named keeps it from going further.
            Err(error) if super::is_damage(&error) && !lines.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    lines.retain(|line| line != "ok" && !line.starts_with("*** in database"));
    Ok(lines)
}

/// The index that a line of SQLite's check is about: `row 7 missing from index jobs_ready`.
fn wrong_index(conn: &Connection, line: &str) -> Result<Option<WrongIndex>, StoreError> {
    let Some((_, index)) = line.rsplit_once(" index ") else { return Ok(None) };
    let table = "SELECT tbl_name FROM sqlite_schema WHERE type = 'index' AND name = ?1";
    let table: Option<String> = conn.prepare_cached(table)?.query_row([index], |row| row.get(0)).optional()?;
    let wrong = |table| WrongIndex { index: index.to_owned(), table, problem: line.to_owned(), is_damaged: false };
    Ok(table.map(wrong))
}

/// The names of each tree of pages and of its table, by the root page that SQLite calls it by.
fn trees(conn: &Connection) -> Result<BTreeMap<i64, (String, String)>, StoreError> {
    let mut statement = conn.prepare("SELECT rootpage, name, tbl_name FROM sqlite_schema WHERE rootpage > 0")?;
    let trees = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok(trees.collect::<rusqlite::Result<_>>()?)
}

/// A name as SQL takes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Something that SQLite says about its pages.
pub(super) fn damaged(line: impl Into<String>) -> Finding {
    Finding::new(super::DAMAGED, "(pages)", line, Fix::Nothing)
}

/// The small tables: workers and what hangs on them, the next id, effects.
pub(super) fn small(conn: &Connection, oldest_kept: i64) -> Result<(Findings, Vec<StoredCount>), StoreError> {
    let mut found = Findings::default();
    for table in ["worker_holds", "worker_tenants"] {
        let sql = format!("SELECT DISTINCT worker_id FROM {table} WHERE worker_id NOT IN (SELECT id FROM workers)");
        for worker in ids(conn, &sql)? {
            let fix = Fix::Delete { table, key: "worker_id", lease_token: None };
            found.add(Finding::new("row.orphaned", table, "it belongs to no worker", fix).at(worker));
        }
    }
    workers(conn, &mut found)?;
    holds(conn, &mut found)?;
    pauses(conn, &mut found)?;
    start_rates(conn, &mut found)?;
    for table in ["jobs", "workers"] {
        next_id(conn, table, &mut found)?;
    }
    effects(conn, oldest_kept, &mut found)?;
    Ok((found, stored_counts(conn)?))
}

fn workers(conn: &Connection, found: &mut Findings) -> Result<(), StoreError> {
    let mut statement = conn.prepare("SELECT w.id, w.activities, t.tenants, w.beat_at, w.started_at, w.name, w.version, w.job_id FROM workers w LEFT JOIN worker_tenants t ON t.worker_id = w.id")?;
    let mut workers = statement.query([])?;
    while let Some(row) = workers.next()? {
        let tenants = row.get_ref(2)?.as_str().map_or(Ok(Vec::new()), serde_json::from_str::<Vec<String>>);
        let decodes = rows::json::<Vec<String>>(row, 1).is_ok()
            && tenants.is_ok()
            && rows::time(row, 3).is_ok()
            && rows::time(row, 4).is_ok()
            && [5, 6, 7].iter().all(|column| is_text_or_null(row, *column));
        if !decodes {
            let fix = Fix::Delete { table: "workers", key: "id", lease_token: None };
            found.add(Finding::new("worker.unreadable", "workers", "the worker's row does not decode", fix).at(row.get(0)?));
        }
    }
    Ok(())
}

/// What workers show of tenants.
fn holds(conn: &Connection, found: &mut Findings) -> Result<(), StoreError> {
    let mut statement = conn
        .prepare("SELECT tenant, reason, since, until, worker_id FROM worker_holds WHERE worker_id IN (SELECT id FROM workers)")?;
    let mut holds = statement.query([])?;
    while let Some(row) = holds.next()? {
        let texts = [0, 1].iter().all(|column| is_text_or_null(row, *column));
        if !texts || rows::time(row, 2).is_err() || rows::optional_time(row, 3).is_err() {
            let (worker, tenant) = (row.get(4)?, Text::read(row, 0)?);
            let message = format!("what worker {worker} shows of tenant {} does not decode", lossy(row, 0)?);
            found.add(Finding::new("hold.unreadable", "worker_holds", message, Fix::DeleteHold { worker, tenant }));
        }
    }
    Ok(())
}

/// A pause that names nothing pauses nothing; one that does stays, whatever else is wrong with it.
fn pauses(conn: &Connection, found: &mut Findings) -> Result<(), StoreError> {
    let mut statement = conn.prepare("SELECT kind, name, reason, paused_at FROM pauses")?;
    let mut pauses = statement.query([])?;
    while let Some(row) = pauses.next()? {
        let (kind, name) = (Text::read(row, 0)?, Text::read(row, 1)?);
        let what = format!("{} {}", lossy(row, 0)?, lossy(row, 1)?);
        let (problem, fix) = if !names_something(&kind, &name) {
            ("names neither an activity nor a tenant", Fix::DeleteNamed { table: "pauses", kind, name })
        } else if !is_text_or_null(row, 2) || rows::time(row, 3).is_err() {
            ("has a reason or a time that does not decode", Fix::Pause { kind, name })
        } else {
            continue;
        };
        found.add(Finding::new("pause.unreadable", "pauses", format!("the pause of {what} {problem}"), fix));
    }
    Ok(())
}

/// Without its row an activity or a tenant has all its starts.
fn start_rates(conn: &Connection, found: &mut Findings) -> Result<(), StoreError> {
    let mut statement = conn.prepare("SELECT kind, name, tokens, at FROM start_rates")?;
    let mut rates = statement.query([])?;
    while let Some(row) = rates.next()? {
        let (kind, name) = (Text::read(row, 0)?, Text::read(row, 1)?);
        let tokens = row.get::<_, f64>(2).is_ok_and(|tokens| tokens.is_finite() && tokens >= 0.0);
        if !names_something(&kind, &name) || !tokens || rows::time(row, 3).is_err() {
            let message = format!("the starts that {} {} has left do not decode", lossy(row, 0)?, lossy(row, 1)?);
            let fix = Fix::DeleteNamed { table: "start_rates", kind, name };
            found.add(Finding::new("rate.unreadable", "start_rates", message, fix));
        }
    }
    Ok(())
}

fn names_something(kind: &Text, name: &Text) -> bool {
    let kinds = [PauseKind::Activity, PauseKind::Tenant].map(PauseKind::as_str);
    kind.as_str().is_some_and(|kind| kinds.contains(&kind)) && name.as_str().is_some()
}

fn is_text_or_null(row: &Row<'_>, column: usize) -> bool {
    row.get::<_, Option<String>>(column).is_ok()
}

/// An id is never used again: leases are fenced by it. And there must be further ones.
fn next_id(conn: &Connection, table: &'static str, found: &mut Findings) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT (SELECT seq FROM sqlite_sequence WHERE name = '{table}'), (SELECT max(id) FROM {table} WHERE id <= {MOST})"
    );
    let (last, used): (Option<i64>, Option<i64>) = conn.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let used = used.unwrap_or_default();
    if last.unwrap_or_default() < used {
        let message = format!("the last id of {table} that was given is {}, and row {used} is there", last.unwrap_or_default());
        found.add(Finding::new("id.reusable", "sqlite_sequence", message, Fix::NextId { table, after: used }));
    }
    if let Some(last) = last.filter(|last| *last > MOST) {
        let message = format!("the last id of {table} that was given is {last}, which leaves none");
        found.add(Finding::new("id.exhausted", "sqlite_sequence", message, Fix::NextId { table, after: used }));
    }
    let given = last.filter(|last| *last <= MOST).unwrap_or_default().max(used);
    for (n, id) in (1..).zip(ids(conn, &format!("SELECT id FROM {table} WHERE id > {MOST} ORDER BY id"))?) {
        let fix = if table == "jobs" { Fix::Renumber(given + n) } else { Fix::Delete { table, key: "id", lease_token: None } };
        found.add(Finding::new("id.exhausted", table, "its id leaves none for those that follow", fix).at(id));
    }
    Ok(())
}

/// Effects outlive their executions; a young one whose execution is not there was left by damage, and only holds others back.
fn effects(conn: &Connection, oldest_kept: i64, found: &mut Findings) -> Result<(), StoreError> {
    let mut statement = conn.prepare(
        "SELECT e.id, e.job_id, e.run_id, e.tenant, e.at, \
                (SELECT j.tenant FROM jobs j WHERE j.job_id = e.job_id AND j.run_id = e.run_id), e.key, e.run FROM effects e",
    )?;
    let mut effects = statement.query([])?;
    while let Some(row) = effects.next()? {
        let text = |column| lossy(row, column);
        let (at, tenant): (i64, Option<String>) = (row.get(4)?, row.get(5).unwrap_or_default());
        let (code, problem) = if rows::at_ms(at).is_err() {
            ("effect.unreadable", format!("{at} is not a time"))
        } else if ![1, 2, 3, 6, 7].iter().all(|column| is_text_or_null(row, *column)) {
            ("effect.unreadable", "a text of it is not UTF-8".to_owned())
        } else {
            match tenant {
                Some(tenant) if tenant != text(3)? => {
                    ("effect.foreign", format!("it is an effect at tenant {}, and its job is of {tenant}", text(3)?))
                }
                None if at > oldest_kept => ("effect.unowned", "its execution is not there".to_owned()),
                _ => continue,
            }
        };
        let message = format!("{problem}; it stays, and keeps others from doing the same thing twice");
        let mut finding = Finding::new(code, "effects", message, Fix::Nothing).at(row.get(0)?).warning();
        (finding.job_id, finding.run_id) = (Some(text(1)?), Some(text(2)?));
        found.add(finding);
    }
    Ok(())
}

/// One row of `job_counts`.
pub(super) struct StoredCount {
    activity: String,
    tenant: String,
    state: String,
    count: i64,
}

fn stored_counts(conn: &Connection) -> Result<Vec<StoredCount>, StoreError> {
    let mut statement = conn.prepare("SELECT activity, tenant, state, count FROM job_counts")?;
    let counts = statement.query_map([], |row| {
        Ok(StoredCount { activity: lossy(row, 0)?, tenant: lossy(row, 1)?, state: lossy(row, 2)?, count: row.get(3)? })
    })?;
    Ok(counts.collect::<rusqlite::Result<_>>()?)
}

/// Counts that do not say what is there.
pub(super) fn counts(stored: Vec<StoredCount>, counted: &Counted) -> Findings {
    let mut found = Findings::default();
    let mut expected = counted.states.clone();
    let mut compare = |activity: &str, tenant: &str, state: &str, says: i64, there: i64| {
        if says != there {
            let message = format!("{activity} of tenant {tenant}, {state}: the count says {says}, and {there} are there");
            found.add(Finding::new("counts.wrong", "job_counts", message, Fix::Counts));
        }
    };
    for StoredCount { activity, tenant, state, count } in stored {
        let position = JobState::ALL.iter().position(|known| known.as_str() == state);
        let key = (activity, tenant);
        let there = position.zip(expected.get_mut(&key)).map_or(0, |(position, of)| std::mem::take(&mut of[position]));
        compare(&key.0, &key.1, &state, count, there);
    }
    for ((activity, tenant), left) in &expected {
        JobState::ALL.iter().zip(left).for_each(|(state, there)| compare(activity, tenant, state.as_str(), 0, *there));
    }
    found
}

/// How many entries an index has, by the name of the index. A job that is missing in one is never found by it.
pub(super) fn entries(conn: &Connection) -> Result<Vec<(&'static str, i64)>, StoreError> {
    let count = |(index, condition): &(&'static str, &str)| {
        let sql = format!("SELECT count(*) FROM jobs INDEXED BY {index} WHERE {condition}");
        Ok((*index, conn.query_row(&sql, [], |row| row.get(0))?))
    };
    INDEXES.iter().map(count).collect()
}

/// Indexes that do not have as many entries as there are rows for them.
pub(super) fn indexes(entries: &[(&'static str, i64)], counted: &Counted) -> Vec<WrongIndex> {
    let mut found = Vec::new();
    for (index, has) in entries {
        let wants = match *index {
            "jobs_ready" => counted.of(&[JobState::Available]),
            "jobs_due" => counted.of(&[JobState::Scheduled, JobState::Retryable]),
            "jobs_expiring" => counted.expiring,
            "jobs_running" => counted.running,
            "jobs_closed" => counted.ended,
            "jobs_dead" => counted.of(&[JobState::Discarded, JobState::Cancelled]),
            "jobs_by_parent" => counted.steps,
            "jobs_delayed_or_dead" => {
                counted.of(&[JobState::Scheduled, JobState::Retryable, JobState::Discarded, JobState::Cancelled])
            }
            _ => counted.executions,
        };
        if *has != wants {
            let problem = format!("it has {has} entries, and {wants} rows belong in it");
            found.push(WrongIndex { index: (*index).to_owned(), table: "jobs".to_owned(), problem, is_damaged: false });
        }
    }
    found
}

fn ids(conn: &Connection, sql: &str) -> Result<Vec<i64>, StoreError> {
    let mut statement = conn.prepare(sql)?;
    Ok(statement.query_map(params![], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}
