//! What a check of the file finds: a stable code, which row, what is wrong, and what a repair does about it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::row::JobRow;

/// Findings that one pass keeps. The rest is counted by its code; a repair takes as many in each pass.
pub(super) const KEPT: usize = 10_000;

/// One thing that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What kind of finding. Stable, for scripts.
    pub code: &'static str,
    /// `error`: a promise is broken. `warning`: unusual, and harmless as far as can be told.
    pub severity: Severity,
    /// The table.
    pub table: &'static str,
    /// The row's number in `jobs`, or in a table that shares it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<i64>,
    /// The job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// The execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What `--repair` does about it.
    pub repair: &'static str,
    #[serde(skip)]
    pub(super) fix: Fix,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A promise is broken.
    Error,
    /// Unusual, and harmless as far as can be told.
    Warning,
}

/// What a repair does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fix {
    Nothing,
    /// Closes an open execution as discarded.
    SetAside,
    /// Replaces what does not decode.
    MakeReadable,
    /// Gives a closed execution a verdict that says that its own was lost.
    LostVerdict,
    /// Makes state and end of an execution those of its verdict.
    CloseByVerdict,
    /// Makes the columns beside a verdict those of the verdict.
    VerdictColumns,
    /// Takes it from a worker that is not there.
    Rescue,
    /// Opens the next step of a sequence, or closes it.
    Advance,
    /// One column of one row becomes this.
    Set {
        table: &'static str,
        column: &'static str,
        value: Option<i64>,
    },
    /// The row goes; of `job_failures` the one with this lease token.
    Delete {
        table: &'static str,
        key: &'static str,
        lease_token: Option<i64>,
    },
    /// Counts everything again.
    Counts,
    /// Builds an index again.
    Reindex(&'static str),
    /// Ids go on after this one.
    NextId(i64),
}

impl Fix {
    fn describe(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing: see the message",
            Self::SetAside => "closes the job as discarded, with a verdict that says why",
            Self::MakeReadable => "replaces what does not decode",
            Self::LostVerdict => "writes an unresolved verdict that says that its own was lost",
            Self::CloseByVerdict => "makes the row what its verdict says",
            Self::VerdictColumns => "makes the columns what the verdict says",
            Self::Rescue => "counts the attempt as lost (worker.lost) and lets the job go on",
            Self::Advance => "opens the next step, or closes the sequence",
            Self::Set { .. } => "sets the column right",
            Self::Delete { .. } => "deletes the row",
            Self::Counts => "counts again",
            Self::Reindex(_) => "builds the index again",
            Self::NextId(_) => "moves the next id past those that were used",
        }
    }
}

/// Findings as they come.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    pub(super) kept: Vec<Finding>,
    pub(super) by_code: BTreeMap<&'static str, u64>,
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        *self.by_code.entry(finding.code).or_default() += 1;
        if self.kept.len() < KEPT {
            self.kept.push(finding);
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        for (code, count) in other.by_code {
            *self.by_code.entry(code).or_default() += count;
        }
        let room = KEPT.saturating_sub(self.kept.len());
        self.kept.extend(other.kept.into_iter().take(room));
    }
}

impl Finding {
    /// About a table.
    pub(super) fn new(code: &'static str, table: &'static str, message: impl Into<String>, fix: Fix) -> Self {
        Self {
            code,
            severity: Severity::Error,
            table,
            row: None,
            job_id: None,
            run_id: None,
            message: message.into(),
            repair: fix.describe(),
            fix,
        }
    }

    /// Of this execution.
    pub(super) fn of(mut self, job: &JobRow) -> Self {
        self.row = Some(job.id);
        self.job_id = Some(job.job_id.clone());
        self.run_id = Some(job.run_id.clone());
        self
    }

    pub(super) fn at(mut self, row: i64) -> Self {
        self.row = Some(row);
        self
    }

    pub(super) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Whether a repair does something about it.
    pub(super) fn can_repair(&self) -> bool {
        self.fix != Fix::Nothing
    }
}
