//! The live picture of the demo's jobs: one line each, drawn again in place. Only on a terminal.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::VerdictRecord;

use super::jobs::Sample;
use crate::cli::out::Out;
use crate::cli::render;
use crate::client::{JobClient, JobDetail, Target};

/// Between two pictures.
pub(super) const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Board {
    out: Out,
    rows: Vec<Row>,
    drawn: String,
}

struct Row {
    title: &'static str,
    target: Option<Target>,
    state: String,
}

impl Board {
    pub(super) fn new(out: Out, samples: &[Sample]) -> Self {
        let row = |sample: &Sample| Row { title: sample.title, target: None, state: String::new() };
        Self { out, rows: samples.iter().map(row).collect(), drawn: String::new() }
    }

    pub(super) fn enqueued(&mut self, n: usize, target: Target) {
        self.rows[n].target = Some(target);
    }

    pub(super) fn target(&self, n: usize) -> Target {
        self.rows[n].target.clone().expect("the job was enqueued a line above")
    }

    /// Looks at what is open and draws what changed.
    pub(super) async fn draw(&mut self, client: &Arc<dyn JobClient>, verdicts: &[Option<VerdictRecord>]) {
        if !self.out.is_watched() {
            return;
        }
        for (row, verdict) in self.rows.iter_mut().zip(verdicts) {
            row.state = match (verdict, &row.target) {
                (Some(verdict), _) => render::status(verdict.status, true),
                (None, None) => String::new(),
                (None, Some(target)) => match client.get(target.clone()).await {
                    Ok(JobDetail { verdict: Some(verdict), .. }) => render::status(verdict.status, true),
                    Ok(detail) => detail.job.state.to_string(),
                    Err(_) => continue,
                },
            };
        }
        let picture = self.picture();
        if picture != self.drawn {
            let back = if self.drawn.is_empty() { String::new() } else { format!("\u{1b}[{}A", self.rows.len()) };
            self.out.draw(&format!("{back}{picture}"));
            self.drawn = picture;
        }
    }

    fn picture(&self) -> String {
        self.rows.iter().fold(String::new(), |mut text, row| {
            // Writing to a String cannot fail.
            writeln!(text, "\u{1b}[2K{:<66} {}", row.title, row.state).ok();
            text
        })
    }
}
