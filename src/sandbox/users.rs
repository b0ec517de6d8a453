//! The people of the tenant and their groups, as the vendor's client lists them to check names.

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Value, json};

use super::answer::{Refusal, Reply};
use super::identity::{MEMBER, User};
use super::listing;
use super::state::{Call, SharedTenant, Tenant, route};

/// When every user and group was created: 2023-05-19T12:46:51Z.
const CREATED_AT: i64 = 1_684_500_411_000;

/// A group of users.
struct Group {
    id: &'static str,
    name: &'static str,
    alias: &'static str,
    members: &'static [&'static str],
}

static GROUPS: [Group; 2] = [
    Group { id: "90000000-0000-4000-8000-0000000000a1", name: "data_stewards", alias: "Data Stewards", members: &["jane", "noah"] },
    Group { id: "90000000-0000-4000-8000-0000000000a2", name: "engineers", alias: "Engineers", members: &["joe"] },
];

/// Users, the caller among them, and groups.
pub(super) fn routes() -> Router<SharedTenant> {
    let groups = || route(MethodFilter::GET, groups);
    Router::new()
        .route("/users", route(MethodFilter::GET, users))
        .route("/users/current", route(MethodFilter::GET, current))
        .route("/users/{guid}/groups", route(MethodFilter::GET, groups_of))
        .route("/groups", groups())
        .route("/v2/groups", groups())
        .route("/groups/{guid}/members", route(MethodFilter::GET, members))
}

fn user(tenant: &Tenant, user: &User) -> Value {
    let principal = tenant.principals.iter().find(|principal| principal.username == user.username);
    let role = principal.map_or(&MEMBER, |principal| principal.role);
    let groups = GROUPS.iter().filter(|group| group.members.contains(&user.username.as_str())).count();
    json!({ "id": user.id, "username": user.username, "email": format!("{}@example.com", user.username), "emailVerified": true,
        "enabled": user.enabled, "firstName": user.username, "lastName": "Sandbox", "workspaceRole": role.name,
        "roles": [role.name], "defaultRoles": ["default-roles-default"], "groupCount": groups, "personas": [], "attributes": {},
        "createdTimestamp": CREATED_AT, "lastLoginTime": null, "loginEvents": [], "isLocked": false })
}

fn users(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let records = tenant.users.iter().map(|one| user(tenant, one)).collect();
    listing::answer(call, records, &["id", "username", "email", "enabled", "workspaceRole"])
}

/// The caller, who need not be a person.
#[expect(clippy::unnecessary_wraps, reason = "every route has this type")]
fn current(_: &mut Tenant, call: &Call, _: &str) -> Reply {
    let who = &call.principal;
    Ok(json!({ "id": who.user_id, "username": who.username, "email": who.email, "emailVerified": true, "enabled": true,
        "firstName": who.username, "lastName": "", "attributes": {}, "createdTimestamp": CREATED_AT, "totp": false,
        "disableableCredentialTypes": [], "requiredActions": [], "access": {} }))
}

fn group(group: &Group) -> Value {
    let attributes = json!({ "alias": [group.alias], "createdAt": [CREATED_AT.to_string()], "createdBy": ["jane"],
        "description": [""], "isDefault": ["false"], "channels": ["[]"] });
    json!({ "id": group.id, "name": group.name, "alias": group.alias, "path": format!("/{}", group.name), "roles": [],
        "personas": [], "purposes": [], "userCount": group.members.len(), "attributes": attributes })
}

fn groups(_: &mut Tenant, call: &Call, _: &str) -> Reply {
    listing::answer(call, GROUPS.iter().map(group).collect(), &["id", "name", "alias"])
}

fn groups_of(tenant: &mut Tenant, call: &Call, guid: &str) -> Reply {
    let user = tenant.users.iter().find(|user| user.id == guid).ok_or_else(|| missing("user", guid))?;
    let own = GROUPS.iter().filter(|group| group.members.contains(&user.username.as_str()));
    listing::answer(call, own.map(group).collect(), &["id", "name", "alias"])
}

fn members(tenant: &mut Tenant, call: &Call, guid: &str) -> Reply {
    let group = GROUPS.iter().find(|group| group.id == guid).ok_or_else(|| missing("group", guid))?;
    let members = tenant.users.iter().filter(|user| group.members.contains(&user.username.as_str()));
    listing::answer(call, members.map(|one| user(tenant, one)).collect(), &["id", "username", "email"])
}

fn missing(what: &str, guid: &str) -> Refusal {
    Refusal::new(404, format!("{what} {guid} does not exist"))
}
