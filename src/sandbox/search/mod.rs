//! The search of the tenant's indexes: an honest subset of Elasticsearch's query language.
//!
//! What the subset does not know is refused by name; it never looks like an empty answer. Deliberately not here:
//! scoring, aggregations, analysed text.

mod date_maths;
mod evaluate;
mod fields;
mod query;
mod regexp;
mod source;

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use fields::{Field, Kind};
pub(super) use fields::{METASTORE, Mapping, WORKFLOWS};
use query::Query;
use source::SourceFilter;

/// Elasticsearch's `max_result_window`.
const MAX_WINDOW: usize = 10_000;
/// Elasticsearch's default page.
const DEFAULT_SIZE: usize = 10;

/// A clause, key or field that the subset does not know, named.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unsupported(String);

impl Unsupported {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// One document as it stands in an index.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) id: String,
    pub(super) source: Value,
}

/// A search that was understood.
#[derive(Debug)]
pub(super) struct Search {
    from: usize,
    size: usize,
    query: Query,
    sort: Vec<SortKey>,
    source: SourceFilter,
}

#[derive(Debug)]
struct SortKey {
    field: Field,
    descending: bool,
    missing_first: bool,
}

/// One page: the documents with their sort values, and how many matched in all.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) total: usize,
    pub(super) hits: Vec<(Document, Vec<Value>)>,
    source: SourceFilter,
}

impl Search {
    /// Reads a request body; `now` (Unix milliseconds) is what date maths count from.
    pub(super) fn parse(body: &Value, mapping: &Mapping, now: i64) -> Result<Self, Unsupported> {
        let body = object(body, "search")?;
        let mut search = Self { from: 0, size: DEFAULT_SIZE, query: Query::All, sort: Vec::new(), source: SourceFilter::All };
        for (key, value) in body {
            match key.as_str() {
                "from" => search.from = count(value, "from")?,
                "size" => search.size = count(value, "size")?,
                "query" if value.is_null() => {}
                "query" => search.query = query::Reader { mapping, now }.read(value, None)?,
                "sort" => search.sort = sort_keys(value, mapping)?,
                "_source" => search.source = SourceFilter::read(value)?,
                "track_total_hits" if value.is_boolean() || value.is_u64() => {}
                // The vendor's client always sends the key; only an empty one can be obeyed.
                "aggregations" | "aggs" if value.as_object().is_none_or(Map::is_empty) => {}
                other => {
                    return Err(Unsupported::new(format!("unknown key [{other}] in the search request")));
                }
            }
        }
        if search.from.saturating_add(search.size) > MAX_WINDOW {
            return Err(Unsupported::new(format!("result window is too large: from + size must be at most {MAX_WINDOW}")));
        }
        Ok(search)
    }

    /// The values of which one is required of `path` (without `.keyword`), if the query demands that. Saves looking at
    /// every document.
    pub(super) fn required(&self, path: &str) -> Option<&[String]> {
        self.query.required(path)
    }

    /// What the value at `path` must begin with, if the query demands that. Saves looking at every document.
    pub(super) fn prefix(&self, path: &str) -> Option<&str> {
        self.query.prefix(path)
    }

    /// Filters, sorts (missing values last unless the sort says otherwise, equal ones in the order given) and cuts the page.
    pub(super) fn page(&self, documents: impl Iterator<Item = Document>) -> Page {
        let mut hits: Vec<(Document, Vec<Value>)> = documents
            .filter(|document| evaluate::matches(&self.query, document))
            .map(|document| {
                let keys = self.sort.iter().map(|key| sort_value(&key.field, &document)).collect();
                (document, keys)
            })
            .collect();
        hits.sort_by(|(_, left), (_, right)| {
            self.sort
                .iter()
                .zip(left.iter().zip(right))
                .map(|(key, (left, right))| compare(left, right, key))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        });
        let total = hits.len();
        Page { total, hits: hits.into_iter().skip(self.from).take(self.size).collect(), source: self.source.clone() }
    }
}

impl Page {
    /// The page as the workflow indexes answer it.
    pub(super) fn into_answer(self) -> Value {
        let hits: Vec<Value> = self
            .hits
            .into_iter()
            .map(|(document, sort)| {
                let mut hit = json!({ "_index": "workflow", "_type": "_doc", "_id": document.id, "_seq_no": 1, "_primary_term": 1,
                                      "sort": sort });
                if let Some(source) = self.source.of(document.source) {
                    hit["_source"] = source;
                }
                hit
            })
            .collect();
        json!({ "took": 1, "timed_out": false,
                "_shards": { "total": 1, "successful": 1, "skipped": 0, "failed": 0 },
                "hits": { "total": { "value": self.total, "relation": "eq" }, "max_score": null, "hits": hits } })
    }
}

