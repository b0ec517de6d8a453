//! What a cancel does to an execution whose activity gives no answer to it, because no attempt runs, or because the attempt ended
//! without one: it is closed at once, or a last attempt undoes what the checkpoint names.

use std::collections::BTreeMap;
use std::sync::Arc;

use iolaus_activities::{ActivityInfo, CancelPlan, Failure, Registry};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::decide::cancelled;
use super::{Decision, Execution, bounds};

/// Last attempts that one execution gets to undo what it did.
pub const MAX_UNDO_ATTEMPTS: u32 = 3;

/// What the activities that a program knows say about cancelling their jobs.
#[derive(Debug, Clone, Default)]
pub struct CancelPlans(Arc<BTreeMap<&'static str, ActivityInfo>>);

impl CancelPlans {
    /// Of these activities.
    pub fn of(registry: &Registry) -> Self {
        Self(Arc::new(registry.infos().map(|info| (info.name, info.clone())).collect()))
    }

    /// How a job without a running attempt is cancelled. What an unknown activity has begun cannot be told.
    pub fn plan(&self, tenant: &str, activity: &str, input: Value, checkpoint: Option<&Value>) -> CancelPlan {
        match (self.0.get(activity), checkpoint) {
            (Some(info), checkpoint) => info.on_cancel(tenant, input, checkpoint),
            (None, None) => CancelPlan::default(),
            (None, Some(_)) => CancelPlan::Close {
                message: Some(format!("this program does not know the activity {activity}; see the fact last_checkpoint")),
                facts: last_checkpoint(checkpoint),
            },
        }
    }
}

/// A requested cancel, when an attempt has ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancel {
    /// None was requested.
    NotRequested,
    /// The activity knew of it, and its result is its answer.
    Answered,
    /// The activity did not know of it, or its attempt was dropped.
    Unanswered(Unanswered),
}

/// A requested cancel to which the activity gave no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Unanswered {
    /// Why, as the caller said.
    pub reason: Option<String>,
    /// What the activity says about it.
    pub plan: CancelPlan,
    /// Whether there may be one more attempt.
    pub may_undo: bool,
    /// The last checkpoint that was saved.
    pub checkpoint: Option<Value>,
}

impl Unanswered {
    /// The message and the facts of an execution that is closed as cancelled, given why its last attempt failed and what that told.
    pub fn said(&self, why: Option<String>, mut facts: Map<String, Value>) -> (Option<String>, Map<String, Value>) {
        let (more, known) = match &self.plan {
            CancelPlan::Undo => {
                let more = "what the job had begun was not undone; see the fact last_checkpoint".to_owned();
                (Some(more), last_checkpoint(self.checkpoint.as_ref()))
            }
            CancelPlan::Close { message, facts } => (message.clone(), facts.clone()),
        };
        facts.extend(known);
        let mut parts: Vec<String> = self.reason.clone().into_iter().chain(why).chain(more).collect();
        // A server that is asked for the reason may tell it as the failure, too.
        parts.dedup();
        ((!parts.is_empty()).then(|| parts.join("; ")), facts)
    }
}

/// What follows for an execution that failed in this way, or that no worker runs.
pub fn unanswered(execution: &Execution, failure: Option<&Failure>, cancel: &Unanswered, now: Timestamp) -> Decision {
    if cancel.plan == CancelPlan::Undo && cancel.may_undo {
        return Decision::Undo { failure: failure.map(|failure| bounds::failure(failure.record())) };
    }
    let facts = failure.map(|failure| failure.facts.clone()).unwrap_or_default();
    let (message, facts) = cancel.said(failure.map(|failure| failure.message.clone()), facts);
    Decision::Close(Arc::new(cancelled(execution, message, facts, now)))
}

fn last_checkpoint(checkpoint: Option<&Value>) -> Map<String, Value> {
    checkpoint.map(|checkpoint| ("last_checkpoint".to_owned(), checkpoint.clone())).into_iter().collect()
}
