//! What describes one sequence on the command line. What is said here wins over the file.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use iolaus_activities::duration;
use serde_json::Value;

use super::super::args::EnvelopeArgs;
use super::super::exit::Problem;
use super::super::input::{self, utf8};
use crate::intake::Intake;
use crate::job::IdConflictPolicy;
use crate::sequence::{PRESETS, SequenceRequest, preset};

/// How a sequence is described.
#[derive(Debug, Clone, Args)]
pub(crate) struct SequenceArgs {
    /// The file of the sequence, as JSON (see `iolaus schema sequence`); `-` is stdin. With --preset, the words that it takes
    #[arg(value_name = "FILE | KEY=VALUE", required = true)]
    words: Vec<OsString>,
    /// A sequence that is known by name, instead of a file: `connector_pipeline` is preflight, then, with `api_token_guid`, a grant,
    /// then a rerun
    #[arg(long, value_name = "NAME", value_parser = utf8())]
    preset: Option<String>,
    #[command(flatten)]
    envelope: EnvelopeArgs,
    /// All steps together
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    schedule_to_close: Option<Duration>,
}

impl SequenceArgs {
    /// The request that these arguments make.
    pub(crate) fn request(&self, intake: &Intake, conflict: IdConflictPolicy) -> anyhow::Result<SequenceRequest> {
        let mut request = match &self.preset {
            Some(name) => self.of_preset(name, intake)?,
            None => self.of_file()?,
        };
        let envelope = &self.envelope;
        request.job_id = envelope.job_id.clone().or(request.job_id);
        request.tenant = envelope.tenant.clone().or(request.tenant);
        request.labels.extend(envelope.labels()?);
        request.priority = envelope.priority.or(request.priority);
        request.delay = envelope.delay.or(request.delay);
        request.schedule_to_close = self.schedule_to_close.or(request.schedule_to_close);
        request.id_conflict_policy = envelope.id_conflict_policy.or(request.id_conflict_policy).or(Some(conflict));
        request.id_reuse_policy = envelope.id_reuse_policy.unwrap_or(request.id_reuse_policy);
        Ok(request)
    }

    fn of_file(&self) -> anyhow::Result<SequenceRequest> {
        match self.words.as_slice() {
            [file] => input::decode_file(Path::new(file)),
            _ => Err(Problem::usage("a sequence is one file").hint("--preset NAME takes key=value words").into()),
        }
    }

    fn of_preset(&self, name: &str, intake: &Intake) -> anyhow::Result<SequenceRequest> {
        // Words that are no texts are those of the rerun.
        let rerun = intake.activities().find(|info| info.name == "workflow_rerun");
        let Value::Object(words) = input::assemble(rerun, None, &self.words)? else {
            return Err(Problem::usage("the words make no object").into());
        };
        preset(name, words).map_err(|refused| {
            let takes = PRESETS.iter().find(|(known, _)| *known == name).map(|(known, words)| format!("{known} takes {words}"));
            let problem = Problem::usage(refused.to_string());
            takes.map_or(Problem::usage(refused.to_string()), |takes| problem.hint(takes)).into()
        })
    }
}
