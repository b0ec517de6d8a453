//! The door: the one way from a request to a job that may be stored. Whatever is refused here names its field, and nothing is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use iolaus_activities::{ActivityInfo, ActivityOptions, Registry, RetryPolicy, duration};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{
    IdConflictPolicy, IdReusePolicy, JobId, NewJob, Refused, RunId, SEQUENCE, TraceContext, cut, json_len, limits, nests_within,
};

/// Tenants that a refusal names.
const NAMED: usize = 20;

/// A job as somebody asks for it, for instance one line of `iolaus enqueue --jobs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobRequest {
    /// The activity's name.
    pub activity: String,
    /// Its input, a JSON object.
    pub input: Value,
    /// The caller's id; generated when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// The tenant's name; `default` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Names and values for people and filters.
    pub labels: BTreeMap<String, String>,
    /// 1 (first) to 5; 3 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Not before this long from now.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub delay: Option<Duration>,
    /// What this job says about its options.
    pub options: OptionOverrides,
    /// While an execution of the same id is open.
    pub id_conflict_policy: IdConflictPolicy,
    /// When the last execution of the same id is closed.
    pub id_reuse_policy: IdReusePolicy,
}

/// What a job or a configuration may say about an activity's options. Absent fields leave the activity's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields of ActivityOptions, which documents them")]
pub struct OptionOverrides {
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub schedule_to_start: Option<Duration>,
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub start_to_close: Option<Duration>,
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub schedule_to_close: Option<Duration>,
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub heartbeat: Option<Duration>,
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub initial_interval: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_coefficient: Option<f64>,
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub maximum_interval: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_retryable_codes: Option<Vec<String>>,
}

impl OptionOverrides {
    /// Writes what is set here over `options`.
    pub fn apply(&self, options: &mut ActivityOptions) {
        let timeouts = &mut options.timeouts;
        timeouts.schedule_to_start = self.schedule_to_start.or(timeouts.schedule_to_start);
        timeouts.start_to_close = self.start_to_close.unwrap_or(timeouts.start_to_close);
        timeouts.schedule_to_close = self.schedule_to_close.or(timeouts.schedule_to_close);
        timeouts.heartbeat = self.heartbeat.or(timeouts.heartbeat);
        let retry: &mut RetryPolicy = &mut options.retry;
        retry.initial_interval = self.initial_interval.unwrap_or(retry.initial_interval);
        retry.backoff_coefficient = self.backoff_coefficient.unwrap_or(retry.backoff_coefficient);
        retry.maximum_interval = self.maximum_interval.unwrap_or(retry.maximum_interval);
        retry.maximum_attempts = self.maximum_attempts.unwrap_or(retry.maximum_attempts);
        if let Some(codes) = &self.non_retryable_codes {
            retry.non_retryable_codes.clone_from(codes);
        }
    }

    /// Refuses what makes no sense, naming the field.
    pub fn validate(&self) -> Result<(), Refused> {
        let positive = [
            ("start_to_close", self.start_to_close),
            ("schedule_to_close", self.schedule_to_close),
            ("schedule_to_start", self.schedule_to_start),
            ("heartbeat", self.heartbeat),
            ("initial_interval", self.initial_interval),
            ("maximum_interval", self.maximum_interval),
        ];
        if let Some((field, _)) = positive.into_iter().find(|(_, value)| *value == Some(Duration::ZERO)) {
            return Err(Refused::new(format!("options.{field}"), "must be longer than nothing"));
        }
        let codes = self.non_retryable_codes.as_deref().unwrap_or_default();
        if codes.len() > limits::CODES || codes.iter().any(|code| code.len() > limits::NAME) {
            let most = format!("may hold {} codes of {} bytes at most", limits::CODES, limits::NAME);
            return Err(Refused::new("options.non_retryable_codes", most));
        }
        match self.backoff_coefficient {
            Some(value) if !(1.0..=100.0).contains(&value) => {
                Err(Refused::new("options.backoff_coefficient", "must be between 1 and 100"))
            }
            _ => Ok(()),
        }
    }
}

