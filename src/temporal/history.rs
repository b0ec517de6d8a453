//! A sequence out of the history of its workflow: its job, its steps, its verdict. Pure.

use iolaus_activities::VerdictRecord;
use jiff::Timestamp;
use serde_json::Value;
use temporalio_common::data_converters::RawValue;
use temporalio_common::protos::temporal::api::common::v1::Payloads;
use temporalio_common::protos::temporal::api::enums::v1::{PendingActivityState, WorkflowExecutionStatus};
use temporalio_common::protos::temporal::api::failure::v1::failure::FailureInfo;
use temporalio_common::protos::temporal::api::failure::v1::{CanceledFailureInfo, Failure as Told};
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;
use temporalio_common::protos::temporal::api::workflow::v1::{PendingActivityInfo, WorkflowExecutionInfo};

use super::describe;
use super::paused::Place;
use super::sequence::{Order, StepOf};
use super::wire::{self, Details};
use crate::client::{AttemptFailure, JobDetail, StepDetail};
use crate::executor;
use crate::job::{Job, JobState, SEQUENCE};
use crate::sequence::{self, Next, Standing};

/// A workflow of ours as the server tells it.
pub(super) struct SeenSequence {
    info: WorkflowExecutionInfo,
    pending: Vec<PendingActivityInfo>,
    order: Order,
    steps: Vec<StepSeen>,
    cancel_requested: bool,
    close: Option<HistoryEvent>,
    place: Place,
    now: Timestamp,
}

/// A step that was begun.
struct StepSeen {
    scheduled: HistoryEvent,
    /// The last attempt's start, which a history has only once it has ended.
    started: Option<Timestamp>,
    attempt: u32,
    end: Option<(Timestamp, Result<RawValue, Told>)>,
}

