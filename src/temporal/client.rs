//! The job-lifecycle verbs on a cluster.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use iolaus_activities::{FailureRecord, MESSAGE_LIMIT, VerdictRecord, codes};
use serde_json::Value;
use temporalio_client::grpc::WorkflowService;
use temporalio_client::tonic::{Code, IntoRequest, Status};
use temporalio_client::{Client, NamespacedClient};
use temporalio_common::protos::temporal::api::errordetails::v1::ActivityExecutionAlreadyStartedFailure;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    DescribeActivityExecutionRequest, DescribeActivityExecutionResponse, DescribeNamespaceRequest, PollActivityExecutionRequest,
    RequestCancelActivityExecutionRequest,
};

use super::describe::{self, NO_REASON, Seen};
use super::status::{is_gone, is_refused, is_without_activities};
use super::{Temporal, connect, start, wire};
use crate::client::{
    Cancelled, ClientError, Enqueued, Health, HostStatus, JobClient, JobDetail, JobPage, ListFilter, PauseKind, Presence,
    RetryFilter, RetryPage, Target, checks,
};
use crate::job::{IdConflictPolicy, IdReusePolicy, Job, NewJob, Refused, RunId, SEQUENCE};
use crate::telemetry;

/// Requests at once, of one verb.
pub(super) const AT_ONCE: usize = 16;
/// Before a wait that was cut off goes on.
pub(super) const POLL_PAUSE: Duration = Duration::from_millis(500);
/// One answer, unless it is waited for.
const CALL: Duration = Duration::from_secs(30);

pub(super) struct TemporalClient {
    pub(super) host: Arc<Temporal>,
}

impl TemporalClient {
    pub(super) fn new(host: Arc<Temporal>) -> Self {
        Self { host }
    }

    pub(super) async fn connected(&self) -> Result<Client, ClientError> {
        self.host.connected().await
    }

    pub(super) fn fail(&self, status: Status) -> ClientError {
        if is_without_activities(&status) {
            let hint = "Standalone Activities need a server of version 1.31 or later with activity.enableStandalone on";
            return ClientError::Unavailable {
                place: self.place(),
                unknown: false,
                hint: Some(hint.into()),
                source: status.into(),
            };
        }
        // A write that was not refused may have been kept.
        let unknown = !is_refused(&status);
        self.host.unavailable(status, unknown)
    }

    /// Why a job was not started, but for a conflict.
    pub(super) fn not_started(&self, field: &'static str, status: Status) -> ClientError {
        match status.code() {
            Code::InvalidArgument => Refused::new(field, status.message()).into(),
            Code::ResourceExhausted => ClientError::Overloaded { place: self.place(), retry_after: Duration::from_secs(1) },
            _ => self.fail(status),
        }
    }

    async fn describe(&self, target: &Target) -> Result<DescribeActivityExecutionResponse, ClientError> {
        let mut client = self.connected().await?;
        let request = DescribeActivityExecutionRequest {
            namespace: client.namespace(),
            activity_id: target.job_id.to_string(),
            run_id: target.run_id.map(|run_id| run_id.to_string()).unwrap_or_default(),
            include_input: true,
            include_outcome: true,
            include_heartbeat_details: true,
            include_last_failure: true,
            ..DescribeActivityExecutionRequest::default()
        };
        match client.describe_activity_execution(timed(request)).await {
            Ok(answer) => Ok(answer.into_inner()),
            // Where there are no activities, a sequence may be meant.
            Err(status) if is_gone(&status) || is_without_activities(&status) => Err(ClientError::NotFound(target.job_id.clone())),
            Err(status) => Err(self.fail(status)),
        }
    }

    pub(super) async fn see(&self, target: &Target) -> Result<Seen, ClientError> {
        let answer = self.describe(target).await?;
        Seen::of(answer, self.host.options.cancel_plans.clone(), self.host.of_tools(), self.host.clock.now())
            .ok_or_else(|| ClientError::NotFound(target.job_id.clone()))
    }

