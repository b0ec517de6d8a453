//! What a fault changes in the route's own answer, and the compression that a client asks for.

use axum::body::{Body, to_bytes};
use axum::response::Response;
use hyper::body::Body as _;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use serde_json::{Map, Value, json};

use super::Action;
use super::answers::{Pieces, Stalled, compressed};

/// A smaller answer is not worth compressing.
const MIN_COMPRESSED: u64 = 256;

/// Marks an answer that leaves without a `Date` header.
#[derive(Clone, Copy, Debug)]
pub(in crate::sandbox) struct Undated;

/// Whether the action changes the route's own answer.
pub(in crate::sandbox) fn rewrites(action: &Action) -> bool {
    use Action as A;
    matches!(
        action,
        A::Gzip
            | A::Bom
            | A::Latin1
            | A::WrongLength { .. }
            | A::Stall
            | A::Wrap { .. }
            | A::NoDate
            | A::Contradiction
            | A::ShortPage
            | A::NullHits
            | A::NullName
            | A::Patch { .. }
    )
}

/// The route's own answer as the action changes it.
pub(in crate::sandbox) async fn rewritten(answer: Response, action: &Action) -> Response {
    let (mut parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.remove(CONTENT_LENGTH);
    let edited = |edit: fn(&mut Value)| {
        let mut body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        edit(&mut body);
        Body::from(body.to_string())
    };
    let body = match action {
        Action::Gzip => {
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Body::from(compressed(std::iter::once(bytes)))
        }
        Action::Bom => Body::from(["\u{feff}".as_bytes(), &bytes].concat()),
        Action::Latin1 => {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=iso-8859-1"));
            Body::from(latin1(&bytes))
        }
        Action::WrongLength { delta } => {
            let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX).saturating_add(*delta).max(0);
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Body::new(Pieces::new(std::iter::once(bytes)))
        }
        Action::Stall => {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            Body::new(Stalled(Some(bytes.slice(..bytes.len() / 2))))
        }
        Action::Wrap { key } => {
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            Body::from(json!({ key: body }).to_string())
        }
        Action::NoDate => {
            parts.extensions.insert(Undated);
            Body::from(bytes)
        }
        Action::Contradiction => edited(|body| {
            body["passed"] = json!(true);
            body["failed_checks"] = json!(["UserEnabled"]);
        }),
        Action::ShortPage => edited(|body| {
            if let Some(list) = page(body).and_then(Value::as_array_mut) {
                list.truncate(list.len().div_ceil(2));
            }
        }),
        Action::NullHits => edited(null_hits),
        Action::NullName => edited(|body| {
            let roles = if body.get("roles").is_some() { &mut body["roles"] } else { &mut body["records"] };
            if let Some(name) = roles.pointer_mut("/0/name") {
                *name = Value::Null;
            }
        }),
        Action::Patch { patch } => {
            let mut body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            merge(&mut body, patch);
            Body::from(body.to_string())
        }
        _ => Body::from(bytes),
    };
    Response::from_parts(parts, body)
}

/// The list of results in an answer, whichever route it is of.
fn page(body: &mut Value) -> Option<&mut Value> {
    let pointer = ["/hits/hits", "/records", "/entities", "/workflows", "/data", "/items"];
    let found = pointer.into_iter().find(|pointer| body.pointer(pointer).is_some())?;
    body.pointer_mut(found)
}

fn null_hits(body: &mut Value) {
    if let Some(list) = page(body) {
        *list = Value::Null;
    }
    if let Some(total) = body.pointer_mut("/hits/total/value") {
        *total = json!(0);
    }
    for name in ["totalRecord", "filterRecord", "approximateCount", "total"] {
        if let Some(total) = body.get_mut(name) {
            *total = json!(0);
        }
    }
}

/// Characters that the encoding does not have become question marks.
fn latin1(bytes: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(bytes).chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

/// A JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        patch.clone_into(target);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().map(|fields| fields.remove(key));
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// Compresses a JSON answer for a client that accepts gzip, unless a fault has given it an encoding, or a body without a length.
pub(in crate::sandbox) async fn encoded(answer: Response, accepted: bool) -> Response {
    let size = answer.body().size_hint().exact().unwrap_or_default();
    let headers = answer.headers();
    let json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !accepted || !json || headers.contains_key(CONTENT_ENCODING) || size < MIN_COMPRESSED {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(parts, Body::from(compressed(std::iter::once(bytes))))
}

/// Whether a client accepts gzip: it is named, and not with `q=0`.
pub(in crate::sandbox) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
        named && !parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_replaces_removes_and_descends() {
        let mut body = json!({ "a": 1, "b": { "c": 2, "d": 3 }, "e": [1] });
        merge(&mut body, &json!({ "a": null, "b": { "c": "x" }, "e": [], "f": { "g": null } }));
        assert_eq!(body, json!({ "b": { "c": "x", "d": 3 }, "e": [], "f": {} }));
    }

    #[test]
    fn gzip_is_accepted_where_it_is_named_and_not_refused() {
        for (value, accepted) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("*", true), ("gzip;q=0", false), ("deflate", false), ("", false)]
        {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(accepts_gzip(&headers), accepted, "{value}");
        }
    }
}
