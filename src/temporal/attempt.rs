//! One attempt on this host: a task of the server becomes an execution, is run, decided about, and its end stored by a call that is
//! awaited; then it is told.

use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::{ActivityOptions, Category, ErasedActivity, Failure, FailureRecord, RetryPolicy, SlotClass, Stop, codes};
use jiff::Timestamp;
use serde_json::{Value, json};
use temporalio_client::{ActivityDescribeOptions, ActivityExecutionInfoLike, Client};
use temporalio_common::data_converters::RawValue;
use temporalio_common::error::ApplicationFailure;
use temporalio_common::protos::temporal::api::common::v1::Payload;
use temporalio_sdk::activities::{ActivityContext, ActivityInfo};
use tokio::sync::watch;
use tracing::Instrument;

use super::describe;
use super::effects::OfAttempt;
use super::lease::{Ended, Lease, Of};
use super::shared::Shared;
use super::wire::{self, Details, Meta};
use crate::executor::{self, Assignment, Cancel, Decision, Execution, ExecutorSettings, Outcome, Ran, Unanswered};
use crate::job::{JobId, Refused, RunId, TraceContext};
use crate::telemetry::{self, AttemptEnd};

/// Progress is put into the next heartbeat at most this often.
const PROGRESS: Duration = Duration::from_secs(1);
/// How long the answers to effects may keep an attempt past a stop. The bound of each is shorter.
pub(super) const STOP_EXTENSION: Duration = Duration::from_secs(300);
/// The same past a timeout, soon after which the server ends the attempt itself.
const TIMEOUT_EXTENSION: Duration = wire::BEYOND.saturating_sub(Duration::from_secs(5));
/// Between two tries to store the end of an attempt.
const FINISH_PAUSE: Duration = Duration::from_millis(500);
/// Which run an attempt is of is asked for at most this long.
const ASKING: Duration = Duration::from_secs(10);
/// The code of an attempt whose own end the server would not take.
const RESULT_REFUSED: &str = "result.refused";
/// A drained attempt may go on elsewhere at once; the server takes no delay of nothing.
const AT_ONCE: Duration = Duration::from_millis(1);
/// By how much ours is sooner than the deadline of a caller that is none of ours, at most.
const MARGIN: Duration = Duration::from_secs(2);
/// The code of an attempt that got an input of a version that this build does not know. Another worker may.
const VERSION_UNKNOWN: &str = "activity.version_unknown";

/// What a task asks for.
struct Task {
    activity: Arc<dyn ErasedActivity>,
    execution: Execution,
    input: Value,
    details: Details,
}

