//! The files of a queue with real processes: places that others can write to, links, files that are removed under those who use them, a
//! lock that is not released.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use iolaus::embedded::{Embedded, EmbeddedOptions};
use iolaus::sandbox::SandboxOptions;
use iolaus_activities::Status;

use crate::cli::harness::{CONNECTION, Place, Ran, Running, USER};
use crate::support::host::{TestHost, observe, probe_job, target};
use crate::support::probe::Act;
use crate::support::skip::{Need, skip};

fn beside(place: &Place, suffix: &str) -> PathBuf {
    let mut path = place.database().into_os_string();
    path.push(suffix);
    path.into()
}

fn enqueue(place: &Place, job_id: &str) -> Ran {
    place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id {job_id}"))
}

fn set_mode(path: PathBuf, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn refused(ran: &Ran, parts: &[&str]) {
    assert_eq!(ran.code, 6, "{ran:?}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} in {ran:?}");
}

#[test]
fn a_queue_that_other_users_can_write_to_is_refused_with_the_command_that_fixes_it() {
    let place = Place::new();
    assert_eq!(enqueue(&place, "before").code, 0);
    let directory = place.database().parent().unwrap().to_owned();
    for (path, mode, private) in
        [(directory, 0o777, 0o700), (place.database(), 0o666, 0o600), (beside(&place, "-wake"), 0o770, 0o700)]
    {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        set_mode(path.clone(), mode);
        let fix = format!("chmod go-w {}", path.canonicalize().unwrap().display());
        for command in ["status", "doctor", "enqueue publish_preflight user_id=u connection_qualified_name="] {
            let ran = place.run(command);
            refused(&ran, &[&name, "writable by other users", &fix]);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(!said.contains("writable for") && !said.contains("be writable"), "it is too writable already: {ran:?}");
        }
        set_mode(path, private);
    }
    assert_eq!(place.stored(), 1);
}

#[test]
fn files_that_other_users_can_read_are_made_private_again() {
    let place = Place::with_tenant(SandboxOptions::default());
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let files = ["", "-wal", "-shm", "-open", "-turn", "-write"].map(|suffix| beside(&place, suffix));
    for file in &files {
        set_mode(file.clone(), 0o644);
    }
    assert_eq!(enqueue(&place, "before").code, 0);
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o7777, 0o600, "{file:?}");
    }
    assert_eq!(worker.terminate().code, 0);
}

#[test]
fn another_program_that_has_the_database_locked_is_waited_for_and_named() {
    let place = Place::new();
    assert_eq!(enqueue(&place, "before").code, 0);
    // This test stands for a backup script that holds a lock with flock(1).
    let file = fs::File::open(place.database()).unwrap();
    for shared in [false, true] {
        // A process that ended in a hurry left its log, and the next one may open the database as one beside it.
        let last = rusqlite::Connection::open(place.database()).unwrap();
        last.query_row("SELECT count(*) FROM jobs", [], |_| Ok(())).unwrap();
        drop(last);
        if shared {
            file.lock_shared().unwrap();
        } else {
            file.lock().unwrap();
        }
        let me = format!("process {} (", std::process::id());
        let waiting = ["jobs list", "doctor", "fsck"].map(|command| place.start(command));
        for ran in waiting.map(Running::end) {
            refused(&ran, &[&me, "has a lock on", "iolaus.db", "for 10 s", "end that program"]);
            assert!(!format!("{ran:?}").contains("deleted or replaced"), "{ran:?}");
        }
        let waiting = place.start("jobs list");
        file.unlock().unwrap();
        let ran = waiting.end();
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(place.stored(), 1);
}

#[test]
fn a_link_beside_the_database_is_not_followed_and_what_it_points_to_stays_as_it_is() {
    let place = Place::new();
    assert_eq!(enqueue(&place, "before").code, 0);
    let keys = place.database().with_file_name("keys");
    fs::create_dir(&keys).unwrap();
    fs::write(keys.join("id_rsa"), "a private key").unwrap();
    for (name, to) in
        [("-wake", &keys), ("-turn", &keys.join("made")), ("-write", &keys.join("made")), ("-open", &keys.join("made"))]
    {
        let link = beside(&place, name);
        let aside = place.database().with_file_name("aside");
        fs::rename(&link, &aside).unwrap();
        symlink(to, &link).unwrap();
        refused(&enqueue(&place, "after"), &[name]);
        fs::remove_file(&link).unwrap();
        fs::rename(&aside, &link).unwrap();
    }
    let left: Vec<_> = fs::read_dir(&keys).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["id_rsa"]);
    assert_eq!((enqueue(&place, "after").code, place.stored()), (0, 2));
}

