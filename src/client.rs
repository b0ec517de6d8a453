//! The only door to jobs for the command line and HTTP: job-lifecycle verbs, no SQL and no protocol. Every host implements it.

pub(crate) mod checks;
mod health;
mod presence;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use iolaus_activities::{ActivityOptions, FailureRecord, Status, VerdictRecord, timestamp};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use health::{BrokenRow, Health, LogSize};
pub use presence::{HostStatus, Missing, Pause, PauseKind, Presence, StateCount, TenantHold, WithoutWorker, WorkerStatus};

use crate::job::{Job, JobId, JobState, NewJob, Refused, RunId, TraceContext};

/// Which execution a verb means: the newest of a job id, or one by its run id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The job.
    pub job_id: JobId,
    /// The execution; the newest when absent.
    pub run_id: Option<RunId>,
}

impl Target {
    /// The newest execution.
    pub fn newest(job_id: JobId) -> Self {
        Self { job_id, run_id: None }
    }

    /// One execution.
    pub fn run(job_id: JobId, run_id: RunId) -> Self {
        Self { job_id, run_id: Some(run_id) }
    }
}

/// The answer to an enqueue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enqueued {
    /// The job.
    pub job_id: JobId,
    /// Its open execution.
    pub run_id: RunId,
    /// True when it was open already and the conflict policy is `use_existing`.
    pub existing: bool,
    /// True when it is an existing one that was opened with another input, which is what its verdict will be about.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub input_differs: bool,
}

impl Enqueued {
    /// A new execution.
    pub fn opened(job_id: JobId, run_id: RunId) -> Self {
        Self { job_id, run_id, existing: false, input_differs: false }
    }
}

/// An execution with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobDetail {
    /// The execution.
    #[serde(flatten)]
    pub job: Job,
    /// What it was asked.
    pub input: Value,
    /// The options it runs under.
    pub options: ActivityOptions,
    /// Names and values for people and filters.
    pub labels: BTreeMap<String, String>,
    /// The trace it belongs to.
    pub trace: TraceContext,
    /// What the last attempt saved.
    pub checkpoint: Option<Value>,
    /// What the running attempt last reported.
    pub progress: Option<Value>,
    /// The newest failed attempts, oldest first.
    pub failures: Vec<AttemptFailure>,
    /// The verdict, once closed.
    pub verdict: Option<VerdictRecord>,
    /// The steps, if it is a sequence, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepDetail>,
}

impl JobDetail {
    /// What is being worked, or waits to be: the job itself, or the open step of a sequence.
    pub fn at_hand(&self) -> &Job {
        let open = |step: &'_ StepDetail| step.job.as_ref().is_some_and(|job| job.state.is_open());
        self.steps.iter().find(|step| open(step)).and_then(|step| step.job.as_ref()).unwrap_or(&self.job)
    }
}

/// A step of a sequence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepDetail {
    /// Its name within the sequence.
    pub name: String,
    /// The activity's name.
    pub activity: String,
    /// Its execution, once it was started.
    pub job: Option<Job>,
    /// Its verdict's status, once closed.
    pub status: Option<Status>,
}

/// An attempt that gave no verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptFailure {
    /// Its number.
    pub attempt: u32,
    /// When it ended.
    #[serde(with = "timestamp")]
    pub at: Timestamp,
    /// Why.
    pub failure: FailureRecord,
}

/// Which executions to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only these states; all when empty.
    pub states: Vec<JobState>,
    /// Only this activity.
    pub activity: Option<String>,
    /// Only this tenant.
    pub tenant: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobPage {
    /// The executions, newest first.
    pub jobs: Vec<Job>,
    /// Where the next page starts, when there is one. Opaque.
    pub next_cursor: Option<String>,
}

/// Which dead executions to retry, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryFilter {
    /// Discarded or cancelled; both when empty.
    pub states: Vec<JobState>,
    /// Only this activity.
    pub activity: Option<String>,
    /// Only this tenant.
    pub tenant: Option<String>,
    /// Only those whose verdict has this failure code.
    pub code: Option<String>,
    /// Also those that may do the same thing twice.
    pub accept_duplicate: bool,
    /// Only tell what would be retried.
    pub dry_run: bool,
}

/// What a step of a retry by filter came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetryPage {
    /// The executions that are open now; in a dry run those that would be retried, as `existing`.
    pub retried: Vec<Enqueued>,
    /// What was left out because it may do the same thing twice.
    pub skipped: Vec<RetrySkipped>,
    /// Where the next step starts, when there is one. Opaque.
    pub next_cursor: Option<String>,
}

/// An execution that was not retried: it ended as `rerun.ambiguous`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetrySkipped {
    /// The job.
    pub job_id: JobId,
    /// The execution.
    pub run_id: RunId,
    /// The safe way, as a command.
    pub instead: Option<String>,
}

/// What a cancel came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancelled {
    /// It is closed now.
    Closed,
    /// It runs; the request is stored and will be delivered.
    Requested,
    /// It does not run, but has begun something that has to be undone: one last attempt does only that, as soon as a worker takes it.
    LastAttempt,
    /// It was closed already; nothing changed.
    AlreadyClosed,
}

