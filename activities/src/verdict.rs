//! The structured conclusion of an execution. An activity says [`Verdict`]; the host adds the rest and publishes [`VerdictRecord`].

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::FailureRecord;
use crate::text::{clip, clip_to};
use crate::timestamp;

/// The longest name of a check, in bytes.
const CHECK_NAME: usize = 256;

/// One named question inside a verdict, passed or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// The name, as in `UserEnabled`.
    pub name: String,
    /// The answer.
    pub passed: bool,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What an activity concludes: the tenant said yes, or the tenant said no. Whatever kept it from asking is a
/// [`Failure`](crate::Failure) instead.
///
/// ```
/// # use iolaus_activities::Verdict;
/// let verdict = Verdict::failed("user 8c1e may not publish").check("UserEnabled", true).check("AtlanPublishPermission", false);
/// assert!(!verdict.is_passed());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    passed: bool,
    pub(crate) message: String,
    pub(crate) checks: Vec<Check>,
    pub(crate) facts: Map<String, Value>,
}

impl Verdict {
    /// The tenant's yes.
    pub fn passed(message: impl Into<String>) -> Self {
        Self { passed: true, message: clip(message.into()), checks: Vec::new(), facts: Map::new() }
    }

    /// The tenant's own no.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { passed: false, ..Self::passed(message) }
    }

    /// Adds a check.
    #[must_use]
    pub fn check(mut self, name: impl Into<String>, passed: bool) -> Self {
        self.checks.push(Check { name: clip_to(name.into(), CHECK_NAME), passed, message: None });
        self
    }

    /// Adds a check with its reason.
    #[must_use]
    pub fn check_because(mut self, name: impl Into<String>, passed: bool, message: impl Into<String>) -> Self {
        self.checks.push(Check { name: clip_to(name.into(), CHECK_NAME), passed, message: Some(clip(message.into())) });
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Whether the tenant said yes.
    pub fn is_passed(&self) -> bool {
        self.passed
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The checks.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The facts.
    pub fn facts(&self) -> &Map<String, Value> {
        &self.facts
    }

    /// Taken apart, for the host that publishes it: status, message, checks, facts.
    pub fn into_parts(self) -> (Status, String, Vec<Check>, Map<String, Value>) {
        (if self.passed { Status::Passed } else { Status::Failed }, self.message, self.checks, self.facts)
    }
}

/// How an execution ended, as its consumers see it. Stored and published: the spelling is forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The tenant said yes, or did what was asked.
    Passed,
    /// The tenant's own no.
    Failed,
    /// It could not be asked or done; see `failure`.
    Unresolved,
    /// It was cancelled.
    Cancelled,
}

impl Status {
    /// As published.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unresolved => "unresolved",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The one verdict of a closed execution, as consumers see it. Fields are forever; times are RFC 3339 UTC with milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerdictRecord {
    /// The caller's business id, or a generated UUIDv7.
    pub job_id: String,
    /// The id of this execution.
    pub run_id: String,
    /// The activity's name.
    pub activity: String,
    /// The tenant's name.
    pub tenant: String,
    /// How it ended.
    pub status: Status,
    /// One sentence for people.
    pub message: Option<String>,
    /// The named questions that were answered.
    pub checks: Vec<Check>,
    /// What became known, by name.
    pub facts: Map<String, Value>,
    /// Set when the status is `unresolved` or `cancelled`.
    pub failure: Option<FailureRecord>,
    /// How many attempts were started and counted; 0 when none ever was.
    pub attempts: u32,
    /// When the execution was opened.
    #[serde(with = "timestamp")]
    #[schemars(with = "String")]
    pub enqueued_at: Timestamp,
    /// When its first attempt started.
    #[serde(with = "timestamp::optional")]
    #[schemars(with = "Option<String>")]
    pub started_at: Option<Timestamp>,
    /// When it was closed.
    #[serde(with = "timestamp")]
    #[schemars(with = "String")]
    pub finished_at: Timestamp,
    /// Milliseconds from `enqueued_at` to `finished_at`.
    pub duration_ms: u64,
    /// The W3C trace id of the trace that enqueueing started or joined.
    pub trace_id: String,
}