/// What a job is about: checked, its options resolved.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Content {
    pub(crate) activity: &'static str,
    pub(crate) activity_version: u32,
    pub(crate) input: Value,
    pub(crate) options: ActivityOptions,
}

/// The door: turns requests into jobs, or refuses them with the field and the reason.
#[derive(Debug, Clone, Default)]
pub struct Intake {
    activities: BTreeMap<&'static str, ActivityInfo>,
    overrides: BTreeMap<String, OptionOverrides>,
    tenants: BTreeSet<String>,
}

impl Intake {
    /// A door that knows these activities, what the configuration says about them, and these tenants.
    pub fn new(registry: &Registry, overrides: BTreeMap<String, OptionOverrides>, tenants: Vec<String>) -> Self {
        let activities = registry.infos().map(|info| (info.name, info.clone())).collect();
        Self { activities, overrides, tenants: tenants.into_iter().collect() }
    }

    /// Checks a request. Options resolve here, job over configuration over activity, and are stored as they come out.
    pub fn admit(&self, mut request: JobRequest, trace: TraceContext, now: Timestamp) -> Result<NewJob, Refused> {
        if request.activity == SEQUENCE {
            return Err(Refused::new("activity", "a sequence comes as a file of steps: iolaus sequence enqueue FILE"));
        }
        let content = self.resolve(&request.activity, std::mem::take(&mut request.input), &request.options)?;
        self.enclose(request, content, trace, now)
    }

    /// Checks an input and resolves the options that it runs under.
    pub(crate) fn resolve(&self, activity: &str, input: Value, options: &OptionOverrides) -> Result<Content, Refused> {
        let info = self.activity(activity)?;
        check_size("input", json_len(&input), limits::INPUT)?;
        if !nests_within(&input, limits::DEPTH) {
            return Err(Refused::new("input", format!("is nested more than {} levels deep", limits::DEPTH)));
        }
        let prepared = info.prepare(input)?;
        check_size("input", json_len(&prepared.input), limits::INPUT)?;
        options.validate()?;
        let mut resolved = prepared.options;
        if let Some(overrides) = self.overrides.get(info.name) {
            overrides.apply(&mut resolved);
        }
        options.apply(&mut resolved);
        Ok(Content { activity: info.name, activity_version: info.version, input: prepared.input, options: resolved })
    }

    /// Checks all of a request but what it is about, and chooses its ids.
    pub(crate) fn enclose(
        &self,
        request: JobRequest,
        content: Content,
        trace: TraceContext,
        now: Timestamp,
    ) -> Result<NewJob, Refused> {
        check_size("input", json_len(&content.input), limits::INPUT)?;
        check_labels(&request.labels)?;
        let priority = request.priority.unwrap_or(3);
        if !(1..=5).contains(&priority) {
            return Err(Refused::new("priority", format!("is {priority}; it goes from 1 (first) to 5")));
        }
        Ok(NewJob {
            job_id: request.job_id.map_or_else(|| Ok(JobId::generate(now)), JobId::from_caller)?,
            run_id: RunId::generate(now),
            activity: content.activity.to_owned(),
            activity_version: content.activity_version,
            tenant: self.tenant(request.tenant)?,
            input: content.input,
            options: content.options,
            labels: request.labels,
            priority,
            delay: request.delay,
            id_conflict_policy: request.id_conflict_policy,
            id_reuse_policy: request.id_reuse_policy,
            trace,
        })
    }

    /// The activities that this door knows, in alphabetical order.
    pub fn activities(&self) -> impl Iterator<Item = &ActivityInfo> {
        self.activities.values()
    }

    pub(crate) fn activity(&self, name: &str) -> Result<&ActivityInfo, Refused> {
        self.activities.get(name).ok_or_else(|| {
            let known = self.activities.keys().copied().collect::<Vec<_>>().join(", ");
            let name = cut(name, limits::NAME);
            Refused::new("activity", format!("`{name}` is unknown; the activities are {known}"))
        })
    }

