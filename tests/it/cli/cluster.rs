//! The same commands and exit codes on a cluster, from a shell.

use std::sync::Arc;

use iolaus::sandbox::SandboxOptions;

use super::harness::{CONNECTION, Place, USER};
use super::metrics::{address, get};
use crate::conformance::own_name;
use crate::containers::engine;
use crate::support::cluster::{Cluster, program};

const DISABLED: &str = "user_id=0d15ab1e-d000-4000-8000-000000000001";

/// The program on a task queue of its own, and the server that this needs.
fn place() -> Option<(Place, Arc<Cluster>)> {
    let cluster = Cluster::shared()?;
    let mut place = Place::with_tenant(SandboxOptions::default());
    for (name, value) in
        [("HOST__KIND", "temporal"), ("TEMPORAL__ADDRESS", cluster.address()), ("TEMPORAL__HEARTBEAT_TIMEOUT", "10s")]
    {
        place.set(&format!("IOLAUS_{name}"), value);
    }
    place.set("IOLAUS_TEMPORAL__TASK_QUEUE", own_name());
    Some((place, cluster))
}

#[test]
fn the_commands_of_a_cluster_exit_by_the_verdict_as_everywhere() {
    let Some((place, _cluster)) = place() else { return };
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let job = own_name();
    let preflight = |user: &str, id: &str| place.run(&format!("execute publish_preflight {user} {CONNECTION} --job-id {id}"));
    for (user, code, status) in [(USER, 0, "passed"), (DISABLED, 1, "failed"), ("user_id=nobody", 3, "unresolved")] {
        let ran = preflight(user, &format!("{job}-{status}"));
        assert_eq!((ran.code, ran.json()["status"].as_str()), (code, Some(status)), "{ran:?}");
    }
    let again = place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id {job}-passed --id-reuse-policy reject"));
    assert!(again.code == 2 && again.stderr.contains("exists already"), "{again:?}");
    let shown = place.run(&format!("jobs show {job}-unresolved"));
    assert_eq!((shown.code, shown.json()["state"].as_str()), (0, Some("discarded")), "{shown:?}");
    let retried = place.run(&format!("jobs retry {job}-unresolved"));
    assert_eq!(retried.code, 0, "{retried:?}");
    assert_eq!(place.run(&format!("jobs wait {job}-unresolved")).code, 3);
    let pipeline =
        format!("sequence execute --preset connector_pipeline {USER} {CONNECTION} type=snowflake --job-id {job}-pipeline");
    let ran = place.run(&pipeline);
    assert_eq!((ran.code, ran.json()["status"].as_str()), (0, Some("passed")), "{ran:?}");
    assert_eq!(place.run(&format!("jobs show {job}-pipeline/2")).json()["activity"], "workflow_rerun");
    let paused = place.run("pause tenant default");
    assert!(paused.code == 2 && paused.stderr.contains("not possible on the temporal host"), "{paused:?}");
    assert_eq!(worker.terminate().code, 0);
}

#[test]
fn a_worker_of_a_deployment_version_works_jobs_and_sequences_once_its_version_is_the_current_one() {
    let Some((mut place, cluster)) = place() else { return };
    let deployment = own_name();
    place.set("IOLAUS_TEMPORAL__DEPLOYMENT", &deployment);
    place.set("IOLAUS_TEMPORAL__BUILD_ID", "b1");
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let enqueued = place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id {deployment}-early"));
    assert_eq!(enqueued.code, 0, "{enqueued:?}");
    let (program, address) = (program(), ["--address", cluster.address()]);
    let current = ["worker", "deployment", "set-current-version", "--yes", "--deployment-name", &deployment, "--build-id", "b1"];
    let set = || engine::attempt(program.to_str().unwrap(), current.iter().chain(&address));
    // The version is there once its workers have polled. Each question takes the start of a process.
    assert!((0..200).any(|_| set().is_ok()), "{:?}", set());
    assert_eq!(place.run(&format!("jobs wait {deployment}-early")).code, 0);
    let ran = place.run(&format!("sequence execute --preset connector_pipeline {USER} {CONNECTION} type=snowflake"));
    assert_eq!((ran.code, ran.json()["status"].as_str()), (0, Some("passed")), "{ran:?}");
    assert_eq!(worker.terminate().code, 0);
}

