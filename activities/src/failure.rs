//! Why an attempt gave no verdict: a code that is forever, a category, and what to do about it. Nothing here reads an HTTP status
//! (`tenant::classify` does) and nothing is inferred from message text.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::text::clip;

/// The kind of a failure. Stored and published: the spelling is forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are the standard ones and say it all")]
pub enum Category {
    Cancelled,
    Timeout,
    RateLimited,
    Auth,
    Permission,
    NotFound,
    AlreadyExists,
    InvalidInput,
    Precondition,
    DependencyUnavailable,
    ResourceExhausted,
    DataIntegrity,
    Internal,
    Unimplemented,
}

impl Category {
    /// Who can do something about it.
    pub fn audience(self) -> Audience {
        match self {
            Self::Auth
            | Self::Permission
            | Self::NotFound
            | Self::AlreadyExists
            | Self::InvalidInput
            | Self::Precondition
            | Self::RateLimited
            | Self::Cancelled => Audience::User,
            Self::DependencyUnavailable | Self::Timeout | Self::Unimplemented => Audience::Platform,
            Self::ResourceExhausted | Self::DataIntegrity | Self::Internal => Audience::Operator,
        }
    }

    /// Whether a later attempt may go better, unless the failure says otherwise.
    pub fn retryable(self) -> bool {
        matches!(self, Self::Timeout | Self::RateLimited | Self::DependencyUnavailable | Self::ResourceExhausted)
    }
}

/// Who can fix a failure: the one who asked, the tenant's platform team, or the operator of this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the type's doc names the three")]
pub enum Audience {
    User,
    Platform,
    Operator,
}

/// Where a failure came from, so that a support case can be opened with it. Each part may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureSource {
    /// The operation asked of the tenant, as in `workflows.submit`.
    pub operation: Option<String>,
    /// The HTTP status that came back.
    pub http_status: Option<u16>,
    /// The tenant's own error code.
    pub tenant_code: Option<String>,
    /// The `x-atlan-request-id` of the request.
    pub request_id: Option<String>,
}

/// Why an attempt gave no verdict.
///
/// ```
/// # use iolaus_activities::{Category, Failure};
/// let failure = Failure::new("workflow.not_found", Category::NotFound, "no workflow is named atlan-snowflake-1")
///     .suggest("iolaus workflows find snowflake");
/// assert!(!failure.retryable);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// A stable name such as `rerun.ambiguous`. Forever, like an activity's name.
    pub code: Cow<'static, str>,
    /// The kind of failure.
    pub category: Category,
    /// Whether the host may try again under the retry policy.
    pub retryable: bool,
    /// One lower-case sentence that names the object.
    pub message: String,
    /// A command or a hint, where one helps.
    pub suggested_action: Option<String>,
    /// Where it came from.
    pub source: FailureSource,
    /// The tenant asked not to be bothered sooner. Goes to the schedule, not into the published record.
    pub retry_after: Option<Duration>,
    /// Nothing can be asked of the tenant for now, whatever the job: a host that works for others lets the job wait, with no attempt
    /// spent, until the tenant is there again. Stays inside the program.
    pub tenant_held: bool,
    /// What is known all the same. Goes into the verdict's `facts`.
    pub facts: Map<String, Value>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// A failure that is retryable as its category says.
    pub fn new(code: impl Into<Cow<'static, str>>, category: Category, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            category,
            retryable: category.retryable(),
            message: clip(message.into()),
            suggested_action: None,
            source: FailureSource::default(),
            retry_after: None,
            tenant_held: false,
            facts: Map::new(),
        }
    }

    /// Overrides what the category says about retrying.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Adds a command or a hint.
    #[must_use]
    pub fn suggest(mut self, action: impl Into<String>) -> Self {
        self.suggested_action = Some(action.into());
        self
    }

    /// Says where it came from.
    #[must_use]
    pub fn with_source(mut self, source: FailureSource) -> Self {
        self.source = source;
        self
    }

    /// The soonest that another attempt makes sense.
    #[must_use]
    pub fn after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// Says that nothing can be asked of the tenant for now.
    #[must_use]
    pub fn holding_tenant(mut self) -> Self {
        self.tenant_held = true;
        self
    }

    /// Adds something known to the verdict's facts.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// The published form.
    pub fn record(&self) -> FailureRecord {
        FailureRecord {
            code: self.code.to_string(),
            category: self.category,
            retryable: self.retryable,
            audience: self.category.audience(),
            message: self.message.clone(),
            suggested_action: self.suggested_action.clone(),
            source: self.source.clone(),
        }
    }
}

