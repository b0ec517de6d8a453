//! The Automation Engine: its own API of runs (`/automation/api/v1`), and what the workflow service passes on of it.
//!
//! Of the answers `data`, `guid`, `run_id`, `created_at` and `dag.<node>.outputs` are read by the vendor's application-sdk;
//! `status`, `workflow_slug`, `temporal_run_id` and the times are those of `native-status`, which passes the same record on.

use axum::Router;
use axum::routing::MethodFilter;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{Refusal, Reply};
use super::ledger::What;
use super::state::{Call, SharedTenant, Tenant, route};
use super::submit::{self, Start, refuse_second};
use super::{AlreadyActive, Generation, apps, time};

/// The one step that the sandbox plays of a workflow.
const NODE: &str = "extract";
const DEFAULT_PAGE: usize = 20;
/// The engine's own bound of a page.
const MAX_PAGE: usize = 100;

/// What the Automation Engine's own API answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutomationAccess {
    /// Admins and API tokens are served, others get a 403.
    #[default]
    Allowed,
    /// 403 to everyone.
    Forbidden,
    /// Its list of runs is always empty, and it knows no run.
    Empty,
    /// 404: the tenant is too old to have it.
    Absent,
}

/// One run as the engine records it, whichever way it was submitted.
#[derive(Debug)]
pub(super) struct EngineRun {
    pub(super) id: String,
    pub(super) slug: String,
    pub(super) status: String,
    pub(super) created_at: i64,
    pub(super) started_at: Option<i64>,
    pub(super) completed_at: Option<i64>,
    pub(super) message: Option<String>,
}

impl EngineRun {
    fn temporal_run_id(&self) -> String {
        format!("temporal-{}", self.id)
    }

    /// A row of the list of runs.
    fn record(&self) -> Value {
        json!({ "guid": self.id, "run_id": self.id, "workflow_slug": self.slug, "status": self.status,
            "created_at": time::precise(self.created_at), "started_at": self.started_at.map(time::precise),
            "completed_at": self.completed_at.map(time::precise), "temporal_run_id": self.temporal_run_id() })
    }
}

/// `/automation/api/v1`.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new()
        .route("/runs", route(MethodFilter::GET, list))
        .route("/runs/{run}", route(MethodFilter::GET, get))
        .route("/runs/{run}/terminate", route(MethodFilter::POST, terminate))
        .route("/workflows/{slug}/submit", route(MethodFilter::POST, submit))
}

/// What the workflow service passes on of the engine's runs.
pub(super) fn passed_on() -> Router<SharedTenant> {
    Router::new()
        .route("/v1/app/runs/{run}", route(MethodFilter::GET, status))
        .route("/v1/app/runs/{run}/cancel", route(MethodFilter::POST, cancel))
        .route("/package-workflows/native-status/{run}", route(MethodFilter::GET, native_status))
}

fn permitted(tenant: &Tenant, call: &Call) -> Result<(), Refusal> {
    match tenant.settings.automation {
        AutomationAccess::Absent => Err(Refusal::new(404, format!("no route for {}", call.path))),
        AutomationAccess::Allowed | AutomationAccess::Empty if call.principal.may_manage() => Ok(()),
        _ => Err(Refusal::coded(403, "AE-COMMON-403-01", format!("{} lacks role realm-admin", call.principal.username))),
    }
}

/// The newest first, as the lagging index has them.
fn list(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    permitted(tenant, call)?;
    let page = call.query_number("page", 0)?;
    let size = call.query_number("page_size", DEFAULT_PAGE)?.clamp(1, MAX_PAGE);
    for name in ["include_test_runs", "include_system"] {
        if let Some(value) = call.query(name).filter(|value| !["true", "false"].contains(value)) {
            return Err(Refusal::new(422, format!("{name} must be true or false, not {value:?}")));
        }
    }
    let at = tenant.index_time(call);
    let mut runs = if tenant.settings.automation == AutomationAccess::Empty { Vec::new() } else { indexed(tenant, call, at) };
    runs.sort_by_key(|run| std::cmp::Reverse(run.created_at));
    let total = runs.len();
    let rows: Vec<Value> = runs.iter().skip(page.saturating_mul(size)).take(size).map(EngineRun::record).collect();
    Ok(json!({ "data": rows, "total": total, "page": page, "page_size": size }))
}

/// The runs of the slug that is asked for, or all, the newest submission first.
fn indexed(tenant: &Tenant, call: &Call, at: i64) -> Vec<EngineRun> {
    let slug = call.query("workflow_slug");
    let mut runs = tenant.apps.runs.engine_runs(slug, at);
    runs.extend(tenant.runs.engine_runs(slug, at));
    runs
}

