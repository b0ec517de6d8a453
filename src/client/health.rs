//! What a quick look at a host's storage found.

use std::time::Duration;

use jiff::SignedDuration;

/// How the storage of a host is. A host that keeps nothing itself has nothing to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Executions that were looked at.
    pub sampled: usize,
    /// Those that break a promise.
    pub broken: Vec<BrokenRow>,
    /// The write-ahead log, where there is one.
    pub log: Option<LogSize>,
    /// How far the machine's wall clock is ahead of the queue's time; negative when it is behind.
    pub wall_clock_ahead: SignedDuration,
    /// How long the workers keep closed executions, where they have recorded it.
    pub retention: Option<Duration>,
}

/// An execution that breaks a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenRow {
    /// The code of `iolaus fsck`.
    pub code: &'static str,
    /// The job, as far as it can be read.
    pub job_id: String,
    /// The execution, as far as it can be read.
    pub run_id: String,
    /// What is wrong.
    pub message: String,
}

/// How large the write-ahead log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSize {
    /// Bytes.
    pub bytes: u64,
    /// Bytes that are no cause for a warning.
    pub limit: u64,
    /// Processes that read an old state of the file, and so keep the log from being shortened, where that can be told.
    pub readers: Vec<String>,
}
