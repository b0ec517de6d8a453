//! What is printed without a job: help, schemas, completions, and who reads it.

use std::process::Stdio;

use super::harness::Place;

#[test]
fn every_schema_is_one_line_of_json() {
    let place = Place::new();
    let all = place.run("schema");
    assert_eq!((all.code, all.stdout.lines().count()), (0, 1));
    for name in ["verdict", "job_request", "publish_preflight"] {
        let one = place.run(&format!("schema {name}")).json();
        assert_eq!(one["type"], "object", "{name}");
    }
    let required = place.run("schema verdict").json()["required"].to_string();
    assert!(required.contains("trace_id") && required.contains("checks"), "{required}");
    assert_eq!(place.run("schema nothing").code, 2);
    assert!(!place.database().exists(), "a schema needs no queue");
}

#[test]
fn completions_and_help_need_nothing() {
    let mut place = Place::new();
    place.set("IOLAUS_NONSENSE", "1");
    assert!(place.run("completions bash").stdout.contains("iolaus"));
    for line in ["--help", "help jobs wait", "--version"] {
        assert_eq!(place.run(line).code, 0, "{line}");
    }
    assert_eq!(place.run("").code, 2);
}

#[test]
fn a_sandbox_prints_what_to_export_and_stops_in_order() {
    let place = Place::new();
    let mut sandbox = place.start("sandbox --listen 127.0.0.1:0");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(sandbox.stdout()), &mut line).expect("a line");
    let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert!(said["ATLAN_BASE_URL"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")), "{said}");
    assert_eq!(sandbox.terminate().code, 0);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let place = Place::new();
    let mut child = place.spawn("schema", Stdio::piped());
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
