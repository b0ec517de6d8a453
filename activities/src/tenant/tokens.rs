//! API tokens: `GET /api/service/apikeys`. Only who a token is; what it opens is neither read nor kept.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::Tenant;
use super::answer::{Count, Element, Exact, Lenient};
use super::documents::Records;
use super::listed::{Listed, Page};
use super::send::Call;
use super::target::encoded;
use crate::failure::Failure;

/// How many tokens one page holds.
const PAGE: usize = 100;
/// More tokens of one name are not read.
const MOST_TOKENS: usize = 1_000;

/// An API token, as the tenant lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its guid. Not the uuid within the client id.
    pub guid: String,
    /// Its client id, as in `apikey-11111111-2222-3333-4444-555555555555`.
    pub client_id: String,
    /// What people call it; others may be called the same.
    pub display_name: Option<String>,
    /// When it was created, where the tenant says so.
    pub created_at: Option<Timestamp>,
    /// When it expires, where the tenant says so.
    pub expires_at: Option<Timestamp>,
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
        let (records, _) = self.items_of(&call, answer)?;
        let Some(record) = records.into_iter().find(|record| record.id.0.as_deref() == Some(guid)) else { return Ok(None) };
        let token = record.into_token().ok_or_else(|| self.unexpected(&call, "the token has no client id"))?;
        Ok(Some(token))
    }

    /// The tokens of exactly this display name, in the order of their creation.
    pub async fn api_tokens_named(&self, name: &str) -> Result<Vec<ApiToken>, Failure> {
        let call = |offset, size| {
            let filter = encoded(&json!({"displayName": name}).to_string());
            let target = format!("api/service/apikeys?count=True&offset={offset}&limit={size}&filter={filter}&sort=createdAt");
            Call::get("tokens.find", target).needs("the right to see API tokens")
        };
        // Not `pages`: the future of its async closure is not `Send`, which an activity's has to be.
        let (mut found, mut offset) = (Listed::new(), 0);
        for _ in 0..MOST_TOKENS / PAGE {
            let page = self.page::<Records<TokenRecord>>(PAGE, offset, |size| call(offset, size)).await?;
            let page = Page::of(page, TokenRecord::into_token);
            offset += page.elements;
            found.total = page.total.or(found.total);
            found.unreadable += page.elements.saturating_sub(page.rows.len());
            found.rows.extend(page.rows);
            let counted = found.total.map(|total| u64::try_from(offset).unwrap_or(u64::MAX) < total);
            found.more = counted.map_or(page.more, |more| more || (!page.exact && page.more)) || page.cut > 0;
            if !found.more || page.elements == 0 {
                break;
            }
        }
        // One that was not read could be the one that is meant.
        if found.more || found.unreadable > 0 {
            return Err(self.incomplete(&call(0, PAGE), &found));
        }
        Ok(found.rows.into_iter().filter(|token| token.display_name.as_deref() == Some(name)).collect())
    }
}

/// A token in a listing. Its secret, which some tenants show, is not read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct TokenRecord {
    id: Exact,
    client_id: Exact,
    display_name: Exact,
    attributes: Lenient<Attributes>,
}

impl Element for TokenRecord {}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Attributes {
    client_id: Exact,
    display_name: Exact,
    /// In milliseconds since 1970.
    created_at: Count,
    /// In seconds.
    #[serde(rename = "access.token.lifespan")]
    lifespan: Count,
}

impl TokenRecord {
    fn into_token(self) -> Option<ApiToken> {
        let attributes = self.attributes.0;
        let whole = |count: Count| count.whole().filter(|number| *number > 0).and_then(|number| i64::try_from(number).ok());
        let created_at = whole(attributes.created_at).and_then(|at| Timestamp::from_millisecond(at).ok());
        let life = whole(attributes.lifespan).map(SignedDuration::from_secs);
        Some(ApiToken {
            guid: self.id.0?,
            client_id: attributes.client_id.0.or(self.client_id.0)?,
            display_name: attributes.display_name.0.or(self.display_name.0),
            created_at,
            expires_at: created_at.zip(life).and_then(|(at, life)| at.checked_add(life).ok()),
        })
    }
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

    #[tokio::test]
    async fn tokens_of_a_name_are_those_of_exactly_that_name_with_their_expiry() {
        let record = |id: &str, name: &str, attributes: Value| json!({"id": id, "clientId": format!("apikey-{id}"), "displayName": name, "attributes": attributes});
        let told = json!({"createdAt": "1767225600000", "access.token.lifespan": "3600", "displayName": "ci"});
        let page = |records: &[Value]| Reply::ok(&json!({"totalRecord": 9, "filterRecord": 3, "records": records}));
        let first = page(&[record("t-1", "ci", told), record("t-2", "CI", json!({}))]);
        let server = Scripted::script([first, page(&[record("t-3", "ci", json!({"createdAt": "soon"}))])]).await;
        let found = server.tenant(&clock()).api_tokens_named("ci").await.expect("an answer");
        let expiry = |token: &ApiToken| token.expires_at.map(|at| at.to_string());
        let found: Vec<_> = found.iter().map(|token| (token.guid.as_str(), token.username(), expiry(token))).collect();
        let expected = [
            ("t-1", "service-account-apikey-t-1".to_owned(), Some("2026-01-01T01:00:00Z".to_owned())),
            ("t-3", "service-account-apikey-t-3".to_owned(), None),
        ];
        assert_eq!(found, expected);
        let target = "/api/service/apikeys?count=True&offset=2&limit=100&filter=%7B%22displayName%22%3A%22ci%22%7D&sort=createdAt";
        assert_eq!(server.requests()[1].target, target);
    }

    #[tokio::test]
    async fn a_list_of_tokens_that_is_not_whole_is_no_answer() {
        for records in [json!([{"id": "t-1", "clientId": "apikey-1"}]), json!([{"id": "t-1"}, {"id": "t-2", "clientId": "a"}])] {
            let body = json!({"totalRecord": 2, "records": records});
            let server = Scripted::answering(move |request| {
                let none = json!({"totalRecord": 2, "records": []});
                Some(Reply::ok(if request.target.contains("offset=0") { &body } else { &none }))
            });
            let server = server.await;
            let failure = server.tenant(&clock()).api_tokens_named("ci").await.expect_err("one may be missing");
            assert_eq!(failure.code, "tenant.unreadable");
        }
    }

    #[tokio::test]
    async fn no_token_of_a_name_is_an_answer_however_many_others_there_are() {
        let none = json!({"totalRecord": 9, "filterRecord": 0, "records": []});
        let server = Scripted::script([Reply::ok(&none)]).await;
        assert_eq!(server.tenant(&clock()).api_tokens_named("ci").await, Ok(vec![]));
    }

    #[tokio::test]
    async fn a_token_whose_name_only_looks_like_the_wanted_one_is_not_taken() {
        let record = json!({"id": "t-1", "clientId": "apikey-1", "displayName": "c\u{202e}i"});
        let server = Scripted::script([Reply::ok(&json!({"totalRecord": 1, "filterRecord": 1, "records": [record]}))]).await;
        assert_eq!(server.tenant(&clock()).api_tokens_named("ci").await, Ok(vec![]));
    }
}
