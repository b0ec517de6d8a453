//! What a job is: ids, states, id policies, limits. Not here: how a request becomes a job (`intake`), where jobs are stored, and who
//! runs them.

mod bounds;
mod pause;
mod throttle;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use iolaus_activities::{ActivityOptions, InputError, is_invisible, timestamp};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub(crate) use bounds::{cut, cut_owned, flatten, nests_within};
pub use pause::JobPause;
pub use throttle::{Throttle, Throttles};

/// Limits, the same on every host. A value over its limit is refused, with the field.
pub mod limits {
    /// Input, as JSON bytes.
    pub const INPUT: usize = 1024 * 1024;
    /// Checkpoint, as JSON bytes.
    pub const CHECKPOINT: usize = 64 * 1024;
    /// Verdict, as JSON bytes.
    pub const VERDICT: usize = 256 * 1024;
    /// How deep the JSON of an input or a checkpoint may be nested.
    pub const DEPTH: usize = 64;
    /// How deep a fact of a verdict is kept.
    pub const FACT_DEPTH: usize = 32;
    /// Why something is refused, in bytes.
    pub const REASON: usize = 4 * 1024;
    /// A job id, in bytes.
    pub const ID: usize = 200;
    /// A sequence's id, in bytes: those of its steps are longer.
    pub const SEQUENCE_ID: usize = 190;
    /// Steps of one sequence.
    pub const STEPS: usize = 50;
    /// The name of a step, in bytes.
    pub const STEP_NAME: usize = 64;
    /// A tenant's or an activity's name, in bytes.
    pub const NAME: usize = 200;
    /// Codes that a job's options may call non-retryable.
    pub const CODES: usize = 64;
    /// Labels of one job.
    pub const LABELS: usize = 16;
    /// A label's name, in bytes.
    pub const LABEL_NAME: usize = 64;
    /// A label's value, in bytes.
    pub const LABEL_VALUE: usize = 256;
    /// Attempts that an execution may give back to shutdowns before one counts as failed.
    pub const DRAINS: u32 = 20;
}

/// What stands for the activity of a sequence. Stored, and reserved: no activity may have this name.
pub const SEQUENCE: &str = "sequence";

/// Something was refused at the door: nothing is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Refused {
    /// The field, as the caller knows it.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Refused {
    /// Refuses a field. Both texts may quote what was sent, and are cut to a bound.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: cut_owned(field.into(), limits::NAME), reason: cut_owned(reason.into(), limits::REASON) }
    }

    /// The same field, seen from one level up.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self::new(format!("{outer}.{}", self.field), self.reason)
    }
}

impl From<InputError> for Refused {
    fn from(error: InputError) -> Self {
        let field = if error.field == "." { "input".to_owned() } else { format!("input.{}", error.field) };
        Self::new(field, error.reason)
    }
}

/// The caller's business id, or a generated UUIDv7.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

