//! Workflows made of apps: creating, listing, reading, changing and deleting them.

use std::fmt::Write;

use serde_json::{Value, json};

use super::runs::start;
use super::schedules::{self, Schedule};
use super::{Apps, catalog};
use crate::sandbox::answer::{Refusal, Reply, status_code};
use crate::sandbox::ledger::What;
use crate::sandbox::runs::Ending;
use crate::sandbox::state::{Call, Tenant};
use crate::sandbox::submit::text;
use crate::sandbox::time;

/// So many workflows can be stored.
const MAX_WORKFLOWS: usize = 10_000;
/// So much of a name goes into the slug.
const MAX_SLUGGED: usize = 40;
const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 100;

/// A workflow under its slug.
#[derive(Debug)]
pub(in crate::sandbox) struct AppWorkflow {
    /// Counted over the tenant's life: the order of lists.
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) app: String,
    pub(super) entrypoint: Option<String>,
    pub(super) inputs: Value,
    pub(super) owner: String,
    /// Grows with each change; the epoch second, or one more than before.
    pub(super) version: i64,
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
    pub(super) schedules: Vec<Schedule>,
    /// How its runs end.
    pub(super) end: Ending,
}

impl AppWorkflow {
    fn summary(&self, slug: &str) -> Value {
        let schedules: Vec<Value> = self.schedules.iter().map(Schedule::json).collect();
        json!({ "slug": slug, "name": self.name, "version": self.version, "owner": self.owner, "app_id": self.app,
            "entrypoint": self.entrypoint, "schedules": schedules, "execution_mode": "native",
            "created_at": time::seconds(self.created_at), "updated_at": time::seconds(self.updated_at),
            "dag": { "extract": { "inputs": { "args": self.inputs } } } })
    }
}

impl Apps {
    pub(super) fn workflow(&mut self, slug: &str) -> Result<&mut AppWorkflow, Refusal> {
        self.workflows.get_mut(slug).ok_or_else(|| Refusal::new(404, format!("workflow {slug} does not exist")))
    }

    /// The slugs of a name, the newest first.
    fn named(&self, name: &str) -> Vec<(&String, &AppWorkflow)> {
        let mut found: Vec<_> = self.workflows.iter().filter(|(_, workflow)| workflow.name == name).collect();
        found.sort_by_key(|(_, workflow)| std::cmp::Reverse(workflow.number));
        found
    }

    /// Stores a workflow under a slug that none has had.
    pub(super) fn add(&mut self, slug: Option<&str>, mut workflow: AppWorkflow) -> String {
        self.made += 1;
        workflow.number = self.made;
        let slug = slug.map_or_else(|| minted(&workflow.name, self.made), str::to_owned);
        self.workflows.insert(slug.clone(), workflow);
        slug
    }
}

/// The name in lower-case letters, digits and hyphens, and eight digits that no workflow made here has had.
fn minted(name: &str, number: u64) -> String {
    let lower = name.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut slug: String = words.collect::<Vec<_>>().join("-").chars().take(MAX_SLUGGED).collect();
    // An odd factor: all eight-digit numbers come before one comes again.
    let digits = number.wrapping_mul(2_654_435_761) & 0xffff_ffff;
    write!(slug, "-{digits:08x}").expect("a string takes what is written");
    slug.trim_start_matches('-').to_owned()
}

/// `POST v1/app`: stores a workflow, schedules it where asked, and runs it unless told not to.
pub(super) fn create(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let (app, name) = (text(&call.body, "app_id")?, text(&call.body, "name")?);
    let entrypoint = optional(&call.body, "entrypoint")?;
    let run = match call.body.get("run") {
        None | Some(Value::Null) => true,
        Some(run) => run.as_bool().ok_or_else(|| Refusal::new(400, "run must be true or false"))?,
    };
    let schedule = call.body.get("schedule").filter(|schedule| !schedule.is_null()).map(schedules::read).transpose()?;
    let inputs = inputs(&call.body)?;
    let app = catalog::check(app, entrypoint, &inputs)?;
    let taken = tenant.apps.named(name);
    if !taken.is_empty() {
        return Err(already_exists(name, &taken));
    }
    if tenant.apps.workflows.len() >= MAX_WORKFLOWS {
        return Err(Refusal::new(400, format!("the sandbox stores at most {MAX_WORKFLOWS} workflows")));
    }
    let owner = call.principal.username.clone();
    let version = call.now.div_euclid(1_000);
    let workflow = AppWorkflow {
        number: 0,
        name: name.to_owned(),
        app: app.id.to_owned(),
        entrypoint: entrypoint.map(str::to_owned),
        inputs,
        owner: owner.clone(),
        version,
        created_at: call.now,
        updated_at: call.now,
        schedules: Vec::new(),
        end: Ending::succeeded(),
    };
    let slug = tenant.apps.add(None, workflow);
    tenant.ledger.record(call.now, What::AppCreated { slug: slug.clone(), name: name.to_owned(), by: owner });
    let mut answer = json!({ "execution_mode": "native", "slug": slug, "version": version });
    if let Some((cron, timezone)) = schedule {
        answer["schedule_trigger_id"] = schedules::attach(tenant, call, &slug, cron, timezone)?["trigger_id"].take();
    }
    if run {
        answer["run_id"] = start(tenant, call, &slug)?["run_id"].take();
    }
    Ok(answer)
}

