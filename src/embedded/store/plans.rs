//! Every statement of this folder about a table that grows with the queue seeks in an index. A scan, or a sort of what was scanned, is on
//! the list below with the reason why it is bounded.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::Connection;

use super::rows::JOB_COLUMNS;
use super::schema;
use crate::embedded::Durability;
use crate::job::SEQUENCE;

/// Files whose statements are not checked: tests and benchmarks, and `fsck`, which reads everything.
const LEFT_OUT: [&str; 11] = [
    "backlog.rs",
    "bare.rs",
    "dying.rs",
    "model.rs",
    "plans.rs",
    "power_cut.rs",
    "tests.rs",
    "tables.rs",
    "repair.rs",
    "mod.rs",
    "terms.rs",
];
/// The names of the tables that grow with the queue, and of their aliases.
const GROW: [&str; 13] =
    ["jobs", "j", "s", "job_inputs", "i", "job_checkpoints", "c", "job_verdicts", "v", "job_failures", "f", "effects", "e"];
/// Statements that may scan or sort, by their first or last words, and why that is bounded.
const BOUNDED: [(&str, &str); 18] = [
    ("SELECT id, activity, tenant FROM jobs INDEXED BY jobs_running WHERE state = 'running'", "as many as are counted before"),
    ("SELECT activity, min(started_at) FROM jobs INDEXED BY jobs_running", "as many as there are slots"),
    ("SELECT EXISTS(SELECT 1 FROM jobs WHERE state = 'available')", "one row"),
    ("SELECT 1 FROM jobs WHERE state = 'available' LIMIT 1", "one row"),
    ("SELECT min(coalesce(due, expires), coalesce(expires, due))", "one row of each index"),
    ("FROM jobs INDEXED BY jobs_ready WHERE state = 'available'", "completed by an order and a limit of one"),
    ("ORDER BY activity, activity_version, slot_class, tenant, priority, run_at LIMIT 1", "one row, in the order of the index"),
    ("v.code FROM jobs j", "completed by a condition"),
    ("SELECT id FROM jobs WHERE id < ?1 ORDER BY id DESC LIMIT ?2", "every row of the range is wanted"),
    ("SELECT id, activity, tenant, state FROM jobs WHERE id < ?1 ORDER BY id DESC LIMIT ?2", "every row of the range is wanted"),
    ("SELECT id FROM job_verdicts WHERE id < ?1 ORDER BY id DESC LIMIT 1", "one row"),
    ("SELECT id FROM job_inputs WHERE id >= ?1 AND id <= ?2 ORDER BY id", "fsck reads everything"),
    ("WITH RECURSIVE ends(low, high)", "a sample"),
    ("SELECT id FROM jobs ORDER BY id DESC LIMIT ?1", "a sample"),
    ("SELECT id FROM jobs ORDER BY id LIMIT ?1", "a sample"),
    ("SELECT id FROM jobs INDEXED BY jobs_ready WHERE state = 'available' LIMIT ?1", "a sample"),
    ("SELECT id FROM jobs INDEXED BY jobs_due WHERE state IN ('scheduled', 'retryable') ORDER BY run_at LIMIT ?1", "a sample"),
    ("SELECT id FROM jobs INDEXED BY jobs_running WHERE state = 'running' LIMIT ?1", "a sample"),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap().to_owned();
        if path.is_dir() && name != "model" {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !LEFT_OUT.contains(&name.as_str()) {
            files.push(path);
        }
    }
    files
}

/// The string literals of a source file before its tests, with their lines joined.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let (mut literals, mut rest) = (Vec::new(), code.as_str());
    while let Some(start) = rest.find('"') {
        rest = &rest[start + 1..];
        let mut end = 0;
        while !rest[end..].starts_with('"') {
            end += if rest[end..].starts_with('\\') { 2 } else { rest[end..].chars().next().map_or(1, char::len_utf8) };
        }
        let lines = rest[..end].split("\\\n").enumerate();
        literals.push(lines.map(|(n, line)| if n == 0 { line } else { line.trim_start() }).collect());
        rest = &rest[end + 1..];
    }
    literals
}

