//! What follows an attempt: pure. Time, jitter and whether a cancel was requested are arguments.

use std::borrow::Cow;
use std::sync::Arc;

use iolaus_activities::{Category, Check, Failure, FailureRecord, Next, Status, Verdict, VerdictRecord, clip, codes, shell_word};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::{Cancel, Execution, Outcome, bounds};
use crate::job::{JobState, limits};

/// What a host must do with an execution after an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Close it.
    Close(Arc<Closing>),
    /// Let it wait for its next attempt.
    Retry {
        /// Not before this.
        at: Timestamp,
        /// Why the attempt failed.
        failure: FailureRecord,
    },
    /// Make it available at once for a last attempt, which starts cancelled and only undoes.
    Undo {
        /// Why the attempt failed. None: it did not, and its number is given back.
        failure: Option<FailureRecord>,
    },
    /// Make it available again; the attempt's number is given back.
    GiveBack {
        /// Whether a shutdown did it, which is bounded. A held tenant is not: the job's own time bounds it.
        drained: bool,
    },
    /// Write nothing.
    Nothing,
}

impl Decision {
    /// The outcome's name and error type, for traces and metrics.
    pub fn telling(&self) -> (&'static str, Option<String>) {
        match self {
            Self::Close(closing) => (closing.state.as_str(), closing.verdict.failure.as_ref().map(|failure| failure.code.clone())),
            Self::Retry { failure, .. } => ("retry_scheduled", Some(failure.code.clone())),
            Self::Undo { failure } => ("undo_scheduled", failure.as_ref().map(|failure| failure.code.clone())),
            Self::GiveBack { drained: true } => ("drained", None),
            Self::GiveBack { drained: false } => ("tenant_held", None),
            Self::Nothing => ("lost", Some("lease_lost".to_owned())),
        }
    }
}

/// The end of an execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Closing {
    /// Its last state.
    pub state: JobState,
    /// Its one verdict.
    pub verdict: VerdictRecord,
    json: String,
}

impl Closing {
    /// The end in a state, with a verdict. It must reach its reader: what makes it larger than the limit is left out, which it says.
    pub fn new(state: JobState, mut verdict: VerdictRecord) -> Self {
        bounds::fields(&mut verdict);
        let mut json = bounds::json(&verdict);
        if json.len() > limits::VERDICT {
            bounds::shrink(&mut verdict, limits::VERDICT);
            json = bounds::json(&verdict);
        }
        Self { state, verdict, json }
    }

    /// The end of an execution whose activity gave this verdict; its size in bytes if that is over the limit.
    fn whole(state: JobState, mut verdict: VerdictRecord) -> Result<Self, usize> {
        bounds::fields(&mut verdict);
        let json = bounds::json(&verdict);
        if json.len() > limits::VERDICT { Err(json.len()) } else { Ok(Self { state, verdict, json }) }
    }

    /// The verdict as JSON, as it is stored.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The verdict as JSON for a log line, where it is a string: with its quotes escaped it is within the limit as well.
    pub fn logged(&self) -> Cow<'_, str> {
        let escapes = self.json.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        if self.json.len() + escapes <= limits::VERDICT {
            return Cow::Borrowed(&self.json);
        }
        let mut verdict = self.verdict.clone();
        bounds::shrink(&mut verdict, limits::VERDICT / 2);
        Cow::Owned(bounds::json(&verdict))
    }
}

/// How an execution ends that is no single attempt's: a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Conclusion {
    /// Its last state.
    pub state: JobState,
    /// Its verdict's status.
    pub status: Status,
    /// One sentence for people.
    pub message: String,
    /// The named questions.
    pub checks: Vec<Check>,
    /// What became known.
    pub facts: Map<String, Value>,
    /// Why, if it is unresolved or cancelled.
    pub failure: Option<FailureRecord>,
}

