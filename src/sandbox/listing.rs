//! The listings of Heracles: `count`, `offset`, `limit`, `sort` and a JSON `filter`.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::answer::{Refusal, Reply};
use super::state::Call;
use super::time;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// Filters by the named fields, sorts by any key, and cuts the page. An unknown filter or sort is a 400.
pub(super) fn answer(call: &Call, records: Vec<Value>, fields: &[&str]) -> Reply {
    let offset = call.query_number("offset", 0)?;
    let limit = call.query_number("limit", DEFAULT_LIMIT)?.min(MAX_LIMIT);
    let total = records.len();
    let mut kept = records;
    if let Some(text) = call.query("filter").filter(|text| !text.is_empty()) {
        let filter: Value = serde_json::from_str(text).map_err(|error| bad(format!("filter is no JSON: {error}")))?;
        let mut passed = Vec::new();
        for record in kept {
            if passes(&filter, &record, fields)? {
                passed.push(record);
            }
        }
        kept = passed;
    }
    sort(&mut kept, call.query("sort").unwrap_or_default())?;
    let filtered = kept.len();
    let page: Vec<Value> = kept.into_iter().skip(offset).take(limit).collect();
    let counts = match call.query("count").map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "true") => (total, filtered),
        Some("false") => (0, 0),
        Some(other) => return Err(bad(format!("count must be true or false, not {other:?}"))),
    };
    Ok(json!({ "totalRecord": counts.0, "filterRecord": counts.1, "records": page }))
}

/// Sorts by one key of the records, descending with a hyphen before it. Without one, by `createdAt`.
fn sort(records: &mut [Value], given: &str) -> Result<(), Refusal> {
    let (key, descending) = given.strip_prefix('-').map_or((given, false), |key| (key, true));
    match key {
        "" | "createdAt" => records.sort_by_key(created_at),
        key if records.is_empty() || records.iter().any(|record| record.get(key).is_some()) => {
            records.sort_by(|left, right| compare(&left[key], &right[key]));
        }
        other => return Err(bad(format!("unknown sort {other:?}"))),
    }
    if descending {
        records.reverse();
    }
    Ok(())
}

/// Numbers by their size, all else by its text without regard to case.
fn compare(left: &Value, right: &Value) -> Ordering {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        return left.cmp(&right);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_lowercase);
    text(left).cmp(&text(right))
}

/// Tokens write it as Unix milliseconds among their attributes, credentials beside them, OAuth clients as RFC 3339.
fn created_at(record: &Value) -> i64 {
    let attribute = record["attributes"]["createdAt"].as_str().and_then(|text| text.parse().ok());
    attribute.or_else(|| record["createdAt"].as_i64()).or_else(|| time::parse(record["createdAt"].as_str()?)).unwrap_or_default()
}

fn bad(message: String) -> Refusal {
    Refusal::new(400, message)
}

fn passes(filter: &Value, record: &Value, fields: &[&str]) -> Result<bool, Refusal> {
    let filter: &Map<String, Value> = filter.as_object().ok_or_else(|| bad(format!("filter must be an object, not {filter}")))?;
    for (key, wanted) in filter {
        let passed = match (key.as_str(), wanted) {
            ("$and", Value::Array(list)) => all(list, record, fields)?,
            ("$or", Value::Array(list)) => any(list, record, fields)?,
            (field, Value::Object(operator)) if fields.contains(&field) => like(operator, &record[field])?,
            (field, wanted) if fields.contains(&field) => record[field] == *wanted,
            (other, _) => return Err(bad(format!("unknown filter {other:?}"))),
        };
        if !passed {
            return Ok(false);
        }
    }
    Ok(true)
}

fn all(list: &[Value], record: &Value, fields: &[&str]) -> Result<bool, Refusal> {
    list.iter().try_fold(true, |so_far, filter| Ok(passes(filter, record, fields)? && so_far))
}

fn any(list: &[Value], record: &Value, fields: &[&str]) -> Result<bool, Refusal> {
    list.iter().try_fold(false, |so_far, filter| Ok(passes(filter, record, fields)? || so_far))
}

/// `{"$ilike": "%abc%"}` or `{"$in": [..]}`.
fn like(operator: &Map<String, Value>, value: &Value) -> Result<bool, Refusal> {
    match operator.iter().next().filter(|_| operator.len() == 1).map(|(name, operand)| (name.as_str(), operand)) {
        Some(("$in", Value::Array(list))) => Ok(list.contains(value)),
        Some(("$ilike", Value::String(pattern))) => {
            let value = value.as_str().unwrap_or_default().to_lowercase();
            Ok(wildcard(&pattern.to_lowercase(), &value))
        }
        _ => Err(bad(format!("unknown filter operator in {}", Value::from(operator.clone())))),
    }
}

/// `%` stands for any characters.
fn wildcard(pattern: &str, text: &str) -> bool {
    let Some((start, mut rest)) = pattern.split_once('%') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    while let Some((part, after)) = rest.split_once('%') {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
        rest = after;
    }
    text.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_anywhere() {
        for (pattern, text, matches) in [
            ("abc", "abc", true),
            ("ab", "abc", false),
            ("ab%", "abc", true),
            ("%bc", "abc", true),
            ("%b%", "abc", true),
            ("a%c%e", "abcde", true),
            ("a%c%d", "abcde", false),
            ("%", "", true),
            ("a%a", "a", false),
        ] {
            assert_eq!(wildcard(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn records_are_sorted_by_any_key_that_they_have() {
        let mut records = vec![json!({ "n": "b", "c": 2 }), json!({ "n": "A", "c": 10 }), json!({ "n": "c", "c": 1 })];
        sort(&mut records, "n").expect("known");
        assert_eq!(records.iter().map(|record| &record["n"]).collect::<Vec<_>>(), ["A", "b", "c"]);
        sort(&mut records, "-c").expect("known");
        assert_eq!(records[0]["c"], 10);
        assert!(sort(&mut records, "none").is_err());
    }
}
