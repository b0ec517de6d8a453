//! An activity that does as it is told, and remembers what it did.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use iolaus_activities::{
    Activity, ActivityContext, ActivityError, ActivityOptions, CancelPlan, Category, EffectOutcome, EffectState, Failure,
    InputError, Reservation, Reserved, RetryPolicy, SlotClass, Stop, Timeouts, Verdict, duration,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

/// What attempt n does; the last entry is for all further ones.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    Pass,
    Refuse,
    Unavailable,
    RetryAfter(u64),
    Denied,
    GateThenDenied,
    GateThenUnavailable,
    SaveEvery(u64, u32),
    Panic,
    /// Waits until the test opens the gate, then passes.
    Gate,
    /// Waits to be stopped and answers as an activity should.
    UntilStopped,
    /// Waits for ever, whatever it is told.
    Ignore,
    /// Waits for the gate, saves, and only then has an effect.
    GateThenEffect,
    /// Saves these checkpoints, then fails as unavailable.
    SaveThenFail(Vec<Value>),
    /// Passes with what the last attempt saved as a fact.
    Recall,
    /// Heartbeats every so many seconds, so many times, then passes.
    Beat {
        every: u64,
        times: u32,
    },
    /// Reports progress of so many bytes, then waits for the gate.
    Shout(usize),
    /// Sleeps so many seconds, then passes.
    Sleep(u64),
    /// Passes with these facts.
    Tell(Value),
    /// Passes with the input's note as a fact.
    Echo,
    /// Saves this checkpoint, sends an effect that takes so many seconds and says so many at most, and then waits to be stopped.
    SlowEffect {
        checkpoint: Value,
        takes: u64,
        bound: u64,
    },
    /// Saves this checkpoint and ignores whatever it is told.
    SaveThenIgnore(Value),
    /// Saves this checkpoint and fails, to be tried again so many seconds later.
    SaveThenRetryAfter(Value, u64),
    /// Reserves an effect under this key and settles it, or tells who was first.
    Reserve(String),
    /// Waits for a cancel and undoes.
    Undo,
    /// Waits for a cancel, and cannot undo for now.
    UndoFails,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input {
    pub(crate) acts: Vec<Act>,
    #[serde(default)]
    pub(crate) waits: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    #[serde(default, with = "duration::optional")]
    #[schemars(with = "Option<String>")]
    pub(crate) heartbeat: Option<Duration>,
}

#[derive(Clone)]
pub(crate) struct Probe {
    seen: Arc<Mutex<Vec<(String, u32)>>>,
    pub(crate) started: Arc<Notify>,
    pub(crate) gate: Arc<Semaphore>,
    /// Told when something was saved or sent, and the attempt goes on.
    pub(crate) sent: Arc<Notify>,
    pub(crate) effects: Arc<AtomicUsize>,
}

impl Probe {
    pub(crate) fn new() -> Self {
        Self {
            seen: Arc::default(),
            started: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            sent: Arc::default(),
            effects: Arc::default(),
        }
    }

    /// The numbers of the attempts that were run of a job, in order.
    pub(crate) fn attempts(&self, job_id: &str) -> Vec<u32> {
        self.seen.lock().unwrap().iter().filter(|(id, _)| id == job_id).map(|(_, number)| *number).collect()
    }

    /// The jobs whose attempts were run, in order.
    pub(crate) fn order(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(id, _)| id.clone()).collect()
    }
}

impl Activity for Probe {
    const NAME: &'static str = "probe";
    type Input = Input;

    fn options(input: &Input) -> ActivityOptions {
        ActivityOptions {
            slot_class: if input.waits { SlotClass::Waits } else { SlotClass::Work },
            retry: RetryPolicy { maximum_attempts: 4, ..RetryPolicy::default() },
            timeouts: Timeouts { start_to_close: Duration::from_secs(60), heartbeat: input.heartbeat, ..Timeouts::default() },
        }
    }

    fn validate(input: &Input) -> Result<(), InputError> {
        InputError::unless(!input.acts.is_empty(), "acts", "must not be empty")
    }

    fn on_cancel(_: &str, _: &Input, checkpoint: &Value) -> CancelPlan {
        match (checkpoint.get("undo"), checkpoint.get("leave")) {
            (Some(_), _) => CancelPlan::Undo,
            (None, Some(run)) => CancelPlan::Close {
                message: Some(format!("run {} continues", run.as_str().unwrap_or_default())),
                facts: [("run".to_owned(), run.clone())].into_iter().collect(),
            },
            (None, None) => CancelPlan::default(),
        }
    }