/// Decides what follows an attempt. After a requested cancel a verdict still completes, and anything else closes as cancelled, unless a
/// last attempt has something to undo.
pub fn decide(execution: &Execution, outcome: Outcome, cancel: &Cancel, now: Timestamp, jitter: f64) -> Decision {
    let failure = match outcome {
        Outcome::LeaseLost => return Decision::Nothing,
        Outcome::Cancelled { message, facts } => return close(cancelled(execution, message, facts, now)),
        Outcome::Verdict(verdict) => match completed(execution, verdict, now) {
            Ok(closing) => return close(closing),
            Err(too_large) => too_large,
        },
        Outcome::Drained if *cancel == Cancel::NotRequested => return give_back(execution, now, jitter),
        Outcome::TenantHeld(_) if *cancel == Cancel::NotRequested => return Decision::GiveBack { drained: false },
        Outcome::Drained => return without_failure(execution, cancel, now),
        Outcome::Dropped => dropped(),
        Outcome::Failed(failure) | Outcome::TenantHeld(failure) => failure,
    };
    match cancel {
        Cancel::NotRequested => failed(execution, &failure, now, jitter),
        Cancel::Answered => close(cancelled(execution, Some(failure.message), failure.facts, now)),
        Cancel::Unanswered(unanswered) => super::unanswered(execution, Some(&failure), unanswered, now),
    }
}

/// The death of a worker that ran an execution.
#[derive(Debug, Clone, Copy)]
pub struct WorkerDeath<'a> {
    /// The worker's name.
    pub worker: &'a str,
    /// With it, so many workers in a row died while they ran the execution.
    pub in_a_row: u32,
    /// At so many the execution is closed, whatever attempts it has left: it may be what kills them.
    pub at_most: u32,
}

/// Decides about an execution whose worker died: a failed attempt, `worker.lost`.
pub fn rescued(execution: &Execution, death: &WorkerDeath<'_>, cancel: &Cancel, now: Timestamp, jitter: f64) -> Decision {
    let WorkerDeath { worker, in_a_row, at_most } = death;
    let lost = |message| Failure::new(codes::WORKER_LOST, Category::DependencyUnavailable, message);
    let failure = if in_a_row < at_most {
        lost(format!("worker {worker} stopped renewing its lease during attempt {}", execution.attempts))
    } else {
        let message =
            format!("{in_a_row} workers in a row died while they ran it, the last of them {worker}; it may be what kills them");
        let retry = shell_word(execution.job_id.as_str());
        let hint = format!(
            "find out why they died (memory limit, kernel log) before: iolaus jobs retry {retry}; worker.max_deaths is the limit"
        );
        lost(message).with_retryable(false).suggest(hint)
    };
    decide(execution, Outcome::Failed(failure), cancel, now, jitter)
}

/// An attempt ended that has no failure to tell of.
fn without_failure(execution: &Execution, cancel: &Cancel, now: Timestamp) -> Decision {
    match cancel {
        Cancel::Unanswered(unanswered) => super::unanswered(execution, None, unanswered, now),
        Cancel::NotRequested | Cancel::Answered => close(cancelled(execution, None, Map::new(), now)),
    }
}

fn give_back(execution: &Execution, now: Timestamp, jitter: f64) -> Decision {
    if execution.drains >= limits::DRAINS {
        return failed(execution, &drained(execution), now, jitter);
    }
    Decision::GiveBack { drained: true }
}

/// Closes an execution that gave no verdict of its own.
pub fn discarded(execution: &Execution, failure: &Failure, now: Timestamp) -> Closing {
    let mut verdict = record(execution, Status::Unresolved, Some(failure.message.clone()), failure.facts.clone(), now);
    verdict.failure = Some(failure.record());
    Closing::new(JobState::Discarded, verdict)
}

/// Closes an execution because somebody asked.
pub fn cancelled(execution: &Execution, message: Option<String>, facts: Map<String, Value>, now: Timestamp) -> Closing {
    let message = message.unwrap_or_else(|| "the job was cancelled".to_owned());
    let failure = Failure::new(codes::CANCELLED, Category::Cancelled, message);
    let mut verdict = record(execution, Status::Cancelled, Some(failure.message.clone()), facts, now);
    verdict.failure = Some(failure.record());
    Closing::new(JobState::Cancelled, verdict)
}

/// Closes an execution as it was concluded.
pub fn concluded(execution: &Execution, conclusion: Conclusion, now: Timestamp) -> Closing {
    let Conclusion { state, status, message, checks, facts, failure } = conclusion;
    let mut verdict = record(execution, status, Some(message), facts, now);
    verdict.checks = checks;
    verdict.failure = failure;
    Closing::new(state, verdict)
}

