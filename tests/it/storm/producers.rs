//! Short-lived processes that enqueue, some of which are killed on their way. What they said is what was acknowledged.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::WORKFLOWS;
use super::plan::{Kind, Random, Tally};
use crate::cli::harness::{CONNECTION, Place, USER};
use crate::support::child;

/// Job and execution of each enqueue that was answered.
pub(super) type Acknowledged = Mutex<BTreeSet<(String, String)>>;

/// Enqueues until the storm is over; one process in two is killed on its way until so many were.
pub(super) fn produce(
    place: &Place,
    mut random: Random,
    producer: u64,
    kills: u64,
    tally: &Tally,
    over: &AtomicBool,
    acknowledged: &Acknowledged,
) {
    for n in 0_u64.. {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let line = if random.below(3) == 0 {
            format!("enqueue publish_preflight {USER} {CONNECTION} --job-id p-{producer}-{n} --output json")
        } else {
            // Taken while its last execution is open, which is a refusal and no acknowledgement.
            let workflow = WORKFLOWS[random.index(WORKFLOWS.len())];
            format!("enqueue workflow_rerun workflow={workflow} idempotent=false until=submitted --job-id {workflow} --output json")
        };
        let mut child = place.spawn(&line, Stdio::piped());
        if tally.of(Kind::KillProducer) < kills && random.below(2) == 0 {
            random.linger(60);
            child.kill().unwrap();
        }
        let output = child::output(child, "a producer of the storm");
        if output.status.signal().is_some() {
            tally.add(Kind::KillProducer);
        }
        // What was said before the kill counts, too.
        if let Ok(said) = serde_json::from_slice::<serde_json::Value>(&output.stdout) {
            let id = |name: &str| said[name].as_str().unwrap().to_owned();
            acknowledged.lock().unwrap().insert((id("job_id"), id("run_id")));
        }
        random.linger(20);
    }
}
