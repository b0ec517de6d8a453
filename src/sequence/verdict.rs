//! The one verdict of a sequence: a check for each step, and the steps' verdicts in `facts.steps`, within the size of a verdict.

use iolaus_activities::{Category, Check, Failure, FailureRecord, Status, VerdictRecord, codes};
use serde_json::{Map, Value, json};

use super::next::Cause;
use super::{Definition, Gate, Step};
use crate::executor::Conclusion;
use crate::job::{JobState, json_len, limits};

/// What a verdict has beside message, checks, facts and failure, at most: ids, names, times, in bytes.
const ENVELOPE: usize = 4 * 1024;

/// Puts the verdict together.
pub(super) fn conclude(definition: &Definition, ended: &[VerdictRecord], cause: Cause) -> Conclusion {
    let mut conclusion = outcome(definition, ended, cause);
    conclusion.checks = definition.steps.iter().enumerate().map(|(n, step)| check(step, ended.get(n))).collect();
    let mut steps: Vec<Value> = definition.steps.iter().zip(ended).map(|(step, verdict)| shown(step, verdict)).collect();
    let rest = json_len(&json!([conclusion.message, conclusion.checks, conclusion.failure])) + ENVELOPE;
    let dropped = shrink(&mut steps, limits::VERDICT.saturating_sub(rest));
    conclusion.facts.insert("steps".to_owned(), steps.into());
    if dropped > 0 {
        conclusion.facts.insert("steps_dropped_bytes".to_owned(), dropped.into());
    }
    conclusion
}

fn outcome(definition: &Definition, ended: &[VerdictRecord], cause: Cause) -> Conclusion {
    let (status, message, failure) = match cause {
        Cause::Cancelled(reason) => {
            let message = reason.unwrap_or_else(|| "the sequence was cancelled".to_owned());
            let failure = Failure::new(codes::CANCELLED, Category::Cancelled, message.clone()).record();
            (Status::Cancelled, message, Some(failure))
        }
        Cause::Stopped(n) => stopped(&definition.steps[n], &ended[n]),
        Cause::Done => (Status::Passed, all_ended(definition, ended), None),
        Cause::Unresolved(failure) => (Status::Unresolved, failure.message.clone(), Some(failure)),
    };
    let state = match status {
        Status::Passed | Status::Failed => JobState::Completed,
        Status::Unresolved => JobState::Discarded,
        Status::Cancelled => JobState::Cancelled,
    };
    Conclusion { state, status, message, checks: Vec::new(), facts: Map::new(), failure }
}

fn stopped(step: &Step, verdict: &VerdictRecord) -> (Status, String, Option<FailureRecord>) {
    let ended = match verdict.status {
        Status::Unresolved => "is unresolved",
        Status::Cancelled => "was cancelled",
        Status::Passed | Status::Failed => "failed",
    };
    let why = verdict.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    (verdict.status, format!("step {} {ended}{why}", step.name), verdict.failure.clone())
}

fn all_ended(definition: &Definition, ended: &[VerdictRecord]) -> String {
    let not_passed = definition.steps.iter().zip(ended).filter(|(_, verdict)| verdict.status != Status::Passed);
    let names: Vec<&str> = not_passed.map(|(step, _)| step.name.as_str()).collect();
    match (definition.steps.len(), names.as_slice()) {
        (1, []) => "its step passed".to_owned(),
        (all, []) => format!("all {all} steps passed"),
        (all, names) => format!("{} of {all} steps passed; soft and not passed: {}", all - names.len(), names.join(", ")),
    }
}

/// Whether a step passed; the reason of one that did not stands in its verdict.
fn check(step: &Step, verdict: Option<&VerdictRecord>) -> Check {
    let passed = verdict.is_some_and(|verdict| verdict.status == Status::Passed);
    let message = match verdict {
        None => Some("not started".to_owned()),
        Some(_) if passed => None,
        Some(verdict) if step.gate == Gate::Soft => Some(format!("{} (soft)", verdict.status.as_str())),
        Some(verdict) => Some(verdict.status.as_str().to_owned()),
    };
    Check { name: step.name.clone(), passed, message }
}

fn shown(step: &Step, verdict: &VerdictRecord) -> Value {
    let mut shown = json!({"name": step.name, "gate": step.gate});
    if let (Value::Object(shown), Ok(Value::Object(fields))) = (&mut shown, serde_json::to_value(verdict)) {
        shown.extend(fields);
    }
    shown
}

/// Leaves out facts, then checks, then messages and failures, the largest first, until the rest fits. Answers with the bytes left out.
/// What is left out stands in the step's own verdict.
fn shrink(steps: &mut [Value], most: usize) -> usize {
    let mut size = steps.iter().map(|step| json_len(step) + 1).sum::<usize>() + 2;
    let before = size;
    for (part, instead) in [("facts", Value::Null), ("checks", json!([])), ("failure", Value::Null), ("message", Value::Null)] {
        let mut order: Vec<(usize, usize)> = steps.iter().enumerate().map(|(n, step)| (json_len(&step[part]), n)).collect();
        order.sort_unstable_by_key(|(bytes, n)| (std::cmp::Reverse(*bytes), *n));
        for (bytes, n) in order {
            if size <= most {
                return before - size;
            }
            let instead = if part == "facts" { json!({ "facts_dropped_bytes": bytes }) } else { instead.clone() };
            let left = json_len(&instead);
            if bytes > left {
                steps[n][part] = instead;
                size = size - bytes + left;
            }
        }
    }
    before - size
}
