//! The sandbox's own routes: they neither count as exchanges nor are hit by faults, and need no bearer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answer::{Refusal, Reply, respond};
use super::automation::AutomationAccess;
use super::credentials::CredentialChange;
use super::faults::Fault;
use super::manual_runs::ManualRun;
use super::server::Shared;

/// Every admin path starts so.
pub(super) const PREFIX: &str = "/sandbox/";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/sandbox/health", get(async || respond(Ok(json!({ "status": "ok" })))))
        .route("/sandbox/ledger", get(async |State(shared): State<Arc<Shared>>| listed(&shared.effects())))
        .route("/sandbox/requests", get(async |State(shared): State<Arc<Shared>>| listed(&shared.requests())))
        .route("/sandbox/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/sandbox/index-lag", post(index_lag))
        .route("/sandbox/credentials", post(change_credentials))
        .route("/sandbox/runs", post(start_manual_run))
        .route("/sandbox/automation", post(automation))
        .fallback(async || respond(Err(Refusal::new(404, "the sandbox has no such admin route"))))
        .method_not_allowed_fallback(async || respond(Err(Refusal::new(405, "method not allowed on this admin route"))))
}

/// Why a request of a browser is refused: it comes from a page of another site, which would change the sandbox unseen.
/// Other programs send neither of these headers.
pub(super) fn cross_origin(headers: &HeaderMap) -> Option<Refusal> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let origin = text("origin").and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let foreign = text("origin").is_some() && (origin.is_none() || origin != text("host"));
    let site = text("sec-fetch-site").is_some_and(|site| !["same-origin", "none"].contains(&site));
    (foreign || site).then(|| Refusal::new(403, "the admin routes refuse requests of pages from another origin"))
}

fn listed(list: &impl serde::Serialize) -> Response {
    respond(serde_json::to_value(list).map_err(|error| Refusal::new(500, error.to_string())))
}

async fn faults(State(shared): State<Arc<Shared>>) -> Response {
    let (fired, standing) = shared.standing_faults();
    respond(Ok(json!({ "fired": fired, "faults": standing })))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<Value>),
    One(Value),
}

async fn add_faults(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    respond(read::<OneOrMany>(&body).and_then(|given| {
        let list = match given {
            OneOrMany::Many(list) => list,
            OneOrMany::One(one) => vec![one],
        };
        let bad = |message: String| Refusal::new(400, message);
        let faults = list.into_iter().map(serde_json::from_value).collect::<Result<Vec<Fault>, _>>();
        let faults = faults.map_err(|error| bad(format!("no fault: {error}")))?;
        faults.iter().try_for_each(|fault| fault.action.check()).map_err(bad)?;
        let added = faults.len();
        faults.into_iter().try_for_each(|fault| shared.add_fault(fault)).map_err(bad)?;
        Ok(json!({ "added": added }))
    }))
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> Response {
    shared.clear_faults();
    respond(Ok(json!({ "cleared": true })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexLag {
    ms: u64,
}

async fn index_lag(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let reply: Reply = read::<IndexLag>(&body).map(|lag| {
        shared.set_index_lag(Duration::from_millis(lag.ms));
        json!({ "ms": lag.ms })
    });
    respond(reply)
}

async fn change_credentials(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    respond(read::<CredentialChange>(&body).and_then(|change| {
        shared.change_credentials(change).map_err(|problem| Refusal::new(400, problem))?;
        Ok(json!({ "changed": true }))
    }))
}

async fn start_manual_run(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    respond(read::<ManualRun>(&body).and_then(|manual| {
        let run = shared.start_manual_run(&manual).map_err(|problem| Refusal::new(400, problem))?;
        Ok(json!({ "run": run }))
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Automation {
    access: AutomationAccess,
}

async fn automation(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    respond(read::<Automation>(&body).map(|Automation { access }| {
        shared.set_automation_access(access);
        json!({ "access": access })
    }))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::new(400, format!("body cannot be read: {error}")))
}