/// The statements of a literal: what a format string is completed with is inserted.
fn statement(literal: &str) -> Option<String> {
    let starts = ["SELECT ", "UPDATE ", "DELETE FROM ", "INSERT INTO ", "INSERT OR REPLACE INTO ", "WITH "];
    if !starts.iter().any(|start| literal.starts_with(start)) {
        return None;
    }
    let filled = literal.replace("{JOB_COLUMNS}", JOB_COLUMNS).replace("{SEQUENCE}", SEQUENCE).replace("{COLUMNS}", "id");
    let filled = filled.replace("{columns}", "id").replace("{table}", "job_inputs").replace("{order}", "id");
    Some(filled.replace("{kind}", "tenant").replace("{column}", "id").replace("{conditions}", "count > 0"))
}

fn plan(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let values = vec![1; statement.parameter_count()];
    statement.query_map(rusqlite::params_from_iter(values), |row| row.get(3))?.collect()
}

/// Whether a plan reads a whole table that grows, or sorts rows of it. Sorting rows that are in order but for ties is none.
fn reads_everything(steps: &[String]) -> bool {
    let table = |step: &String, verb: &str| Some(step.strip_prefix(verb)?.split(' ').next()?.to_owned());
    let grows = |table: Option<String>| table.is_some_and(|table| GROW.contains(&table.as_str()));
    let scans = steps.iter().any(|step| grows(table(step, "SCAN ")));
    // A range of ids, through which another condition may search for long.
    let is_range = |step: &String| ["(rowid<?", "(rowid>?"].iter().any(|range| step.contains(&format!("PRIMARY KEY {range}")));
    let ranges = steps.iter().any(|step| is_range(step) && grows(table(step, "SEARCH ")));
    let sorts = steps.iter().any(|step| step.starts_with("USE TEMP B-TREE") && !step.contains("FOR LAST"));
    scans || ranges || sorts && steps.iter().any(|step| grows(table(step, "SEARCH ")))
}

#[test]
fn every_statement_about_a_table_that_grows_seeks_in_an_index_or_is_bounded_for_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let conn = schema::open_writer(&dir.path().join("t.db"), Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/embedded/store");
    let (mut checked, mut wrong) = (0, Vec::new());
    for file in files(&folder) {
        let name = file.strip_prefix(&folder).unwrap().display().to_string();
        for sql in literals(&fs::read_to_string(&file).unwrap()).iter().filter_map(|literal| statement(literal)) {
            checked += 1;
            if BOUNDED.iter().any(|(part, _)| sql.starts_with(part) || sql.ends_with(part)) {
                continue;
            }
            match plan(&conn, &sql) {
                Ok(steps) if reads_everything(&steps) => {
                    wrong.push(format!("{name}: {sql}\n    {}", steps.join("; ")));
                }
                Ok(_) => {}
                Err(error) => wrong.push(format!("{name}: {sql}\n    is not checked: {error}")),
            }
        }
    }
    assert!(checked > 100, "{checked} statements were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_scan_and_a_sort_are_seen_in_a_plan() {
    let dir = tempfile::tempdir().unwrap();
    let conn = schema::open_writer(&dir.path().join("t.db"), Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
    let reads = |sql: &str| reads_everything(&plan(&conn, sql).unwrap());
    assert!(reads("SELECT id FROM jobs WHERE tenant = ?1"));
    assert!(reads("SELECT j.id FROM jobs j WHERE j.tenant = ?1 ORDER BY j.id DESC LIMIT 1"));
    assert!(reads("SELECT id FROM jobs WHERE job_id = ?1 ORDER BY run_at"));
    assert!(reads("SELECT j.id FROM jobs j WHERE j.id < ?1 AND j.tenant = ?2 ORDER BY j.id DESC LIMIT 50"));
    assert!(!reads("SELECT id FROM jobs WHERE job_id = ?1 ORDER BY id DESC LIMIT 1"));
}
