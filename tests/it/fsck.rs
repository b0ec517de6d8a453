//! `iolaus fsck`: each kind of damage is found, and nothing else; a repair copies first, sets aside what is broken, and touches no
//! other job. And one row that cannot be read stops no other job.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use iolaus::client::{Cancelled, ListFilter, PauseKind, RetryFilter};
use iolaus::job::{Throttle, Throttles};
use iolaus::sandbox::SandboxOptions;
use iolaus_activities::Status;
use rusqlite::Connection;
use serde_json::Value;

use crate::cli::harness::{CONNECTION, Place, Ran, USER};
use crate::support::host::{TestHost, target};
use crate::support::probe::Act;

/// A queue with a job in every state, a sequence in its second step, and a worker that died long ago.
const EVERY_STATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/queue-v5.db");

/// What is done to a file, what is found, and of which job.
struct Damage {
    sql: &'static str,
    finds: &'static [&'static str],
    job: &'static str,
}

const fn damage(sql: &'static str, finds: &'static [&'static str], job: &'static str) -> Damage {
    Damage { sql, finds, job }
}

const DAMAGES: &[Damage] = &[
    damage("DELETE FROM job_verdicts WHERE id = (SELECT id FROM jobs WHERE job_id = 'passed')", &["verdict.missing"], "passed"),
    damage(
        "UPDATE job_verdicts SET verdict = '{}' WHERE id = (SELECT id FROM jobs WHERE job_id = 'failed')",
        &["verdict.unreadable"],
        "failed",
    ),
    damage(
        "UPDATE job_verdicts SET status = 'passed' WHERE id = (SELECT id FROM jobs WHERE job_id = 'failed')",
        &["verdict.columns"],
        "failed",
    ),
    damage(
        "UPDATE job_verdicts SET (status, code, verdict) = (SELECT status, code, verdict FROM job_verdicts v JOIN jobs j ON j.id = v.id \
           WHERE j.job_id = 'failed') WHERE id = (SELECT id FROM jobs WHERE job_id = 'passed')",
        &["verdict.foreign"],
        "passed",
    ),
    damage(
        "UPDATE jobs SET state = 'available', finished_at = NULL WHERE job_id = 'passed'",
        &["verdict.unexpected", "counts.wrong"],
        "passed",
    ),
    damage("UPDATE jobs SET state = 'cancelled' WHERE job_id = 'passed'", &["verdict.contradiction", "counts.wrong"], "passed"),
    damage("UPDATE jobs SET finished_at = finished_at + 1 WHERE job_id = 'dead'", &["verdict.contradiction"], "dead"),
    damage("UPDATE jobs SET finished_at = 1 WHERE job_id = 'later'", &["clock.order", "state.inconsistent"], "later"),
    damage("UPDATE jobs SET lease_token = 0 WHERE job_id = 'retried'", &["failure.unreadable", "lease.token"], "retried"),
    damage("UPDATE jobs SET worker_id = 7 WHERE job_id = 'held'", &["lease.leftover"], "held"),
    damage("UPDATE jobs SET worker_id = NULL WHERE job_id = 'running'", &["lease.no_worker"], "running"),
    damage("UPDATE jobs SET worker_id = 999 WHERE job_id = 'running'", &["lease.no_worker"], "running"),
    damage("UPDATE jobs SET expires_at = 1 WHERE job_id = 'dead'", &["timer.leftover"], "dead"),
    damage("UPDATE jobs SET run_id = 'mine' WHERE job_id = 'later'", &["job.unreadable"], "later"),
    damage("UPDATE jobs SET run_id = 'mine' WHERE job_id = 'passed'", &["job.unreadable"], "passed"),
    damage("UPDATE jobs SET run_at = 9000000000000000 WHERE job_id = 'later'", &["job.unreadable"], "later"),
    damage("UPDATE jobs SET tenant = CAST(x'ff' AS TEXT) WHERE job_id = 'later'", &["counts.wrong", "job.unreadable"], "later"),
    damage("DELETE FROM job_inputs WHERE id = (SELECT id FROM jobs WHERE job_id = 'held')", &["input.missing"], "held"),
    damage("DELETE FROM job_inputs WHERE id = (SELECT id FROM jobs WHERE job_id = 'passed')", &["input.missing"], "passed"),
    damage(
        "UPDATE job_inputs SET input = '{' WHERE id = (SELECT id FROM jobs WHERE job_id = 'later')",
        &["input.undecodable"],
        "later",
    ),
    damage(
        "UPDATE job_inputs SET options = '{}' WHERE id = (SELECT id FROM jobs WHERE job_id = 'dead')",
        &["input.undecodable"],
        "dead",
    ),
    damage(
        "UPDATE job_inputs SET labels = '[' WHERE id = (SELECT id FROM jobs WHERE job_id = 'retried')",
        &["input.undecodable"],
        "retried",
    ),
    damage(
        "UPDATE job_checkpoints SET checkpoint = '{' WHERE id = (SELECT id FROM jobs WHERE job_id = 'retried')",
        &["checkpoint.undecodable"],
        "retried",
    ),
    damage(
        "UPDATE job_checkpoints SET progress = '{' WHERE id = (SELECT id FROM jobs WHERE job_id = 'retried')",
        &["progress.undecodable"],
        "retried",
    ),
    damage("UPDATE job_failures SET failure = '{}'", &["failure.unreadable"], "*"),
    damage("UPDATE job_counts SET count = count + 3 WHERE state = 'completed'", &["counts.wrong"], ""),
    damage("DELETE FROM job_counts", &["counts.wrong"], ""),
    damage("INSERT INTO job_counts VALUES ('nothing', 'none', 'available', 4)", &["counts.wrong"], ""),
    damage(
        "INSERT INTO job_inputs SELECT 5000, input, options, labels, traceparent, tracestate, NULL FROM job_inputs LIMIT 1",
        &["row.orphaned"],
        "",
    ),
    damage("INSERT INTO job_verdicts SELECT 5001, status, code, verdict FROM job_verdicts LIMIT 1", &["row.orphaned"], ""),
    damage("INSERT INTO job_checkpoints(id, checkpoint) VALUES (-3, '1')", &["row.orphaned"], ""),
    damage(
        "INSERT INTO job_failures SELECT 5002, lease_token, attempt, at, failure FROM job_failures LIMIT 1",
        &["row.orphaned"],
        "",
    ),
    damage(
        "INSERT INTO worker_tenants VALUES (77, '[]'); INSERT INTO worker_holds VALUES (77, 't', 'r', 1, NULL)",
        &["row.orphaned"],
        "",
    ),
    damage("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'jobs'", &["id.reusable"], ""),
    damage("UPDATE jobs SET parent_id = 4000 WHERE job_id = 'sequence/2'", &["sequence.gone", "sequence.no_step"], "sequence*"),
    damage("UPDATE workers SET activities = 'x'", &["worker.unreadable"], "*"),
    damage("UPDATE jobs SET run_id = 'mine' WHERE job_id = 'sequence'", &["job.unreadable"], "sequence"),
    damage("UPDATE jobs SET lease_token = 9223372036854775807 WHERE job_id = 'retried'", &["lease.token"], "retried"),
    damage("UPDATE jobs SET lease_token = 9223372036854775807 WHERE job_id = 'dead'", &["lease.token"], "dead"),
    damage("UPDATE jobs SET attempt = 4294967295 WHERE job_id = 'held'", &["job.unreadable"], "held"),
    damage("UPDATE jobs SET drains = 4294967295 WHERE job_id = 'later'", &["job.unreadable"], "later"),
    damage("UPDATE jobs SET expires_at = -9223372036854775808 WHERE job_id = 'later'", &["job.unreadable"], "later"),
    damage("INSERT INTO pauses VALUES ('tenant', CAST(x'ff' AS TEXT), NULL, 0)", &["pause.unreadable"], ""),
    damage("INSERT INTO pauses VALUES ('queue', 'all', NULL, 0)", &["pause.unreadable"], ""),
    damage("INSERT INTO pauses VALUES ('tenant', 'another', CAST(x'ff' AS TEXT), 9223372036854775807)", &["pause.unreadable"], ""),
    damage("INSERT INTO start_rates VALUES ('activity', CAST(x'ff' AS TEXT), 1.0, 0)", &["rate.unreadable"], ""),
    damage("INSERT INTO start_rates VALUES ('tenant', 'default', -9e999, 0)", &["rate.unreadable"], ""),
    damage("INSERT INTO start_rates VALUES ('tenant', 'default', 0.5, 9223372036854775807)", &["rate.unreadable"], ""),
    damage("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'jobs'", &["id.exhausted"], ""),
    damage("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'workers'", &["id.exhausted"], ""),
    damage(
        "UPDATE job_inputs SET id = 9223372036854775807 WHERE id = (SELECT id FROM jobs WHERE job_id = 'later'); \
         UPDATE jobs SET id = 9223372036854775807 WHERE job_id = 'later'",
        &["id.exhausted"],
        "later",
    ),
    damage("UPDATE workers SET name = CAST(x'ff' AS TEXT)", &["worker.unreadable"], "*"),
    damage("INSERT INTO worker_holds SELECT id, 'default', CAST(x'ff' AS TEXT), 1, NULL FROM workers", &["hold.unreadable"], ""),
    damage("DROP INDEX jobs_ready", &["schema.missing"], ""),
    damage("DROP INDEX effects_by_run; DROP INDEX jobs_by_job_id", &["schema.missing"], ""),
    damage("DROP INDEX jobs_due; CREATE INDEX jobs_due ON jobs(run_at)", &["schema.changed"], ""),
    damage("CREATE TRIGGER planted AFTER UPDATE ON jobs BEGIN DELETE FROM job_verdicts; END", &["schema.foreign"], ""),
    damage("UPDATE jobs SET state = 'gone' WHERE job_id = 'held'", &["counts.wrong", "job.unreadable", "value.refused"], "held"),
];

fn place(file: &str) -> Place {
    let place = Place::new();
    fs::create_dir_all(place.database().parent().unwrap()).unwrap();
    fs::copy(file, place.database()).unwrap();
    // The file may be of an earlier schema than this build's.
    assert_eq!(place.run("status").code, 0);
    place
}

fn tamper(file: &Path, sql: &str) {
    let conn = Connection::open(file).unwrap();
    conn.execute_batch(&format!("PRAGMA ignore_check_constraints = 1; BEGIN; {sql}; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)"))
        .unwrap();
}

fn codes(ran: &Ran) -> Vec<String> {
    ran.json()["by_code"].as_object().unwrap_or_else(|| panic!("{ran:?}")).keys().cloned().collect()
}

/// Everything that the file holds of each job, as text.
fn jobs(file: &Path) -> BTreeMap<String, String> {
    let conn = Connection::open(file).unwrap();
    let mut of = BTreeMap::<String, String>::new();
    for table in ["jobs", "job_inputs", "job_checkpoints", "job_verdicts", "job_failures"] {
        let sql = format!("SELECT (SELECT j.job_id FROM jobs j WHERE j.id = t.id), t.* FROM {table} t ORDER BY t.id");
        let mut statement = conn.prepare(&sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let Some(job_id) = row.get::<_, Option<String>>(0).unwrap() else { continue };
            let text = of.entry(job_id).or_default();
            for column in 1..columns {
                write!(text, "{:?} ", row.get_ref(column).unwrap()).unwrap();
            }
        }
    }
    of
}

fn is_about(job: &str, job_id: &str) -> bool {
    job.strip_suffix('*').map_or(job == job_id, |start| job_id.starts_with(start))
}

#[test]
fn each_kind_of_damage_is_found_and_set_aside_and_no_other_job_is_touched() {
    // A few at once: each starts a dozen processes.
    for damages in DAMAGES.chunks(4) {
        std::thread::scope(|scope| damages.iter().for_each(|damage| drop(scope.spawn(|| is_found_and_repaired(damage)))));
    }
}

fn is_found_and_repaired(Damage { sql, finds, job }: &Damage) {
    let place = place(EVERY_STATE);
    let clean = place.run("fsck");
    assert_eq!((clean.code, codes(&clean)), (0, Vec::new()), "before any damage: {clean:?}");
    tamper(&place.database(), sql);
    let (before, damaged) = (jobs(&place.database()), fs::read(place.database()).unwrap());

    let found = place.run("fsck");
    assert!(fs::read(place.database()).unwrap() == damaged, "{sql}: a check changes nothing");
    assert_eq!(found.code, 1, "{sql}: {found:?}");
    let mut expected: Vec<_> = finds.iter().map(ToString::to_string).collect();
    expected.sort();
    assert_eq!(codes(&found), expected, "{sql}: {found:?}");
    for finding in found.json()["findings"].as_array().unwrap() {
        let id = finding["job_id"].as_str();
        assert!(id.is_none_or(|id| is_about(job, id)), "{sql}: {finding}");
    }

    let repaired = place.run("fsck --repair");
    assert_eq!(repaired.code, 0, "{sql}: {repaired:?}");
    let copy = PathBuf::from(repaired.json()["repair"]["copy"].as_str().unwrap());
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&copy).unwrap().permissions()) & 0o777, 0o600);
    assert_eq!(jobs(&copy), before, "{sql}: the copy is the file as it was");
    let again = place.run("fsck");
    assert_eq!((again.code, codes(&again)), (0, Vec::new()), "{sql}: {again:?}");
    let after = jobs(&place.database());
    for (job_id, rows) in before.iter().filter(|(job_id, _)| !is_about(job, job_id)) {
        assert_eq!(after.get(job_id), Some(rows), "{sql}: {job_id} is untouched");
    }
    assert_eq!(place.run("jobs list").code, 0, "{sql}");
    for job_id in after.keys().filter(|job_id| is_about(job, job_id)) {
        let shown = place.iolaus(["jobs", "show", job_id]);
        assert_eq!(shown.code, 0, "{sql}: {job_id} can be shown: {shown:?}");
    }
}

