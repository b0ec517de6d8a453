//! What an attempt leaves for the next one about a run that is being obtained.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::context::ActivityContext;
use crate::failure::{Failure, FailureSource};
use crate::tenant::{Identity, Kind, Run, RunsShown, Tenant};
use crate::timestamp;
use crate::user::User;

const SECOND: Duration = Duration::from_secs(1);
/// What lies between the ends of a moment on a clock that is off by a second at most, in either direction.
const CERTAIN_BETWEEN: SignedDuration = SignedDuration::from_secs(2);
/// A run that seems to have been created earlier than this before a submission is no evidence for its effect, whichever clocks are
/// compared.
const MAX_CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_hours(2);
/// So many names of runs that were there before are kept, the newest. Older runs are told apart by the time of their creation.
const MAX_RUNS_BEFORE: usize = 50;

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
    /// The newest of all that were sent, ours. None in what earlier versions stored.
    #[serde(default)]
    pub(super) newest: Option<Moment>,
    /// The runs that a search showed before it, by name. None of them is its effect.
    pub(super) before: Vec<String>,
    /// Runs that were created at or before this time (the tenant's) were there before it as well. None: `before` names all of them.
    #[serde(default)]
    pub(super) before_until: Option<Timestamp>,
    /// Whether `before` and `before_until` are complete. They were not in what earlier versions stored.
    #[serde(default)]
    pub(super) knows_before: bool,
    /// Who we were to the tenant when it was sent, as far as the tenant says.
    #[serde(default)]
    pub(crate) user: Option<User>,
    /// A submission whose answer is not known.
    pub(super) intent: Option<Intent>,
    /// The run, once there is one.
    pub(super) obtained: Option<Obtained>,
    /// What was answered to a submission instead of a run that can be ours, in words. Then nothing is sent again.
    #[serde(default)]
    pub(super) disputed: Option<String>,
    /// What was answered to the newest submission of unknown fate, in words, if that was a status of a refusal.
    #[serde(default)]
    pub(super) refused_by: Option<String>,
    /// What the newest submission was answered, if that was that a run is active.
    #[serde(default)]
    pub(super) already_active: Option<Refusal>,
    /// When this attempt last searched without finding a run that satisfies the effort.
    #[serde(skip)]
    pub(super) searched_at: Option<Timestamp>,
    /// Applied effects of other jobs that were saved up to this moment were found not to satisfy the effort.
    #[serde(skip)]
    pub(super) considered_until: Option<Timestamp>,
    /// Runs that looked like the effect of this effort and turned out to be another job's.
    #[serde(skip)]
    pub(super) of_others: BTreeSet<String>,
}

/// A moment of ours, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Moment {
    pub(super) ours: Timestamp,
    /// The first whole second that the tenant's clock can have shown.
    pub(super) tenants: Timestamp,
    /// The last one. None if nothing is known of that clock, and in what earlier versions stored.
    #[serde(default)]
    pub(super) tenants_latest: Option<Timestamp>,
}

impl Moment {
    fn new(tenant: &Tenant, ours: Timestamp) -> Self {
        let (tenants, latest) = tenant.between_on_its_clock(ours);
        Self { ours, tenants, tenants_latest: tenant.clock_ahead().map(|_| latest) }
    }

    /// Whether the tenant's clock was known to the second then.
    pub(super) fn is_certain(&self) -> bool {
        self.tenants_latest.is_some_and(|latest| latest.duration_since(self.tenants) <= CERTAIN_BETWEEN)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Intent {
    pub(super) request_id: String,
    pub(super) at: Moment,
    /// When (monotonic) its answer was lost, if that was in this attempt.
    #[serde(skip)]
    pub(super) lost_at: Option<Duration>,
}

/// A submission was refused because a run is active.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Refusal {
    /// When it arrived. None in what earlier versions stored.
    #[serde(default)]
    pub(super) at: Option<Moment>,
    /// The tenant's words.
    pub(super) message: String,
    pub(super) source: FailureSource,
}

/// The run that satisfies the effort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Obtained {
    pub(crate) run: Run,
    pub(crate) origin: Origin,
    /// Why a run that no answer to this execution named satisfies it, as the verdict says it.
    #[serde(default)]
    pub(crate) because: Option<String>,
}

impl Obtained {
    /// A run that an answer to a submission of this execution named.
    pub(super) fn started(run: Run) -> Self {
        Self { run, origin: Origin::Started, because: None }
    }
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
    /// Another job of the queue submitted it.
    OtherJob,
}

impl Effort {
    /// Nothing was sent yet.
    pub(crate) fn new(kind: Kind, workflow: &str) -> Self {
        Self {
            kind,
            workflow: workflow.to_owned(),
            submissions: 0,
            first: None,
            newest: None,
            before: Vec::new(),
            before_until: None,
            knows_before: false,
            user: None,
            intent: None,
            obtained: None,
            disputed: None,
            refused_by: None,
            already_active: None,
            searched_at: None,
            considered_until: None,
            of_others: BTreeSet::new(),
        }
    }

