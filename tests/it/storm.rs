//! A storm: real workers and real producers on one file, killed, frozen and told to stop at random; then every promise is checked.
//!
//! `IOLAUS_STORM_KILLS` sets how many processes are killed (200), `IOLAUS_STORM_SEED` repeats a storm: the order of its blows, though not
//! their exact moments, which are the machine's.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use iolaus::sandbox::{AlreadyActive, SandboxOptions};
use iolaus_activities::{Clock, SystemClock};

use crate::cli::harness::{CONNECTION, Place, Running, USER};
use crate::support::tenant::submissions;

/// One open job each at a time, so that every run that is submitted belongs to one execution.
const WORKFLOWS: [&str; 4] =
    ["atlan-snowflake-1684500500", "atlan-snowflake-miner-1684500600", "atlan-tableau-1684500900", "atlan-tableau-1684500901"];
const WORKERS: usize = 3;
const PRODUCERS: u64 = 2;
const WORKER_TIMEOUT: Duration = Duration::from_secs(1);

/// A generator of our own, so that a seed means the same for ever (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Real time passes: processes of their own go on meanwhile, and nothing is decided by how long it took.
    fn linger(&mut self, most: u64) {
        std::thread::park_timeout(Duration::from_millis(self.below(most) + 1));
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn whoever_is_killed_frozen_or_stopped_every_acknowledged_job_has_one_verdict_and_no_effect_twice() {
    let clock = SystemClock::new();
    let seed = number("IOLAUS_STORM_SEED", clock.now().as_microsecond().unsigned_abs());
    let kills = number("IOLAUS_STORM_KILLS", 200);
    say(&format!("storm: IOLAUS_STORM_SEED={seed} IOLAUS_STORM_KILLS={kills}"));
    let place = place();
    let (killed, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let acknowledged = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for n in 1..=PRODUCERS {
            let (place, killed, over, acknowledged) = (&place, &killed, &over, &acknowledged);
            scope.spawn(move || produce(place, Random(seed ^ n), n, killed, over, acknowledged));
        }
        blow(&place, Random(seed), kills, &killed, &clock);
        over.store(true, Ordering::SeqCst);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    say(&format!("storm: {} killed, {} jobs acknowledged", killed.load(Ordering::SeqCst), acknowledged.len()));
    assert!(acknowledged.len() > 50, "a storm over an empty sea proves nothing: {}", acknowledged.len());
    work_off(&place);
    check(&place, &acknowledged);
    let checked = place.run("fsck");
    assert_eq!((checked.code, checked.json()["findings"].as_array().map(Vec::len)), (0, Some(0)), "{checked:?}");
}

fn place() -> Place {
    let options = SandboxOptions {
        pending: Duration::ZERO,
        running: Duration::from_millis(50),
        already_active: AlreadyActive::Allow,
        ..SandboxOptions::default()
    };
    let mut place = Place::with_tenant(options);
    place.set("IOLAUS_WORKER__WORKER_TIMEOUT", format!("{}ms", WORKER_TIMEOUT.as_millis()));
    place.set("IOLAUS_WORKER__DRAIN_DEADLINE", "300ms");
    place.set("IOLAUS_TENANTS__DEFAULT__RECONCILE_WINDOW", "1s");
    place.set("IOLAUS_TENANTS__DEFAULT__REQUESTS_PER_SECOND", "0");
    place
}

/// Enqueues until the storm is over; one process in four is killed on its way. Keeps what was acknowledged.
fn produce(
    place: &Place,
    mut random: Random,
    producer: u64,
    killed: &AtomicU64,
    over: &AtomicBool,
    acknowledged: &Mutex<BTreeSet<(String, String)>>,
) {
    for n in 0_u64.. {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let line = if random.below(3) == 0 {
            format!("enqueue publish_preflight {USER} {CONNECTION} --job-id p-{producer}-{n} --output json")
        } else {
            // Taken while its last execution is open, which is a refusal and no acknowledgement.
            let workflow = WORKFLOWS[usize::try_from(random.below(WORKFLOWS.len() as u64)).unwrap()];
            format!("enqueue workflow_rerun workflow={workflow} idempotent=false until=submitted --job-id {workflow} --output json")
        };
        let mut child = place.spawn(&line, Stdio::piped());
        if random.below(4) == 0 {
            random.linger(60);
            if child.kill().is_ok() {
                killed.fetch_add(1, Ordering::SeqCst);
            }
        }
        let output = crate::support::child::output(child, "a program of the storm");
        // What was said before the kill counts, too.
        if let Ok(said) = serde_json::from_slice::<serde_json::Value>(&output.stdout) {
            let id = |name: &str| said[name].as_str().unwrap().to_owned();
            acknowledged.lock().unwrap().insert((id("job_id"), id("run_id")));
        }
        random.linger(20);
    }
}

/// Kills, freezes and stops workers, and starts others in their place, until enough processes were killed.
fn blow(place: &Place, mut random: Random, kills: u64, killed: &AtomicU64, clock: &SystemClock) {
    let mut workers: Vec<Running> = (0..WORKERS).map(|_| place.start("worker")).collect();
    // Processes that stand still, and until when.
    let mut frozen: Vec<(Running, Duration)> = Vec::new();
    while killed.load(Ordering::SeqCst) < kills {
        random.linger(150);
        let victim = usize::try_from(random.below(WORKERS as u64)).unwrap();
        let mut old = std::mem::replace(&mut workers[victim], place.start("worker"));
        match random.below(10) {
            0 if frozen.len() < 4 => {
                signal(&old, "-STOP");
                // Well beyond the time after which it is taken for dead.
                let until = clock.monotonic() + WORKER_TIMEOUT * 2 + Duration::from_millis(random.below(1_000));
                frozen.push((old, until));
            }
            1 => drop(old.terminate_in_order()),
            _ => {
                old.kill();
                killed.fetch_add(1, Ordering::SeqCst);
            }
        }
        let now = clock.monotonic();
        while let Some(thawed) = frozen.iter().position(|(_, until)| *until <= now) {
            let (mut awake, _) = frozen.swap_remove(thawed);
            // It wakes up with attempts that are another's by now, has a moment to do harm with them, and is killed.
            signal(&awake, "-CONT");
            random.linger(100);
            awake.kill();
            killed.fetch_add(1, Ordering::SeqCst);
        }
    }
    for (awake, _) in &frozen {
        signal(awake, "-CONT");
    }
}

fn signal(process: &Running, signal: &str) {
    let sent = Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap();
    assert!(sent.success(), "{signal}");
}

/// One worker that nobody disturbs ends what is left.
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

fn check(place: &Place, acknowledged: &BTreeSet<(String, String)>) {
    let file = rusqlite::Connection::open(place.database()).unwrap();
    let number = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(file.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    for (job_id, run_id) in acknowledged {
        let sql = "SELECT count(*) FROM jobs j JOIN job_verdicts v ON v.id = j.id WHERE j.job_id = ?1 AND j.run_id = ?2";
        let verdicts: i64 = file.query_row(sql, [job_id, run_id], |row| row.get(0)).unwrap();
        assert_eq!(verdicts, 1, "acknowledged job {job_id}, run {run_id}");
    }
    for (what, sql) in [
        (
            "open or without exactly one verdict",
            "SELECT count(*) FROM jobs j WHERE finished_at IS NULL OR NOT EXISTS(SELECT 1 FROM job_verdicts v WHERE v.id = j.id)",
        ),
        ("stored twice", "SELECT count(*) - count(DISTINCT run_id) FROM jobs"),
        (
            "with the verdict of an attempt that was not the last",
            "SELECT count(*) FROM jobs j JOIN job_verdicts v ON v.id = j.id WHERE json_extract(v.verdict, '$.attempts') <> j.attempt",
        ),
        (
            "with a verdict of another execution",
            "SELECT count(*) FROM jobs j JOIN job_verdicts v ON v.id = j.id WHERE json_extract(v.verdict, '$.run_id') <> j.run_id",
        ),
        ("unresolved", "SELECT count(*) FROM jobs WHERE state <> 'completed'"),
    ] {
        assert_eq!(number(sql), 0, "executions {what}");
    }
    let counted = "SELECT activity, tenant, state, count FROM job_counts WHERE count <> 0";
    let there = "SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3";
    assert_eq!(number(&format!("SELECT EXISTS({counted} EXCEPT {there}) + EXISTS({there} EXCEPT {counted})")), 0, "miscounted");
    let mut effects: BTreeMap<&str, i64> = BTreeMap::new();
    let runs = submissions(place.sandbox());
    for run in &runs {
        let workflow = WORKFLOWS.into_iter().find(|workflow| run.rsplit_once('-').is_some_and(|(of, _)| of == *workflow)).unwrap();
        *effects.entry(workflow).or_default() += 1;
    }
    for workflow in WORKFLOWS {
        let sql = "SELECT count(*) FROM jobs WHERE job_id = ?1";
        let executions: i64 = file.query_row(sql, [workflow], |row| row.get(0)).unwrap();
        let submitted = effects.get(workflow).copied().unwrap_or(0);
        assert!(submitted <= executions, "{workflow}: {submitted} runs were submitted for {executions} executions");
    }
    let started =
        "SELECT json_extract(verdict, '$.facts.run') AS run FROM job_verdicts WHERE json_extract(verdict, '$.facts.started') = 1";
    assert_eq!(number(&format!("SELECT count(*) - count(DISTINCT run) FROM ({started})")), 0, "runs that two executions started");
    say(&format!("storm: {} executions, {} runs submitted", number("SELECT count(*) FROM jobs"), runs.len()));
}

fn say(what: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{what}").expect("stderr is there");
}
