//! The verbs on sequences, which are workflows. A job that is no activity is looked for here.

use futures::stream::{self, StreamExt, TryStreamExt};
use iolaus_activities::VerdictRecord;
use serde_json::Value;
use temporalio_client::NamespacedClient;
use temporalio_client::grpc::WorkflowService;
use temporalio_client::tonic::{Code, IntoRequest, Status};
use temporalio_common::protos::temporal::api::common::v1::WorkflowExecution;
use temporalio_common::protos::temporal::api::enums::v1::HistoryEventFilterType;
use temporalio_common::protos::temporal::api::errordetails::v1::WorkflowExecutionAlreadyStartedFailure;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    DescribeWorkflowExecutionRequest, GetWorkflowExecutionHistoryRequest, ListWorkflowExecutionsRequest,
    RequestCancelWorkflowExecutionRequest,
};

use super::client::{AT_ONCE, POLL_PAUSE, TemporalClient, existing, timed};
use super::describe::{self, NO_REASON};
use super::history::SeenSequence;
use super::queries::{from_cursor, statuses, to_cursor};
use super::sequence::{self, Order};
use super::status::{is_gone, is_refused};
use super::{Temporal, connect, wire};
use crate::client::{Cancelled, ClientError, Enqueued, JobDetail, ListFilter, Target};
use crate::job::{IdConflictPolicy, IdReusePolicy, Job, JobId, NewJob, Refused, RunId, SEQUENCE};
use crate::telemetry;

/// Pages of a history at most: 50 steps have a few hundred events.
const PAGES: usize = 20;

/// The sequence that a step's id names, and which step it is, counted from 0.
fn step_of(job_id: &JobId) -> Option<(JobId, usize)> {
    let (sequence, number) = job_id.as_str().rsplit_once('/')?;
    Some((sequence.parse().ok()?, number.parse::<usize>().ok()?.checked_sub(1)?))
}

