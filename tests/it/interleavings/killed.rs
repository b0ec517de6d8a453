//! The same with two real worker processes on one file, which are killed with SIGKILL at random exchanges and started again. A seed
//! repeats what is tried, though not its exact moments, which are the machine's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::cli::harness::{Place, Running};

/// So many interleavings are tried unless a variable says another number.
const USUAL: u64 = 10;
/// So many are tried at once: they mostly wait.
const AT_ONCE: usize = 5;
/// Between two looks at how many exchanges there were.
const LOOK: Duration = Duration::from_millis(5);

/// A run takes less than an intent is in doubt, so that however slow the machine is, no job misses the run of another.
fn place(random: &mut fastrand::Rng) -> (Place, Duration) {
    let running = Duration::from_millis(random.u64(100..2_000));
    let options = SandboxOptions {
        already_active: AlreadyActive::Allow,
        index_lag: Duration::from_millis(random.u64(..1_000)),
        pending: Duration::ZERO,
        running,
        ..SandboxOptions::default()
    };
    let mut place = Place::with_tenant(options);
    place.set("IOLAUS_WORKER__WORKER_TIMEOUT", "1s");
    let settings = [("INDEX_LAG", "1s"), ("RECONCILE_WINDOW", "3s"), ("REQUEST_TIMEOUT", "5s"), ("REQUESTS_PER_SECOND", "0")];
    for (setting, value) in settings {
        place.set(&format!("IOLAUS_TENANTS__DEFAULT__{setting}"), value);
    }
    for nth in 1..=random.u64(..4) {
        let action = match random.u8(..6) {
            0 => Action::CutAfterApplying,
            1 => Action::StatusAfterApplying { status: 502, body: Value::Null },
            2 => Action::CutBeforeApplying,
            3 => Action::Delay { ms: random.u64(..2_000) },
            _ => continue,
        };
        place.sandbox().add_fault(Fault::new(action).on("/submit").nth(nth));
    }
    (place, running)
}

fn ready(place: &Place) -> Running {
    let mut worker = place.start("worker");
    worker.until("ready");
    worker
}

/// Kills one of the workers at each of these exchanges, and starts it again.
fn kill(place: &Place, mut workers: [Running; 2], mut kills: Vec<(u64, usize)>, over: &AtomicBool) {
    kills.sort_unstable();
    for (exchanges, victim) in kills {
        while place.sandbox().requests().len() < usize::try_from(exchanges).unwrap() {
            if over.load(Ordering::SeqCst) {
                return;
            }
            thread::park_timeout(LOOK);
        }
        workers[victim].kill();
        workers[victim] = ready(place);
    }
    while !over.load(Ordering::SeqCst) {
        thread::park_timeout(LOOK);
    }
}

/// One job from its enqueue to its verdict.
fn job(place: &Place, id: &str, input: &Value, cancelled: Option<Duration>) -> VerdictRecord {
    let input = with(json!({"workflow": CRAWLER}), input.clone()).to_string();
    let ran = place.iolaus(["enqueue", "workflow_rerun", "--job-id", id, "--input", &input]);
    assert_eq!(ran.code, 0, "{ran:?}");
    if let Some(at) = cancelled {
        thread::park_timeout(at);
        place.iolaus(["jobs", "cancel", id]);
    }
    let ran = place.iolaus(["jobs", "wait", id, "--output", "json"]);
    serde_json::from_value(ran.json()).unwrap_or_else(|error| panic!("no verdict ({error}): {ran:?}"))
}

fn interleaving(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (place, lasts) = place(&mut random);
    let first = ready(&place);
    keep_intents(&place.database());
    let workers = [first, ready(&place)];
    let kills = (0..random.usize(1..=3)).map(|_| (random.u64(1..=30), random.usize(..2))).collect();
    let now = timestamp::format(iolaus_activities::SystemClock::new().now());
    let plans: Vec<(Value, Option<Duration>)> = (0..random.usize(2..=6))
        .map(|_| {
            let cancelled = (random.u8(..100) < 20).then(|| Duration::from_millis(random.u64(..3_000)));
            (random_input(&mut random, &now), cancelled)
        })
        .collect();
    let over = AtomicBool::new(false);
    let verdicts: Vec<VerdictRecord> = thread::scope(|scope| {
        let (place, over) = (&place, &over);
        scope.spawn(move || kill(place, workers, kills, over));
        let jobs: Vec<_> = plans
            .iter()
            .enumerate()
            .map(|(n, (input, cancelled))| scope.spawn(move || job(place, &format!("job-{n}"), input, *cancelled)))
            .collect();
        let verdicts: Vec<_> = jobs.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::SeqCst);
        verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut intents = kept_intents(&place.database());
    let jobs = plans.into_iter().zip(verdicts).enumerate().map(|(n, ((input, cancelled), verdict))| {
        let id = format!("job-{n}");
        let intents = intents.remove(&id).unwrap_or_default();
        Job { id, input, cancelled: cancelled.is_some(), intents, ended: ended(verdict) }
    });
    let jobs: Vec<_> = jobs.collect();
    check(&ledger(place.sandbox(), lasts), &jobs, &format!("seed {seed}, real processes"));
}

#[test]
fn two_worker_processes_that_are_killed_make_effects_equal_intents_and_every_verdict_true() {
    let seeds = seeds(USUAL);
    let next = AtomicU64::new(seeds.start);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    interleaving(seed);
                }
            });
        }
    });
}
