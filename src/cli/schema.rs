//! `iolaus schema`: JSON Schemas of what goes in and what comes out, and the reference of the configuration.

use clap::Args;
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{VerdictRecord, shipped};
use schemars::schema_for;
use serde_json::{Map, Value, json};

use super::App;
use super::exit::{Exit, Problem};
use super::input::utf8;
use super::out::Out;
use crate::config::DEFAULTS;
use crate::intake::JobRequest;
use crate::job::SEQUENCE;
use crate::sequence::SequenceRequest;

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus schema
  iolaus schema verdict
  iolaus schema publish_preflight
  iolaus schema job_request
  iolaus schema sequence
  iolaus schema config > config.toml";

/// What is no schema: the reference of all keys.
const CONFIG: &str = "config";

/// Print JSON Schemas of what goes in and what comes out, or the reference of the configuration
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Schema {
    /// One of them: `verdict`, `job_request`, `sequence`, or an activity; all of them if absent. `config` is no schema, but every key of the
    /// configuration with its default, as TOML
    #[arg(value_name = "NAME", value_parser = utf8())]
    name: Option<String>,
}

impl Schema {
    pub(super) fn run(self, app: &App) -> anyhow::Result<Exit> {
        print(app.out, self.name.as_deref())
    }
}

fn print(out: Out, name: Option<&str>) -> anyhow::Result<Exit> {
    if name == Some(CONFIG) {
        // TOML wherever it goes, so that it can be the start of a file.
        return if out.is_json_asked_for() { out.json(&json!({ CONFIG: DEFAULTS })) } else { out.line(DEFAULTS.trim_end()) }
            .map(|()| Exit::Passed)
            .map_err(Into::into);
    }
    let registry = shipped(&Tenants::none());
    let activities: Map<String, Value> =
        registry.infos().map(|info| (info.name.to_owned(), info.input_schema().to_value())).collect();
    let (verdict, job_request) = (schema_for!(VerdictRecord).to_value(), schema_for!(JobRequest).to_value());
    let sequence = schema_for!(SequenceRequest).to_value();
    let schema = match name {
        None => json!({"verdict": verdict, "job_request": job_request, SEQUENCE: sequence, "activities": activities}),
        Some("verdict") => verdict,
        Some("job_request") => job_request,
        Some(SEQUENCE) => sequence,
        Some(name) => activities.get(name).cloned().ok_or_else(|| {
            let known = activities.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            Problem::usage(format!("there is no schema of `{name}`"))
                .hint(format!("there are verdict, job_request, {SEQUENCE}, {CONFIG}, {known}"))
        })?,
    };
    let pretty = || serde_json::to_string_pretty(&schema).unwrap_or_default();
    out.data(&schema, pretty)?;
    Ok(Exit::Passed)
}