#[test]
fn a_cluster_without_a_worker_is_said_to_have_none_and_a_waiting_job_can_be_cancelled() {
    let Some((place, _cluster)) = place() else { return };
    let job = own_name();
    let waited = place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id {job} --wait --timeout 15s"));
    assert!(waited.code == 5 && waited.stderr.contains("no live worker runs publish_preflight on task queue"), "{waited:?}");
    let required = place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --wait --require-worker"));
    assert!(required.code == 6 && required.stderr.contains("iolaus worker"), "{required:?}");
    assert_eq!(place.run(&format!("jobs cancel {job} --reason enough")).code, 0);
    let cancelled = place.run(&format!("jobs wait {job}"));
    assert_eq!((cancelled.code, cancelled.json()["message"].as_str()), (4, Some("enough")), "{cancelled:?}");
}

#[test]
fn a_cluster_that_is_not_there_is_named_with_its_address() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("IOLAUS_HOST__KIND", "temporal");
    // Temporal's own variable is honoured where nothing else is said.
    place.set("TEMPORAL_ADDRESS", "127.0.0.1:9");
    place.set("IOLAUS_TEMPORAL__CONNECT_TIMEOUT", "1s");
    for command in ["jobs list".to_owned(), format!("enqueue publish_preflight {USER} {CONNECTION}"), "worker".to_owned()] {
        let ran = place.run(&command);
        assert!(ran.code == 6 && ran.stderr.contains("127.0.0.1:9"), "{command}: {ran:?}");
    }
}

#[test]
fn a_namespace_that_is_not_there_is_no_unknown_job_and_doctor_tells_it() {
    let Some((mut place, _cluster)) = place() else { return };
    let well = place.run("doctor");
    assert!(well.json()["findings"].as_array().unwrap().iter().all(|finding| finding["state"] != "fail"), "{well:?}");
    assert_eq!(place.run("jobs show nobody").code, 2);
    place.set("IOLAUS_TEMPORAL__NAMESPACE", "nowhere");
    for command in ["jobs show nobody", "jobs list", "jobs cancel nobody", "worker"] {
        let ran = place.run(command);
        assert!(ran.code == 6 && ran.stderr.contains("nowhere") && ran.stderr.contains("temporal.namespace"), "{command}: {ran:?}");
    }
    let ill = place.run("doctor");
    assert!(ill.code == 6 && ill.stdout.contains("nowhere"), "{ill:?}");
}

#[test]
fn a_worker_of_a_cluster_answers_probes_and_metrics_and_drains_when_it_is_told_to() {
    let Some((mut place, _cluster)) = place() else { return };
    place.set("IOLAUS_HTTP__LISTEN", "127.0.0.1:0");
    let mut worker = place.start("worker");
    let at = address(&mut worker);
    assert_eq!(get(&at, "/livez").expect("an answer").0, 200);
    assert_eq!(get(&at, "/readyz").expect("an answer"), (200, "ready\n".to_owned()));
    assert_eq!(place.run(&format!("execute publish_preflight {USER} {CONNECTION}")).code, 0);
    let (status, text) = get(&at, "/metrics").expect("an answer");
    assert_eq!(status, 200);
    for line in [
        "iolaus_worker_slots_limit{slot_class=\"work\"} 32",
        "iolaus_worker_slots_used{slot_class=\"waits\"} 0",
        "iolaus_job_attempts_total{activity=\"publish_preflight\",outcome=\"completed\",tenant=\"default\"} 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.contains("iolaus_job_verdicts_total") && text.contains("messaging_process_duration_seconds"), "{text}");
    assert_eq!(worker.terminate().code, 0);
}