/// The end of an execution with its activity's verdict, or the failure that one over the limit is.
fn completed(execution: &Execution, verdict: Verdict, now: Timestamp) -> Result<Closing, Failure> {
    let (status, message, checks, facts) = verdict.into_parts();
    let mut record = record(execution, status, Some(message), facts, now);
    record.checks = checks;
    Closing::whole(JobState::Completed, record).map_err(|size| {
        let message = format!("the verdict has {size} bytes; at most {} are allowed", limits::VERDICT);
        Failure::new(codes::OUTPUT_TOO_LARGE, Category::ResourceExhausted, message).with_retryable(false)
    })
}

fn failed(execution: &Execution, failure: &Failure, now: Timestamp, jitter: f64) -> Decision {
    let next = execution.options.retry.next(execution.attempts, failure, jitter);
    if let Next::RetryAfter(delay) = next {
        let record = || bounds::failure(failure.record());
        let at = SignedDuration::try_from(delay).ok().and_then(|delay| now.checked_add(delay).ok());
        match (at, execution.close_by) {
            (Some(at), Some(close_by)) if at <= close_by => return Decision::Retry { at, failure: record() },
            (Some(at), None) => return Decision::Retry { at, failure: record() },
            // The delay passes schedule_to_close: the job closes now, with what really kept it.
            _ => {}
        }
    }
    close(discarded(execution, failure, now))
}

fn dropped() -> Failure {
    Failure::new(codes::CANCELLED, Category::Cancelled, "the attempt did not end in time after the cancel and was dropped")
}

fn drained(execution: &Execution) -> Failure {
    let message = format!("{} attempts were given back to shutdowns", execution.drains + 1);
    Failure::new(codes::WORKER_DRAINED, Category::DependencyUnavailable, message)
}

fn record(
    execution: &Execution,
    status: Status,
    message: Option<String>,
    facts: Map<String, Value>,
    now: Timestamp,
) -> VerdictRecord {
    VerdictRecord {
        job_id: execution.job_id.to_string(),
        run_id: execution.run_id.to_string(),
        activity: execution.activity.clone(),
        tenant: execution.tenant.clone(),
        status,
        message: message.map(clip),
        checks: Vec::new(),
        facts,
        failure: None,
        attempts: execution.attempts,
        enqueued_at: execution.enqueued_at,
        started_at: execution.started_at,
        finished_at: now,
        duration_ms: u64::try_from(now.duration_since(execution.enqueued_at).as_millis()).unwrap_or(0),
        trace_id: execution.trace.trace_id().to_owned(),
    }
}

