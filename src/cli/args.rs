//! What `execute` and `enqueue` have in common: how a job is described.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, value_parser};
use iolaus_activities::{ActivityInfo, duration};
use serde::de::DeserializeOwned;

use super::exit::Problem;
use super::input::{self, utf8};
use crate::intake::{JobRequest, OptionOverrides};
use crate::job::{IdConflictPolicy, IdReusePolicy};

/// How a job is described.
#[derive(Debug, Clone, Args)]
pub(crate) struct JobArgs {
    /// The input, word by word. A value is read as the activity's schema says (see `iolaus schema ACTIVITY`)
    #[arg(value_name = "KEY=VALUE")]
    words: Vec<OsString>,
    /// The input as a JSON object; words add to it
    #[arg(long, value_name = "JSON", value_parser = utf8(), conflicts_with = "input_file")]
    input: Option<String>,
    /// The input as a JSON file; `-` is stdin
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    input_file: Option<PathBuf>,
    #[command(flatten)]
    envelope: EnvelopeArgs,
    #[command(flatten)]
    options: OptionArgs,
}

/// What is said of a job, or of a sequence, besides what it is about.
#[derive(Debug, Clone, Args)]
pub(crate) struct EnvelopeArgs {
    /// Your own id of the job; generated if absent
    #[arg(long, value_name = "ID", value_parser = utf8())]
    pub(crate) job_id: Option<String>,
    /// While a job of this id is open: refuse, or answer with it [default: `fail`; `use_existing` for execute]
    #[arg(long, value_name = "POLICY", value_parser = policy::<IdConflictPolicy>(&[("fail", None), ("use_existing", Some("use-existing"))]))]
    pub(crate) id_conflict_policy: Option<IdConflictPolicy>,
    /// When a job of this id is closed and still kept [default: allow]
    #[arg(long, value_name = "POLICY", value_parser = policy::<IdReusePolicy>(&[("allow", None), ("allow_failed_only", Some("allow-failed-only")), ("reject", None)]))]
    pub(crate) id_reuse_policy: Option<IdReusePolicy>,
    /// The tenant to act on [default: default]
    #[arg(long, value_name = "NAME", value_parser = utf8())]
    pub(crate) tenant: Option<String>,
    /// A name and a value for people and filters; up to 16
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<OsString>,
    /// 1 (first) to 5 [default: 3]
    #[arg(long, value_name = "N", value_parser = value_parser!(u8).range(1..=5))]
    pub(crate) priority: Option<u8>,
    /// Not before so long from now, as in 90s or 2h
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) delay: Option<Duration>,
}

/// What a job may say about its options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of the job (over configuration, over the activity's own)")]
struct OptionArgs {
    /// From being due to the start of an attempt
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    schedule_to_start: Option<Duration>,
    /// One attempt
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    start_to_close: Option<Duration>,
    /// The whole execution, retries included
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    schedule_to_close: Option<Duration>,
    /// Between two signs of life of one attempt
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    heartbeat: Option<Duration>,
    /// The delay after the first failed attempt
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    initial_interval: Option<Duration>,
    /// What each further delay is multiplied by
    #[arg(long, value_name = "FACTOR")]
    backoff_coefficient: Option<f64>,
    /// No delay is longer, unless the tenant asks for it
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    maximum_interval: Option<Duration>,
    /// How many attempts there may be; 0: unlimited
    #[arg(long, value_name = "N")]
    maximum_attempts: Option<u32>,
    /// A failure code after which there is no further attempt
    #[arg(long = "non-retryable-code", value_name = "CODE", value_parser = utf8())]
    non_retryable_codes: Option<Vec<String>>,
}

impl JobArgs {
    /// The request that these arguments make. `info` is the activity, if it is known.
    pub(crate) fn request(
        &self,
        activity: &str,
        info: Option<&ActivityInfo>,
        conflict: IdConflictPolicy,
    ) -> anyhow::Result<JobRequest> {
        let json = match (&self.input, &self.input_file) {
            (Some(text), _) => Some(input::parse(text, "--input")?),
            (None, Some(file)) => Some(input::parse_file(file)?),
            (None, None) => None,
        };
        let envelope = &self.envelope;
        Ok(JobRequest {
            activity: activity.to_owned(),
            input: input::assemble(info, json, &self.words)?,
            job_id: envelope.job_id.clone(),
            tenant: envelope.tenant.clone(),
            labels: envelope.labels()?,
            priority: envelope.priority,
            delay: envelope.delay,
            options: self.options.overrides(),
            id_conflict_policy: envelope.id_conflict_policy.unwrap_or(conflict),
            id_reuse_policy: envelope.id_reuse_policy.unwrap_or_default(),
        })
    }
}

impl EnvelopeArgs {
    /// The labels by name.
    pub(crate) fn labels(&self) -> Result<BTreeMap<String, String>, Problem> {
        let mut labels = BTreeMap::new();
        for argument in &self.labels {
            let (name, value) = input::pair(argument)?;
            if labels.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(Problem::usage(format!("labels.{name}: is given twice")));
            }
        }
        Ok(labels)
    }
}

impl OptionArgs {
    fn overrides(&self) -> OptionOverrides {
        let this = self.clone();
        OptionOverrides {
            schedule_to_start: this.schedule_to_start,
            start_to_close: this.start_to_close,
            schedule_to_close: this.schedule_to_close,
            heartbeat: this.heartbeat,
            initial_interval: this.initial_interval,
            backoff_coefficient: this.backoff_coefficient,
            maximum_interval: this.maximum_interval,
            maximum_attempts: this.maximum_attempts,
            non_retryable_codes: this.non_retryable_codes,
        }
    }
}

/// A policy under its stored name, or with hyphens.
fn policy<P>(names: &'static [(&'static str, Option<&'static str>)]) -> impl TypedValueParser<Value = P>
where
    P: DeserializeOwned + Clone + Send + Sync + 'static,
{
    let values = names.iter().map(|(name, hyphens)| PossibleValue::new(*name).aliases(*hyphens));
    PossibleValuesParser::new(values).try_map(|name| serde_json::from_value(name.replace('-', "_").into()))
}
