//! The native generation's own surface, `/v1/app`: apps, the workflows made of them, their schedules and runs.

mod catalog;
mod contract;
mod runs;
mod schedules;
mod seed;
mod workflows;

use std::collections::BTreeMap;

use axum::Router;
use axum::routing::MethodFilter;

use super::state::{SharedTenant, Tenant, route};

pub(super) use runs::{AppRuns, begin};
pub(super) use seed::apps;
pub(super) use workflows::AppWorkflow;

/// What a native tenant holds of apps; on an argo tenant it is empty.
#[derive(Debug, Default)]
pub(super) struct Apps {
    /// Workflows by slug.
    workflows: BTreeMap<String, AppWorkflow>,
    /// Workflows made so far, the deleted ones too: the next one's number.
    made: u64,
    /// Schedules made so far.
    scheduled: u64,
    pub(super) runs: AppRuns,
}

/// The id of the active run of a workflow.
pub(super) fn active(tenant: &Tenant, slug: &str, now: i64) -> Option<String> {
    tenant.apps.runs.active(slug, now).map(|run| run.id.clone())
}

/// Everything below `v1/app` and `v1/apps` but its runs.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new()
        .route("/v1/apps/{app}", route(MethodFilter::GET, catalog::describe))
        .route("/v1/apps/{app}/inputs", route(MethodFilter::GET, catalog::inputs))
        .route("/v1/app", route(MethodFilter::POST, workflows::create).merge(route(MethodFilter::GET, workflows::list)))
        .route(
            "/v1/app/{slug}",
            route(MethodFilter::GET, workflows::get)
                .merge(route(MethodFilter::PUT, workflows::update))
                .merge(route(MethodFilter::DELETE, workflows::delete)),
        )
        .route("/v1/app/{slug}/submit", route(MethodFilter::POST, runs::submit))
        .route("/v1/app/{slug}/schedule", route(MethodFilter::POST, schedules::add))
        .route("/v1/app/{slug}/schedule/{trigger}", route(MethodFilter::DELETE, schedules::remove))
}
