//! The listings of Heracles: `count`, `offset`, `limit`, `sort` and a JSON `filter`.

use serde_json::{Map, Value, json};

use super::answer::{Refusal, Reply};
use super::state::Call;
use super::time;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// Filters by the named fields, sorts by `createdAt` where asked, and cuts the page. An unknown filter or sort is a 400.
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
    match call.query("sort") {
        None | Some("" | "createdAt") => kept.sort_by_key(created_at),
        Some("-createdAt") => kept.sort_by_key(|record| std::cmp::Reverse(created_at(record))),
        Some(other) => return Err(bad(format!("unknown sort {other:?}"))),
    }
    let filtered = kept.len();
    let page: Vec<Value> = kept.into_iter().skip(offset).take(limit).collect();
    let counts = match call.query("count").map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "true") => (total, filtered),
        Some("false") => (0, 0),
        Some(other) => return Err(bad(format!("count must be true or false, not {other:?}"))),
    };
    Ok(json!({ "totalRecord": counts.0, "filterRecord": counts.1, "records": page }))
}

/// Tokens write it as Unix milliseconds among their attributes, OAuth clients as RFC 3339.
fn created_at(record: &Value) -> i64 {
    let attribute = record["attributes"]["createdAt"].as_str().and_then(|text| text.parse().ok());
    attribute.or_else(|| time::parse(record["createdAt"].as_str()?)).unwrap_or_default()
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

/// `{"$ilike": "abc%"}`: the only operator, with a wildcard at the end or none.
fn like(operator: &Map<String, Value>, value: &Value) -> Result<bool, Refusal> {
    let pattern = operator.get("$ilike").and_then(Value::as_str).filter(|_| operator.len() == 1);
    let pattern = pattern.ok_or_else(|| bad(format!("unknown filter operator in {}", Value::from(operator.clone()))))?;
    let value = value.as_str().unwrap_or_default().to_lowercase();
    let pattern = pattern.to_lowercase();
    match pattern.strip_suffix('%') {
        Some(start) if !start.contains('%') => Ok(value.starts_with(start)),
        None if !pattern.contains('%') => Ok(value == pattern),
        _ => Err(bad(format!("unknown wildcard in $ilike {pattern:?}"))),
    }
}