    /// What the effect is about, as other jobs of the queue know it.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.kind.noun(), self.workflow)
    }

    /// The workflow is about to be submitted, perhaps together with its creation. To be saved before; a run whose name no answer tells
    /// is then found by searching.
    pub(super) fn with_intent(mut self, ctx: &ActivityContext, tenant: &Tenant, who: Option<&Identity>, request_id: &str) -> Self {
        let at = Moment::new(tenant, ctx.now());
        self.user = who.map(|who| User { id: who.user_id.clone(), name: who.username.clone() }).or(self.user);
        self.submissions += 1;
        self.first.get_or_insert(at);
        self.newest = Some(at);
        self.intent = Some(Intent { request_id: request_id.to_owned(), at, lost_at: None });
        (self.refused_by, self.already_active) = (None, None);
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

    /// Remembers the runs that a search showed, the newest first, since they cannot be the effect of a submission: there was none yet.
    /// `earliest` is a time of the tenant's before this moment: where the search shows no times, what was created until then was there.
    pub(super) fn saw_before(&mut self, shown: &RunsShown, earliest: Timestamp) {
        if self.first.is_some() {
            return;
        }
        let named = &shown.runs[..shown.runs.len().min(MAX_RUNS_BEFORE)];
        self.before = named.iter().map(|run| run.name.clone()).collect();
        let all_named = shown.complete && named.len() == shown.runs.len();
        let oldest = named.iter().filter_map(|run| run.created_at).min();
        self.before_until = (!all_named).then(|| oldest.unwrap_or(earliest));
        self.knows_before = true;
    }

    /// Whether a run was there before the first submission. Where the names of the runs before it are known they decide, and no clock does.
    /// Where they are not all known, one that seems to be older than any two clocks differ is not believed to be new.
    pub(super) fn was_there_before(&self, run: &Run, tolerance: Duration) -> bool {
        if self.before.contains(&run.name) {
            return true;
        }
        if self.knows_before && self.before_until.is_none() {
            return false;
        }
        if self.is_long_before(run) {
            return true;
        }
        let until = if self.knows_before {
            self.before_until
        } else {
            let earliest = self.first.map(|first| first.tenants.saturating_sub(tolerance).unwrap_or(first.tenants));
            earliest.and_then(|earliest| earliest.checked_sub(SECOND).ok())
        };
        until.zip(run.created_at).is_some_and(|(until, created)| created <= until)
    }

    /// Whether a run seems to have been created so long before the first submission that no two clocks explain it, ours and the
    /// tenant's both compared with the one that dates its runs.
    pub(super) fn is_long_before(&self, run: &Run) -> bool {
        let oldest = self.first.and_then(|first| first.ours.min(first.tenants).checked_sub(MAX_CLOCK_DIFFERENCE).ok());
        oldest.zip(run.created_at).is_some_and(|(oldest, created)| created < oldest)
    }

    /// Whether a run from long before the submission was not among those from before it, although all of these were named: then what the
    /// index shows has changed, or the clock that dates runs is far off, and what it does not show may exist.
    pub(super) fn contradicts_names(&self, run: &Run) -> bool {
        self.knows_before && self.before_until.is_none() && !self.before.contains(&run.name) && self.is_long_before(run)
    }

    /// Whether the tenant says that a run was created by another user than we were. Of an app it does not say it in the same terms.
    pub(super) fn is_of_another_user(&self, run: &Run) -> bool {
        let user = self.user.as_ref().filter(|_| self.kind == Kind::Workflow);
        user.zip(run.creator.as_deref()).is_some_and(|(user, by)| user.is_not(by))
    }

    /// Whether the tenant says that we created a run.
    pub(super) fn is_by_us(&self, run: &Run) -> bool {
        self.user.as_ref().zip(run.creator.as_deref()).is_some_and(|(user, by)| user.is(by))
    }

    /// Whether a run was created before the first submission, on the tenant's clock.
    pub(super) fn is_from_before(&self, run: &Run) -> bool {
        self.first.zip(run.created_at).is_some_and(|(first, created)| created < first.tenants)
    }

    /// The last submission is proven to be without effect.
    pub(crate) fn not_applied(&mut self) {
        self.intent = None;
        self.already_active = None;
        self.submissions = self.submissions.saturating_sub(1);
        if self.submissions == 0 {
            self.first = None;
            self.newest = None;
        }
    }

    /// The tenant refused the last submission because a run is active.
    pub(super) fn refused(&mut self, tenant: &Tenant, now: Timestamp, failure: Failure) {
        let Failure { message, source, .. } = failure;
        self.already_active = Some(Refusal { at: Some(Moment::new(tenant, now)), message, source });
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
        assert!(effort.first.is_some_and(|first| !first.is_certain()));
        assert_eq!((effort.kind, obtained.run.kind, obtained.run.name.as_str()), (Kind::Workflow, Kind::Workflow, "w-1"));
    }
}
