//! Credentials of sources, as workflows refer to them. Their secrets are taken and never shown, nor kept.

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Map, Value, json};

use super::answer::{Refusal, Reply};
use super::identity::managing;
use super::ledger::What;
use super::state::{Call, SharedTenant, Tenant, route};
use super::submit::text;
use super::{keys, listing};

/// So many credentials can be stored.
const MAX_CREDENTIALS: usize = 10_000;
/// What a credential shows of the body that made it.
const SHOWN: [&str; 10] =
    ["name", "description", "host", "port", "authType", "connectorType", "connectorConfigName", "connector", "metadata", "level"];

/// A credential without its secrets.
#[derive(Debug)]
pub(super) struct StoredCredential {
    id: String,
    version: u64,
    created_at: i64,
    updated_at: i64,
    created_by: String,
    shown: Map<String, Value>,
}

impl StoredCredential {
    /// The seeded one: that of a crawler, under the name that the vendor's client derives from its workflow.
    pub(super) fn seeded(created_at: i64) -> Self {
        let body = json!({ "name": "default-snowflake-1684500500-0", "host": "sandbox.snowflakecomputing.com", "port": 443,
            "authType": "basic", "connectorConfigName": "atlan-connectors-snowflake", "connector": "snowflake",
            "connectorType": "jdbc" });
        Self {
            id: "cd000000-0000-4000-8000-000000000001".to_owned(),
            version: 1,
            created_at,
            updated_at: created_at,
            created_by: "jane".to_owned(),
            shown: shown(&body),
        }
    }

    fn record(&self) -> Value {
        let mut record = json!({ "id": self.id, "version": self.version.to_string(), "isActive": true, "tenantId": "default",
            "createdAt": self.created_at, "updatedAt": self.updated_at, "createdBy": self.created_by });
        for (key, value) in &self.shown {
            record[key] = value.clone();
        }
        record
    }
}

fn shown(body: &Value) -> Map<String, Value> {
    let given = SHOWN.into_iter().filter_map(|key| Some((key.to_owned(), body.get(key).filter(|value| !value.is_null())?.clone())));
    given.collect()
}

/// `credentials`.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new()
        .route("/credentials", route(MethodFilter::GET, list).merge(route(MethodFilter::POST, create)))
        .route("/credentials/test", route(MethodFilter::POST, test))
        .route("/credentials/{guid}", route(MethodFilter::GET, get).merge(route(MethodFilter::POST, update)))
        .route("/credentials/{guid}/archive", route(MethodFilter::POST, purge))
}

fn list(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let records = tenant.credentials.iter().map(StoredCredential::record).collect();
    listing::answer(call, records, &["id", "name", "connector", "connectorConfigName", "authType", "host"])
}

/// Every credential passes, but one whose host is `unreachable`.
#[expect(clippy::unnecessary_wraps, reason = "every route has this type")]
fn test(_: &mut Tenant, call: &Call, _: &str) -> Reply {
    if call.body["host"] == "unreachable" {
        return Ok(json!({ "code": 1, "error": "connection refused", "message": "failed" }));
    }
    Ok(json!({ "message": "successful" }))
}

fn create(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    managing(call)?;
    let name = text(&call.body, "name")?;
    if tenant.credentials.iter().any(|credential| credential.shown.get("name").is_some_and(|taken| taken == name)) {
        let message = "duplicate key value violates unique constraint \"credentials_name_key\"";
        return Err(Refusal::new(400, message));
    }
    if tenant.credentials.len() >= MAX_CREDENTIALS {
        return Err(Refusal::new(400, format!("the sandbox stores at most {MAX_CREDENTIALS} credentials")));
    }
    let credential = StoredCredential {
        id: keys::guid(),
        version: 1,
        created_at: call.now,
        updated_at: call.now,
        created_by: call.principal.username.clone(),
        shown: shown(&call.body),
    };
    let (answer, id) = (credential.record(), credential.id.clone());
    tenant.credentials.push(credential);
    tenant.ledger.record(call.now, What::CredentialCreated { credential: id, by: call.principal.username.clone() });
    Ok(answer)
}

fn get(tenant: &mut Tenant, _: &Call, guid: &str) -> Reply {
    find(tenant, guid).map(|at| tenant.credentials[at].record())
}

/// Only what the body gives is changed.
fn update(tenant: &mut Tenant, call: &Call, guid: &str) -> Reply {
    managing(call)?;
    let at = find(tenant, guid)?;
    let credential = &mut tenant.credentials[at];
    credential.shown.extend(shown(&call.body));
    credential.version += 1;
    credential.updated_at = call.now;
    let answer = credential.record();
    let by = call.principal.username.clone();
    tenant.ledger.record(call.now, What::CredentialUpdated { credential: guid.to_owned(), by });
    Ok(answer)
}

fn purge(tenant: &mut Tenant, call: &Call, guid: &str) -> Reply {
    managing(call)?;
    let at = find(tenant, guid)?;
    tenant.credentials.remove(at);
    let by = call.principal.username.clone();
    tenant.ledger.record(call.now, What::CredentialPurged { credential: guid.to_owned(), by });
    Ok(Value::Null)
}

fn find(tenant: &Tenant, guid: &str) -> Result<usize, Refusal> {
    let at = tenant.credentials.iter().position(|credential| credential.id == guid);
    at.ok_or_else(|| Refusal::new(404, format!("credential {guid} does not exist")))
}
