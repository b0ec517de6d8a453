//! Random interleavings of several jobs of one queue for one workflow of a tenant that allows several active runs: searches that lag,
//! answers that are lost or late, workers that die at any save, cancels. What was applied is held against what every job says.

use std::collections::BTreeSet;

use super::*;
use crate::effects::EffectRegister;

/// So many interleavings are tried unless this variable says another number.
const NUMBER: (&str, u64) = ("IOLAUS_INTERLEAVINGS", 1_000);
/// The first seed, unless this variable says another one.
const FIRST_SEED: &str = "IOLAUS_INTERLEAVINGS_SEED";

/// A small generator of numbers that look random: the same seed gives the same interleaving.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What one job does and what happens to it.
#[derive(Debug, Clone)]
struct Plan {
    input: Value,
    begins_ms: u64,
    cancelled_ms: Option<u64>,
    /// In which attempt its worker dies, at which save, and whether that is stored.
    deaths: Vec<(usize, usize, bool)>,
}

impl Plan {
    fn random(random: &mut Random, now: Timestamp) -> Self {
        let mut input = json!({"idempotent": random.percent(65)});
        if random.percent(15) {
            input["since"] = json!(timestamp::format(now));
        }
        if random.percent(40) {
            input["until"] = json!("submitted");
        }
        input["stop_on_cancel"] = json!(random.percent(50));
        let deaths = (0..random.below(3)).map(|attempt| {
            let save = 1 + usize::try_from(random.below(4)).expect("small");
            (usize::try_from(attempt).expect("small"), save, random.percent(50))
        });
        Self {
            input,
            deaths: deaths.collect(),
            begins_ms: if random.percent(40) { 0 } else { random.below(15_000) },
            cancelled_ms: random.percent(20).then(|| random.below(60_000)),
        }
    }

    fn wants_its_own(&self) -> bool {
        self.input["idempotent"] == false && self.input.get("since").is_none()
    }
}

struct Job {
    plan: Plan,
    host: Arc<TestHost>,
    ended: Result<Verdict, ActivityError>,
}

impl Job {
    /// The requests that may have started a run.
    fn requests(&self) -> BTreeSet<String> {
        let saved = self.host.saves();
        saved.iter().filter_map(|save| Some(save["effort"]["intent"]["request_id"].as_str()?.to_owned())).collect()
    }
}

fn submission(random: &mut Random, clock: &Arc<ManualClock>) -> Does {
    let late = |random: &mut Random| Duration::from_millis(random.below(40_000));
    match random.below(10) {
        0 => does(true, Reply::cut()),
        1 => does(false, Reply::cut()),
        2 => does(true, Reply::json(502, &json!({})).late(clock, late(random))),
        3 => does(false, Reply::json(503, &json!({}))),
        4 => does(false, Reply::json(429, &json!({"retry_after": 2}))),
        5 => does(true, Reply::cut().late(clock, Duration::from_secs(31))),
        _ => Does { applies: true, reply: None },
    }
}

async fn attempts(case: Arc<Case>, host: Arc<TestHost>, plan: Plan) -> Result<Verdict, ActivityError> {
    case.clock.sleep(Duration::from_millis(plan.begins_ms)).await;
    for attempt in 0..100 {
        for (_, save, stored) in plan.deaths.iter().filter(|(at, ..)| *at == attempt) {
            if *stored { host.die_after_save(*save) } else { host.die_at_save(*save) }
        }
        let again = match host.attempt(WorkflowRerun::new(case.tenants.clone()), case.input(&plan.input)).await {
            Err(ActivityError::Interrupted) => Duration::from_secs(1),
            Err(ActivityError::Failed(failure)) if failure.retryable => failure.retry_after.unwrap_or(Duration::from_secs(1)),
            ended => return ended,
        };
        case.clock.sleep(again).await;
    }
    panic!("no end after a hundred attempts: {plan:?}");
}

