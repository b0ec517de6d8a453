//! Workflow templates: finding, creating, changing, and archiving them.

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Map, Value, json};

use super::answer::{Refusal, Reply};
use super::grant::known_users;
use super::ledger::What;
use super::runs::Ending;
use super::search::{Document, Search, WORKFLOWS};
use super::state::{Call, SharedTenant, Tenant, Versions, route};
use super::submit::{endpoint, not_found, refuse_native, start_run, submit, text, trigger_as_owner};
use super::time;

/// So many templates can be stored.
const MAX_WORKFLOWS: usize = 10_000;
/// Where a body of the vendor's client names the template of its package.
const TEMPLATE_REF: &str = "/spec/templates/0/dag/tasks/0/templateRef/name";

/// A workflow template under its name.
#[derive(Debug)]
pub(super) struct Workflow {
    /// Its document; `None` once archived.
    pub(super) document: Versions<Option<Value>>,
    pub(super) owner: String,
    /// How its runs end.
    pub(super) end: Ending,
}

/// Everything below `workflows` and its twin `package-workflows`.
pub(super) fn routes() -> Router<SharedTenant> {
    let mut router = Router::new()
        .route("/workflows/indexsearch", route(MethodFilter::POST, search))
        .route("/workflows/{name}/changeownership", route(MethodFilter::POST, change_owner));
    router = router.route("/workflows/triggerAsOwner", route(MethodFilter::POST, trigger_as_owner));
    for endpoint in ["/workflows", "/package-workflows"] {
        router = router
            .route(endpoint, route(MethodFilter::POST, create))
            .route(&format!("{endpoint}/submit"), route(MethodFilter::POST, submit))
            .route(&format!("{endpoint}/{{name}}"), route(MethodFilter::POST, update))
            .route(&format!("{endpoint}/{{name}}/archive"), route(MethodFilter::POST, archive));
    }
    router
}

fn search(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let search = Search::parse(&call.body, &WORKFLOWS, call.now).map_err(|error| Refusal::new(400, error.to_string()))?;
    let at = tenant.index_time(call);
    let documents = tenant.workflows.iter().filter_map(|(name, workflow)| {
        let source = workflow.document.at(at)?.clone()?;
        Some(Document { id: name.clone(), source })
    });
    Ok(search.page(documents).into_answer())
}

/// Stores a template under a free name and submits a run of it, unless `submit=false`.
fn create(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    endpoint(call)?;
    let submit = match call.query("submit") {
        None | Some("" | "true" | "True") => true,
        Some("false" | "False") => false,
        Some(other) => {
            return Err(Refusal::new(400, format!("submit must be true or false, not {other:?}")));
        }
    };
    let metadata = call.body.get("metadata").ok_or_else(|| Refusal::new(400, "metadata is missing"))?;
    let name = text(metadata, "name")?.to_owned();
    refuse_native(tenant, call.body.pointer(TEMPLATE_REF).and_then(Value::as_str).unwrap_or(&name))?;
    let free = tenant.workflows.get(&name).is_none_or(|workflow| workflow.document.current().is_none());
    if !free {
        return Err(Refusal::new(409, format!("workflowtemplates.argoproj.io \"{name}\" already exists")));
    }
    if tenant.workflows.len() >= MAX_WORKFLOWS {
        return Err(Refusal::new(400, format!("the sandbox stores at most {MAX_WORKFLOWS} workflows")));
    }
    let who = call.principal.username.clone();
    let (labels, annotations) = (strings(metadata, "labels")?, strings(metadata, "annotations")?);
    let spec = spec(&call.body)?.unwrap_or_else(|| json!({}));
    let document = template(&name, call.now, &labels.unwrap_or_default(), &annotations.unwrap_or_default(), &spec);
    let answer = echo(&document, &call.body);
    let workflow = Workflow { document: Versions::new(call.now, Some(document)), owner: who.clone(), end: Ending::succeeded() };
    tenant.workflows.insert(name.clone(), workflow);
    tenant.ledger.record(call.now, What::WorkflowCreated { workflow: name.clone(), by: who });
    if submit {
        let started = start_run(tenant, call, &name)?;
        if tenant.settings.native_engine {
            return Ok(started);
        }
    }
    Ok(answer)
}

