//! A host for tests of activities: checkpoints in memory, a clock under control, stops on demand, and death at or after the Nth save.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::activity::{Activity, ActivityError, ErasedActivity, Registry};
use crate::clock::{BoxFuture, Clock};
use crate::context::{ActivityContext, Attempt, EffectInFlight, Host, Interrupted, Stop};
use crate::effects::{EffectOutcome, EffectOwner, EffectRegister, OtherEffect, Reservation, Reserved};
use crate::verdict::Verdict;

/// Runs attempts of one job in memory.
///
/// ```
/// # use iolaus_activities::{*, testing::TestHost};
/// # struct Yes;
/// # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)] struct Nothing {}
/// # impl Activity for Yes {
/// #     const NAME: &'static str = "yes";
/// #     type Input = Nothing;
/// #     async fn run(&self, _: &ActivityContext, _: Nothing) -> Result<Verdict, ActivityError> { Ok(Verdict::passed("yes")) }
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let host = TestHost::new(std::sync::Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap())));
/// let verdict = host.attempt(Yes, serde_json::json!({})).await.unwrap();
/// assert!(verdict.is_passed());
/// # });
/// ```
pub struct TestHost {
    clock: Arc<dyn Clock>,
    state: Arc<State>,
}

struct State {
    inner: Mutex<Inner>,
    stop: watch::Sender<Option<Stop>>,
    clock: Arc<dyn Clock>,
    tenant: String,
    owner: EffectOwner,
    /// What the jobs of one queue know of each other.
    effects: Arc<EffectRegister>,
    /// How many effects were sent whose answer is awaited.
    in_flight: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Inner {
    attempts: u32,
    saves: Vec<Value>,
    progress: Vec<Value>,
    die_at_save: Option<usize>,
    die_after_save: Option<usize>,
}

impl TestHost {
    /// A job of the tenant `default` without a checkpoint, alone in its queue.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::in_queue(clock, "job", &Arc::default())
    }

    /// A job of the tenant `default` under this id, in a queue whose jobs know of each other's effects by this register.
    pub fn in_queue(clock: Arc<dyn Clock>, job_id: &str, effects: &Arc<EffectRegister>) -> Self {
        let state = State {
            inner: Mutex::default(),
            stop: watch::Sender::new(None),
            clock: clock.clone(),
            tenant: "default".to_owned(),
            owner: EffectOwner { job_id: job_id.to_owned(), run_id: format!("run of {job_id}") },
            effects: effects.clone(),
            in_flight: Arc::default(),
        };
        Self { clock, state: Arc::new(state) }
    }

    /// Lets the host die at the `n`-th save from now on (1 is the next): it is not stored and the attempt is interrupted.
    pub fn die_at_save(&self, n: usize) {
        self.state.with(|inner| inner.die_at_save = Some(inner.saves.len() + n));
    }

    /// Lets the host die right after the `n`-th save from now on: it is stored, the attempt is interrupted, and nothing is sent.
    pub fn die_after_save(&self, n: usize) {
        self.state.with(|inner| inner.die_after_save = Some(inner.saves.len() + n));
    }

    /// Asks the running attempt, and later ones, to stop. `None` takes it back.
    pub fn stop(&self, stop: Option<Stop>) {
        self.state.stop.send_replace(stop);
    }

    /// Every checkpoint that was stored, oldest first.
    pub fn saves(&self) -> Vec<Value> {
        self.state.with(|inner| inner.saves.clone())
    }

    /// Every progress that was reported, oldest first.
    pub fn progress(&self) -> Vec<Value> {
        self.state.with(|inner| inner.progress.clone())
    }

    /// How many effects were sent whose answer is awaited, as far as the attempts say. A real host drops no attempt meanwhile.
    pub fn effects_in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::SeqCst)
    }

    /// Runs the next attempt, which starts from the last stored checkpoint.
    pub async fn attempt<A: Activity>(&self, activity: A, input: Value) -> Result<Verdict, ActivityError> {
        let registry = Registry::default().with(activity);
        let activity: &Arc<dyn ErasedActivity> = registry.get(A::NAME).expect("it was registered a line above");
        activity.run(&self.next_context(), input).await
    }

    fn next_context(&self) -> ActivityContext {
        let (number, checkpoint) = self.state.with(|inner| {
            inner.attempts += 1;
            (inner.attempts, inner.saves.last().cloned())
        });
        let attempt = Attempt {
            job_id: self.state.owner.job_id.clone(),
            run_id: self.state.owner.run_id.clone(),
            tenant: self.state.tenant.clone(),
            number,
            enqueued_at: self.clock.now(),
            checkpoint,
        };
        ActivityContext::new(attempt, self.state.clone(), self.clock.clone())
    }
}

impl State {
    /// Stores a checkpoint together with what `effect` changes, or, as that says, neither.
    fn store<T, E>(&self, checkpoint: Value, effect: impl FnOnce() -> Result<T, E>) -> Result<Result<T, E>, Interrupted> {
        self.with(|inner| {
            if inner.die_at_save == Some(inner.saves.len() + 1) {
                inner.die_at_save = None;
                return Err(Interrupted);
            }
            let changed = match effect() {
                Ok(changed) => changed,
                Err(refused) => return Ok(Err(refused)),
            };
            inner.saves.push(checkpoint);
            let dies = inner.die_after_save.take_if(|n| *n == inner.saves.len()).is_some();
            if dies { Err(Interrupted) } else { Ok(Ok(changed)) }
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Host for State {
    fn heartbeat(&self, progress: Value) {
        self.with(|inner| inner.progress.push(progress));
    }

    fn save(&self, checkpoint: Value) -> BoxFuture<'_, Result<(), Interrupted>> {
        Box::pin(std::future::ready(self.store(checkpoint, || Ok(())).map(|_: Result<(), ()>| ())))
    }

    fn stopped(&self) -> BoxFuture<'_, Stop> {
        Box::pin(Stop::said(self.stop.subscribe()))
    }

    fn may_act(&self) -> bool {
        true
    }

    fn reserve_effect(&self, checkpoint: Value, reservation: Reservation) -> BoxFuture<'_, Result<Reserved, Interrupted>> {
        let reserve = || match self.effects.reserve(&self.tenant, &self.owner, &reservation, self.clock.now()) {
            Reserved::Saved => Ok(Reserved::Saved),
            conflict @ Reserved::Conflict(_) => Err(conflict),
        };
        let reserved = self.store(checkpoint, reserve).map(|reserved| reserved.unwrap_or_else(|conflict| conflict));
        Box::pin(std::future::ready(reserved))
    }

    fn settle_effect(&self, checkpoint: Value, key: String, outcome: EffectOutcome) -> BoxFuture<'_, Result<bool, Interrupted>> {
        let settle = || {
            let settled = self.effects.settle(&self.tenant, &self.owner, &key, &outcome, self.clock.now());
            settled.then_some(()).ok_or(())
        };
        Box::pin(std::future::ready(self.store(checkpoint, settle).map(|settled| settled.is_ok())))
    }

    fn other_effects(&self, key: String, since: Timestamp) -> BoxFuture<'_, Result<Vec<OtherEffect>, Interrupted>> {
        let others = self.effects.others(&self.tenant, &self.owner, &key, since, self.clock.now());
        Box::pin(std::future::ready(Ok(others)))
    }

    fn effect_in_flight(&self, _: Duration) -> EffectInFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let in_flight = self.in_flight.clone();
        EffectInFlight::new(move || {
            in_flight.fetch_sub(1, Ordering::SeqCst);
        })
    }
}
