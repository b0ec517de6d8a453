//! kill -9 of a real worker process in the middle of a job, at every HTTP exchange in turn: before the tenant has applied it, and after.
//! A new worker ends the job with one verdict, and the tenant's ledger shows exactly one effect.

use std::process::Stdio;
use std::time::Duration;

use iolaus::sandbox::{Action, Fault, SandboxOptions, What};

use crate::cli::harness::Place;

/// More exchanges than the job has.
const MOST: u64 = 14;

/// True if the worker was killed, false if the job ended before its `nth` exchange.
fn killed_at(nth: u64, action: &Action) -> bool {
    let quick =
        SandboxOptions { pending: Duration::from_millis(50), running: Duration::from_millis(200), ..SandboxOptions::default() };
    let mut place = Place::with_tenant(quick);
    place.set("IOLAUS_WORKER__WORKER_TIMEOUT", "1s");
    place.set("IOLAUS_TENANTS__DEFAULT__RECONCILE_WINDOW", "1s");
    place.sandbox().add_fault(Fault::new(action.clone()).nth(nth));
    let mut first = place.start("worker");
    first.until("ready");
    assert_eq!(place.run("enqueue workflow_rerun workflow=atlan-snowflake-1684500500 --job-id main").code, 0);
    let mut waiting = place.spawn("jobs wait main --output json", Stdio::piped());
    while place.sandbox().faults_fired() == 0 && waiting.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let killed = place.sandbox().faults_fired() > 0;
    first.kill();
    let second = place.start("worker");
    let case = format!("killed at exchange {nth}, {}", action.name());
    let output = waiting.wait_with_output().unwrap();
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), verdict["status"].as_str()), (Some(0), Some("passed")), "{case}: {verdict:#}");
    let submitted = |effect: &iolaus::sandbox::Effect| matches!(effect.what, What::RunSubmitted { .. });
    assert_eq!(place.sandbox().effects().iter().filter(|effect| submitted(effect)).count(), 1, "{case}: {verdict:#}");
    drop(second);
    killed
}

#[test]
fn a_worker_killed_at_any_exchange_leaves_one_verdict_and_one_effect() {
    // The answer to an applied request would leave after an hour: nobody waits for it.
    for action in [Action::Hang, Action::Delay { ms: 3_600_000 }] {
        let kills: Vec<bool> = std::thread::scope(|scope| {
            let cases: Vec<_> = (1..=MOST).map(|nth| (nth, action.clone())).collect();
            let running: Vec<_> = cases.into_iter().map(|(nth, action)| scope.spawn(move || killed_at(nth, &action))).collect();
            running.into_iter().map(|case| case.join().unwrap()).collect()
        });
        assert!(kills[0] && !kills[kills.len() - 1], "from the first exchange until none is left: {kills:?}");
    }
}