    async fn start(&self, job: &NewJob) -> Result<Enqueued, ClientError> {
        let mut client = self.connected().await?;
        let request = start::request(&self.host.options, &client.namespace(), job);
        let answer = match client.start_activity_execution(timed(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::AlreadyExists => return Err(self.conflict(job, &status).await),
            Err(status) => return Err(self.not_started("job", status)),
        };
        let run_id = describe::run_id(&answer.run_id);
        if answer.started {
            return Ok(Enqueued::opened(job.job_id.clone(), run_id));
        }
        let found = self.see(&Target::run(job.job_id.clone(), run_id)).await?.detail();
        existing(job, &found.job, &found.input)
    }

    /// Which execution stands in the way.
    async fn conflict(&self, job: &NewJob, status: &Status) -> ClientError {
        let run_id = already(status).as_deref().map(describe::run_id);
        match self.see(&Target { job_id: job.job_id.clone(), run_id }).await.map(|seen| seen.job()) {
            Ok(found) => ClientError::Conflict { job_id: job.job_id.clone(), run_id: found.run_id, state: found.state },
            Err(error) => error,
        }
    }

    pub(super) async fn retry_run(&self, target: &Target, accept_duplicate: bool) -> Result<Enqueued, ClientError> {
        let (job_id, seen) = (target.job_id.clone(), self.see(target).await?);
        if seen.state().is_open() {
            return Err(ClientError::StillOpen(job_id));
        }
        if let Some(failure) = ambiguous(seen.verdict().as_ref()).filter(|_| !accept_duplicate) {
            return Err(ClientError::NeedsAcceptDuplicate { job_id, instead: failure.suggested_action });
        }
        let detail = seen.detail();
        let job = NewJob {
            job_id,
            run_id: RunId::generate(self.host.clock.now()),
            activity: detail.job.activity,
            activity_version: detail.job.activity_version,
            tenant: detail.job.tenant,
            input: detail.input,
            options: detail.options,
            labels: detail.labels,
            priority: detail.job.priority,
            delay: None,
            id_conflict_policy: IdConflictPolicy::Fail,
            id_reuse_policy: IdReusePolicy::Allow,
            trace: telemetry::context_of(&tracing::Span::current()),
        };
        match self.start(&job).await {
            Err(ClientError::Conflict { job_id, .. }) => Err(ClientError::StillOpen(job_id)),
            started => started,
        }
    }
}

#[async_trait]
impl JobClient for TemporalClient {
    async fn enqueue(&self, job: NewJob) -> Result<Enqueued, ClientError> {
        let began = self.host.clock.monotonic();
        let enqueued = if job.activity == SEQUENCE { self.start_sequence(&job).await } else { self.start(&job).await };
        let took = self.host.clock.monotonic().saturating_sub(began);
        let error = enqueued.as_ref().err().map(|error| match error {
            ClientError::Overloaded { .. } => "overloaded",
            ClientError::Unavailable { .. } => "unavailable",
            _ => "refused",
        });
        self.host.options.metrics.sent(&job.activity, 1, took, error);
        enqueued
    }

    /// Each on its own: a cluster stores one execution in one request.
    async fn enqueue_many(&self, jobs: Vec<NewJob>) -> Result<Vec<Result<Enqueued, ClientError>>, ClientError> {
        let each = jobs.into_iter().map(|job| self.enqueue(job));
        Ok(stream::iter(each).buffered(AT_ONCE).collect().await)
    }

    async fn get(&self, target: Target) -> Result<JobDetail, ClientError> {
        match self.see(&target).await {
            Err(ClientError::NotFound(_)) => self.get_sequence(&target).await,
            seen => Ok(seen?.detail()),
        }
    }

    async fn wait(&self, target: Target) -> Result<VerdictRecord, ClientError> {
        let mut client = self.connected().await?;
        // The newest one is the newest now: a later life of the job is another one's to wait for.
        let run_id = match self.see(&target).await {
            Err(ClientError::NotFound(_)) => return self.wait_for_sequence(&target).await,
            seen => seen?.job().run_id,
        };
        let target = Target::run(target.job_id, run_id);
        loop {
            let request = PollActivityExecutionRequest {
                namespace: client.namespace(),
                activity_id: target.job_id.to_string(),
                run_id: target.run_id.map(|run_id| run_id.to_string()).unwrap_or_default(),
            };
            match client.poll_activity_execution(request.into_request()).await {
                Ok(answer) if answer.get_ref().outcome.as_ref().is_some_and(|outcome| outcome.value.is_some()) => {
                    if let Some(verdict) = self.see(&target).await?.verdict() {
                        return Ok(verdict);
                    }
                }
                // A poll that found nothing is repeated, and so is one that was cut off.
                Ok(_) => {}
                Err(status) if is_gone(&status) => return Err(ClientError::NotFound(target.job_id)),
                Err(status) if is_refused(&status) => return Err(self.fail(status)),
                Err(_) => self.host.clock.sleep(POLL_PAUSE).await,
            }
        }
    }

