//! What a sequence is: up to 50 steps over the registered activities, one after the other, and the pure function that says what comes
//! next. Every host calls it. Not here: where a sequence is stored, and who runs its steps.

mod next;
mod preset;
mod request;
mod template;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use iolaus_activities::ActivityOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use next::{Next, Standing, next, undecodable};
pub use preset::{PRESETS, preset};
pub use request::{SequenceRequest, StepRequest, admit};

/// The version of [`Definition`] that this build writes and reads.
pub const VERSION: u32 = 1;
/// The code of a sequence whose step takes a fact that an earlier step did not give. Forever.
pub const FACT_MISSING: &str = "sequence.fact_missing";

/// A sequence as it is stored, as the input of its job: checked, and its options resolved, so that starting a step is a matter of data
/// and any process can do it, whatever activities it knows. Stored: fields are forever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The steps, in order. Step n, counted from 1, is the job `<job id>/<n>`.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its name within the sequence.
    pub name: String,
    /// The activity's name.
    pub activity: String,
    /// The version of its input.
    pub activity_version: u32,
    /// The tenant's name.
    pub tenant: String,
    /// What happens if it does not pass.
    pub gate: Gate,
    /// Its input, without the fields that are facts of earlier steps.
    pub input: Value,
    /// The fields that are facts of earlier steps.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, FactOf>,
    /// The options it runs under.
    pub options: ActivityOptions,
}

/// A fact of an earlier step, which stands in an input instead of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FactOf {
    /// The name of the step.
    pub from: String,
    /// The name of the fact in its verdict.
    pub fact: String,
}

/// What happens to a sequence if a step does not pass. Stored: the spelling is forever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// It stops, and ends as the step did.
    #[default]
    Hard,
    /// It goes on; the step's verdict is recorded.
    Soft,
}

impl Gate {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}
