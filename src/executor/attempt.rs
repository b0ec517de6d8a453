//! Runs one attempt: watches its timeouts, its signs of life and its stop signal around the activity's future, and says how it ended.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use iolaus_activities::{
    ActivityContext, ActivityError, Attempt, BoxFuture, Category, Clock, EffectInFlight, EffectOutcome, EffectOwner,
    EffectRegister, ErasedActivity, Failure, Host, Interrupted, OtherEffect, Reservation, Reserved, Stop, TimeoutKind, Verdict,
    codes,
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};

use super::signs::{Signs, bounded, text};
use super::{Execution, Outcome};
use crate::job::{json_len, limits, nests_within};

/// The durable side of one attempt. A host implements it.
pub trait AttemptStore: Send + Sync + 'static {
    /// Makes a checkpoint durable, if the attempt still owns its lease.
    fn save(&self, checkpoint: Value) -> BoxFuture<'_, Result<(), SaveError>>;
    /// Shows progress to people. May be lost.
    fn report(&self, progress: Option<Value>, stalled_since: Option<Timestamp>) -> BoxFuture<'_, ()>;
    /// Whether the worker has renewed its lease in time.
    fn lease_alive(&self) -> bool;
}

/// Why a checkpoint was not saved.
#[derive(Debug)]
pub enum SaveError {
    /// Another worker may own the job.
    LeaseLost,
    /// The store could not be written.
    Unavailable(String),
}

/// How attempts are run, whatever the activity.
#[derive(Debug, Clone)]
pub struct ExecutorSettings {
    /// An activity that ignores a stop is dropped after this long.
    pub cancel_grace: Duration,
    /// Progress that has not changed for this long is worth one warning.
    pub stall_after: Duration,
    /// Progress is written at most this often.
    pub progress_interval: Duration,
}

/// One attempt to run.
pub struct Assignment {
    /// The code.
    pub activity: Arc<dyn ErasedActivity>,
    /// The execution that it belongs to.
    pub execution: Arc<Execution>,
    /// What it was asked.
    pub input: Value,
    /// What the last attempt saved.
    pub checkpoint: Option<Value>,
}

/// Runs one attempt to its end. `stop` carries the host's reasons to stop. Boxed and not taken apart, because thousands of waits wait
/// in here.
pub async fn run_attempt(
    mut assignment: Box<Assignment>,
    store: Arc<dyn AttemptStore>,
    stop: watch::Sender<Option<Stop>>,
    clock: Arc<dyn Clock>,
    settings: &ExecutorSettings,
) -> Outcome {
    let host = Arc::new(AttemptHost::new(store, stop, clock.clone(), &assignment));
    let ctx = Box::new(ActivityContext::new(attempt(&mut assignment), host.clone(), clock));
    let input = assignment.input.take();
    let end = watch_over(assignment.activity.run(&ctx, input), &host, &assignment.execution, settings).await;
    host.classify(end)
}

fn attempt(assignment: &mut Assignment) -> Attempt {
    let execution = &assignment.execution;
    Attempt {
        job_id: execution.job_id.to_string(),
        run_id: execution.run_id.to_string(),
        tenant: execution.tenant.clone(),
        number: execution.attempts,
        enqueued_at: execution.enqueued_at,
        checkpoint: assignment.checkpoint.take(),
    }
}

/// How the activity's future ended.
enum End {
    Returned(Result<Verdict, ActivityError>),
    Panicked(String),
    TimedOut(TimeoutKind),
    IgnoredStop,
}

