//! A stdout that takes nothing, as on a full disk. It is no fault of the queue: the exit code is about the job, and its id is on stderr.

use iolaus::sandbox::SandboxOptions;

use super::harness::{CONNECTION, Place, Ran, USER};

/// Runs a command whose stdout is full.
fn full(place: &Place, line: &str) -> Ran {
    place.shell(&format!("exec \"$IOLAUS\" {line} > /dev/full"), "")
}

fn told(ran: &Ran, parts: &[&str]) {
    assert!(ran.stderr.contains("stdout cannot be written"), "{ran:?}");
    assert!(!ran.stderr.contains("unusable"), "{ran:?}");
    for part in parts {
        assert!(ran.stderr.contains(part), "`{part}` is missing: {ran:?}");
    }
}

#[test]
fn the_exit_code_is_that_of_the_job_and_its_id_and_verdict_are_on_stderr() {
    let place = Place::with_tenant(SandboxOptions::default());
    let disabled = "user_id=90000000-0000-4000-8000-000000000002";
    for (user, code, status) in [(USER, 0, "passed"), (disabled, 1, "failed")] {
        let ran = full(&place, &format!("execute publish_preflight {user} {CONNECTION} --job-id executed-{code}"));
        assert_eq!(ran.code, code, "{ran:?}");
        told(&ran, &[&format!("executed-{code}"), status]);
    }
    let ran = full(&place, &format!("enqueue publish_preflight {USER} {CONNECTION} --job-id stored"));
    assert_eq!(ran.code, 0, "{ran:?}");
    told(&ran, &["stored"]);
    assert_eq!(place.run("jobs show stored").json()["state"], "available");
    let ran = full(&place, "jobs wait stored --timeout 0s");
    assert_eq!(ran.code, 5, "{ran:?}");
    told(&ran, &["stored"]);
    for command in ["jobs cancel stored", "jobs retry stored", "pause tenant default --reason x", "resume tenant default"] {
        let ran = full(&place, command);
        assert_eq!(ran.code, 0, "{command}: {ran:?}");
        told(&ran, &[]);
    }
    let ran = full(&place, "jobs wait executed-1");
    assert_eq!(ran.code, 1, "{ran:?}");
}

#[test]
fn a_command_that_only_reads_fails_with_a_sentence_about_its_output() {
    let place = Place::with_tenant(SandboxOptions::default());
    for command in ["status", "jobs list", "schema", "doctor", "whoami", "workflows find snowflake", "completions bash"] {
        let ran = full(&place, command);
        assert_eq!(ran.code, 2, "{command}: {ran:?}");
        assert!(ran.stderr.contains("error: stdout cannot be written"), "{command}: {ran:?}");
        assert!(ran.stderr.contains("nothing else went wrong"), "{command}: {ran:?}");
    }
}
