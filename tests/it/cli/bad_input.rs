//! Bad input is refused with the field and the reason, exit code 2, and nothing is stored.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::harness::{CONNECTION, Place, USER};

fn refused(place: &Place, arguments: &[&str], parts: &[&str]) {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    refused_os(place, &arguments, parts);
}

fn refused_os(place: &Place, arguments: &[OsString], parts: &[&str]) {
    for verb in ["enqueue", "execute"] {
        let ran = place.iolaus(std::iter::once(OsString::from(verb)).chain(arguments.iter().cloned()));
        assert_eq!(ran.code, 2, "{verb} {arguments:?}: {ran:?}");
        assert!(ran.stdout.is_empty(), "{verb} {arguments:?}: {ran:?}");
        for part in parts {
            assert!(ran.stderr.contains(part), "{verb} {arguments:?}: `{part}` is missing in {}", ran.stderr);
        }
        assert_eq!(place.stored(), 0, "{verb} {arguments:?} stored something");
    }
}

#[test]
fn a_key_that_is_given_twice_is_refused_by_name_wherever_json_comes_in() {
    let place = Place::new();
    let twice = r#"{"user_id": "a", "connection_qualified_name": "", "user_id": "b"}"#;
    let part = "the key `user_id` is given twice";
    refused(&place, &["publish_preflight", "--input", twice], &["--input", part]);
    let file = place.file("twice.json", twice);
    refused(&place, &["publish_preflight", "--input-file", file.to_str().expect("text")], &["twice.json", part]);
    let line = format!(r#"{{"activity": "publish_preflight", "input": {twice}}}"#);
    let ran = place.shell("\"$IOLAUS\" enqueue --jobs -", &line);
    assert!(ran.code == 2 && ran.stderr.contains("line 1") && ran.stderr.contains(part), "{ran:?}");
    let ran = place.shell("\"$IOLAUS\" enqueue --jobs - --on-error skip", &line);
    assert!(ran.code == 2 && ran.stderr.contains("line 1") && ran.stderr.contains(part), "{ran:?}");
    let sequence = place
        .file("sequence.json", format!(r#"{{"steps": [{{"name": "a", "activity": "publish_preflight", "input": {twice}}}]}}"#));
    let ran = place.run(&format!("sequence enqueue {}", sequence.display()));
    assert!(ran.code == 2 && ran.stderr.contains("sequence.json") && ran.stderr.contains(part), "{ran:?}");
    let labels = r#"{"activity": "publish_preflight", "labels": {"a": "1", "a": "2"}}"#;
    let ran = place.shell("\"$IOLAUS\" enqueue --jobs -", labels);
    assert!(ran.code == 2 && ran.stderr.contains("the key `a` is given twice"), "{ran:?}");
    assert_eq!(place.stored(), 0);
}

#[test]
fn a_time_without_a_unit_is_refused_in_words_json_and_flags() {
    let place = Place::new();
    let part = "`5` has no unit";
    refused(&place, &["await_completion", "run=r", "timeout=5"], &["input.timeout", part]);
    refused(&place, &["await_completion", "--input", r#"{"run": "r", "timeout": 5}"#], &["input.timeout", part]);
    refused(&place, &["await_completion", "run=r", "--delay", "5"], &["--delay", part]);
}

#[test]
fn wrong_activities_fields_types_and_ids_are_refused_by_field_and_store_nothing() {
    let place = Place::new();
    let preflight = "publish_preflight";
    let long = "x".repeat(201);
    let rows: &[(&[&str], &[&str])] = &[
        (&["no_such_thing"], &["activity", "`no_such_thing` is unknown", "publish_preflight"]),
        (&[preflight, USER, CONNECTION, "colour=red"], &["input.colour", "unknown field"]),
        (&[preflight, USER], &["missing field", "connection_qualified_name"]),
        (&[preflight, "user_id=", CONNECTION], &["input.user_id", "must not be empty"]),
        (&[preflight, USER, USER, CONNECTION], &["input.user_id", "given twice"]),
        (&[preflight, "alone"], &["`alone`", "key=value"]),
        (&[preflight, "--input", "[1]"], &["input", "must be a JSON object"]),
        (&[preflight, "--input", "{"], &["--input is no JSON"]),
        (&[preflight, "--input", "{\"user_id\": 3, \"connection_qualified_name\": \"\"}"], &["input.user_id", "invalid type"]),
        (&["await_completion", "run=r", "stop_on_cancel=maybe"], &["input.stop_on_cancel", "boolean"]),
        (&["await_completion", "run=r", "timeout=3weeks"], &["input.timeout", "no duration"]),
        (&[preflight, USER, CONNECTION, "--job-id", ""], &["job_id", "must not be empty"]),
        (&[preflight, USER, CONNECTION, "--job-id", "nightly/3"], &["job_id", "must not end in `/` and digits"]),
        (&[preflight, USER, CONNECTION, "--job-id", &long], &["job_id", "201 bytes"]),
        (&[preflight, USER, CONNECTION, "--tenant", "acme"], &["tenant", "`acme` is not configured"]),
        (&[preflight, USER, CONNECTION, "--priority", "9"], &["--priority", "1..=5"]),
        (&[preflight, USER, CONNECTION, "--delay", "soon"], &["--delay", "`soon` is no duration"]),
        (&[preflight, USER, CONNECTION, "--label", "=x"], &["`=x`"]),
        (&[preflight, USER, CONNECTION, "--label", "a=1", "--label", "a=2"], &["labels.a", "given twice"]),
        (&[preflight, USER, CONNECTION, "--start-to-close", "0s"], &["options.start_to_close"]),
        (&[preflight, USER, CONNECTION, "--id-conflict-policy", "maybe"], &["--id-conflict-policy", "use_existing"]),
        (&[preflight, USER, CONNECTION, "--colour", "red"], &["--colour"]),
    ];
    for (arguments, parts) in rows {
        refused(&place, arguments, parts);
    }
}

#[test]
fn a_refusal_of_something_huge_is_a_short_line() {
    let place = Place::new();
    let huge = "x".repeat(10 << 20);
    for line in [
        format!("{{\"activity\": \"{huge}\", \"input\": {{}}}}"),
        format!("{{\"activity\": \"publish_preflight\", \"{huge}\": 1}}"),
        format!(
            "{{\"activity\": \"publish_preflight\", \"tenant\": \"{huge}\", \"input\": {{\"user_id\": \"u\", \"connection_qualified_name\": \"\"}}}}"
        ),
    ] {
        for on_error in ["stop", "skip"] {
            let ran = place.shell(&format!("\"$IOLAUS\" enqueue --jobs - --on-error {on_error}"), &line);
            assert_eq!((ran.code, place.stored()), (2, 0), "{}", ran.stderr.len());
            assert!(ran.stderr.len() < 64 * 1024, "{} bytes", ran.stderr.len());
        }
    }
}

#[test]
fn what_a_refused_line_quotes_neither_acts_on_a_terminal_nor_makes_a_line_of_its_own() {
    let place = Place::new();
    let odd = "no\u{1b}[2J\nFORGED\r\u{202e}";
    let input = serde_json::json!({"user_id": "u", "connection_qualified_name": "", odd: 1});
    let lines = [
        serde_json::json!({"activity": odd, "input": {}}),
        serde_json::json!({"activity": "publish_preflight", "input": input}),
        serde_json::json!({"activity": "publish_preflight", "input": {}, "tenant": odd}),
        serde_json::json!({"activity": "publish_preflight", "input": {}, "labels": {odd: "x".repeat(10_000)}}),
    ];
    for line in &lines {
        for on_error in ["stop", "skip"] {
            let ran = place.shell(&format!("\"$IOLAUS\" enqueue --jobs - --on-error {on_error}"), &line.to_string());
            assert_eq!((ran.code, place.stored()), (2, 0), "{ran:?}");
            let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!ran.stderr.contains(acts), "{ran:?}");
            assert!(!ran.stderr.lines().any(|line| line.starts_with("FORGED")), "{ran:?}");
        }
    }
}

#[test]
fn what_is_not_utf_8_is_refused_by_name_and_stores_nothing() {
    let place = Place::new();
    let broken = |text: &[u8]| OsString::from_vec(text.to_vec());
    refused_os(&place, &["publish_preflight".into(), broken(b"user_id=\xff"), CONNECTION.into()], &["user_id=", "not UTF-8"]);
    refused_os(&place, &["publish_preflight".into(), "--job-id".into(), broken(b"a\xff")], &["--job-id", "not UTF-8"]);
    refused_os(&place, &[broken(b"publish\xff")], &["not UTF-8"]);
    let file = place.file("input.json", b"{\"user_id\": \"\xff\"}");
    refused_os(&place, &["publish_preflight".into(), "--input-file".into(), file.into()], &["input.json", "not UTF-8"]);
}

#[test]
fn an_input_of_two_megabytes_is_refused_and_stores_nothing() {
    let place = Place::new();
    let file =
        place.file("large.json", format!("{{\"user_id\": \"{}\", \"connection_qualified_name\": \"\"}}", "x".repeat(2_000_000)));
    refused_os(&place, &["publish_preflight".into(), "--input-file".into(), file.into()], &["input", "at most 1048576"]);
}

#[test]
fn a_wrong_configuration_is_refused_with_key_source_and_hint() {
    let mut place = Place::new();
    place.set("IOLAUS_WORKER__SLOTS_WROK", "3");
    let parts = ["worker.slots_wrok", "IOLAUS_WORKER__SLOTS_WROK", "did you mean `worker.slots_work`?"];
    refused(&place, &["publish_preflight", USER, CONNECTION], &parts);
    assert_eq!(place.run("schema verdict").code, 0, "what needs no configuration is not stopped by it");
}

#[test]
fn execute_and_worker_refuse_a_tenant_that_cannot_be_asked_and_enqueue_warns() {
    let mut place = Place::new();
    let execute = format!("execute publish_preflight {USER} {CONNECTION}");
    let refused = |place: &Place, line: &str, parts: &[&str]| {
        let ran = place.run(line);
        assert_eq!((ran.code, ran.stdout.as_str(), place.stored()), (2, "", 0), "{line}: {ran:?}");
        for part in parts {
            assert!(ran.stderr.contains(part), "{line}: `{part}` is missing in {}", ran.stderr);
        }
    };
    for line in [execute.as_str(), "worker"] {
        refused(&place, line, &["`tenants.default.base_url` is not set", "hint: set ATLAN_BASE_URL="]);
    }
    place.file("acme.toml", "[tenants.acme]\nbase_url = 'http://127.0.0.1:1'\n");
    refused(&place, &format!("{execute} --config acme.toml --tenant acme"), &["`tenants.acme.api_key`", "[tenants.acme]"]);
    place.set("ATLAN_BASE_URL", "http://127.0.0.1:1");
    for line in [execute.as_str(), "worker"] {
        refused(&place, line, &["`tenants.default.api_key` is not set", "hint: set ATLAN_API_KEY"]);
    }
    let enqueue = format!("enqueue publish_preflight {USER} {CONNECTION}");
    let without_key = place.run(&enqueue);
    assert_eq!((without_key.code, without_key.stderr.as_str(), place.stored()), (0, "", 1), "{without_key:?}");
    place.set("ATLAN_BASE_URL", "");
    let without_address = place.run(&enqueue);
    assert_eq!((without_address.code, place.stored()), (0, 2), "{without_address:?}");
    assert!(without_address.stderr.contains("warning: tenants.default.base_url is not set here"), "{without_address:?}");
}

#[test]
fn one_bad_line_of_many_stores_nothing_unless_it_is_to_be_skipped() {
    let place = Place::new();
    let good = r#"{"activity": "publish_preflight", "input": {"user_id": "u", "connection_qualified_name": ""}}"#;
    let lines = format!("{good}\n\n{{\"activity\": \"publish_preflight\", \"inputs\": {{}}}}\n{good}\n");
    place.file("jobs.jsonl", &lines);
    let stopped = place.run("enqueue --jobs jobs.jsonl");
    assert_eq!(stopped.code, 2);
    assert!(stopped.stderr.contains("line 3") && stopped.stderr.contains("inputs"), "{}", stopped.stderr);
    assert_eq!(place.stored(), 0);
    let both = place.run("enqueue --jobs jobs.jsonl --tenant acme");
    assert!(both.code == 2 && both.stderr.contains("cannot be used with"), "what would be ignored is refused: {both:?}");
    let skipped = place.run("enqueue --jobs jobs.jsonl --on-error skip");
    assert_eq!((skipped.code, skipped.stdout.lines().count()), (2, 2), "{skipped:?}");
    assert_eq!(place.stored(), 2);
}