async fn watch_over(
    run: BoxFuture<'_, Result<Verdict, ActivityError>>,
    host: &AttemptHost,
    execution: &Execution,
    settings: &ExecutorSettings,
) -> End {
    let mut run = run;
    let mut run = std::pin::pin!(poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
        Ok(Poll::Ready(result)) => Poll::Ready(End::Returned(result)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(End::Panicked(panic_text(panic.as_ref()))),
    }));
    let (limit, kind) = time_limit(execution, host.clock.now());
    let mut time_up = host.clock.deadline(limit);
    let mut stop = host.stop.subscribe();
    let mut grace: Option<BoxFuture<'static, ()>> = None;
    let mut quiet = host.heartbeat_timer(execution.options.timeouts.heartbeat);
    let mut stalled = Some(host.clock.deadline(settings.stall_after));
    let mut report: Option<BoxFuture<'_, ()>> = None;
    let mut pause: Option<BoxFuture<'static, ()>> = None;
    loop {
        tokio::select! {
            biased;
            end = &mut run => return end,
            stopped = stop.wait_for(Option::is_some), if grace.is_none() => {
                drop(stopped);
                grace = Some(host.clock.deadline(settings.cancel_grace));
            }
            () = optional(&mut grace), if grace.is_some() => return End::IgnoredStop,
            () = &mut time_up => return End::TimedOut(kind),
            () = optional(&mut quiet), if quiet.is_some() => {
                let timeout = execution.options.timeouts.heartbeat.unwrap_or_default();
                match timeout.checked_sub(host.quiet_for()) {
                    Some(left) if !left.is_zero() => quiet = Some(host.clock.deadline(left)),
                    _ => return End::TimedOut(TimeoutKind::Heartbeat),
                }
            }
            () = optional(&mut stalled), if stalled.is_some() => {
                let unchanged = host.unchanged_for();
                stalled = match settings.stall_after.checked_sub(unchanged) {
                    Some(left) if !left.is_zero() => Some(host.clock.deadline(left)),
                    _ => { host.mark_stalled(execution, unchanged); None }
                };
            }
            () = optional(&mut report), if report.is_some() => {
                report = None;
                pause = Some(host.clock.deadline(settings.progress_interval));
            }
            () = optional(&mut pause), if pause.is_some() => pause = None,
            () = host.news.notified(), if report.is_none() && pause.is_none() => {
                if stalled.is_none() && !host.signs().stalled {
                    stalled = Some(host.clock.deadline(settings.stall_after));
                }
                report = host.next_report();
            }
        }
    }
}

