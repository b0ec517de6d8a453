//! A process that may open few files, or write only short ones.

use iolaus::sandbox::SandboxOptions;
use serde_json::json;

use super::harness::{CONNECTION, Place, USER};

#[test]
fn a_process_that_may_open_too_few_files_refuses_to_start_and_says_how_many_it_needs() {
    let place = Place::with_tenant(SandboxOptions::default());
    for limit in [8, 12, 24, 63] {
        for command in ["worker", "status", &format!("execute publish_preflight {USER} {CONNECTION}")] {
            let ran = place.shell(&format!("ulimit -n {limit}; exec $IOLAUS {command}"), "");
            assert_eq!(ran.code, 6, "{limit} {command}: {ran:?}");
            let said = format!("this process may open {limit} files, and needs 64 or more");
            assert!(ran.stderr.contains(&said) && ran.stderr.contains("ulimit -n"), "{limit} {command}: {ran:?}");
        }
    }
    assert_eq!(place.stored(), 0);
}

#[test]
fn with_as_few_files_as_are_needed_a_job_passes() {
    let place = Place::with_tenant(SandboxOptions::default());
    let ran = place.shell(&format!("ulimit -n 64; exec $IOLAUS execute publish_preflight {USER} {CONNECTION}"), "");
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_file_that_may_not_grow_is_reported_and_does_not_end_the_process_by_a_signal() {
    let place = Place::new();
    let ran = place.shell(&format!("ulimit -f 0; exec $IOLAUS enqueue publish_preflight {USER} {CONNECTION}"), "");
    assert!(ran.code == 6 && ran.stderr.contains("error: ") && ran.stderr.contains("ulimit -f"), "{ran:?}");
    let ran = place.shell("ulimit -f 0; exec $IOLAUS schema > out", "");
    assert!(ran.code == 2 && ran.stderr.contains("stdout cannot be written"), "{ran:?}");
}

#[test]
fn more_requests_than_the_process_may_open_connections_cost_no_job_an_attempt() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    for (variable, value) in [("WORKER__SLOTS_WORK", "300"), ("TENANTS__DEFAULT__MAX_REQUESTS", "300")] {
        place.set(&format!("IOLAUS_{variable}"), value);
    }
    for (variable, value) in [("REQUESTS_PER_SECOND", "0"), ("MAX_JOBS", "300")] {
        place.set(&format!("IOLAUS_TENANTS__DEFAULT__{variable}"), value);
    }
    // All of them ask at the same moment.
    let hold = json!({"times": 0, "action": {"kind": "delay", "ms": 300}});
    place.sandbox().add_fault(serde_json::from_value(hold).expect("a fault"));
    let mut worker = place.start_with_descriptors(64, "worker");
    worker.until("the worker is ready");
    let (user, connection) = (USER.split_once('=').expect("a pair").1, CONNECTION.split_once('=').expect("a pair").1);
    let input = json!({"user_id": user, "connection_qualified_name": connection});
    let line = json!({"activity": "publish_preflight", "input": input, "options": {"maximum_attempts": 1}}).to_string() + "\n";
    let ran = place.shell("exec $IOLAUS enqueue --jobs - --wait", &line.repeat(300));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(worker.terminate_in_order(), Some(0));
}