/// An open execution under the id of a request that asks for something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "job {job_id} is {state} for activity {activity} of tenant {tenant} (execution {run_id}), and this asks for activity \
     {asked_activity} of tenant {asked_tenant}"
)]
pub struct OtherJob {
    /// The job.
    pub job_id: JobId,
    /// The open execution.
    pub run_id: RunId,
    /// Its state.
    pub state: JobState,
    /// Its activity.
    pub activity: String,
    /// Its tenant.
    pub tenant: String,
    /// The activity that was asked for.
    pub asked_activity: String,
    /// The tenant that was asked for.
    pub asked_tenant: String,
}

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The request breaks a rule; nothing was stored.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The job id is taken and the policy says no; nothing was stored.
    #[error("job {job_id} exists already: its execution {run_id} is {state}")]
    Conflict {
        /// The job.
        job_id: JobId,
        /// The execution that stands in the way.
        run_id: RunId,
        /// Its state.
        state: JobState,
    },
    /// The job id is open for another activity or another tenant, whose verdict would answer a question that was not asked; nothing was
    /// stored.
    #[error(transparent)]
    OtherJob(Box<OtherJob>),
    /// There is no such execution.
    #[error("no job {0} is known")]
    NotFound(JobId),
    /// Only a closed execution can be retried.
    #[error("job {0} is still open")]
    StillOpen(JobId),
    /// Retrying might do the same thing twice.
    #[error("job {job_id} ended as rerun.ambiguous: a retry may start a second run")]
    NeedsAcceptDuplicate {
        /// The job.
        job_id: JobId,
        /// The safe way, as a command.
        instead: Option<String>,
    },
    /// The host cannot do this.
    #[error("{what} is not possible on the {host} host")]
    Unsupported {
        /// The verb or filter.
        what: String,
        /// The host.
        host: &'static str,
    },
    /// More waits to be stored than is allowed to wait; nothing was stored.
    #[error("the queue at {place} is overloaded: more waits to be stored than may wait; nothing of this was stored")]
    Overloaded {
        /// Where it is.
        place: String,
        /// When it is worth to try again.
        retry_after: Duration,
    },
    /// The queue could not be read or written. After a write with unknown fate the same ids may be sent again.
    #[error("the queue at {place} is unavailable{}: {source}", if *.unknown { " (it is unknown whether the last write was kept)" } else { "" })]
    Unavailable {
        /// Where it is.
        place: String,
        /// Whether the write may have been kept.
        unknown: bool,
        /// What helps, where that is known.
        hint: Option<std::borrow::Cow<'static, str>>,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Job-lifecycle verbs. Arguments are owned, so that it can be used as `Arc<dyn JobClient>` from anywhere.
#[async_trait]
pub trait JobClient: Send + Sync + 'static {
    /// Stores a job durably, or a sequence, which is a job whose steps are jobs.
    async fn enqueue(&self, job: NewJob) -> Result<Enqueued, ClientError>;
    /// Stores jobs durably, all in one transaction, and answers in their order. One that is refused does not keep the others out.
    async fn enqueue_many(&self, jobs: Vec<NewJob>) -> Result<Vec<Result<Enqueued, ClientError>>, ClientError>;
    /// One execution with all that is known of it.
    async fn get(&self, target: Target) -> Result<JobDetail, ClientError>;
    /// The verdict of an execution, as soon as it is closed. Bound it from outside.
    async fn wait(&self, target: Target) -> Result<VerdictRecord, ClientError>;
    /// Executions, newest first, at most `limit` (1 to 1000) a page.
    async fn list(&self, filter: ListFilter, limit: usize, cursor: Option<String>) -> Result<JobPage, ClientError>;
    /// Cancels an execution.
    async fn cancel(&self, target: Target, reason: Option<String>) -> Result<Cancelled, ClientError>;
    /// Opens a new execution of a closed job: same id, input and options, no checkpoint.
    async fn retry(&self, target: Target, accept_duplicate: bool) -> Result<Enqueued, ClientError>;
    /// Retries dead executions by filter, a bounded number in each call. Only the newest execution of a job is retried.
    async fn retry_matching(&self, filter: RetryFilter, cursor: Option<String>) -> Result<RetryPage, ClientError>;
    /// Stores a pause.
    async fn pause(&self, kind: PauseKind, name: String, reason: Option<String>) -> Result<(), ClientError>;
    /// Takes a pause back; false when there was none.
    async fn resume(&self, kind: PauseKind, name: String) -> Result<bool, ClientError>;
    /// Who works on the host, and what is held back.
    async fn presence(&self) -> Result<Presence, ClientError>;
    /// Looks for damage in a sample of what is stored, which takes about as long however much there is.
    async fn check(&self) -> Result<Health, ClientError>;
    /// The host as a whole: counts every job that is kept.
    async fn status(&self) -> Result<HostStatus, ClientError>;
    /// Where jobs are kept, as a person would name it: a database path, a task queue.
    fn place(&self) -> String;
}
