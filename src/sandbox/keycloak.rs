//! Keycloak: access tokens by `client_credentials` and by token exchange, and the two admin reads that the vendor's client makes.
//! Its clients are the seeded ones and every API token.

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Value, json};

use super::answer::{Refusal, Reply};
use super::identity::{ADMIN, MEMBER, Principal};
use super::keys::{Issued, Kind};
use super::state::{Call, SharedTenant, Tenant, route};
use super::{jwt, keys};

/// How long its tokens live where nothing else is said, in seconds.
const TOKEN_SECONDS: i64 = 300;
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// A client with a service account.
#[derive(Debug)]
pub(super) struct KeycloakClient {
    pub(super) guid: String,
    pub(super) client_id: String,
    pub(super) secret: String,
    /// Whether it may become any user, and read the secrets of other clients.
    pub(super) impersonates: bool,
    pub(super) principal: Arc<Principal>,
}

/// Who asks for a token.
struct Caller {
    client_id: String,
    impersonates: bool,
    principal: Arc<Principal>,
}

/// `/auth/realms/default` and `/auth/admin/realms/default`.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new()
        .route("/realms/default/protocol/openid-connect/token", route(MethodFilter::POST, token))
        .route("/admin/realms/default/clients/{guid}/client-secret", route(MethodFilter::GET, client_secret))
        .route("/admin/realms/default/users", route(MethodFilter::GET, users))
}

/// Needs no bearer; the body is a form.
fn token(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let caller = caller(tenant, call)?;
    match field(call, "grant_type")? {
        "client_credentials" => {
            let principal = caller.principal.clone();
            Ok(issue(tenant, call, &caller, principal))
        }
        EXCHANGE => {
            let principal = exchanged(tenant, call, &caller)?;
            Ok(issue(tenant, call, &caller, principal))
        }
        other => Err(Refusal::keycloak(400, "unsupported_grant_type", format!("Unsupported grant_type {other}"))),
    }
}

fn caller(tenant: &Tenant, call: &Call) -> Result<Caller, Refusal> {
    let (client_id, secret) = (field(call, "client_id")?, field(call, "client_secret")?);
    let client = tenant.keycloak.iter().find(|client| client.client_id == client_id && client.secret == secret);
    let client = client.map(|client| (client.impersonates, client.principal.clone()));
    let token = || tenant.tokens.iter().find(|token| token.client_id == client_id && token.secret == secret);
    let found = client.or_else(|| token().map(|token| (false, token.principal())));
    let (impersonates, principal) =
        found.ok_or_else(|| Refusal::keycloak(401, "unauthorized_client", "Invalid client or Invalid client credentials"))?;
    Ok(Caller { client_id: client_id.to_owned(), impersonates, principal })
}

/// The user that a client asks to become.
fn exchanged(tenant: &Tenant, call: &Call, caller: &Caller) -> Result<Arc<Principal>, Refusal> {
    let denied = |description: &str| Refusal::keycloak(403, "access_denied", description);
    if tenant.keys.client(field(call, "subject_token")?, call.now) != Some(caller.client_id.as_str()) {
        return Err(Refusal::keycloak(400, "invalid_token", "Invalid token"));
    }
    let subject = field(call, "requested_subject")?;
    let user = tenant.users.iter().find(|user| user.id == subject).filter(|_| caller.impersonates);
    let user = user.ok_or_else(|| denied("Client not allowed to exchange"))?;
    if !user.enabled {
        return Err(denied("User disabled"));
    }
    let known = tenant.principals.iter().find(|principal| principal.user_id == user.id);
    Ok(known.cloned().unwrap_or_else(|| {
        let (user_id, username) = (user.id.clone(), user.username.clone());
        Arc::new(Principal { user_id, email: format!("{username}@example.com"), username, role: &MEMBER })
    }))
}

fn issue(tenant: &mut Tenant, call: &Call, caller: &Caller, principal: Arc<Principal>) -> Value {
    let seconds = tenant.settings.token_seconds.unwrap_or(TOKEN_SECONDS);
    let issued_at = call.now.div_euclid(1_000);
    let scope = if call.body["scope"] == "openid" { "openid email profile" } else { "email profile" };
    let bearer = jwt::token(&json!({ "exp": issued_at.saturating_add(seconds), "iat": issued_at, "jti": keys::guid(),
        "iss": "http://sandbox/auth/realms/default", "sub": principal.user_id, "typ": "Bearer", "azp": caller.client_id,
        "preferred_username": principal.username, "scope": scope }));
    let until = call.now.saturating_add(seconds.saturating_mul(1_000));
    let issued = Issued { client_id: caller.client_id.clone(), until, kind: Kind::AccessToken };
    tenant.keys.issue(bearer.clone(), principal, issued, call.now);
    json!({ "access_token": bearer, "expires_in": seconds, "refresh_expires_in": 0, "token_type": "Bearer",
        "not-before-policy": 0, "scope": scope })
}

fn client_secret(tenant: &mut Tenant, call: &Call, guid: &str) -> Reply {
    administering(tenant, call)?;
    let client = tenant.keycloak.iter().find(|client| client.guid == guid).map(|client| &client.secret);
    let token = || tenant.tokens.iter().find(|token| token.guid == guid).map(|token| &token.secret);
    let secret = client.or_else(token).ok_or_else(|| Refusal::keycloak(404, "Could not find client", ""))?;
    Ok(json!({ "type": "secret", "value": secret }))
}

/// Users by their whole name.
fn users(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    administering(tenant, call)?;
    let wanted = call.query("username").ok_or_else(|| Refusal::keycloak(400, "invalid_request", "username is missing"))?;
    let user = tenant.users.iter().find(|user| user.username == wanted).map(|user| (&user.id, user.enabled));
    let principal = || tenant.principals.iter().find(|principal| principal.username == wanted);
    let found = user.or_else(|| principal().map(|principal| (&principal.user_id, true)));
    Ok(found.into_iter().map(|(id, enabled)| json!({ "id": id, "username": wanted, "enabled": enabled })).collect())
}

/// Admins and the clients that may become anyone.
fn administering(tenant: &Tenant, call: &Call) -> Result<(), Refusal> {
    let username = &call.principal.username;
    let client = tenant.keycloak.iter().any(|client| client.impersonates && client.principal.username == *username);
    if client || call.principal.role.name == ADMIN.name {
        Ok(())
    } else {
        Err(Refusal::keycloak(403, "HTTP 403 Forbidden", format!("{username} may not read this")))
    }
}

fn field<'a>(call: &'a Call, name: &str) -> Result<&'a str, Refusal> {
    let value = call.body.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
    value.ok_or_else(|| Refusal::keycloak(400, "invalid_request", format!("Missing form parameter: {name}")))
}
