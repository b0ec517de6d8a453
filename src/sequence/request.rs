//! A sequence as somebody asks for it, and its way through the door: whatever is refused names its field, and nothing is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use iolaus_activities::{ActivityOptions, duration};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Definition, Gate, Step, VERSION, template};
use crate::intake::{Content, Intake, JobRequest, OptionOverrides};
use crate::job::{IdConflictPolicy, IdReusePolicy, NewJob, Refused, SEQUENCE, TraceContext, limits};

/// A sequence as somebody asks for it: the FILE of `iolaus sequence`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceRequest {
    /// The steps, in order: 1 to 50.
    pub steps: Vec<StepRequest>,
    /// The caller's id, of at most 190 bytes; generated when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// The tenant of all steps that name none; `default` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Names and values for people and filters; the steps have them, too.
    pub labels: BTreeMap<String, String>,
    /// 1 (first) to 5; 3 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Not before this long from now.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub delay: Option<Duration>,
    /// How long all steps together may take. A step that runs or waits then is ended, and no further one is started.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub schedule_to_close: Option<Duration>,
    /// While an execution of the same id is open: `fail` when absent, `use_existing` for `iolaus sequence execute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_conflict_policy: Option<IdConflictPolicy>,
    /// When the last execution of the same id is closed.
    pub id_reuse_policy: IdReusePolicy,
}

/// One step, as somebody asks for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StepRequest {
    /// Its name within the sequence, for facts and for its check; the activity's name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The activity's name.
    pub activity: String,
    /// Its input, a JSON object. Instead of a field's value may stand `{"from": STEP, "fact": NAME}`: a fact of an earlier step's verdict.
    pub input: Value,
    /// Whether the sequence stops (`hard`, the default) or goes on (`soft`) if the step does not pass.
    pub gate: Gate,
    /// The tenant's name; the sequence's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What this step says about its options.
    pub options: OptionOverrides,
}

/// Checks a sequence, resolves the options of every step, and makes it a job.
pub fn admit(intake: &Intake, request: SequenceRequest, trace: TraceContext, now: Timestamp) -> Result<NewJob, Refused> {
    check_id(request.job_id.as_deref())?;
    if request.schedule_to_close == Some(Duration::ZERO) {
        return Err(Refused::new("schedule_to_close", "must be longer than nothing"));
    }
    let tenant = intake.tenant(request.tenant.clone())?;
    let definition = define(intake, request.steps, &tenant)?;
    let mut options = ActivityOptions::default();
    options.timeouts.schedule_to_close = request.schedule_to_close;
    let input = serde_json::to_value(&definition).map_err(|error| Refused::new("steps", error.to_string()))?;
    let content = Content { activity: SEQUENCE, activity_version: VERSION, input, options };
    let envelope = JobRequest {
        job_id: request.job_id,
        tenant: Some(tenant),
        labels: request.labels,
        priority: request.priority,
        delay: request.delay,
        id_conflict_policy: request.id_conflict_policy.unwrap_or_default(),
        id_reuse_policy: request.id_reuse_policy,
        ..JobRequest::default()
    };
    intake.enclose(envelope, content, trace, now).map_err(|refused| match refused.field.as_str() {
        "input" => Refused::new("steps", refused.reason),
        _ => refused,
    })
}

fn check_id(id: Option<&str>) -> Result<(), Refused> {
    match id.map_or(0, str::len) {
        bytes if bytes > limits::SEQUENCE_ID => {
            let most = limits::SEQUENCE_ID;
            Err(Refused::new("job_id", format!("has {bytes} bytes; a sequence's may have {most}, since its steps' ids are longer")))
        }
        _ => Ok(()),
    }
}

fn define(intake: &Intake, steps: Vec<StepRequest>, tenant: &str) -> Result<Definition, Refused> {
    if steps.is_empty() || steps.len() > limits::STEPS {
        return Err(Refused::new("steps", format!("are {}; there must be 1 to {}", steps.len(), limits::STEPS)));
    }
    let all: Vec<String> = steps.iter().map(name_of).collect();
    let mut defined: Vec<Step> = Vec::with_capacity(steps.len());
    let mut names = BTreeSet::new();
    for (n, step) in steps.into_iter().enumerate() {
        let at = format!("steps[{n}]");
        let name = name_of(&step);
        check_name(&name).map_err(|refused| refused.within(&at))?;
        let resolved = define_step(intake, step, tenant, &defined, &all).map_err(|refused| refused.within(&at))?;
        if !names.insert(name) {
            return Err(Refused::new(format!("{at}.name"), format!("`{}` is the name of an earlier step, too", resolved.name)));
        }
        defined.push(resolved);
    }
    Ok(Definition { steps: defined })
}

fn define_step(intake: &Intake, step: StepRequest, tenant: &str, earlier: &[Step], all: &[String]) -> Result<Step, Refused> {
    let name = name_of(&step);
    // Said before anything else, since a fact of it makes no sense then.
    intake.activity(&step.activity)?;
    let tenant = intake.tenant(Some(step.tenant.unwrap_or_else(|| tenant.to_owned())))?;
    let (literal, facts) = template::split(step.input)?;
    for (field, fact) in &facts {
        let at = format!("input.{field}");
        if fact.fact.is_empty() {
            return Err(Refused::new(format!("{at}.fact"), "must not be empty"));
        }
        if !earlier.iter().any(|step| step.name == fact.from) {
            let reason = if all.contains(&fact.from) {
                format!("step `{}` does not come before this one", fact.from)
            } else {
                format!("there is no step `{}`; the earlier ones are {}", fact.from, names_of(earlier))
            };
            return Err(Refused::new(format!("{at}.from"), reason));
        }
    }
    let (content, facts) = template::resolve(intake, &step.activity, literal, facts, &step.options)?;
    Ok(Step {
        name,
        activity: content.activity.to_owned(),
        activity_version: content.activity_version,
        tenant,
        gate: step.gate,
        input: content.input,
        facts,
        options: content.options,
    })
}

fn name_of(step: &StepRequest) -> String {
    step.name.clone().unwrap_or_else(|| step.activity.clone())
}

fn names_of(steps: &[Step]) -> String {
    if steps.is_empty() { "none".to_owned() } else { steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(", ") }
}

fn check_name(name: &str) -> Result<(), Refused> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > limits::STEP_NAME || !name.chars().all(plain) {
        let reason = format!("must be 1 to {} letters, digits, `_`, `-` or `.`", limits::STEP_NAME);
        return Err(Refused::new("name", reason));
    }
    Ok(())
}
