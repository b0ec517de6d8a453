//! Schedules of workflows. They are kept and shown; nothing runs by them.

use serde_json::{Value, json};

use crate::sandbox::answer::{Refusal, Reply};
use crate::sandbox::ledger::What;
use crate::sandbox::state::{Call, Tenant};
use crate::sandbox::submit::text;

/// So many schedules one workflow can have.
const MAX_SCHEDULES: usize = 100;

/// One schedule of a workflow.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) trigger: String,
    pub(super) cron: String,
    pub(super) timezone: String,
}

impl Schedule {
    pub(super) fn json(&self) -> Value {
        json!({ "trigger_id": self.trigger, "cron": self.cron, "timezone": self.timezone })
    }
}

/// Cron and time zone of a body; neither may be null.
pub(super) fn read(body: &Value) -> Result<(&str, &str), Refusal> {
    let (cron, timezone) = (text(body, "cron")?, text(body, "timezone")?);
    if cron.split_whitespace().count() == 5 {
        Ok((cron, timezone))
    } else {
        Err(Refusal::new(400, format!("cron must have five fields: {cron:?}")))
    }
}

/// `POST v1/app/<slug>/schedule`.
pub(super) fn add(tenant: &mut Tenant, call: &Call, slug: &str) -> Reply {
    let (cron, timezone) = read(&call.body)?;
    attach(tenant, call, slug, cron, timezone)
}

pub(super) fn attach(tenant: &mut Tenant, call: &Call, slug: &str, cron: &str, timezone: &str) -> Reply {
    let trigger = format!("trigger-{}", tenant.apps.scheduled + 1);
    let workflow = tenant.apps.workflow(slug)?;
    if workflow.schedules.len() >= MAX_SCHEDULES {
        return Err(Refusal::new(400, format!("a workflow of the sandbox has at most {MAX_SCHEDULES} schedules")));
    }
    let schedule = Schedule { trigger: trigger.clone(), cron: cron.to_owned(), timezone: timezone.to_owned() };
    let answer = schedule.json();
    workflow.schedules.push(schedule);
    tenant.apps.scheduled += 1;
    let (slug, cron, timezone) = (slug.to_owned(), cron.to_owned(), timezone.to_owned());
    let by = call.principal.username.clone();
    tenant.ledger.record(call.now, What::AppScheduled { slug, trigger, cron, timezone, by });
    Ok(answer)
}

/// `DELETE v1/app/<slug>/schedule/<trigger>`.
pub(super) fn remove(tenant: &mut Tenant, call: &Call, slug: &str) -> Reply {
    let trigger = call.path.rsplit('/').next().unwrap_or_default();
    let workflow = tenant.apps.workflow(slug)?;
    let Some(index) = workflow.schedules.iter().position(|schedule| schedule.trigger == trigger) else {
        return Err(Refusal::new(404, format!("workflow {slug} has no schedule {trigger}")));
    };
    workflow.schedules.remove(index);
    let what = What::AppUnscheduled { slug: slug.to_owned(), trigger: trigger.to_owned(), by: call.principal.username.clone() };
    tenant.ledger.record(call.now, what);
    Ok(json!({ "trigger_id": trigger, "deleted": true }))
}
