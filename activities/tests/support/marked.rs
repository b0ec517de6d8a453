//! A marker in every place of an answer where a tenant can put a text. Included by the test that calls every operation with it, and by
//! the one that works jobs with it as a process.

use serde_json::{Map, Value, json};

/// Our own key with control characters around it, and a word that is neither.
pub(crate) fn marker(key: &str) -> String {
    format!("\u{1b}[2J\r\nforged {key}\u{202e}")
}

/// How many places of a value can hold a text: each text, each key, and one more key in each object.
pub(crate) fn places(value: &Value) -> usize {
    match value {
        Value::String(_) => 2,
        Value::Array(items) => items.iter().map(places).sum::<usize>() + 1,
        Value::Object(fields) => fields.values().map(places).sum::<usize>() + fields.len() + 1,
        _ => 1,
    }
}

/// Puts the marker at one of the places.
pub(crate) fn marked(value: Value, at: &mut usize, marker: &str) -> Value {
    let mut here = || {
        let here = *at == 0;
        *at = at.wrapping_sub(1);
        here
    };
    match value {
        Value::String(text) => {
            if here() {
                return marker.into();
            }
            if here() { format!("{text}{marker}").into() } else { text.into() }
        }
        Value::Array(items) => {
            let more = here();
            let mut items: Vec<_> = items.into_iter().map(|item| marked(item, at, marker)).collect();
            if more {
                items.push(marker.into());
            }
            items.into()
        }
        Value::Object(fields) => {
            let more = here();
            let mut all = Map::new();
            for (key, value) in fields {
                let renamed = *at == 0;
                *at = at.wrapping_sub(1);
                let key = if renamed { marker.to_owned() } else { key };
                all.insert(key, marked(value, at, marker));
            }
            if more {
                all.insert(marker.to_owned(), json!({marker: marker}));
            }
            all.into()
        }
        other => {
            if here() {
                marker.into()
            } else {
                other
            }
        }
    }
}

/// The marker in every field in which an error can hold a text.
pub(crate) fn refusal(marker: &str) -> Value {
    let more = json!({"code": marker, "message": marker, "retry_after": marker, marker: marker});
    let fields = ["errorCode", "code", "errorMessage", "message", "error_description", "errorCause", "info", "requestId"];
    let mut body: Map<_, _> = fields.iter().map(|field| ((*field).to_owned(), json!(marker))).collect();
    for field in ["error", "detail", "data"] {
        body.insert(field.to_owned(), more.clone());
    }
    body.insert(marker.to_owned(), json!(marker));
    body.into()
}
