//! What must hold of the main queue when the storm is over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{WORKFLOWS, say};
use crate::cli::harness::Place;
use crate::support::tenant::submissions;

pub(super) fn check(place: &Place, database: &Path, acknowledged: &BTreeSet<(String, String)>) {
    let file = rusqlite::Connection::open(database).unwrap();
    let number = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(file.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    for (job_id, run_id) in acknowledged {
        let sql = "SELECT count(*) FROM jobs j JOIN job_verdicts v ON v.id = j.id WHERE j.job_id = ?1 AND j.run_id = ?2";
        let verdicts: i64 = file.query_row(sql, [job_id, run_id], |row| row.get(0)).unwrap();
        assert_eq!(verdicts, 1, "acknowledged job {job_id}, run {run_id}");
    }
    for (what, sql) in [
        (
            "open or without exactly one verdict",
            "SELECT count(*) FROM jobs j WHERE finished_at IS NULL OR NOT EXISTS(SELECT 1 FROM job_verdicts v WHERE v.id = j.id)",
        ),
        ("stored twice", "SELECT count(*) - count(DISTINCT run_id) FROM jobs"),
        (
            "with the verdict of an attempt that was not the last",
            "SELECT count(*) FROM jobs j JOIN job_verdicts v ON v.id = j.id WHERE json_extract(v.verdict, '$.attempts') <> j.attempt",
        ),
        (
            "with a verdict of another execution",
            "SELECT count(*) FROM jobs j JOIN job_verdicts v ON v.id = j.id WHERE json_extract(v.verdict, '$.run_id') <> j.run_id",
        ),
    ] {
        assert_eq!(number(sql), 0, "executions {what}");
    }
    // A step of the clock may pass the deadline of a job, or come so near that no other attempt fits.
    let unresolved = "SELECT group_concat(v.verdict, char(10)) FROM jobs j JOIN job_verdicts v ON v.id = j.id \
                        WHERE j.state <> 'completed' AND (j.close_by IS NULL OR j.finished_at + 60000 < j.close_by)";
    let unresolved: Option<String> = file.query_row(unresolved, [], |row| row.get(0)).unwrap();
    assert_eq!(unresolved, None, "executions that a fault left unresolved before their deadline");
    let counted = "SELECT activity, tenant, state, count FROM job_counts WHERE count <> 0";
    let there = "SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3";
    assert_eq!(number(&format!("SELECT EXISTS({counted} EXCEPT {there}) + EXISTS({there} EXCEPT {counted})")), 0, "miscounted");
    let mut effects: BTreeMap<&str, i64> = BTreeMap::new();
    let runs = submissions(place.sandbox());
    for run in &runs {
        let workflow = WORKFLOWS.into_iter().find(|workflow| run.rsplit_once('-').is_some_and(|(of, _)| of == *workflow)).unwrap();
        *effects.entry(workflow).or_default() += 1;
    }
    for workflow in WORKFLOWS {
        let sql = "SELECT count(*) FROM jobs WHERE job_id = ?1";
        let executions: i64 = file.query_row(sql, [workflow], |row| row.get(0)).unwrap();
        let submitted = effects.get(workflow).copied().unwrap_or(0);
        assert!(submitted <= executions, "{workflow}: {submitted} runs were submitted for {executions} executions");
    }
    let started =
        "SELECT json_extract(verdict, '$.facts.run') AS run FROM job_verdicts WHERE json_extract(verdict, '$.facts.started') = 1";
    assert_eq!(number(&format!("SELECT count(*) - count(DISTINCT run) FROM ({started})")), 0, "runs that two executions started");
    let late = number("SELECT count(*) FROM jobs WHERE state <> 'completed'");
    say(&format!(
        "storm: {} executions, {late} of them past their deadline, {} runs",
        number("SELECT count(*) FROM jobs"),
        runs.len()
    ));
    drop(file);
    let checked = place.run("fsck");
    let findings = checked.json()["findings"].as_array().unwrap().clone();
    // The one trace that a step of the clock may leave, which is a warning.
    let is_of_clock = |finding: &serde_json::Value| finding["code"] == "clock.order" && finding["severity"] == "warning";
    assert!(checked.code == 0 && findings.iter().all(is_of_clock), "{checked:?}");
}
