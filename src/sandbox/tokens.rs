//! API tokens.

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Value, json};

use super::answer::Reply;
use super::listing;
use super::state::{Call, SharedTenant, Tenant, route};

/// An API token. Its user name is `service-account-` and the client id; its guid is another thing.
#[derive(Debug)]
pub(super) struct ApiToken {
    pub(super) guid: String,
    pub(super) client_id: String,
    pub(super) display_name: String,
    pub(super) created_at: i64,
}

impl ApiToken {
    pub(super) fn username(&self) -> String {
        format!("service-account-{}", self.client_id)
    }

    fn record(&self) -> Value {
        json!({ "id": self.guid, "clientId": self.client_id, "displayName": self.display_name,
            "attributes": { "access.token.lifespan": "157680000", "clientId": self.client_id,
                "createdAt": self.created_at.to_string(), "createdBy": "jane", "description": "",
                "displayName": self.display_name, "personaQualifiedName": "[]", "personas": "[]",
                "workspacePermissions": "[]" } })
    }
}

/// `GET apikeys`.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new().route("/apikeys", route(MethodFilter::GET, list))
}

fn list(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let records = tenant.tokens.iter().map(ApiToken::record).collect();
    listing::answer(call, records, &["id", "clientId", "displayName"])
}
