//! Runs of app workflows. As with any run here, the status is a pure function of the time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::sandbox::answer::{Refusal, Reply};
use crate::sandbox::automation::EngineRun;
use crate::sandbox::identity::Principal;
use crate::sandbox::ledger::What;
use crate::sandbox::runs::Ending;
use crate::sandbox::search::{Document, Search};
use crate::sandbox::state::{Call, Tenant};
use crate::sandbox::submit::{self, Start};

/// So many runs are kept; the oldest goes first.
const MAX_RUNS: usize = 100_000;
/// What the qualified name of every run begins with.
const ROOT: &str = "default/apps/automation_engine/workflows/";

/// One run of an app workflow.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct AppRun {
    pub(super) id: String,
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) app: String,
    pub(super) version: i64,
    pub(super) by: Arc<Principal>,
    pub(super) created_at: i64,
    pub(super) running_at: i64,
    pub(super) ends_at: i64,
    pub(super) end: Ending,
    pub(super) cancelled: Option<Cancelled>,
}

/// When a run was cancelled, by whom, and what its status is since.
#[derive(Clone, Debug)]
pub(super) struct Cancelled {
    at: i64,
    by: String,
    status: &'static str,
}

impl AppRun {
    fn finished_at(&self) -> i64 {
        self.cancelled.as_ref().map_or(self.ends_at, |cancelled| cancelled.at)
    }

    fn status(&self, at: i64) -> &str {
        if at >= self.finished_at() {
            self.cancelled.as_ref().map_or(self.end.phase.as_str(), |cancelled| cancelled.status)
        } else if at < self.running_at {
            "Pending"
        } else {
            "Running"
        }
    }

    /// A Pending run has not started.
    fn started_at(&self, at: i64) -> Option<i64> {
        let started = self.running_at.min(self.finished_at());
        (at >= started).then_some(started)
    }

    fn completed_at(&self, at: i64) -> Option<i64> {
        (at >= self.finished_at()).then_some(self.finished_at())
    }

    fn message(&self, at: i64) -> Option<&str> {
        self.end.message.as_deref().filter(|_| at >= self.finished_at() && self.cancelled.is_none())
    }

    fn temporal_run_id(&self) -> String {
        format!("temporal-{}", self.id)
    }

    /// The run as the engine records it at an instant; `None` before its creation.
    fn engine_run(&self, at: i64) -> Option<EngineRun> {
        (at >= self.created_at).then(|| EngineRun {
            id: self.id.clone(),
            slug: self.slug.clone(),
            status: self.status(at).to_owned(),
            created_at: self.created_at,
            started_at: self.started_at(at),
            completed_at: self.completed_at(at),
            message: self.message(at).map(str::to_owned),
        })
    }

    fn qualified_name(&self) -> String {
        format!("{ROOT}{}/{}", self.slug, self.id)
    }

    /// What the index holds of the run at an instant; `None` before its creation.
    fn indexed(&self, number: u64, at: i64) -> Option<Document> {
        if at < self.created_at {
            return None;
        }
        let stopped_by = self.cancelled.as_ref().filter(|cancelled| at >= cancelled.at).map(|cancelled| &cancelled.by);
        let changed = [self.completed_at(at), self.started_at(at)].into_iter().flatten().next().unwrap_or(self.created_at);
        let entity = json!({ "typeName": "AppWorkflowRun", "guid": guid(number), "status": "ACTIVE",
            "attributes": { "qualifiedName": self.qualified_name(), "name": self.id, "appWorkflowRunLabel": self.name,
                "appWorkflowRunStatus": self.status(at), "appWorkflowRunStartedAt": self.started_at(at),
                "appWorkflowRunCompletedAt": self.completed_at(at), "appWorkflowRunStartedBy": self.by.username,
                "appWorkflowRunStoppedBy": stopped_by, "appWorkflowRunAppWorkflowSlug": self.slug,
                "appWorkflowRunAppWorkflowName": self.name, "appWorkflowRunAppWorkflowVersion": self.version.to_string(),
                "appWorkflowRunAppName": self.app, "appWorkflowRunTemporalRunId": self.temporal_run_id() } });
        let mut source = entity["attributes"].clone();
        source["__typeName"] = json!("AppWorkflowRun");
        source["__state"] = json!("ACTIVE");
        source["__guid"] = entity["guid"].clone();
        source["__timestamp"] = json!(self.created_at);
        source["__modificationTimestamp"] = json!(changed);
        source["entity"] = entity;
        Some(Document { id: guid(number), source })
    }
}

fn guid(number: u64) -> String {
    format!("e0000000-0000-4000-8000-{number:012x}")
}

/// All runs that are kept.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct AppRuns {
    all: BTreeMap<u64, AppRun>,
    by_id: HashMap<String, u64>,
    by_slug: HashMap<String, BTreeSet<u64>>,
    submitted: u64,
}

