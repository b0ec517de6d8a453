//! Runs of workflows: search and stop. Looking at runs by name is in `looks`, runs of apps are in `app_runs`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Tenant;
use super::answer::{Element, Exact, Lenient, PHASE, Text, Time};
use super::classify::Effect;
use super::documents::{Hits, Metadata};
use super::page_size::Found;
use super::runs_shown::{Reading, RunsShown};
use super::send::Call;
use super::target::{is_segment, segment};
use crate::failure::Failure;
use crate::text::MESSAGE_LIMIT;

/// How many runs one page of a search holds.
const PAGE: usize = 50;
/// So many characters of a name are kept where five random ones are put behind it.
const LONGEST_BASE: usize = 58;

/// What is run, and with that the part of the API that knows about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A workflow of a tenant of the argo generation.
    #[default]
    Workflow,
    /// An app of one of the native generation, that is a workflow made of an app.
    App,
}

impl Kind {
    /// The word for it, as inputs name it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::App => "app",
        }
    }

    /// The generation whose tenants have it.
    pub fn generation(self) -> &'static str {
        match self {
            Self::Workflow => "argo",
            Self::App => "native",
        }
    }
}

/// A run of a workflow, as the tenant shows it. Stored in checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What it is a run of; absent in what was stored before there were two.
    #[serde(default)]
    pub kind: Kind,
    /// Its name, as in `atlan-snowflake-1684500411-t7s8b`; of an app, its id.
    pub name: String,
    /// The workflow that it is a run of; of an app, the slug.
    pub workflow: Option<String>,
    /// Its phase, exactly as sent; None while the tenant shows none.
    pub phase: Option<String>,
    /// When it was created; whole seconds of the tenant's clock. Of an app, when it started: no other time is shown.
    pub created_at: Option<Timestamp>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it finished.
    pub finished_at: Option<Timestamp>,
    /// The id of who created it.
    pub creator: Option<String>,
    /// What the tenant says about its end.
    pub message: Option<String>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not at its end. An absent or unknown phase is no end either.
    Active,
    /// It did what it should.
    Succeeded,
    /// It ended in any other way.
    Ended,
}

impl Run {
    /// Where it stands.
    pub fn standing(&self) -> Standing {
        match self.phase.as_deref() {
            Some("Succeeded") => Standing::Succeeded,
            Some("Failed" | "Error" | "Stopped" | "Terminated" | "Skipped" | "Omitted" | "Cancelled" | "TimedOut") => {
                Standing::Ended
            }
            _ => Standing::Active,
        }
    }

    /// Whether its phase is one that this build has heard of; absent counts as heard of.
    pub fn phase_is_known(&self) -> bool {
        self.standing() != Standing::Active || matches!(self.phase.as_deref(), None | Some("Pending" | "Running" | "Paused"))
    }

    /// Whether the tenant took it in and then did nothing, as it does with a second run of an app while another one is active.
    pub fn was_skipped(&self) -> bool {
        self.kind == Kind::App && self.phase.as_deref() == Some("Skipped")
    }

    /// A run of which only the name is known.
    pub(crate) fn named(kind: Kind, name: String, workflow: &str) -> Self {
        Self {
            kind,
            name,
            workflow: Some(workflow.to_owned()),
            phase: None,
            created_at: None,
            started_at: None,
            finished_at: None,
            creator: None,
            message: None,
        }
    }

    /// Whether a hit of a search for the runs of `workflow` is one. A document that names no workflow is believed.
    fn is_of(&self, workflow: &str) -> bool {
        self.workflow.as_deref().is_none_or(|named| named == workflow)
    }