impl JobId {
    /// A caller's id: 1 to 200 bytes, no control or invisible characters, and not ending in `/` and digits, which is how steps are named.
    pub fn from_caller(id: impl Into<String>) -> Result<Self, Refused> {
        let id = Self::stored(id.into())?;
        // Only new ids are refused for this: one that an earlier version stored must stay readable.
        if id.0.contains(is_invisible) {
            return Err(Refused::new("job_id", "must not contain characters that hide text or reverse its direction"));
        }
        match id.0.rsplit_once('/') {
            Some((_, tail)) if !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit()) => {
                Err(Refused::new("job_id", "must not end in `/` and digits: such ids name the steps of a sequence"))
            }
            _ => Ok(id),
        }
    }

    /// A new id that sorts by time.
    pub fn generate(now: Timestamp) -> Self {
        Self(uuid_v7(now).to_string())
    }

    /// The id of a sequence's step, counted from 1.
    pub fn of_step(sequence: &Self, number: usize) -> Self {
        Self(format!("{sequence}/{number}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn stored(id: String) -> Result<Self, Refused> {
        if id.trim().is_empty() {
            return Err(Refused::new("job_id", "must not be empty"));
        }
        if id.len() > limits::ID {
            return Err(Refused::new("job_id", format!("has {} bytes; at most {} are allowed", id.len(), limits::ID)));
        }
        if id.chars().any(char::is_control) {
            return Err(Refused::new("job_id", "must not contain control characters"));
        }
        Ok(Self(id))
    }
}

impl TryFrom<String> for JobId {
    type Error = Refused;
    fn try_from(id: String) -> Result<Self, Refused> {
        Self::stored(id)
    }
}

impl FromStr for JobId {
    type Err = Refused;
    /// Any id that may stand in a database, those of steps included.
    fn from_str(id: &str) -> Result<Self, Refused> {
        Self::stored(id.to_owned())
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of one execution. Chosen before it is sent, so that a caller in doubt may send it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId(Uuid);

impl RunId {
    /// A new id.
    pub fn generate(now: Timestamp) -> Self {
        Self(uuid_v7(now))
    }
}

impl FromStr for RunId {
    type Err = Refused;
    fn from_str(id: &str) -> Result<Self, Refused> {
        id.parse()
            .map(Self)
            .map_err(|_| Refused::new("run_id", format!("`{}` is no run id: it looks like a UUID", cut(id, limits::STEP_NAME))))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn uuid_v7(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

/// Where an execution stands. Stored: the spelling is forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for its start time.
    Scheduled,
    /// Due; waits for a worker.
    Available,
    /// A worker holds its lease.
    Running,
    /// Waits for its next attempt.
    Retryable,
    /// Closed with the activity's own verdict.
    Completed,
    /// Closed without one.
    Discarded,
    /// Closed because somebody asked.
    Cancelled,
}

impl JobState {
    /// Every state, open ones first.
    pub const ALL: [Self; 7] =
        [Self::Scheduled, Self::Available, Self::Running, Self::Retryable, Self::Completed, Self::Discarded, Self::Cancelled];

    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Available => "available",
            Self::Running => "running",
            Self::Retryable => "retryable",
            Self::Completed => "completed",
            Self::Discarded => "discarded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the execution is not closed yet.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Scheduled | Self::Available | Self::Running | Self::Retryable)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobState {
    type Err = Refused;
    fn from_str(text: &str) -> Result<Self, Refused> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| {
            Refused::new(
                "state",
                format!(
                    "`{}` is no state; the states are {}",
                    cut(text, limits::STEP_NAME),
                    Self::ALL.map(Self::as_str).join(", ")
                ),
            )
        })
    }
}

/// What enqueueing does while an execution of the same job id is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdConflictPolicy {
    /// Refuse.
    #[default]
    Fail,
    /// Answer with the open one; a differing input is ignored.
    UseExisting,
}

/// What enqueueing does when the last execution of the same job id is closed and still kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdReusePolicy {
    /// Open a new one.
    #[default]
    Allow,
    /// Open a new one only if the last was discarded or cancelled.
    AllowFailedOnly,
    /// Refuse.
    Reject,
}

/// The W3C trace context that a job carries from its enqueuer to the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// `00-<trace id>-<span id>-<flags>`.
    pub traceparent: String,
    /// The vendors' part, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// A context of its own, for a job that was enqueued outside any trace.
    pub fn generate() -> Self {
        let trace = Uuid::new_v4().simple();
        let (_, span) = Uuid::new_v4().as_u64_pair();
        Self { traceparent: format!("00-{trace}-{span:016x}-01"), tracestate: None }
    }

    /// The trace id, as 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.traceparent.split('-').nth(1).unwrap_or_default()
    }
}

/// A job that passed the door: checked, its options resolved, its ids chosen.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields of intake::JobRequest, resolved")]
pub struct NewJob {
    pub job_id: JobId,
    pub run_id: RunId,
    pub activity: String,
    pub activity_version: u32,
    pub tenant: String,
    pub input: Value,
    pub options: ActivityOptions,
    pub labels: BTreeMap<String, String>,
    pub priority: u8,
    pub delay: Option<Duration>,
    pub id_conflict_policy: IdConflictPolicy,
    pub id_reuse_policy: IdReusePolicy,
    pub trace: TraceContext,
}

/// How many bytes a value has as JSON. Counts without building the text.
pub fn json_len(value: &Value) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    }
}

/// One execution, as verbs and lists show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The caller's business id.
    pub job_id: JobId,
    /// The execution.
    pub run_id: RunId,
    /// The activity's name.
    pub activity: String,
    /// The version of its input.
    pub activity_version: u32,
    /// The tenant's name.
    pub tenant: String,
    /// Where it stands.
    pub state: JobState,
    /// 1 (first) to 5.
    pub priority: u8,
    /// Attempts started and counted.
    pub attempts: u32,
    /// When it was or will be due.
    #[serde(with = "timestamp")]
    pub run_at: Timestamp,
    /// When it was opened.
    #[serde(with = "timestamp")]
    pub enqueued_at: Timestamp,
    /// When its first attempt started.
    #[serde(with = "timestamp::optional")]
    pub started_at: Option<Timestamp>,
    /// When it was closed.
    #[serde(with = "timestamp::optional")]
    pub finished_at: Option<Timestamp>,
    /// The worker that holds its lease.
    pub worker: Option<String>,
    /// Whether somebody asked to cancel it.
    pub cancel_requested: bool,
    /// Since when its progress has not changed, if that is long.
    #[serde(with = "timestamp::optional")]
    pub stalled_since: Option<Timestamp>,
    /// Its pause by the host's own tools. A pause of an activity or a tenant is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<JobPause>,
}