    async fn list(&self, filter: ListFilter, limit: usize, cursor: Option<String>) -> Result<JobPage, ClientError> {
        self.list_jobs(filter, limit, cursor).await
    }

    async fn cancel(&self, target: Target, reason: Option<String>) -> Result<Cancelled, ClientError> {
        checks::text("reason", reason.as_deref(), MESSAGE_LIMIT)?;
        let before = match self.see(&target).await {
            Err(ClientError::NotFound(_)) => return Box::pin(self.cancel_sequence(&target, reason)).await,
            seen => seen?.job(),
        };
        if !before.state.is_open() {
            return Ok(Cancelled::AlreadyClosed);
        }
        let mut client = self.connected().await?;
        let request = RequestCancelActivityExecutionRequest {
            namespace: client.namespace(),
            activity_id: target.job_id.to_string(),
            run_id: before.run_id.to_string(),
            identity: connect::identity(),
            request_id: RunId::generate(self.host.clock.now()).to_string(),
            reason: reason.unwrap_or_else(|| NO_REASON.to_owned()),
        };
        match client.request_cancel_activity_execution(timed(request)).await {
            Ok(_) => {}
            Err(status) if is_gone(&status) => return Ok(Cancelled::AlreadyClosed),
            Err(status) => return Err(self.fail(status)),
        }
        let after = self.see(&Target::run(target.job_id, before.run_id)).await?.state();
        Ok(if after.is_open() { Cancelled::Requested } else { Cancelled::Closed })
    }

    async fn retry(&self, target: Target, accept_duplicate: bool) -> Result<Enqueued, ClientError> {
        match self.retry_run(&target, accept_duplicate).await {
            Err(ClientError::NotFound(_)) => Box::pin(self.retry_sequence(&target, accept_duplicate)).await,
            retried => retried,
        }
    }

    async fn retry_matching(&self, filter: RetryFilter, cursor: Option<String>) -> Result<RetryPage, ClientError> {
        self.retry_all(filter, cursor).await
    }

    async fn pause(&self, kind: PauseKind, _: String, _: Option<String>) -> Result<(), ClientError> {
        Err(Temporal::unsupported(format!("a pause of {}", kind.as_str())))
    }

    async fn resume(&self, kind: PauseKind, _: String) -> Result<bool, ClientError> {
        Err(Temporal::unsupported(format!("a pause of {}", kind.as_str())))
    }

    async fn presence(&self) -> Result<Presence, ClientError> {
        self.workers().await
    }

    async fn check(&self) -> Result<Health, ClientError> {
        let mut client = self.connected().await?;
        let request = DescribeNamespaceRequest { namespace: client.namespace(), ..DescribeNamespaceRequest::default() };
        client.describe_namespace(timed(request)).await.map_err(|status| self.fail(status))?;
        // What a cluster keeps, it checks itself.
        Ok(Health::default())
    }

    async fn status(&self) -> Result<HostStatus, ClientError> {
        self.counted().await
    }

    fn place(&self) -> String {
        self.host.place()
    }
}

/// The answer to a request that finds an open execution under its id.
pub(super) fn existing(asked: &NewJob, found: &Job, input: &Value) -> Result<Enqueued, ClientError> {
    checks::same_job(asked, found.run_id, found.state, &found.activity, &found.tenant).map_err(ClientError::OtherJob)?;
    let (job_id, run_id) = (asked.job_id.clone(), found.run_id);
    Ok(Enqueued { job_id, run_id, existing: true, input_differs: *input != asked.input })
}

pub(super) fn timed<T>(request: T) -> temporalio_client::tonic::Request<T> {
    let mut request = request.into_request();
    request.set_timeout(CALL);
    request
}

/// The run that an id belongs to, as the refusal of another one says.
fn already(status: &Status) -> Option<String> {
    wire::detail::<ActivityExecutionAlreadyStartedFailure>(status.details(), "ActivityExecutionAlreadyStartedFailure")
        .map(|failure| failure.run_id)
}

pub(super) fn ambiguous(verdict: Option<&VerdictRecord>) -> Option<FailureRecord> {
    verdict.and_then(|verdict| verdict.failure.clone()).filter(|failure| failure.code == codes::RERUN_AMBIGUOUS)
}