/// Runs one attempt to its end, which the server has when this returns, unless somebody else owns it by then.
pub(super) async fn attempt(shared: Arc<Shared>, ctx: ActivityContext, input: RawValue, class: SlotClass) {
    let Some(client) = shared.client() else { return };
    let stop = watch::Sender::new(None);
    let _running = shared.started(stop.clone(), class);
    let details = ctx.heartbeat_details().raw().first().and_then(|found| wire::decoded(found).ok()).unwrap_or_default();
    let info = ctx.info();
    let asked = run_of(&client, info).await;
    let standalone = asked.as_ref().ok().cloned().flatten();
    let of = Of {
        token: info.task_token.clone(),
        activity_id: info.activity_id.clone(),
        standalone: standalone.clone(),
        heartbeat_timeout: info.heartbeat_timeout.filter(|timeout| !timeout.is_zero()),
    };
    if let Err(error) = asked {
        // Nothing was started, and another attempt may be told.
        tracing::error!(job_id = %info.activity_id, %error, "the execution of a task could not be asked for");
        let failure = Failure::new(codes::STORE_UNAVAILABLE, Category::DependencyUnavailable, error);
        let lease = Lease::new(client, of, details, stop, shared.clock.clone());
        if let Err(error) = lease.fail(failed(&failure.record(), None, Some(FINISH_PAUSE))).await {
            // The server starts another attempt once this one's heartbeats are missed.
            tracing::error!(job_id = %info.activity_id, %error, "the end of an attempt was not stored");
        }
        return;
    }
    let (execution, read) = read(&shared, &ctx, standalone.as_deref(), &input.payloads, details);
    let details =
        Details { started_at: execution.started_at, ..read.as_ref().map(|task| task.details.clone()).unwrap_or_default() };
    let lease = Arc::new(Lease::new(client, of, details, stop.clone(), shared.clock.clone()));
    let span = telemetry::process_span(
        &execution.trace,
        &execution.activity,
        &execution.tenant,
        &execution.job_id,
        execution.run_id,
        execution.attempts,
    );
    let waited = info.started_time.zip(info.current_attempt_scheduled_time);
    let waited = waited.and_then(|(started, due)| started.duration_since(due).ok()).unwrap_or_default();
    telemetry::record_wait(&span, waited);
    shared.metrics().consumed(&execution.activity);
    let began = shared.clock.monotonic();
    let (ran, input) = match read {
        Ok(task) => (run(&shared, &task, &lease, stop.clone()).instrument(span.clone()).await, task.input),
        Err(failure) => (Ran { outcome: Outcome::Failed(failure), answers_cancel: false }, Value::Null),
    };
    let ended = shared.clock.monotonic();
    let decision = Box::pin(finish(&shared, &execution, &lease, ran, input, &stop).instrument(span.clone())).await;
    shared.unreached.warn(&execution, &decision, shared.clock.as_ref());
    let (named, error) = decision.telling();
    telemetry::record_outcome(&span, named, error.as_deref());
    drop(span);
    shared.metrics().attempt(&AttemptEnd {
        activity: &execution.activity,
        tenant: &execution.tenant,
        outcome: named,
        error: error.as_deref(),
        waited,
        ran: ended.saturating_sub(began),
        stored: shared.clock.monotonic().saturating_sub(ended),
    });
}

/// The run of a standalone activity; None if a workflow started it. The SDK of this version tells it to nobody, because the server sends
/// an empty workflow along: the open execution of the activity's id is this one.
async fn run_of(client: &Client, info: &ActivityInfo) -> Result<Option<String>, String> {
    if info.activity_run_id.is_some() || workflow_of(info).is_some() {
        return Ok(info.activity_run_id.clone());
    }
    let handle = client.get_untyped_activity_handle(info.activity_id.clone(), None);
    // No heartbeat is sent meanwhile.
    match tokio::time::timeout(ASKING, handle.describe(ActivityDescribeOptions::default())).await {
        Ok(described) => Ok(Some(described.map_err(|error| error.to_string())?.activity_run_id().to_owned())),
        Err(_) => Err(format!("no answer within {ASKING:?}")),
    }
}

/// The workflow that started it.
fn workflow_of(info: &ActivityInfo) -> Option<&str> {
    info.workflow_id.as_deref().filter(|id| !id.is_empty())
}

async fn run(shared: &Shared, task: &Task, lease: &Arc<Lease>, stop: watch::Sender<Option<Stop>>) -> Ran {
    let settings = ExecutorSettings {
        cancel_grace: shared.options.cancel_grace,
        stop_extension: STOP_EXTENSION,
        timeout_extension: TIMEOUT_EXTENSION,
        in_flight: shared.in_flight.clone(),
        stall_after: shared.options.stall_after,
        progress_interval: PROGRESS,
    };
    let assignment = Box::new(Assignment {
        activity: task.activity.clone(),
        execution: Arc::new(task.execution.clone()),
        input: task.input.clone(),
        checkpoint: task.details.checkpoint.clone(),
    });
    let store = OfAttempt::new(lease.clone(), shared.effects.clone(), shared.clock.clone(), &task.execution);
    let run = executor::run_attempt(assignment, Arc::new(store), stop, shared.clock.clone(), &settings);
    let mut ran = tokio::select! {
        biased;
        ran = run => ran,
        () = lease.beat() => unreachable!("it beats for ever"),
    };
    // No attempt can be given back here: it is tried again as often as the job may be.
    if let Outcome::Failed(failure) = &mut ran.outcome
        && failure.tenant_held
    {
        failure.retryable = true;
    }
    ran
}

