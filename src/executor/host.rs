//! What stands behind the context of a running activity: its checkpoints and effects in one serial line to the store, its signs of
//! life, the reason to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iolaus_activities::{
    BoxFuture, Category, Clock, EffectInFlight, EffectOutcome, Failure, Host, Interrupted, OtherEffect, Reservation, Reserved,
    Stop, codes,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::in_flight::Effects;
use super::signs::{Signs, bounded, text};
use super::{AttemptStore, Execution, InFlight, SaveError};
use crate::job::{json_len, limits, nests_within};

/// One attempt, as its activity sees its host.
pub(super) struct AttemptHost {
    store: Arc<dyn AttemptStore>,
    pub(super) stop: watch::Sender<Option<Stop>>,
    /// The activity was told of a cancel.
    told_cancelled: AtomicBool,
    pub(super) clock: Arc<dyn Clock>,
    signs: Mutex<Signs>,
    pub(super) news: Notify,
    pub(super) effects: Arc<Effects>,
    /// One serial sender: an older checkpoint never lands after a newer one.
    sender: tokio::sync::Mutex<()>,
    fault: Mutex<Option<Failure>>,
}

impl AttemptHost {
    pub(super) fn new(
        store: Arc<dyn AttemptStore>,
        stop: watch::Sender<Option<Stop>>,
        clock: Arc<dyn Clock>,
        checkpoint: Option<&Value>,
        in_flight: InFlight,
    ) -> Self {
        let (last, changed_at) = (clock.monotonic(), clock.now());
        let checkpoint = checkpoint.map(text);
        let signs = Signs { last, changed: last, changed_at, checkpoint, progress: None, stalled: false, unreported: false };
        let effects = Effects::new(clock.clone(), in_flight);
        let (news, sender, told_cancelled) = (Notify::new(), tokio::sync::Mutex::new(()), AtomicBool::new(false));
        Self { store, stop, told_cancelled, clock, signs: Mutex::new(signs), news, effects, sender, fault: Mutex::default() }
    }

    pub(super) fn signs(&self) -> MutexGuard<'_, Signs> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn heartbeat_timer(&self, timeout: Option<Duration>) -> Option<BoxFuture<'static, ()>> {
        timeout.map(|timeout| self.clock.deadline(timeout))
    }