/// Changes rows as if an index had another definition meanwhile, so that it does not follow them.
fn behind_an_index(place: &Place, index: &str, (from, to): (&str, &str), change: &str) {
    let conn = Connection::open(place.database()).unwrap();
    let define = |from: &str, to: &str| {
        let (from, to) = (from.replace('\'', "''"), to.replace('\'', "''"));
        let sql = format!(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = '{index}'; \
             PRAGMA writable_schema = RESET"
        );
        conn.execute_batch(&sql).unwrap();
    };
    define(from, to);
    let counts =
        "DELETE FROM job_counts; INSERT INTO job_counts SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3";
    conn.execute_batch(&format!("{change}; {counts}")).unwrap();
    define(to, from);
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

#[test]
fn an_index_that_does_not_hold_what_its_table_does_is_built_again() {
    let ready = ("state = 'available'", "state = 'nothing'");
    for (index, definition, change) in [
        // An entry less than rows, and one more.
        ("jobs_ready", ready, "UPDATE jobs SET state = 'available' WHERE job_id = 'later'"),
        ("jobs_ready", ready, "UPDATE jobs SET state = 'scheduled' WHERE state = 'available'"),
        // As many as rows, of which one is what the row was before.
        ("jobs_by_job_id", ("(job_id, id)", "(job_id, id) WHERE 0"), "UPDATE jobs SET job_id = 'renamed' WHERE job_id = 'later'"),
        ("jobs_due", ("'retryable'", "'nothing'"), "UPDATE jobs SET run_at = run_at + 1 WHERE job_id = 'retried'"),
        ("effects_old", ("(at)", "(at) WHERE 0"), "UPDATE effects SET at = at + 1"),
    ] {
        let place = place(EVERY_STATE);
        if index.starts_with("effects") {
            tamper(
                &place.database(),
                "INSERT INTO effects(tenant, key, job_id, run_id, run, at) \
                   SELECT tenant, 'key', job_id, run_id, 'run', finished_at FROM jobs WHERE job_id = 'passed'",
            );
        }
        behind_an_index(&place, index, definition, change);
        let found = place.run("fsck");
        assert_eq!((found.code, codes(&found)), (1, vec!["index.wrong".to_owned()]), "{change}: {found:?}");
        assert!(found.stdout.contains(&format!("the index {index}: ")), "{change}: {found:?}");
        assert_eq!(place.run("fsck --repair").code, 0, "{change}");
        let again = place.run("fsck");
        assert_eq!((again.code, codes(&again)), (0, Vec::new()), "{change}: {again:?}");
    }
}

const PAGE: usize = 4096;

/// Changes the bytes of the page that a table or an index begins with.
fn in_root_page(place: &Place, name: &str, change: impl FnOnce(&mut [u8])) {
    let conn = Connection::open(place.database()).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let root: i64 = conn.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0)).unwrap();
    drop(conn);
    let root = usize::try_from(root).unwrap();
    let mut bytes = fs::read(place.database()).unwrap();
    change(&mut bytes[(root - 1) * PAGE..root * PAGE]);
    fs::write(place.database(), bytes).unwrap();
}

