//! A sequence as a workflow: the pure next-step function over the verdicts of its activities. Step n is the activity `n`, so that its job
//! id is `<workflow id>/<n>`, as everywhere.

#![expect(unreachable_pub, reason = "what the macros of the SDK make of a workflow is public")]

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use iolaus_activities::{Status, VerdictRecord, codes, duration, timestamp};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use temporalio_common::data_converters::RawValue;
use temporalio_common::error::ActivityExecutionError;
use temporalio_common::protos::temporal::api::common::v1::{Memo, Payloads, WorkflowType};
use temporalio_common::protos::temporal::api::enums::v1::{WorkflowIdConflictPolicy, WorkflowIdReusePolicy};
use temporalio_common::protos::temporal::api::failure::v1::Failure as Told;
use temporalio_common::protos::temporal::api::workflowservice::v1::StartWorkflowExecutionRequest;
use temporalio_common::{ActivityCloseTimeouts, Priority, RetryPolicy, UntypedActivity};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{ActivityCancellationType, ActivityOptions, WorkflowContext, WorkflowResult, WorkflowTermination};

use super::describe::{self, NO_REASON};
use super::wire::{self, BEYOND, META, Meta};
use super::{TemporalOptions, attempt, connect, start};
use crate::executor::{self, Closing, Execution};
use crate::job::{IdConflictPolicy, IdReusePolicy, JobId, NewJob, SEQUENCE, TraceContext};
use crate::sequence::{self, Definition, Next, Standing, Step};

/// What the workflow is started with. Kept in histories: fields are forever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    /// The steps.
    pub(super) definition: Definition,
    /// Tenant, labels, options, trace.
    pub(super) meta: Meta,
    /// 1 (first) to 5.
    pub(super) priority: u8,
    /// When it was asked for.
    #[serde(with = "timestamp")]
    pub(super) enqueued_at: Timestamp,
    /// The task queue of work; that of waits has `-waits` behind it.
    pub(super) task_queue: String,
    /// When an attempt of a silent worker is another worker's.
    #[serde(with = "duration")]
    pub(super) heartbeat_timeout: Duration,
}

impl Order {
    pub(super) fn new(options: &TemporalOptions, job: &NewJob, now: Timestamp) -> Result<Self, serde_json::Error> {
        Ok(Self {
            definition: serde_json::from_value(job.input.clone())?,
            meta: start::meta(job),
            priority: job.priority,
            enqueued_at: now,
            task_queue: options.task_queue.clone(),
            heartbeat_timeout: options.heartbeat_timeout,
        })
    }

    /// Out of a workflow's input, or why not.
    pub(super) fn stored(input: Option<&Payloads>) -> Result<Self, String> {
        let first = input.and_then(|input| input.payloads.first()).ok_or("there is none")?;
        wire::decoded(first)
    }

    /// What stands for one that this build cannot read.
    pub(super) fn unknown(enqueued_at: Timestamp) -> Self {
        Self {
            definition: Definition { steps: Vec::new() },
            meta: Meta::default(),
            priority: 3,
            enqueued_at,
            task_queue: String::new(),
            heartbeat_timeout: Duration::ZERO,
        }
    }

    pub(super) fn tenant(&self) -> String {
        self.meta.tenant.clone().unwrap_or_else(|| "default".to_owned())
    }

    pub(super) fn trace(&self) -> TraceContext {
        self.meta.trace.clone().unwrap_or(TraceContext { traceparent: String::new(), tracestate: None })
    }

    /// When `schedule_to_close` of the whole is over.
    fn close_by(&self) -> Option<Timestamp> {
        let whole = self.meta.options.as_ref().and_then(|options| options.timeouts.schedule_to_close)?;
        let whole = SignedDuration::try_from(whole + self.meta.delay.unwrap_or_default()).ok()?;
        self.enqueued_at.checked_add(whole).ok()
    }

    /// The sequence as the executor knows an execution.
    pub(super) fn execution(&self, job_id: &str, run_id: &str, ended: &[VerdictRecord]) -> Execution {
        Execution {
            job_id: describe::tolerated(job_id),
            run_id: describe::run_id(run_id),
            activity: SEQUENCE.to_owned(),
            tenant: self.tenant(),
            attempts: 0,
            drains: 0,
            options: self.meta.options.clone().unwrap_or_default(),
            enqueued_at: self.enqueued_at,
            started_at: ended.iter().find_map(|verdict| verdict.started_at),
            close_by: self.close_by(),
            trace: self.trace(),
        }
    }
}