/// Stores the end of an attempt. A server that does not answer is asked again until it does: the task token fences it, so that
/// repeating it is harmless.
async fn finish(
    shared: &Shared,
    execution: &Execution,
    lease: &Lease,
    ran: Ran,
    input: Value,
    stop: &watch::Sender<Option<Stop>>,
) -> Decision {
    let Ran { outcome, answers_cancel } = ran;
    // A cancel that nobody has heard of yet decides about a failure.
    if matches!(outcome, Outcome::Failed(_) | Outcome::Drained) {
        lease.renew().await.ok();
    }
    let mut outcome = if *stop.borrow() == Some(Stop::LeaseLost) { Outcome::LeaseLost } else { outcome };
    let mut refused = false;
    loop {
        let cancel = match &*stop.borrow() {
            Some(Stop::Cancelled { .. }) if answers_cancel => Cancel::Answered,
            Some(Stop::Cancelled { reason }) => unanswered(shared, execution, lease, &input, reason.clone()),
            _ => Cancel::NotRequested,
        };
        let decision = executor::decide(execution, outcome.clone(), &cancel, shared.clock.now(), shared.clock.random());
        let stored = match &decision {
            Decision::Close(closing) => close(lease, closing).await,
            Decision::Retry { at, failure } => {
                let delay = Duration::try_from(at.duration_since(shared.clock.now())).unwrap_or_default().max(AT_ONCE);
                lease.fail(failed(failure, None, Some(delay))).await
            }
            Decision::GiveBack { .. } | Decision::Undo { .. } => lease.fail(failed(&given_back(), None, Some(AT_ONCE))).await,
            Decision::Nothing => Ok(Ended::LeaseLost),
        };
        match stored {
            Ok(Ended::Done) => {
                if let Decision::Close(closing) = &decision {
                    telemetry::verdict_event(&closing.verdict, &closing.logged());
                    shared.metrics().verdict(&closing.verdict);
                }
                return decision;
            }
            Ok(Ended::LeaseLost) => {
                execution.tell_lease_lost();
                return Decision::Nothing;
            }
            Ok(Ended::Refused(error)) if refused => {
                // The server ends the attempt by its timeouts.
                tracing::error!(job_id = %execution.job_id, run_id = %execution.run_id, %error, "no end of an attempt is taken");
                return Decision::Nothing;
            }
            Ok(Ended::Refused(error)) => {
                tracing::error!(job_id = %execution.job_id, run_id = %execution.run_id, %error, "the end of an attempt was refused");
                refused = true;
                let message = format!("the cluster does not take the attempt's end: {error}");
                outcome = Outcome::Failed(Failure::new(RESULT_REFUSED, Category::Internal, message).with_retryable(false));
            }
            Err(error) => {
                tracing::error!(job_id = %execution.job_id, run_id = %execution.run_id, %error, "the end of an attempt was not stored");
                if shared.gives_up() {
                    // The server starts another attempt once this one's heartbeats are missed.
                    return Decision::Nothing;
                }
                shared.clock.sleep(FINISH_PAUSE).await;
                // The lease outlives a long outage only if it is renewed.
                lease.renew().await.ok();
            }
        }
    }
}

/// A cancel that the activity did not answer. The server starts no other attempt after a cancel, so that nothing is undone any more.
fn unanswered(shared: &Shared, execution: &Execution, lease: &Lease, input: &Value, reason: Option<String>) -> Cancel {
    let checkpoint = lease.details().checkpoint;
    let plan = shared.cancel_plans.plan(&execution.tenant, &execution.activity, input.clone(), checkpoint.as_ref());
    Cancel::Unanswered(Unanswered { reason, plan, may_undo: false, checkpoint })
}

