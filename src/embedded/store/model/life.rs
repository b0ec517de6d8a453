//! The life of a job as a state machine, without a database.

use std::time::Duration;

use jiff::Timestamp;

use super::MAX_DEATHS;
use super::commands::{How, Wanted};
use super::terms::UNDO;
use crate::executor::MAX_UNDO_ATTEMPTS;
use crate::job::{JobState, limits};

/// What the model knows of one execution.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Life {
    pub(super) wanted: Wanted,
    pub(super) state: JobState,
    pub(super) attempt: u32,
    pub(super) drains: u32,
    pub(super) token: i64,
    pub(super) worker: Option<usize>,
    pub(super) run_at: Timestamp,
    pub(super) close_by: Option<Timestamp>,
    pub(super) expires: Option<Timestamp>,
    pub(super) cancel_requested: bool,
    /// Attempts that it was given only to undo.
    pub(super) undos: u32,
    /// Workers in a row that died while they ran it.
    pub(super) deaths: u32,
    pub(super) checkpoint: Option<u8>,
    pub(super) verdict: Option<&'static str>,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        self.job == other.job
    }
}

impl Life {
    pub(super) fn opened(wanted: &Wanted, now: Timestamp) -> Self {
        let run_at = now + seconds(wanted.delay);
        let mut life = Self {
            wanted: wanted.clone(),
            state: if wanted.delay > 0 { JobState::Scheduled } else { JobState::Available },
            attempt: 0,
            drains: 0,
            token: 0,
            worker: None,
            run_at,
            close_by: wanted.whole.map(|whole| run_at + seconds(whole)),
            expires: None,
            cancel_requested: false,
            undos: 0,
            deaths: 0,
            checkpoint: None,
            verdict: None,
        };
        life.waits_from(run_at);
        life
    }

    pub(super) fn waits_from(&mut self, at: Timestamp) {
        let start_by = self.wanted.start.map(|start| at + seconds(start));
        self.expires = start_by.into_iter().chain(self.close_by).min();
        self.worker = None;
    }

    pub(super) fn close(&mut self, state: JobState, verdict: &'static str) {
        (self.state, self.verdict, self.worker, self.expires) = (state, Some(verdict), None, None);
    }

    pub(super) fn loses_its_worker(&mut self, now: Timestamp) {
        let deaths = self.deaths + 1;
        if deaths >= MAX_DEATHS && !self.cancel_requested {
            self.close(JobState::Discarded, "unresolved");
        } else {
            self.ends(How::Retryable, now);
        }
        self.deaths = deaths;
    }

    pub(super) fn ends(&mut self, how: How, now: Timestamp) {
        self.deaths = 0;
        match how {
            How::Passed => self.close(JobState::Completed, "passed"),
            How::Cancelled => self.close(JobState::Cancelled, "cancelled"),
            _ if self.cancel_requested && self.undoes() => {
                self.attempt -= u32::from(how == How::Drained);
                self.goes_to_undo(now);
            }
            _ if self.cancel_requested => self.close(JobState::Cancelled, "cancelled"),
            How::TenantHeld => self.goes_back(0, now),
            How::Drained if self.drains < limits::DRAINS => self.goes_back(1, now),
            How::Final => self.close(JobState::Discarded, "unresolved"),
            How::Drained | How::Retryable => self.fails(now),
        }
    }

    /// Whether a cancel gives it one more attempt, to undo what its checkpoint names.
    pub(super) fn undoes(&self) -> bool {
        self.checkpoint == Some(UNDO) && self.undos < MAX_UNDO_ATTEMPTS
    }

    pub(super) fn goes_to_undo(&mut self, now: Timestamp) {
        (self.state, self.run_at, self.expires, self.worker) = (JobState::Available, now, self.close_by, None);
        (self.cancel_requested, self.undos) = (true, self.undos + 1);
    }

    pub(super) fn goes_back(&mut self, drains: u32, now: Timestamp) {
        (self.state, self.attempt, self.drains) = (JobState::Available, self.attempt - 1, self.drains + drains);
        self.waits_from(now);
    }

    pub(super) fn fails(&mut self, now: Timestamp) {
        let used_up = self.wanted.attempts != 0 && self.attempt >= u32::from(self.wanted.attempts);
        // 1 s, doubled by each further attempt up to a minute; a quarter less by the jitter.
        let delay = Duration::from_millis((1_000_u64 << (self.attempt - 1).min(10)).min(60_000) * 3 / 4);
        let at = now + delay;
        if used_up || self.close_by.is_some_and(|close_by| at > close_by) {
            self.close(JobState::Discarded, "unresolved");
        } else {
            (self.state, self.run_at) = (JobState::Retryable, at);
            self.waits_from(at);
        }
    }
}

pub(super) fn seconds(seconds: u8) -> Duration {
    Duration::from_secs(seconds.into())
}
