//! A worker that is cut off from its cluster, or whose cluster goes away, in the middle of a job; and a worker that is killed there.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iolaus::job::JobState;
use iolaus::sandbox::{Action, Fault, SandboxOptions};
use iolaus_activities::Status;
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::cli::harness::Place;
use crate::conformance::cluster::Queue;
use crate::conformance::{Case, HostUnderTest, own_name};
use crate::support::child;
use crate::support::cluster::{Cluster, Server};
use crate::support::port::free_port;
use crate::support::probe::Act;
use crate::support::tenant::{CRAWLER, submissions};
use crate::support::watchdog::until;

/// What stands between a worker and its cluster.
struct Link {
    address: String,
    carrying: JoinHandle<()>,
}

impl Link {
    async fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let to = address.to_owned();
        let carrying = tokio::spawn(async move {
            // With the link its connections go, too.
            let mut open = tokio::task::JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let to = to.clone();
                open.spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(to).await {
                        copy_bidirectional(&mut from, &mut there).await.ok();
                    }
                });
            }
        });
        Self { address: own, carrying }
    }

    /// Nothing goes through any more, and nobody can connect.
    async fn cut(self) {
        self.carrying.abort();
        self.carrying.await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_before_its_save_has_no_effect_and_another_one_has_it_once() {
    let Some(cluster) = Cluster::shared() else { return };
    let own = own_name();
    let case = Case::on(Arc::new(Queue::new(cluster.address(), &own)), &own);
    let link = Link::to(cluster.address()).await;
    let cut_off = Queue::new(&link.address, &own);
    let first = cut_off.worker(case.registry()).await;
    case.enqueue_acts("job", [Act::GateThenEffect]).await;
    case.until_started("job").await;
    link.cut().await;
    case.probe.gate.add_permits(1);
    let second = case.worker().await;
    // Its lease is lost with its heartbeats, and the second worker starts another attempt.
    case.within(async {
        while case.probe.attempts(&case.id("job")).len() < 2 {
            case.probe.started.notified().await;
        }
    })
    .await;
    assert_eq!(case.probe.effects.load(Ordering::SeqCst), 0, "the save of the first could not be durable");
    case.probe.gate.add_permits(1);
    let verdict = case.verdict("job").await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 2));
    assert_eq!(case.probe.effects.load(Ordering::SeqCst), 1);
    second.drain().await;
    first.drain().await;
    assert_eq!(case.probe.effects.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_restarted_in_the_middle_of_a_job_loses_nothing() {
    if Cluster::shared().is_none() {
        return;
    }
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("temporal.db");
    let start = |file: std::path::PathBuf| tokio::task::spawn_blocking(move || Server::start(port, Path::new(&file)));
    let server = start(file.clone()).await.unwrap();
    let own = own_name();
    let case = Case::on(Arc::new(Queue::new(&format!("127.0.0.1:{port}"), &own)), &own);
    let worker = case.worker().await;
    case.enqueue_acts("running", [Act::GateThenEffect]).await;
    case.until_started("running").await;
    tokio::task::spawn_blocking(|| server.kill()).await.unwrap();
    let again = start(file).await.unwrap();
    case.enqueue_acts("later", [Act::Pass]).await;
    // The attempt that ran goes on, or another one does: in the end there is one verdict and one effect of each attempt that saved.
    case.probe.gate.add_permits(2);
    let verdict = case.verdict("running").await;
    assert_eq!(verdict.status, Status::Passed);
    assert_eq!(case.verdict("later").await.status, Status::Passed);
    assert_eq!(case.detail("running").await.job.state, JobState::Completed);
    worker.drain().await;
    drop(again);
}

/// True if the worker was killed, false if the rerun ended before its `nth` exchange.
fn killed_at(cluster: &Cluster, nth: u64, action: &Action) -> bool {
    let options =
        SandboxOptions { pending: Duration::from_millis(50), running: Duration::from_millis(200), ..SandboxOptions::default() };
    let mut place = Place::with_tenant(options);
    for (name, value) in [
        ("HOST__KIND", "temporal"),
        ("TEMPORAL__ADDRESS", cluster.address()),
        ("TEMPORAL__TASK_QUEUE", &own_name()),
        ("TEMPORAL__HEARTBEAT_TIMEOUT", "2s"),
        ("TENANTS__DEFAULT__RECONCILE_WINDOW", "1s"),
    ] {
        place.set(&format!("IOLAUS_{name}"), value);
    }
    let id = own_name();
    place.sandbox().add_fault(Fault::new(action.clone()).nth(nth));
    let mut first = place.start("worker");
    first.until("the worker is ready");
    let enqueued = place.run(&format!("enqueue workflow_rerun workflow={CRAWLER} --job-id {id}"));
    assert_eq!(enqueued.code, 0, "{enqueued:?}");
    let mut waiting = place.spawn(&format!("jobs wait {id} --output json"), Stdio::piped());
    until("the fault or the end of the wait", || place.sandbox().faults_fired() > 0 || waiting.try_wait().unwrap().is_some());
    let killed = place.sandbox().faults_fired() > 0;
    first.kill();
    let second = place.start("worker");
    let output = child::output(waiting, "jobs wait");
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    let case = format!("killed at exchange {nth}, {}", action.name());
    assert_eq!((output.status.code(), verdict["status"].as_str()), (Some(0), Some("passed")), "{case}: {verdict:#}");
    assert_eq!(submissions(place.sandbox()).len(), 1, "{case}: {verdict:#}");
    drop(second);
    killed
}

#[test]
fn a_worker_of_a_cluster_that_is_killed_at_any_exchange_leaves_one_verdict_and_one_effect() {
    let Some(cluster) = Cluster::shared() else { return };
    for action in [Action::Hang, Action::Delay { ms: 3_600_000 }] {
        let kills: Vec<bool> = std::thread::scope(|scope| {
            let case = |nth| {
                let (action, cluster) = (action.clone(), &cluster);
                scope.spawn(move || killed_at(cluster, nth, &action))
            };
            let running: Vec<_> = (1..=7).map(case).collect();
            running.into_iter().map(|case| case.join().unwrap()).collect()
        });
        assert!(kills[0] && kills[2], "while it is looked for and while it is submitted: {kills:?}");
    }
}