fn get(tenant: &mut Tenant, call: &Call, id: &str) -> Reply {
    permitted(tenant, call)?;
    let run = known(tenant, id, call.now).filter(|_| tenant.settings.automation == AutomationAccess::Allowed);
    let run = run.ok_or_else(|| missing(id))?;
    let mut record = run.record();
    let outputs = if run.status == "Succeeded" { json!({ "assets": 1 }) } else { json!({}) };
    record["dag"] = json!({ NODE: { "status": run.status, "outputs": outputs } });
    Ok(json!({ "data": record }))
}

/// A run that has ended is left as it is, and that is no error.
fn terminate(tenant: &mut Tenant, call: &Call, id: &str) -> Reply {
    permitted(tenant, call)?;
    let run = known(tenant, id, call.now).ok_or_else(|| missing(id))?;
    if run.completed_at.is_none() {
        end(tenant, call, &run, "Terminated")?;
    }
    let run = known(tenant, id, call.now).ok_or_else(|| missing(id))?;
    Ok(json!({ "data": run.record() }))
}

/// Runs the published version of a workflow. The engine itself masks no refusal.
fn submit(tenant: &mut Tenant, call: &Call, slug: &str) -> Reply {
    permitted(tenant, call)?;
    let unknown = |_| Refusal::coded(404, "AE-WF-404-02", format!("no published version of workflow {slug}"));
    let argo = tenant.settings.generation == Generation::Argo;
    let active = if argo { tenant.runs.active(slug).map(|run| run.name.clone()) } else { apps::active(tenant, slug, call.now) };
    if let Some(active) = active.filter(|_| tenant.settings.already_active != AlreadyActive::Allow) {
        refuse_second(AlreadyActive::Conflict409, slug, &active)?;
    }
    let (by, request_id) = (&call.principal, call.request_id.clone());
    let start = Start { by, endpoint: "automation", request_id, at: call.now, directives: &call.directives };
    let id = if argo {
        submit::begin(tenant, slug, start).map_err(unknown)?.name
    } else {
        apps::begin(tenant, slug, start).map_err(unknown)?
    };
    Ok(json!({ "data": known(tenant, &id, call.now).ok_or_else(|| missing(&id))?.record() }))
}

/// A run of either submission.
fn known(tenant: &Tenant, id: &str, at: i64) -> Option<EngineRun> {
    tenant.apps.runs.engine_run(id, at).or_else(|| tenant.runs.engine_run(id, at))
}

fn missing(id: &str) -> Refusal {
    Refusal::new(404, format!("run {id} does not exist"))
}

fn end(tenant: &mut Tenant, call: &Call, run: &EngineRun, status: &'static str) -> Result<(), Refusal> {
    let by = call.principal.username.clone();
    let (id, slug) = (run.id.clone(), run.slug.clone());
    if tenant.apps.runs.cancel(&run.id, call.now, &by, status) {
        tenant.ledger.record(call.now, What::AppRunCancelled { run: id, slug, by });
    } else if tenant.runs.end(&run.id, call.now, status) {
        tenant.ledger.record(call.now, What::RunStopped { run: id, by });
    } else {
        return Err(missing(&run.id));
    }
    Ok(())
}

/// `GET v1/app/runs/<run>`.
fn status(tenant: &mut Tenant, call: &Call, id: &str) -> Reply {
    let run = known(tenant, id, call.now).ok_or_else(|| missing(id))?;
    Ok(json!({ "run_id": run.id, "status": run.status, "slug": run.slug, "started_at": run.started_at.map(time::seconds) }))
}

/// `POST v1/app/runs/<run>/cancel`: the run is Stopped at once.
fn cancel(tenant: &mut Tenant, call: &Call, id: &str) -> Reply {
    let run = known(tenant, id, call.now).ok_or_else(|| missing(id))?;
    if run.completed_at.is_some() {
        return Err(Refusal::new(400, format!("run {id} is not active: it is {}", run.status)));
    }
    end(tenant, call, &run, "Stopped")?;
    Ok(json!({ "run_id": id, "cancelled": true, "status": "Stopped", "slug": run.slug }))
}

/// `GET package-workflows/native-status/<run>?execution_mode=automation-engine`.
fn native_status(tenant: &mut Tenant, call: &Call, id: &str) -> Reply {
    if let Some(mode) = call.query("execution_mode").filter(|mode| *mode != "automation-engine") {
        return Err(Refusal::new(400, format!("unknown execution_mode {mode:?}")));
    }
    let run = known(tenant, id, call.now).ok_or_else(|| missing(id))?;
    // The vendor's client reads the times of a step as Unix milliseconds.
    let node = json!({ "status": run.status, "started_at": run.started_at, "completed_at": run.completed_at,
        "error_message": run.message });
    Ok(json!({ "status": run.status, "run_id": run.id, "workflow_slug": run.slug, "temporal_run_id": run.temporal_run_id(),
        "dag_nodes": { NODE: node } }))
}
