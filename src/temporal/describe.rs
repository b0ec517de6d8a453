//! What the server says of an execution, as a job, its detail and its verdict: pure. A verdict of ours stands in the result or in the
//! details of the failure; where the server ended it (a timeout, a termination), the verdict follows from what it says.

use iolaus_activities::{
    ActivityOptions, Category, Failure, FailureRecord, RetryPolicy, SlotClass, Status, TimeoutKind, Timeouts, VerdictRecord, codes,
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use temporalio_common::protos::temporal::api::activity::v1::ActivityExecutionInfo;
use temporalio_common::protos::temporal::api::activity::v1::activity_execution_outcome::Value as Outcome;
use temporalio_common::protos::temporal::api::common::v1::Payloads;
use temporalio_common::protos::temporal::api::enums::v1::{ActivityExecutionStatus, PendingActivityState, TimeoutType};
use temporalio_common::protos::temporal::api::failure::v1::Failure as Told;
use temporalio_common::protos::temporal::api::failure::v1::failure::FailureInfo;
use temporalio_common::protos::temporal::api::workflowservice::v1::DescribeActivityExecutionResponse;

use super::paused::Place;
use super::wire::{self, BEYOND, Details, Meta};
use crate::client::{AttemptFailure, JobDetail};
use crate::executor::{self, CancelPlans, Closing, Unanswered};
use crate::job::{Job, JobId, JobState, RunId, TraceContext, limits};

/// An execution as the server describes it.
pub(super) struct Seen {
    info: ActivityExecutionInfo,
    outcome: Option<Outcome>,
    input: Option<Payloads>,
    meta: Meta,
    details: Details,
    plans: CancelPlans,
    place: Place,
    now: Timestamp,
}

impl Seen {
    /// None if the answer describes nothing.
    pub(super) fn of(answer: DescribeActivityExecutionResponse, plans: CancelPlans, place: Place, now: Timestamp) -> Option<Self> {
        let info = answer.info?;
        // What somebody else started has no header of ours, or one that is none.
        let meta = info.header.as_ref().and_then(|header| Meta::of(&header.fields).ok()).unwrap_or_default();
        let details = wire::first(info.heartbeat_details.as_ref()).unwrap_or_default();
        let outcome = answer.outcome.and_then(|outcome| outcome.value);
        Some(Self { info, outcome, input: answer.input, meta, details, plans, place, now })
    }

    /// As verbs and lists show it.
    pub(super) fn job(&self) -> Job {
        let verdict = self.verdict();
        Job {
            job_id: tolerated(&self.info.activity_id),
            run_id: run_id(&self.info.run_id),
            activity: self.activity(),
            activity_version: self.meta.version.unwrap_or(1),
            tenant: self.tenant(),
            state: self.state(),
            priority: self
                .info
                .priority
                .as_ref()
                .and_then(|p| u8::try_from(p.priority_key).ok())
                .filter(|key| *key > 0)
                .unwrap_or(3),
            attempts: self.attempts(),
            run_at: wire::moment(self.info.next_attempt_schedule_time.as_ref())
                .or(wire::moment(self.info.execution_time.as_ref()))
                .unwrap_or_else(|| self.enqueued_at()),
            enqueued_at: self.enqueued_at(),
            started_at: verdict.map_or_else(|| self.started_at(), |verdict| verdict.started_at),
            finished_at: wire::moment(self.info.close_time.as_ref()),
            worker: Some(self.info.last_worker_identity.clone())
                .filter(|name| self.state() == JobState::Running && !name.is_empty()),
            cancel_requested: self.cancel_requested(),
            stalled_since: self.details.stalled_since.filter(|_| self.state() == JobState::Running),
            paused: self.place.pause_of(&self.info).filter(|_| self.state().is_open()),
        }
    }

    /// With all that is known of it.
    pub(super) fn detail(&self) -> JobDetail {
        let running = self.state() == JobState::Running;
        JobDetail {
            job: self.job(),
            input: wire::first(self.input.as_ref()).unwrap_or(Value::Null),
            options: self.options(),
            labels: self.meta.labels.clone(),
            trace: self.trace(),
            checkpoint: self.details.checkpoint.clone(),
            progress: self.details.progress.clone().filter(|_| running),
            failures: self.failures(),
            verdict: self.verdict(),
            steps: Vec::new(),
        }
    }

    pub(super) fn options(&self) -> ActivityOptions {
        self.meta.options.clone().unwrap_or_else(|| self.native_options())
    }

    /// Where it stands.
    pub(super) fn state(&self) -> JobState {
        match self.status() {
            ActivityExecutionStatus::Completed => JobState::Completed,
            ActivityExecutionStatus::Canceled | ActivityExecutionStatus::Terminated => JobState::Cancelled,
            // After a requested cancel any failure and any timeout closes as cancelled.
            ActivityExecutionStatus::Failed | ActivityExecutionStatus::TimedOut if self.cancel_requested() => JobState::Cancelled,
            ActivityExecutionStatus::Failed | ActivityExecutionStatus::TimedOut => JobState::Discarded,
            _ => self.open_state(),
        }
    }

    fn open_state(&self) -> JobState {
        match PendingActivityState::try_from(self.info.run_state).unwrap_or_default() {
            PendingActivityState::Started | PendingActivityState::CancelRequested | PendingActivityState::PauseRequested => {
                JobState::Running
            }
            _ => {
                let next = wire::moment(self.info.next_attempt_schedule_time.as_ref());
                let first = wire::moment(self.info.execution_time.as_ref());
                match (self.info.attempt > 1, next.or(first)) {
                    (true, Some(at)) if at > self.now && next.is_some() => JobState::Retryable,
                    (false, Some(at)) if at > self.now => JobState::Scheduled,
                    _ => JobState::Available,
                }
            }
        }
    }

    /// The one verdict of a closed execution.
    pub(super) fn verdict(&self) -> Option<VerdictRecord> {
        let state = self.state();
        // Others may have written it: it is within the limits like any of ours.
        self.unbounded_verdict(state).map(|verdict| Closing::new(state, verdict).verdict)
    }

    fn unbounded_verdict(&self, state: JobState) -> Option<VerdictRecord> {
        let ours = match &self.outcome {
            Some(Outcome::Result(result)) => wire::first::<VerdictRecord>(Some(result)),
            Some(Outcome::Failure(failure)) => verdict_in(failure),
            None => None,
        };
        match (ours, state) {
            (_, state) if state.is_open() => None,
            // A failure that the server took after a cancel that we had not heard of.
            (Some(verdict), JobState::Cancelled) if verdict.status == Status::Unresolved => {
                Some(self.unanswered(verdict.message, verdict.facts))
            }
            (Some(verdict), _) => Some(verdict),
            (None, JobState::Cancelled) => Some(self.unanswered(None, Map::new())),
            (None, JobState::Completed) => {
                let mut verdict = self.unresolved(not_ours());
                if let Some(Outcome::Result(result)) = &self.outcome
                    && let Some(result) = wire::first::<Value>(Some(result))
                {
                    verdict.facts.insert("result".to_owned(), result);
                }
                Some(verdict)
            }
            (None, _) => {
                let failure = match &self.outcome {
                    Some(Outcome::Failure(failure)) => failure_in(failure),
                    _ => failure_in(&Told::default()),
                };
                Some(self.unresolved(as_asked(failure, &self.options().timeouts)))
            }
        }
    }

    fn unresolved(&self, failure: FailureRecord) -> VerdictRecord {
        let mut verdict = self.record(Status::Unresolved, Some(failure.message.clone()), Map::new());
        verdict.failure = Some(failure);
        verdict
    }

    /// Cancelled without an attempt that could answer: the verdict says what continues.
    fn unanswered(&self, why: Option<String>, facts: Map<String, Value>) -> VerdictRecord {
        let (input, checkpoint) = (wire::first(self.input.as_ref()).unwrap_or(Value::Null), self.details.checkpoint.clone());
        let plan = self.plans.plan(&self.tenant(), &self.activity(), input, checkpoint.as_ref());
        let cancel = Unanswered { reason: self.cancel_reason(), plan, may_undo: false, checkpoint };
        let (message, facts) = cancel.said(why, facts);
        self.cancelled(message, facts)
    }

    fn cancelled(&self, message: Option<String>, facts: Map<String, Value>) -> VerdictRecord {
        let message = message.unwrap_or_else(|| "the job was cancelled".to_owned());
        let failure = Failure::new(codes::CANCELLED, Category::Cancelled, message);
        let mut verdict = self.record(Status::Cancelled, Some(failure.message.clone()), facts);
        verdict.failure = Some(failure.record());
        verdict
    }

    fn record(&self, status: Status, message: Option<String>, facts: Map<String, Value>) -> VerdictRecord {
        let finished_at = wire::moment(self.info.close_time.as_ref()).unwrap_or(self.now);
        VerdictRecord {
            job_id: self.info.activity_id.clone(),
            run_id: self.info.run_id.clone(),
            activity: self.activity(),
            tenant: self.tenant(),
            status,
            message,
            checks: Vec::new(),
            facts,
            failure: None,
            attempts: self.attempts(),
            enqueued_at: self.enqueued_at(),
            started_at: self.started_at(),
            finished_at,
            duration_ms: u64::try_from(finished_at.duration_since(self.enqueued_at()).as_millis()).unwrap_or(0),
            trace_id: self.trace().trace_id().to_owned(),
        }
    }

    fn failures(&self) -> Vec<AttemptFailure> {
        let Some(failure) = &self.info.last_failure else { return Vec::new() };
        let at = wire::moment(self.info.last_attempt_complete_time.as_ref()).unwrap_or_else(|| self.enqueued_at());
        let open = self.state().is_open();
        // While the next attempt waits or runs, the last failure is of the one before.
        let attempt = if open && self.info.attempt > 1 { self.info.attempt - 1 } else { self.info.attempt };
        vec![AttemptFailure { attempt: u32::try_from(attempt).unwrap_or(1), at, failure: failure_in(failure) }]
    }

    fn attempts(&self) -> u32 {
        let attempt = u32::try_from(self.info.attempt).unwrap_or(0);
        let Some(started) = wire::moment(self.info.last_started_time.as_ref()) else { return 0 };
        let ended = wire::moment(self.info.last_attempt_complete_time.as_ref()).is_some_and(|ended| ended >= started);
        match self.status() {
            // The last attempt ended it.
            ActivityExecutionStatus::Completed | ActivityExecutionStatus::Failed => attempt,
            _ if self.attempt_timed_out() => attempt,
            // The one that is counted already has not begun.
            _ if ended && self.open_state() != JobState::Running => attempt.saturating_sub(1),
            _ => attempt,
        }
    }

    /// The server ended the last attempt itself.
    fn attempt_timed_out(&self) -> bool {
        let Some(Outcome::Failure(failure)) = &self.outcome else { return false };
        let Some(FailureInfo::TimeoutFailureInfo(info)) = &failure.failure_info else { return false };
        matches!(TimeoutType::try_from(info.timeout_type), Ok(TimeoutType::StartToClose | TimeoutType::Heartbeat))
    }

    fn started_at(&self) -> Option<Timestamp> {
        let first = || wire::moment(self.info.last_started_time.as_ref()).filter(|_| self.info.attempt == 1);
        self.details.started_at.or_else(first)
    }

    fn status(&self) -> ActivityExecutionStatus {
        ActivityExecutionStatus::try_from(self.info.status).unwrap_or_default()
    }

    fn cancel_requested(&self) -> bool {
        !self.info.canceled_reason.is_empty()
            || PendingActivityState::try_from(self.info.run_state) == Ok(PendingActivityState::CancelRequested)
    }

    fn cancel_reason(&self) -> Option<String> {
        let said = Some(&self.info.canceled_reason).filter(|reason| !reason.is_empty() && *reason != NO_REASON).cloned();
        match (said, &self.outcome) {
            (None, Some(Outcome::Failure(failure))) if self.status() == ActivityExecutionStatus::Terminated => {
                Some(format!("terminated: {}", failure.message))
            }
            (said, _) => said,
        }
    }

    fn activity(&self) -> String {
        self.info.activity_type.as_ref().map(|kind| kind.name.clone()).unwrap_or_default()
    }

    fn tenant(&self) -> String {
        self.meta.tenant.clone().unwrap_or_else(|| "default".to_owned())
    }

    fn trace(&self) -> TraceContext {
        // Without one there is no trace to name.
        self.meta.trace.clone().unwrap_or(TraceContext { traceparent: String::new(), tracestate: None })
    }

    fn enqueued_at(&self) -> Timestamp {
        wire::moment(self.info.schedule_time.as_ref()).unwrap_or(self.now)
    }

    fn native_options(&self) -> ActivityOptions {
        let (info, default) = (&self.info, RetryPolicy::default());
        let policy = info.retry_policy.clone().unwrap_or_default();
        ActivityOptions {
            slot_class: if info.task_queue.ends_with("-waits") { SlotClass::Waits } else { SlotClass::Work },
            retry: RetryPolicy {
                initial_interval: wire::length(policy.initial_interval.as_ref()).unwrap_or(default.initial_interval),
                backoff_coefficient: policy.backoff_coefficient.max(1.0),
                maximum_interval: wire::length(policy.maximum_interval.as_ref()).unwrap_or(default.maximum_interval),
                maximum_attempts: u32::try_from(policy.maximum_attempts).unwrap_or(0),
                non_retryable_codes: policy.non_retryable_error_types,
            },
            timeouts: Timeouts {
                schedule_to_start: wire::length(info.schedule_to_start_timeout.as_ref()),
                start_to_close: wire::length(info.start_to_close_timeout.as_ref())
                    .map(|length| length.checked_sub(BEYOND).unwrap_or(length))
                    .unwrap_or_default(),
                schedule_to_close: wire::length(info.schedule_to_close_timeout.as_ref()),
                heartbeat: None,
            },
        }
    }
}

/// What stands for a reason where nobody gave one: the server tells a cancel by its reason.
pub(super) const NO_REASON: &str = "cancelled";

/// An id that may be none of ours, as far as it can be shown.
pub(super) fn tolerated(id: &str) -> JobId {
    let mut shown: String = id.chars().filter(|c| !c.is_control()).collect();
    while shown.len() > limits::ID {
        shown.pop();
    }
    shown.parse().unwrap_or_else(|_| JobId::generate(Timestamp::UNIX_EPOCH))
}

/// A run id of the server, which is a UUID.
pub(super) fn run_id(id: &str) -> RunId {
    id.parse().unwrap_or_else(|_| RunId::generate(Timestamp::UNIX_EPOCH))
}

/// The verdict in a failure of ours.
pub(super) fn verdict_in(failure: &Told) -> Option<VerdictRecord> {
    match failure.failure_info.as_ref()? {
        FailureInfo::ApplicationFailureInfo(info) => {
            info.details.as_ref().and_then(|all| all.payloads.get(1)).and_then(|found| wire::decoded(found).ok())
        }
        FailureInfo::CanceledFailureInfo(info) => wire::first(info.details.as_ref()),
        // In a workflow's history it stands within what Temporal says of the activity.
        FailureInfo::ActivityFailureInfo(_) => failure.cause.as_deref().and_then(verdict_in),
        _ => None,
    }
}

/// Why an attempt gave no verdict, out of a failure of ours or of the server.
pub(super) fn failure_in(failure: &Told) -> FailureRecord {
    match &failure.failure_info {
        Some(FailureInfo::ApplicationFailureInfo(info)) => wire::first(info.details.as_ref()).unwrap_or_else(|| {
            let code = if info.r#type.is_empty() { "activity.failed".to_owned() } else { info.r#type.clone() };
            Failure::new(code, Category::Internal, failure.message.clone()).with_retryable(!info.non_retryable).record()
        }),
        Some(FailureInfo::TimeoutFailureInfo(info)) => match TimeoutType::try_from(info.timeout_type).unwrap_or_default() {
            TimeoutType::ScheduleToStart => executor::timed_out(TimeoutKind::ScheduleToStart).record(),
            TimeoutType::ScheduleToClose => executor::timed_out(TimeoutKind::ScheduleToClose).record(),
            TimeoutType::StartToClose => executor::timed_out(TimeoutKind::StartToClose).record(),
            // Heartbeats go by themselves: if they are missed, the worker is gone.
            TimeoutType::Heartbeat | TimeoutType::Unspecified => {
                let message = "the worker of the attempt stopped renewing its lease";
                Failure::new(codes::WORKER_LOST, Category::DependencyUnavailable, message).record()
            }
        },
        Some(FailureInfo::ActivityFailureInfo(_)) if failure.cause.is_some() => {
            failure.cause.as_deref().map_or_else(not_ours, failure_in)
        }
        Some(FailureInfo::CanceledFailureInfo(_)) => {
            Failure::new(codes::CANCELLED, Category::Cancelled, "the job was cancelled").record()
        }
        _ => Failure::new("activity.failed", Category::Internal, failure.message.clone()).record(),
    }
}

/// The server takes `schedule_to_close` for `schedule_to_start`, too, where that was not asked for.
pub(super) fn as_asked(failure: FailureRecord, timeouts: &Timeouts) -> FailureRecord {
    let whole = timeouts.schedule_to_start.is_none_or(|start| timeouts.schedule_to_close.is_some_and(|whole| whole <= start));
    if failure.code == codes::TIMEOUT_SCHEDULE_TO_START && whole {
        return executor::timed_out(TimeoutKind::ScheduleToClose).record();
    }
    failure
}

/// A result that is no verdict: the activity was completed by hand, or another program's worker answered under its name.
fn not_ours() -> FailureRecord {
    let message = "completed by hand, or by a worker of another program: the result is not a verdict, and is given as it is";
    Failure::new("result.undecodable", Category::DataIntegrity, message).record()
}
