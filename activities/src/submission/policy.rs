//! What a caller may say about a run that cannot be seen clearly.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to do about an active run that is older than `since`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Older {
    /// Wait until it is at its end, then submit.
    #[default]
    Wait,
    /// Give up.
    Fail,
}

/// What to do when a submission stays without an answer, and the tenant shows no run after `reconcile_window`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFate {
    /// Submit again, at most three times in all.
    #[default]
    Resend,
    /// Give up.
    Fail,
}
