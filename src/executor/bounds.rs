//! Keeps every verdict and failure within the limits, whatever an activity says, so that it can be stored, logged and read again.

use iolaus_activities::{FailureRecord, MESSAGE_LIMIT, VerdictRecord, clip};
use serde_json::Value;

use crate::job::{SEQUENCE, cut_owned, flatten, limits};

/// A trace id has 32 digits; what is none is cut to this.
const TRACE_ID: usize = 64;
/// The facts of a sequence hold the verdicts of its steps, and these the facts: so much deeper they are.
const STEPS_DEPTH: usize = 8;
/// Checks that are kept of a verdict that is too large even without facts and without the messages of its checks.
const CHECKS_KEPT: usize = 25;
/// What a fact takes beside its name and value: quotes, colon, comma.
const PUNCTUATION: usize = 4;
/// A fact of this many bytes is left out before anything else is.
const LARGE: usize = 4 * 1024;
/// The fact that says how much was left out.
const DROPPED: &str = "facts_dropped_bytes";

/// Bounds each field of a verdict on its own.
pub(super) fn fields(verdict: &mut VerdictRecord) {
    for (field, most) in
        [(&mut verdict.activity, limits::NAME), (&mut verdict.tenant, limits::NAME), (&mut verdict.trace_id, TRACE_ID)]
    {
        *field = cut_owned(std::mem::take(field), most);
    }
    verdict.message = verdict.message.take().map(clip);
    for check in &mut verdict.checks {
        check.name = cut_owned(std::mem::take(&mut check.name), limits::NAME);
        check.message = check.message.take().map(clip);
    }
    let depth = limits::FACT_DEPTH + if verdict.activity == SEQUENCE { STEPS_DEPTH } else { 0 };
    verdict.facts.values_mut().for_each(|fact| flatten(fact, depth));
    verdict.failure = verdict.failure.take().map(failure);
}

/// Bounds each field of a failure.
pub(super) fn failure(mut failure: FailureRecord) -> FailureRecord {
    failure.code = cut_owned(failure.code, limits::NAME);
    failure.message = clip(failure.message);
    // A command that was cut must not be pasted.
    failure.suggested_action = failure.suggested_action.filter(|action| action.len() <= MESSAGE_LIMIT);
    let source = &mut failure.source;
    for text in [&mut source.operation, &mut source.tenant_code, &mut source.request_id] {
        *text = text.take().map(|text| cut_owned(text, limits::NAME));
    }
    failure
}

/// Leaves out what makes a verdict larger than `most` bytes of JSON, and says so in its facts: large facts, then the messages of the
/// checks, then checks, then facts.
pub(super) fn shrink(verdict: &mut VerdictRecord, most: usize) {
    drop_facts(verdict, most, LARGE);
    if json(verdict).len() > most {
        verdict.checks.iter_mut().for_each(|check| check.message = None);
    }
    if json(verdict).len() > most && verdict.checks.len() > CHECKS_KEPT {
        let dropped = verdict.checks.len() - CHECKS_KEPT;
        verdict.checks.truncate(CHECKS_KEPT);
        verdict.facts.insert("checks_dropped".to_owned(), dropped.into());
    }
    drop_facts(verdict, most, 0);
}

/// Leaves out facts of at least so many bytes, the largest first, until the verdict fits.
fn drop_facts(verdict: &mut VerdictRecord, most: usize, least: usize) {
    let mut over = json(verdict).len().saturating_sub(most);
    if over == 0 {
        return;
    }
    let size = |(name, value): (&String, &Value)| (text(&name).len() + text(value).len() + PUNCTUATION, name.clone());
    let mut sizes: Vec<(usize, String)> = verdict.facts.iter().map(size).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    // The fact that says how much was left out needs a place as well.
    over += 64;
    let mut dropped = 0;
    for (bytes, name) in sizes.into_iter().filter(|(bytes, _)| *bytes >= least) {
        if dropped >= over {
            break;
        }
        verdict.facts.remove(&name);
        dropped += bytes;
    }
    if dropped > 0 {
        let before = verdict.facts.get(DROPPED).and_then(Value::as_u64).and_then(|bytes| usize::try_from(bytes).ok());
        dropped += before.unwrap_or(0);
        verdict.facts.insert(DROPPED.to_owned(), dropped.into());
    }
}

/// A verdict as JSON.
pub(super) fn json(verdict: &VerdictRecord) -> String {
    text(verdict)
}

fn text(value: &impl serde::Serialize) -> String {
    // Plain data of our own always serialises.
    serde_json::to_string(value).unwrap_or_default()
}
