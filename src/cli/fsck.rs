//! `iolaus fsck`: checks every row of the queue's file, and sets aside what is broken.

use std::fmt::Write as _;

use clap::Args;

use super::App;
use super::exit::Exit;
use super::render::table;
use crate::embedded::{Finding, FsckReport, Severity};

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus fsck
  iolaus fsck --repair

Without --repair nothing is changed, and workers may go on. --repair stops all writing, refuses while a
worker lives, and copies the file first.

Exit codes: 0 nothing is wrong, or --repair has set it right, 1 something is wrong, 2 usage,
6 the file cannot be read, or its pages are damaged";

/// Check every row of the queue's file, and set aside what is broken
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Fsck {
    /// Set aside what is broken, after a copy of the file
    #[arg(long)]
    repair: bool,
}

impl Fsck {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        app.out.progress("checking; a file of ten million jobs takes minutes");
        let report = app.fsck(self.repair).await?;
        app.out.data(&report, || text(&report))?;
        if report.is_damaged() {
            app.out.note(&format!("hint: {}", report.damage_hint()));
            return Ok(Exit::Unusable);
        }
        Ok(if report.ok { Exit::Passed } else { Exit::Failed })
    }
}

fn text(report: &FsckReport) -> String {
    let FsckReport { place, executions, findings, unlisted, repair, .. } = report;
    let mut text = String::new();
    if !findings.is_empty() {
        writeln!(text, "{}\n", rows(findings)).ok();
    }
    if *unlisted > 0 {
        writeln!(text, "and {unlisted} more").ok();
    }
    if let Some(repair) = repair {
        writeln!(text, "repaired; the file as it was is {}", repair.copy.display()).ok();
        if !repair.remaining.is_empty() {
            writeln!(text, "left as it is:\n\n{}\n", rows(&repair.remaining)).ok();
        }
    }
    let wrong: Vec<&Finding> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    let repairable = wrong.iter().filter(|finding| finding.can_repair()).count();
    let state = if report.ok {
        "nothing is wrong"
    } else if repair.is_some() {
        "something is still wrong"
    } else if report.is_damaged() {
        "the file is damaged, and --repair changes nothing in such a file"
    } else if repairable == 0 {
        "something is wrong, and --repair does nothing about it: the messages say what does"
    } else if repairable < wrong.len() {
        "something is wrong; iolaus fsck --repair does what the last column says, after a copy, and leaves the rest as it is"
    } else {
        "something is wrong; iolaus fsck --repair does what the last column says, after a copy"
    };
    write!(text, "{place}: {executions} executions: {state}").ok();
    text
}

fn rows(findings: &[Finding]) -> String {
    let row = |finding: &Finding| {
        let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
        let row = finding.row.map(|row| row.to_string()).unwrap_or_default();
        let (job_id, run_id) = (finding.job_id.clone().unwrap_or_default(), finding.run_id.clone().unwrap_or_default());
        vec![
            severity.to_owned(),
            finding.code.to_owned(),
            finding.table.to_string(),
            row,
            job_id,
            run_id,
            finding.message.clone(),
            finding.repair.to_owned(),
        ]
    };
    let head = ["SEVERITY", "CODE", "TABLE", "ROW", "JOB", "RUN", "WHAT IS WRONG", "REPAIR"];
    table(&head, &findings.iter().map(row).collect::<Vec<_>>()).trim_end().to_owned()
}
