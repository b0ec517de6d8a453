//! Whether a document matches a query.

use serde_json::Value;

use super::Document;
use super::query::{Bound, Query, Test};
use crate::sandbox::time;

pub(super) fn matches(query: &Query, document: &Document) -> bool {
    match query {
        Query::All => true,
        Query::Bool { must, should, must_not, minimum } => {
            must.iter().all(|clause| matches(clause, document))
                && !must_not.iter().any(|clause| matches(clause, document))
                && (*minimum == 0 || should.iter().filter(|clause| matches(clause, document)).count() >= *minimum)
        }
        Query::Field { path, test } => {
            if path == "_id" {
                return passes(test, &document.id, None);
            }
            values(document, path).into_iter().any(|value| match value {
                Value::String(text) => passes(test, text, time::parse(text)),
                Value::Number(number) => passes(test, &number.to_string(), number.as_i64()),
                Value::Bool(flag) => passes(test, if *flag { "true" } else { "false" }, None),
                _ => matches!(test, Test::Exists),
            })
        }
    }
}

fn passes(asked: &Test, text: &str, at: Option<i64>) -> bool {
    match asked {
        Test::OneOf { values, ignore_case: false } => values.iter().any(|value| value == text),
        Test::OneOf { values, ignore_case: true } => values.iter().any(|value| value.to_lowercase() == text.to_lowercase()),
        Test::Prefix { value, ignore_case: false } => text.starts_with(value.as_str()),
        Test::Prefix { value, ignore_case: true } => text.to_lowercase().starts_with(&value.to_lowercase()),
        Test::Regexp(pattern) => pattern.is_match(text),
        Test::Range(bounds) => at.is_some_and(|at| {
            bounds.iter().all(|(bound, edge)| match bound {
                Bound::Above => at > *edge,
                Bound::AtLeast => at >= *edge,
                Bound::Below => at < *edge,
                Bound::AtMost => at <= *edge,
            })
        }),
        Test::Exists => true,
    }
}

/// The values at a dotted path; null is no value. A key may itself hold dots and slashes, as labels do.
pub(super) fn values<'a>(document: &'a Document, path: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    descend(&document.source, path, &mut found);
    found
}

fn descend<'a>(value: &'a Value, path: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Null => {}
        Value::Array(list) => list.iter().for_each(|item| descend(item, path, found)),
        _ if path.is_empty() => found.push(value),
        Value::Object(entries) => {
            let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
            for end in ends {
                if let Some(inner) = entries.get(&path[..end]) {
                    descend(inner, path.get(end + 1..).unwrap_or_default(), found);
                }
            }
        }
        _ => {}
    }
}
