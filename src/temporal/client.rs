//! The job-lifecycle verbs on a cluster.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use iolaus_activities::{FailureRecord, MESSAGE_LIMIT, SlotClass, VerdictRecord, codes};
use temporalio_client::grpc::WorkflowService;
use temporalio_client::tonic::{Code, IntoRequest, Status};
use temporalio_client::{Client, NamespacedClient};
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_common::protos::temporal::api::errordetails::v1::ActivityExecutionAlreadyStartedFailure;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    CountActivityExecutionsRequest, DescribeActivityExecutionRequest, DescribeActivityExecutionResponse, DescribeTaskQueueRequest,
    GetSystemInfoRequest, ListActivityExecutionsRequest, PollActivityExecutionRequest, RequestCancelActivityExecutionRequest,
};

use super::describe::{self, NO_REASON, Seen};
use super::{Temporal, connect, start, wire};
use crate::client::{
    Cancelled, ClientError, Enqueued, HostStatus, JobClient, JobDetail, JobPage, ListFilter, PauseKind, Presence, RetryFilter,
    RetryPage, RetrySkipped, StateCount, Target, WorkerStatus,
};
use crate::job::{IdConflictPolicy, IdReusePolicy, Job, JobState, NewJob, Refused, RunId, SEQUENCE};
use crate::telemetry;

