//! A storm: real workers and real producers on one file, at least 500 faults of every kind that a machine has, in an order of a seed; then
//! every promise is checked, by hand and by `iolaus fsck`.
//!
//! `IOLAUS_STORM_FAULTS` sets how many faults there are (500), `IOLAUS_STORM_SEED` repeats a storm: the faults and their order, though not
//! their exact moments, which are the machine's. A queue of its own has its log removed: see [`removed_log`].

mod check;
mod machine;
mod plan;
mod producers;
mod removed_log;
mod workers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iolaus::sandbox::{AlreadyActive, SandboxOptions};
use iolaus_activities::{Clock, SystemClock};

use crate::cli::harness::Place;
use crate::support::watchdog::Watched;
use machine::{Disk, Here, WallClock};
use plan::{Kind, Random, Tally};
use producers::{Acknowledged, produce};
use removed_log::Removals;
use workers::{WORKER_TIMEOUT, Workers};

/// One open job each at a time, so that every run that is submitted belongs to one execution.
const WORKFLOWS: [&str; 4] =
    ["atlan-snowflake-1684500500", "atlan-snowflake-miner-1684500600", "atlan-tableau-1684500900", "atlan-tableau-1684500901"];
const PRODUCERS: u64 = 2;
/// The storm lasts until this many jobs were acknowledged: one over an empty queue proves nothing.
const ENOUGH: usize = 60;

/// What the seed is changed by for each thread of the storm; producers take their number.
const LOG: u64 = 100;
const WORKER: u64 = 101;

/// Ends the storm when the thread that has it panics, or ends in any way.
struct Over<'s> {
    over: &'s AtomicBool,
    always: bool,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if self.always || std::thread::panicking() {
            self.over.store(true, Ordering::SeqCst);
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn after_faults_of_every_kind_each_acknowledged_job_has_one_verdict_and_no_effect_twice() {
    let _watched = Watched::new();
    let test = "storm::after_faults_of_every_kind_each_acknowledged_job_has_one_verdict_and_no_effect_twice";
    if let Here::Inside(disk) = machine::on_a_small_disk(test) {
        storm(disk.as_ref());
    }
}

fn storm(disk: Option<&Disk>) {
    let clock = SystemClock::new();
    let seed = number("IOLAUS_STORM_SEED", clock.now().as_microsecond().unsigned_abs());
    let faults = number("IOLAUS_STORM_FAULTS", 500);
    say(&format!("storm: IOLAUS_STORM_SEED={seed} IOLAUS_STORM_FAULTS={faults}"));
    let mut place = place(disk);
    let wall = WallClock::under(&mut place);
    let can_happen = |kind: &Kind| match kind {
        Kind::FillDisk => disk.is_some(),
        Kind::StepClockForward | Kind::StepClockBack => wall.is_some(),
        _ => true,
    };
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(can_happen).collect();
    let plan = plan::plan(faults, &kinds, &mut Random(seed));
    let tally = Tally::default();
    let (acknowledged, mut removals, over) = (Acknowledged::default(), Removals::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Whatever panics ends the others.
        let _over = Over { over: &over, always: true };
        for n in 1..=PRODUCERS {
            let (place, tally, over, acknowledged) = (&place, &tally, &over, &acknowledged);
            let kills = plan::count(&plan, Kind::KillProducer);
            scope.spawn(move || {
                let _over = Over { over, always: true };
                produce(place, Random(seed ^ n), n, kills, tally, over, acknowledged);
            });
        }
        let removing = scope.spawn(|| {
            let _over = Over { over: &over, always: false };
            removals.suffer(plan::count(&plan, Kind::RemoveLog), Random(seed ^ LOG), &tally, &over);
        });
        let mut workers = Workers::new(&place, &tally, wall.as_ref(), disk, Random(seed ^ WORKER));
        workers.suffer(&plan, &over);
        workers.calm();
        let is_enough = || {
            let producers = tally.of(Kind::KillProducer) >= plan::count(&plan, Kind::KillProducer);
            producers && removing.is_finished() && acknowledged.lock().unwrap().len() >= ENOUGH
        };
        while !over.load(Ordering::SeqCst) && !is_enough() {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        workers.stop();
    });
    if let Some(wall) = &wall {
        // Past every time that was ever stored, so that nothing waits for the clock.
        wall.set(machine::PAST_ALL);
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    say(&format!("storm: {}; {} jobs acknowledged", tally.describe(), acknowledged.len()));
    for kind in kinds {
        assert!(tally.of(kind) >= plan::count(&plan, kind), "{kind:?}: {}", tally.describe());
    }
    work_off(&place);
    let database = disk.map_or_else(|| place.database(), Disk::database);
    check::check(&place, &database, &acknowledged);
    removals.check();
}

fn place(disk: Option<&Disk>) -> Place {
    let options = SandboxOptions {
        pending: Duration::ZERO,
        running: Duration::from_millis(50),
        already_active: AlreadyActive::Allow,
        ..SandboxOptions::default()
    };
    let mut place = Place::with_tenant(options);
    if let Some(disk) = disk {
        place.set("IOLAUS_DATABASE__PATH", disk.database());
    }
    place.set("IOLAUS_WORKER__WORKER_TIMEOUT", format!("{}ms", WORKER_TIMEOUT.as_millis()));
    place.set("IOLAUS_WORKER__DRAIN_DEADLINE", "300ms");
    place.set("IOLAUS_TENANTS__DEFAULT__RECONCILE_WINDOW", "1s");
    place.set("IOLAUS_TENANTS__DEFAULT__REQUESTS_PER_SECOND", "0");
    place
}

/// One worker that nothing disturbs ends what is left.
fn work_off(place: &Place) {
    let worker = place.start("worker");
    loop {
        let status = place.run("status --output json").json();
        let open = |count: &&serde_json::Value| !matches!(count["state"].as_str(), Some("completed" | "discarded" | "cancelled"));
        if status["counts"].as_array().unwrap().iter().filter(open).count() == 0 {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let ended = worker.terminate();
    assert_eq!(ended.code, 0, "{ended:?}");
}

fn say(what: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{what}").expect("stderr is there");
}
