//! Faults of the disk, with real processes: a file system that fills up and one that cannot be written; and what reaches the disk before
//! anybody is told.

use std::process::Command;

use iolaus::sandbox::SandboxOptions;

use crate::cli::harness::{CONNECTION, Place, USER};
use crate::support::skip::{Need, skip};

/// Whether this machine lets us mount a small file system in a namespace of our own.
fn can_mount(what: &str) -> bool {
    let tried = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let can = tried.as_ref().is_ok_and(|output| output.status.success());
    if !can {
        skip(Need::Mount, &format!("{what}: no file system can be mounted here: {tried:?}"));
    }
    can
}

#[test]
fn a_full_disk_is_told_what_was_acknowledged_stays_and_room_heals_it() {
    if !can_mount("a full disk") {
        return;
    }
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("PATH", std::env::var("PATH").unwrap());
    // A worker lives through it all; the ballast is what else fills the disk.
    let script = r#"
        set -u
        mkdir small && mount -t tmpfs -o size=4m none small || exit 99
        export IOLAUS_DATABASE__PATH="$PWD/small/q/iolaus.db"
        $IOLAUS enqueue $JOB --job-id before >&2 || exit 98
        $IOLAUS worker 2>worker.log & worker=$!
        until grep -q 'the worker is ready' worker.log; do :; done
        $IOLAUS jobs wait before >/dev/null || exit 97
        dd if=/dev/zero of=small/ballast bs=4096 count=4000 2>/dev/null
        n=0
        until ! $IOLAUS enqueue $JOB --job-id "full-$n" 2>refusal >&2; do n=$((n+1)); [ $n -lt 200 ] || exit 96; done
        $IOLAUS enqueue $JOB --job-id never 2>refusal; echo "refused $?"; cat refusal
        kill -0 $worker || exit 95
        $IOLAUS doctor >&2; echo "doctor $?"
        echo "logged $(grep -c 'disk is full' worker.log)"
        rm small/ballast
        $IOLAUS enqueue $JOB --job-id after || exit 94
        for id in after $(seq -f 'full-%g' 0 $((n-1))); do
          $IOLAUS jobs wait "$id" >/dev/null || { echo "lost $id"; exit 93; }
        done
        kill -TERM $worker; wait $worker; echo "worker $?"
    "#;
    let job = format!("publish_preflight {USER} {CONNECTION}");
    place.set("JOB", job);
    let ran = place.shell(&format!("exec unshare -rm sh -c '{}'", script.replace('\'', r"'\''")), "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("refused 6"), "{ran:?}");
    assert!(ran.stdout.contains("disk is full") && ran.stdout.contains("make room"), "the error says what it is: {ran:?}");
    assert!(ran.stdout.contains("worker 0"), "the worker lived on: {ran:?}");
    assert!(ran.stdout.contains("doctor 6"), "{ran:?}");
    let logged = ran.stdout.lines().find_map(|line| line.strip_prefix("logged ")?.parse::<u32>().ok());
    assert!(logged.is_some_and(|lines| lines < 10), "one line a minute: {ran:?}");
}

#[test]
fn a_directory_that_cannot_be_written_is_told_with_its_path() {
    if !can_mount("a read-only directory") {
        return;
    }
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("PATH", std::env::var("PATH").unwrap());
    place.set("JOB", format!("publish_preflight {USER} {CONNECTION}"));
    let script = r#"
        mkdir disk && mount -t tmpfs none disk || exit 99
        export IOLAUS_DATABASE__PATH="$PWD/disk/q/iolaus.db"
        $IOLAUS enqueue $JOB --job-id before || exit 98
        mount -o remount,ro disk || exit 97
        $IOLAUS enqueue $JOB --job-id never; echo "refused $?"
        mount -o remount,rw disk || exit 96
        $IOLAUS enqueue $JOB --job-id after || exit 95
        $IOLAUS jobs list --output json
    "#;
    let ran = place.shell(&format!("exec unshare -rm sh -c '{}'", script.replace('\'', r"'\''")), "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("refused 6") && ran.stderr.contains("disk/q/iolaus.db") && ran.stderr.contains("must be writable"),
        "{ran:?}"
    );
    let listed = ran.json();
    let ids: Vec<_> = listed["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["after", "before"]);
}

#[test]
fn nobody_is_told_that_a_job_is_stored_before_it_is_synced_to_the_disk() {
    if Command::new("strace").arg("-V").output().is_err() {
        skip(Need::Strace, "syncs before acknowledgements: there is no strace");
        return;
    }
    let mut place = Place::new();
    place.set("PATH", std::env::var("PATH").unwrap());
    // The file is there already, so that its creation is no part of what is looked at.
    place.run(&format!("enqueue publish_preflight {USER} {CONNECTION}"));
    for n in 0..3 {
        let line = format!(
            "strace -f -y -o trace -e trace=write,writev,pwrite64,fsync,fdatasync $IOLAUS enqueue publish_preflight {USER} {CONNECTION} --job-id told-{n}"
        );
        let ran = place.shell(&line, "");
        assert_eq!((ran.code, ran.stdout.as_str()), (0, format!("told-{n}\n").as_str()), "{ran:?}");
        let files = place.files();
        let (_, trace) = files.iter().find(|(path, _)| path.ends_with("trace")).unwrap();
        let trace = String::from_utf8_lossy(trace);
        let calls: Vec<&str> = trace.lines().collect();
        let told =
            calls.iter().position(|call| call.contains("write(1") && call.contains(&format!("told-{n}"))).expect("it was told");
        let written = calls[..told]
            .iter()
            .rposition(|call| call.contains("pwrite64(") && call.contains("iolaus.db-wal"))
            .expect("it was written");
        let synced = calls[written..told].iter().any(|call| call.contains("sync(") && call.contains("iolaus.db-wal"));
        assert!(synced, "written at call {written}, told at {told}, and not synced between:\n{trace}");
    }
}
