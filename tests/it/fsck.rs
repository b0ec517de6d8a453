//! `iolaus fsck`: each kind of damage is found, and nothing else; a repair copies first, sets aside what is broken, and touches no
//! other job. And one row that cannot be read stops no other job.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use iolaus::client::{Cancelled, ListFilter};
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

#[test]
fn an_index_that_lacks_a_job_is_built_again() {
    let place = place(EVERY_STATE);
    let conn = Connection::open(place.database()).unwrap();
    // With another condition in the schema the row is stored without its entry in the index.
    let define = |from: &str, to: &str| {
        let sql = format!(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = 'jobs_ready'; \
             PRAGMA writable_schema = RESET"
        );
        conn.execute_batch(&sql).unwrap();
    };
    define("state = ''available''", "state = ''nothing''");
    conn.execute_batch(
        "UPDATE jobs SET state = 'available' WHERE job_id = 'later'; DELETE FROM job_counts; \
         INSERT INTO job_counts SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3",
    )
    .unwrap();
    define("state = ''nothing''", "state = ''available''");
    drop(conn);
    let found = place.run("fsck");
    assert_eq!((found.code, codes(&found)), (1, vec!["index.wrong".to_owned()]), "{found:?}");
    assert_eq!(place.run("fsck --repair").code, 0);
    assert_eq!(place.run("fsck").code, 0);
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