async fn optional(future: &mut Option<BoxFuture<'_, ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn time_limit(execution: &Execution, now: Timestamp) -> (Duration, TimeoutKind) {
    let attempt = execution.options.timeouts.start_to_close;
    let whole = execution.close_by.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    match whole {
        Some(whole) if whole < attempt => (whole, TimeoutKind::ScheduleToClose),
        _ => (attempt, TimeoutKind::StartToClose),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

/// What the executions of this process know of each other's effects.
static EFFECTS: LazyLock<EffectRegister> = LazyLock::new(EffectRegister::default);

/// What stands behind the activity's context.
struct AttemptHost {
    tenant: String,
    owner: EffectOwner,
    store: Arc<dyn AttemptStore>,
    stop: watch::Sender<Option<Stop>>,
    clock: Arc<dyn Clock>,
    signs: Mutex<Signs>,
    news: Notify,
    /// One serial sender: an older checkpoint never lands after a newer one.
    sender: tokio::sync::Mutex<()>,
    fault: Mutex<Option<Failure>>,
}

impl AttemptHost {
    fn new(
        store: Arc<dyn AttemptStore>,
        stop: watch::Sender<Option<Stop>>,
        clock: Arc<dyn Clock>,
        assignment: &Assignment,
    ) -> Self {
        let (last, changed_at) = (clock.monotonic(), clock.now());
        let execution = &assignment.execution;
        let owner = EffectOwner { job_id: execution.job_id.to_string(), run_id: execution.run_id.to_string() };
        let checkpoint = assignment.checkpoint.as_ref().map(text);
        let signs = Signs { last, changed: last, changed_at, checkpoint, progress: None, stalled: false, unreported: false };
        let (news, sender) = (Notify::new(), tokio::sync::Mutex::new(()));
        let (tenant, fault) = (execution.tenant.clone(), Mutex::default());
        Self { tenant, owner, store, stop, clock, signs: Mutex::new(signs), news, sender, fault }
    }

    fn signs(&self) -> MutexGuard<'_, Signs> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heartbeat_timer(&self, timeout: Option<Duration>) -> Option<BoxFuture<'static, ()>> {
        timeout.map(|timeout| self.clock.deadline(timeout))
    }

    fn quiet_for(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.signs().last)
    }

    fn unchanged_for(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.signs().changed)
    }

    fn mark_stalled(&self, execution: &Execution, unchanged: Duration) {
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

    fn next_report(&self) -> Option<BoxFuture<'_, ()>> {
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

    async fn save_in_turn(&self, checkpoint: Value) -> Result<(), Interrupted> {
        let size = json_len(&checkpoint);
        if size > limits::CHECKPOINT {
            let message = format!("the checkpoint has {size} bytes; at most {} are allowed", limits::CHECKPOINT);
            self.fail(Failure::new(codes::OUTPUT_TOO_LARGE, Category::ResourceExhausted, message).with_retryable(false));
            return Err(Interrupted);
        }
        if !nests_within(&checkpoint, limits::DEPTH) {
            let message = format!("the checkpoint is nested more than {} levels deep", limits::DEPTH);
            self.fail(Failure::new(codes::OUTPUT_TOO_LARGE, Category::ResourceExhausted, message).with_retryable(false));
            return Err(Interrupted);
        }
        self.note_checkpoint(&checkpoint);
        let _turn = self.sender.lock().await;
        let saved = self.store.save(checkpoint).await;
        self.signs().last = self.clock.monotonic();
        match saved {
            Ok(()) => Ok(()),
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

    /// How an attempt ended, from how its future ended and why it was asked to stop.
    fn classify(&self, end: End) -> Outcome {
        let stop = self.stop.borrow().clone();
        if stop == Some(Stop::LeaseLost) {
            return Outcome::LeaseLost;
        }
        match end {
            End::Returned(Ok(verdict)) => Outcome::Verdict(verdict),
            End::Returned(Err(ActivityError::Failed(failure))) => Outcome::Failed(failure),
            End::Returned(Err(ActivityError::Cancelled { message, facts })) => Outcome::Cancelled { message, facts },
            End::Returned(Err(ActivityError::Interrupted)) => {
                match self.fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    Some(failure) => Outcome::Failed(failure),
                    None => by_stop(stop),
                }
            }
            End::IgnoredStop => by_stop(stop),
            End::Panicked(text) => {
                let message = format!("the activity's code panicked: {text}");
                Outcome::Failed(Failure::new(codes::ACTIVITY_PANICKED, Category::Internal, message).with_retryable(true))
            }
            End::TimedOut(kind) => Outcome::Failed(timed_out(kind)),
        }
    }
}

fn by_stop(stop: Option<Stop>) -> Outcome {
    match stop {
        Some(Stop::Cancelled { reason }) => Outcome::Cancelled { message: reason, facts: Map::new() },
        Some(Stop::Draining) => Outcome::Drained,
        Some(Stop::LeaseLost) => Outcome::LeaseLost,
        Some(Stop::TimedOut(kind)) => Outcome::Failed(timed_out(kind)),
        None => {
            let message = "the worker did not renew its lease in time, so the attempt started no further effect";
            Outcome::Failed(Failure::new(codes::WORKER_LOST, Category::DependencyUnavailable, message))
        }
    }
}

/// The failure that a timeout is. Only those of one attempt are retryable.
pub(crate) fn timed_out(kind: TimeoutKind) -> Failure {
    let (code, message, retryable) = match kind {
        TimeoutKind::ScheduleToStart => (codes::TIMEOUT_SCHEDULE_TO_START, "no attempt started within schedule_to_start", false),
        TimeoutKind::StartToClose => (codes::TIMEOUT_START_TO_CLOSE, "the attempt took longer than start_to_close", true),
        TimeoutKind::ScheduleToClose => {
            (codes::TIMEOUT_SCHEDULE_TO_CLOSE, "the execution took longer than schedule_to_close", false)
        }
        TimeoutKind::Heartbeat => (codes::TIMEOUT_HEARTBEAT, "the attempt gave no sign of life within its heartbeat timeout", true),
    };
    Failure::new(code, Category::Timeout, message).with_retryable(retryable)
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
        Box::pin(self.save_in_turn(checkpoint))
    }

    fn stopped(&self) -> BoxFuture<'_, Stop> {
        Box::pin(Stop::said(self.stop.subscribe()))
    }

    fn may_act(&self) -> bool {
        *self.stop.borrow() != Some(Stop::LeaseLost) && self.store.lease_alive()
    }

    fn reserve_effect(&self, checkpoint: Value, reservation: Reservation) -> BoxFuture<'_, Result<Reserved, Interrupted>> {
        Box::pin(async move {
            let reserved = EFFECTS.reserve(&self.tenant, &self.owner, &reservation, self.clock.now());
            match reserved {
                Reserved::Saved => self.save_in_turn(checkpoint).await.map(|()| reserved),
                Reserved::Conflict(_) => Ok(reserved),
            }
        })
    }

    fn settle_effect(&self, checkpoint: Value, key: String, outcome: EffectOutcome) -> BoxFuture<'_, Result<bool, Interrupted>> {
        Box::pin(async move {
            if !EFFECTS.settle(&self.tenant, &self.owner, &key, &outcome, self.clock.now()) {
                return Ok(false);
            }
            self.save_in_turn(checkpoint).await.map(|()| true)
        })
    }

    fn other_effects(&self, key: String, since: Timestamp) -> BoxFuture<'_, Result<Vec<OtherEffect>, Interrupted>> {
        let others = EFFECTS.others(&self.tenant, &self.owner, &key, since, self.clock.now());
        Box::pin(std::future::ready(Ok(others)))
    }

    fn effect_in_flight(&self, _: Duration) -> EffectInFlight {
        EffectInFlight::untracked()
    }
}
