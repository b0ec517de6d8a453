//! The apps' part of what a native tenant holds when it starts. The table stands in the documentation of the sandbox.

use std::sync::Arc;

use serde_json::json;

use super::Apps;
use super::runs::AppRun;
use super::workflows::AppWorkflow;
use crate::sandbox::identity::Principal;
use crate::sandbox::runs::Ending;

/// When the oldest workflow was created: 2026-01-01T00:00:00Z.
const EPOCH: i64 = 1_767_225_600_000;
const HOUR: i64 = 3_600_000;

/// Slug, name, app, entrypoint, and how runs end.
type Row = (&'static str, &'static str, &'static str, Option<&'static str>, Ending);

fn rows() -> [Row; 7] {
    let crawler = Some("crawler");
    let failing = Ending::failed("extract failed: could not connect to server: Connection refused");
    [
        ("bq-prod-3f9ab2c1", "bq-prod", "bigquery-crawler", crawler, Ending::succeeded()),
        ("snowflake-prod-5d01c7aa", "snowflake-prod", "snowflake-crawler", crawler, Ending::succeeded()),
        ("snowflake-queries-77e3b0f4", "snowflake-queries", "snowflake-miner", Some("miner"), Ending::succeeded()),
        ("postgres-crm-18c2d9e6", "postgres-crm", "postgres-crawler", crawler, failing),
        ("redshift-dwh-9a4be150", "redshift-dwh", "redshift-crawler", crawler, Ending::succeeded()),
        ("tableau-sales-0b6f8d23", "tableau-sales", "atlan-tableau", None, Ending::succeeded()),
        ("tableau-sales-6ce1a94f", "tableau-sales", "atlan-tableau", None, Ending::succeeded()),
    ]
}

/// The seeded workflows and runs of a native tenant that starts at `now`, all of `owner`. The long run began `began`
/// milliseconds before, and ends `running` milliseconds later.
pub(in crate::sandbox) fn apps(owner: &Arc<Principal>, now: i64, began: i64, running: i64) -> Apps {
    let mut apps = Apps::default();
    for ((slug, name, app, entrypoint, end), number) in rows().into_iter().zip(0..) {
        let created_at = EPOCH + number * HOUR;
        let workflow = AppWorkflow {
            number: 0,
            name: name.to_owned(),
            app: app.to_owned(),
            entrypoint: entrypoint.map(str::to_owned),
            inputs: json!({ "connection": { "attributes": { "qualifiedName": format!("default/{name}/1767225600") } } }),
            owner: owner.username.clone(),
            version: created_at / 1_000,
            created_at,
            updated_at: created_at,
            schedules: Vec::new(),
            end,
        };
        apps.add(Some(slug), workflow);
    }
    let old = EPOCH + 8 * HOUR;
    for (slug, created_at, ends_at) in
        [("bq-prod-3f9ab2c1", old, old + 75_000), ("redshift-dwh-9a4be150", now.saturating_sub(began), now.saturating_add(running))]
    {
        let id = apps.runs.next_id();
        if let Some(workflow) = apps.workflows.get(slug) {
            let run = AppRun {
                id,
                slug: slug.to_owned(),
                name: workflow.name.clone(),
                app: workflow.app.clone(),
                version: workflow.version,
                by: owner.clone(),
                created_at,
                running_at: created_at,
                ends_at,
                end: workflow.end.clone(),
                cancelled: None,
            };
            apps.runs.add(run);
        }
    }
    apps
}
