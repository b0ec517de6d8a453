//! What is asked of many jobs at once: lists, retries by filter, counts, who works.

use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use iolaus_activities::SlotClass;
use temporalio_client::NamespacedClient;
use temporalio_client::grpc::WorkflowService;
use temporalio_common::protos::temporal::api::enums::v1::TaskQueueType;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    CountActivityExecutionsRequest, DescribeTaskQueueRequest, ListActivityExecutionsRequest,
};

use super::client::{AT_ONCE, TemporalClient, ambiguous, timed};
use super::{Temporal, describe, start, wire};
use crate::client::{
    ClientError, Enqueued, HostStatus, JobClient, JobPage, ListFilter, Presence, RetryFilter, RetryPage, RetrySkipped, StateCount,
    Target, WorkerStatus, checks,
};
use crate::job::{Job, JobState, Refused, SEQUENCE};

/// Dead jobs that one step of a retry by filter looks at.
const STEP: usize = 100;
/// A poller that was heard of within this polls: one poll takes a minute.
const POLLS: Duration = Duration::from_secs(70);
/// Every execution that is not closed. Not by `Running`: a server that can pause lists what is paused under a status of its own.
const OPEN: &str = "ExecutionStatus NOT IN ('Completed', 'Failed', 'TimedOut', 'Canceled', 'Terminated')";
/// What the cursors of sequences begin with.
const SEQUENCES: &str = "s";

impl TemporalClient {
    pub(super) async fn list_jobs(&self, filter: ListFilter, limit: usize, cursor: Option<String>) -> Result<JobPage, ClientError> {
        checks::page(limit)?;
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
            query = format!("{query} AND {states}");
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

    pub(super) async fn retry_all(&self, filter: RetryFilter, cursor: Option<String>) -> Result<RetryPage, ClientError> {
        checks::dead(&filter)?;
        let states = if filter.states.is_empty() { vec![JobState::Discarded, JobState::Cancelled] } else { filter.states.clone() };
        let mut query = self.of_ours(filter.activity.as_deref(), filter.tenant.as_deref())?;
        if let Some(states) = statuses(&states)? {
            query = format!("{query} AND {states}");
        }
        let (jobs, next_cursor) = self.page(query, STEP, cursor).await?;
        let mut page = RetryPage { retried: Vec::new(), skipped: Vec::new(), next_cursor };
        for job in jobs {
            // Only the newest execution of a job, as it stands now.
            let detail = match self.get(Target::newest(job.job_id.clone())).await {
                // It was deleted since.
                Err(ClientError::NotFound(_)) => continue,
                found => found?,
            };
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
                None if filter.dry_run => page.retried.push(Enqueued { existing: true, ..Enqueued::opened(job_id, run_id) }),
                None => match self.retry_run(&Target::run(job_id, run_id), true).await {
                    Ok(enqueued) => page.retried.push(enqueued),
                    // Somebody else was faster.
                    Err(ClientError::StillOpen(_) | ClientError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(page)
    }

    pub(super) async fn workers(&self) -> Result<Presence, ClientError> {
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
                        tenants: None,
                        started_at: last_beat,
                        last_beat,
                        running: 0,
                        live,
                        job_id: None,
                    }),
                }
            }
        }
        Ok(Presence { place: self.place(), now, workers, pauses: Vec::new(), holds: Vec::new() })
    }

    pub(super) async fn counted(&self) -> Result<HostStatus, ClientError> {
        let presence = self.workers().await?;
        let mut counts = Vec::new();
        for activity in &self.host.options.activities {
            // What is open is open: finer states are not counted by the cluster.
            for state in [JobState::Running, JobState::Completed, JobState::Discarded, JobState::Cancelled] {
                let states =
                    if state.is_open() { OPEN.to_owned() } else { format!("ExecutionStatus IN ({})", status_names(state)) };
                let query = format!("{} AND {states}", self.of_ours(Some(activity), None)?);
                let count = self.count(query).await?;
                if count > 0 {
                    counts.push(StateCount { activity: activity.clone(), tenant: "*".to_owned(), state, count });
                }
            }
        }
        Ok(HostStatus::new(presence, counts, None))
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
            match self.see(&target).await {
                // It was deleted since.
                Err(ClientError::NotFound(_)) => Ok(None),
                seen => seen.map(|seen| Some(seen.job())),
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
            query = format!("{query} AND ActivityType = {}", quoted(activity));
        }
        match (tenant, &self.host.options.tenant_attribute) {
            (None, _) => {}
            (Some(tenant), Some(attribute)) => query = format!("{query} AND {attribute} = {}", quoted(tenant)),
            (Some(_), None) => {
                let what = "a list by tenant (create a search attribute of type Keyword and name it in temporal.tenant_attribute)";
                return Err(Temporal::unsupported(what));
            }
        }
        Ok(query)
    }

    async fn count(&self, query: String) -> Result<u64, ClientError> {
        let mut client = self.connected().await?;
        let request = CountActivityExecutionsRequest { namespace: client.namespace(), query };
        let answer = client.count_activity_executions(timed(request)).await.map_err(|status| self.fail(status))?;
        Ok(u64::try_from(answer.into_inner().count).unwrap_or(0))
    }
}

/// The condition of a filter by states: all of the open ones, or none of them.
pub(super) fn statuses(states: &[JobState]) -> Result<Option<String>, ClientError> {
    if states.is_empty() {
        return Ok(None);
    }
    let open: Vec<JobState> = JobState::ALL.into_iter().filter(|state| state.is_open()).collect();
    let asked: Vec<JobState> = open.iter().copied().filter(|state| states.contains(state)).collect();
    if let Some(finer) = asked.first().filter(|_| asked.len() < open.len()) {
        return Err(Temporal::unsupported(format!("a list of the state {finer} alone (open ones can be listed together)")));
    }
    let closed: Vec<&str> = states.iter().copied().filter(|state| !state.is_open()).map(status_names).collect();
    let closed = Some(closed).filter(|names| !names.is_empty()).map(|names| format!("ExecutionStatus IN ({})", names.join(", ")));
    let open = (!asked.is_empty()).then(|| OPEN.to_owned());
    Ok(match (open, closed) {
        (Some(open), Some(closed)) => Some(format!("({open} OR {closed})")),
        (open, closed) => open.or(closed),
    })
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
    use std::fmt::Write as _;
    token.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

pub(super) fn from_cursor(cursor: &str) -> Result<Vec<u8>, Refused> {
    let refused = || Refused::new("cursor", "is not one that a list gave out");
    let digits = cursor.as_bytes();
    if !digits.len().is_multiple_of(2) || !cursor.is_ascii() {
        return Err(refused());
    }
    digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(refused))
        .collect()
}
