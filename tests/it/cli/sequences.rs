//! `iolaus sequence`: real processes, a sandbox, exit codes and what is printed.

use std::time::Duration;

use iolaus::sandbox::SandboxOptions;
use serde_json::{Value, json};

use super::harness::{CONNECTION, Place, Ran, USER};
use crate::support::tenant::submissions;
use crate::support::watchdog::until;

const TOKEN: &str = "api_token_guid=92588c67-5ddf-4a45-8b5c-dd92f4b84e99";
/// A user who may not publish.
const DENIED: &str = "user_id=90000000-0000-4000-8000-000000000002";

fn quick() -> SandboxOptions {
    SandboxOptions { pending: Duration::from_millis(50), running: Duration::from_millis(200), ..SandboxOptions::default() }
}

fn preset(verb: &str, words: &str) -> String {
    format!("sequence {verb} --preset connector_pipeline {words}")
}

/// The statuses of the steps that were started, by name.
fn steps(ran: &Ran) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let verdict = ran.json();
    let steps = verdict["facts"]["steps"].as_array().expect("steps");
    steps.iter().map(|step| (text(&step["name"]), text(&step["status"]))).collect()
}

fn told(steps: &[(&str, &str)]) -> Vec<(String, String)> {
    steps.iter().map(|(name, status)| ((*name).to_owned(), (*status).to_owned())).collect()
}

#[test]
fn the_connector_pipeline_passes_or_stops_at_the_first_step_that_does_not() {
    let place = Place::with_tenant(quick());
    let passed = place.run(&preset("execute", &format!("{USER} {CONNECTION} {TOKEN} type=snowflake --job-id nightly")));
    assert_eq!(passed.code, 0, "{passed:?}");
    assert_eq!(steps(&passed), told(&[("preflight", "passed"), ("grant", "passed"), ("rerun", "passed")]));
    let runs = submissions(place.sandbox()).len();
    let failed = place.run(&preset("execute", &format!("{DENIED} {CONNECTION} type=snowflake")));
    assert_eq!((failed.code, steps(&failed)), (1, told(&[("preflight", "failed")])), "{failed:?}");
    assert_eq!(submissions(place.sandbox()).len(), runs, "nothing was rerun");
    let unresolved = place.run(&preset("execute", &format!("{USER} {CONNECTION} type=tableau")));
    assert_eq!((unresolved.code, unresolved.json()["failure"]["code"].as_str()), (3, Some("workflow.ambiguous")));
    assert_eq!(steps(&unresolved), told(&[("preflight", "passed"), ("rerun", "unresolved")]));
    // The verbs of any job.
    assert_eq!(place.run("jobs wait nightly").json(), passed.json());
    assert_eq!(place.run("jobs list --activity sequence").json()["jobs"].as_array().map(Vec::len), Some(3));
    assert_eq!(place.run("jobs retry nightly/1").code, 2);
    assert_eq!(place.run("pause activity sequence").code, 2, "nothing of a sequence is claimed but its steps");
}