fn close(closing: Closing) -> Decision {
    Decision::Close(Arc::new(closing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobId, RunId, TraceContext};
    use iolaus_activities::ActivityOptions;
    use std::time::Duration;

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    fn execution(attempts: u32) -> Execution {
        let opened: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut options = ActivityOptions::default();
        options.retry.maximum_attempts = 3;
        Execution {
            job_id: JobId::from_caller("nightly").unwrap(),
            run_id: RunId::generate(opened),
            activity: "publish_preflight".into(),
            tenant: "default".into(),
            attempts,
            drains: 0,
            options,
            enqueued_at: opened,
            started_at: Some(opened),
            close_by: None,
            trace: TraceContext::generate(),
        }
    }

    fn down(after: Option<u64>) -> Outcome {
        let failure = Failure::new("tenant.unavailable", Category::DependencyUnavailable, "the tenant is down");
        Outcome::Failed(failure.after(after.map(Duration::from_secs)))
    }

    fn death(in_a_row: u32) -> WorkerDeath<'static> {
        WorkerDeath { worker: "w", in_a_row, at_most: 5 }
    }

    #[test]
    fn the_fifth_death_in_a_row_closes_an_execution_whatever_attempts_it_has_left() {
        let mut unlimited = execution(4);
        unlimited.options.retry.maximum_attempts = 0;
        let after = |deaths| rescued(&unlimited, &death(deaths), &Cancel::NotRequested, now(), 0.5);
        assert!(matches!(after(4), Decision::Retry { failure, .. } if failure.code == "worker.lost" && failure.retryable));
        for deaths in [5, 6, u32::MAX] {
            let closed = closing(after(deaths));
            let failure = closed.verdict.failure.unwrap();
            assert_eq!((closed.state, failure.code.as_str(), failure.retryable), (JobState::Discarded, "worker.lost", false));
            assert!(failure.message.starts_with(&format!("{deaths} workers in a row died")), "{}", failure.message);
            assert!(failure.suggested_action.unwrap().contains("iolaus jobs retry nightly"));
        }
    }

    fn closing(decision: Decision) -> Closing {
        match decision {
            Decision::Close(closing) => Arc::unwrap_or_clone(closing),
            other => panic!("it should have closed: {other:?}"),
        }
    }

    #[test]
    fn a_verdict_completes_even_after_a_requested_cancel() {
        let outcome = Outcome::Verdict(Verdict::failed("user may not publish").check("UserEnabled", false));
        let closed = closing(decide(&execution(1), outcome, &Cancel::Answered, now(), 0.5));
        assert_eq!((closed.state, closed.verdict.status), (JobState::Completed, Status::Failed));
        assert_eq!(closed.verdict.duration_ms, 600_000);
        assert_eq!(closed.verdict.failure, None);
    }

    #[test]
    fn any_failure_after_a_requested_cancel_closes_as_cancelled_without_retry() {
        let closed = closing(decide(&execution(1), down(None), &Cancel::Answered, now(), 0.5));
        assert_eq!((closed.state, closed.verdict.status), (JobState::Cancelled, Status::Cancelled));
        assert_eq!(closed.verdict.failure.unwrap().code, "cancelled");
        assert_eq!(closing(rescued(&execution(1), &death(1), &Cancel::Answered, now(), 0.5)).state, JobState::Cancelled);
    }

    #[test]
    fn a_retryable_failure_waits_until_attempts_are_used_up() {
        let Decision::Retry { at, failure } = decide(&execution(1), down(None), &Cancel::NotRequested, now(), 1.0) else {
            panic!("retried")
        };
        assert_eq!(at, now() + SignedDuration::from_secs(1));
        assert_eq!(failure.code, "tenant.unavailable");
        let closed = closing(decide(&execution(3), down(None), &Cancel::NotRequested, now(), 1.0));
        assert_eq!((closed.state, closed.verdict.status), (JobState::Discarded, Status::Unresolved));
    }

    #[test]
    fn a_delay_that_passes_schedule_to_close_closes_now() {
        let bounded = Execution { close_by: Some(now() + SignedDuration::from_secs(5)), ..execution(1) };
        assert!(matches!(decide(&bounded, down(Some(5)), &Cancel::NotRequested, now(), 1.0), Decision::Retry { .. }));
        let closed = closing(decide(&bounded, down(Some(6)), &Cancel::NotRequested, now(), 1.0));
        assert_eq!(closed.verdict.failure.unwrap().code, "tenant.unavailable");
    }

    #[test]
    fn the_twenty_first_drain_is_a_failed_attempt() {
        let drains = |n| Execution { drains: n, ..execution(1) };
        assert_eq!(decide(&drains(19), Outcome::Drained, &Cancel::NotRequested, now(), 0.5), Decision::GiveBack { drained: true });
        let Decision::Retry { failure, .. } = decide(&drains(20), Outcome::Drained, &Cancel::NotRequested, now(), 0.5) else {
            panic!("it failed")
        };
        assert_eq!(failure.code, "worker.drained");
    }

    #[test]
    fn a_held_tenant_costs_no_attempt_and_no_drain_and_a_cancel_still_cancels() {
        let held = || Outcome::TenantHeld(Failure::new("tenant.unauthenticated", Category::Auth, "nobody knows us"));
        let drained_often = Execution { drains: 20, ..execution(3) };
        assert_eq!(decide(&drained_often, held(), &Cancel::NotRequested, now(), 0.5), Decision::GiveBack { drained: false });
        assert_eq!(closing(decide(&execution(1), held(), &Cancel::Answered, now(), 0.5)).state, JobState::Cancelled);
    }

    #[test]
    fn a_lost_lease_writes_nothing() {
        assert_eq!(decide(&execution(1), Outcome::LeaseLost, &Cancel::Answered, now(), 0.5), Decision::Nothing);
    }

    #[test]
    fn a_verdict_over_its_limit_is_a_failure_that_says_so() {
        let big = Verdict::passed("ok").fact("rows", "x".repeat(limits::VERDICT));
        let closed = closing(decide(&execution(1), Outcome::Verdict(big), &Cancel::NotRequested, now(), 0.5));
        assert_eq!(closed.verdict.failure.unwrap().code, "output.too_large");
    }

    /// Of everything that a verdict can say, more than is allowed.
    fn flood(execution: &Execution) -> Vec<Closing> {
        let huge = || "\u{1}\"".repeat(limits::VERDICT);
        let deep = (0..120).fold(Value::Null, |value, _| Value::Array(vec![value]));
        let mut failure = Failure::new(huge(), Category::Permission, "no").suggest(huge()).fact("deep", deep).fact("run", "r-1");
        failure.message = huge();
        failure.source.tenant_code = Some(huge());
        failure.facts.insert(huge(), huge().into());
        let conclusion = Conclusion {
            state: JobState::Completed,
            status: Status::Failed,
            message: huge(),
            checks: vec![Check { name: huge(), passed: false, message: Some(huge()) }; 1_000],
            facts: failure.facts.clone(),
            failure: Some(failure.record()),
        };
        let execution = Execution { activity: huge(), tenant: huge(), ..execution.clone() };
        vec![
            cancelled(&execution, Some(huge()), failure.facts.clone(), now()),
            discarded(&execution, &failure, now()),
            concluded(&execution, conclusion, now()),
        ]
    }

    #[test]
    fn whatever_a_verdict_holds_it_is_stored_and_logged_within_its_limit_and_decodes_again() {
        for closing in flood(&execution(1)) {
            assert!(closing.json().len() <= limits::VERDICT, "{} bytes are stored", closing.json().len());
            let logged = serde_json::to_string(&closing.logged()).unwrap();
            assert!(logged.len() <= limits::VERDICT, "{} bytes are logged", logged.len());
            let read: VerdictRecord = serde_json::from_str(closing.json()).unwrap();
            assert_eq!(read, closing.verdict);
            serde_json::from_str::<VerdictRecord>(&closing.logged()).unwrap();
            assert_eq!(read.facts["run"], "r-1", "what fits is kept");
            assert!(read.facts["facts_dropped_bytes"].as_u64() > Some(1_000_000));
            assert!(read.failure.is_some_and(|failure| failure.suggested_action.is_none()), "a command is never cut");
        }
    }

    #[test]
    fn a_verdict_that_grows_in_a_log_line_is_stored_whole_and_logged_within_its_limit() {
        let quotes = "\"".repeat(1_000);
        let facts = limits::VERDICT / 2_500;
        let verdict = (0..facts).fold(Verdict::passed("ok"), |verdict, n| verdict.fact(&format!("f{n}"), quotes.as_str()));
        let closed = closing(decide(&execution(1), Outcome::Verdict(verdict), &Cancel::NotRequested, now(), 0.5));
        assert_eq!((closed.verdict.status, closed.verdict.facts.len()), (Status::Passed, facts));
        let logged = serde_json::to_string(&closed.logged()).unwrap();
        assert!(logged.len() <= limits::VERDICT, "{} bytes are logged", logged.len());
        let read: VerdictRecord = serde_json::from_str(&closed.logged()).unwrap();
        assert!(read.facts["facts_dropped_bytes"].as_u64() > Some(0) && read.facts.len() > 1, "what fits is kept");
    }

    #[test]
    fn a_fact_that_is_nested_too_deep_is_kept_as_deep_as_it_can_be_read_within_a_sequence() {
        let deep = (0..126).fold(Value::Null, |value, _| Value::Array(vec![value]));
        let outcome = Outcome::Verdict(Verdict::failed("no").fact("failed_checks", deep));
        let closed = closing(decide(&execution(1), outcome, &Cancel::NotRequested, now(), 0.5));
        assert_eq!(closed.verdict.status, Status::Failed);
        serde_json::from_str::<VerdictRecord>(closed.json()).unwrap();
        let around = serde_json::json!({"facts": {"steps": [closed.verdict]}}).to_string();
        serde_json::from_str::<Value>(&around).unwrap();
    }

    #[test]
    fn the_failure_of_an_attempt_that_is_retried_is_bounded_in_every_field() {
        let mut failure = Failure::new("tenant.unavailable", Category::DependencyUnavailable, "down");
        failure.message = "x".repeat(limits::VERDICT);
        failure.source.request_id = Some("x".repeat(limits::VERDICT));
        let decision = decide(&execution(1), Outcome::Failed(failure), &Cancel::NotRequested, now(), 0.5);
        let Decision::Retry { failure, .. } = decision else { panic!("retried: {decision:?}") };
        assert!(serde_json::to_string(&failure).unwrap().len() < 8 * 1024);
    }
}
