//! A workflow in Python, as a user would write it, calls our activities by name: `tests/temporal`, on a real server, with our worker as a
//! real process before a simulated tenant.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use iolaus::sandbox::{Sandbox, SandboxOptions};
use serde_json::{Value, json};

use crate::cli::harness::{Place, Running};
use crate::support::cluster::{Cluster, Server};
use crate::support::port::free_port;
use crate::support::python::{self, quiet, run};

const REQUIREMENTS: &str = include_str!("../temporal/requirements.txt");
const WORKFLOW: &str = include_str!("../temporal/publish.py");
const README: &str = include_str!("../../README.md");

const JANE: &str = "8c1e2d8a-1564-4e95-8b14-ea14522fcf61";
const DISABLED: &str = "0d15ab1e-d000-4000-8000-000000000001";

/// A worker of ours with a tenant, and the program in Python that asks it.
struct Stage {
    address: String,
    task_queue: String,
    place: Place,
    worker: Option<Running>,
    _cluster: Option<Arc<Cluster>>,
}

impl Stage {
    /// On the shared server; None if tests on one are to be left out.
    fn shared() -> Option<Self> {
        let cluster = Cluster::shared()?;
        let mut stage = Self::without_worker(cluster.address());
        stage.start_worker();
        Some(Self { _cluster: Some(cluster), ..stage })
    }

    fn without_worker(address: &str) -> Self {
        let task_queue = format!("python-{}", uuid::Uuid::new_v4().simple());
        let mut place = Place::with_tenant(SandboxOptions::default());
        place.set("IOLAUS_HOST__KIND", "temporal");
        place.set("IOLAUS_TEMPORAL__ADDRESS", address);
        place.set("IOLAUS_TEMPORAL__TASK_QUEUE", &task_queue);
        Self { address: address.to_owned(), task_queue, place, worker: None, _cluster: None }
    }

    fn start_worker(&mut self) {
        let mut worker = self.place.start("worker");
        worker.until("the worker is ready");
        self.worker = Some(worker);
    }

    fn sandbox(&self) -> &Sandbox {
        self.place.sandbox()
    }

    /// What the workflow of README made of a question.
    fn ask(&self, question: &Value) -> Value {
        self.run(&json!({"workflow": "Publish", "question": question, "start_within": 60}))
    }

    /// What becomes of a workflow that calls with these arguments.
    fn call(&self, arguments: &Value) -> Value {
        self.run(&json!({"workflow": "Call", "question": arguments, "start_within": 60}))
    }