async fn close(lease: &Lease, closing: &executor::Closing) -> Result<Ended, String> {
    let verdict = serde_json::to_value(&closing.verdict).unwrap_or_default();
    match &closing.verdict.failure {
        None => lease.complete(verdict).await,
        Some(failure) if failure.code == codes::CANCELLED => lease.cancel(verdict).await,
        Some(failure) => lease.fail(failed(failure, Some(&verdict), None)).await,
    }
}

/// A failure as Temporal has it: its type is our code, its details are the failure as JSON and, if it closes the job, the verdict.
pub(super) fn failed(failure: &FailureRecord, verdict: Option<&Value>, delay: Option<Duration>) -> ApplicationFailure {
    let details: Vec<Payload> = [Some(wire::payload(failure)), verdict.map(wire::payload)].into_iter().flatten().collect();
    ApplicationFailure::builder(failure.message.clone())
        .type_name(failure.code.clone())
        .non_retryable(verdict.is_some())
        .maybe_next_retry_delay(delay)
        .details(RawValue::new(details))
        .build()
}

/// Why an attempt is given back, which costs an attempt here.
fn given_back() -> FailureRecord {
    Failure::new(codes::WORKER_DRAINED, Category::DependencyUnavailable, "the attempt was given back to a shutdown").record()
}

/// What a task asks for, or why that cannot be said. There is an execution in any case, since even a refusal has a verdict.
fn read(
    shared: &Shared,
    ctx: &ActivityContext,
    run_id: Option<&str>,
    input: &[Payload],
    details: Details,
) -> (Execution, Result<Task, Failure>) {
    let meta = Meta::of(ctx.headers()).and_then(|meta| match input.get(1) {
        // Whoever calls from a workflow may say as an argument what a header says.
        Some(second) => Meta::said(second).map(|said| match said {
            Some(said) => Meta { trace: said.trace.clone().or(meta.trace), ..said },
            None => meta,
        }),
        None => Ok(meta),
    });
    let (meta, said) = match meta {
        Ok(meta) if input.len() <= 2 => (meta, None),
        Ok(meta) => (meta, Some(refuse(&Refused::new("argument 3", "there are two: the input, and what is said about the job")))),
        Err(why) => (Meta::default(), Some(refuse(&Refused::new("argument 2", why)))),
    };
    let mut execution = execution(shared, ctx, run_id, &meta, &details);
    let task = match said {
        Some(failure) => Err(failure),
        None => task(shared, &mut execution, &meta, input, details),
    };
    (execution, task)
}

fn task(shared: &Shared, execution: &mut Execution, meta: &Meta, input: &[Payload], details: Details) -> Result<Task, Failure> {
    let registry = &shared.options.registry;
    // The server hands out what is registered.
    let found = registry.get(&execution.activity).zip(registry.infos().find(|info| info.name == execution.activity));
    let Some((activity, info)) = found else { return Err(unknown_version(&execution.activity, 0)) };
    if let Some(version) = meta.version.filter(|version| *version > info.version) {
        return Err(unknown_version(&execution.activity, version));
    }
    let mut value = match input.first() {
        Some(first) => wire::decoded::<Value>(first).map_err(|error| refuse(&Refused::new("input", error)))?,
        None => json!({}),
    };
    if meta.options.is_none() {
        // A foreign caller's input passes the same door as ours, and has the options of the activity but for what the call says.
        let prepared = info.prepare(value).map_err(|error| refuse(&Refused::from(error)))?;
        value = prepared.input;
        let (timeouts, own) = (&mut execution.options.timeouts, prepared.options.timeouts);
        timeouts.heartbeat = own.heartbeat;
        timeouts.start_to_close = timeouts.start_to_close.min(own.start_to_close);
    }
    shared.check_tenant(&execution.tenant)?;
    Ok(Task { activity: activity.clone(), execution: execution.clone(), input: value, details })
}

