//! Reading a request off the wire.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::http::{Uri, request};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderName, USER_AGENT};
use serde_json::{Value, json};

use super::ledger::Exchange;

/// The largest request body that is served.
pub(super) const MAX_BODY: usize = 2 * 1024 * 1024;
/// Of a body that is too large so much is read and thrown away, so that the client gets to read its 413.
const MAX_DISCARDED: usize = 32 * 1024 * 1024;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-atlan-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The connection shall be closed without a byte.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
pub(super) struct Cut;

/// A request that was read completely.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) parts: request::Parts,
    /// Empty when it was too large.
    pub(super) body: Bytes,
    /// The body as JSON, null for an empty one; a form is an object of strings. `None`: neither.
    pub(super) json: Option<Value>,
    pub(super) too_large: bool,
}

impl Arrived {
    /// Reads the body up to its bound; a client that goes away meanwhile gets no answer and is no exchange.
    pub(super) async fn read(request: Request<Incoming>) -> Result<Self, Cut> {
        let (parts, mut incoming) = request.into_parts();
        let (mut body, mut total) = (Vec::new(), 0_usize);
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|_| Cut)?.into_data() else {
                continue;
            };
            total = total.saturating_add(data.len());
            if total > MAX_DISCARDED {
                break;
            }
            if total > MAX_BODY {
                body = Vec::new();
            } else {
                body.extend_from_slice(&data);
            }
        }
        let json =
            if body.is_empty() { Some(Value::Null) } else { serde_json::from_slice(&body).ok().or_else(|| form(&parts, &body)) };
        Ok(Self { parts, body: Bytes::from(body), json, too_large: total > MAX_BODY })
    }

    /// Path and query as sent.
    pub(super) fn target(&self) -> &str {
        self.parts.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.parts.headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    pub(super) fn request_id(&self) -> Option<String> {
        self.header(&REQUEST_ID)
    }

    /// What the request log keeps of it.
    pub(super) fn exchange(&self, principal: Option<String>, fault: Option<&str>) -> Exchange {
        Exchange {
            n: 0,
            method: self.parts.method.as_str().to_owned(),
            target: self.target().to_owned(),
            principal,
            authorization: self.parts.headers.contains_key(AUTHORIZATION),
            user_agent: self.header(&USER_AGENT),
            request_id: self.request_id(),
            traceparent: self.header(&TRACEPARENT),
            content_type: self.header(&CONTENT_TYPE),
            accept: self.header(&ACCEPT),
            accept_encoding: self.header(&ACCEPT_ENCODING),
            body: self.json.clone().map(redacted).unwrap_or_default(),
            status: None,
            fault: fault.map(str::to_owned),
        }
    }

    fn header(&self, name: &HeaderName) -> Option<String> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }
}

/// A form, read as an object of strings.
fn form(parts: &request::Parts, body: &[u8]) -> Option<Value> {
    let content_type = parts.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let uri = Uri::builder().path_and_query(format!("/?{}", str::from_utf8(body).ok()?)).build().ok()?;
    let Query(fields) = Query::<BTreeMap<String, String>>::try_from_uri(&uri).ok()?;
    content_type.starts_with("application/x-www-form-urlencoded").then(|| json!(fields))
}

/// Keys whose values are secrets, in lower case, without underscores and hyphens.
const SECRETS: [&str; 9] =
    ["accesstoken", "apikey", "clientsecret", "extra", "extras", "password", "refreshtoken", "secret", "subjecttoken"];

/// Strikes out the secrets of a body.
fn redacted(body: Value) -> Value {
    match body {
        Value::Array(list) => list.into_iter().map(redacted).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| strike(key, value)).collect(),
        other => other,
    }
}

fn strike(key: String, value: Value) -> (String, Value) {
    let plain = key.to_ascii_lowercase().replace(['_', '-'], "");
    let value = if SECRETS.contains(&plain.as_str()) { json!("(struck out)") } else { redacted(value) };
    (key, value)
}
