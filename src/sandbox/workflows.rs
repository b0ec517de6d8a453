//! Workflow templates: finding, creating, changing, archiving them, and submitting their runs.

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Map, Value, json};

use super::AlreadyActive;
use super::answer::{Refusal, Reply};
use super::grant::GrantRequest;
use super::ledger::What;
use super::runs::{Ending, Run};
use super::search::{Document, Search, WORKFLOWS};
use super::state::{Call, SharedTenant, Tenant, Versions, route};
use super::time;

/// So many templates can be stored.
const MAX_WORKFLOWS: usize = 10_000;
/// The code that the tenant's engine gives to a second active run.
const ALREADY_ACTIVE: &str = "AE-WF-409-03";

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

fn submit(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    endpoint(call)?;
    if text(&call.body, "resourceKind")? != "WorkflowTemplate" {
        return Err(Refusal::new(400, "resourceKind must be WorkflowTemplate"));
    }
    let (namespace, name) = (text(&call.body, "namespace")?, text(&call.body, "resourceName")?);
    if namespace != "default" {
        return Err(not_found(name));
    }
    start_run(tenant, call, name)
}

/// Starts a run of a stored template; its document is the answer.
fn start_run(tenant: &mut Tenant, call: &Call, name: &str) -> Reply {
    let endpoint = endpoint(call)?;
    let workflow = tenant.workflows.get(name).ok_or_else(|| not_found(name))?;
    let template = workflow.document.current().as_ref().ok_or_else(|| not_found(name))?;
    if let Some(active) = tenant.runs.active(name) {
        let message = format!("workflow {name} already has an active run: {}", active.name);
        match tenant.settings.already_active {
            AlreadyActive::Allow => {}
            AlreadyActive::Conflict409 => return Err(Refusal::coded(409, ALREADY_ACTIVE, message)),
            AlreadyActive::Masked500 => {
                return Err(Refusal::new(500, format!("automation engine answered 409: {{\"code\":\"{ALREADY_ACTIVE}\"}} {message}")));
            }
        }
    }
    let mut grant = GrantRequest::of_template(template);
    if call.directives.swallow_grant {
        grant = None;
    }
    let running_at = call.now.saturating_add(tenant.settings.pending);
    let run = Run {
        name: tenant.runs.next_name(name),
        workflow: name.to_owned(),
        by: call.principal.clone(),
        created_at: call.now,
        running_at,
        ends_at: running_at.saturating_add(tenant.settings.running),
        end: call.directives.end_as.clone().unwrap_or_else(|| workflow.end.clone()),
        stopped_at: None,
        grant,
    };
    let answer = run.document(call.now).expect("a run exists from its creation on");
    let what = What::RunSubmitted {
        run: run.name.clone(),
        workflow: name.to_owned(),
        by: call.principal.username.clone(),
        endpoint: endpoint.to_owned(),
        request_id: call.request_id.clone(),
    };
    tenant.runs.add(run);
    tenant.ledger.record(call.now, what);
    Ok(answer)
}

/// Stores a template under a free name and submits a run of it, unless `submit=false`.
fn create(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    endpoint(call)?;
    let submit = match call.query("submit") {
        None | Some("" | "true" | "True") => true,
        Some("false" | "False") => false,
        Some(other) => return Err(Refusal::new(400, format!("submit must be true or false, not {other:?}"))),
    };
    let metadata = call.body.get("metadata").ok_or_else(|| Refusal::new(400, "metadata is missing"))?;
    let name = text(metadata, "name")?.to_owned();
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
        start_run(tenant, call, &name)?;
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

/// The endpoint's name, if it serves this caller: members have only the package endpoint.
fn endpoint(call: &Call) -> Result<&'static str, Refusal> {
    if call.path.starts_with("/api/service/package-workflows") {
        Ok("package-workflows")
    } else if call.principal.uses_workflows() {
        Ok("workflows")
    } else {
        let message = format!("{} has role {}, which the workflows endpoint does not serve", call.principal.username, call.principal.role.name);
        Err(Refusal::new(403, message))
    }
}

fn not_found(name: &str) -> Refusal {
    Refusal::new(404, format!("workflowtemplates.argoproj.io \"{name}\" not found"))
}

fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str, Refusal> {
    let text = object.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.ok_or_else(|| Refusal::new(400, format!("{key} must be a string, not empty")))
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
