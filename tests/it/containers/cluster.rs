//! The profile `cluster` of the Compose file: a Temporal server and two workers. `IOLAUS_SKIP_CLUSTER=1` leaves it out, aloud.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::engine::{self, Engine};
use super::stack::Stack;
use super::{CONNECTION, PORT, USER, break_the_tenant, http};
use crate::support::cluster::program;

const WORKERS: [&str; 2] = ["cluster-worker-1", "cluster-worker-2"];
/// The workflow whose rerun is interrupted.
const MINER: &str = "atlan-snowflake-miner-1684500600";
const RERUN: &str = "interrupted";
/// What makes a command in any container one of the cluster, with heartbeats that are soon missed.
const OF_CLUSTER: [&str; 6] = [
    "--env",
    "IOLAUS_HOST__KIND=temporal",
    "--env",
    "IOLAUS_TEMPORAL__ADDRESS=temporal:7233",
    "--env",
    "IOLAUS_TEMPORAL__HEARTBEAT_TIMEOUT=10s",
];
/// Preflights that are in hand at the same time.
const PREFLIGHTS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_a_worker_that_is_killed_in_mid_job_costs_no_job_its_one_verdict_and_no_effect_happens_twice() {
    if crate::support::skip::skips_cluster() {
        return;
    }
    let Some(engine) = Engine::with_image() else { return };
    let temporal = engine.import_temporal(&program());
    let Some(stack) = Stack::up(&engine, "--profile cluster", [format!("TEMPORAL_IMAGE={temporal}")]) else { return };
    let containers = WORKERS.map(|worker| stack.container(worker));
    // The image's own health check, which here asks the cluster who polls it.
    for container in &containers {
        engine::until_healthy(container);
    }
    let bystander = stack.container("sandbox");
    let probe = [bystander.as_str(), "iolaus", "status", "--require-worker=here"];
    assert_eq!(engine::ended("docker", ["exec"].into_iter().chain(OF_CLUSTER).chain(probe)).0, Some(6), "no worker is there");

    let (code, verdict) = stack.iolaus(WORKERS[0], &format!("execute publish_preflight {USER} {CONNECTION}"));
    assert_eq!((code, verdict["status"].as_str()), (Some(0), Some("passed")), "{verdict}");
    let (code, verdict) = stack.iolaus(WORKERS[1], "execute workflow_rerun type=snowflake");
    assert_eq!((code, verdict["status"].as_str()), (Some(0), Some("passed")), "{verdict}");

    let sandbox = stack.run(&format!("port sandbox {PORT}"));
    // Applied at once and answered late, so that every job is in hand, and the rerun's effect is there, when a worker dies.
    // The rerun's answer is so late that a busy machine has the time to find and kill its worker.
    for (path, times, ms) in [("publish", PREFLIGHTS, 6_000), ("submit", 1, 60_000)] {
        break_the_tenant(&sandbox, &json!({"path": path, "times": times, "action": {"kind": "delay", "ms": ms}})).await;
    }
    let producer = enqueue_and_wait(&bystander);
    let victim = until_submitted(&stack, &sandbox).await;
    let killed = containers.iter().find(|container| victim.starts_with(&container[..12])).expect("it is one of the two");
    engine::run("docker", ["kill", killed]);
    let ended = crate::support::child::output(producer, "the producer");
    assert!(ended.status.success(), "{ended:?}");

    let verdicts = by_job(&String::from_utf8(ended.stdout).unwrap());
    assert_eq!(verdicts.len(), PREFLIGHTS + 1, "{verdicts:?}");
    for (job, verdicts) in &verdicts {
        assert!(verdicts.len() == 1 && verdicts[0]["status"] == "passed", "{job}: {verdicts:?}");
    }
    assert!(verdicts[RERUN][0]["attempts"].as_u64() >= Some(2), "{:?}", verdicts[RERUN]);
    assert_eq!(submissions(&sandbox).await, 1);
    let survivor = containers.iter().find(|container| *container != killed).unwrap();
    engine::run("docker", ["stop", "--time", "45", survivor]);
    let codes =
        [killed, survivor].map(|container| engine::run("docker", ["inspect", "--format", "{{.State.ExitCode}}", container]));
    assert_eq!(codes, ["137", "0"], "one was killed, and the other drained");
    let told = containers.iter().flat_map(|container| told_in_log(container)).collect::<Vec<_>>();
    for job in verdicts.keys() {
        let times = told.iter().filter(|told| *told == job).count();
        assert!(times <= 1, "{job} was told as closed {times} times");
    }
    assert!(told.iter().any(|job| job == RERUN), "{told:?}");
    stack.down_without_a_trace(&["container ls --all", "network ls"]);
}

/// A process that prints each job's verdict; in a container that outlives both workers.
fn enqueue_and_wait(container: &str) -> std::process::Child {
    let rerun = json!({"activity": "workflow_rerun", "job_id": RERUN, "input": {"workflow": MINER}});
    let input: BTreeMap<_, _> = [USER, CONNECTION].into_iter().filter_map(|word| word.split_once('=')).collect();
    let preflights =
        (0..PREFLIGHTS).map(|n| json!({"activity": "publish_preflight", "job_id": format!("preflight-{n}"), "input": input}));
    let lines: Vec<_> = std::iter::once(rerun).chain(preflights).map(|job| job.to_string()).collect();
    let command = [container, "iolaus", "enqueue", "--jobs", "-", "--wait", "--output", "json"];
    engine::fed("docker", ["exec", "--interactive"].into_iter().chain(OF_CLUSTER).chain(command), &lines.join("\n"))
}

/// The worker that has the rerun in hand, once the tenant has applied it. Each question takes the start of a process.
async fn until_submitted(stack: &Stack<'_>, sandbox: &str) -> String {
    for _ in 0..50 {
        let (_, job) = stack.iolaus(WORKERS[0], &format!("jobs show {RERUN} --output json"));
        assert!(job["verdict"].is_null(), "it ended before its worker could be killed: {job}");
        if let (Some(worker), 1) = (job["worker"].as_str(), submissions(sandbox).await) {
            return worker.to_owned();
        }
    }
    panic!("it was not submitted");
}

/// How many runs of the workflow were started.
async fn submissions(sandbox: &str) -> usize {
    let ledger: Vec<Value> = http().get(format!("http://{sandbox}/sandbox/ledger")).send().await.unwrap().json().await.unwrap();
    ledger.iter().filter(|effect| effect["kind"] == "run_submitted" && effect["workflow"] == MINER).count()
}

/// Each line's verdict, by its job.
fn by_job(lines: &str) -> BTreeMap<String, Vec<Value>> {
    let mut verdicts = BTreeMap::<_, Vec<_>>::new();
    for line in lines.lines() {
        let verdict: Value = serde_json::from_str(line).unwrap();
        verdicts.entry(verdict["job_id"].as_str().unwrap().to_owned()).or_default().push(verdict);
    }
    verdicts
}

/// The jobs that a worker's log says have ended, as often as it says so.
fn told_in_log(container: &str) -> Vec<String> {
    let log = engine::run("sh", ["-c", &format!("docker logs {container} 2>&1")]);
    let lines = log.lines().filter(|line| line.contains("iolaus.job.verdict: "));
    lines.filter_map(|line| Some(serde_json::from_str::<Value>(line).ok()?["iolaus.job.id"].as_str()?.to_owned())).collect()
}
