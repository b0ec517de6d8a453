//! What an attempt may ask of its host: durable checkpoints, signs of life, reasons to stop, time. The host stands behind one small
//! trait, so that an activity runs the same on every host and in a test.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use crate::clock::{BoxFuture, Clock};
use crate::effects::{EffectOutcome, OtherEffect, Reservation, Reserved};
use crate::failure::{Category, Failure};

/// What a host does for one attempt. Activities do not see this; they use [`ActivityContext`].
pub trait Host: Send + Sync + 'static {
    /// A sign of life with the newest progress. Cheap, coalesced, may be lost.
    fn heartbeat(&self, progress: Value);
    /// Makes a checkpoint durable. Ok only if it is durable and the attempt still owns its lease.
    fn save(&self, checkpoint: Value) -> BoxFuture<'_, Result<(), Interrupted>>;
    /// Ends when the attempt should stop, with the reason; at once when that is already so.
    fn stopped(&self) -> BoxFuture<'_, Stop>;
    /// Whether the worker's lease is known to be alive at this moment. An effect is started only then.
    fn may_act(&self) -> bool;
    /// Makes a checkpoint and the intent of an effect durable, both or neither, unless another execution of the queue is in the way.
    fn reserve_effect(&self, checkpoint: Value, reservation: Reservation) -> BoxFuture<'_, Result<Reserved, Interrupted>>;
    /// Makes a checkpoint and the end of the intent under this key durable. False: nothing was saved, since the run is recorded as
    /// another execution's.
    fn settle_effect(&self, checkpoint: Value, key: String, outcome: EffectOutcome) -> BoxFuture<'_, Result<bool, Interrupted>>;
    /// The effects of other executions of the queue under this key whose intents were saved at or after `since`, the newest first.
    fn other_effects(&self, key: String, since: Timestamp) -> BoxFuture<'_, Result<Vec<OtherEffect>, Interrupted>>;
    /// Says that an effect was sent whose answer takes at most `bound`. Until the guard is dropped or the bound is over, a stop or a
    /// timeout does not drop the attempt.
    fn effect_in_flight(&self, bound: Duration) -> EffectInFlight;
}

/// Held while the answer to an effect is awaited.
#[must_use = "the attempt may be dropped as soon as this is"]
pub struct EffectInFlight(Option<Box<dyn FnOnce() + Send>>);

impl EffectInFlight {
    /// Calls `ended` when it is dropped.
    pub fn new(ended: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(ended)))
    }

    /// For hosts that never drop an attempt.
    pub fn untracked() -> Self {
        Self(None)
    }
}

impl Drop for EffectInFlight {
    fn drop(&mut self) {
        if let Some(ended) = self.0.take() {
            ended();
        }
    }
}

/// Why an attempt should stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Somebody cancelled the job. Only this may act on the tenant.
    Cancelled {
        /// What they said.
        reason: Option<String>,
    },
    /// The worker is shutting down; another attempt goes on from the checkpoint.
    Draining,
    /// A timeout of the attempt or the execution fired.
    TimedOut(TimeoutKind),
    /// Another worker may own the job by now. Nothing more may be done.
    LeaseLost,
}

impl Stop {
    /// For hosts: waits until the channel carries a reason. A channel whose other end is gone means a lost lease.
    pub async fn said(mut stop: watch::Receiver<Option<Self>>) -> Self {
        match stop.wait_for(Option::is_some).await {
            Ok(stop) => stop.clone().unwrap_or(Self::LeaseLost),
            Err(_) => Self::LeaseLost,
        }
    }
}

/// Temporal's four timeouts, with its meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the standard ones")]
pub enum TimeoutKind {
    ScheduleToStart,
    StartToClose,
    ScheduleToClose,
    Heartbeat,
}

/// The attempt must end: a checkpoint could not be made durable, or the lease is gone. Nothing may be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the attempt was interrupted")]
pub struct Interrupted;

/// Which attempt of which job this is.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The caller's business id.
    pub job_id: String,
    /// The execution.
    pub run_id: String,
    /// The tenant's name.
    pub tenant: String,
    /// Counted from 1.
    pub number: u32,
    /// When the execution was opened.
    pub enqueued_at: Timestamp,
    /// What the last attempt saved.
    pub checkpoint: Option<Value>,
}

/// Handed to [`Activity::run`](crate::Activity::run).
pub struct ActivityContext {
    attempt: Attempt,
    host: Arc<dyn Host>,
    clock: Arc<dyn Clock>,
}

impl ActivityContext {
    /// Made by a host for one attempt.
    pub fn new(attempt: Attempt, host: Arc<dyn Host>, clock: Arc<dyn Clock>) -> Self {
        Self { attempt, host, clock }
    }

    /// Which attempt this is.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// The name of the tenant to act on.
    pub fn tenant(&self) -> &str {
        &self.attempt.tenant
    }