#[test]
fn a_hard_link_beside_the_database_is_refused_and_its_other_file_stays_as_it_is() {
    let place = Place::new();
    assert_eq!(enqueue(&place, "before").code, 0);
    let key = place.file("key", "a private key");
    for name in ["-wal", "-shm", "-journal", "-turn", "-write", "-open"] {
        let (link, aside) = (beside(&place, name), place.database().with_file_name("aside"));
        let was_there = fs::rename(&link, &aside).is_ok();
        fs::hard_link(&key, &link).unwrap();
        for command in ["status", "doctor", "enqueue publish_preflight user_id=u connection_qualified_name="] {
            refused(&place.run(command), &[name, "has 2 names (hard links)", "find / -xdev -samefile"]);
        }
        fs::remove_file(&link).unwrap();
        if was_there {
            fs::rename(&aside, &link).unwrap();
        }
    }
    assert_eq!(fs::read(&key).unwrap(), b"a private key");
    assert_eq!((enqueue(&place, "after").code, place.stored()), (0, 2));
}

#[test]
fn files_in_the_wake_directory_that_are_none_of_ours_stay() {
    let place = Place::new();
    assert_eq!(enqueue(&place, "before").code, 0);
    let at = |name: &str| beside(&place, "-wake").join(name);
    let like_ours = format!("{}.sock", "0".repeat(32));
    for name in ["id_rsa", like_ours.as_str()] {
        fs::write(at(name), "a private key").unwrap();
    }
    drop(std::os::unix::net::UnixDatagram::bind(at("foreign.sock")).unwrap());
    assert_eq!(enqueue(&place, "after").code, 0);
    for name in ["id_rsa", like_ours.as_str(), "foreign.sock"] {
        assert!(fs::symlink_metadata(at(name)).is_ok(), "{name}");
    }
}

#[test]
fn a_file_that_is_no_queue_is_left_alone_with_nothing_beside_it() {
    let mut place = Place::new();
    let text = place.file("notes.txt", "dear diary");
    let other = place.file("other.db", "");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
    let before = place.files();
    for (path, part) in [(&text, "is not an SQLite database"), (&other, "is not an iolaus database")] {
        place.set("IOLAUS_DATABASE__PATH", path.as_os_str());
        for command in ["status", "doctor", "enqueue publish_preflight user_id=u connection_qualified_name="] {
            refused(&place.run(command), &[part, "IOLAUS_DATABASE__PATH"]);
        }
    }
    assert_eq!(place.files(), before, "only these are there, as they were");
}

#[test]
fn a_process_that_may_open_too_few_files_says_so() {
    let place = Place::new();
    assert_eq!(enqueue(&place, "before").code, 0);
    // From the fewest with which it starts to the fewest with which it works: each of them says what is wrong.
    let mut said = 0;
    for limit in 12..40 {
        let ran = place.shell(&format!("ulimit -n {limit}; exec $IOLAUS status"), "");
        if ran.code == 0 {
            break;
        }
        if ran.code == 6 {
            refused(&ran, &["ulimit -n"]);
            said += 1;
        }
    }
    assert!(said > 0);
}

#[test]
fn a_log_that_is_removed_under_a_worker_stops_it_and_nothing_that_was_acknowledged_is_lost() {
    let place = Place::with_tenant(SandboxOptions::default());
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let mut acknowledged = vec!["before"];
    assert_eq!(enqueue(&place, "before").code, 0);
    assert_eq!(place.run("jobs wait before").code, 0);
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(&place, suffix)).unwrap();
    }
    let during = enqueue(&place, "during");
    if during.code == 0 {
        acknowledged.push("during");
    } else {
        refused(&during, &["deleted or replaced", "start them again"]);
    }
    let ended = worker.end();
    assert_eq!(ended.code, 6, "{ended:?}");
    assert!(ended.stderr.contains("iolaus.db-wal was deleted or replaced"), "{ended:?}");
    assert_eq!(enqueue(&place, "after").code, 0);
    acknowledged.push("after");
    for job in acknowledged {
        assert_eq!(place.run(&format!("jobs show {job}")).code, 0, "{job} is lost");
    }
    let file = rusqlite::Connection::open(place.database()).unwrap();
    assert_eq!(file.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).as_deref(), Ok("ok"));
}

#[test]
fn a_directory_that_is_replaced_under_a_worker_stops_it() {
    let place = Place::with_tenant(SandboxOptions::default());
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let directory = place.database().parent().unwrap().to_owned();
    fs::rename(&directory, directory.with_file_name("aside")).unwrap();
    assert_eq!(enqueue(&place, "new").code, 0, "it is a new queue");
    let ended = worker.end();
    assert_eq!(ended.code, 6, "{ended:?}");
    assert!(ended.stderr.contains("iolaus.db was deleted or replaced"), "{ended:?}");
    assert_eq!(place.stored(), 1);
}

