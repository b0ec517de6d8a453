//! Random interleavings of several jobs of one queue for one workflow of a tenant that allows several active runs, or refuses a second one
//! and gets submissions twice: searches that lag, answers that are lost or late, workers that die at any save, cancels. What was applied is held against what every job says. The same
//! in two processes on one queue: `tests/it/interleavings.rs`.

use std::collections::BTreeMap;

use effect_oracle::{Applied, Ended, Job, Ledger, check, random_input, seeds};

use super::*;
use crate::effects::EffectRegister;

#[path = "../../../tests/support/effect_oracle.rs"]
mod effect_oracle;

/// So many interleavings are tried unless a variable says another number.
const USUAL: u64 = 1_000;

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
    fn random(random: &mut fastrand::Rng, now: Timestamp) -> Self {
        let input = random_input(random, &timestamp::format(now));
        let deaths = (0..random.usize(..3)).map(|attempt| (attempt, random.usize(1..=4), random.bool()));
        Self {
            input,
            deaths: deaths.collect(),
            begins_ms: if random.u8(..100) < 40 { 0 } else { random.u64(..15_000) },
            cancelled_ms: (random.u8(..100) < 20).then(|| random.u64(..60_000)),
        }
    }
}

fn submission(random: &mut fastrand::Rng, clock: &Arc<ManualClock>) -> Does {
    match random.u8(..10) {
        0 => does(true, Reply::cut()),
        1 => does(false, Reply::cut()),
        2 => does(true, Reply::json(502, &json!({})).late(clock, Duration::from_millis(random.u64(..40_000)))),
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
    let mut random = fastrand::Rng::with_seed(seed);
    let case = Case::new(|world| {
        world.me = random.bool().then_some("u-me");
        world.dated = random.u8(..100) < 80;
        world.lag = Duration::from_millis(random.u64(..10_000));
        world.lasts = Duration::from_millis(random.u64(1_000..61_000));
        if random.u8(..100) < 30 {
            world.run_skew = SignedDuration::from_secs(random.i64(-4..=4));
        }
        if random.u8(..100) < 30 {
            (world.refuses, world.arrivals) = (true, random.usize(1..=2));
            // The double of a tenant goes by these times itself.
            world.run_skew = SignedDuration::ZERO;
        }
        for _ in 0..random.usize(..6) {
            let does = submission(&mut random, &world.clock);
            world.submits.push_back(does);
        }
    })
    .await;
    let case = Arc::new(case);
    let queue: Arc<EffectRegister> = Arc::default();
    let mut tasks = Vec::new();
    for n in 0..random.usize(2..=8) {
        let mut plan = Plan::random(&mut random, case.clock.now());
        if case.world().refuses {
            // Beside an active run there is none of one's own.
            plan.input["idempotent"] = json!(true);
        }
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
    for (n, (plan, host, task)) in tasks.into_iter().enumerate() {
        let ended = drive(&case.clock, task).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        jobs.push(told(format!("job-{n}"), &plan, &host, ended));
    }
    check(&ledger(&case.world()), &jobs, &format!("seed {seed}"));
}

fn told(id: String, plan: &Plan, host: &TestHost, ended: Result<Verdict, ActivityError>) -> Job {
    let intent = |save: &Value| Some(save["effort"]["intent"]["request_id"].as_str()?.to_owned());
    let ended = match ended {
        Ok(verdict) => {
            Ended::Verdict { passed: verdict.is_passed(), message: verdict.message().to_owned(), facts: verdict.facts().clone() }
        }
        Err(ActivityError::Cancelled { message, facts }) => Ended::Cancelled { message, facts },
        Err(ActivityError::Failed(failure)) => Ended::Unresolved { code: failure.code.to_string() },
        Err(ActivityError::Interrupted) => unreachable!("it is attempted again"),
    };
    Job {
        id,
        input: plan.input.clone(),
        cancelled: plan.cancelled_ms.is_some(),
        intents: host.saves().iter().filter_map(intent).collect(),
        ended,
    }
}

fn ledger(world: &World) -> Ledger {
    let applied = world.ledger.iter().map(|applied| Applied {
        request_id: applied.request_id.clone(),
        run: applied.run.clone(),
        active_then: applied.active_then.clone(),
    });
    let runs: BTreeMap<_, _> = world.runs.iter().map(|run| (run.name.clone(), "Succeeded")).collect();
    Ledger { applied: applied.collect(), runs, stopped: world.stopped.iter().cloned().collect() }
}

/// A quarter of the interleavings, so that they are tried beside each other.
async fn quarter(of: u64) {
    for seed in seeds(USUAL).filter(|seed| seed % 4 == of) {
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