impl AppRuns {
    pub(super) fn add(&mut self, run: AppRun) {
        self.submitted += 1;
        self.by_id.insert(run.id.clone(), self.submitted);
        self.by_slug.entry(run.slug.clone()).or_default().insert(self.submitted);
        self.all.insert(self.submitted, run);
        while self.all.len() > MAX_RUNS {
            let Some((oldest, run)) = self.all.pop_first() else {
                break;
            };
            self.by_id.remove(&run.id);
            if let Some(numbers) = self.by_slug.get_mut(&run.slug) {
                numbers.remove(&oldest);
            }
        }
    }

    /// The run of this id at an instant.
    pub(in crate::sandbox) fn engine_run(&self, id: &str, at: i64) -> Option<EngineRun> {
        self.all.get(self.by_id.get(id)?)?.engine_run(at)
    }

    /// The runs of a workflow, or all, at an instant, the newest submission first.
    pub(in crate::sandbox) fn engine_runs(&self, slug: Option<&str>, at: i64) -> Vec<EngineRun> {
        let of_slug = |run: &&AppRun| slug.is_none_or(|slug| slug == run.slug);
        self.all.values().rev().filter(of_slug).filter_map(|run| run.engine_run(at)).collect()
    }

    /// Ends an active run in this status; whether there is such a run.
    pub(in crate::sandbox) fn cancel(&mut self, id: &str, at: i64, by: &str, status: &'static str) -> bool {
        let run = self.by_id.get(id).and_then(|number| self.all.get_mut(number));
        run.map(|run| run.cancelled = Some(Cancelled { at, by: by.to_owned(), status })).is_some()
    }

    /// The newest run of a workflow that has not ended.
    pub(super) fn active(&self, slug: &str, now: i64) -> Option<&AppRun> {
        let numbers = self.by_slug.get(slug)?;
        numbers.iter().rev().filter_map(|number| self.all.get(number)).find(|run| now < run.finished_at())
    }

    /// An id that says nothing, and that no run submitted here has had.
    pub(super) fn next_id(&self) -> String {
        // An odd factor: all numbers come before one comes again.
        format!("{:016x}", (self.submitted + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// What a search can match of the runs as they were at an instant, the newest first.
    pub(in crate::sandbox) fn indexed(&self, search: &Search, at: i64) -> Vec<Document> {
        let slug = search.prefix("qualifiedName").and_then(|start| start.strip_prefix(ROOT)?.split_once('/')).map(|(slug, _)| slug);
        let documents = |(number, run): (&u64, &AppRun)| run.indexed(*number, at);
        match slug {
            None => self.all.iter().rev().filter_map(documents).collect(),
            Some(slug) => {
                let numbers = self.by_slug.get(slug).into_iter().flatten().rev();
                numbers.filter_map(|number| self.all.get_key_value(number)).filter_map(documents).collect()
            }
        }
    }

    /// The entity of a run as it is, by its guid or qualified name.
    pub(in crate::sandbox) fn entity(&self, name: &str, now: i64) -> Option<Value> {
        let number = match name.strip_prefix(ROOT) {
            Some(rest) => *self.by_id.get(rest.split_once('/')?.1)?,
            None => u64::from_str_radix(name.rsplit('-').next()?, 16).ok()?,
        };
        let mut document = self.all.get(&number)?.indexed(number, now)?;
        let entity = document.source["entity"].take();
        (entity["guid"] == name || entity["attributes"]["qualifiedName"] == name).then_some(entity)
    }
}

/// `POST v1/app/<slug>/submit`.
pub(super) fn submit(tenant: &mut Tenant, call: &Call, slug: &str) -> Reply {
    start(tenant, call, slug)
}

/// Starts a run of a workflow, unless one is active and that is refused.
pub(super) fn start(tenant: &mut Tenant, call: &Call, slug: &str) -> Reply {
    tenant.apps.workflow(slug)?;
    if let Some(active) = tenant.apps.runs.active(slug, call.now) {
        submit::refuse_second(tenant.settings.already_active, slug, &active.id)?;
    }
    let (by, request_id) = (&call.principal, call.request_id.clone());
    let start = Start { by, endpoint: "v1/app", request_id, at: call.now, directives: &call.directives };
    Ok(json!({ "slug": slug, "run_id": begin(tenant, slug, start)? }))
}

/// Starts a run of a workflow, whether or not one is active, and answers its id.
pub(in crate::sandbox) fn begin(tenant: &mut Tenant, slug: &str, start: Start<'_>) -> Result<String, Refusal> {
    let id = tenant.apps.runs.next_id();
    let running_at = start.at.saturating_add(tenant.settings.pending);
    let workflow = tenant.apps.workflow(slug)?;
    let run = AppRun {
        id: id.clone(),
        slug: slug.to_owned(),
        name: workflow.name.clone(),
        app: workflow.app.clone(),
        version: workflow.version,
        by: start.by.clone(),
        created_at: start.at,
        running_at,
        ends_at: running_at.saturating_add(tenant.settings.running),
        end: start.directives.end_as.clone().unwrap_or_else(|| workflow.end.clone()),
        cancelled: None,
    };
    tenant.apps.runs.add(run);
    let by = start.by.username.clone();
    let what = What::AppRunSubmitted { run: id.clone(), slug: slug.to_owned(), by, request_id: start.request_id };
    tenant.ledger.record(start.at, what);
    Ok(id)
}