fn sort_keys(value: &Value, mapping: &Mapping) -> Result<Vec<SortKey>, Unsupported> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list.as_slice(),
        single => std::slice::from_ref(single),
    };
    // There is no score, and the order of an index is the one in which documents come.
    let ordered = |key: &&Value| {
        let name = key.as_str().or_else(|| key.as_object().and_then(|key| key.keys().next().map(String::as_str)));
        !matches!(name, Some("_score" | "_doc"))
    };
    list.iter().filter(ordered).map(|key| sort_key(key, mapping)).collect()
}

fn sort_key(value: &Value, mapping: &Mapping) -> Result<SortKey, Unsupported> {
    let (name, options) = match value {
        Value::String(name) => (name.as_str(), &Value::Null),
        _ => single(value, "sort")?,
    };
    let (mut order, mut path, mut missing_first) = ("asc", None, false);
    match options {
        Value::Null => {}
        Value::String(given) => order = given,
        _ => {
            for (key, value) in object(options, "sort")? {
                match key.as_str() {
                    "order" => order = value.as_str().unwrap_or_default(),
                    "missing" if value == "_last" || value == "_first" => missing_first = value == "_first",
                    "nested" => path = Some(nested_path(value)?),
                    // Every field that can be sorted on is mapped here.
                    "unmapped_type" if value.is_string() => {}
                    other => {
                        return Err(Unsupported::new(format!("unknown option [{other}] in sort on [{name}]")));
                    }
                }
            }
        }
    }
    let field = mapping.field(name, path, "sort")?;
    if field.kind == Kind::Text {
        return Err(Unsupported::new(format!("text field [{name}] cannot be sorted on; use [{name}.keyword]")));
    }
    match order {
        "asc" => Ok(SortKey { field, descending: false, missing_first }),
        "desc" => Ok(SortKey { field, descending: true, missing_first }),
        other => Err(Unsupported::new(format!("unknown order [{other}] in sort on [{name}]"))),
    }
}

fn nested_path(value: &Value) -> Result<&str, Unsupported> {
    match single(value, "sort.nested")? {
        ("path", Value::String(path)) => Ok(path),
        (other, _) => Err(Unsupported::new(format!("unknown option [{other}] in [sort.nested]"))),
    }
}

fn sort_value(field: &Field, document: &Document) -> Value {
    if field.path == "_id" {
        return Value::from(document.id.as_str());
    }
    let Some(value) = evaluate::values(document, &field.path).first().copied() else {
        return Value::Null;
    };
    match (field.kind, value) {
        (Kind::Date, Value::String(text)) => super::time::parse(text).map_or(Value::Null, Value::from),
        (_, value) => value.clone(),
    }
}

fn compare(left: &Value, right: &Value, key: &SortKey) -> Ordering {
    let order = match (left, right) {
        (Value::Null, Value::Null) => return Ordering::Equal,
        (Value::Null, _) => return if key.missing_first { Ordering::Less } else { Ordering::Greater },
        (_, Value::Null) => return if key.missing_first { Ordering::Greater } else { Ordering::Less },
        (Value::Number(left), Value::Number(right)) => left.as_i64().cmp(&right.as_i64()),
        (left, right) => left.as_str().cmp(&right.as_str()),
    };
    if key.descending { order.reverse() } else { order }
}

fn count(value: &Value, key: &str) -> Result<usize, Unsupported> {
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| Unsupported::new(format!("[{key}] must be a whole number, not negative")))
}

fn object<'a>(value: &'a Value, clause: &str) -> Result<&'a Map<String, Value>, Unsupported> {
    value.as_object().ok_or_else(|| Unsupported::new(format!("[{clause}] must be an object")))
}

/// The one entry of an object that must have exactly one.
fn single<'a>(value: &'a Value, clause: &str) -> Result<(&'a str, &'a Value), Unsupported> {
    let mut entries = object(value, clause)?.iter();
    match (entries.next(), entries.next()) {
        (Some((key, value)), None) => Ok((key, value)),
        _ => Err(Unsupported::new(format!("[{clause}] must have exactly one key"))),
    }
}

#[cfg(test)]
mod tests;
