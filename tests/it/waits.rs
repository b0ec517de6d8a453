//! Long waits against the sandbox: what they show while they last, and how rarely that is written.

use std::collections::BTreeSet;
use std::time::Duration;

use iolaus::embedded::{Worker, WorkerOptions};
use iolaus::sandbox::Generation;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::host::target;
use crate::support::tenant::{BOTH, RUNNING, RUNNING_APP_RUN, TestTenant, request};

/// What a wait shows in the course of so many minutes, or until it has stalled: every progress that was written, and since when.
async fn shown(tenant: &TestTenant, generation: Generation, minutes: u64, stall_after: u64) -> (Vec<Value>, BTreeSet<Timestamp>) {
    let options = WorkerOptions { stall_after: Duration::from_secs(stall_after), ..tenant.host.worker_options() };
    let worker = Worker::start(&tenant.host.embedded, options).await.unwrap();
    let input = match generation {
        Generation::Argo => json!({"run": format!("{RUNNING}-k2v9d")}),
        Generation::Native => json!({"app_run": RUNNING_APP_RUN}),
    };
    let job = tenant.host.enqueue(request("await_completion", input)).await.unwrap().job_id;
    let (mut progress, mut stalled) = (Vec::new(), BTreeSet::new());
    for _ in 0..minutes * 60 {
        tenant.host.clock.advance(Duration::from_secs(1)).await;
        let detail = tenant.host.detail(job.as_str()).await;
        stalled.extend(detail.job.stalled_since);
        progress.extend(detail.progress.filter(|newest| progress.last() != Some(newest)));
        if !stalled.is_empty() {
            break;
        }
    }
    tenant.host.client.cancel(target(job.as_str()), None).await.unwrap();
    tenant.host.verdict(job.as_str()).await;
    worker.drain().await.unwrap();
    (progress, stalled)
}

#[tokio::test]
async fn a_wait_whose_looks_are_answered_has_not_stalled_and_is_written_once_a_minute() {
    for generation in BOTH {
        let day = Duration::from_secs(86_400);
        let mut tenant = TestTenant::with(|options| (options.generation, options.running) = (generation, day)).await;
        // Time that passes while this machine is slow must not end a request.
        tenant.host.tenants = tenant.tenants_with(|settings| settings.request_timeout = day);
        let (progress, stalled) = shown(&tenant, generation, 5, 200).await;
        assert_eq!(stalled, BTreeSet::new(), "{progress:#?}");
        assert!((2..=7).contains(&progress.len()), "{progress:#?}");
        assert!(progress.iter().all(|seen| seen["run"].is_string() && seen["since"].is_string()), "{progress:#?}");
        let (first, last) = (&progress[0], &progress[progress.len() - 1]);
        assert_eq!(last["phase"], "Running");
        assert!(last["looks"].as_u64() > first["looks"].as_u64(), "{progress:#?}");
    }
}

#[tokio::test]
async fn a_wait_whose_looks_all_fail_has_stalled() {
    let tenant = TestTenant::new().await;
    let refused = json!({"kind": "status", "status": 500, "headers": [["retry-after", "40"]], "body": null});
    tenant.fault(json!({"times": 0, "action": refused}));
    let (progress, stalled) = shown(&tenant, Generation::Argo, 30, 120).await;
    assert!(!stalled.is_empty(), "{progress:#?}");
}
