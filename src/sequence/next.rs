//! What comes next in a sequence: pure, from its definition and the verdicts of the steps that have ended.

use iolaus_activities::{Category, Failure, FailureRecord, Status, TimeoutKind, VerdictRecord, codes};
use serde_json::Value;

use super::{Definition, FACT_MISSING, Step, verdict};
use crate::executor::{self, Conclusion};
use crate::job::{json_len, limits};

/// What is known of a sequence besides the verdicts of its steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Somebody asked to cancel it.
    pub cancel_requested: bool,
    /// Why, if somebody said so.
    pub cancel_reason: Option<String>,
    /// Its `schedule_to_close` is over.
    pub out_of_time: bool,
}

/// What a host must do with a sequence of which no step is open.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Open a step.
    Start {
        /// Which one, counted from 0.
        step: usize,
        /// Its whole input.
        input: Value,
    },
    /// Close the sequence.
    Close(Box<Conclusion>),
}

/// Why a sequence ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cause {
    /// It was cancelled.
    Cancelled(Option<String>),
    /// This step did not pass, and is a hard one.
    Stopped(usize),
    /// Every step has ended.
    Done,
    /// It cannot go on.
    Unresolved(FailureRecord),
}

/// Says what comes next. `ended` are the verdicts of the steps, in order, from the first on.
pub fn next(definition: &Definition, ended: &[VerdictRecord], standing: &Standing) -> Next {
    let stopped = definition.steps.iter().zip(ended).position(|(step, verdict)| stops(step, verdict.status));
    let cause = if standing.cancel_requested {
        Cause::Cancelled(standing.cancel_reason.clone())
    } else if let Some(step) = stopped {
        Cause::Stopped(step)
    } else {
        match definition.steps.get(ended.len()) {
            None => Cause::Done,
            Some(_) if standing.out_of_time => Cause::Unresolved(executor::timed_out(TimeoutKind::ScheduleToClose).record()),
            Some(step) => match input(definition, step, ended) {
                Ok(input) => return Next::Start { step: ended.len(), input },
                Err(failure) => Cause::Unresolved(failure.record()),
            },
        }
    };
    Next::Close(Box::new(verdict::conclude(definition, ended, cause)))
}

/// The end of a sequence whose stored definition this build cannot read.
pub fn undecodable(problem: &str) -> Conclusion {
    let failure =
        Failure::new(codes::INPUT_UNDECODABLE, Category::InvalidInput, format!("the stored sequence is refused: {problem}"));
    verdict::conclude(&Definition { steps: Vec::new() }, &[], Cause::Unresolved(failure.record()))
}

fn stops(step: &Step, status: Status) -> bool {
    step.gate == super::Gate::Hard && status != Status::Passed
}

/// A step's input with the facts that it takes. A fact that is null is as good as none.
fn input(definition: &Definition, step: &Step, ended: &[VerdictRecord]) -> Result<Value, Failure> {
    let mut input = step.input.clone();
    for (field, wanted) in &step.facts {
        let from = definition.steps.iter().zip(ended).find(|(step, _)| step.name == wanted.from).map(|(_, verdict)| verdict);
        let fact = from.and_then(|verdict| verdict.facts.get(&wanted.fact)).filter(|fact| !fact.is_null());
        match (fact, from) {
            (Some(fact), _) => input[field] = fact.clone(),
            (None, from) => return Err(missing(step, field, from)),
        }
    }
    match json_len(&input) {
        bytes if bytes > limits::INPUT => {
            let most = limits::INPUT;
            let message = format!("step {}: input has {bytes} bytes as JSON; at most {most} are allowed", step.name);
            Err(Failure::new(codes::INPUT_INVALID, Category::InvalidInput, message))
        }
        _ => Ok(input),
    }
}

fn missing(step: &Step, field: &str, from: Option<&VerdictRecord>) -> Failure {
    let wanted = &step.facts[field];
    let why = from.map(|verdict| format!(", which is {}", verdict.status.as_str())).unwrap_or_default();
    let message =
        format!("step {}: input.{field} is the fact `{}` of step {}{why}, and there is none", step.name, wanted.fact, wanted.from);
    let failure = Failure::new(FACT_MISSING, Category::Precondition, message);
    match from {
        Some(verdict) => failure.suggest(format!("iolaus jobs show {}", iolaus_activities::shell_word(&verdict.job_id))),
        None => failure,
    }
}
