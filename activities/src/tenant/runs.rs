//! Runs of workflows: search and stop. Looking at runs by name is in `looks`, runs of apps are in `app_runs`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Tenant;
use super::classify::Effect;
use super::send::Call;
use crate::failure::Failure;
use crate::text::clip;

/// How many runs one page of a search holds.
const PAGE: usize = 50;

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
        self.standing() != Standing::Active || matches!(self.phase.as_deref(), None | Some("Pending" | "Running"))
    }

    /// Whether the tenant took it in and then did nothing, as it does with a second run of an app while another one is active.
    pub fn was_skipped(&self) -> bool {
        self.kind == Kind::App && self.phase.as_deref() == Some("Skipped")
    }

    /// A run of which only the name is known.
    pub(super) fn named(kind: Kind, name: String, workflow: &str) -> Self {
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

    /// The run that the answer to a submission of `workflow` names, if it does.
    pub(super) fn of_answer(body: &Value, workflow: &str) -> Option<Self> {
        if let Some(run) = Self::decode(body, &Value::Null).filter(|run| run.name != workflow) {
            return Some(Self { workflow: run.workflow.or_else(|| Some(workflow.to_owned())), ..run });
        }
        // Some tenants answer with the id alone. It names the run all the same, and taking it for no answer could start a second one.
        let name = text(&body["run_id"]).or_else(|| text(&body["data"]["run_id"]))?;
        Some(Self::named(Kind::Workflow, name, workflow))
    }

    /// `id` stands in for a name that the document lacks.
    pub(super) fn decode(document: &Value, id: &Value) -> Option<Self> {
        let (metadata, status) = (&document["metadata"], &document["status"]);
        Some(Self {
            kind: Kind::Workflow,
            name: text(&metadata["name"]).or_else(|| text(id))?,
            workflow: text(&document["spec"]["workflowTemplateRef"]["name"]),
            phase: text(&status["phase"]),
            created_at: time(&metadata["creationTimestamp"]),
            started_at: time(&status["startedAt"]),
            finished_at: time(&status["finishedAt"]),
            creator: text(&metadata["labels"]["workflows.argoproj.io/creator"]),
            message: text(&status["message"]).map(clip),
        })
    }
}

impl Tenant {
    /// The run of a workflow that started last.
    pub async fn last_run(&self, workflow: &str) -> Result<Option<Run>, Failure> {
        let started_last = json!([{"status.startedAt": {"order": "desc"}}]);
        let found = self.runs(&search("runs.last", 0, 1, &of_workflow(workflow), &started_last)).await?;
        Ok(found.into_iter().find(|run| run.is_of(workflow)))
    }

    /// The runs of a workflow, newest first. Reads page by page until a run is older than `bound` (which is returned too), there are
    /// no more, or `max_pages` are read; without a bound, one page.
    pub async fn runs_of(&self, workflow: &str, bound: Option<Timestamp>) -> Result<Vec<Run>, Failure> {
        let mut seen = BTreeSet::new();
        let mut runs = Vec::new();
        for page in 0..self.settings.max_pages {
            let found = self.runs(&search("runs.find", page * PAGE, PAGE, &of_workflow(workflow), &newest_created_first())).await?;
            let full = found.len() >= PAGE;
            let past = found.iter().any(|run| run.created_at.zip(bound).is_some_and(|(created, bound)| created < bound));
            // A run that is created while we read pushes others to the next page, where they are seen again.
            let fresh = found.into_iter().filter(|run| seen.insert(run.name.clone()) && run.is_of(workflow));
            let before = runs.len();
            runs.extend(fresh);
            if !full || past || bound.is_none() || runs.len() == before {
                break;
            }
        }
        Ok(runs)
    }

    /// Asks the tenant to stop a run. It goes on for a while and then ends as failed. Sent once.
    pub async fn stop_run(&self, run: &str) -> Result<(), Failure> {
        let target = format!("api/service/runs/{}/stop", segment(run));
        let call = Call::post("runs.stop", target, None).needs("the right to stop workflow runs");
        let sent = self.send(&call).await;
        match self.effect(&call, sent) {
            Effect::Applied(_) => Ok(()),
            Effect::Conflict(failure) | Effect::NotApplied(failure) | Effect::UnknownFate(failure) => Err(failure),
        }
    }

    pub(super) async fn runs(&self, call: &Call) -> Result<Vec<Run>, Failure> {
        let body = self.read(call).await?;
        let hits = hits(&body).map_err(|problem| self.unexpected(call, &problem))?;
        Ok(hits.iter().filter_map(|hit| Run::decode(&hit["_source"], &hit["_id"])).collect())
    }
}

pub(super) fn search(operation: &'static str, from: usize, size: usize, filter: &Value, sort: &Value) -> Call {
    let body = json!({
        "from": from, "size": size, "track_total_hits": true,
        "query": {"bool": {"filter": [filter]}},
        "sort": sort,
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

/// The hits of a search. An answer without a list of hits is no answer, and never taken for "nothing found".
pub(super) fn hits(body: &Value) -> Result<&[Value], String> {
    body["hits"]["hits"].as_array().map(Vec::as_slice).ok_or_else(|| "it has no list of hits".to_owned())
}

/// A text that is there and not empty.
pub(super) fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A time that is there and readable.
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// A name as one segment of a path, or as one value of a query.
pub(super) fn segment(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
