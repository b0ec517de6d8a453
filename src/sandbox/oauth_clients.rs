//! OAuth clients: creating, listing, changing and purging them, and the endpoint at which they get their access tokens.

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Value, json};

use super::answer::{Refusal, Reply};
use super::identity::{Principal, Role, managing, role};
use super::keys::{self, Issued, Kind};
use super::ledger::What;
use super::state::{Call, SharedTenant, Tenant, route};
use super::submit::text;
use super::{listing, personas, time};

/// How long an access token lives where nothing else is said, in seconds.
const TOKEN_SECONDS: i64 = 600;

/// An OAuth client. Its tokens act as its principal.
#[derive(Debug)]
pub(super) struct OAuthClient {
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) secret: String,
    pub(super) display_name: String,
    pub(super) description: String,
    pub(super) personas: Vec<String>,
    /// A lifetime of its own for its tokens, in seconds.
    pub(super) token_seconds: Option<i64>,
    pub(super) created: (i64, String),
    pub(super) updated: (i64, String),
    pub(super) principal: Arc<Principal>,
}

impl OAuthClient {
    /// The principal as which the tokens of a client act.
    pub(super) fn principal(client_id: &str, role: &'static Role) -> Arc<Principal> {
        let username = format!("service-account-{client_id}");
        Arc::new(Principal { user_id: keys::guid(), email: format!("{username}@example.com"), username, role })
    }

    fn lifetime(&self, tenant: &Tenant) -> i64 {
        self.token_seconds.or(tenant.settings.token_seconds).unwrap_or(TOKEN_SECONDS)
    }

    fn record(&self, tenant: &Tenant) -> Value {
        json!({ "id": self.id, "clientId": self.client_id, "displayName": self.display_name, "description": self.description,
            "role": self.principal.role.name, "personaQNs": self.personas, "tokenExpirySeconds": self.lifetime(tenant),
            "createdAt": time::precise(self.created.0), "createdBy": self.created.1,
            "updatedAt": time::precise(self.updated.0), "updatedBy": self.updated.1 })
    }
}

/// `oauth-clients` and its token endpoint.
pub(super) fn routes() -> Router<SharedTenant> {
    let one = route(MethodFilter::GET, show).merge(route(MethodFilter::PUT, update)).merge(route(MethodFilter::DELETE, purge));
    Router::new()
        .route("/oauth-clients", route(MethodFilter::GET, list).merge(route(MethodFilter::POST, create)))
        .route("/oauth-clients/{client}", one)
        .route("/oauth-clients/token", route(MethodFilter::POST, token))
}

/// `POST oauth-clients/token`: needs no bearer.
fn token(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let (client_id, secret) = (text(&call.body, "clientId")?, text(&call.body, "clientSecret")?);
    let client = tenant.oauth_clients.iter().find(|client| client.client_id == client_id && client.secret == secret);
    let client = client.ok_or_else(|| Refusal::new(401, "the client id or the client secret is wrong"))?;
    let (seconds, principal) = (client.lifetime(tenant), client.principal.clone());
    let bearer = format!("oauth-{}", keys::secret());
    let until = call.now.saturating_add(seconds.saturating_mul(1_000));
    let issued = Issued { client_id: client_id.to_owned(), until, kind: Kind::AccessToken };
    tenant.keys.issue(bearer.clone(), principal, issued, call.now);
    Ok(json!({ "accessToken": bearer, "tokenType": "Bearer", "expiresIn": seconds }))
}