#[test]
fn a_sequence_is_told_by_its_steps() {
    let place = Place::with_tenant(quick());
    let ran = place.run(&preset("execute", &format!("{DENIED} {CONNECTION} type=snowflake --job-id nightly --output text")));
    filtered(|| {
        insta::assert_snapshot!(ran.stdout, @"
        failed  sequence of tenant default
          message    step preflight failed: User 90000000-0000-4000-8000-000000000002 failed publish preflight checks: AtlanPublishPermission
          step       preflight: failed
          step       rerun: not started
          job        nightly  run [id]
          took       1 step, [duration]
          trace      [trace]
        ");
    });
    filtered(|| {
        insta::assert_snapshot!(place.run("jobs show nightly --output text").stdout, @"
        failed  sequence of tenant default
          message    step preflight failed: User 90000000-0000-4000-8000-000000000002 failed publish preflight checks: AtlanPublishPermission
          step       1 preflight (publish_preflight): failed  nightly/1
          step       2 rerun (workflow_rerun): not started
          job        nightly  run [id]
          took       1 step, [duration]
          trace      [trace]
        ");
    });
    place.run(&preset("enqueue", &format!("{USER} {CONNECTION} type=snowflake --job-id later --delay 1h")));
    filtered(|| {
        insta::assert_snapshot!(place.run("jobs show later --output text").stdout, @"
        running  sequence of tenant default
          job        later  run [id]
          trace      [trace]
          due        [time]
          step       1 preflight (publish_preflight): scheduled, 0 attempts  later/1
          step       2 rerun (workflow_rerun): not started
        ");
    });
    filtered(|| {
        insta::assert_snapshot!(place.run("jobs cancel later --reason enough --output text").stdout, @"later is cancelled");
    });
    assert_eq!(place.run("jobs wait later").code, 4);
}

#[test]
fn a_worker_works_a_sequence_that_was_enqueued_and_its_waiter_is_told_what_it_waits_for() {
    let place = Place::with_tenant(quick());
    let lonely = place.run(&preset("enqueue", &format!("{USER} {CONNECTION} type=snowflake --job-id nightly --wait --timeout 3s")));
    assert_eq!(lonely.code, 5, "{lonely:?}");
    assert!(lonely.stderr.contains("no live worker runs publish_preflight"), "{lonely:?}");
    assert_eq!(place.run("jobs wait nightly --require-worker").code, 6);
    assert_eq!(place.run(&preset("enqueue", &format!("{USER} {CONNECTION} type=snowflake --require-worker"))).code, 6);
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let waited = place.run("jobs wait nightly --require-worker --timeout 30s");
    assert_eq!((waited.code, steps(&waited).len()), (0, 2), "{waited:?}");
    assert_eq!(worker.terminate().code, 0);
}

#[test]
fn sigterm_gives_a_sequence_back_and_the_same_command_goes_on_with_it() {
    let place = Place::with_tenant(SandboxOptions { running: Duration::from_secs(2), ..quick() });
    let words = preset("execute", &format!("{USER} {CONNECTION} type=snowflake --job-id nightly"));
    let first = place.start(&words);
    until("a submission", || !submissions(place.sandbox()).is_empty());
    let ran = first.terminate();
    assert_eq!((ran.code, ran.json()["state"].as_str()), (5, Some("running")), "{ran:?}");
    let ran = place.run(&words);
    assert_eq!((ran.code, steps(&ran)), (0, told(&[("preflight", "passed"), ("rerun", "passed")])), "{ran:?}");
    assert_eq!(submissions(place.sandbox()).len(), 1);
    assert_eq!(place.stored(), 3, "one sequence and its two steps");
}

#[test]
fn a_file_is_shown_as_it_would_be_stored_and_nothing_is() {
    let place = Place::new();
    let file = json!({"schedule_to_close": "3h", "steps": [
        {"name": "rerun", "activity": "workflow_rerun", "input": {"type": "snowflake", "until": "submitted"}, "options": {"maximum_attempts": 2}},
        {"name": "end", "activity": "await_completion", "input": {"run": {"from": "rerun", "fact": "run"}, "timeout": "2h"}, "gate": "soft"},
    ]});
    let path = place.file("steps.json", file.to_string());
    let shown = place.iolaus(["sequence".as_ref(), "show".as_ref(), path.as_os_str()]);
    let shown = shown.json();
    assert_eq!(shown["steps"][0]["options"]["retry"]["maximum_attempts"], 2);
    assert_eq!(shown["steps"][1]["facts"]["run"], json!({"from": "rerun", "fact": "run"}));
    assert_eq!((&shown["schedule_to_close"], &shown["steps"][1]["gate"]), (&json!("3h"), &json!("soft")));
    let text = place.shell("\"$IOLAUS\" sequence show - --output text", &file.to_string());
    insta::assert_snapshot!(text.stdout, @r#"
    sequence of tenant default, in 2 steps
      in all     3h
      step       1 rerun: workflow_rerun of tenant default, hard
        input    {"idempotent":true,"older":"wait","pick":"only","stop_on_cancel":false,"timeout":"1d","type":"snowflake","unknown_fate":"resend","until":"submitted"}
        options  {"slot_class":"work","retry":{"initial_interval":"1s","backoff_coefficient":2.0,"maximum_interval":"1m","maximum_attempts":2,"non_retryable_codes":[]},"timeouts":{"start_to_close":"5m","schedule_to_close":"6h"}}
      step       2 end: await_completion of tenant default, soft
        input    {"stop_on_cancel":false,"timeout":"2h"}
        fact     run = run of rerun
        options  {"slot_class":"waits","retry":{"initial_interval":"1s","backoff_coefficient":2.0,"maximum_interval":"1m","maximum_attempts":0,"non_retryable_codes":[]},"timeouts":{"start_to_close":"130m","schedule_to_close":"3h","heartbeat":"2m"}}
    "#);
    assert!(!place.database().exists(), "nothing was stored");
    let schema = place.run("schema sequence").json();
    assert!(schema["properties"]["steps"].is_object() && schema["$defs"]["StepRequest"].is_object(), "{schema}");
}

#[test]
fn bad_files_and_words_are_refused_with_the_field_and_store_nothing() {
    let place = Place::new();
    let rerun = json!({"name": "rerun", "activity": "workflow_rerun", "input": {"type": "snowflake"}});
    let rows = [
        (
            json!({"steps": [rerun, {"activity": "await_completion", "input": {"run": {"from": "later", "fact": "run"}}}]}),
            "steps[1].input.run.from: ",
        ),
        (json!({"steps": [rerun, rerun]}), "steps[1].name: "),
        (json!({"steps": [{"activity": "nothing"}]}), "steps[0].activity: `nothing` is unknown"),
        (json!({"steps": [{"activity": "workflow_rerun", "input": {"types": "x"}}]}), "steps[0].input.types: unknown field"),
        (json!({"steps": [{"activity": "workflow_rerun", "gate": "firm"}]}), "steps[0].gate: unknown variant"),
        (json!({"step": []}), "step: unknown field"),
        (json!({"steps": []}), "steps: are 0"),
        (json!([1]), "invalid"),
    ];
    for verb in ["execute", "enqueue", "show"] {
        for (file, part) in &rows {
            let ran = place.shell(&format!("\"$IOLAUS\" sequence {verb} -"), &file.to_string());
            assert!(ran.code == 2 && ran.stdout.is_empty() && ran.stderr.contains(part), "{verb} {file}: {ran:?}");
        }
        for (words, part) in [
            ("nowhere.json", "nowhere.json cannot be read"),
            ("a.json b.json", "a sequence is one file"),
            ("--preset other type=x", "connector_pipeline"),
            ("--preset connector_pipeline type=snowflake", "user_id: is missing"),
            ("--preset connector_pipeline user_id=u connection=c", "steps[1].input"),
            ("--preset connector_pipeline alone", "`alone`"),
        ] {
            let ran = place.run(&format!("sequence {verb} {words}"));
            assert!(ran.code == 2 && ran.stdout.is_empty() && ran.stderr.contains(part), "{verb} {words}: {ran:?}");
        }
    }
    let id = "x".repeat(191);
    let ran = place.run(&format!("sequence enqueue --preset connector_pipeline {USER} {CONNECTION} type=snowflake --job-id {id}"));
    assert!(ran.code == 2 && ran.stderr.contains("job_id: has 191 bytes"), "{ran:?}");
    let line = format!("enqueue sequence {USER}");
    assert!(place.run(&line).stderr.contains("iolaus sequence enqueue FILE"));
    assert_eq!(place.stored(), 0);
}

#[test]
fn the_sequence_of_readme_runs_as_readme_says() {
    let section = include_str!("../../../README.md").split("\n## Sequences\n").nth(1).expect("a section");
    let block = |language: &str| {
        section.split(&format!("```{language}\n")).nth(1).and_then(|rest| rest.split("```").next()).expect("a block")
    };
    let place = Place::with_tenant(quick());
    place.file("nightly.json", block("json"));
    let ran = place.run("sequence execute nightly.json --job-id nightly --output text");
    assert_eq!(ran.code, 0, "{ran:?}");
    for line in block("text").lines().filter(|line| !line.contains('…')) {
        assert!(ran.stdout.lines().any(|said| said == line), "`{line}` is missing in {}", ran.stdout);
    }
    assert_eq!(place.run("jobs show nightly/3").json()["verdict"]["status"], "failed");
}

/// What differs from run to run.
fn filtered(snapshot: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "[id]");
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "[time]");
    settings.add_filter(r"\d+(\.\d)? m?s\n", "[duration]\n");
    settings.add_filter(r"[0-9a-f]{32}", "[trace]");
    settings.bind(snapshot);
}
