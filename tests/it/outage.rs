//! A tenant that is down for ten minutes in the middle of two hundred reruns: every one of them passes, with one effect each.

use std::time::Duration;

use iolaus::embedded::{Worker, WorkerOptions};
use iolaus::sandbox::{Generation, SandboxOptions};
use iolaus_activities::Status;
use serde_json::{Value, json};

use crate::support::host::target;
use crate::support::tenant::{TestTenant, request};

const RERUNS: usize = 200;
/// How many have been submitted when the tenant goes down.
const BEFORE: usize = 70;
/// How many submissions are applied without an answer.
const LOST: u64 = 10;
const DOWN: Duration = Duration::from_secs(600);
const STEP: Duration = Duration::from_secs(1);

/// Makes something to be run, and answers the input of its rerun.
async fn make(http: &reqwest::Client, base: &str, generation: Generation, number: usize) -> Value {
    let (path, body) = match generation {
        Generation::Argo => {
            let metadata = json!({"name": format!("atlan-outage-{number}"), "namespace": "default"});
            ("workflows?submit=false", json!({"metadata": metadata, "spec": {}}))
        }
        Generation::Native => {
            let body = json!({"app_id": "bigquery-crawler", "name": format!("outage-{number}"), "inputs": {}, "run": false});
            ("v1/app", body)
        }
    };
    let post = http.post(format!("{base}/api/service/{path}")).bearer_auth("sandbox-api-token").json(&body);
    let answer = post.send().await.unwrap().error_for_status().unwrap();
    let made: Value = answer.json().await.unwrap();
    match generation {
        Generation::Argo => json!({"workflow": made["metadata"]["name"]}),
        Generation::Native => json!({"app": made["slug"]}),
    }
}

/// Lets time pass until something has come about.
async fn passes_until(tenant: &TestTenant, what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        tenant.host.pass(STEP).await;
    }
    panic!("within ten minutes there are not enough {what}");
}

async fn everything_passes_once(generation: Generation) {
    let change = |options: &mut SandboxOptions| (options.generation, options.index_lag) = (generation, Duration::from_secs(5));
    let tenant = TestTenant::with(change).await;
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let mut jobs = Vec::new();
    for number in 0..RERUNS {
        let input = make(&http, &tenant.sandbox.base_url(), generation, number).await;
        jobs.push(tenant.host.enqueue(request("workflow_rerun", input)).await.unwrap().job_id);
    }
    // The index shows all of them by now.
    tenant.host.clock.advance(Duration::from_secs(60)).await;
    let options = WorkerOptions { slots_waits: 50, ..tenant.host.worker_options() };
    let worker = Worker::start(&tenant.host.embedded, options).await.unwrap();
    passes_until(&tenant, "submissions before the outage", || tenant.submissions().len() >= BEFORE).await;
    // The answers of some submissions are lost on the way down.
    tenant.fault(json!({"path": "/submit", "times": 0, "action": {"kind": "cut_after_applying"}}));
    passes_until(&tenant, "submissions without an answer", || tenant.sandbox.faults_fired() >= LOST).await;
    tenant.sandbox.clear_faults();
    tenant.fault(json!({"times": 0, "action": {"kind": "status", "status": 503, "headers": [], "body": null}}));
    tenant.host.pass(DOWN).await;
    tenant.sandbox.clear_faults();
    let refused = tenant.sandbox.faults_fired();
    // Once it is known to fail at everything, probes alone ask, twice a minute in the end.
    assert!((LOST + 15..LOST + 120).contains(&refused), "the tenant was asked while it was down: {refused} times");
    // Not by jumps over the sleeps: with fifty under way, one's sleep would end another's request.
    let verdicts = async {
        let (mut runs, mut adopted) = (Vec::new(), 0);
        for job in &jobs {
            let verdict = tenant.host.client.wait(target(job.as_str())).await.unwrap();
            assert_eq!(verdict.status, Status::Passed, "{verdict:#?}");
            adopted += u64::from(verdict.facts["started"] == false);
            runs.push(verdict.facts["run"].as_str().unwrap().to_owned());
        }
        (runs, adopted)
    };
    let (mut runs, adopted) = tenant.host.pass_time(STEP, verdicts).await;
    worker.drain().await.unwrap();
    assert!(adopted >= LOST, "what was submitted without an answer was found again: {adopted}");
    let mut submitted = tenant.submissions();
    submitted.sort();
    runs.sort();
    assert_eq!(submitted, runs, "one effect for each verdict");
}

#[tokio::test]
async fn two_hundred_reruns_outlive_ten_minutes_without_the_tenant() {
    everything_passes_once(Generation::Argo).await;
}

#[tokio::test]
async fn two_hundred_reruns_of_apps_outlive_ten_minutes_without_the_tenant() {
    everything_passes_once(Generation::Native).await;
}