impl TemporalClient {
    pub(super) async fn start_sequence(&self, job: &NewJob) -> Result<Enqueued, ClientError> {
        let mut client = self.connected().await?;
        let order =
            Order::new(&self.host.options, job, self.host.clock.now()).map_err(|error| Refused::new("steps", error.to_string()))?;
        let request = sequence::request(&self.host.options, &client.namespace(), job, &order);
        match client.start_workflow_execution(timed(request)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let run_id = describe::run_id(&answer.run_id);
                if answer.started {
                    return Ok(Enqueued::opened(job.job_id.clone(), run_id));
                }
                let seen = Box::pin(self.sequence(&Target::run(job.job_id.clone(), run_id))).await?;
                let definition = serde_json::to_value(&seen.order().definition).unwrap_or_default();
                existing(job, &seen.job(), &definition)
            }
            Err(status) if status.code() == Code::AlreadyExists => {
                let run_id = already(&status).as_deref().map(describe::run_id);
                let job = self.sequence(&Target { job_id: job.job_id.clone(), run_id }).await?.job();
                Err(ClientError::Conflict { job_id: job.job_id, run_id: job.run_id, state: job.state })
            }
            Err(status) => Err(self.not_started("steps", status)),
        }
    }

    /// A sequence, or a step of one, with all that is known of it.
    pub(super) async fn get_sequence(&self, target: &Target) -> Result<JobDetail, ClientError> {
        match self.sequence(target).await {
            Ok(seen) => Ok(seen.detail()),
            Err(ClientError::NotFound(_)) => {
                let unknown = || ClientError::NotFound(target.job_id.clone());
                let (sequence, n) = step_of(&target.job_id).ok_or_else(unknown)?;
                let seen =
                    self.sequence(&Target { job_id: sequence, run_id: target.run_id }).await.map_err(|error| match error {
                        ClientError::NotFound(_) => unknown(),
                        other => other,
                    })?;
                seen.step_detail(n).ok_or_else(unknown)
            }
            Err(error) => Err(error),
        }
    }

    /// The verdict of a sequence, or of a step of one, as soon as it is closed.
    pub(super) async fn wait_for_sequence(&self, target: &Target) -> Result<VerdictRecord, ClientError> {
        let detail = self.get_sequence(target).await?;
        if let Some(verdict) = detail.verdict {
            return Ok(verdict);
        }
        let is_step = detail.job.activity != SEQUENCE;
        let workflow = if is_step { step_of(&target.job_id).map(|(id, _)| id) } else { None }.unwrap_or(target.job_id.clone());
        let run = Target::run(workflow, detail.job.run_id);
        let of_run = Target::run(target.job_id.clone(), detail.job.run_id);
        let mut token = Vec::new();
        loop {
            token = self.next_event(&run, token, is_step).await?;
            if (is_step || token.is_empty())
                && let Some(verdict) = self.get_sequence(&of_run).await?.verdict
            {
                return Ok(verdict);
            }
            if token.is_empty() {
                // It went on as another run, or is closing.
                self.host.clock.sleep(POLL_PAUSE).await;
            }
        }
    }

    /// Waits for something new: any event, or the end alone. An empty token: the history has ended.
    async fn next_event(&self, run: &Target, token: Vec<u8>, any: bool) -> Result<Vec<u8>, ClientError> {
        let mut client = self.connected().await?;
        let filter = if any { HistoryEventFilterType::AllEvent } else { HistoryEventFilterType::CloseEvent };
        let request = GetWorkflowExecutionHistoryRequest {
            namespace: client.namespace(),
            execution: Some(execution(run)),
            next_page_token: token.clone(),
            wait_new_event: true,
            history_event_filter_type: filter.into(),
            ..GetWorkflowExecutionHistoryRequest::default()
        };
        match client.get_workflow_execution_history(request.into_request()).await {
            Ok(answer) => Ok(answer.into_inner().next_page_token),
            Err(status) if is_gone(&status) => Err(ClientError::NotFound(run.job_id.clone())),
            Err(status) if is_refused(&status) => Err(self.fail(status)),
            Err(_) => {
                self.host.clock.sleep(POLL_PAUSE).await;
                Ok(token)
            }
        }
    }

    pub(super) async fn cancel_sequence(&self, target: &Target, reason: Option<String>) -> Result<Cancelled, ClientError> {
        let seen = match self.sequence(target).await {
            Ok(seen) => seen,
            Err(ClientError::NotFound(id)) if step_of(&target.job_id).is_some() => {
                // It is there, or it is not.
                self.get_sequence(target).await.map_err(|_| ClientError::NotFound(id))?;
                return Err(Temporal::unsupported("a cancel of a step alone (cancel its sequence)"));
            }
            Err(error) => return Err(error),
        };
        let before = seen.job();
        if !before.state.is_open() {
            return Ok(Cancelled::AlreadyClosed);
        }
        let mut client = self.connected().await?;
        let request = RequestCancelWorkflowExecutionRequest {
            namespace: client.namespace(),
            workflow_execution: Some(execution(&Target::run(before.job_id, before.run_id))),
            identity: connect::identity(),
            request_id: RunId::generate(self.host.clock.now()).to_string(),
            reason: reason.unwrap_or_else(|| NO_REASON.to_owned()),
            ..RequestCancelWorkflowExecutionRequest::default()
        };
        match client.request_cancel_workflow_execution(timed(request)).await {
            Ok(_) => Ok(Cancelled::Requested),
            Err(status) if is_gone(&status) => Ok(Cancelled::AlreadyClosed),
            Err(status) => Err(self.fail(status)),
        }
    }

    pub(super) async fn retry_sequence(&self, target: &Target, accept_duplicate: bool) -> Result<Enqueued, ClientError> {
        let seen = match self.sequence(target).await {
            Ok(seen) => seen,
            Err(ClientError::NotFound(id)) => {
                let Some((sequence, _)) = step_of(&target.job_id) else { return Err(ClientError::NotFound(id)) };
                self.get_sequence(target).await?;
                let word = iolaus_activities::shell_word(sequence.as_str());
                let reason = format!("`{id}` is a step, and is run again with its sequence: iolaus jobs retry {word}");
                return Err(Refused::new("job_id", reason).into());
            }
            Err(error) => return Err(error),
        };
        let (detail, order) = (seen.detail(), seen.order());
        if detail.job.state.is_open() {
            return Err(ClientError::StillOpen(target.job_id.clone()));
        }
        if !accept_duplicate && let Some(failure) = ambiguous_step(&detail) {
            let instead = failure["suggested_action"].as_str().map(str::to_owned);
            return Err(ClientError::NeedsAcceptDuplicate { job_id: target.job_id.clone(), instead });
        }
        let job = NewJob {
            job_id: target.job_id.clone(),
            run_id: RunId::generate(self.host.clock.now()),
            activity: SEQUENCE.to_owned(),
            activity_version: detail.job.activity_version,
            tenant: detail.job.tenant,
            input: serde_json::to_value(&order.definition).unwrap_or_default(),
            options: detail.options,
            labels: detail.labels,
            priority: order.priority,
            delay: None,
            id_conflict_policy: IdConflictPolicy::Fail,
            id_reuse_policy: IdReusePolicy::Allow,
            trace: telemetry::context_of(&tracing::Span::current()),
        };
        match self.start_sequence(&job).await {
            Err(ClientError::Conflict { job_id, .. }) => Err(ClientError::StillOpen(job_id)),
            started => started,
        }
    }

    /// A page of sequences.
    pub(super) async fn list_sequences(
        &self,
        filter: &ListFilter,
        limit: usize,
        cursor: Option<String>,
    ) -> Result<(Vec<Job>, Option<String>), ClientError> {
        let mut query = format!("WorkflowType = '{SEQUENCE}' AND {}", self.of_ours(None, filter.tenant.as_deref())?);
        if let Some(states) = statuses(&filter.states)? {
            query = format!("{query} AND {states}");
        }
        let mut client = self.connected().await?;
        let request = ListWorkflowExecutionsRequest {
            namespace: client.namespace(),
            page_size: i32::try_from(limit).unwrap_or(i32::MAX),
            next_page_token: cursor.map(|cursor| from_cursor(&cursor)).transpose()?.unwrap_or_default(),
            query,
        };
        let answer = client.list_workflow_executions(timed(request)).await.map_err(|status| self.fail(status))?.into_inner();
        let found = answer.executions.iter().filter_map(|info| info.execution.as_ref());
        let targets: Vec<Target> =
            found.map(|of| Target::run(describe::tolerated(&of.workflow_id), describe::run_id(&of.run_id))).collect();
        let described = stream::iter(targets).map(|target| async move {
            match self.sequence(&target).await {
                Ok(seen) => Ok(Some(seen.job())),
                Err(ClientError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let jobs: Vec<Option<Job>> = described.buffered(AT_ONCE).try_collect().await?;
        let next = Some(answer.next_page_token).filter(|token| !token.is_empty()).map(|token| to_cursor(&token));
        Ok((jobs.into_iter().flatten().collect(), next))
    }

    async fn sequence(&self, target: &Target) -> Result<SeenSequence, ClientError> {
        let mut client = self.connected().await?;
        let unknown = || ClientError::NotFound(target.job_id.clone());
        let request = DescribeWorkflowExecutionRequest { namespace: client.namespace(), execution: Some(execution(target)) };
        let described = match client.describe_workflow_execution(timed(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if is_gone(&status) => return Err(unknown()),
            Err(status) => return Err(self.fail(status)),
        };
        let info = described.workflow_execution_info.ok_or_else(unknown)?;
        if info.r#type.as_ref().is_none_or(|kind| kind.name != SEQUENCE) {
            return Err(unknown());
        }
        let (mut events, mut token) = (Vec::new(), Vec::new());
        for _ in 0..PAGES {
            let request = GetWorkflowExecutionHistoryRequest {
                namespace: client.namespace(),
                execution: info.execution.clone(),
                next_page_token: token,
                ..GetWorkflowExecutionHistoryRequest::default()
            };
            let answer = client.get_workflow_execution_history(timed(request)).await.map_err(|status| self.fail(status))?;
            let answer = answer.into_inner();
            events.extend(answer.history.unwrap_or_default().events);
            token = answer.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        SeenSequence::of(info, described.pending_activities, events, self.host.of_tools(), self.host.clock.now())
            .ok_or_else(unknown)
    }
}

/// The failure of a step that may do the same thing twice.
fn ambiguous_step(detail: &JobDetail) -> Option<&Value> {
    let steps = detail.verdict.as_ref()?.facts.get("steps")?.as_array()?;
    let mut failures = steps.iter().filter_map(|step| step.get("failure"));
    failures.find(|failure| failure["code"] == iolaus_activities::codes::RERUN_AMBIGUOUS)
}

fn execution(target: &Target) -> WorkflowExecution {
    WorkflowExecution {
        workflow_id: target.job_id.to_string(),
        run_id: target.run_id.map(|run_id| run_id.to_string()).unwrap_or_default(),
    }
}

fn already(status: &Status) -> Option<String> {
    wire::detail::<WorkflowExecutionAlreadyStartedFailure>(status.details(), "WorkflowExecutionAlreadyStartedFailure")
        .map(|failure| failure.run_id)
}
