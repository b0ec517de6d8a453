//! What `workflow_rerun` takes.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::activity::InputError;
use crate::duration;
use crate::inputs::{check_name, check_timeout, one_day};
use crate::submission::{Older, UnknownFate};
use crate::tenant::{Kind, package_name};
use crate::text::shell_word;
use crate::timestamp;

/// What `workflow_rerun` takes: exactly one of `workflow`, `type` and `app`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkflowRerunInput {
    /// The name of a workflow, as in `atlan-snowflake-1684500411`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The package of a workflow: `snowflake`, `atlan-snowflake` or `@atlan/snowflake`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The slug of a native app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Whether an active run, whoever started it, is taken for the run that is wanted. With `since`, that rule decides instead.
    #[serde(default = "yes")]
    pub idempotent: bool,
    /// A run created at or after this time satisfies the request unless it ended badly; an older one does not. Until it is past, nothing is
    /// submitted. RFC 3339.
    #[serde(default, with = "timestamp::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub since: Option<Timestamp>,
    /// What to do about an active run that is older than `since`.
    #[serde(default)]
    pub older: Older,
    /// What to do when several workflows are of the `type`.
    #[serde(default)]
    pub pick: Pick,
    /// When the job is done.
    #[serde(default)]
    pub until: Until,
    /// What to do when a submission stays without an answer and without a trace.
    #[serde(default)]
    pub unknown_fate: UnknownFate,
    /// How long to wait in all, from the first attempt on.
    #[serde(default = "one_day", with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Whether cancelling the job asks the tenant to stop a run that the job started.
    #[serde(default)]
    pub stop_on_cancel: bool,
}

/// What to do when several workflows are of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// Give up, and list them.
    #[default]
    Only,
    /// Take the one created last.
    Newest,
}

/// When a rerun is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// When the run is at its end.
    #[default]
    Completed,
    /// When there is a run.
    Submitted,
}

impl WorkflowRerunInput {
    pub(super) fn check(&self) -> Result<(), InputError> {
        match (&self.workflow, &self.package, &self.app) {
            (Some(workflow), None, None) => check_name("workflow", workflow)?,
            (None, Some(package), None) => check_package(package)?,
            (None, None, Some(app)) => check_name("app", app)?,
            _ => return Err(InputError::new("workflow", "exactly one of `workflow`, `type` and `app` must be given")),
        }
        check_timeout(self.timeout)
    }

    /// What it runs; this chooses the part of the tenant's API.
    pub(super) fn kind(&self) -> Kind {
        if self.app.is_some() { Kind::App } else { Kind::Workflow }
    }

    /// Whether a job with this input may wait for hours.
    pub(super) fn waits(&self) -> bool {
        self.until == Until::Completed || (self.since.is_some() && self.older == Older::Wait)
    }

    /// The words that ask for the same again, but for `since`.
    pub(super) fn words(&self) -> String {
        let serde_json::Value::Object(fields) = serde_json::to_value(self).unwrap_or_default() else { return String::new() };
        let plain: &[(&str, serde_json::Value)] = &[
            ("idempotent", true.into()),
            ("older", "wait".into()),
            ("pick", "only".into()),
            ("until", "completed".into()),
            ("unknown_fate", "resend".into()),
            ("timeout", "1d".into()),
            ("stop_on_cancel", false.into()),
        ];
        let told = fields.into_iter().filter(|(name, value)| name != "since" && !plain.contains(&(name.as_str(), value.clone())));
        let words = told.map(|(name, value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        words.fold("workflow_rerun".to_owned(), |command, word| format!("{command} {}", shell_word(&word)))
    }
}

fn check_package(package: &str) -> Result<(), InputError> {
    let full = package_name(package);
    let fine = full.strip_prefix('@').and_then(|rest| rest.split_once('/')).is_some_and(|(scope, name)| {
        let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
        plain(scope) && plain(name)
    });
    InputError::unless(
        fine && full.len() <= 200,
        "type",
        "must be a package such as snowflake, atlan-snowflake or @csa/asset-import",
    )
}

fn yes() -> bool {
    true
}
