//! A pause of one job, made with the tools of the host that keeps it.

use serde::{Deserialize, Serialize};

/// Why an open job is not worked although nothing of ours holds it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPause {
    /// Who paused it, where the host tells.
    pub by: Option<String>,
    /// Why, if a reason was given.
    pub reason: Option<String>,
    /// The command that resumes it.
    pub resume: String,
}
