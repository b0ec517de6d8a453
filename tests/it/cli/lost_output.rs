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

#[test]
fn a_closed_stdout_is_noticed_and_what_was_done_is_on_stderr() {
    let place = Place::with_tenant(SandboxOptions::default());
    let closed = |line: &str| place.shell(&format!("exec \"$IOLAUS\" {line} >&-"), "");
    let ran = closed(&format!("execute publish_preflight {USER} {CONNECTION} --job-id executed"));
    assert_eq!(ran.code, 0, "{ran:?}");
    told(&ran, &["executed", "passed"]);
    for output in ["", " --output json"] {
        let ran = closed(&format!(
            "enqueue publish_preflight {USER} {CONNECTION} --job-id stored --id-conflict-policy use_existing{output}"
        ));
        assert_eq!(ran.code, 0, "{ran:?}");
        told(&ran, &["stored"]);
    }
    let ran = closed("jobs wait executed");
    assert_eq!(ran.code, 0, "{ran:?}");
    told(&ran, &["executed", "passed"]);
    let ran = closed("oauth-clients create --name ci --role Admin");
    assert_eq!(ran.code, 2, "{ran:?}");
    told(&ran, &["none was created", "--secret-file"]);
    let listed = place.run("oauth-clients list");
    assert!(!listed.stdout.contains("\"ci\""), "{listed:?}");
    let ran = closed("oauth-clients create --name ci --role Admin --secret-file ci.secret");
    assert_eq!(ran.code, 0, "{ran:?}");
    told(&ran, &["ci.secret"]);
}

#[test]
fn output_that_is_thrown_away_on_purpose_is_nothing_to_tell() {
    let place = Place::with_tenant(SandboxOptions::default());
    for command in [
        &format!("execute publish_preflight {USER} {CONNECTION} --job-id executed"),
        &format!("enqueue publish_preflight {USER} {CONNECTION} --job-id stored"),
        "jobs cancel stored",
        "status",
        "oauth-clients create --name ci --role Admin",
    ] {
        let ran = place.shell(&format!("exec \"$IOLAUS\" {command} > /dev/null"), "");
        assert_eq!((ran.code, ran.stderr.contains("stdout")), (0, false), "{command}: {ran:?}");
    }
    // As some programs throw it away, which looks like a closed one. Where nothing is lost it is no error.
    let ran = place.shell("exec \"$IOLAUS\" status 1<> /dev/null", "");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
}