fn refuse(refused: &Refused) -> Failure {
    Failure::new(codes::INPUT_INVALID, Category::InvalidInput, refused.to_string())
}

fn unknown_version(activity: &str, version: u32) -> Failure {
    let message = format!("this worker does not know version {version} of the input of {activity}; a newer one does");
    Failure::new(VERSION_UNKNOWN, Category::Unimplemented, message).with_retryable(true)
}

fn execution(shared: &Shared, ctx: &ActivityContext, run_id: Option<&str>, meta: &Meta, details: &Details) -> Execution {
    let (info, now) = (ctx.info(), shared.clock.now());
    let at = |time: Option<std::time::SystemTime>| time.and_then(|time| Timestamp::try_from(time).ok());
    let started = at(info.started_time).unwrap_or(now);
    let enqueued_at = at(info.scheduled_time).unwrap_or(started);
    let run_id = run_id.or(info.workflow_run_id.as_deref());
    let mut options = meta.options.clone().unwrap_or_else(|| foreign(info, started));
    if let Some(policy) = &info.retry_policy {
        // It may have been changed since, in the cluster.
        options.retry.maximum_attempts = policy.maximum_attempts();
    }
    let whole = options.timeouts.schedule_to_close.map(|whole| whole + meta.delay.unwrap_or_default());
    let close_by =
        whole.and_then(|whole| jiff::SignedDuration::try_from(whole).ok()).and_then(|whole| enqueued_at.checked_add(whole).ok());
    // The server's clock is not ours: its moments are moved by how far apart the two are as this task arrives.
    let close_by = close_by.and_then(|at| at.checked_add(now.duration_since(started)).ok());
    Execution {
        job_id: job_id(workflow_of(info), &info.activity_id),
        run_id: run_id.and_then(|id| id.parse().ok()).unwrap_or_else(|| RunId::generate(now)),
        activity: info.activity_type.clone(),
        tenant: meta.tenant.clone().unwrap_or_else(|| "default".to_owned()),
        attempts: info.attempt,
        drains: 0,
        options,
        enqueued_at,
        started_at: if info.attempt == 1 { Some(started) } else { details.started_at },
        close_by,
        trace: meta.trace.clone().unwrap_or_else(TraceContext::generate),
    }
}

/// The id of a job that a workflow started names the workflow, as a step's names its sequence.
fn job_id(workflow: Option<&str>, activity: &str) -> JobId {
    let id = workflow.map_or_else(|| activity.to_owned(), |workflow| format!("{workflow}/{activity}"));
    // An id that is none of ours is shown as far as it goes.
    id.parse().unwrap_or_else(|_| describe::tolerated(&id))
}

/// What a call that is not ours says about options.
fn foreign(info: &ActivityInfo, started: Timestamp) -> ActivityOptions {
    let mut options = ActivityOptions::default();
    let deadline = info.deadline.and_then(|at| Timestamp::try_from(at).ok());
    if let Some(left) = deadline.and_then(|at| Duration::try_from(at.duration_since(started)).ok()) {
        // A little sooner than the server, which would end it without a word of why.
        options.timeouts.start_to_close = left.saturating_sub((left / 10).min(MARGIN));
    }
    if let Some(policy) = &info.retry_policy {
        options.retry = RetryPolicy {
            initial_interval: policy.initial_interval(),
            backoff_coefficient: policy.backoff_coefficient(),
            maximum_interval: policy.maximum_interval().unwrap_or(options.retry.maximum_interval),
            maximum_attempts: policy.maximum_attempts(),
            non_retryable_codes: policy.non_retryable_error_types().to_vec(),
        };
    }
    options
}
