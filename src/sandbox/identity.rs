//! Who calls: principals, users and roles, and the routes that tell of them.

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Value, json};

use super::answer::{Refusal, Reply};
use super::listing;
use super::state::{Call, SharedTenant, Tenant, route};

/// A role of the tenant.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    description: &'static str,
    level: &'static str,
}

pub(super) static ADMIN: Role =
    Role { id: "a0000000-0000-4000-8000-000000000001", name: "$admin", description: "Admin", level: "workspace" };
pub(super) static MEMBER: Role =
    Role { id: "a0000000-0000-4000-8000-000000000002", name: "$member", description: "Member", level: "workspace" };
pub(super) static GUEST: Role =
    Role { id: "a0000000-0000-4000-8000-000000000003", name: "$guest", description: "Guest", level: "workspace" };
pub(super) static CONNECTION_ADMINS: Role = Role {
    id: "a0000000-0000-4000-8000-000000000004",
    name: "$admin_connections",
    description: "Admins (Connections)",
    level: "admin-subrole",
};
pub(super) static API_TOKEN: Role = Role {
    id: "a0000000-0000-4000-8000-000000000005",
    name: "$api-token-default-access",
    description: "API token default access",
    level: "client",
};

/// Somebody who can have a bearer.
#[derive(Debug)]
pub(super) struct Principal {
    pub(super) user_id: String,
    pub(super) username: String,
    pub(super) email: String,
    pub(super) role: &'static Role,
}

impl Principal {
    /// Who has not logged in yet.
    pub(super) fn nobody() -> Arc<Self> {
        Arc::new(Self { user_id: String::new(), username: "nobody".to_owned(), email: String::new(), role: &GUEST })
    }

    /// Callers whose name says that they are no person.
    pub(super) fn is_service_account(&self) -> bool {
        self.username.starts_with("service-account-")
    }

    /// Callers that the legacy `workflows` endpoints serve; others have `package-workflows`.
    pub(super) fn uses_workflows(&self) -> bool {
        [ADMIN.name, API_TOKEN.name].contains(&self.role.name)
    }

    /// Callers that may manage OAuth clients and API tokens.
    pub(super) fn may_manage(&self) -> bool {
        [ADMIN.name, API_TOKEN.name].contains(&self.role.name)
    }

    /// Callers that may administer a connection without being named in its list.
    pub(super) fn may_administer_by_role(&self, strict: bool) -> bool {
        self.role.name == CONNECTION_ADMINS.name || (!strict && [ADMIN.name, API_TOKEN.name].contains(&self.role.name))
    }
}

/// A 403 for callers that may not manage credentials.
pub(super) fn managing(call: &Call) -> Result<(), Refusal> {
    if call.principal.may_manage() {
        return Ok(());
    }
    let Principal { username, role, .. } = &*call.principal;
    Err(Refusal::new(403, format!("{username} has role {}, which may not manage credentials", role.name)))
}

/// The roles that people and OAuth clients are given.
static GRANTED: [&Role; 4] = [&ADMIN, &MEMBER, &GUEST, &CONNECTION_ADMINS];

/// The role of this name that can be given.
pub(super) fn role(name: &str) -> Option<&'static Role> {
    GRANTED.into_iter().find(|role| role.name == name)
}

/// A user as the preflight knows him.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) username: String,
    pub(super) enabled: bool,
    /// Qualified names of the connections to which the user may publish.
    pub(super) publishes_to: Vec<String>,
}

/// `GET whoami` and `GET roles`.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new().route("/whoami", route(MethodFilter::GET, whoami)).route("/roles", route(MethodFilter::GET, roles))
}

#[expect(clippy::unnecessary_wraps, reason = "every route has this type")]
fn whoami(_: &mut Tenant, call: &Call, _: &str) -> Reply {
    let who = &call.principal;
    Ok(json!({ "userId": who.user_id, "username": who.username, "email": who.email,
               "roles": [{ "id": who.role.id, "name": who.role.name }] }))
}

fn roles(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let records: Vec<Value> = GRANTED
        .into_iter()
        .map(|role| {
            let members = tenant.principals.iter().filter(|who| who.role.name == role.name && !who.is_service_account());
            let members = members.count();
            json!({ "id": role.id, "name": role.name, "description": role.description, "clientRole": false,
                    "level": role.level, "memberCount": members.to_string() })
        })
        .collect();
    listing::answer(call, records, &["id", "name", "level", "description"])
}