    fn run(&self, wanted: &Value) -> Value {
        let mut wanted = wanted.clone();
        wanted["address"] = json!(self.address);
        wanted["task_queue"] = json!(self.task_queue);
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/temporal/ask.py");
        let mut command = quiet(python());
        command.arg("-B").arg(program).arg(wanted.to_string()).current_dir(env!("CARGO_TARGET_TMPDIR"));
        let said = run(&mut command).unwrap();
        serde_json::from_str(said.trim()).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

/// A Python with what is required, named after the versions.
fn python() -> PathBuf {
    let packages: Vec<&str> = REQUIREMENTS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let versions: Vec<&str> = packages.iter().map(|package| package.split_once("==").unwrap().1).collect();
    python::with(&format!("temporalio-{}", versions.join("-")), &packages).unwrap()
}

fn question(user: &str) -> Value {
    json!({"user_id": user, "connection_qualified_name": "default/snowflake/1234567890"})
}

fn assert_passed(answer: &Value) {
    assert_eq!(answer["status"], "COMPLETED", "{answer}");
    assert_eq!(answer["result"]["published"], true, "{answer}");
    let verdict = &answer["result"]["verdict"];
    assert_eq!(
        (&verdict["status"], &verdict["attempts"], &verdict["failure"]),
        (&json!("passed"), &json!(1), &Value::Null),
        "{verdict}"
    );
    let passed = |name| json!({"name": name, "passed": true});
    assert_eq!(verdict["checks"], json!([passed("UserEnabled"), passed("AtlanPublishPermission")]));
    assert_eq!(
        verdict["facts"],
        json!({"user_id": JANE, "connection_qualified_name": "default/snowflake/1234567890", "failed_checks": []})
    );
    assert_eq!(verdict["job_id"], format!("{}/1", answer["workflow"].as_str().unwrap()), "it names the workflow that asked");
}

#[test]
fn a_workflow_in_python_gets_the_verdict_as_a_dictionary_and_goes_on() {
    let Some(stage) = Stage::shared() else { return };
    assert_passed(&stage.ask(&question(JANE)));
}

#[test]
fn a_no_of_the_tenant_is_a_result_that_stops_the_workflow() {
    let Some(stage) = Stage::shared() else { return };
    let answer = stage.ask(&question(DISABLED));
    assert_eq!((&answer["status"], &answer["result"]["published"]), (&json!("COMPLETED"), &json!(false)), "{answer}");
    let verdict = &answer["result"]["verdict"];
    assert_eq!((&verdict["status"], &verdict["failure"]), (&json!("failed"), &Value::Null), "{verdict}");
    assert_eq!(verdict["facts"]["failed_checks"], json!(["UserEnabled"]));
    assert_eq!(answer["result"]["why"], verdict["message"]);
}

#[test]
fn what_nobody_could_say_reaches_the_workflow_as_our_code_with_its_record_and_verdict() {
    let Some(stage) = Stage::shared() else { return };
    let answer = stage.ask(&question("nobody"));
    assert_eq!(answer["status"], "FAILED", "{answer}");
    let failure = &answer["failure"];
    let code = "preflight.endpoint_absent";
    assert_eq!(
        (&failure["kind"], &failure["type"], &failure["non_retryable"]),
        (&json!("ApplicationError"), &json!(code), &json!(true)),
        "{failure}"
    );
    let record = &failure["details"][0];
    assert_eq!(
        (&record["code"], &record["category"], &record["audience"]),
        (&json!(code), &json!("UNIMPLEMENTED"), &json!("PLATFORM"))
    );
    let advice = record["suggested_action"].as_str().unwrap();
    assert!(advice.contains("user_id"), "{advice}");
    let said = answer["said"][0].as_str().unwrap();
    assert!(said.starts_with(&format!("{code}: {advice}")), "the workflow itself has code and advice: {said}");
    let verdict = &failure["details"][1];
    assert_eq!((&verdict["status"], &verdict["failure"]), (&json!("unresolved"), record));
}

#[test]
fn an_input_that_is_refused_names_its_field_and_is_not_tried_again() {
    let Some(stage) = Stage::shared() else { return };
    let mut question = question(JANE);
    question["conection"] = json!("default");
    let failure = &stage.ask(&question)["failure"];
    assert_eq!((&failure["type"], &failure["non_retryable"]), (&json!("input.invalid"), &json!(true)), "{failure}");
    assert!(failure["text"].as_str().unwrap().starts_with("input.conection: "), "{failure}");
    assert_eq!(failure["details"][1]["attempts"], 1);
    assert!(stage.sandbox().requests().is_empty(), "the tenant was not asked");
}

#[test]
fn a_second_argument_says_for_which_tenant_it_is_and_is_refused_if_it_says_more() {
    let Some(stage) = Stage::shared() else { return };
    let passed = stage.call(&json!([question(JANE), {"tenant": "default", "labels": {"team": "data"}}]));
    assert_eq!((&passed["result"]["status"], &passed["result"]["tenant"]), (&json!("passed"), &json!("default")), "{passed}");
    let other = &stage.call(&json!([question(JANE), {"tenant": "acme"}]))["failure"];
    assert_eq!((&other["type"], &other["details"][1]["tenant"]), (&json!("tenant.unknown"), &json!("acme")), "{other}");
    let refused = &stage.call(&json!([question(JANE), {"tennant": "acme"}]))["failure"];
    assert_eq!((&refused["type"], &refused["non_retryable"]), (&json!("input.invalid"), &json!(true)), "{refused}");
    assert!(refused["text"].as_str().unwrap().contains("tennant"), "{refused}");
}

#[test]
fn a_tenant_that_is_away_is_asked_as_often_as_the_workflow_says_and_then_is_a_failure() {
    let Some(stage) = Stage::shared() else { return };
    let away = json!({"times": 0, "action": {"kind": "status", "status": 503}});
    stage.sandbox().add_fault(serde_json::from_value(away).unwrap());
    let failure = &stage.ask(&question(JANE))["failure"];
    assert_eq!((&failure["type"], &failure["non_retryable"]), (&json!("tenant.unavailable"), &json!(true)), "{failure}");
    assert_eq!((&failure["details"][0]["retryable"], &failure["details"][1]["attempts"]), (&json!(true), &json!(3)), "{failure}");
    assert!(stage.sandbox().requests().len() >= 3, "each attempt may ask more than once");
}

#[test]
fn without_a_worker_the_bound_on_its_start_ends_the_activity_and_says_so() {
    let Some(cluster) = Cluster::shared() else { return };
    let answer = Stage::without_worker(cluster.address())
        .run(&json!({"workflow": "Publish", "question": question(JANE), "start_within": 2}));
    assert_eq!(answer["status"], "FAILED", "{answer}");
    let failure = &answer["failure"];
    assert_eq!((&failure["kind"], &failure["type"]), (&json!("TimeoutError"), &json!("SCHEDULE_TO_START")), "{failure}");
    // By the server's own clock. The activity as a whole may take 60 s.
    let took = answer["took"].as_f64().unwrap();
    assert!((2.0..20.0).contains(&took), "{answer}");
}

#[test]
fn the_trace_of_who_started_the_workflow_goes_on_to_the_tenant() {
    let Some(stage) = Stage::shared() else { return };
    let answer = stage.ask(&question(JANE));
    let trace = answer["trace_id"].as_str().unwrap();
    assert!(trace.len() == 32 && trace.contains(|digit| digit != '0'), "{answer}");
    assert!(answer["spans"].as_array().unwrap().contains(&json!("StartActivity:publish_preflight")), "{answer}");
    assert_eq!(answer["result"]["verdict"]["trace_id"], trace);
    let sent: Vec<_> = stage.sandbox().requests().into_iter().filter_map(|request| request.traceparent).collect();
    assert!(sent.len() == 1 && sent[0].starts_with(&format!("00-{trace}-")), "{sent:?}");
}

#[test]
fn a_server_without_standalone_activities_runs_those_of_workflows() {
    // Only says whether there is to be a server; this one is the test's own.
    let Some(_shared) = Cluster::shared() else { return };
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let off = ["--dynamic-config-value", "activity.enableStandalone=false"];
    let _server = Server::start_with(port, &directory.path().join("temporal.db"), &off);
    let mut stage = Stage::without_worker(&format!("127.0.0.1:{port}"));
    stage.start_worker();
    let refused = stage.place.run("enqueue publish_preflight user_id=u connection_qualified_name=");
    assert!(refused.code != 0, "standalone activities are off: {refused:?}");
    assert_passed(&stage.ask(&question(JANE)));
    let answer = stage.ask(&question("nobody"));
    assert_eq!(answer["failure"]["type"], "preflight.endpoint_absent", "{answer}");
}

#[test]
fn readme_quotes_the_python_workflow_as_it_is_tested() {
    let quoted = WORKFLOW.split("# quoted from here\n").nth(1).unwrap().split("# to here").next().unwrap();
    assert!(README.contains(&format!("```python\n{quoted}```\n")), "README lacks this block:\n```python\n{quoted}```");
}