#[test]
fn a_damaged_page_of_an_index_is_built_again_after_a_copy() {
    let place = place(EVERY_STATE);
    // The number of bytes that the page says are lost between its entries.
    in_root_page(&place, "jobs_by_job_id", |page| page[7] = 40);
    let before = jobs(&place.database());
    let found = place.run("fsck");
    assert_eq!((found.code, codes(&found)), (1, vec!["index.damaged".to_owned()]), "{found:?}");
    let repaired = place.run("fsck --repair");
    assert_eq!(repaired.code, 0, "{repaired:?}");
    assert!(Path::new(repaired.json()["repair"]["copy"].as_str().unwrap()).exists());
    let again = place.run("fsck");
    assert_eq!((again.code, codes(&again)), (0, Vec::new()), "{again:?}");
    assert_eq!(jobs(&place.database()), before);
}

#[test]
fn damaged_pages_that_no_repair_fixes_are_reported_with_the_commands_that_do() {
    for (name, code) in [("job_verdicts", "file.damaged"), ("jobs_by_job_id", "index.damaged")] {
        let place = place(EVERY_STATE);
        in_root_page(&place, name, |page| page.fill(0));
        let path = place.database();
        let path = path.to_str().unwrap();
        for command in ["fsck --output text", "fsck --repair --output text"] {
            let ran = place.run(command);
            if code == "index.damaged" && !command.contains("--repair") {
                assert!(ran.code == 1 && ran.stdout.contains(code), "{ran:?}");
                continue;
            }
            assert_eq!(ran.code, 6, "{name}: {ran:?}");
            assert!(ran.stdout.contains(code) && ran.stdout.contains(name), "{ran:?}");
            assert!(!ran.stdout.contains("does what the last column says"), "{ran:?}");
            let commands = [
                format!("cp -p {path} {path}-damaged"),
                format!("cp -p BACKUP {path}"),
                format!("sqlite3 {path} .recover | sqlite3 {path}-recovered"),
                format!("IOLAUS_DATABASE__PATH={path}-recovered iolaus fsck --repair"),
            ];
            assert!(commands.iter().all(|command| ran.stderr.contains(command)), "{ran:?}");
        }
    }
}

