//! What an activity is: a name that is forever, an input with a schema, options, and a run. [`ActivityInfo`] is all that enqueueing
//! needs; [`ErasedActivity`] is the form that hosts hold.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::BoxFuture;
use crate::context::{ActivityContext, Interrupted, Stop};
use crate::duration;
use crate::failure::{Category, Failure, codes};
use crate::retry::RetryPolicy;
use crate::verdict::Verdict;

/// The code that does one side-effecting thing.
///
/// ```
/// use iolaus_activities::*;
///
/// /// Answers how long a name is. Repeat story: it only reads, so running it twice is harmless.
/// struct NameLength;
///
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Input { name: String }
///
/// impl Activity for NameLength {
///     const NAME: &'static str = "name_length";
///     type Input = Input;
///
///     fn validate(input: &Input) -> Result<(), InputError> {
///         InputError::unless(!input.name.is_empty(), "name", "must not be empty")
///     }
///
///     async fn run(&self, ctx: &ActivityContext, input: Input) -> Result<Verdict, ActivityError> {
///         ctx.heartbeat(&"counting");
///         Ok(Verdict::passed("counted").fact("length", input.name.len()))
///     }
/// }
///
/// let info = ActivityInfo::of::<NameLength>();
/// assert!(info.prepare(serde_json::json!({"name": "Iolaus"})).is_ok());
/// assert_eq!(info.prepare(serde_json::json!({"nam": 1})).unwrap_err().field, "nam");
/// ```
pub trait Activity: Send + Sync + 'static {
    /// The durable name. It stands in databases and in other people's programs: never changed, never used again.
    const NAME: &'static str;
    /// Stored with each job; raised when an old input would change its meaning.
    const VERSION: u32 = 1;
    /// What it takes. Unknown fields should be refused.
    type Input: Serialize + DeserializeOwned + JsonSchema + Send;

    /// The options of a job with this input, unless configuration or the job says otherwise. Needs no tenant.
    fn options(_: &Self::Input) -> ActivityOptions {
        ActivityOptions::default()
    }

    /// What the types cannot say about an input. Runs when the job is enqueued.
    fn validate(_: &Self::Input) -> Result<(), InputError> {
        Ok(())
    }

    /// What a cancel does to a job that no worker is running, given the last checkpoint. By default nothing is done or said.
    fn on_cancel(_tenant: &str, _input: &Self::Input, _checkpoint: &Value) -> CancelPlan {
        CancelPlan::default()
    }

    /// One attempt.
    fn run(&self, ctx: &ActivityContext, input: Self::Input) -> impl Future<Output = Result<Verdict, ActivityError>> + Send;
}

/// How a job that no worker is running is cancelled.
#[derive(Debug, Clone, PartialEq)]
pub enum CancelPlan {
    /// It is closed at once. The verdict says what continues at the tenant all the same.
    Close {
        /// What to tell people.
        message: Option<String>,
        /// What is known, for the verdict.
        facts: Map<String, Value>,
    },
    /// One last attempt, which starts with the cancel already requested, undoes what the checkpoint names.
    Undo,
}

impl Default for CancelPlan {
    fn default() -> Self {
        Self::Close { message: None, facts: Map::new() }
    }
}

/// Why an attempt ends without a verdict.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ActivityError {
    /// It could not ask or act.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It was cancelled and has undone what it wanted to undo.
    #[error("cancelled")]
    Cancelled {
        /// What to tell people.
        message: Option<String>,
        /// What is known all the same.
        facts: Map<String, Value>,
    },
    /// It was interrupted; no verdict is written.
    #[error("the attempt was interrupted")]
    Interrupted,
}

impl From<Interrupted> for ActivityError {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

/// The usual end of an attempt that is stopped and has nothing to undo.
impl From<Stop> for ActivityError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled { reason } => Self::Cancelled { message: reason, facts: Map::new() },
            Stop::Draining | Stop::TimedOut(_) | Stop::LeaseLost => Self::Interrupted,
        }
    }
}

/// Why an input is refused, by field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input field `{field}`: {reason}")]
pub struct InputError {
    /// The field, as a path; `.` is the input as a whole.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl InputError {
    /// Refuses a field.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// Refuses a field unless a condition holds.
    pub fn unless(holds: bool, field: &str, reason: &str) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self::new(field, reason)) }
    }

    /// The failure that an already stored input of this kind becomes.
    pub fn into_failure(self) -> Failure {
        Failure::new(codes::INPUT_UNDECODABLE, Category::InvalidInput, format!("the stored input is refused: {self}"))
    }
}

/// Which slots a job takes. Stored: the spelling is forever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SlotClass {
    /// Work that keeps a worker busy.
    #[default]
    Work,
    /// Waiting, which is cheap and takes no slot from work.
    Waits,
}

impl SlotClass {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Waits => "waits",
        }
    }
}

/// Temporal's four timeouts. All but `start_to_close` may be absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timeouts {
    /// From being due to the start of an attempt.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub schedule_to_start: Option<Duration>,
    /// One attempt.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub start_to_close: Duration,
    /// The whole execution, retries included.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub schedule_to_close: Option<Duration>,
    /// Between two signs of life of one attempt.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub heartbeat: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { schedule_to_start: None, start_to_close: Duration::from_secs(300), schedule_to_close: None, heartbeat: None }
    }
}

