//! Submitting a run of a stored template.

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::{Refusal, Reply};
use super::grant::GrantRequest;
use super::identity::Principal;
use super::ledger::What;
use super::runs::Run;
use super::state::{Call, Directives, Tenant};
use super::workflows::Workflow;
use super::{AlreadyActive, Generation};

/// The code that the tenant's engine gives to a second active run.
const ALREADY_ACTIVE: &str = "AE-WF-409-03";

/// `POST W/submit`.
pub(super) fn submit(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    endpoint(call)?;
    let name = named(tenant, call)?;
    start_run(tenant, call, name)
}

/// `POST workflows/triggerAsOwner`: the run is the owner's, whoever asks.
pub(super) fn trigger_as_owner(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let name = named(tenant, call)?;
    let owner = tenant.workflows.get(name).map(|workflow| &workflow.owner).ok_or_else(|| not_found(name))?;
    let by = tenant.principals.iter().find(|principal| principal.username == *owner).cloned();
    let by = by.ok_or_else(|| Refusal::new(400, format!("{owner}, who owns {name}, does not exist")))?;
    launch(tenant, call, name, "triggerAsOwner", &by)
}

/// The template that a body names.
fn named<'a>(tenant: &Tenant, call: &'a Call) -> Result<&'a str, Refusal> {
    if text(&call.body, "resourceKind")? != "WorkflowTemplate" {
        return Err(Refusal::new(400, "resourceKind must be WorkflowTemplate"));
    }
    let (namespace, name) = (text(&call.body, "namespace")?, text(&call.body, "resourceName")?);
    if namespace != "default" {
        return Err(not_found(name));
    }
    refuse_native(tenant, name)?;
    Ok(name)
}

/// Starts a run of a stored template; its document is the answer, or only its id where the Automation Engine runs it.
pub(super) fn start_run(tenant: &mut Tenant, call: &Call, name: &str) -> Reply {
    launch(tenant, call, name, endpoint(call)?, &call.principal)
}

/// Who starts a run, through which endpoint, and when.
pub(super) struct Start<'a> {
    pub(super) by: &'a Arc<Principal>,
    pub(super) endpoint: &'a str,
    pub(super) request_id: Option<String>,
    /// Creation time of the run, Unix milliseconds.
    pub(super) at: i64,
    pub(super) directives: &'a Directives,
}

fn launch(tenant: &mut Tenant, call: &Call, name: &str, endpoint: &str, by: &Arc<Principal>) -> Reply {
    template_of(tenant, name)?;
    if let Some(active) = tenant.runs.active(name) {
        refuse_second(tenant.settings.already_active, name, &active.name)?;
    }
    let request_id = call.request_id.clone();
    let start = Start { by, endpoint, request_id, at: call.now, directives: &call.directives };
    let run = begin(tenant, name, start)?;
    if run.engine {
        return Ok(json!({ "run_id": run.name }));
    }
    Ok(run.document(call.now).expect("a run exists from its creation on"))
}

fn template_of<'a>(tenant: &'a Tenant, name: &str) -> Result<(&'a Workflow, &'a Value), Refusal> {
    let workflow = tenant.workflows.get(name).ok_or_else(|| not_found(name))?;
    let template = workflow.document.current().as_ref().ok_or_else(|| not_found(name))?;
    Ok((workflow, template))
}

/// Starts a run of a stored template, whether or not one is active.
pub(super) fn begin(tenant: &mut Tenant, name: &str, start: Start<'_>) -> Result<Run, Refusal> {
    let (workflow, template) = template_of(tenant, name)?;
    let grant = GrantRequest::of_template(template).filter(|_| !start.directives.swallow_grant);
    let running_at = start.at.saturating_add(tenant.settings.pending);
    let engine = tenant.settings.native_engine;
    let run = Run {
        name: if engine { tenant.runs.next_engine_id() } else { tenant.runs.next_name(name) },
        workflow: name.to_owned(),
        engine,
        by: start.by.clone(),
        created_at: start.at,
        running_at,
        ends_at: running_at.saturating_add(tenant.settings.running),
        end: start.directives.end_as.clone().unwrap_or_else(|| workflow.end.clone()),
        stopped_at: None,
        grant,
    };
    let what = What::RunSubmitted {
        run: run.name.clone(),
        workflow: name.to_owned(),
        by: start.by.username.clone(),
        endpoint: start.endpoint.to_owned(),
        request_id: start.request_id,
    };
    tenant.runs.add(run.clone());
    tenant.ledger.record(start.at, what);
    Ok(run)
}

/// Refuses a second active run of a workflow, in the way that was chosen, or not at all.
pub(super) fn refuse_second(how: AlreadyActive, workflow: &str, active: &str) -> Result<(), Refusal> {
    let message = format!("workflow {workflow} already has an active run: {active}");
    match how {
        AlreadyActive::Allow => Ok(()),
        AlreadyActive::Conflict409 => Err(Refusal::coded(409, ALREADY_ACTIVE, message)),
        AlreadyActive::Masked500 => {
            Err(Refusal::new(500, format!("automation engine answered 409: {{\"code\":\"{ALREADY_ACTIVE}\"}} {message}")))
        }
    }
}

/// On a native tenant the templates of packages are gone, and so is every workflow made of one.
pub(super) fn refuse_native(tenant: &Tenant, template: &str) -> Result<(), Refusal> {
    match tenant.settings.generation {
        Generation::Argo => Ok(()),
        Generation::Native => Err(Refusal::new(404, format!("clusterworkflowtemplates.argoproj.io \"{template}\" not found"))),
    }
}

/// The endpoint's name, if it serves this caller: members have only the package endpoint.
pub(super) fn endpoint(call: &Call) -> Result<&'static str, Refusal> {
    if call.path.contains("/package-workflows") {
        Ok("package-workflows")
    } else if call.principal.uses_workflows() {
        Ok("workflows")
    } else {
        let message = format!(
            "{} has role {}, which the workflows endpoint does not serve",
            call.principal.username, call.principal.role.name
        );
        Err(Refusal::new(403, message))
    }
}

pub(super) fn not_found(name: &str) -> Refusal {
    Refusal::new(404, format!("workflowtemplates.argoproj.io \"{name}\" not found"))
}

pub(super) fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str, Refusal> {
    let text = object.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.ok_or_else(|| Refusal::new(400, format!("{key} must be a string, not empty")))
}