#[test]
fn what_fsck_and_doctor_show_of_a_damaged_row_is_bounded() {
    let place = place(EVERY_STATE);
    tamper(&place.database(), "UPDATE jobs SET job_id = printf('%.*c', 3000000, 'x') WHERE job_id = 'later'");
    for command in ["fsck", "doctor"] {
        let ran = place.run(command);
        assert!(ran.stdout.contains("xxxx") && ran.stdout.len() < 64 * 1024, "{command}: {} bytes", ran.stdout.len());
        assert!(ran.stderr.len() < 64 * 1024, "{command}: {} bytes", ran.stderr.len());
    }
}

#[test]
fn a_table_that_is_missing_is_damage_and_the_hint_puts_a_backup_in_its_place() {
    let place = place(EVERY_STATE);
    tamper(&place.database(), "DROP TABLE job_verdicts");
    for command in ["fsck", "fsck --repair"] {
        let found = place.run(command);
        assert_eq!((found.code, codes(&found)), (6, vec!["file.damaged".to_owned()]), "{found:?}");
        assert!(found.stdout.contains("the table job_verdicts is missing"), "{found:?}");
        assert!(found.stderr.contains("cp -p BACKUP"), "{found:?}");
    }
}

#[test]
fn the_last_line_recommends_a_repair_only_where_it_repairs_something() {
    const FOREIGN: &str = "UPDATE jobs SET parent_id = (SELECT id FROM jobs WHERE job_id = 'dead') WHERE job_id = 'passed'";
    const COUNTS: &str = "UPDATE job_counts SET count = count + 3 WHERE state = 'completed'";
    const REPAIRS: &str = "iolaus fsck --repair does what the last column says";
    for (sql, says, repairs) in [
        (FOREIGN.to_owned(), "--repair does nothing about it", false),
        (COUNTS.to_owned(), "after a copy", true),
        (format!("{FOREIGN}; {COUNTS}"), "leaves the rest as it is", true),
    ] {
        let place = place(EVERY_STATE);
        tamper(&place.database(), &sql);
        let ran = place.run("fsck --output text");
        let last = ran.stdout.lines().last().unwrap();
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(last.contains(says) && last.contains(REPAIRS) == repairs, "{ran:?}");
    }
}