/// A failure as consumers see it: in a verdict, and as the details of a Temporal failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureRecord {
    /// A stable name such as `rerun.ambiguous`.
    pub code: String,
    /// The kind of failure.
    pub category: Category,
    /// Whether another attempt could have helped.
    pub retryable: bool,
    /// Who can do something about it; follows from the category.
    pub audience: Audience,
    /// One sentence that names the object.
    pub message: String,
    /// A command or a hint, where one helps.
    pub suggested_action: Option<String>,
    /// Where it came from.
    pub source: FailureSource,
}

impl From<FailureRecord> for Failure {
    fn from(record: FailureRecord) -> Self {
        let FailureRecord { code, category, retryable, audience: _, message, suggested_action, source } = record;
        Self { suggested_action, source, ..Self::new(code, category, message).with_retryable(retryable) }
    }
}

/// The codes that hosts give. Activities name theirs beside the code that gives them. All are forever.
pub mod codes {
    /// The worker that held the attempt died.
    pub const WORKER_LOST: &str = "worker.lost";
    /// The attempt was given back by shutdowns too often.
    pub const WORKER_DRAINED: &str = "worker.drained";
    /// The activity's code panicked.
    pub const ACTIVITY_PANICKED: &str = "activity.panicked";
    /// No attempt started in time.
    pub const TIMEOUT_SCHEDULE_TO_START: &str = "timeout.schedule_to_start";
    /// One attempt took too long.
    pub const TIMEOUT_START_TO_CLOSE: &str = "timeout.start_to_close";
    /// The whole execution took too long.
    pub const TIMEOUT_SCHEDULE_TO_CLOSE: &str = "timeout.schedule_to_close";
    /// The attempt gave no sign of life.
    pub const TIMEOUT_HEARTBEAT: &str = "timeout.heartbeat";
    /// The input was refused.
    pub const INPUT_INVALID: &str = "input.invalid";
    /// A stored input no longer decodes.
    pub const INPUT_UNDECODABLE: &str = "input.undecodable";
    /// The queue could not be read or written.
    pub const STORE_UNAVAILABLE: &str = "store.unavailable";
    /// The job was cancelled.
    pub const CANCELLED: &str = "cancelled";
    /// A checkpoint or a verdict was larger than the limit.
    pub const OUTPUT_TOO_LARGE: &str = "output.too_large";
    /// Whether a run was started is not known. A retry by hand needs consent.
    pub const RERUN_AMBIGUOUS: &str = "rerun.ambiguous";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_record_keeps_schedule_and_facts_to_itself() {
        let failure =
            Failure::new("x.y", Category::RateLimited, "slow down").after(Some(Duration::from_secs(7))).fact("run", "r-1");
        let json = serde_json::to_value(failure.record()).expect("it serialises");
        assert_eq!(json["category"], "RATE_LIMITED");
        assert_eq!(json["audience"], "USER");
        assert_eq!(json["retryable"], true);
        assert!(json.get("retry_after").is_none() && json.get("facts").is_none());
    }

    #[test]
    fn a_record_survives_the_way_through_json() {
        let failure = Failure::new("a.b", Category::Internal, "m").suggest("do");
        let json = serde_json::to_string(&failure.record()).expect("it serialises");
        let back: FailureRecord = serde_json::from_str(&json).expect("it parses");
        assert_eq!(Failure::from(back), failure);
    }
}