/// The request that starts the workflow.
pub(super) fn request(options: &TemporalOptions, namespace: &str, job: &NewJob, order: &Order) -> StartWorkflowExecutionRequest {
    StartWorkflowExecutionRequest {
        namespace: namespace.to_owned(),
        workflow_id: job.job_id.to_string(),
        workflow_type: Some(WorkflowType { name: SEQUENCE.to_owned() }),
        task_queue: Some(start::queue(options.task_queue.clone())),
        input: Some(wire::payloads(order)),
        identity: connect::identity(),
        request_id: job.run_id.to_string(),
        workflow_id_reuse_policy: match job.id_reuse_policy {
            IdReusePolicy::Allow => WorkflowIdReusePolicy::AllowDuplicate,
            IdReusePolicy::AllowFailedOnly => WorkflowIdReusePolicy::AllowDuplicateFailedOnly,
            IdReusePolicy::Reject => WorkflowIdReusePolicy::RejectDuplicate,
        }
        .into(),
        workflow_id_conflict_policy: match job.id_conflict_policy {
            IdConflictPolicy::Fail => WorkflowIdConflictPolicy::Fail,
            IdConflictPolicy::UseExisting => WorkflowIdConflictPolicy::UseExisting,
        }
        .into(),
        memo: Some(Memo { fields: HashMap::from([(META.to_owned(), wire::payload(&order.meta))]) }),
        search_attributes: start::attributes(options, &job.tenant),
        workflow_start_delay: job.delay.map(wire::proto),
        priority: Some(start::priority(job)),
        ..StartWorkflowExecutionRequest::default()
    }
}

/// The workflow.
#[workflow]
#[derive(Default)]
pub struct SequenceWorkflow;

#[workflow_methods]
impl SequenceWorkflow {
    #[run(name = "sequence")]
    /// Starts the steps, one after the other.
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: RawValue) -> WorkflowResult<Value> {
        let began = moment(ctx.workflow_time()).unwrap_or(Timestamp::UNIX_EPOCH);
        let order = match Order::stored(Some(&Payloads { payloads: input.payloads })) {
            Ok(order) => order,
            Err(problem) => {
                let execution = Order::unknown(began).execution(ctx.workflow_id(), ctx.run_id(), &[]);
                return close(&executor::concluded(&execution, sequence::undecodable(&problem), began));
            }
        };
        let mut ended: Vec<VerdictRecord> = Vec::new();
        loop {
            let token = ctx.cancellation_token();
            let now = moment(ctx.workflow_time()).unwrap_or(order.enqueued_at);
            let standing = Standing {
                cancel_requested: token.is_cancelled(),
                cancel_reason: token.reason().filter(|reason| !reason.is_empty() && reason != NO_REASON),
                out_of_time: order.close_by().is_some_and(|at| at <= now),
            };
            match sequence::next(&order.definition, &ended, &standing) {
                Next::Close(conclusion) => {
                    let execution = order.execution(ctx.workflow_id(), ctx.run_id(), &ended);
                    return close(&executor::concluded(&execution, *conclusion, now));
                }
                Next::Start { step: n, input } => {
                    let step = &order.definition.steps[n];
                    let arguments = RawValue::new(vec![wire::payload(&input), wire::payload(&step_meta(&order, step))]);
                    let options = options(&order, step, n, now);
                    let result = ctx.execute_activity(UntypedActivity::new(step.activity.clone()), arguments, options).await;
                    let of = StepOf { order: &order, job_id: ctx.workflow_id(), run_id: ctx.run_id(), n, began: now };
                    let finished = moment(ctx.workflow_time()).unwrap_or(now);
                    ended.push(of.ended(result.as_ref().map_err(failure_of), finished));
                }
            }
        }
    }
}

fn moment(at: Option<SystemTime>) -> Option<Timestamp> {
    at.and_then(|at| Timestamp::try_from(at).ok()).and_then(|at| Timestamp::from_millisecond(at.as_millisecond()).ok())
}

fn failure_of(error: &ActivityExecutionError) -> Told {
    error.failure().cloned().unwrap_or_else(|| Told { message: error.to_string(), ..Told::default() })
}

