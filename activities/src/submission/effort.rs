//! What an attempt leaves for the next one about a run that is being obtained.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::context::ActivityContext;
use crate::tenant::{Kind, Run, Tenant};
use crate::timestamp;

/// More runs than this are not created within the tolerance of the clocks.
const MOST_BEFORE: usize = 50;

/// What is durable about obtaining a run. Stored in checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Effort {
    /// What is to be run; absent in what was stored before there were two kinds.
    #[serde(default)]
    pub(crate) kind: Kind,
    /// The workflow to run: its name, or the slug of an app.
    pub(crate) workflow: String,
    /// How many submissions were made that were not proven to be without effect.
    pub(super) submissions: u32,
    /// The first of these. Whatever run was created since may be ours.
    pub(super) first: Option<Moment>,
    /// Runs that were there just before it, by name: within the tolerance of the clocks they look like its effect, and are not.
    pub(super) before: Vec<String>,
    /// A submission whose answer is not known.
    pub(super) intent: Option<Intent>,
    /// The run, once there is one.
    pub(super) obtained: Option<Obtained>,
}

/// A moment of ours, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Moment {
    pub(super) ours: Timestamp,
    /// Whole seconds.
    pub(super) tenants: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Intent {
    pub(super) request_id: String,
    pub(super) at: Moment,
    /// When (monotonic) its answer was lost, if that was in this attempt.
    #[serde(skip)]
    pub(super) lost_at: Option<Duration>,
}

/// The run that satisfies the effort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Obtained {
    pub(crate) run: Run,
    pub(crate) origin: Origin,
}

/// How the run came about, as far as that is known. Only `started` is known to be this execution's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// The answer to a submission of this execution named it.
    Started,
    /// It was active before anything was sent.
    Running,
    /// It was created at or after the `since` of the input.
    Since,
    /// It appeared after a submission of this execution whose answer was lost.
    AnswerLost,
}

impl Effort {
    /// Nothing was sent yet.
    pub(crate) fn new(kind: Kind, workflow: &str) -> Self {
        Self { kind, workflow: workflow.to_owned(), submissions: 0, first: None, before: Vec::new(), intent: None, obtained: None }
    }

    /// The workflow is about to be created in a way that also submits it. To be saved before; the run is then found by searching.
    pub(crate) fn with_intent(mut self, ctx: &ActivityContext, tenant: &Tenant, request_id: &str) -> Self {
        let at = Moment { ours: ctx.now(), tenants: tenant.on_its_clock(ctx.now()) };
        self.submissions += 1;
        self.first.get_or_insert(at);
        self.intent = Some(Intent { request_id: request_id.to_owned(), at, lost_at: None });
        self
    }

    /// What submitting is called.
    pub(super) fn operation(&self) -> &'static str {
        match self.kind {
            Kind::Workflow => "workflows.submit",
            Kind::App => "apps.submit",
        }
    }

    /// The run, once there is one.
    pub(crate) fn obtained(&self) -> Option<&Obtained> {
        self.obtained.as_ref()
    }

    /// Remembers the runs that were created since `bound` and cannot be the effect of a submission, since there was none yet.
    pub(super) fn saw_before(&mut self, runs: &[Run], bound: Timestamp) {
        if self.first.is_none() {
            let recent = runs.iter().filter(|run| run.created_at.is_none_or(|created| created >= bound));
            self.before = recent.take(MOST_BEFORE).map(|run| run.name.clone()).collect();
        }
    }

    /// The last submission is proven to be without effect.
    pub(crate) fn not_applied(&mut self) {
        self.intent = None;
        self.submissions = self.submissions.saturating_sub(1);
        if self.submissions == 0 {
            self.first = None;
        }
    }

    /// No answer to the last submission will come any more; noted for this attempt only.
    pub(crate) fn answer_lost(&mut self, ctx: &ActivityContext) {
        if let Some(intent) = &mut self.intent {
            intent.lost_at = Some(ctx.monotonic());
        }
    }

    /// What a failure or a cancellation in the middle of it tells people.
    pub(super) fn facts(&self) -> Map<String, Value> {
        let mut facts = Map::from_iter([("workflow".to_owned(), json!(self.workflow))]);
        if let Some(first) = self.first {
            facts.insert("submissions_of_unknown_fate".into(), self.submissions.into());
            facts.insert("first_submitted_at".into(), timestamp::format(first.ours).into());
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_before_there_were_apps_is_about_a_workflow() {
        let run = json!({"name": "w-1", "workflow": "w", "phase": "Running", "created_at": "2026-01-01T00:00:00Z",
            "started_at": null, "finished_at": null, "creator": null, "message": null});
        let moment = json!({"ours": "2026-01-01T00:00:00Z", "tenants": "2026-01-01T00:00:00Z"});
        let stored = json!({"workflow": "w", "submissions": 1, "first": moment, "before": ["w-0"],
            "intent": {"request_id": "r", "at": moment}, "obtained": {"run": run, "origin": "started"}});
        let effort: Effort = serde_json::from_value(stored).expect("it decodes");
        let obtained = effort.obtained().expect("a run");
        assert_eq!((effort.kind, obtained.run.kind, obtained.run.name.as_str()), (Kind::Workflow, Kind::Workflow, "w-1"));
    }
}