impl SeenSequence {
    /// None if it is no workflow of ours.
    pub(super) fn of(
        info: WorkflowExecutionInfo,
        pending: Vec<PendingActivityInfo>,
        events: Vec<HistoryEvent>,
        place: Place,
        now: Timestamp,
    ) -> Option<Self> {
        if info.r#type.as_ref().is_none_or(|kind| kind.name != SEQUENCE) {
            return None;
        }
        let order = events.iter().find_map(|event| match event.attributes.as_ref()? {
            Attributes::WorkflowExecutionStartedEventAttributes(started) => Some(Order::stored(started.input.as_ref())),
            _ => None,
        })?;
        // One that does not decode has no steps to show.
        let order = order.unwrap_or_else(|_| Order::unknown(wire::moment(info.start_time.as_ref()).unwrap_or(now)));
        let mut seen = Self { info, pending, order, steps: Vec::new(), cancel_requested: false, close: None, place, now };
        for event in events {
            seen.read(event);
        }
        Some(seen)
    }

    fn read(&mut self, event: HistoryEvent) {
        let at = wire::moment(event.event_time.as_ref()).unwrap_or(self.now);
        match &event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(_)) => {
                self.steps.push(StepSeen { scheduled: event, started: None, attempt: 0, end: None });
            }
            Some(Attributes::ActivityTaskStartedEventAttributes(told)) => self.step(told.scheduled_event_id, |step| {
                step.started = Some(at);
                step.attempt = u32::try_from(told.attempt).unwrap_or(0);
            }),
            Some(Attributes::ActivityTaskCompletedEventAttributes(told)) => {
                let result = RawValue::new(told.result.clone().unwrap_or_default().payloads);
                self.step(told.scheduled_event_id, |step| step.end = Some((at, Ok(result))));
            }
            Some(Attributes::ActivityTaskFailedEventAttributes(told)) => {
                let failure = told.failure.clone().unwrap_or_default();
                self.step(told.scheduled_event_id, |step| step.end = Some((at, Err(failure))));
            }
            Some(Attributes::ActivityTaskTimedOutEventAttributes(told)) => {
                let failure = told.failure.clone().unwrap_or_default();
                self.step(told.scheduled_event_id, |step| step.end = Some((at, Err(failure))));
            }
            Some(Attributes::ActivityTaskCanceledEventAttributes(told)) => {
                let failure = cancelled(told.details.clone());
                self.step(told.scheduled_event_id, |step| step.end = Some((at, Err(failure))));
            }
            Some(Attributes::WorkflowExecutionCancelRequestedEventAttributes(_)) => self.cancel_requested = true,
            Some(
                Attributes::WorkflowExecutionCompletedEventAttributes(_)
                | Attributes::WorkflowExecutionFailedEventAttributes(_)
                | Attributes::WorkflowExecutionCanceledEventAttributes(_)
                | Attributes::WorkflowExecutionTerminatedEventAttributes(_)
                | Attributes::WorkflowExecutionTimedOutEventAttributes(_),
            ) => self.close = Some(event),
            _ => {}
        }
    }

    fn step(&mut self, scheduled: i64, change: impl FnOnce(&mut StepSeen)) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.scheduled.event_id == scheduled) {
            change(step);
        }
    }

    /// As verbs and lists show it.
    pub(super) fn job(&self) -> Job {
        let (verdicts, enqueued_at) = (self.ended(), self.order.enqueued_at);
        Job {
            job_id: describe::tolerated(self.id()),
            run_id: describe::run_id(self.run()),
            activity: SEQUENCE.to_owned(),
            activity_version: self.order.meta.version.unwrap_or(1),
            tenant: self.order.tenant(),
            state: self.state(),
            priority: self.order.priority,
            attempts: 0,
            run_at: wire::moment(self.info.execution_time.as_ref()).unwrap_or(enqueued_at),
            enqueued_at,
            started_at: verdicts.iter().find_map(|verdict| verdict.started_at),
            finished_at: wire::moment(self.info.close_time.as_ref()),
            worker: None,
            cancel_requested: self.cancel_requested,
            stalled_since: None,
            paused: None,
        }
    }

    /// With all that is known of it.
    pub(super) fn detail(&self) -> JobDetail {
        let steps = self.order.definition.steps.iter().enumerate();
        JobDetail {
            job: self.job(),
            input: serde_json::to_value(&self.order.definition).unwrap_or_default(),
            options: self.order.meta.options.clone().unwrap_or_default(),
            labels: self.order.meta.labels.clone(),
            trace: self.order.trace(),
            checkpoint: None,
            progress: None,
            failures: Vec::new(),
            verdict: self.verdict(),
            steps: steps
                .map(|(n, step)| StepDetail {
                    name: step.name.clone(),
                    activity: step.activity.clone(),
                    job: self.step_job(n),
                    status: self.steps.get(n).and_then(|seen| self.step_verdict(n, seen)).map(|verdict| verdict.status),
                })
                .collect(),
        }
    }

    /// One step with all that is known of it.
    pub(super) fn step_detail(&self, n: usize) -> Option<JobDetail> {
        let (step, seen) = (self.order.definition.steps.get(n)?, self.steps.get(n)?);
        let pending = self.pending_of(seen);
        let details: Details = pending.and_then(|pending| wire::first(pending.heartbeat_details.as_ref())).unwrap_or_default();
        let failures = pending.and_then(|pending| {
            let at = wire::moment(pending.last_attempt_complete_time.as_ref()).unwrap_or(self.now);
            let attempt = u32::try_from(pending.attempt).unwrap_or(1).saturating_sub(1);
            pending.last_failure.as_ref().map(|told| AttemptFailure { attempt, at, failure: describe::failure_in(told) })
        });
        Some(JobDetail {
            job: self.step_job(n)?,
            input: step_input(seen),
            options: step.options.clone(),
            labels: self.order.meta.labels.clone(),
            trace: self.order.trace(),
            checkpoint: details.checkpoint,
            progress: details.progress,
            failures: failures.into_iter().collect(),
            verdict: self.step_verdict(n, seen),
            steps: Vec::new(),
        })
    }

    /// The one verdict of a closed sequence.
    pub(super) fn verdict(&self) -> Option<VerdictRecord> {
        let close = self.close.as_ref()?;
        let ours = match close.attributes.as_ref()? {
            Attributes::WorkflowExecutionCompletedEventAttributes(told) => wire::first(told.result.as_ref()),
            Attributes::WorkflowExecutionFailedEventAttributes(told) => told.failure.as_ref().and_then(describe::verdict_in),
            Attributes::WorkflowExecutionCanceledEventAttributes(told) => wire::first(told.details.as_ref()),
            _ => None,
        };
        Some(ours.unwrap_or_else(|| self.ended_by_server(close)))
    }

    /// It was terminated, or what ended it is no verdict of ours: as if it had been cancelled then.
    fn ended_by_server(&self, close: &HistoryEvent) -> VerdictRecord {
        let reason = match &close.attributes {
            Some(Attributes::WorkflowExecutionTerminatedEventAttributes(told)) => format!("terminated: {}", told.reason),
            Some(Attributes::WorkflowExecutionTimedOutEventAttributes(_)) => "the cluster's own timeout ended it".to_owned(),
            _ => "the cluster ended it".to_owned(),
        };
        let ended = self.ended();
        let standing = Standing { cancel_requested: true, cancel_reason: Some(reason), out_of_time: false };
        let at = wire::moment(close.event_time.as_ref()).unwrap_or(self.now);
        let execution = self.order.execution(self.id(), self.run(), &ended);
        match sequence::next(&self.order.definition, &ended, &standing) {
            Next::Close(conclusion) => executor::concluded(&execution, *conclusion, at).verdict,
            Next::Start { .. } => executor::cancelled(&execution, standing.cancel_reason, serde_json::Map::new(), at).verdict,
        }
    }

    /// Where it stands.
    pub(super) fn state(&self) -> JobState {
        match WorkflowExecutionStatus::try_from(self.info.status).unwrap_or_default() {
            WorkflowExecutionStatus::Completed => JobState::Completed,
            WorkflowExecutionStatus::Failed | WorkflowExecutionStatus::TimedOut => JobState::Discarded,
            WorkflowExecutionStatus::Canceled | WorkflowExecutionStatus::Terminated => JobState::Cancelled,
            _ if wire::moment(self.info.execution_time.as_ref()).is_some_and(|at| at > self.now) => JobState::Scheduled,
            _ => JobState::Running,
        }
    }

    /// The verdicts of the steps that have ended by themselves.
    fn ended(&self) -> Vec<VerdictRecord> {
        let ended = self.steps.iter().enumerate().filter(|(_, seen)| seen.end.is_some());
        ended.filter_map(|(n, seen)| self.step_verdict(n, seen)).collect()
    }

    /// A step that is open when its sequence is closed ends with it.
    fn step_verdict(&self, n: usize, seen: &StepSeen) -> Option<VerdictRecord> {
        let with_it = || {
            let at = wire::moment(self.close.as_ref()?.event_time.as_ref()).unwrap_or(self.now);
            Some((at, Err(cancelled(None))))
        };
        let (at, result) = seen.end.clone().or_else(with_it)?;
        let began = wire::moment(seen.scheduled.event_time.as_ref()).unwrap_or(at);
        let of = StepOf { order: &self.order, job_id: self.id(), run_id: self.run(), n, began };
        (n < self.order.definition.steps.len()).then(|| of.ended(result.as_ref().map_err(Clone::clone), at))
    }

    fn step_job(&self, n: usize) -> Option<Job> {
        let (step, seen) = (self.order.definition.steps.get(n)?, self.steps.get(n)?);
        let began = wire::moment(seen.scheduled.event_time.as_ref()).unwrap_or(self.now);
        let of = StepOf { order: &self.order, job_id: self.id(), run_id: self.run(), n, began };
        let (verdict, pending) = (self.step_verdict(n, seen), self.pending_of(seen));
        let running = pending.is_some_and(|pending| {
            matches!(
                PendingActivityState::try_from(pending.state),
                Ok(PendingActivityState::Started | PendingActivityState::CancelRequested | PendingActivityState::PauseRequested)
            )
        });
        let next = pending.and_then(|pending| wire::moment(pending.next_attempt_schedule_time.as_ref()));
        let state = match &verdict {
            Some(verdict) => closed_as(verdict),
            None if running => JobState::Running,
            None if next.is_some_and(|at| at > self.now) => JobState::Retryable,
            None if !self.state().is_open() => JobState::Cancelled,
            None => JobState::Available,
        };
        let started = pending.and_then(|pending| wire::moment(pending.last_started_time.as_ref())).or(seen.started);
        let attempts = pending.map_or(seen.attempt, |pending| {
            u32::try_from(pending.attempt).unwrap_or(0).saturating_sub(u32::from(state != JobState::Running))
        });
        Some(Job {
            job_id: of.id(),
            run_id: describe::run_id(self.run()),
            activity: step.activity.clone(),
            activity_version: step.activity_version,
            tenant: step.tenant.clone(),
            state,
            priority: self.order.priority,
            attempts: verdict.as_ref().map_or(attempts, |verdict| verdict.attempts.max(attempts)),
            run_at: next.unwrap_or(began),
            enqueued_at: began,
            started_at: verdict.as_ref().map_or(started, |verdict| verdict.started_at),
            finished_at: seen.end.as_ref().map(|(at, _)| *at),
            worker: pending.map(|pending| pending.last_worker_identity.clone()).filter(|name| running && !name.is_empty()),
            cancel_requested: self.cancel_requested,
            stalled_since: None,
            paused: pending.and_then(|pending| self.place.pause_of_step(self.id(), pending)),
        })
    }

    fn pending_of(&self, seen: &StepSeen) -> Option<&PendingActivityInfo> {
        let Some(Attributes::ActivityTaskScheduledEventAttributes(told)) = &seen.scheduled.attributes else { return None };
        self.pending.iter().find(|pending| pending.activity_id == told.activity_id).filter(|_| seen.end.is_none())
    }

    fn id(&self) -> &str {
        self.info.execution.as_ref().map_or("", |of| of.workflow_id.as_str())
    }

    fn run(&self) -> &str {
        self.info.execution.as_ref().map_or("", |of| of.run_id.as_str())
    }

    pub(super) fn order(&self) -> &Order {
        &self.order
    }
}

/// What the server says of a step that was cancelled.
fn cancelled(details: Option<Payloads>) -> Told {
    let info = CanceledFailureInfo { details, ..CanceledFailureInfo::default() };
    Told { failure_info: Some(FailureInfo::CanceledFailureInfo(info)), ..Told::default() }
}

fn step_input(seen: &StepSeen) -> Value {
    match &seen.scheduled.attributes {
        Some(Attributes::ActivityTaskScheduledEventAttributes(told)) => wire::first(told.input.as_ref()).unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

fn closed_as(verdict: &VerdictRecord) -> JobState {
    use iolaus_activities::Status;
    match verdict.status {
        Status::Passed | Status::Failed => JobState::Completed,
        Status::Unresolved => JobState::Discarded,
        Status::Cancelled => JobState::Cancelled,
    }
}