    /// What the last attempt saved, if any. A checkpoint that does not decode is a non-retryable failure.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let Some(value) = &self.attempt.checkpoint else { return Ok(None) };
        serde_json::from_value(value.clone()).map(Some).map_err(|error| {
            Failure::new(
                "checkpoint.undecodable",
                Category::DataIntegrity,
                format!("the stored checkpoint does not decode: {error}"),
            )
        })
    }

    /// A sign of life with the newest progress. Synchronous, cheap, coalesced, and may be lost. Unchanged progress writes nothing.
    ///
    /// ```
    /// # use iolaus_activities::*;
    /// # async fn look() -> Result<&'static str, Failure> { Ok("Running") }
    /// async fn poll(ctx: &ActivityContext) -> Result<(), ActivityError> {
    ///     let phase = look().await?;
    ///     ctx.heartbeat(&serde_json::json!({ "phase": phase }));
    ///     ctx.sleep(std::time::Duration::from_secs(5)).await?; // ends early when the attempt should stop
    ///     Ok(())
    /// }
    /// ```
    pub fn heartbeat(&self, progress: &impl Serialize) {
        self.host.heartbeat(to_value(progress));
    }

    /// Makes a checkpoint durable. **An effect is sent only after Ok**; on Err nothing is sent and the activity returns.
    ///
    /// ```
    /// # use iolaus_activities::*;
    /// # #[derive(serde::Serialize)] struct Intent { name: &'static str }
    /// # async fn create(_: &str) -> Result<(), Failure> { Ok(()) }
    /// async fn act(ctx: &ActivityContext) -> Result<Verdict, ActivityError> {
    ///     ctx.save(&Intent { name: "nightly-1" }).await?; // durable before the request leaves
    ///     create("nightly-1").await?;
    ///     Ok(Verdict::passed("nightly-1 exists"))
    /// }
    /// ```
    pub async fn save(&self, checkpoint: &impl Serialize) -> Result<(), Interrupted> {
        self.host.save(to_value(checkpoint)).await?;
        self.may_act()
    }

    /// Like [`save`](Self::save), for an effect that other jobs of the queue may want as well: the checkpoint is saved together with the
    /// intent, and neither is if another execution is in the way. **The effect is sent only after `Ok(Reserved::Saved)`.**
    pub async fn reserve(&self, checkpoint: &impl Serialize, reservation: Reservation) -> Result<Reserved, Interrupted> {
        let reserved = self.host.reserve_effect(to_value(checkpoint), reservation).await?;
        self.may_act().map(|()| reserved)
    }

    /// Saves a checkpoint together with what became of the intent under `key`. False: nothing was saved, since the run is known to be
    /// another execution's.
    pub async fn settle(&self, checkpoint: &impl Serialize, key: &str, outcome: EffectOutcome) -> Result<bool, Interrupted> {
        self.host.settle_effect(to_value(checkpoint), key.to_owned(), outcome).await
    }

    /// What other executions of the queue have reserved or applied under `key` since then, the newest first.
    pub async fn other_effects(&self, key: &str, since: Timestamp) -> Result<Vec<OtherEffect>, Interrupted> {
        self.host.other_effects(key.to_owned(), since).await
    }

    /// Awaits the answer to an effect, which takes at most `bound`. A stop or a timeout meanwhile does not drop the attempt, so that the
    /// activity learns what became of the effect and can act on it.
    pub async fn effect<F: Future>(&self, bound: Duration, effect: F) -> F::Output {
        let _in_flight = self.host.effect_in_flight(bound);
        effect.await
    }

    /// Whether an effect may still be started: the worker has renewed its lease in time.
    pub fn may_act(&self) -> Result<(), Interrupted> {
        if self.host.may_act() { Ok(()) } else { Err(Interrupted) }
    }

    /// Ends when the attempt should stop, with the reason. Only a cancel may act on the tenant: a rolling restart never stops a
    /// customer's extraction.
    ///
    /// ```
    /// # use iolaus_activities::*;
    /// # async fn stop_the_run() -> Result<(), Failure> { Ok(()) }
    /// async fn follow(ctx: &ActivityContext) -> ActivityError {
    ///     match ctx.stopped().await {
    ///         stop @ Stop::Cancelled { .. } => match stop_the_run().await {
    ///             Ok(()) => stop.into(),
    ///             Err(failure) => failure.into(),
    ///         },
    ///         // Another attempt goes on from the checkpoint.
    ///         stop @ (Stop::Draining | Stop::TimedOut(_) | Stop::LeaseLost) => stop.into(),
    ///     }
    /// }
    /// ```
    pub async fn stopped(&self) -> Stop {
        self.host.stopped().await
    }

    /// Runs `future` unless the attempt is stopped first; then the future is dropped. Not for effects.
    ///
    /// ```
    /// # use iolaus_activities::*;
    /// # async fn ask() -> Result<bool, Failure> { Ok(true) }
    /// async fn look(ctx: &ActivityContext) -> Result<Verdict, ActivityError> {
    ///     let yes = ctx.unless_stopped(ask()).await??;
    ///     Ok(if yes { Verdict::passed("yes") } else { Verdict::failed("no") })
    /// }
    /// ```
    pub async fn unless_stopped<F: Future>(&self, future: F) -> Result<F::Output, Stop> {
        tokio::select! {
            biased;
            stop = self.host.stopped() => Err(stop),
            output = future => Ok(output),
        }
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time that no clock adjustment moves; only differences have a meaning.
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Waits. Ends early, with the reason, when the attempt should stop.
    pub async fn sleep(&self, duration: Duration) -> Result<(), Stop> {
        self.unless_stopped(self.clock.sleep(duration)).await
    }

    /// A random number, evenly spread over `0.0..1.0`.
    pub fn random(&self) -> f64 {
        self.clock.random()
    }

    /// The clock itself, for code below the activity that waits on its own.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

/// Checkpoints and progress are plain data of our own; one that is not JSON would be a bug, and becomes visible as its error text.
fn to_value(data: &impl Serialize) -> Value {
    serde_json::to_value(data).unwrap_or_else(|error| Value::String(format!("not serialisable: {error}")))
}