/// Without a code, as tenants really answer it: only so does the vendor's client read it.
fn already_exists(name: &str, taken: &[(&String, &AppWorkflow)]) -> Refusal {
    let message = format!("a workflow with the name {name:?} already exists");
    let body = match taken {
        [(slug, workflow)] => json!({ "message": message, "slug": slug, "version": workflow.version }),
        several => {
            let slugs: Vec<&String> = several.iter().map(|(slug, _)| *slug).collect();
            json!({ "message": message, "slugs": slugs })
        }
    };
    Refusal { status: status_code(409), body }
}

/// `GET v1/app`: the newest first; the cursor is the number of the last one shown.
pub(super) fn list(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let limit = call.query_number("limit", DEFAULT_PAGE)?.clamp(1, MAX_PAGE);
    let before = match call.query("cursor").filter(|cursor| !cursor.is_empty()) {
        None => u64::MAX,
        Some(cursor) => u64::from_str_radix(cursor, 16).map_err(|_| Refusal::new(400, format!("invalid cursor {cursor:?}")))?,
    };
    let name = call.query("name").filter(|name| !name.is_empty());
    let mut shown: Vec<(&String, &AppWorkflow)> = tenant
        .apps
        .workflows
        .iter()
        .filter(|(_, workflow)| workflow.number < before && name.is_none_or(|name| name == workflow.name))
        .collect();
    shown.sort_by_key(|(_, workflow)| std::cmp::Reverse(workflow.number));
    let has_more = shown.len() > limit;
    shown.truncate(limit);
    let next = shown.last().filter(|_| has_more).map(|(_, workflow)| format!("{:x}", workflow.number));
    let workflows: Vec<Value> = shown.into_iter().map(|(slug, workflow)| workflow.summary(slug)).collect();
    Ok(json!({ "workflows": workflows, "has_more": has_more, "next_cursor": next }))
}

/// `GET v1/app/<slug>`.
pub(super) fn get(tenant: &mut Tenant, _: &Call, slug: &str) -> Reply {
    Ok(tenant.apps.workflow(slug)?.summary(slug))
}

/// `PUT v1/app/<slug>`: replaces the inputs, under a new version.
pub(super) fn update(tenant: &mut Tenant, call: &Call, slug: &str) -> Reply {
    let workflow = tenant.apps.workflow(slug)?;
    let (entrypoint, inputs) = (optional(&call.body, "entrypoint")?, inputs(&call.body)?);
    catalog::check(&workflow.app, entrypoint, &inputs)?;
    workflow.inputs = inputs;
    workflow.entrypoint = entrypoint.map(str::to_owned);
    workflow.version = call.now.div_euclid(1_000).max(workflow.version + 1);
    workflow.updated_at = call.now;
    let version = workflow.version;
    let what = What::AppUpdated { slug: slug.to_owned(), version, by: call.principal.username.clone() };
    tenant.ledger.record(call.now, what);
    Ok(json!({ "slug": slug, "version": version }))
}

/// `DELETE v1/app/<slug>`: its runs stay, an active one goes on.
pub(super) fn delete(tenant: &mut Tenant, call: &Call, slug: &str) -> Reply {
    tenant.apps.workflow(slug)?;
    tenant.apps.workflows.remove(slug);
    tenant.ledger.record(call.now, What::AppDeleted { slug: slug.to_owned(), by: call.principal.username.clone() });
    Ok(json!({ "slug": slug, "archived": true }))
}

/// A string that may be absent or null, but not empty.
fn optional<'a>(body: &'a Value, key: &str) -> Result<Option<&'a str>, Refusal> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => text(body, key).map(Some),
    }
}

fn inputs(body: &Value) -> Result<Value, Refusal> {
    body.get("inputs").cloned().ok_or_else(|| Refusal::new(400, "inputs is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_made_of_the_name_and_is_never_made_twice() {
        let slug = minted("BQ prod (EU)!", 1);
        let (words, digits) = slug.rsplit_once('-').expect("digits");
        assert_eq!((words, digits.len()), ("bq-prod-eu", 8));
        assert_ne!(minted("bq", 2), minted("bq", 3));
        assert_eq!(minted("日本", 1).len(), 8, "no letter that a slug can have");
    }
}
