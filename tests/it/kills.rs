//! kill -9 of a real worker process in the middle of a job, at every HTTP exchange in turn: before the tenant has applied it, and after.
//! A new worker ends the job with one verdict, and the tenant's ledger shows exactly one effect.

use std::process::Stdio;
use std::time::Duration;

use iolaus::sandbox::{Action, Fault, Generation, SandboxOptions};

use crate::cli::harness::{CONNECTION, Place, Ran, USER};
use crate::support::child;
use crate::support::tenant::{APP, BOTH, CRAWLER, submissions};
use crate::support::watchdog::until;

/// More exchanges than the job has.
const MOST: u64 = 14;

/// What is rerun, in the words of a command.
fn rerun(generation: Generation) -> String {
    match generation {
        Generation::Argo => format!("workflow_rerun workflow={CRAWLER}"),
        Generation::Native => format!("workflow_rerun app={APP}"),
    }
}

fn place(generation: Generation, running: Duration) -> Place {
    Place::with_tenant(SandboxOptions { generation, pending: Duration::from_millis(50), running, ..SandboxOptions::default() })
}

/// True if the worker was killed, false if what this enqueues ended before its `nth` exchange.
fn killed_at(enqueue: &str, generation: Generation, nth: u64, action: &Action) -> bool {
    let mut place = place(generation, Duration::from_millis(200));
    place.set("IOLAUS_WORKER__WORKER_TIMEOUT", "1s");
    place.set("IOLAUS_TENANTS__DEFAULT__RECONCILE_WINDOW", "1s");
    place.sandbox().add_fault(Fault::new(action.clone()).nth(nth));
    let mut first = place.start("worker");
    first.until("ready");
    assert_eq!(place.run(&format!("{enqueue} --job-id main")).code, 0);
    let mut waiting = place.spawn("jobs wait main --output json", Stdio::piped());
    until("the fault or the end of the wait", || place.sandbox().faults_fired() > 0 || waiting.try_wait().unwrap().is_some());
    let killed = place.sandbox().faults_fired() > 0;
    first.kill();
    let second = place.start("worker");
    let case = format!("{enqueue}, {generation:?}, killed at exchange {nth}, {}", action.name());
    let output = child::output(waiting, "jobs wait");
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), verdict["status"].as_str()), (Some(0), Some("passed")), "{case}: {verdict:#}");
    assert_eq!(submissions(place.sandbox()).len(), 1, "{case}: {verdict:#}");
    if let Some(steps) = verdict["facts"]["steps"].as_array() {
        let names: Vec<_> = steps.iter().map(|step| step["job_id"].as_str().unwrap()).collect();
        assert_eq!(names, ["main/1", "main/2"], "{case}");
        assert_eq!(place.stored(), 3, "{case}: the sequence and one execution of each step");
    }
    drop(second);
    killed
}

/// Kills at every exchange in turn, until there is none.
fn killed_at_each(enqueue: &str, generation: Generation) {
    // The answer to an applied request would leave after an hour: nobody waits for it.
    for action in [Action::Hang, Action::Delay { ms: 3_600_000 }] {
        let kills: Vec<bool> = std::thread::scope(|scope| {
            let case = |nth| {
                let action = action.clone();
                scope.spawn(move || killed_at(enqueue, generation, nth, &action))
            };
            let running: Vec<_> = (1..=MOST).map(case).collect();
            running.into_iter().map(|case| case.join().unwrap()).collect()
        });
        assert!(kills[0] && !kills[kills.len() - 1], "from the first exchange until none is left: {kills:?}");
    }
}

#[test]
fn a_worker_killed_at_any_exchange_leaves_one_verdict_and_one_effect() {
    for generation in BOTH {
        killed_at_each(&format!("enqueue {}", rerun(generation)), generation);
    }
}

#[test]
fn a_worker_killed_at_any_exchange_of_a_sequence_leaves_one_verdict_of_each_step() {
    let words = format!("{USER} {CONNECTION} workflow={CRAWLER}");
    killed_at_each(&format!("sequence enqueue --preset connector_pipeline {words}"), Generation::Argo);
}

#[test]
fn the_same_execute_after_a_lost_disk_is_one_submission_and_a_true_verdict() {
    for generation in BOTH {
        let mut place = place(generation, Duration::from_secs(1));
        place.set("IOLAUS_TENANTS__DEFAULT__INDEX_LAG", "1s");
        let started = iolaus_activities::Clock::now(&iolaus_activities::SystemClock::new());
        let again = format!("execute {} since={started:.3}", rerun(generation));
        let mut first = place.start(&again);
        until("a submission", || !submissions(place.sandbox()).is_empty());
        first.kill();
        lose_disk(&place);
        let ran = place.run(&again);
        adopted(&ran);
        assert_eq!(submissions(place.sandbox()).len(), 1, "{ran:?}");
    }
}

#[test]
fn the_command_that_an_ambiguous_rerun_suggests_adopts_the_run_with_or_without_its_disk() {
    for generation in BOTH {
        for loses_disk in [false, true] {
            let mut place = place(generation, Duration::from_secs(1));
            for (setting, value) in [("INDEX_LAG", "1s"), ("RECONCILE_WINDOW", "1s")] {
                place.set(&format!("IOLAUS_TENANTS__DEFAULT__{setting}"), value);
            }
            place.sandbox().set_index_lag(Duration::from_secs(3_600));
            place.sandbox().add_fault(Fault::new(Action::CutAfterApplying).on("/submit"));
            let ran = place.run(&format!("execute {} unknown_fate=fail --job-id main", rerun(generation)));
            let failure = ran.json()["failure"].clone();
            assert_eq!((ran.code, failure["code"].as_str()), (3, Some("rerun.ambiguous")), "{ran:?}");
            place.sandbox().set_index_lag(Duration::ZERO);
            if loses_disk {
                lose_disk(&place);
            }
            let command = failure["suggested_action"].as_str().unwrap();
            let ran = place.run(command.strip_prefix("iolaus ").unwrap());
            adopted(&ran);
            assert_eq!(submissions(place.sandbox()).len(), 1, "{ran:?}");
        }
    }
}

fn lose_disk(place: &Place) {
    std::fs::remove_dir_all(place.database().parent().unwrap()).unwrap();
}

fn adopted(ran: &Ran) {
    let verdict = ran.json();
    let facts = (ran.code, verdict["status"].as_str(), verdict["facts"]["started"].as_bool());
    assert_eq!(facts, (0, Some("passed"), Some(false)), "{ran:?}");
}
