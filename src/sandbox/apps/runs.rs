//! Runs of app workflows. As with any run here, the status is a pure function of the time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::sandbox::answer::{Refusal, Reply};
use crate::sandbox::identity::Principal;
use crate::sandbox::ledger::What;
use crate::sandbox::runs::Ending;
use crate::sandbox::search::{Document, Search};
use crate::sandbox::state::{Call, Tenant};
use crate::sandbox::{submit, time};

/// So many runs are kept; the oldest goes first.
const MAX_RUNS: usize = 100_000;
/// What the qualified name of every run begins with.
const ROOT: &str = "default/apps/automation_engine/workflows/";
/// The one step that the sandbox plays of a workflow.
const NODE: &str = "extract";

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
    /// When it was cancelled, and by whom.
    pub(super) cancelled: Option<(i64, String)>,
}

impl AppRun {
    fn finished_at(&self) -> i64 {
        self.cancelled.as_ref().map_or(self.ends_at, |(at, _)| *at)
    }

    fn status(&self, at: i64) -> &str {
        if at >= self.finished_at() {
            if self.cancelled.is_some() { "Stopped" } else { &self.end.phase }
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

    fn qualified_name(&self) -> String {
        format!("{ROOT}{}/{}", self.slug, self.id)
    }

    /// What the index holds of the run at an instant; `None` before its creation.
    fn indexed(&self, number: u64, at: i64) -> Option<Document> {
        if at < self.created_at {
            return None;
        }
        let stopped_by = self.cancelled.as_ref().filter(|(cancelled, _)| at >= *cancelled).map(|(_, by)| by);
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

    fn get(&mut self, id: &str) -> Result<&mut AppRun, Refusal> {
        let run = self.by_id.get(id).and_then(|number| self.all.get_mut(number));
        run.ok_or_else(|| Refusal::new(404, format!("run {id} does not exist")))
    }

    /// The newest run of a workflow that has not ended.
    fn active(&self, slug: &str, now: i64) -> Option<&AppRun> {
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
    let id = tenant.apps.runs.next_id();
    let running_at = call.now.saturating_add(tenant.settings.pending);
    let workflow = tenant.apps.workflow(slug)?;
    let run = AppRun {
        id: id.clone(),
        slug: slug.to_owned(),
        name: workflow.name.clone(),
        app: workflow.app.clone(),
        version: workflow.version,
        by: call.principal.clone(),
        created_at: call.now,
        running_at,
        ends_at: running_at.saturating_add(tenant.settings.running),
        end: call.directives.end_as.clone().unwrap_or_else(|| workflow.end.clone()),
        cancelled: None,
    };
    if let Some(active) = tenant.apps.runs.active(slug, call.now) {
        submit::refuse_second(tenant.settings.already_active, slug, &active.id)?;
    }
    tenant.apps.runs.add(run);
    let what = What::AppRunSubmitted {
        run: id.clone(),
        slug: slug.to_owned(),
        by: call.principal.username.clone(),
        request_id: call.request_id.clone(),
    };
    tenant.ledger.record(call.now, what);
    Ok(json!({ "slug": slug, "run_id": id }))
}

/// `GET v1/app/runs/<run>`.
pub(super) fn status(tenant: &mut Tenant, call: &Call, id: &str) -> Reply {
    let run = tenant.apps.runs.get(id)?;
    let started_at = run.started_at(call.now).map(time::seconds);
    Ok(json!({ "run_id": run.id, "status": run.status(call.now), "slug": run.slug, "started_at": started_at }))
}

/// `POST v1/app/runs/<run>/cancel`: the run is Stopped at once.
pub(super) fn cancel(tenant: &mut Tenant, call: &Call, id: &str) -> Reply {
    let run = tenant.apps.runs.get(id)?;
    if call.now >= run.finished_at() {
        return Err(Refusal::new(400, format!("run {id} is not active: it is {}", run.status(call.now))));
    }
    let by = call.principal.username.clone();
    run.cancelled = Some((call.now, by.clone()));
    let answer = json!({ "run_id": id, "cancelled": true, "status": "Stopped", "slug": run.slug });
    let what = What::AppRunCancelled { run: id.to_owned(), slug: run.slug.clone(), by };
    tenant.ledger.record(call.now, what);
    Ok(answer)
}

/// `GET package-workflows/native-status/<run>?execution_mode=automation-engine`.
pub(super) fn native_status(tenant: &mut Tenant, call: &Call, id: &str) -> Reply {
    if let Some(mode) = call.query("execution_mode").filter(|mode| *mode != "automation-engine") {
        return Err(Refusal::new(400, format!("unknown execution_mode {mode:?}")));
    }
    let run = tenant.apps.runs.get(id)?;
    let status = run.status(call.now);
    let written = |at: Option<i64>| at.map(time::seconds);
    let node = json!({ "status": status, "started_at": written(run.started_at(call.now)),
        "completed_at": written(run.completed_at(call.now)), "error_message": run.message(call.now) });
    Ok(json!({ "status": status, "run_id": run.id, "workflow_slug": run.slug, "temporal_run_id": run.temporal_run_id(),
        "dag_nodes": { NODE: node } }))
}