/// How a job runs. Resolved once, when it is enqueued, and stored with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActivityOptions {
    /// Which slots it takes.
    pub slot_class: SlotClass,
    /// How attempts are retried.
    pub retry: RetryPolicy,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// All that enqueueing needs to know of an activity.
#[derive(Debug, Clone)]
pub struct ActivityInfo {
    /// The durable name.
    pub name: &'static str,
    /// The newest version of the input that this build knows.
    pub version: u32,
    schema: fn() -> Schema,
    prepare: fn(Value) -> Result<Prepared, InputError>,
    on_cancel: fn(&str, Value, &Value) -> CancelPlan,
}

/// An input that was checked, in its canonical form, with the options it asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The input as it is stored: aliases resolved, defaults filled in.
    pub input: Value,
    /// The activity's own options for it.
    pub options: ActivityOptions,
}

impl ActivityInfo {
    /// Describes an activity.
    pub fn of<A: Activity>() -> Self {
        Self {
            name: A::NAME,
            version: A::VERSION,
            schema: || schemars::schema_for!(A::Input),
            prepare: prepare::<A>,
            on_cancel: on_cancel::<A>,
        }
    }

    /// The JSON Schema of the input.
    pub fn input_schema(&self) -> Schema {
        (self.schema)()
    }

    /// What a cancel does to a job of this tenant that no worker is running. An input that does not decode has nothing to undo.
    pub fn on_cancel(&self, tenant: &str, input: Value, checkpoint: Option<&Value>) -> CancelPlan {
        checkpoint.map_or_else(CancelPlan::default, |checkpoint| (self.on_cancel)(tenant, input, checkpoint))
    }

    /// Decodes and validates an input.
    pub fn prepare(&self, input: Value) -> Result<Prepared, InputError> {
        (self.prepare)(input)
    }
}

/// An activity with its types erased, as a host holds it.
///
/// ```
/// # use iolaus_activities::*;
/// # struct Noop;
/// # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)] struct Nothing {}
/// impl Activity for Noop {
///     const NAME: &'static str = "noop";
///     const VERSION: u32 = 2; // an input of version 1 means something else; workers that know only 1 leave these jobs alone
///     type Input = Nothing;
///     async fn run(&self, _: &ActivityContext, _: Nothing) -> Result<Verdict, ActivityError> { Ok(Verdict::passed("done")) }
/// }
/// let registry = Registry::default().with(Noop);
/// let erased: &std::sync::Arc<dyn ErasedActivity> = registry.get("noop").unwrap();
/// assert_eq!((erased.info().name, erased.info().version), ("noop", 2));
/// ```
pub trait ErasedActivity: Send + Sync + 'static {
    /// What enqueueing needs to know.
    fn info(&self) -> &ActivityInfo;
    /// Decodes a stored input and runs one attempt.
    fn run<'a>(&'a self, ctx: &'a ActivityContext, input: Value) -> BoxFuture<'a, Result<Verdict, ActivityError>>;
}

struct Erased<A> {
    activity: A,
    info: ActivityInfo,
}

impl<A: Activity> ErasedActivity for Erased<A> {
    fn info(&self) -> &ActivityInfo {
        &self.info
    }

    fn run<'a>(&'a self, ctx: &'a ActivityContext, input: Value) -> BoxFuture<'a, Result<Verdict, ActivityError>> {
        Box::pin(async move {
            let input = decode::<A>(input).map_err(InputError::into_failure)?;
            self.activity.run(ctx, input).await
        })
    }
}

/// The activities that a program knows, by name.
#[derive(Clone, Default)]
pub struct Registry {
    activities: BTreeMap<&'static str, Arc<dyn ErasedActivity>>,
}

impl Registry {
    /// Adds an activity.
    ///
    /// # Panics
    /// When the name is taken: two meanings of one durable name must stop the program before it does anything.
    #[must_use]
    pub fn with<A: Activity>(mut self, activity: A) -> Self {
        let erased = Erased { activity, info: ActivityInfo::of::<A>() };
        let previous = self.activities.insert(A::NAME, Arc::new(erased));
        assert!(previous.is_none(), "two activities are named `{}`", A::NAME);
        self
    }

    /// The activity of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn ErasedActivity>> {
        self.activities.get(name)
    }

    /// All of them, in alphabetical order.
    pub fn infos(&self) -> impl Iterator<Item = &ActivityInfo> {
        self.activities.values().map(|activity| activity.info())
    }
}

fn prepare<A: Activity>(input: Value) -> Result<Prepared, InputError> {
    let input = decode::<A>(input)?;
    let options = A::options(&input);
    let input = serde_json::to_value(&input).map_err(|error| InputError::new(".", error.to_string()))?;
    Ok(Prepared { input, options })
}

fn on_cancel<A: Activity>(tenant: &str, input: Value, checkpoint: &Value) -> CancelPlan {
    decode::<A>(input).map_or_else(|_| CancelPlan::default(), |input| A::on_cancel(tenant, &input, checkpoint))
}

fn decode<A: Activity>(input: Value) -> Result<A::Input, InputError> {
    if !input.is_object() {
        return Err(InputError::new(".", "must be a JSON object"));
    }
    let input: A::Input = serde_path_to_error::deserialize(input).map_err(|error| {
        let path = error.path().to_string();
        InputError::new(path, error.into_inner().to_string())
    })?;
    A::validate(&input)?;
    Ok(input)
}
