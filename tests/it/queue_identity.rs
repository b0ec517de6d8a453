//! Which files are a queue's: files that are removed or put back under those who use them, a database with two names, and openings that
//! were cut short.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use iolaus::sandbox::SandboxOptions;
use rustix::process::Signal;

use crate::cli::harness::{CONNECTION, Place, Ran, Running, USER};
use crate::support::skip::{Need, skip};

fn beside(place: &Place, suffix: &str) -> PathBuf {
    let mut path = place.database().into_os_string();
    path.push(suffix);
    path.into()
}

fn enqueue(place: &Place, job_id: &str) -> Ran {
    place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --delay 1h --job-id {job_id}"))
}

fn refused(ran: &Ran, parts: &[&str]) {
    assert_eq!(ran.code, 6, "{ran:?}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} in {ran:?}");
}

/// A worker on a queue with one job that is stored, and not due.
fn with_worker() -> (Place, Running) {
    let place = Place::with_tenant(SandboxOptions::default());
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    assert_eq!(enqueue(&place, "before").code, 0);
    (place, worker)
}

/// Removes the log of a queue that no process uses, with what is in it written to the database.
fn checkpoint(place: &Place) {
    let file = rusqlite::Connection::open(place.database()).unwrap();
    file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

/// A copy of the queue, which no process uses, as it is now.
fn back_up(place: &Place) -> PathBuf {
    checkpoint(place);
    let copy = place.database().with_file_name("copy");
    fs::copy(place.database(), &copy).unwrap();
    copy
}

fn assert_sound(place: &Place, jobs: &[&str]) {
    for job in jobs {
        let shown = place.run(&format!("jobs show {job}"));
        assert_eq!(shown.code, 0, "{job} is lost: {shown:?}");
    }
    let checked = place.run("fsck");
    assert_eq!(checked.code, 0, "{checked:?}");
}

#[test]
fn all_files_beside_the_database_are_removed_under_a_worker_and_no_acknowledged_job_is_lost() {
    let (place, worker) = with_worker();
    worker.send(Signal::STOP);
    for entry in fs::read_dir(place.database().parent().unwrap()).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path != place.database() {
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
    for command in ["fsck", "jobs list", "doctor"] {
        refused(&place.run(command), &["without the files that are beside it now", "end every process of this queue"]);
    }
    refused(&enqueue(&place, "during"), &["iolaus.db", "without the files that are beside it now"]);
    worker.send(Signal::CONT);
    let ended = worker.end();
    assert_eq!(ended.code, 6, "{ended:?}");
    assert!(ended.stderr.contains("what was committed in it is in the database"), "{ended:?}");
    assert_eq!(enqueue(&place, "after").code, 0);
    assert_sound(&place, &["before", "after"]);
}

#[test]
fn one_file_of_a_queue_is_removed_under_a_worker_which_ends_and_no_job_is_lost() {
    for suffix in ["-wal", "-shm", "-open"] {
        let (place, worker) = with_worker();
        fs::remove_file(beside(&place, suffix)).unwrap();
        let during = enqueue(&place, "during");
        let ended = worker.end();
        assert_eq!(ended.code, 6, "{ended:?}");
        assert!(ended.stderr.contains(&format!("iolaus.db{suffix} was deleted or replaced")), "{ended:?}");
        assert_eq!(enqueue(&place, "after").code, 0);
        assert_sound(&place, &["before", "after"]);
        if during.code == 0 {
            assert_sound(&place, &["during"]);
        }
    }
}

#[test]
fn a_record_that_was_emptied_or_overwritten_in_place_is_written_again_by_those_who_have_the_queue_open() {
    let (place, worker) = with_worker();
    let path = beside(&place, "-open");
    let record = fs::read(&path).unwrap();
    // The log of another one: a copy that was written over it.
    let words: Vec<&str> = std::str::from_utf8(&record).unwrap().split_whitespace().collect();
    let older = format!("{:<256}", [&[words[0], "1:1", "1:2"], &words[3..]].concat().join(" "));
    for (n, spoiled) in [String::new(), "xx".repeat(100), older].into_iter().enumerate() {
        for command in [format!("enqueue publish_preflight {USER} {CONNECTION} --delay 1h --job-id n-{n}"), "fsck".into()] {
            fs::write(&path, &spoiled).unwrap();
            let ran = place.run(&command);
            assert_eq!(ran.code, 0, "{spoiled:?}: {ran:?}");
            assert!(fs::read(&path).unwrap() == record, "{spoiled:?} was not written again after {command}");
        }
    }
    // As long as no one can write it, what is said is true.
    worker.send(Signal::STOP);
    fs::write(&path, "").unwrap();
    refused(&place.run("status"), &["iolaus.db-open", "was emptied or overwritten", "kill -CONT"]);
    worker.send(Signal::CONT);
    assert_eq!(place.run("status").code, 0);
    assert_eq!(worker.terminate().code, 0);
    assert_sound(&place, &["before", "n-0", "n-1", "n-2"]);
}

#[test]
fn a_database_with_two_names_is_refused_by_both_of_them() {
    let mut place = Place::new();
    assert_eq!(enqueue(&place, "before").code, 0);
    let (first, other) = (place.database(), place.database().with_file_name("other.db"));
    fs::hard_link(&first, &other).unwrap();
    for path in [&other, &first] {
        place.set("IOLAUS_DATABASE__PATH", path.as_os_str());
        for command in ["jobs list", "doctor", "fsck"] {
            refused(&place.run(command), &["has 2 names (hard links)", "find / -xdev -samefile"]);
        }
        refused(&enqueue(&place, "during"), &["has 2 names (hard links)"]);
    }
    fs::remove_file(&other).unwrap();
    assert_eq!(enqueue(&place, "after").code, 0);
    assert_sound(&place, &["before", "after"]);
}

#[test]
fn a_database_that_is_mounted_without_its_directory_is_refused() {
    let mut place = Place::new();
    assert_eq!(enqueue(&place, "before").code, 0);
    place.set("PATH", std::env::var("PATH").unwrap());
    let ran = place.shell(
        "exec unshare -rm sh -c 'mkdir -m 700 other && touch other/q.db && mount --bind .local/state/iolaus/iolaus.db other/q.db || exit 77
         IOLAUS_DATABASE__PATH=$PWD/other/q.db exec $IOLAUS jobs list'",
        "",
    );
    if ran.code == 77 || ran.code == 1 {
        skip(Need::Mount, &format!("a file that is mounted: {ran:?}"));
        return;
    }
    refused(&ran, &["other/q.db is mounted by itself", "mount its directory"]);
}

#[test]
fn a_copy_that_is_put_back_beside_the_log_of_another_database_is_refused_until_that_log_is_away() {
    let place = Place::with_tenant(SandboxOptions::default());
    assert_eq!(enqueue(&place, "copied").code, 0);
    let copy = back_up(&place);
    // Twice: beside a worker that was killed, and beside one that lives.
    for lives in [false, true] {
        let mut worker = place.start("worker");
        worker.until("the worker is ready");
        assert_eq!(enqueue(&place, "newer").code, 0);
        if lives {
            worker.send(Signal::STOP);
        } else {
            worker.kill();
        }
        let again = copy.with_extension("again");
        fs::copy(&copy, &again).unwrap();
        fs::rename(&again, place.database()).unwrap();
        for command in ["jobs list", "fsck", "doctor"] {
            refused(&place.run(command), &["is still that of the database before", "if ", "mv ", "iolaus.db-wal-old"]);
        }
        refused(&enqueue(&place, "after"), &["is still that of the database before"]);
        if lives {
            worker.send(Signal::CONT);
            assert_eq!(worker.end().code, 6);
            refused(&enqueue(&place, "after"), &["is still that of the database before"]);
        }
        fs::rename(beside(&place, "-wal"), beside(&place, "-wal-old")).unwrap();
        fs::remove_file(beside(&place, "-shm")).unwrap();
        assert_eq!(enqueue(&place, "after").code, 0);
        assert_sound(&place, &["copied", "after"]);
        assert_eq!(place.run("jobs show newer").code, 2, "the copy is older");
        checkpoint(&place);
    }
}

#[test]
fn a_copy_that_is_put_back_alone_or_with_its_own_log_is_used() {
    let place = Place::with_tenant(SandboxOptions::default());
    assert_eq!(enqueue(&place, "copied").code, 0);
    let copy = back_up(&place);
    assert_eq!(enqueue(&place, "newer").code, 0);
    // Alone: the last process took the log away when it ended, or it is removed by hand.
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(&place, suffix)).ok();
    }
    fs::rename(&copy, place.database()).unwrap();
    assert_eq!(enqueue(&place, "after").code, 0);
    assert_sound(&place, &["copied", "after"]);
    // With the log that belongs to it.
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    assert_eq!(enqueue(&place, "in-the-log").code, 0);
    worker.kill();
    let log = copy.with_extension("log");
    fs::copy(place.database(), &copy).unwrap();
    fs::copy(beside(&place, "-wal"), &log).unwrap();
    assert_eq!(enqueue(&place, "newer").code, 0);
    fs::rename(&copy, place.database()).unwrap();
    fs::rename(&log, beside(&place, "-wal")).unwrap();
    fs::remove_file(beside(&place, "-shm")).ok();
    assert_sound(&place, &["copied", "after", "in-the-log"]);
}

#[test]
fn a_first_opening_that_is_killed_at_any_step_is_taken_up_by_the_next() {
    if Command::new("strace").arg("-V").output().is_err() {
        skip(Need::Strace, "a kill at each step of the first opening: there is no strace");
        return;
    }
    for calls in ["fsync,fdatasync", "pwrite64", "ftruncate,fallocate,unlink"] {
        for step in 1.. {
            let mut place = Place::new();
            place.set("PATH", std::env::var("PATH").unwrap());
            let job = format!("enqueue publish_preflight {USER} {CONNECTION} --job-id first");
            let line = format!(
                "strace -f -qq -o /dev/null -e trace={calls} -e inject={calls}:signal=KILL:when={step} $IOLAUS {job}; echo ended $?"
            );
            let ran = place.shell(&line, "");
            assert!(ran.stdout.contains("ended 137") || ran.stdout.contains("ended 0"), "{calls} {step}: {ran:?}");
            let next = place.run(&format!("{job} --id-conflict-policy use_existing"));
            assert_eq!(next.code, 0, "{calls} {step}: {next:?}");
            assert_sound(&place, &["first"]);
            if ran.stdout.contains("ended 0") {
                assert!(step > 1, "{calls}: there is no such step");
                break;
            }
        }
    }
}