/// A client that was just created can at once log in.
fn create(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    managing(call)?;
    let display_name = text(&call.body, "displayName")?.to_owned();
    let name = text(&call.body, "role")?;
    let role = role(name).ok_or_else(|| Refusal::new(400, format!("role {name:?} does not exist")))?;
    let personas = personas::named(&tenant.personas, "personaQNs", call.body.get("personaQNs"))?;
    let client_id = format!("oauth-client-{}", keys::secret());
    let by = call.principal.username.clone();
    let client = OAuthClient {
        id: keys::guid(),
        secret: keys::secret(),
        display_name: display_name.clone(),
        description: optional(&call.body, "description")?.unwrap_or_default(),
        personas,
        token_seconds: lifetime(&call.body)?,
        created: (call.now, by.clone()),
        updated: (call.now, by.clone()),
        principal: OAuthClient::principal(&client_id, role),
        client_id: client_id.clone(),
    };
    let mut answer = client.record(tenant);
    if let Some(answer) = answer.as_object_mut() {
        // The secret stands here and nowhere else.
        answer.insert("clientSecret".to_owned(), json!(client.secret));
        answer.retain(|key, _| !["role", "personaQNs", "updatedAt", "updatedBy"].contains(&key.as_str()));
    }
    tenant.principals.push(client.principal.clone());
    tenant.oauth_clients.push(client);
    let request_id = call.request_id.clone();
    tenant.ledger.record(call.now, What::OAuthClientCreated { client: client_id, display_name, by, request_id });
    Ok(answer)
}

fn list(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    managing(call)?;
    let records = tenant.oauth_clients.iter().map(|client| client.record(tenant)).collect();
    listing::answer(call, records, &["id", "clientId", "displayName"])
}

fn show(tenant: &mut Tenant, call: &Call, client_id: &str) -> Reply {
    managing(call)?;
    let at = find(tenant, client_id)?;
    Ok(tenant.oauth_clients[at].record(tenant))
}

/// Changes only what the body gives.
fn update(tenant: &mut Tenant, call: &Call, client_id: &str) -> Reply {
    managing(call)?;
    let at = find(tenant, client_id)?;
    let given = call.body.as_object().ok_or_else(|| Refusal::new(400, "the body must be an object"))?;
    if let Some(key) = given.keys().find(|key| !["displayName", "description"].contains(&key.as_str())) {
        return Err(Refusal::new(400, format!("{key} cannot be changed")));
    }
    let display_name = optional(&call.body, "displayName")?;
    if display_name.as_deref() == Some("") {
        return Err(Refusal::new(400, "displayName must not be empty"));
    }
    let description = optional(&call.body, "description")?;
    let by = call.principal.username.clone();
    let client = &mut tenant.oauth_clients[at];
    client.display_name = display_name.unwrap_or_else(|| client.display_name.clone());
    client.description = description.unwrap_or_else(|| client.description.clone());
    client.updated = (call.now, by.clone());
    tenant.ledger.record(call.now, What::OAuthClientUpdated { client: client_id.to_owned(), by });
    Ok(tenant.oauth_clients[at].record(tenant))
}

/// Its tokens end with it.
fn purge(tenant: &mut Tenant, call: &Call, client_id: &str) -> Reply {
    managing(call)?;
    let at = find(tenant, client_id)?;
    let client = tenant.oauth_clients.remove(at);
    tenant.keys.forget(&client.principal.username);
    tenant.principals.retain(|principal| principal.username != client.principal.username);
    let by = call.principal.username.clone();
    tenant.ledger.record(call.now, What::OAuthClientPurged { client: client_id.to_owned(), by });
    Ok(Value::Null)
}

fn find(tenant: &Tenant, client_id: &str) -> Result<usize, Refusal> {
    let at = tenant.oauth_clients.iter().position(|client| client.client_id == client_id);
    at.ok_or_else(|| Refusal::new(404, format!("OAuth client {client_id} does not exist")))
}

/// A string that may be absent or null.
pub(super) fn optional(body: &Value, key: &str) -> Result<Option<String>, Refusal> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::new(400, format!("{key} must be a string"))),
    }
}

fn lifetime(body: &Value) -> Result<Option<i64>, Refusal> {
    match body.get("tokenExpirySeconds") {
        None | Some(Value::Null) => Ok(None),
        Some(given) => {
            let seconds = given.as_i64().filter(|seconds| *seconds > 0);
            seconds.map(Some).ok_or_else(|| Refusal::new(400, "tokenExpirySeconds must be a whole number above 0"))
        }
    }
}
