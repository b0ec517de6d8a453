//! API tokens. Their value is a bearer at once, and is shown by their creation alone.

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Value, json};

use super::answer::{Refusal, Reply};
use super::identity::{API_TOKEN, Principal, managing};
use super::keys::{self, Issued, Kind};
use super::ledger::What;
use super::oauth_clients::optional;
use super::state::{Call, SharedTenant, Tenant, route};
use super::submit::text;
use super::{listing, personas};

/// The longest life of a token, in seconds: five years.
pub(super) const LONGEST: i64 = 157_680_000;

/// An API token. Its user name is `service-account-` and the client id; its guid is another thing.
#[derive(Debug)]
pub(super) struct ApiToken {
    pub(super) guid: String,
    pub(super) client_id: String,
    /// Its secret as a client of Keycloak; not its value.
    pub(super) secret: String,
    pub(super) display_name: String,
    pub(super) description: String,
    /// Qualified names of its personas.
    pub(super) personas: Vec<String>,
    pub(super) lifespan: i64,
    pub(super) created_at: i64,
    pub(super) created_by: String,
}

impl ApiToken {
    pub(super) fn username(&self) -> String {
        format!("service-account-{}", self.client_id)
    }

    pub(super) fn principal(&self) -> Arc<Principal> {
        let username = self.username();
        let email = format!("{username}@example.com");
        Arc::new(Principal { user_id: self.guid.clone(), username, email, role: &API_TOKEN })
    }

    fn record(&self, personas: &[personas::Persona]) -> Value {
        let guids: Vec<_> = personas.iter().filter(|persona| self.personas.contains(&persona.qualified_name)).collect();
        let guids: Vec<_> = guids.into_iter().map(|persona| &persona.guid).collect();
        // Lists are written as JSON within a string.
        json!({ "id": self.guid, "clientId": self.client_id, "displayName": self.display_name,
            "attributes": { "access.token.lifespan": self.lifespan.to_string(), "clientId": self.client_id,
                "createdAt": self.created_at.to_string(), "createdBy": self.created_by, "description": self.description,
                "displayName": self.display_name, "personaQualifiedName": json!(self.personas).to_string(),
                "personas": json!(guids).to_string(), "workspacePermissions": "[]" } })
    }
}

/// `apikeys`.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new()
        .route("/apikeys", route(MethodFilter::GET, list).merge(route(MethodFilter::POST, create)))
        .route("/apikeys/{guid}", route(MethodFilter::POST, update).merge(route(MethodFilter::DELETE, purge)))
}

fn list(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let records = tenant.tokens.iter().map(|token| token.record(&tenant.personas)).collect();
    listing::answer(call, records, &["id", "clientId", "displayName"])
}

/// The value of the token stands in this answer and nowhere else.
fn create(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    managing(call)?;
    let by = call.principal.username.clone();
    let token = ApiToken {
        guid: keys::guid(),
        client_id: format!("apikey-{}", keys::guid()),
        secret: keys::secret(),
        display_name: text(&call.body, "displayName")?.to_owned(),
        description: optional(&call.body, "description")?.unwrap_or_default(),
        personas: linked(tenant, call)?,
        lifespan: validity(&call.body)?,
        created_at: call.now,
        created_by: by.clone(),
    };
    let value = format!("apitoken-{}", keys::secret());
    let until = call.now.saturating_add(token.lifespan.saturating_mul(1_000));
    let issued = Issued { client_id: token.client_id.clone(), until, kind: Kind::ApiToken };
    let principal = token.principal();
    tenant.keys.issue(value.clone(), principal.clone(), issued, call.now);
    tenant.principals.push(principal);
    let mut answer = token.record(&tenant.personas);
    answer["attributes"]["accessToken"] = json!(value);
    let what = What::ApiTokenCreated { token: token.guid.clone(), display_name: token.display_name.clone(), by };
    tenant.ledger.record(call.now, what);
    tenant.tokens.push(token);
    Ok(answer)
}

/// Names, description and personas are replaced; personas that are not given are unlinked.
fn update(tenant: &mut Tenant, call: &Call, guid: &str) -> Reply {
    managing(call)?;
    let at = find(tenant, guid)?;
    let (personas, display_name) = (linked(tenant, call)?, text(&call.body, "displayName")?.to_owned());
    let description = optional(&call.body, "description")?;
    let token = &mut tenant.tokens[at];
    token.display_name = display_name;
    token.description = description.unwrap_or_default();
    token.personas = personas;
    let by = call.principal.username.clone();
    tenant.ledger.record(call.now, What::ApiTokenUpdated { token: guid.to_owned(), by });
    Ok(tenant.tokens[at].record(&tenant.personas))
}

/// Its value, and whatever Keycloak issued to it, ends with it.
fn purge(tenant: &mut Tenant, call: &Call, guid: &str) -> Reply {
    managing(call)?;
    let at = find(tenant, guid)?;
    let token = tenant.tokens.remove(at);
    tenant.keys.forget(&token.username());
    tenant.principals.retain(|principal| principal.username != token.username());
    let by = call.principal.username.clone();
    tenant.ledger.record(call.now, What::ApiTokenPurged { token: guid.to_owned(), by });
    Ok(Value::Null)
}

fn find(tenant: &Tenant, guid: &str) -> Result<usize, Refusal> {
    let at = tenant.tokens.iter().position(|token| token.guid == guid);
    at.ok_or_else(|| Refusal::new(404, format!("API token {guid} does not exist")))
}

fn linked(tenant: &Tenant, call: &Call) -> Result<Vec<String>, Refusal> {
    let key = "personaQualifiedNames";
    personas::named(&tenant.personas, key, call.body.get(key))
}

fn validity(body: &Value) -> Result<i64, Refusal> {
    match body.get("validitySeconds") {
        None | Some(Value::Null) => Ok(LONGEST),
        Some(given) => match given.as_i64() {
            Some(seconds) if seconds < 0 => Ok(LONGEST),
            Some(seconds) if (1..=LONGEST).contains(&seconds) => Ok(seconds),
            _ => Err(Refusal::new(400, format!("validitySeconds must be 1 to {LONGEST}, or negative for the longest"))),
        },
    }
}