    pub(crate) fn tenant(&self, name: Option<String>) -> Result<String, Refused> {
        let name = name.unwrap_or_else(|| "default".to_owned());
        if self.tenants.contains(&name) {
            return Ok(name);
        }
        let (name, known) = (cut(&name, limits::NAME), named(&self.tenants));
        Err(Refused::new("tenant", format!("`{name}` is not configured; the tenants are {known}. Add [tenants.{name}]")))
    }
}

/// The first few names, and how many more there are.
fn named(tenants: &BTreeSet<String>) -> String {
    let first = tenants.iter().take(NAMED).map(|name| cut(name, limits::STEP_NAME)).collect::<Vec<_>>().join(", ");
    match tenants.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn check_size(field: &str, size: usize, limit: usize) -> Result<(), Refused> {
    if size > limit {
        return Err(Refused::new(field, format!("has {size} bytes as JSON; at most {limit} are allowed")));
    }
    Ok(())
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Refused> {
    if labels.len() > limits::LABELS {
        return Err(Refused::new("labels", format!("are {}; at most {} are allowed", labels.len(), limits::LABELS)));
    }
    for (name, value) in labels {
        if name.is_empty() || name.len() > limits::LABEL_NAME {
            return Err(Refused::new(format!("labels.{name}"), format!("a name has 1 to {} bytes", limits::LABEL_NAME)));
        }
        if value.len() > limits::LABEL_VALUE {
            return Err(Refused::new(
                format!("labels.{name}"),
                format!("has {} bytes; at most {} are allowed", value.len(), limits::LABEL_VALUE),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_quotes_a_bounded_part_of_what_was_sent() {
        let intake = Intake::new(&Registry::default(), BTreeMap::new(), (0..5_000).map(|n| format!("tenant-{n}")).collect());
        let huge = "x".repeat(10 << 20);
        let admit = |request| intake.admit(request, TraceContext::generate(), Timestamp::UNIX_EPOCH).unwrap_err().to_string();
        let unknown = admit(JobRequest { activity: huge.clone(), ..JobRequest::default() });
        assert!(
            unknown.starts_with("activity: `xxx") && unknown.contains("is unknown") && unknown.len() < 1024,
            "{}",
            unknown.len()
        );
        let tenant = intake.tenant(Some(huge.clone())).unwrap_err().to_string();
        assert!(tenant.contains("and 4980 more. Add [tenants.") && tenant.len() < 4096, "{tenant}");
        let label = check_labels(&BTreeMap::from([(huge.clone(), String::new())])).unwrap_err();
        assert!(label.to_string().len() < 1024, "{label}");
        for refused in [huge.parse::<crate::job::JobState>().unwrap_err(), huge.parse::<RunId>().unwrap_err()] {
            assert!(refused.to_string().len() < 1024, "{refused}");
        }
    }

    #[test]
    fn an_input_that_is_nested_too_deep_to_be_read_again_is_refused() {
        let shipped = iolaus_activities::shipped(&iolaus_activities::tenant::Tenants::none());
        let intake = Intake::new(&shipped, BTreeMap::new(), vec!["default".into()]);
        let admit = |depth: usize| {
            let deep = (0..depth).fold(Value::Null, |value, _| Value::Array(vec![value]));
            let request = JobRequest { activity: "publish_preflight".into(), input: deep, ..JobRequest::default() };
            intake.admit(request, TraceContext::generate(), Timestamp::UNIX_EPOCH).unwrap_err().to_string()
        };
        assert!(admit(limits::DEPTH + 1).contains("levels deep"), "{}", admit(limits::DEPTH + 1));
        assert!(!admit(limits::DEPTH).contains("levels deep"), "{}", admit(limits::DEPTH));
    }

    #[test]
    fn a_flood_of_non_retryable_codes_is_refused_by_name() {
        let with = |codes: Vec<String>| OptionOverrides { non_retryable_codes: Some(codes), ..OptionOverrides::default() };
        assert_eq!(with(vec!["a.b".into(); limits::CODES]).validate(), Ok(()));
        for codes in [vec!["a.b".into(); limits::CODES + 1], vec!["x".repeat(limits::NAME + 1)]] {
            assert_eq!(with(codes).validate().unwrap_err().field, "options.non_retryable_codes");
        }
    }
}
