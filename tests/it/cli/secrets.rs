//! Nothing secret is left anywhere: not in what commands print, at any log level, nor in spans, the queue's files, checkpoints, verdicts.

use std::process::{Command, Stdio};

use iolaus::sandbox::{Action, Fault, SandboxOptions};
use serde_json::json;

use super::harness::{CONNECTION, Place, USER};
use super::traces::Collector;
use crate::support::skip::{Need, skip};
use crate::support::watchdog::until;

const TOKEN: &str = "api_token_guid=92588c67-5ddf-4a45-8b5c-dd92f4b84e99";

/// Runs every activity to a good and to a bad end, with a worker and without one, and answers all that was said and kept.
fn everything_said_and_kept(mut place: Place) -> Vec<(String, Vec<u8>)> {
    let collector = Collector::start();
    place.set("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address));
    place.set("IOLAUS_LOG", "trace");
    place.set("IOLAUS_TENANTS__DEFAULT__INDEX_LAG", "10ms");
    let mut said = Vec::new();
    let faults = [
        Action::Status { status: 401, headers: Vec::new(), body: json!({"code": 401, "message": "unauthorized"}) },
        Action::Status { status: 403, headers: Vec::new(), body: json!({"code": 403, "message": "forbidden"}) },
        Action::Status { status: 500, headers: Vec::new(), body: json!({"code": 500, "message": "oops"}) },
        Action::CutAfterApplying,
        Action::Garbage,
    ];
    let commands = [
        format!("execute publish_preflight {USER} {CONNECTION}"),
        format!("execute token_admin_grant {CONNECTION} {TOKEN}"),
        "execute workflow_rerun type=snowflake until=submitted".to_owned(),
        "execute await_completion run=csa-api-token-connection-admin-1684500411-t7s8b".to_owned(),
        "doctor".to_owned(),
        "status".to_owned(),
        "workflows find snowflake".to_owned(),
    ];
    for fault in [None].into_iter().chain(faults.into_iter().map(Some)) {
        for (n, command) in commands.iter().enumerate() {
            if let Some(action) = &fault {
                place.sandbox().add_fault(Fault::new(action.clone()));
            }
            let ran = place.run(command);
            place.sandbox().clear_faults();
            said.push((format!("stdout of {command} {n} {fault:?}"), ran.stdout.into_bytes()));
            said.push((format!("stderr of {command} {n} {fault:?}"), ran.stderr.into_bytes()));
        }
    }
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let waited = place.run(&format!("enqueue token_admin_grant {CONNECTION} {TOKEN} --wait"));
    assert_eq!(waited.code, 0, "{waited:?}");
    said.push(("stdout of enqueue".into(), waited.stdout.into_bytes()));
    let ended = worker.terminate();
    said.push(("stderr of the worker".into(), ended.stderr.into_bytes()));
    said.push(("what was exported".into(), collector.stop().into_bytes()));
    said.extend(place.files().into_iter().map(|(path, bytes)| (path.display().to_string(), bytes)));
    said
}

/// None of these patterns is found anywhere.
fn without(secrets: &[&str], said: &[(String, Vec<u8>)]) {
    let finds = |pattern: &str, bytes: &[u8]| regex::Regex::new(pattern).unwrap().is_match(&String::from_utf8_lossy(bytes));
    assert!(said.iter().any(|(_, bytes)| finds("publish_preflight", bytes)), "there is something to search");
    assert!(said.iter().any(|(name, bytes)| name.ends_with("iolaus.db") && !bytes.is_empty()), "the queue is among it");
    for secret in secrets {
        for (name, bytes) in said {
            assert!(!finds(secret, bytes), "a secret ({secret}) is in {name}");
        }
    }
}

/// A command as a user who is not root.
fn as_nobody(words: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(words).env_clear().env("ATLAN_API_KEY", "k-hush-hush");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn another_process_of_the_same_user_cannot_read_the_environment_of_ours() {
    let program = env!("CARGO_BIN_EXE_iolaus");
    let tried = as_nobody(&[program, "--version"]).status();
    if !tried.as_ref().is_ok_and(std::process::ExitStatus::success) {
        skip(Need::OtherUser, &format!("no program can be run as another user here: {tried:?}"));
        return;
    }
    let reads = |id: u32| as_nobody(&["cat", &format!("/proc/{id}/environ")]).status().unwrap().success();
    let others = as_nobody(&["cat"]).spawn().unwrap();
    let mut ours = as_nobody(&[program, "sandbox", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    until("the environment of any other program can be read", || reads(others.id()));
    until("ours cannot", || !reads(ours.id()));
    assert!(ours.try_wait().unwrap().is_none(), "it has ended");
    for mut child in [others, ours] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_key_that_is_pasted_where_a_file_is_named_is_not_shown() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("IOLAUS_LOG", "trace");
    place.set("IOLAUS_TENANTS__DEFAULT__API_KEY_FILE", "k-hush-hush");
    for command in [&format!("execute publish_preflight {USER} {CONNECTION}"), "worker", "doctor", "whoami"] {
        let ran = place.run(command);
        assert_eq!(ran.code, 2, "{command}: {ran:?}");
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains("api_key_file"), "{command}: {ran:?}");
        assert!(!ran.stdout.contains("hush") && !ran.stderr.contains("hush"), "{command}: {ran:?}");
    }
}

#[test]
fn a_password_in_the_address_of_a_collector_is_not_shown_and_the_variable_is_named() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("IOLAUS_LOG", "trace");
    place.set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:k-hush-hush@127.0.0.1:1");
    let ran = place.run(&format!("execute publish_preflight {USER} {CONNECTION}"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("OTEL_EXPORTER_OTLP_ENDPOINT holds a user or a password"), "{ran:?}");
    assert!(!ran.stdout.contains("hush") && !ran.stderr.contains("hush"), "{ran:?}");
}

#[test]
fn a_wrong_address_of_a_collector_is_not_shown_and_the_variable_is_named() {
    let mut place = Place::new();
    for wrong in ["https//u:k-hush-hush@h:1", "http:/u:k-hush-hush@h", "k-hush-hush", "http://[k-hush-hush"] {
        place.set("OTEL_EXPORTER_OTLP_ENDPOINT", wrong);
        let ran = place.run("status");
        assert!(ran.code == 0 && ran.stderr.contains("exported: OTEL_EXPORTER_OTLP_ENDPOINT"), "{wrong}: {ran:?}");
        assert!(!ran.stdout.contains("hush") && !ran.stderr.contains("hush"), "{wrong}: {ran:?}");
    }
}

#[test]
fn no_api_key_is_left_anywhere_after_everything_was_run() {
    let said = everything_said_and_kept(Place::with_tenant(SandboxOptions::default()));
    without(&["sandbox-api-token"], &said);
}

#[test]
fn no_secret_of_an_oauth_client_and_no_token_for_it_is_left_anywhere() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("ATLAN_API_KEY", "");
    place.set("ATLAN_OAUTH_CLIENT_ID", "oauth-client-sandbox");
    place.set("ATLAN_OAUTH_CLIENT_SECRET", "sandbox-oauth-secret");
    let said = everything_said_and_kept(place);
    without(&["sandbox-oauth-secret", "oauth-[0-9a-f]{32}"], &said);
}

#[test]
fn no_secret_of_a_service_account_and_no_token_for_it_is_left_anywhere() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("ATLAN_API_KEY", "");
    place.set("IOLAUS_TENANTS__DEFAULT__KEYCLOAK_CLIENT_ID", "connector");
    place.set("IOLAUS_TENANTS__DEFAULT__KEYCLOAK_CLIENT_SECRET", "sandbox-connector-secret");
    let said = everything_said_and_kept(place);
    without(&["sandbox-connector-secret", r"eyJ[A-Za-z0-9_-]{20,}\."], &said);
}