async fn interleaving(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for _ in 0..8 {
        random.next();
    }
    let case = Case::new(|world| {
        world.me = random.percent(50).then_some("u-me");
        world.dated = random.percent(80);
        world.lag = Duration::from_millis(random.below(10_000));
        world.lasts = Duration::from_millis(1_000 + random.below(60_000));
        if random.percent(30) {
            world.run_skew = SignedDuration::from_secs(i64::try_from(random.below(9)).expect("small") - 4);
        }
        for _ in 0..random.below(6) {
            let does = submission(&mut random, &world.clock);
            world.submits.push_back(does);
        }
    })
    .await;
    let case = Arc::new(case);
    let queue: Arc<EffectRegister> = Arc::default();
    let mut tasks = Vec::new();
    for n in 0..2 + random.below(7) {
        let plan = Plan::random(&mut random, case.clock.now());
        let host = Arc::new(TestHost::in_queue(case.clock.clone(), &format!("job-{n}"), &queue));
        if let Some(at) = plan.cancelled_ms {
            let (host, sleep) = (host.clone(), case.clock.sleep(Duration::from_millis(at)));
            tokio::spawn(async move {
                sleep.await;
                host.stop(Some(Stop::Cancelled { reason: None }));
            });
        }
        let task = tokio::spawn(attempts(case.clone(), host.clone(), plan.clone()));
        tasks.push((plan, host, task));
    }
    let mut jobs = Vec::new();
    for (plan, host, task) in tasks {
        let ended = drive(&case.clock, task).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        jobs.push(Job { plan, host, ended });
    }
    let world = case.world();
    for (n, job) in jobs.iter().enumerate() {
        let told = format!("seed {seed}, job {n}: {:?} ended as {:?}; ledger {:#?}", job.plan, job.ended, world.ledger);
        check(&world, &jobs, job, &told);
    }
}

/// Holds what one job says against what was applied.
fn check(world: &World, jobs: &[Job], job: &Job, told: &str) {
    let requests = job.requests();
    let applied: Vec<&Applied> = world.ledger.iter().filter(|applied| requests.contains(&applied.request_id)).collect();
    assert!(applied.len() <= 1, "one effect of one execution: {told}");
    let own = applied.first();
    if let Some(own) = own.filter(|_| !job.plan.wants_its_own() && job.plan.input.get("since").is_none()) {
        assert_eq!(own.active_then, Vec::<String>::new(), "an active run would have been enough: {told}");
    }
    match &job.ended {
        Ok(verdict) => check_verdict(world, jobs, job, verdict, own.copied(), told),
        Err(ActivityError::Cancelled { message, facts }) => {
            assert!(job.plan.cancelled_ms.is_some(), "{told}");
            let named = facts.get("run").and_then(Value::as_str);
            let in_doubt = facts.contains_key("submissions_of_unknown_fate");
            if let Some(own) = own {
                assert!(named == Some(&own.run) || in_doubt, "an effect that the verdict hides: {told}");
            }
            if message.as_deref() == Some("no run was submitted") {
                assert!(own.is_none(), "{told}");
            }
            if facts.get("stop_requested") == Some(&json!(true)) {
                assert!(world.stopped.iter().any(|stopped| Some(stopped.as_str()) == named), "{told}");
            }
        }
        // Three answers in a row were lost, and nothing was applied.
        Err(ActivityError::Failed(failure)) if failure.code == "rerun.ambiguous" => assert!(own.is_none(), "{told}"),
        Err(other) => panic!("{other:?}: {told}"),
    }
}

fn check_verdict(world: &World, jobs: &[Job], job: &Job, verdict: &Verdict, own: Option<&Applied>, told: &str) {
    let run = fact(verdict, "run").as_str().expect("a run");
    assert!(verdict.is_passed(), "{told}");
    assert!(world.runs.iter().any(|known| known.name == run), "a run that is not there: {told}");
    let is_own = own.is_some_and(|own| own.run == run);
    let message = verdict.message();
    if fact(verdict, "started") == &json!(true) || message.contains("of this job") {
        assert!(is_own, "a run that is called ours and is not: {told}");
    }
    if let Some((_, rest)) = message.split_once("(adopted: job ") {
        let other: usize = rest.strip_prefix("job-").and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a job");
        let theirs = jobs[other].requests();
        let applied = world.ledger.iter().find(|applied| applied.run == run).expect("it was applied");
        assert!(theirs.contains(&applied.request_id), "a run that is said to be job {other}'s and is not: {told}");
    }
    if job.plan.wants_its_own() {
        assert!(is_own, "a job that wants a run of its own has none: {told}");
    } else if !is_own {
        assert!(own.is_none(), "an effect that the verdict hides: {told}");
    }
}

/// A quarter of the interleavings, so that they are tried beside each other.
async fn quarter(of: u64) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let (first, all) = (number(FIRST_SEED).unwrap_or(1), number(NUMBER.0).unwrap_or(NUMBER.1));
    for seed in (first..first + all).filter(|seed| seed % 4 == of) {
        interleaving(seed).await;
    }
}

#[tokio::test]
async fn whatever_interleaves_effects_equal_intents_and_every_verdict_is_true() {
    quarter(0).await;
}

#[tokio::test]
async fn whatever_interleaves_effects_equal_intents_and_every_verdict_is_true_second_quarter() {
    quarter(1).await;
}

#[tokio::test]
async fn whatever_interleaves_effects_equal_intents_and_every_verdict_is_true_third_quarter() {
    quarter(2).await;
}

#[tokio::test]
async fn whatever_interleaves_effects_equal_intents_and_every_verdict_is_true_last_quarter() {
    quarter(3).await;
}