/// Replaces what the body gives of labels, annotations (schedules are annotations) and spec; null is absent.
fn update(tenant: &mut Tenant, call: &Call, name: &str) -> Reply {
    endpoint(call)?;
    let (metadata, spec) = (&call.body["metadata"], spec(&call.body)?);
    let (labels, annotations) = (strings(metadata, "labels")?, strings(metadata, "annotations")?);
    let answer = change(tenant, call, name, |document| {
        let parts = [("labels", labels), ("annotations", annotations)];
        for (key, value) in parts.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            document["metadata"][key] = value.into();
        }
        if let Some(spec) = spec {
            document["spec"] = spec;
        }
    })?;
    tenant.ledger.record(call.now, What::WorkflowUpdated { workflow: name.to_owned(), by: call.principal.username.clone() });
    Ok(echo(&answer, &call.body))
}

fn archive(tenant: &mut Tenant, call: &Call, name: &str) -> Reply {
    endpoint(call)?;
    let document = change(tenant, call, name, |_| {})?;
    if let Some(workflow) = tenant.workflows.get_mut(name) {
        workflow.document.set(call.now, None);
    }
    tenant.ledger.record(call.now, What::WorkflowArchived { workflow: name.to_owned(), by: call.principal.username.clone() });
    Ok(echo(&document, &Value::Null))
}

/// The new owner stands in the query, or, as the vendor's client sends it, in the body.
fn change_owner(tenant: &mut Tenant, call: &Call, name: &str) -> Reply {
    let given = call.query("username").or_else(|| call.body["username"].as_str()).filter(|name| !name.is_empty());
    let owner = given.ok_or_else(|| Refusal::new(400, "username is missing"))?.to_owned();
    if !known_users(tenant).contains(&owner) {
        return Err(Refusal::new(404, format!("user {owner:?} does not exist")));
    }
    let document = change(tenant, call, name, |document| {
        document["metadata"]["labels"]["workflows.argoproj.io/creator-preferred-username"] = json!(owner);
    })?;
    let workflow = tenant.workflows.get_mut(name).ok_or_else(|| not_found(name))?;
    let before = std::mem::replace(&mut workflow.owner, owner.clone());
    let by = call.principal.username.clone();
    tenant.ledger.record(call.now, What::OwnerChanged { workflow: name.to_owned(), before, after: owner, by });
    Ok(echo(&document, &Value::Null))
}

/// Stores the next generation of a template and answers it.
fn change(tenant: &mut Tenant, call: &Call, name: &str, edit: impl FnOnce(&mut Value)) -> Reply {
    let workflow = tenant.workflows.get_mut(name).ok_or_else(|| not_found(name))?;
    let mut document = workflow.document.current().clone().ok_or_else(|| not_found(name))?;
    edit(&mut document);
    let generation = document["metadata"]["generation"].as_u64().unwrap_or(1) + 1;
    document["metadata"]["generation"] = json!(generation);
    document["metadata"]["resourceVersion"] = json!(generation.to_string());
    workflow.document.set(call.now, Some(document.clone()));
    Ok(document)
}

/// A template's document as the index holds it.
pub(super) fn template(name: &str, at: i64, labels: &Map<String, Value>, annotations: &Map<String, Value>, spec: &Value) -> Value {
    json!({ "apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTemplate",
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": "1",
            "generation": 1, "creationTimestamp": time::seconds(at), "labels": labels, "annotations": annotations },
        "spec": spec })
}

/// What create and update answer: the document, and the payload as it was sent.
fn echo(document: &Value, body: &Value) -> Value {
    let mut answer = document.clone();
    answer["payload"] = body.get("payload").filter(|payload| payload.is_array()).cloned().unwrap_or_else(|| json!([]));
    answer
}

/// Labels and annotations are maps of strings; absent and null are the same.
fn strings(metadata: &Value, key: &str) -> Result<Option<Map<String, Value>>, Refusal> {
    match metadata.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) if map.values().all(Value::is_string) => Ok(Some(map.clone())),
        Some(_) => Err(Refusal::new(400, format!("metadata.{key} must be a map of strings"))),
    }
}

fn spec(body: &Value) -> Result<Option<Value>, Refusal> {
    match body.get("spec") {
        None | Some(Value::Null) => Ok(None),
        Some(spec) if spec.is_object() => Ok(Some(spec.clone())),
        Some(_) => Err(Refusal::new(400, "spec must be an object")),
    }
}