#[test]
fn a_verdict_that_is_nested_too_deep_to_be_read_is_found() {
    let place = place(EVERY_STATE);
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    tamper(
        &place.database(),
        &format!("UPDATE job_verdicts SET verdict = '{deep}' WHERE id = (SELECT id FROM jobs WHERE job_id = 'sequence/1')"),
    );
    let found = place.run("fsck");
    assert_eq!((found.code, codes(&found)), (1, vec!["verdict.unreadable".to_owned()]), "{found:?}");
    assert_eq!(place.run("fsck --repair").code, 0);
}

#[test]
fn a_file_is_checked_beside_a_live_worker_and_repaired_only_without_one() {
    let place = Place::with_tenant(SandboxOptions::default());
    let missing = place.run("fsck");
    assert!(missing.code == 6 && missing.stderr.contains("there is no such file"), "{missing:?}");
    assert!(!place.database().exists(), "a check creates nothing");
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    assert_eq!(place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --wait")).code, 0);
    assert_eq!(place.run("fsck").code, 0);
    let refused = place.run("fsck --repair");
    assert_eq!(refused.code, 6, "{refused:?}");
    assert!(refused.stderr.contains("uses the file") && refused.stderr.contains("hint: stop every worker"), "{refused:?}");
    assert_eq!(worker.terminate().code, 0);
    let clean = place.run("fsck --repair");
    assert_eq!((clean.code, &clean.json()["repair"]), (0, &Value::Null), "nothing to repair, and no copy: {clean:?}");
    let text = place.run("fsck --output text").stdout;
    assert!(text.contains("1 executions: nothing is wrong"), "{text}");
}

#[tokio::test]
async fn one_row_that_cannot_be_read_sets_aside_one_job_and_the_others_run() {
    for damage in [
        "DELETE FROM job_inputs WHERE id = (SELECT id FROM jobs WHERE job_id = 'j7')",
        "UPDATE jobs SET run_id = 'mine' WHERE job_id = 'j7'",
        "UPDATE jobs SET enqueued_at = 9000000000000000 WHERE job_id = 'j7'",
        "UPDATE job_inputs SET traceparent = CAST(x'ff' AS TEXT) WHERE id = (SELECT id FROM jobs WHERE job_id = 'j7')",
        "UPDATE jobs SET run_id = 'mine', expires_at = 1 WHERE job_id = 'j7'",
        "DELETE FROM job_inputs WHERE id = (SELECT id FROM jobs WHERE job_id = 'j7'); UPDATE jobs SET expires_at = 1 WHERE job_id = 'j7'",
    ] {
        let host = TestHost::new();
        for n in 0..20 {
            host.enqueue_acts(&format!("j{n}"), [Act::Pass]).await;
        }
        host.tamper(damage);
        let health = host.client.check().await.unwrap();
        assert_eq!((health.sampled, health.broken.len()), (20, 1), "{damage}: {health:?}");
        assert_eq!(health.broken[0].job_id, "j7");
        let worker = host.worker().await;
        for n in (0..20).filter(|n| *n != 7) {
            assert_eq!(host.verdict(&format!("j{n}")).await.status, Status::Passed, "{damage}");
        }
        let verdict = host.verdict("j7").await;
        let failure = verdict.failure.unwrap();
        assert_eq!((verdict.status, failure.code.as_str()), (Status::Unresolved, "input.undecodable"), "{damage}");
        assert!(failure.message.contains("job j7"), "{damage}: {failure:?}");
        assert!(failure.suggested_action.unwrap().contains("iolaus fsck"), "{damage}");
        assert_eq!(host.client.check().await.unwrap().broken, [], "{damage}");
        worker.drain().await.unwrap();
    }
}

/// A value that no text column may hold.
const NOT_UTF8: &str = "CAST(x'ff41' AS TEXT)";
/// An index that keeps row 1 from being changed: neither an attempt nor an end of that job can be written.
const PLANTED: &str = "CREATE INDEX planted ON jobs(abs(iif(id = 1 AND state <> 'BEFORE', -9223372036854775808, 1)))";

/// What is done to the first job of a queue, or to a row beside the jobs, and what `fsck` finds.
fn damages_to_one_row() -> Vec<(String, &'static [&'static str])> {
    let damages: &[(&str, &[&str])] = &[
        ("UPDATE jobs SET lease_token = 9223372036854775807 WHERE id = 1", &["lease.token"]),
        ("UPDATE jobs SET attempt = 4294967295, lease_token = 4294967295 WHERE id = 1", &["job.unreadable"]),
        ("UPDATE jobs SET attempt = 9223372036854775807 WHERE id = 1", &["job.unreadable"]),
        ("UPDATE jobs SET drains = 9223372036854775807 WHERE id = 1", &["job.unreadable"]),
        ("UPDATE jobs SET activity = BAD WHERE id = 1", &["counts.wrong", "job.unreadable"]),
        ("UPDATE jobs SET activity_version = 1099511627776 WHERE id = 1", &["job.unreadable"]),
        ("UPDATE jobs SET slot_class = BAD WHERE id = 1", &["job.unreadable"]),
        ("UPDATE jobs SET tenant = BAD WHERE id = 1", &["counts.wrong", "job.unreadable"]),
        ("UPDATE jobs SET job_id = BAD WHERE id = 1", &["job.unreadable"]),
        ("UPDATE jobs SET state = 'scheduled', tenant = BAD, run_at = 0 WHERE id = 1", &["counts.wrong", "job.unreadable"]),
        ("UPDATE jobs SET state = 'scheduled', run_at = -9223372036854775808 WHERE id = 1", &["counts.wrong", "job.unreadable"]),
        ("UPDATE jobs SET run_at = 9223372036854775807 WHERE id = 1", &["job.unreadable"]),
        ("UPDATE jobs SET close_by = -9223372036854775808, expires_at = -9223372036854775808 WHERE id = 1", &["job.unreadable"]),
        ("INSERT INTO job_verdicts VALUES (1, 'passed', NULL, '{}')", &["verdict.unreadable"]),
        (
            "UPDATE jobs SET expires_at = 1 WHERE id = 1; INSERT INTO job_verdicts VALUES (1, 'passed', NULL, '{}')",
            &["verdict.unreadable"],
        ),
        (
            "INSERT INTO job_inputs SELECT id + 20, input, options, labels, traceparent, NULL, NULL FROM job_inputs",
            &["row.orphaned"],
        ),
        ("INSERT INTO pauses VALUES ('tenant', BAD, NULL, 0)", &["pause.unreadable"]),
        ("INSERT INTO pauses VALUES ('tenant', 'other', BAD, 9223372036854775807)", &["pause.unreadable"]),
        ("INSERT INTO start_rates VALUES ('tenant', BAD, 1.0, 0)", &["rate.unreadable"]),
        ("INSERT INTO start_rates VALUES ('tenant', 'default', -9e999, 9223372036854775807)", &["rate.unreadable"]),
        ("INSERT INTO job_counts VALUES ('probe', BAD, 'available', 1)", &["counts.wrong"]),
        ("INSERT INTO job_counts VALUES ('probe', 'default', 'none', 1)", &["counts.wrong"]),
        ("UPDATE job_counts SET count = 9223372036854775807", &["counts.wrong"]),
        ("INSERT INTO job_counts VALUES ('probe', 'default', 'completed', 9223372036854775807)", &["counts.wrong"]),
        (
            "INSERT INTO workers(name, version, activities, beat, beat_at, started_at, timeout_ms) \
               VALUES (BAD, BAD, '[', 9223372036854775807, 9223372036854775807, -9223372036854775808, 9223372036854775807)",
            &["worker.unreadable"],
        ),
        (
            "INSERT INTO workers(id, name, version, activities, beat_at, started_at) VALUES (7, 'w', '1', '[]', 1, 1); \
             INSERT INTO worker_tenants VALUES (7, '['); UPDATE jobs SET expires_at = 1 WHERE id = 1",
            &["worker.unreadable"],
        ),
        (
            "INSERT INTO workers(id, name, version, activities, beat_at, started_at) VALUES (7, 'w', '1', '[]', 1, 1); \
             INSERT INTO worker_holds VALUES (7, 'default', BAD, 9223372036854775807, 9223372036854775807); \
             UPDATE jobs SET expires_at = 1 WHERE id = 1",
            &["hold.unreadable"],
        ),
        ("INSERT INTO effects VALUES (1, BAD, BAD, BAD, BAD, BAD, 9223372036854775807)", &["effect.unreadable"]),
        ("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'jobs'", &["id.exhausted"]),
        ("PLANTED available", &["schema.foreign"]),
        ("PLANTED available; UPDATE jobs SET expires_at = 1 WHERE id = 1", &["schema.foreign"]),
        (
            "UPDATE jobs SET state = 'scheduled', run_at = 0 WHERE id = 1; \
             UPDATE job_counts SET count = count - 1; INSERT INTO job_counts VALUES ('probe', 'default', 'scheduled', 1); PLANTED scheduled",
            &["schema.foreign"],
        ),
    ];
    let planted = |state: &str| (format!("PLANTED {state}"), PLANTED.replace("BEFORE", state));
    let (available, scheduled) = (planted("available"), planted("scheduled"));
    let filled = |sql: &str| sql.replace("BAD", NOT_UTF8).replace(&available.0, &available.1).replace(&scheduled.0, &scheduled.1);
    damages.iter().map(|(sql, codes)| (filled(sql), *codes)).collect()
}