#[tokio::test]
async fn a_worker_whose_wake_directory_was_removed_is_woken_again() {
    let host = TestHost::new();
    let other = host.another();
    let worker = host.worker().await;
    let mut wakes = host.path().into_os_string();
    wakes.push("-wake");
    fs::remove_dir_all(wakes).unwrap();
    host.pass(Duration::from_secs(6)).await;
    // Nobody moves the clock from here on: only wakes can bring this about.
    other.enqueue_acts("across", [Act::Pass]).await;
    assert_eq!(other.client.wait(target("across")).await.unwrap().status, Status::Passed);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_process_that_comes_by_a_link_wakes_those_that_came_by_the_path() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let link = host.path().parent().unwrap().with_file_name("link.db");
    symlink(host.path(), &link).unwrap();
    let by_link = Embedded::open(EmbeddedOptions::at(&link), host.clock.clone()).unwrap();
    observe(&host.clock, &by_link);
    by_link.client().enqueue(host.admit(probe_job("linked", [Act::Pass])).unwrap()).await.unwrap();
    assert_eq!(host.verdict_now("linked").await.status, Status::Passed);
    worker.drain().await.unwrap();
}

#[test]
fn root_leaves_nothing_in_the_queue_of_a_user_that_the_user_cannot_use() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("PATH", std::env::var("PATH").unwrap());
    place.set("JOB", format!("publish_preflight {USER} {CONNECTION}"));
    let ran = place.shell(
        r#"
        [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || exit 77
        chown -R 12345:12345 .
        user="setpriv --reuid=12345 --regid=12345 --clear-groups"
        $user test -x "$IOLAUS" || exit 77
        $IOLAUS enqueue $JOB --job-id by-root || exit 99
        $user $IOLAUS worker 2>worker.log & worker=$!
        until grep -q 'the worker is ready' worker.log || ! kill -0 $worker; do :; done
        $IOLAUS jobs wait by-root >/dev/null || { cat worker.log; exit 98; }
        $IOLAUS enqueue $JOB --job-id woken --wait >/dev/null || exit 97
        kill -TERM $worker; wait $worker || { cat worker.log; exit 96; }
        $user $IOLAUS enqueue $JOB --job-id by-user || exit 95
        setpriv --reuid=12346 --regid=12346 --clear-groups sh -c 'cd / && exec "$IOLAUS" status' && exit 94
        exit 0
        "#,
        "",
    );
    if ran.code == 77 {
        skip(Need::Root, "files of root in the queue of a user: this is not run by root, or the user could not run the program");
        return;
    }
    assert_eq!(ran.code, 0, "{ran:?}");
    for (path, _) in place.files() {
        assert!(!path.starts_with(place.database().parent().unwrap()) || fs::metadata(&path).unwrap().uid() == 12345, "{path:?}");
    }
}

#[test]
fn reads_need_no_write_lock_and_a_write_names_the_process_that_holds_it() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    assert_eq!(enqueue(&place, "before").code, 0);
    assert_eq!(place.run("jobs wait before").code, 0);
    // This test stands for a process that was stopped in the middle of a write.
    let me = std::process::id();
    let lock = fs::File::options().read(true).write(true).open(beside(&place, "-write")).unwrap();
    lock.lock().unwrap();
    lock.write_all_at(format!("{:<95}\n", format!("{me} iolaus execute")).as_bytes(), 0).unwrap();
    for command in ["status", "jobs list", "jobs show before", "jobs wait before"] {
        let ran = place.run(command);
        assert_eq!(ran.code, 0, "{command}: {ran:?}");
    }
    refused(
        &place.run("jobs cancel before"),
        &[&format!("process {me} (iolaus execute)"), "the write lock", &format!("kill -CONT {me}")],
    );
    // And for a program that only locks one of the files: the worker, which had the lock last, is not blamed.
    lock.unlock().unwrap();
    let before = place.run("enqueue publish_preflight user_id=u connection_qualified_name=default/a/1 --delay 1h --job-id held");
    assert_eq!(before.code, 0, "{before:?}");
    place.set("IOLAUS_DATABASE__WRITE_TIMEOUT", "2s");
    for suffix in ["-write", "-turn"] {
        let lock = fs::File::options().read(true).write(true).open(beside(&place, suffix)).unwrap();
        lock.lock().unwrap();
        refused(&place.run("jobs cancel held"), &[&format!("process {me} (")]);
    }
    assert_eq!(enqueue(&place, "after").code, 0);
    assert_eq!(place.run("jobs wait after").code, 0);
    drop(worker);
}
