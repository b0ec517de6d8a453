//! Schedules of workflows, shown as the cron runs that they are to a tenant. Nothing runs by them.

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Value, json};

use super::answer::{Refusal, Reply};
use super::state::{Call, SharedTenant, Tenant, route};
use super::time;

/// What a schedule's name has more than its workflow's.
const SUFFIX: &str = "-cron";

/// The package of workflows that run a saved query by a schedule.
const SCHEDULE_QUERY: &str = "@atlan/schedule-query";

/// `GET runs/cron`, `GET runs/cron/<workflow>-cron`, and what schedule queries did between two dates.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new()
        .route("/runs/cron", route(MethodFilter::GET, list))
        .route("/runs/cron/{name}", route(MethodFilter::GET, get))
        .route("/runs/cron/scheduleQueriesBetweenDuration", route(MethodFilter::GET, queries_between))
        .route("/runs/cron/missedScheduleQueriesBetweenDuration", route(MethodFilter::GET, queries_missed))
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

/// The runs of schedule queries that were created between two dates; null for none.
fn queries_between(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let (from, to) = duration(call)?;
    let queries = schedule_queries(tenant);
    let runs: Vec<Value> = tenant
        .runs
        .between(from, to)
        .filter(|run| queries.iter().any(|(name, _)| **name == run.workflow))
        .filter_map(|run| run.document(call.now))
        .collect();
    Ok(if runs.is_empty() { Value::Null } else { json!(runs) })
}

/// The schedule queries with a schedule and without a run between two dates; null for none.
fn queries_missed(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let (from, to) = duration(call)?;
    let ran = |name: &str| tenant.runs.between(from, to).any(|run| run.workflow == name);
    let queries = schedule_queries(tenant);
    let scheduled = queries.into_iter().filter(|(name, template)| cron(template).is_some() && !ran(name));
    let missed: Vec<Value> = scheduled
        .map(|(name, template)| {
            json!({ "metadata": template["metadata"], "spec": { "workflowTemplateRef": { "name": name } },
                "status": { "phase": null, "message": "missed" } })
        })
        .collect();
    Ok(if missed.is_empty() { Value::Null } else { json!(missed) })
}

fn schedule_queries(tenant: &Tenant) -> Vec<(&String, &Value)> {
    let stored = tenant.workflows.iter().filter_map(|(name, workflow)| Some((name, workflow.document.current().as_ref()?)));
    stored.filter(|(_, template)| template["metadata"]["annotations"]["package.argoproj.io/name"] == SCHEDULE_QUERY).collect()
}

/// `startDate` and `endDate`, in ISO 8601.
fn duration(call: &Call) -> Result<(i64, i64), Refusal> {
    let date = |name: &str| {
        let text = call.query(name).ok_or_else(|| Refusal::new(400, format!("{name} is missing")))?;
        time::parse(text).ok_or_else(|| Refusal::new(400, format!("{name} is no date: {text:?}")))
    };
    Ok((date("startDate")?, date("endDate")?))
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