    async fn run(&self, ctx: &ActivityContext, input: Input) -> Result<Verdict, ActivityError> {
        let attempt = ctx.attempt();
        self.seen.lock().unwrap().push((attempt.job_id.clone(), attempt.number));
        self.started.notify_one();
        let act = input.acts.get(attempt.number as usize - 1).or(input.acts.last()).unwrap().clone();
        match act {
            Act::Pass => Ok(Verdict::passed("it passed")),
            Act::Refuse => Ok(Verdict::failed("the tenant said no").check("Allowed", false)),
            Act::Unavailable => Err(unavailable().into()),
            Act::RetryAfter(seconds) => Err(unavailable().after(Some(Duration::from_secs(seconds))).into()),
            Act::Denied => Err(Failure::new("probe.denied", Category::Permission, "the tenant denies it").fact("who", "me").into()),
            Act::GateThenDenied => {
                self.gate.acquire().await.unwrap().forget();
                Err(Failure::new("probe.denied", Category::Permission, "the tenant denies it").into())
            }
            Act::GateThenUnavailable => {
                self.gate.acquire().await.unwrap().forget();
                Err(unavailable().into())
            }
            Act::SaveEvery(every, times) => {
                for beat in 0..times {
                    ctx.sleep(Duration::from_secs(every)).await?;
                    ctx.save(&beat).await?;
                }
                Ok(Verdict::passed("it saved"))
            }
            Act::Panic => panic!("the probe panics"),
            Act::Gate => {
                self.gate.acquire().await.unwrap().forget();
                Ok(Verdict::passed("the gate opened"))
            }
            Act::GateThenEffect => {
                self.gate.acquire().await.unwrap().forget();
                ctx.save(&"an intent").await?;
                self.effects.fetch_add(1, Ordering::SeqCst);
                Ok(Verdict::passed("it had its effect"))
            }
            Act::UntilStopped => Err(ctx.stopped().await.into()),
            Act::Ignore => std::future::pending().await,
            Act::SaveThenFail(checkpoints) => {
                for checkpoint in checkpoints {
                    ctx.save(&checkpoint).await?;
                }
                Err(unavailable().into())
            }
            Act::Recall => Ok(Verdict::passed("recalled").fact("checkpoint", ctx.checkpoint::<Value>()?)),
            Act::Beat { every, times } => {
                for beat in 0..times {
                    ctx.sleep(Duration::from_secs(every)).await?;
                    ctx.heartbeat(&beat);
                }
                Ok(Verdict::passed("it beat"))
            }
            Act::Shout(bytes) => {
                ctx.heartbeat(&"x".repeat(bytes));
                self.gate.acquire().await.unwrap().forget();
                Ok(Verdict::passed("it shouted"))
            }
            Act::Sleep(seconds) => {
                ctx.sleep(Duration::from_secs(seconds)).await?;
                Ok(Verdict::passed("it slept"))
            }
            Act::Tell(facts) => {
                let facts = facts.as_object().unwrap().iter();
                Ok(facts.fold(Verdict::passed("it told"), |verdict, (name, value)| verdict.fact(name, value.clone())))
            }
            Act::SlowEffect { checkpoint, takes, bound } => {
                ctx.save(&checkpoint).await?;
                let answer = ctx.clock().sleep(Duration::from_secs(takes));
                let sent = async {
                    self.sent.notify_one();
                    answer.await;
                };
                ctx.effect(Duration::from_secs(bound), sent).await;
                self.effects.fetch_add(1, Ordering::SeqCst);
                Err(acted(ctx.stopped().await, "it acted on its effect"))
            }
            Act::SaveThenIgnore(checkpoint) => {
                ctx.save(&checkpoint).await?;
                self.sent.notify_one();
                std::future::pending().await
            }
            Act::SaveThenRetryAfter(checkpoint, seconds) => {
                ctx.save(&checkpoint).await?;
                Err(unavailable().after(Some(Duration::from_secs(seconds))).into())
            }
            Act::Reserve(key) => reserve(ctx, key).await,
            Act::Undo => Err(acted(ctx.stopped().await, "it undid its effect")),
            Act::UndoFails => match ctx.stopped().await {
                Stop::Cancelled { .. } => Err(unavailable().fact("stop_requested", false).into()),
                stop => Err(stop.into()),
            },
            Act::Echo => Ok(Verdict::passed("it echoed").fact("note", input.note)),
        }
    }
}

async fn reserve(ctx: &ActivityContext, key: String) -> Result<Verdict, ActivityError> {
    let since = ctx.now() - jiff::SignedDuration::from_mins(5);
    let run = format!("run of {}", ctx.attempt().job_id);
    let reservation = Reservation { key: key.clone(), intents_since: since, applied_since: Some(since) };
    match ctx.reserve(&"an intent", reservation).await? {
        Reserved::Saved => {
            let settled = ctx.settle(&"settled", &key, EffectOutcome::Applied { run }).await?;
            Ok(Verdict::passed("it was first").fact("settled", settled))
        }
        Reserved::Conflict(others) => {
            let found = ctx.other_effects(&key, since).await?;
            assert_eq!(others, found);
            let names: Vec<String> = found.iter().map(|other| other.owner.job_id.clone()).collect();
            let claimed = match &found[0].state {
                EffectState::Applied { run } => ctx.settle(&"taken", &key, EffectOutcome::Applied { run: run.clone() }).await?,
                EffectState::Intent => panic!("it was settled"),
            };
            Ok(Verdict::passed("another was first")
                .fact("others", names)
                .fact("claimed", claimed)
                .fact("checkpoint", ctx.checkpoint::<Value>()?))
        }
    }
}

/// Only a cancel is acted on.
fn acted(stop: Stop, how: &str) -> ActivityError {
    match stop {
        Stop::Cancelled { .. } => ActivityError::Cancelled {
            message: Some(how.to_owned()),
            facts: [("acted".to_owned(), true.into())].into_iter().collect(),
        },
        stop => stop.into(),
    }
}

fn unavailable() -> Failure {
    Failure::new("probe.unavailable", Category::DependencyUnavailable, "the tenant is down")
}