/// Whatever one row holds: the others run, people see the queue, new jobs are stored and run, and `fsck` finds the row.
#[tokio::test]
async fn one_damaged_row_of_any_table_stops_no_other_job_and_no_command() {
    for (sql, finds) in damages_to_one_row() {
        let mut host = TestHost::new();
        // So that what runs and what started is read as well.
        let throttle = Throttle { max_running: 100, max_starts_per_second: 5.0 };
        host.throttles = Arc::new(Throttles { tenants: [("default".to_owned(), throttle)].into(), ..Throttles::default() });
        for n in 1..=6 {
            host.enqueue_acts(&format!("j{n}"), [Act::Pass]).await;
        }
        tamper(&host.path(), &sql);
        let mut place = Place::new();
        place.set("IOLAUS_DATABASE__PATH", host.path());
        let found = place.run("fsck");
        assert_eq!(codes(&found), finds, "{sql}: {found:?}");
        let status = place.run("status");
        assert_eq!(status.code, 0, "{sql}: {status:?}");
        assert_eq!(place.run("jobs list --state available --tenant default").code, 0, "{sql}");

        let worker = host.worker().await;
        for n in 2..=6 {
            assert_eq!(host.verdict(&format!("j{n}")).await.status, Status::Passed, "{sql}: j{n}");
        }
        if !finds.contains(&"id.exhausted") {
            host.enqueue_acts("after", [Act::Pass]).await;
            assert_eq!(host.verdict("after").await.status, Status::Passed, "{sql}");
        }
        let first = if sql.contains("SET job_id") { "unreadable-1" } else { "j1" };
        if sql.contains("planted") {
            assert_eq!(host.detail(first).await.verdict, None, "{sql}: nothing can be written about it");
        } else {
            host.verdict(first).await;
        }
        host.client.status().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        worker.drain().await.unwrap();
        assert_eq!(place.run("fsck --repair").code, 0, "{sql}");
    }
}

