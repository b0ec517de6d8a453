//! A file that something else has damaged: every command says so, names the file and the hint, and changes not a byte of it; once the good
//! file is back, what was acknowledged is there.

use std::fs;
use std::path::Path;

use iolaus::sandbox::SandboxOptions;

use crate::cli::harness::{CONNECTION, Place, USER};

const PAGE: usize = 4096;
const JOBS: usize = 40;
/// Beside those that are told of any damage.
const ALL: [&str; 3] = ["status", "worker", "jobs cancel x"];

/// A place with some jobs in its queue, and nobody who has it open.
fn place() -> Place {
    let place = Place::with_tenant(SandboxOptions::default());
    let line = format!(
        r#"{{"activity":"publish_preflight","input":{{"user_id":"{}","connection_qualified_name":"{}"}}}}"#,
        USER.split_once('=').unwrap().1,
        CONNECTION.split_once('=').unwrap().1
    );
    let jobs = place.file("jobs.jsonl", format!("{line}\n").repeat(JOBS));
    let ran = place.iolaus(["enqueue", "--jobs", jobs.to_str().unwrap()]);
    assert_eq!((ran.code, place.stored()), (0, JOBS), "{ran:?}");
    place
}

/// Every command is told, and leaves the file alone; then the good one is put back, and all of its jobs are worked.
fn damaged(place: &Place, commands: &[&str], damage: impl FnOnce(&Path, &[u8])) {
    let file = place.database();
    // A command that ends may leave its log to the next one: all of it has to be in the file that is damaged.
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(conn);
    let good = fs::read(&file).unwrap();
    damage(&file, &good);
    let bad = fs::read(&file).unwrap();
    let enqueue = format!("enqueue publish_preflight {USER} {CONNECTION}");
    for command in commands.iter().copied().chain([enqueue.as_str(), "jobs list", "doctor", "fsck"]) {
        let ran = place.run(command);
        let said = ran.stderr + &ran.stdout;
        assert_eq!(ran.code, 6, "{command}: {said}");
        assert!(said.contains("iolaus.db"), "{command} names the file: {said}");
        assert!(said.contains(".recover") && said.contains("stop every process"), "{command} tells the hint: {said}");
        assert!(fs::read(&file).unwrap() == bad, "{command} changed the file");
    }
    fs::write(&file, &good).unwrap();
    assert_eq!(place.stored(), JOBS, "what was acknowledged is there");
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let ids: Vec<_> = place.run("jobs list").json()["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].clone()).collect();
    for id in ids {
        let ran = place.iolaus(["jobs", "wait", id.as_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(worker.terminate().code, 0);
}

#[test]
fn a_file_that_was_overwritten_is_told_and_left_alone() {
    damaged(&place(), &ALL, |file, good| fs::write(file, "this is no database. ".repeat(good.len() / 20)).unwrap());
}

#[test]
fn a_file_that_was_cut_short_is_told_and_left_alone() {
    damaged(&place(), &ALL, |file, good| fs::write(file, &good[..good.len() / PAGE / 2 * PAGE]).unwrap());
}

#[test]
fn a_page_of_zeros_is_told_and_left_alone() {
    damaged(&place(), &[], |file, good| {
        let conn = rusqlite::Connection::open(file).unwrap();
        let page: i64 = conn.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'", [], |row| row.get(0)).unwrap();
        drop(conn);
        let page = usize::try_from(page).unwrap();
        let mut bad = good.to_vec();
        bad[(page - 1) * PAGE..page * PAGE].fill(0);
        fs::write(file, bad).unwrap();
    });
}