/// How a workflow of ours ends: with the verdict, in the form that the cluster shows as what it is.
fn close(closing: &Closing) -> WorkflowResult<Value> {
    let verdict = serde_json::to_value(&closing.verdict).unwrap_or_default();
    match &closing.verdict.failure {
        None => Ok(verdict),
        Some(failure) if failure.code == codes::CANCELLED => Err(WorkflowTermination::cancelled_with_details(verdict)),
        // A hard step that said no is the tenant's own no, and no failure of the sequence.
        Some(_) if closing.verdict.status == Status::Failed => Ok(verdict),
        Some(failure) => Err(WorkflowTermination::failed_application(attempt::failed(failure, Some(&verdict), None))),
    }
}

fn step_meta(order: &Order, step: &Step) -> Meta {
    Meta {
        version: Some(step.activity_version),
        tenant: Some(step.tenant.clone()),
        options: Some(step.options.clone()),
        labels: order.meta.labels.clone(),
        trace: order.meta.trace.clone(),
        delay: None,
    }
}

fn options(order: &Order, step: &Step, n: usize, now: Timestamp) -> ActivityOptions {
    let (timeouts, retry) = (&step.options.timeouts, &step.options.retry);
    let left = order.close_by().map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    let start_to_close = timeouts.start_to_close + BEYOND;
    let close_timeouts = match timeouts.schedule_to_close.into_iter().chain(left).min() {
        Some(schedule_to_close) => ActivityCloseTimeouts::ScheduleAndStartToClose { schedule_to_close, start_to_close },
        None => ActivityCloseTimeouts::StartToClose(start_to_close),
    };
    let policy = RetryPolicy::builder()
        .initial_interval(retry.initial_interval)
        .backoff_coefficient(retry.backoff_coefficient)
        .maximum_interval(retry.maximum_interval.max(retry.initial_interval))
        .maximum_attempts(retry.maximum_attempts)
        .non_retryable_error_types(retry.non_retryable_codes.clone())
        .build();
    let queue = match step.options.slot_class {
        iolaus_activities::SlotClass::Work => order.task_queue.clone(),
        iolaus_activities::SlotClass::Waits => format!("{}-waits", order.task_queue),
    };
    ActivityOptions::with_close_timeouts(close_timeouts)
        .activity_id((n + 1).to_string())
        .task_queue(queue)
        .maybe_schedule_to_start_timeout(timeouts.schedule_to_start)
        .heartbeat_timeout(order.heartbeat_timeout)
        .cancellation_type(ActivityCancellationType::WaitCancellationCompleted)
        .retry_policy(policy)
        .summary(step.name.clone())
        .priority(Priority::builder().priority_key(order.priority.into()).build())
        .build()
}

/// A step of a sequence.
pub(super) struct StepOf<'a> {
    pub(super) order: &'a Order,
    pub(super) job_id: &'a str,
    pub(super) run_id: &'a str,
    /// Counted from 0.
    pub(super) n: usize,
    pub(super) began: Timestamp,
}

impl StepOf<'_> {
    /// Its verdict: ours, or what follows from how the server ended it.
    pub(super) fn ended(&self, result: Result<&RawValue, Told>, finished_at: Timestamp) -> VerdictRecord {
        let failure = match result {
            Ok(value) => match value.payloads.first().and_then(|found| wire::decoded::<VerdictRecord>(found).ok()) {
                Some(verdict) => return verdict,
                None => Told { message: "the result is no verdict of this program".to_owned(), ..Told::default() },
            },
            Err(failure) => match describe::verdict_in(&failure) {
                Some(verdict) => return verdict,
                None => failure,
            },
        };
        let step = &self.order.definition.steps[self.n];
        let failure = describe::as_asked(describe::failure_in(&failure), &step.options.timeouts);
        VerdictRecord {
            job_id: self.id().to_string(),
            run_id: self.run_id.to_owned(),
            activity: step.activity.clone(),
            tenant: step.tenant.clone(),
            status: if failure.code == codes::CANCELLED { Status::Cancelled } else { Status::Unresolved },
            message: Some(failure.message.clone()),
            checks: Vec::new(),
            facts: Map::new(),
            failure: Some(failure),
            attempts: 0,
            enqueued_at: self.began,
            started_at: None,
            finished_at,
            duration_ms: u64::try_from(finished_at.duration_since(self.began).as_millis()).unwrap_or(0),
            trace_id: self.order.trace().trace_id().to_owned(),
        }
    }

    pub(super) fn id(&self) -> JobId {
        JobId::of_step(&describe::tolerated(self.job_id), self.n + 1)
    }
}