/// No claim can look for anything; what is written beside it is kept.
#[tokio::test]
async fn an_attempt_ends_beside_claims_that_fail() {
    let host = TestHost::new();
    host.enqueue_acts("running", [Act::Gate, Act::Pass]).await;
    let worker = host.worker().await;
    host.probe.started.notified().await;
    host.client.pause(PauseKind::Activity, "probe".to_owned(), None).await.unwrap();
    host.enqueue_acts("waiting", [Act::Pass]).await;
    host.tamper("DROP INDEX jobs_ready");
    host.client.resume(PauseKind::Activity, "probe".to_owned()).await.unwrap();
    host.probe.gate.add_permits(1);
    assert_eq!(host.verdict_now("running").await.status, Status::Passed);
    assert_eq!(host.detail("waiting").await.verdict, None);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_retry_by_filter_leaves_out_a_job_that_cannot_be_read_and_retries_the_others() {
    for damage in [
        "UPDATE jobs SET run_id = 'mine' WHERE job_id = 'b'",
        "UPDATE job_inputs SET options = '{' WHERE id = (SELECT id FROM jobs WHERE job_id = 'b')",
    ] {
        let host = TestHost::new();
        for id in ["a", "b", "c"] {
            host.enqueue_acts(id, [Act::Pass]).await;
            host.client.cancel(target(id), None).await.unwrap();
        }
        host.tamper(damage);
        for filter in [RetryFilter { dry_run: true, ..RetryFilter::default() }, RetryFilter::default()] {
            let page = host.client.retry_matching(filter.clone(), None).await.unwrap();
            let ids: Vec<_> = page.retried.iter().map(|retried| retried.job_id.as_str()).collect();
            // What is only shown is not read in full.
            let shows_it = filter.dry_run && damage.contains("options");
            assert_eq!(ids, if shows_it { vec!["a", "b", "c"] } else { vec!["a", "c"] }, "{damage}");
        }
        let worker = host.worker().await;
        for id in ["a", "c"] {
            assert_eq!(host.verdict(id).await.status, Status::Passed, "{damage}");
        }
        worker.drain().await.unwrap();
    }
}

/// A worker dies while it has two jobs, and the row of one of them cannot be read.
#[tokio::test]
async fn a_rescue_sets_aside_a_job_that_cannot_be_read_and_rescues_the_others() {
    for damage in [
        "UPDATE jobs SET run_id = 'mine' WHERE job_id = 'bad'",
        "UPDATE jobs SET enqueued_at = 9000000000000000 WHERE job_id = 'bad'",
        "DELETE FROM job_inputs WHERE id = (SELECT id FROM jobs WHERE job_id = 'bad')",
    ] {
        let host = TestHost::with_worker_timeout(Duration::from_secs(10));
        let dying = host.another();
        let worker = dying.worker().await;
        for id in ["bad", "good"] {
            host.enqueue_acts(id, [Act::Gate, Act::Pass]).await;
            host.probe.started.notified().await;
        }
        drop(worker);
        host.tamper(damage);
        let rescuer = host.worker().await;
        let bad = host.pass_time(Duration::from_millis(500), host.client.wait(target("bad"))).await.unwrap();
        let failure = bad.failure.unwrap();
        assert_eq!((bad.status, failure.code.as_str()), (Status::Unresolved, "input.undecodable"), "{damage}");
        let good = host.pass_time(Duration::from_millis(500), host.client.wait(target("good"))).await.unwrap();
        assert_eq!((good.status, good.attempts), (Status::Passed, 2), "{damage}");
        rescuer.drain().await.unwrap();
    }
}

#[tokio::test]
async fn cancelling_a_job_that_cannot_be_read_closes_it() {
    let host = TestHost::new();
    host.enqueue_acts("cancelled", [Act::Pass]).await;
    host.tamper("UPDATE jobs SET run_id = 'mine'");
    assert_eq!(host.client.cancel(target("cancelled"), None).await.unwrap(), Cancelled::Closed);
    assert_eq!(host.verdict("cancelled").await.failure.unwrap().code, "input.undecodable");
}

#[tokio::test]
async fn a_list_leaves_out_a_row_that_cannot_be_read_and_shows_the_others() {
    let host = TestHost::new();
    for id in ["a", "b", "c"] {
        host.enqueue_acts(id, [Act::Pass]).await;
    }
    host.tamper("UPDATE jobs SET run_id = 'mine' WHERE job_id = 'b'");
    let page = host.client.list(ListFilter::default(), 10, None).await.unwrap();
    assert_eq!(page.jobs.iter().map(|job| job.job_id.as_str()).collect::<Vec<_>>(), ["c", "a"]);
    let worker = host.worker().await;
    for id in ["a", "b", "c"] {
        host.verdict(id).await;
    }
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_look_at_a_large_file_is_bounded() {
    let host = TestHost::new();
    host.enqueue_acts("first", [Act::Pass]).await;
    host.client.cancel(target("first"), None).await.unwrap();
    let conn = Connection::open(host.path()).unwrap();
    for (table, columns) in [
        (
            "jobs",
            "job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, attempt, run_at, enqueued_at, \
             started_at, finished_at",
        ),
        ("job_inputs", "input, options, traceparent"),
    ] {
        let sql = format!(
            "WITH RECURSIVE n(id) AS (SELECT 2 UNION ALL SELECT id + 1 FROM n WHERE id < 20000) \
             INSERT INTO {table}(id, {columns}) SELECT n.id, {columns} FROM n, {table} WHERE {table}.id = 1"
        );
        conn.execute_batch(&sql).unwrap();
    }
    conn.execute_batch(
        "INSERT INTO job_verdicts SELECT j.id, v.status, v.code, v.verdict FROM jobs j, job_verdicts v WHERE v.id = 1 AND j.id > 1; \
         UPDATE job_counts SET count = 20000 WHERE count > 0",
    )
    .unwrap();
    let health = host.client.check().await.unwrap();
    assert!((100..=600).contains(&health.sampled) && health.broken.is_empty(), "{health:?}");
}

#[test]
fn doctor_names_a_reader_that_makes_the_log_grow() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("IOLAUS_DATABASE__WAL_WARN_BYTES", "1048576");
    place.run(&format!("enqueue publish_preflight {USER} {CONNECTION}"));
    let log =
        |ran: &Ran| ran.json()["findings"].as_array().unwrap().iter().find(|finding| finding["what"] == "log").unwrap().clone();
    assert_eq!(log(&place.run("doctor"))["state"], "ok");
    let reader = Connection::open(place.database()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM jobs").unwrap();
    let line = format!(
        "{{\"activity\":\"publish_preflight\",\"input\":{{\"user_id\":\"{}\",\"connection_qualified_name\":\"{}\"}}}}\n",
        USER.split_once('=').unwrap().1,
        CONNECTION.split_once('=').unwrap().1
    );
    let jobs = place.file("jobs.jsonl", line.repeat(3_000));
    assert_eq!(place.iolaus(["enqueue", "--jobs", jobs.to_str().unwrap()]).code, 0);
    let told = log(&place.run("doctor"));
    assert_eq!(told["state"], "warn", "{told}");
    let (message, hint) = (told["message"].as_str().unwrap(), told["hint"].as_str().unwrap());
    assert!(message.contains("wal_warn_bytes") && hint.contains("read transaction"), "{told}");
    if cfg!(target_os = "linux") && fs::read_to_string("/proc/locks").is_ok_and(|locks| !locks.is_empty()) {
        assert!(message.contains(&format!("(pid {})", std::process::id())), "it names who reads: {told}");
    }
    let mut worker = place.start("worker");
    worker.until("the write-ahead log grows");
    assert_eq!(worker.terminate().code, 0);
}

#[test]
fn doctor_measures_the_disk_and_calls_memory_what_it_is() {
    let mut place = Place::new();
    let of =
        |ran: &Ran| ran.json()["findings"].as_array().unwrap().iter().find(|finding| finding["what"] == "disk").unwrap().clone();
    let ran = place.run("doctor");
    assert!(of(&ran)["message"].as_str().unwrap().contains("jobs a second"), "{ran:?}");
    assert!(ran.json()["disk"]["syncs"].as_u64().unwrap() > 1, "{ran:?}");
    let memory = Path::new("/dev/shm");
    if !memory.exists() {
        return;
    }
    let directory = tempfile::tempdir_in(memory).unwrap();
    place.set("IOLAUS_DATABASE__PATH", directory.path().join("q/iolaus.db"));
    let told = of(&place.run("doctor"));
    assert_eq!(told["state"], "warn", "{told}");
    assert!(told["message"].as_str().unwrap().contains("tmpfs"), "{told}");
    let left: Vec<_> = fs::read_dir(directory.path().join("q")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("disk-")), "{left:?}");
}
