//! API tokens: `GET /api/service/apikeys`. Only who a token is; what it opens is neither read nor kept.

use serde::Deserialize;
use serde_json::json;

use super::Tenant;
use super::answer::{Element, Exact, Lenient};
use super::documents::{Page, Records};
use super::send::Call;
use super::target::encoded;
use crate::failure::Failure;

/// An API token, as the tenant lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its guid. Not the uuid within the client id.
    pub guid: String,
    /// Its client id, as in `apikey-11111111-2222-3333-4444-555555555555`.
    pub client_id: String,
}

impl ApiToken {
    /// The user that its holder is.
    pub fn username(&self) -> String {
        format!("service-account-{}", self.client_id)
    }
}

impl Tenant {
    /// The token of this guid.
    pub async fn api_token(&self, guid: &str) -> Result<Option<ApiToken>, Failure> {
        let filter = encoded(&json!({"id": guid}).to_string());
        let target = format!("api/service/apikeys?count=True&offset=0&limit=5&filter={filter}&sort=createdAt");
        let call = Call::get("tokens.show", target).needs("the right to see API tokens");
        let answer: Records<TokenRecord> = self.read(&call).await?;
        let (records, _) = answer.into_items().ok_or_else(|| self.unexpected(&call, Records::<TokenRecord>::LACKS))?;
        let Some(record) = records.into_iter().find(|record| record.id.0.as_deref() == Some(guid)) else { return Ok(None) };
        let client_id = record.attributes.0.client_id.0.or(record.client_id.0);
        let client_id = client_id.ok_or_else(|| self.unexpected(&call, "the token has no client id"))?;
        Ok(Some(ApiToken { guid: guid.to_owned(), client_id }))
    }
}

/// A token in a listing. Its secret, which some tenants show, is not read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct TokenRecord {
    id: Exact,
    client_id: Exact,
    attributes: Lenient<Attributes>,
}

impl Element for TokenRecord {}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Attributes {
    client_id: Exact,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::tenant::scripted::{Reply, Scripted, clock};

    async fn asked(body: Value) -> Result<Option<String>, Failure> {
        let server = Scripted::script([Reply::ok(&body)]).await;
        let token = server.tenant(&clock()).api_token("t-1").await?;
        Ok(token.map(|token| token.username()))
    }

    #[tokio::test]
    async fn a_token_is_believed_only_under_its_own_guid_and_with_a_client_id() {
        let record =
            |id, client| json!({"id": id, "clientId": "apikey-old", "attributes": {"clientId": client, "accessToken": "hush"}});
        let rows = [
            (json!({"records": [record("t-1", json!("apikey-1"))]}), Ok(Some("service-account-apikey-1"))),
            (json!({"records": [record("t-1", json!(null))]}), Ok(Some("service-account-apikey-old"))),
            (json!({"records": [record("t-2", json!("apikey-2"))]}), Ok(None)),
            (json!({"records": [], "totalRecord": 0}), Ok(None)),
            (json!({"records": null, "totalRecord": 3}), Ok(None)),
            (json!({"records": [{"id": "t-1"}]}), Err("tenant.unreadable")),
            (json!({}), Err("tenant.unreadable")),
        ];
        for (body, expected) in rows {
            let got = asked(body.clone()).await;
            let got = got.as_ref().map(Option::as_deref).map_err(|failure| failure.code.as_ref());
            assert_eq!(got, expected, "{body}");
        }
    }
}
