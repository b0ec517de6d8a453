//! Submitting a run of a stored template.

use serde_json::Value;

use super::AlreadyActive;
use super::answer::{Refusal, Reply};
use super::grant::GrantRequest;
use super::ledger::What;
use super::runs::Run;
use super::state::{Call, Tenant};

/// The code that the tenant's engine gives to a second active run.
const ALREADY_ACTIVE: &str = "AE-WF-409-03";

/// `POST W/submit`.
pub(super) fn submit(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
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
pub(super) fn start_run(tenant: &mut Tenant, call: &Call, name: &str) -> Reply {
    let endpoint = endpoint(call)?;
    let workflow = tenant.workflows.get(name).ok_or_else(|| not_found(name))?;
    let template = workflow.document.current().as_ref().ok_or_else(|| not_found(name))?;
    if let Some(active) = tenant.runs.active(name) {
        let message = format!("workflow {name} already has an active run: {}", active.name);
        match tenant.settings.already_active {
            AlreadyActive::Allow => {}
            AlreadyActive::Conflict409 => return Err(Refusal::coded(409, ALREADY_ACTIVE, message)),
            AlreadyActive::Masked500 => {
                return Err(Refusal::new(
                    500,
                    format!("automation engine answered 409: {{\"code\":\"{ALREADY_ACTIVE}\"}} {message}"),
                ));
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

/// The endpoint's name, if it serves this caller: members have only the package endpoint.
pub(super) fn endpoint(call: &Call) -> Result<&'static str, Refusal> {
    if call.path.starts_with("/api/service/package-workflows") {
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