    pub(super) fn quiet_for(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.signs().last)
    }

    pub(super) fn unchanged_for(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.signs().changed)
    }

    /// Whether the activity was told of a cancel.
    pub(super) fn was_told(&self) -> bool {
        self.told_cancelled.load(Ordering::SeqCst)
    }

    /// Why the attempt was interrupted, if the store did it.
    pub(super) fn take_fault(&self) -> Option<Failure> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn mark_stalled(&self, execution: &Execution, unchanged: Duration) {
        let mut signs = self.signs();
        signs.stalled = true;
        signs.unreported = true;
        drop(signs);
        self.news.notify_one();
        tracing::warn!(
            job_id = %execution.job_id, run_id = %execution.run_id, activity = %execution.activity, attempt = execution.attempts,
            unchanged_s = unchanged.as_secs(), "the attempt's progress has stalled; it goes on"
        );
    }

    pub(super) fn next_report(&self) -> Option<BoxFuture<'_, ()>> {
        let mut signs = self.signs();
        if !std::mem::take(&mut signs.unreported) {
            return None;
        }
        let stalled_since = signs.stalled.then_some(signs.changed_at);
        let progress = signs.progress.as_deref().map(bounded);
        drop(signs);
        Some(Box::pin(async move {
            let _turn = self.sender.lock().await;
            self.store.report(progress, stalled_since).await;
        }))
    }

    fn fail(&self, failure: Failure) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    fn note_checkpoint(&self, checkpoint: &Value) {
        let mut signs = self.signs();
        signs.sign_of_life(self.clock.as_ref(), |signs| {
            let checkpoint = text(checkpoint);
            let changed = signs.checkpoint.as_ref() != Some(&checkpoint);
            signs.checkpoint = Some(checkpoint);
            changed
        });
        if signs.unreported {
            self.news.notify_one();
        }
    }

    /// Refuses a checkpoint that is over its limit or could not be read again.
    fn check(&self, checkpoint: &Value) -> Result<(), Interrupted> {
        let size = json_len(checkpoint);
        let message = if size > limits::CHECKPOINT {
            format!("the checkpoint has {size} bytes; at most {} are allowed", limits::CHECKPOINT)
        } else if !nests_within(checkpoint, limits::DEPTH) {
            format!("the checkpoint is nested more than {} levels deep", limits::DEPTH)
        } else {
            return Ok(());
        };
        self.fail(Failure::new(codes::OUTPUT_TOO_LARGE, Category::ResourceExhausted, message).with_retryable(false));
        Err(Interrupted)
    }

    /// Stores a checkpoint, and what belongs to it, in its turn.
    async fn store_in_turn<'a, T>(
        &'a self,
        checkpoint: Value,
        store: impl FnOnce(Value) -> BoxFuture<'a, Result<T, SaveError>>,
    ) -> Result<T, Interrupted> {
        self.check(&checkpoint)?;
        self.note_checkpoint(&checkpoint);
        let _turn = self.sender.lock().await;
        let stored = store(checkpoint).await;
        self.signs().last = self.clock.monotonic();
        self.stored(stored)
    }

    fn stored<T>(&self, stored: Result<T, SaveError>) -> Result<T, Interrupted> {
        match stored {
            Ok(stored) => Ok(stored),
            Err(SaveError::LeaseLost) => {
                self.stop.send_replace(Some(Stop::LeaseLost));
                Err(Interrupted)
            }
            Err(SaveError::Unavailable(why)) => {
                let message = format!("the checkpoint could not be stored: {why}");
                self.fail(Failure::new(codes::STORE_UNAVAILABLE, Category::DependencyUnavailable, message));
                Err(Interrupted)
            }
        }
    }
}

impl Host for AttemptHost {
    fn heartbeat(&self, progress: Value) {
        let mut signs = self.signs();
        let changed = signs.sign_of_life(self.clock.as_ref(), |signs| {
            let progress = text(&progress);
            let changed = signs.progress.as_ref() != Some(&progress);
            signs.progress = Some(progress);
            changed
        });
        signs.unreported |= changed;
        let unreported = signs.unreported;
        drop(signs);
        if unreported {
            self.news.notify_one();
        }
    }

    fn save(&self, checkpoint: Value) -> BoxFuture<'_, Result<(), Interrupted>> {
        Box::pin(self.store_in_turn(checkpoint, |checkpoint| self.store.save(checkpoint)))
    }

    fn stopped(&self) -> BoxFuture<'_, Stop> {
        Box::pin(async {
            let stop = Stop::said(self.stop.subscribe()).await;
            if matches!(stop, Stop::Cancelled { .. }) {
                self.told_cancelled.store(true, Ordering::SeqCst);
            }
            stop
        })
    }

    fn may_act(&self) -> bool {
        *self.stop.borrow() != Some(Stop::LeaseLost) && self.store.lease_alive()
    }

    fn reserve_effect(&self, checkpoint: Value, reservation: Reservation) -> BoxFuture<'_, Result<Reserved, Interrupted>> {
        Box::pin(self.store_in_turn(checkpoint, move |checkpoint| self.store.reserve(checkpoint, reservation)))
    }

    fn settle_effect(&self, checkpoint: Value, key: String, outcome: EffectOutcome) -> BoxFuture<'_, Result<bool, Interrupted>> {
        Box::pin(self.store_in_turn(checkpoint, move |checkpoint| self.store.settle(checkpoint, key, outcome)))
    }

    fn other_effects(&self, key: String, since: Timestamp) -> BoxFuture<'_, Result<Vec<OtherEffect>, Interrupted>> {
        Box::pin(async move {
            let others = self.store.other_effects(key, since).await;
            self.stored(others)
        })
    }

    fn effect_in_flight(&self, bound: Duration) -> EffectInFlight {
        self.effects.begin(bound)
    }
}
