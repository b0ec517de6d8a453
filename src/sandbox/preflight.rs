//! The publish preflight: may this user publish to this connection? A failed verdict is still a 200.

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::json;

use super::answer::{Refusal, Reply};
use super::state::{Call, SharedTenant, Tenant, route};

/// `POST workflows/preflight/user-publish-check`.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new().route("/workflows/preflight/user-publish-check", route(MethodFilter::POST, check))
}

fn check(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    if !call.principal.is_service_account() {
        return Err(Refusal::new(403, "the publish preflight is open to service accounts only"));
    }
    let text = |key: &str| {
        let value = call.body.get(key).ok_or_else(|| Refusal::new(400, format!("{key} is missing")))?;
        value.as_str().ok_or_else(|| Refusal::new(400, format!("{key} must be a string")))
    };
    let (user_id, connection) = (text("user_id")?, text("connection_qualified_name")?);
    let Some(user) = tenant.users.iter().find(|user| user.id == user_id) else {
        return Err(Refusal::new(404, format!("user {user_id} does not exist")));
    };
    let mut failed = Vec::new();
    if !user.enabled {
        failed.push("UserEnabled");
    }
    // Without a connection there is nothing to publish to, and only the user is checked.
    if !connection.is_empty() && !user.publishes_to.iter().any(|name| name == connection) {
        failed.push("AtlanPublishPermission");
    }
    let message = if failed.is_empty() {
        "All user publish preflight checks passed.".to_owned()
    } else {
        format!("User {user_id} failed publish preflight checks: {}", failed.join(", "))
    };
    Ok(json!({ "passed": failed.is_empty(), "failed_checks": failed, "message": message }))
}
