//! Runs one attempt: watches its timeouts, its signs of life and its stop signal around the activity's future, and says how it ended.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use iolaus_activities::{
    ActivityContext, ActivityError, Attempt, BoxFuture, Category, Clock, EffectOutcome, ErasedActivity, Failure, OtherEffect,
    Reservation, Reserved, Stop, TimeoutKind, Verdict, codes,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::host::AttemptHost;
use super::{Execution, InFlight, Outcome};

/// A last attempt, which only undoes, has this long before it counts as one that ignores its stop.
const UNDO_TIME: Duration = Duration::from_secs(90);

/// The durable side of one attempt. A host implements it.
pub trait AttemptStore: Send + Sync + 'static {
    /// Makes a checkpoint durable, if the attempt still owns its lease.
    fn save(&self, checkpoint: Value) -> BoxFuture<'_, Result<(), SaveError>>;
    /// Makes a checkpoint and an intent durable, both or, if another execution of the queue is in the way, neither.
    fn reserve(&self, checkpoint: Value, reservation: Reservation) -> BoxFuture<'_, Result<Reserved, SaveError>>;
    /// Makes a checkpoint and the end of an intent durable. False, and neither is, if the run is another execution's.
    fn settle(&self, checkpoint: Value, key: String, outcome: EffectOutcome) -> BoxFuture<'_, Result<bool, SaveError>>;
    /// The effects of other executions of the queue under this key, the newest first.
    fn other_effects(&self, key: String, since: Timestamp) -> BoxFuture<'_, Result<Vec<OtherEffect>, SaveError>>;
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
    /// An activity that ignores a stop is dropped after this long, or this long after the answer to an effect.
    pub cancel_grace: Duration,
    /// How long the answer to an effect may keep an attempt past a stop.
    pub stop_extension: Duration,
    /// How long it may keep an attempt past a timeout.
    pub timeout_extension: Duration,
    /// Counts the effects of the worker's attempts.
    pub in_flight: InFlight,
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

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    /// What came of it.
    pub outcome: Outcome,
    /// Whether that is the activity's answer to a requested cancel.
    pub answers_cancel: bool,
}

/// Runs one attempt to its end. `stop` carries the host's reasons to stop. Boxed and not taken apart, because thousands of waits wait
/// in here.
pub async fn run_attempt(
    mut assignment: Box<Assignment>,
    store: Arc<dyn AttemptStore>,
    stop: watch::Sender<Option<Stop>>,
    clock: Arc<dyn Clock>,
    settings: &ExecutorSettings,
) -> Ran {
    let checkpoint = assignment.checkpoint.as_ref();
    let host = Arc::new(AttemptHost::new(store, stop, clock.clone(), checkpoint, settings.in_flight.clone()));
    let ctx = Box::new(ActivityContext::new(attempt(&mut assignment), host.clone(), clock));
    let input = assignment.input.take();
    let end = watch_over(assignment.activity.run(&ctx, input), &host, &assignment.execution, settings).await;
    classify(&host, end)
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
    let only_undoes = matches!(*stop.borrow(), Some(Stop::Cancelled { .. }));
    let stopping = if only_undoes { UNDO_TIME } else { settings.cancel_grace };
    let (mut held_at_stop, mut held_at_timeout) = (None, None);
    let hold = |most, since: &mut _| host.effects.hold(settings.cancel_grace, most, since).map(|left| host.clock.deadline(left));
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
                grace = Some(host.clock.deadline(stopping));
            }
            () = optional(&mut grace), if grace.is_some() => match hold(settings.stop_extension, &mut held_at_stop) {
                Some(longer) => grace = Some(longer),
                None => return End::IgnoredStop,
            },
            () = &mut time_up => match hold(settings.timeout_extension, &mut held_at_timeout) {
                Some(longer) => time_up = longer,
                None => return End::TimedOut(kind),
            },
            () = optional(&mut quiet), if quiet.is_some() => {
                let timeout = execution.options.timeouts.heartbeat.unwrap_or_default();
                match timeout.checked_sub(host.quiet_for()) {
                    Some(left) if !left.is_zero() => quiet = Some(host.clock.deadline(left)),
                    _ => match hold(settings.timeout_extension, &mut held_at_timeout) {
                        Some(longer) => quiet = Some(longer),
                        None => return End::TimedOut(TimeoutKind::Heartbeat),
                    },
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

/// How an attempt ended, from how its future ended and why it was asked to stop.
fn classify(host: &AttemptHost, end: End) -> Ran {
    let stop = host.stop.borrow().clone();
    // An activity that saw the cancel and returned by itself has answered it.
    let answers_cancel = host.was_told() && matches!(&end, End::Returned(result) if *result != Err(ActivityError::Interrupted));
    if stop == Some(Stop::LeaseLost) {
        return Ran { outcome: Outcome::LeaseLost, answers_cancel };
    }
    let outcome = match end {
        End::Returned(Ok(verdict)) => Outcome::Verdict(verdict),
        End::Returned(Err(ActivityError::Failed(failure))) => Outcome::Failed(failure),
        End::Returned(Err(ActivityError::Cancelled { message, facts })) => Outcome::Cancelled { message, facts },
        End::Returned(Err(ActivityError::Interrupted)) => host.take_fault().map_or_else(|| by_stop(stop.as_ref()), Outcome::Failed),
        End::IgnoredStop => by_stop(stop.as_ref()),
        End::Panicked(text) => {
            let message = format!("the activity's code panicked: {text}");
            Outcome::Failed(Failure::new(codes::ACTIVITY_PANICKED, Category::Internal, message).with_retryable(true))
        }
        End::TimedOut(kind) => Outcome::Failed(timed_out(kind)),
    };
    Ran { outcome, answers_cancel }
}

fn by_stop(stop: Option<&Stop>) -> Outcome {
    match stop {
        Some(Stop::Cancelled { .. }) => Outcome::Dropped,
        Some(Stop::Draining) => Outcome::Drained,
        Some(Stop::LeaseLost) => Outcome::LeaseLost,
        Some(Stop::TimedOut(kind)) => Outcome::Failed(timed_out(*kind)),
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
