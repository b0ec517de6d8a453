//! What a check of the file finds: a stable code, which row, what is wrong, and what a repair does about it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use iolaus_activities::clip;
use serde::Serialize;

use super::row::JobRow;
use crate::embedded::store::rows::Text;

/// Findings of one code that are kept. The rest is counted; a repair takes as many in each pass.
const KEPT: usize = 5_000;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of finding. Stable, for scripts.
    pub code: &'static str,
    /// `error`: a promise is broken. `warning`: unusual, and harmless as far as can be told.
    pub severity: Severity,
    /// The table.
    pub table: Cow<'static, str>,
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
    /// Builds every index of this table again: SQLite's check stops before it has named all that are wrong.
    Reindex(String),
    /// Runs these statements, which make an index or a trigger what the schema of this build says.
    Schema(String),
    /// The row of `pauses` or `start_rates` with this key goes.
    DeleteNamed {
        table: &'static str,
        kind: Text,
        name: Text,
    },
    /// What a worker shows of this tenant goes.
    DeleteHold {
        worker: i64,
        tenant: Text,
    },
    /// A pause stays, as of now and without a reason.
    Pause {
        kind: Text,
        name: Text,
    },
    /// Ids of this table go on after this one.
    NextId {
        table: &'static str,
        after: i64,
    },
    /// An execution gets this id.
    Renumber(i64),
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
            Self::Delete { .. } | Self::DeleteNamed { .. } | Self::DeleteHold { .. } => "deletes the row",
            Self::Pause { .. } => "keeps the pause, as of now and without a reason",
            Self::Counts => "counts again",
            Self::Reindex(_) => "builds the indexes of the table again",
            Self::Schema(_) => "makes the schema what this version defines",
            Self::NextId { .. } => "lets ids go on after those that are there",
            Self::Renumber(_) => "gives the execution an id after the others",
        }
    }
}

/// Findings as they come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    of_code: BTreeMap<&'static str, OfCode>,
}

/// Findings of one code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfCode {
    kept: Vec<Finding>,
    count: u64,
    errors: u64,
}

impl Findings {
    pub(super) fn add(&mut self, mut finding: Finding) {
        // What is damaged may be of any length, and is shown.
        finding.message = clip(std::mem::take(&mut finding.message));
        for id in [&mut finding.job_id, &mut finding.run_id] {
            *id = id.take().map(clip);
        }
        let of = self.of_code.entry(finding.code).or_default();
        of.count += 1;
        of.errors += u64::from(finding.severity == Severity::Error);
        if of.kept.len() < KEPT {
            of.kept.push(finding);
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        for (code, more) in other.of_code {
            let of = self.of_code.entry(code).or_default();
            of.count += more.count;
            of.errors += more.errors;
            let room = KEPT.saturating_sub(of.kept.len());
            of.kept.extend(more.kept.into_iter().take(room));
        }
    }

    /// How many there are of each code.
    pub(super) fn by_code(&self) -> BTreeMap<&'static str, u64> {
        self.of_code.iter().map(|(code, of)| (*code, of.count)).collect()
    }

    /// Whether there is nothing but warnings.
    pub(super) fn is_clean(&self) -> bool {
        self.of_code.values().all(|of| of.errors == 0)
    }

    pub(super) fn has(&self, code: &str) -> bool {
        self.of_code.contains_key(code)
    }

    /// Those that are kept, in the order of their rows.
    pub(super) fn kept(&self) -> Vec<Finding> {
        let mut kept: Vec<Finding> = self.of_code.values().flat_map(|of| of.kept.iter().cloned()).collect();
        kept.sort_by_key(|finding| (finding.row, finding.code));
        kept
    }
}

impl Finding {
    /// About a table.
    pub(super) fn new(code: &'static str, table: impl Into<Cow<'static, str>>, message: impl Into<String>, fix: Fix) -> Self {
        Self {
            code,
            severity: Severity::Error,
            table: table.into(),
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
    pub fn can_repair(&self) -> bool {
        self.fix != Fix::Nothing
    }
}
