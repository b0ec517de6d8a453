//! Bounds on what others say: a text that is quoted in an error, and how deep JSON may be nested.

use std::borrow::Cow;

use serde_json::Value;

const MARK: &str = "…";

/// Cuts a text to `most` bytes, at a character; one that was cut ends in `…`.
pub(crate) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let mut end = most.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{MARK}", &text[..end]))
}

/// The same for a text that is owned.
pub(crate) fn cut_owned(text: String, most: usize) -> String {
    if text.len() <= most { text } else { cut(&text, most).into_owned() }
}

/// Whether arrays and objects are nested at most `depth` deep. Deeper JSON than a parser's limit could be stored and never be read
/// again.
pub(crate) fn nests_within(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|item| nests_within(item, depth - 1)),
        Value::Object(fields) => depth > 0 && fields.values().all(|field| nests_within(field, depth - 1)),
        _ => true,
    }
}

/// Replaces what is nested deeper than `depth` by `…`.
pub(crate) fn flatten(value: &mut Value, depth: usize) {
    match value {
        Value::Array(_) | Value::Object(_) if depth == 0 => *value = Value::from(MARK),
        Value::Array(items) => items.iter_mut().for_each(|item| flatten(item, depth - 1)),
        Value::Object(fields) => fields.values_mut().for_each(|field| flatten(field, depth - 1)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("ééé", 5), "é…");
        assert_eq!(cut_owned("x".repeat(300), 200).len(), 200);
    }

    #[test]
    fn what_is_nested_too_deep_is_found_and_replaced() {
        let mut value = json!({"a": [[1]], "b": 2});
        assert!(nests_within(&value, 3) && !nests_within(&value, 2));
        flatten(&mut value, 2);
        assert_eq!(value, json!({"a": ["…"], "b": 2}));
    }
}
