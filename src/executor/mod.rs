//! One attempt as named steps: decode, span, timeouts, run, classify, decide. Both hosts call it. Not here: where anything is stored,
//! and who holds the lease.

mod attempt;
mod bounds;
mod cancel;
mod decide;
mod host;
mod in_flight;
mod name;
mod signs;
mod unreached;

pub(crate) use attempt::timed_out;
pub use attempt::{Assignment, AttemptStore, ExecutorSettings, Ran, SaveError, run_attempt};
pub use cancel::{Cancel, CancelPlans, MAX_UNDO_ATTEMPTS, Unanswered, unanswered};
pub use decide::{Closing, Conclusion, Decision, WorkerDeath, cancelled, concluded, decide, discarded, rescued};
pub use in_flight::InFlight;
pub use name::{is_worker_here, of_this_worker};
pub(crate) use unreached::UnreachedWarnings;

use iolaus_activities::{ActivityOptions, Failure, Verdict};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::job::{JobId, RunId, TraceContext};

/// One execution, as far as deciding about it needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// The job.
    pub job_id: JobId,
    /// This life of it.
    pub run_id: RunId,
    /// The activity's name.
    pub activity: String,
    /// The tenant's name.
    pub tenant: String,
    /// Attempts started and counted, the running one included.
    pub attempts: u32,
    /// Attempts given back to shutdowns.
    pub drains: u32,
    /// The options it runs under.
    pub options: ActivityOptions,
    /// When it was opened.
    pub enqueued_at: Timestamp,
    /// When its first attempt started.
    pub started_at: Option<Timestamp>,
    /// When `schedule_to_close` ends it.
    pub close_by: Option<Timestamp>,
    /// The trace it belongs to.
    pub trace: TraceContext,
}

impl Execution {
    /// Says that an attempt ended and that somebody else may own the job by now.
    pub(crate) fn tell_lease_lost(&self) {
        tracing::warn!(
            job_id = %self.job_id, run_id = %self.run_id, attempt = self.attempts, "the attempt lost its lease; nothing was written"
        );
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// With the activity's verdict.
    Verdict(Verdict),
    /// With a failure.
    Failed(Failure),
    /// It was cancelled and stopped.
    Cancelled {
        /// What to tell people.
        message: Option<String>,
        /// What is known all the same.
        facts: Map<String, Value>,
    },
    /// It was asked to stop by a cancel, and was dropped or interrupted.
    Dropped,
    /// It was given back to a shutdown.
    Drained,
    /// Nothing can be asked of its tenant for now, as this failure says.
    TenantHeld(Failure),
    /// Another worker may own the job: nothing may be written.
    LeaseLost,
}