/// Rows of one page at most.
const PAGE: usize = 1000;
/// Requests at once, of one verb.
pub(super) const AT_ONCE: usize = 16;
/// Dead jobs that one step of a retry by filter looks at.
const STEP: usize = 100;
/// A poller that was heard of within this polls: one poll takes a minute.
const POLLS: Duration = Duration::from_secs(70);
/// What the cursors of sequences begin with.
const SEQUENCES: &str = "s";
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
        // A write that was not answered in time may have been kept.
        let unknown = matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled | Code::Unknown);
        self.host.unavailable(status, unknown)
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
            Err(status) if is_gone(&status) => Err(ClientError::NotFound(target.job_id.clone())),
            Err(status) => Err(self.fail(status)),
        }
    }

    async fn see<T>(&self, target: &Target, show: impl FnOnce(&Seen<'_>) -> T) -> Result<T, ClientError> {
        let answer = self.describe(target).await?;
        let seen = Seen::of(&answer, self.host.clock.now()).ok_or_else(|| ClientError::NotFound(target.job_id.clone()))?;
        Ok(show(&seen))
    }

    async fn start(&self, job: &NewJob) -> Result<Enqueued, ClientError> {
        let mut client = self.connected().await?;
        let request = start::request(&self.host.options, &client.namespace(), job);
        let answer = match client.start_activity_execution(timed(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::AlreadyExists => return Err(self.conflict(job, &status).await),
            Err(status) if status.code() == Code::InvalidArgument => {
                return Err(Refused::new("job", status.message()).into());
            }
            Err(status) if status.code() == Code::ResourceExhausted => {
                return Err(ClientError::Overloaded { place: self.place(), retry_after: Duration::from_secs(1) });
            }
            Err(status) => return Err(self.fail(status)),
        };
        Ok(Enqueued { job_id: job.job_id.clone(), run_id: describe::run_id(&answer.run_id), existing: !answer.started })
    }

    /// Which execution stands in the way.
    async fn conflict(&self, job: &NewJob, status: &Status) -> ClientError {
        let run_id = already(status).as_deref().map(describe::run_id);
        match self.see(&Target { job_id: job.job_id.clone(), run_id }, |seen| seen.job()).await {
            Ok(found) => ClientError::Conflict { job_id: job.job_id.clone(), run_id: found.run_id, state: found.state },
            Err(error) => error,
        }
    }

    async fn page(&self, query: String, limit: usize, cursor: Option<String>) -> Result<(Vec<Job>, Option<String>), ClientError> {
        let mut client = self.connected().await?;
        let token = cursor.map(|cursor| from_cursor(&cursor)).transpose()?.unwrap_or_default();
        let request = ListActivityExecutionsRequest {
            namespace: client.namespace(),
            page_size: i32::try_from(limit).unwrap_or(i32::MAX),
            next_page_token: token,
            query,
        };
        let answer = client.list_activity_executions(timed(request)).await.map_err(|status| self.fail(status))?.into_inner();
        // A list says less of each than a description does.
        let targets: Vec<Target> = answer
            .executions
            .iter()
            .map(|found| Target::run(describe::tolerated(&found.activity_id), describe::run_id(&found.run_id)))
            .collect();
        let described = stream::iter(targets).map(|target| async move {
            match self.see(&target, |seen| seen.job()).await {
                // It was deleted since.
                Err(ClientError::NotFound(_)) => Ok(None),
                job => job.map(Some),
            }
        });
        let jobs: Vec<Option<Job>> = described.buffered(AT_ONCE).try_collect().await?;
        let next = Some(answer.next_page_token).filter(|token| !token.is_empty()).map(|token| to_cursor(&token));
        Ok((jobs.into_iter().flatten().collect(), next))
    }

    /// The part of a query that every list of ours begins with.
    pub(super) fn of_ours(&self, activity: Option<&str>, tenant: Option<&str>) -> Result<String, ClientError> {
        let queues = [SlotClass::Work, SlotClass::Waits].map(|class| quoted(&self.host.options.queue(class)));
        let mut query = format!("TaskQueue IN ({}, {})", queues[0], queues[1]);
        if let Some(activity) = activity {
            query += &format!(" AND ActivityType = {}", quoted(activity));
        }
        match (tenant, &self.host.options.tenant_attribute) {
            (None, _) => {}
            (Some(tenant), Some(attribute)) => query += &format!(" AND {attribute} = {}", quoted(tenant)),
            (Some(_), None) => {
                let what = "a list by tenant (create a search attribute of type Keyword and name it in temporal.tenant_attribute)";
                return Err(Temporal::unsupported(what));
            }
        }
        Ok(query)
    }

    async fn retry_run(&self, target: &Target, accept_duplicate: bool) -> Result<Enqueued, ClientError> {
        let answer = self.describe(target).await?;
        let job_id = target.job_id.clone();
        let seen = Seen::of(&answer, self.host.clock.now()).ok_or_else(|| ClientError::NotFound(job_id.clone()))?;
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

    async fn count(&self, query: String) -> Result<u64, ClientError> {
        let mut client = self.connected().await?;
        let request = CountActivityExecutionsRequest { namespace: client.namespace(), query };
        let answer = client.count_activity_executions(timed(request)).await.map_err(|status| self.fail(status))?;
        Ok(u64::try_from(answer.into_inner().count).unwrap_or(0))
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
        match self.see(&target, |seen| seen.detail()).await {
            Err(ClientError::NotFound(_)) => self.get_sequence(&target).await,
            detail => detail,
        }
    }

    async fn wait(&self, target: Target) -> Result<VerdictRecord, ClientError> {
        let mut client = self.connected().await?;
        // The newest one is the newest now: a later life of the job is another one's to wait for.
        let run_id = match self.see(&target, |seen| seen.job()).await {
            Err(ClientError::NotFound(_)) => return self.wait_for_sequence(&target).await,
            job => job?.run_id,
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
                    if let Some(verdict) = self.see(&target, |seen| seen.verdict()).await? {
                        return Ok(verdict);
                    }
                }
                // A poll that found nothing is repeated, and so is one that was cut off.
                Ok(_) => {}
                Err(status) if is_gone(&status) => return Err(ClientError::NotFound(target.job_id)),
                Err(status) if matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled) => {
                    self.host.clock.sleep(Duration::from_millis(500)).await;
                }
                Err(status) => return Err(self.fail(status)),
            }
        }
    }

    async fn list(&self, filter: ListFilter, limit: usize, cursor: Option<String>) -> Result<JobPage, ClientError> {
        if !(1..=PAGE).contains(&limit) {
            return Err(Refused::new("limit", format!("is {limit}; it goes from 1 to {PAGE}")).into());
        }
        let (of_sequences, cursor) = match cursor.as_deref().map(|cursor| cursor.strip_prefix(SEQUENCES)) {
            Some(Some(cursor)) => (true, Some(cursor.to_owned()).filter(|cursor| !cursor.is_empty())),
            _ => (filter.activity.as_deref() == Some(SEQUENCE), cursor),
        };
        if of_sequences {
            let (jobs, next) = self.list_sequences(&filter, limit, cursor).await?;
            return Ok(JobPage { jobs, next_cursor: next.map(|next| format!("{SEQUENCES}{next}")) });
        }
        let mut query = self.of_ours(filter.activity.as_deref(), filter.tenant.as_deref())?;
        if let Some(states) = statuses(&filter.states)? {
            query += &format!(" AND ExecutionStatus IN ({states})");
        }
        let (mut jobs, mut next_cursor) = self.page(query, limit, cursor).await?;
        // Sequences come behind the single jobs.
        if next_cursor.is_none() && filter.activity.is_none() {
            match limit.checked_sub(jobs.len()).filter(|room| *room > 0) {
                None => next_cursor = Some(SEQUENCES.to_owned()),
                Some(room) => {
                    let (sequences, next) = self.list_sequences(&filter, room, None).await?;
                    jobs.extend(sequences);
                    next_cursor = next.map(|next| format!("{SEQUENCES}{next}"));
                }
            }
        }
        Ok(JobPage { jobs, next_cursor })
    }

    async fn cancel(&self, target: Target, reason: Option<String>) -> Result<Cancelled, ClientError> {
        if let Some(size) = reason.as_ref().map(String::len).filter(|size| *size > MESSAGE_LIMIT) {
            return Err(Refused::new("reason", format!("has {size} bytes; at most {MESSAGE_LIMIT} are allowed")).into());
        }
        let before = match self.see(&target, |seen| seen.job()).await {
            Err(ClientError::NotFound(_)) => return self.cancel_sequence(&target, reason).await,
            job => job?,
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
        let after = self.see(&Target::run(target.job_id, before.run_id), |seen| seen.state()).await?;
        Ok(if after.is_open() { Cancelled::Requested } else { Cancelled::Closed })
    }

    async fn retry(&self, target: Target, accept_duplicate: bool) -> Result<Enqueued, ClientError> {
        match self.retry_run(&target, accept_duplicate).await {
            Err(ClientError::NotFound(_)) => self.retry_sequence(&target, accept_duplicate).await,
            retried => retried,
        }
    }

    async fn retry_matching(&self, filter: RetryFilter, cursor: Option<String>) -> Result<RetryPage, ClientError> {
        if let Some(state) = filter.states.iter().find(|state| !matches!(state, JobState::Discarded | JobState::Cancelled)) {
            return Err(Refused::new("state", format!("is {state}; only discarded and cancelled jobs are retried by filter")).into());
        }
        let states = if filter.states.is_empty() { vec![JobState::Discarded, JobState::Cancelled] } else { filter.states.clone() };
        let mut query = self.of_ours(filter.activity.as_deref(), filter.tenant.as_deref())?;
        query += &format!(" AND ExecutionStatus IN ({})", statuses(&states)?.unwrap_or_default());
        let (jobs, next_cursor) = self.page(query, STEP, cursor).await?;
        let mut page = RetryPage { retried: Vec::new(), skipped: Vec::new(), next_cursor };
        for job in jobs {
            // Only the newest execution of a job, as it stands now.
            let detail = self.get(Target::newest(job.job_id.clone())).await?;
            if detail.job.run_id != job.run_id || !states.contains(&detail.job.state) {
                continue;
            }
            let code = detail.verdict.as_ref().and_then(|verdict| verdict.failure.as_ref()).map(|failure| failure.code.clone());
            if filter.code.is_some() && filter.code != code {
                continue;
            }
            let (job_id, run_id) = (job.job_id, job.run_id);
            match ambiguous(detail.verdict.as_ref()).filter(|_| !filter.accept_duplicate) {
                Some(failure) => page.skipped.push(RetrySkipped { job_id, run_id, instead: failure.suggested_action }),
                None if filter.dry_run => page.retried.push(Enqueued { job_id, run_id, existing: true }),
                None => match self.retry_run(&Target::run(job_id, run_id), true).await {
                    Ok(enqueued) => page.retried.push(enqueued),
                    // Somebody else was faster.
                    Err(ClientError::StillOpen(_)) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(page)
    }

    async fn pause(&self, kind: PauseKind, _: String, _: Option<String>) -> Result<(), ClientError> {
        Err(Temporal::unsupported(format!("a pause of {}", kind.as_str())))
    }

    async fn resume(&self, kind: PauseKind, _: String) -> Result<bool, ClientError> {
        Err(Temporal::unsupported(format!("a pause of {}", kind.as_str())))
    }

    async fn presence(&self) -> Result<Presence, ClientError> {
        let mut client = self.connected().await?;
        let now = self.host.clock.now();
        let mut workers: Vec<WorkerStatus> = Vec::new();
        for class in [SlotClass::Work, SlotClass::Waits] {
            let request = DescribeTaskQueueRequest {
                namespace: client.namespace(),
                task_queue: Some(start::queue(self.host.options.queue(class))),
                task_queue_type: TaskQueueType::Activity.into(),
                ..DescribeTaskQueueRequest::default()
            };
            let answer = client.describe_task_queue(timed(request)).await.map_err(|status| self.fail(status))?.into_inner();
            for poller in answer.pollers {
                let last_beat = wire::moment(poller.last_access_time.as_ref()).unwrap_or(now);
                let live = Duration::try_from(now.duration_since(last_beat)).unwrap_or_default() < POLLS;
                match workers.iter_mut().find(|worker| worker.name == poller.identity) {
                    Some(known) => {
                        known.live |= live;
                        known.last_beat = known.last_beat.max(last_beat);
                    }
                    None => workers.push(WorkerStatus {
                        name: poller.identity,
                        version: poller.deployment_options.map(|of| of.build_id).unwrap_or_default(),
                        // Which activities a worker has is not told; ours have all of their build's.
                        activities: self.host.options.activities.clone(),
                        started_at: last_beat,
                        last_beat,
                        running: 0,
                        live,
                    }),
                }
            }
        }
        Ok(Presence { place: self.place(), workers, pauses: Vec::new(), holds: Vec::new() })
    }

    async fn check(&self) -> Result<(), ClientError> {
        let mut client = self.connected().await?;
        client.get_system_info(timed(GetSystemInfoRequest::default())).await.map(drop).map_err(|status| self.fail(status))
    }

    async fn status(&self) -> Result<HostStatus, ClientError> {
        let presence = self.presence().await?;
        let mut counts = Vec::new();
        for activity in &self.host.options.activities {
            // What is open is open: finer states are not counted by the cluster.
            for state in [JobState::Running, JobState::Completed, JobState::Discarded, JobState::Cancelled] {
                let query = self.of_ours(Some(activity), None)? + &format!(" AND ExecutionStatus IN ({})", status_names(state));
                let count = self.count(query).await?;
                if count > 0 {
                    counts.push(StateCount { activity: activity.clone(), tenant: "*".to_owned(), state, count });
                }
            }
        }
        Ok(HostStatus { presence, counts, oldest_due: None })
    }

    fn place(&self) -> String {
        self.host.place()
    }
}

pub(super) fn timed<T>(request: T) -> temporalio_client::tonic::Request<T> {
    let mut request = request.into_request();
    request.set_timeout(CALL);
    request
}

pub(super) fn is_gone(status: &Status) -> bool {
    status.code() == Code::NotFound
}

/// The run that an id belongs to, as the refusal of another one says.
fn already(status: &Status) -> Option<String> {
    wire::detail::<ActivityExecutionAlreadyStartedFailure>(status.details(), "ActivityExecutionAlreadyStartedFailure")
        .map(|failure| failure.run_id)
}

fn ambiguous(verdict: Option<&VerdictRecord>) -> Option<FailureRecord> {
    verdict.and_then(|verdict| verdict.failure.clone()).filter(|failure| failure.code == codes::RERUN_AMBIGUOUS)
}

/// The cluster's names for a filter by states: all of the open ones, or none of them.
pub(super) fn statuses(states: &[JobState]) -> Result<Option<String>, ClientError> {
    if states.is_empty() {
        return Ok(None);
    }
    let open: Vec<JobState> = JobState::ALL.into_iter().filter(|state| state.is_open()).collect();
    let asked: Vec<JobState> = open.iter().copied().filter(|state| states.contains(state)).collect();
    if let Some(finer) = asked.first().filter(|_| asked.len() < open.len()) {
        return Err(Temporal::unsupported(format!("a list of the state {finer} alone (open ones can be listed together)")));
    }
    let closed = states.iter().copied().filter(|state| !state.is_open());
    let names: Vec<&str> = asked.first().copied().into_iter().chain(closed).map(status_names).collect();
    Ok(Some(names.join(", ")))
}

fn status_names(state: JobState) -> &'static str {
    match state {
        JobState::Completed => "'Completed'",
        JobState::Discarded => "'Failed', 'TimedOut'",
        JobState::Cancelled => "'Canceled', 'Terminated'",
        _ => "'Running'",
    }
}

/// A value in a query.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

pub(super) fn to_cursor(token: &[u8]) -> String {
    token.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn from_cursor(cursor: &str) -> Result<Vec<u8>, Refused> {
    let refused = || Refused::new("cursor", "is not one that a list gave out");
    let digits = cursor.as_bytes();
    if digits.len() % 2 != 0 || !cursor.is_ascii() {
        return Err(refused());
    }
    digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(refused))
        .collect()
}