    /// The run of `workflow` that the answer to its submission names, if it does.
    pub(super) fn of_answer(answer: Started, workflow: &str) -> Option<Self> {
        let Started { metadata, spec, status, run_id, data } = answer;
        // The answer to this submission names the workflow that was submitted, or none.
        if spec.0.workflow_template_ref.0.name.0.as_deref().is_some_and(|named| named != workflow) {
            return None;
        }
        let id = run_id.0.or(data.0.run_id.0);
        let run = RunDocument { metadata, spec, status }.into_run(None);
        if !run.name.is_empty() && run.name != workflow {
            // Without that name it is told by its own, which the tenant makes of the workflow's.
            if run.workflow.is_none() && !continues(&run.name, workflow) {
                return None;
            }
            return Some(Self { workflow: run.workflow.or_else(|| Some(workflow.to_owned())), ..run });
        }
        // Some tenants answer with the id alone: their workflows run on the native engine, whose part of the API knows that id. A name
        // that continues the workflow's is one of the other kind.
        let id = id.filter(|id| is_segment(id))?;
        let suffix = id.strip_prefix(workflow).is_some_and(|suffix| suffix.starts_with('-'));
        Some(Self::named(if suffix { Kind::Workflow } else { Kind::App }, id, workflow))
    }
}

/// The document of a run, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunDocument {
    metadata: Lenient<Metadata>,
    spec: Lenient<Spec>,
    status: Lenient<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    workflow_template_ref: Lenient<Reference>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reference {
    name: Exact,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Text<PHASE>,
    started_at: Time,
    finished_at: Time,
    message: Text<MESSAGE_LIMIT>,
}

/// Whether a run's name is made of the workflow's: that, a hyphen and a few characters. What is too long for that is cut.
fn continues(run: &str, workflow: &str) -> bool {
    let start: String = format!("{workflow}-").chars().take(LONGEST_BASE).collect();
    run.len() > start.len() && run.starts_with(&start)
}

impl RunDocument {
    /// What is read of it. `id` stands in for a name that it lacks. A run that cannot be asked for by its name has an empty one.
    fn into_run(self, id: Option<String>) -> Run {
        let (metadata, status) = (self.metadata.0, self.status.0);
        Run {
            kind: Kind::Workflow,
            name: metadata.name.0.or(id).filter(|name| is_segment(name)).unwrap_or_default(),
            workflow: self.spec.0.workflow_template_ref.0.name.0,
            phase: status.phase.0,
            created_at: metadata.creation_timestamp.0,
            started_at: status.started_at.0,
            finished_at: status.finished_at.0,
            creator: metadata.labels.0.creator.0,
            message: status.message.0,
        }
    }
}

/// One hit of a search for runs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunHit {
    #[serde(rename = "_id")]
    id: Exact,
    #[serde(rename = "_source")]
    source: Lenient<RunDocument>,
}

impl Element for RunHit {}

impl RunHit {
    /// None: it has no name.
    pub(super) fn into_run(self) -> Option<Run> {
        Some(self.read()).filter(|run| !run.name.is_empty())
    }

    /// The same, with an empty name where there is none.
    fn read(self) -> Run {
        self.source.0.into_run(self.id.0)
    }
}

/// The answer to a submission: a run's document, or the id of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Started {
    metadata: Lenient<Metadata>,
    spec: Lenient<Spec>,
    status: Lenient<Status>,
    run_id: Exact,
    data: Lenient<Named>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    run_id: Exact,
}

impl Started {
    /// The name in the document, which is the workflow's where one was created.
    pub(super) fn name(&self) -> Option<&str> {
        self.metadata.name.0.as_deref()
    }
}

/// Why a run is not known to have been asked to stop.
#[derive(Debug, Clone, PartialEq)]
pub enum StopError {
    /// It was not asked.
    NotAsked(Failure),
    /// It may have been asked; only the run can tell.
    UnknownFate(Failure),
}

impl StopError {
    pub(super) fn of<T>(effect: Effect<T>) -> Self {
        match effect {
            Effect::UnknownFate(failure) => Self::UnknownFate(failure),
            other => Self::NotAsked(other.into_failure()),
        }
    }
}

impl From<StopError> for Failure {
    fn from(error: StopError) -> Self {
        let (StopError::NotAsked(failure) | StopError::UnknownFate(failure)) = error;
        failure
    }
}

/// The answer to a request to stop a run: its document, or nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stopping {
    metadata: Lenient<Metadata>,
}

