//! Schedules of workflows, shown as the cron runs that they are to a tenant. Nothing runs by them.

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Value, json};

use super::answer::{Refusal, Reply};
use super::state::{Call, SharedTenant, Tenant, route};

/// What a schedule's name has more than its workflow's.
const SUFFIX: &str = "-cron";

/// `GET runs/cron` and `GET runs/cron/<workflow>-cron`.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new().route("/runs/cron", route(MethodFilter::GET, list)).route("/runs/cron/{name}", route(MethodFilter::GET, get))
}

#[expect(clippy::unnecessary_wraps, reason = "every route has this type")]
fn list(tenant: &mut Tenant, _: &Call, _: &str) -> Reply {
    let items: Vec<Value> = tenant.workflows.values().filter_map(|workflow| cron(workflow.document.current().as_ref()?)).collect();
    Ok(json!({ "items": items }))
}

fn get(tenant: &mut Tenant, _: &Call, name: &str) -> Reply {
    let workflow = name.strip_suffix(SUFFIX).and_then(|name| tenant.workflows.get(name));
    let document = workflow.and_then(|workflow| workflow.document.current().as_ref());
    document.and_then(cron).ok_or_else(|| Refusal::new(404, format!("cronworkflows.argoproj.io \"{name}\" not found")))
}

/// The schedule that stands in a template's annotations; a time zone alone is none.
fn cron(template: &Value) -> Option<Value> {
    let metadata = &template["metadata"];
    let annotations = &metadata["annotations"];
    let schedule = annotations["orchestration.atlan.com/schedule"].as_str()?;
    let name = metadata["name"].as_str()?;
    Some(json!({
        "metadata": { "name": format!("{name}{SUFFIX}"), "namespace": "default", "uid": format!("uid-{name}{SUFFIX}"),
            "resourceVersion": metadata["resourceVersion"], "generation": metadata["generation"],
            "creationTimestamp": metadata["creationTimestamp"], "labels": metadata["labels"], "annotations": annotations },
        "spec": { "schedule": schedule, "timezone": annotations["orchestration.atlan.com/timezone"],
            "workflowSpec": { "workflowTemplateRef": { "name": name } }, "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 0, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 3 },
        "status": { "active": [], "conditions": [], "lastScheduledTime": null },
        "workflowMetadata": { "labels": metadata["labels"], "annotations": annotations },
    }))
}
