//! Whose a queue is, and what is said where its files may not be read, written or made: the file is named, with what helps.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use iolaus::sandbox::SandboxOptions;

use crate::cli::harness::{CONNECTION, Place, Ran, USER};
use crate::support::skip::{Need, skip};

fn place() -> Place {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("PATH", std::env::var("PATH").unwrap());
    place.set("JOB", format!("publish_preflight {USER} {CONNECTION}"));
    place
}

/// Runs a script as root that gives its directory to another user, in which `$user COMMAND` runs as that user. None if it cannot.
fn with_other_user(place: &Place, script: &str) -> Option<Ran> {
    let before = r#"
        [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || exit 77
        chown -R 12345:12345 .
        user="setpriv --reuid=12345 --regid=12345 --clear-groups"
        $user test -x "$IOLAUS" || exit 77
    "#;
    let ran = place.shell(&format!("{before}\n{script}"), "");
    if ran.code == 77 {
        skip(Need::Root, "the queue of another user: this is not run by root, or the user could not run the program");
        return None;
    }
    Some(ran)
}

#[test]
fn root_works_no_job_of_another_users_queue_and_says_how_that_user_can() {
    let place = place();
    let script = r#"
        $user $IOLAUS enqueue $JOB --job-id theirs || exit 99
        $IOLAUS worker; echo "worker $?"
        $IOLAUS execute $JOB --job-id by-root; echo "execute $?"
        $IOLAUS jobs show by-root >/dev/null 2>&1; echo "stored $?"
        $IOLAUS jobs list >/dev/null || exit 98
        $IOLAUS fsck >/dev/null || exit 97
        $IOLAUS doctor --output json; echo "doctor $?"
        $user $IOLAUS execute $JOB --job-id theirs || exit 96
        # A database that was put into a directory of root is no other.
        chown root .local/state/iolaus; $IOLAUS worker; echo "worker $?"
    "#;
    let Some(ran) = with_other_user(&place, script) else { return };
    assert_eq!(ran.code, 0, "{ran:?}");
    let (said, told) = (&ran.stdout, &ran.stderr);
    assert!(said.matches("worker 6").count() == 2 && said.contains("execute 6") && said.contains("stored 2"), "{ran:?}");
    assert!(told.contains("belongs to the user with the id 12345") && told.contains("setpriv --reuid=12345"), "{ran:?}");
    let findings = said.lines().find(|line| line.starts_with('{')).unwrap();
    assert!(findings.contains("belongs to the user with the id 12345") && findings.contains("\"warn\""), "{findings}");
}

#[test]
fn a_directory_above_the_queue_that_every_user_can_write_to_is_warned_of() {
    let place = place();
    let above = place.database().parent().unwrap().parent().unwrap().to_owned();
    assert_eq!(place.shell("exec $IOLAUS enqueue $JOB", "").code, 0);
    for (mode, is_warned) in [(0o777, true), (0o1777, false), (0o775, false)] {
        fs::set_permissions(&above, Permissions::from_mode(mode)).unwrap();
        let ran = place.run("doctor");
        let fix = format!("chmod o-w {}", above.canonicalize().unwrap().display());
        assert_eq!((ran.code, ran.stdout.contains(&fix)), (0, is_warned), "{mode:o}: {ran:?}");
    }
}

#[test]
fn a_directory_in_which_others_can_create_files_is_warned_of_and_a_planted_file_is_not_to_be_taken_over_unseen() {
    let place = place();
    let directory = place.database().parent().unwrap().to_owned();
    assert_eq!(place.shell("exec $IOLAUS enqueue $JOB", "").code, 0);
    fs::set_permissions(&directory, Permissions::from_mode(0o1777)).unwrap();
    let ran = place.run("doctor");
    assert!(ran.code == 0 && ran.stdout.contains("writable by other users") && ran.stdout.contains("database.path"), "{ran:?}");
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    let script = r#"
        [ "$(id -u)" = 0 ] || exit 77
        for file in iolaus.db-journal iolaus.db-wal iolaus.db-open; do
            at=.local/state/iolaus/$file; [ ! -e $at ] || mv $at aside
            echo planted > $at; chown 12345 $at
            $IOLAUS jobs list; [ $? = 6 ] || exit 99
            rm $at; [ ! -e aside ] || mv aside $at
        done
        $IOLAUS jobs list
    "#;
    let ran = place.shell(script, "");
    if ran.code == 77 {
        skip(Need::Root, "a file that another user planted beside the database: this is not run by root");
        return;
    }
    assert_eq!(ran.code, 0, "{ran:?}");
    for file in ["journal", "wal", "open"] {
        let path = directory.canonicalize().unwrap().join(format!("iolaus.db-{file}"));
        assert!(ran.stderr.contains(&format!("hint: ls -l {}; if that user may decide", path.display())), "{file}: {ran:?}");
    }
}

#[test]
fn a_file_of_the_queue_that_may_not_be_opened_is_named() {
    let place = place();
    let script = r#"
        $user $IOLAUS enqueue $JOB --job-id before >/dev/null || exit 99
        cd .local/state/iolaus
        for file in iolaus.db iolaus.db-turn iolaus.db-write iolaus.db-open; do
            mode=$(stat -c %a $file); chmod 0 $file
            for command in "enqueue $JOB" doctor; do
                echo "of $file"; $user $IOLAUS $command; [ $? = 6 ] || exit 98
            done
            chmod $mode $file
        done
        $user $IOLAUS enqueue $JOB --job-id after >/dev/null || exit 97
    "#;
    let Some(ran) = with_other_user(&place, &format!("exec 2>&1; {script}")) else { return };
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut cases = 0;
    for case in ran.stdout.split("of ").filter(|case| case.starts_with("iolaus.db")) {
        let file = case.split_whitespace().next().unwrap();
        assert!(case.contains(&format!("iolaus/{file}, as its owner")) && case.contains("chmod u+rw"), "{case}");
        cases += 1;
    }
    assert_eq!(cases, 8, "{ran:?}");
}

#[test]
fn a_disk_that_is_too_small_for_a_new_queue_is_told_as_full_wherever_the_opening_ends() {
    let place = place();
    let script = r#"
        mkdir small || exit 99
        for size in $(seq 4 8 240); do
            mount -t tmpfs -o size=${size}k none small 2>/dev/null || exit 77
            mkdir small/q; export IOLAUS_DATABASE__PATH=$PWD/small/q/iolaus.db
            $IOLAUS enqueue $JOB >/dev/null 2>said; code=$?
            grep -q "is full\|os error 28\|make room" said || [ $code = 0 ] || { echo "$size: $code"; cat said; exit 98; }
            grep -q "make room" said || [ $code = 0 ] || { echo "$size: $code"; cat said; exit 97; }
            umount small
        done
        echo tried
    "#;
    let ran = place.shell(&format!("exec unshare -rm sh -c '{script}'"), "");
    if ran.code == 77 || ran.stderr.contains("unshare:") {
        skip(Need::Mount, &format!("a disk that is too small: {ran:?}"));
        return;
    }
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "tried\n"), "{ran:?}");
}