impl Tenant {
    /// The run of a workflow that started last.
    pub async fn last_run(&self, workflow: &str) -> Result<Option<Run>, Failure> {
        let started_last = json!([{"status.startedAt": {"order": "desc"}}]);
        let last = |size| search("runs.last", 0, size, &of_workflow(workflow), &started_last);
        let found = self.runs(1, 0, last).await?;
        if found.items.is_empty() && (found.count > 0 || found.told.is_some_and(|told| told > 0)) {
            return Err(self.unexpected(&last(1), "it counts runs, and shows none that can be read"));
        }
        Ok(found.items.into_iter().find(|run| run.is_of(workflow)))
    }

    /// The runs of a workflow, newest first. Reads page by page until a run is older than `bound` (which is returned too), there are
    /// no more, or `max_pages` are read; without a bound, one full page.
    pub async fn runs_of(&self, workflow: &str, bound: Option<Timestamp>) -> Result<RunsShown, Failure> {
        let mut reading = Reading::new(workflow, bound);
        for _ in 0..self.settings.max_pages {
            let from = reading.from;
            let page = |size| search("runs.find", from, size, &of_workflow(workflow), &newest_created_first());
            let found = self.page::<Hits<RunHit>>(PAGE, from, page).await?;
            if !reading.take(found, RunHit::read) {
                break;
            }
        }
        Ok(reading.shown)
    }

    /// Asks the tenant to stop a run. It goes on for a while and then ends as failed. Sent once.
    pub async fn stop_run(&self, run: &str) -> Result<(), StopError> {
        let target = format!("api/service/runs/{}/stop", segment(run));
        let call = Call::post("runs.stop", target, None).may_be_empty().needs("the right to stop workflow runs");
        let sent = self.send_effect(self.permit().await, &call).await;
        match self.effect::<Stopping>(&call, sent) {
            Effect::Applied(Stopping { metadata }) if metadata.name.0.as_deref().is_some_and(|named| named != run) => {
                Err(StopError::UnknownFate(self.unexpected(&call, "it names another run")))
            }
            Effect::Applied(_) => Ok(()),
            other => Err(StopError::of(other)),
        }
    }

    /// One page of a search for runs.
    pub(super) async fn runs(&self, wanted: usize, from: usize, search: impl Fn(usize) -> Call) -> Result<Found<Run>, Failure> {
        let Found { items, count, asked, more, told, exact, open } = self.page::<Hits<RunHit>>(wanted, from, search).await?;
        Ok(Found { items: items.into_iter().filter_map(RunHit::into_run).collect(), count, asked, more, told, exact, open })
    }

    /// The runs of a search that fits into one answer, or fails because it does not.
    pub(super) async fn runs_at_once(&self, call: &Call) -> Result<Vec<Run>, Failure> {
        let (hits, _) = self.items_of(call, self.read::<Hits<RunHit>>(call).await?)?;
        Ok(hits.into_iter().filter_map(RunHit::into_run).collect())
    }
}

/// The fields of a run's document that [`RunDocument`] reads: documents can be large.
pub(super) const SOURCE: [&str; 8] = [
    "metadata.name",
    "metadata.creationTimestamp",
    "metadata.labels",
    "spec.workflowTemplateRef",
    "status.phase",
    "status.startedAt",
    "status.finishedAt",
    "status.message",
];

pub(super) fn search(operation: &'static str, from: usize, size: usize, filter: &Value, sort: &Value) -> Call {
    let body = json!({
        "from": from, "size": size, "track_total_hits": true,
        "query": {"bool": {"filter": [filter]}},
        "sort": sort,
        "_source": SOURCE,
    });
    Call::post(operation, "api/service/runs/indexsearch", Some(body)).needs("the right to see workflow runs")
}

pub(super) fn of_workflow(workflow: &str) -> Value {
    let term = json!({"term": {"spec.workflowTemplateRef.name.keyword": {"value": workflow}}});
    json!({"nested": {"path": "spec", "query": term}})
}

/// The order in which the tenant's own clients read workflows and runs.
pub(super) fn newest_created_first() -> Value {
    json!([{"metadata.creationTimestamp": {"order": "desc", "nested": {"path": "metadata"}}}])
}
