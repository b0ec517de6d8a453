//! Which parts of a document a search answers: Elasticsearch's `_source`.

use serde_json::{Map, Value};

use super::Unsupported;

/// The parts of a document that stand in its hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourceFilter {
    All,
    /// No `_source` at all.
    None,
    /// Dotted paths, in which `*` stands for any characters; without an include everything is included.
    Paths {
        includes: Vec<String>,
        excludes: Vec<String>,
    },
}

impl SourceFilter {
    /// `true`, `false`, a path, a list of paths, or `{"includes": […], "excludes": […]}`.
    pub(super) fn read(value: &Value) -> Result<Self, Unsupported> {
        Ok(match value {
            Value::Null | Value::Bool(true) => Self::All,
            Value::Bool(false) => Self::None,
            Value::Object(options) => {
                let (mut includes, mut excludes) = (Vec::new(), Vec::new());
                for (key, value) in options {
                    match key.as_str() {
                        "includes" | "include" => includes = paths(value)?,
                        "excludes" | "exclude" => excludes = paths(value)?,
                        other => return Err(Unsupported::new(format!("unknown option [{other}] in [_source]"))),
                    }
                }
                Self::Paths { includes, excludes }
            }
            list => Self::Paths { includes: paths(list)?, excludes: Vec::new() },
        })
    }

    /// What of a document is answered; `None`: nothing, not even an empty object.
    pub(super) fn of(&self, source: Value) -> Option<Value> {
        match self {
            Self::All => Some(source),
            Self::None => None,
            Self::Paths { includes, excludes } => {
                Some(filtered(source, "", includes, excludes).unwrap_or_else(|| Value::Object(Map::new())))
            }
        }
    }
}

fn paths(value: &Value) -> Result<Vec<String>, Unsupported> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let path = |value: &Value| value.as_str().map(str::to_owned);
    list.iter().map(path).collect::<Option<_>>().ok_or_else(|| Unsupported::new("[_source] must be paths"))
}

/// The part of a value that is included; an object of which nothing is included is left out with its key.
fn filtered(value: Value, path: &str, includes: &[String], excludes: &[String]) -> Option<Value> {
    let named = |patterns: &[String]| patterns.iter().any(|pattern| covers(pattern, path));
    let wanted = includes.is_empty() || named(includes);
    if !path.is_empty() && named(excludes) {
        return None;
    }
    if wanted && excludes.is_empty() && !path.is_empty() {
        return Some(value);
    }
    match value {
        Value::Object(fields) => {
            let kept: Map<String, Value> = fields
                .into_iter()
                .filter_map(|(key, value)| {
                    let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    Some((key, filtered(value, &below, includes, excludes)?))
                })
                .collect();
            (wanted || !kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(list) => {
            let kept: Vec<Value> = list.into_iter().filter_map(|item| filtered(item, path, includes, excludes)).collect();
            (wanted || !kept.is_empty()).then_some(Value::Array(kept))
        }
        scalar => wanted.then_some(scalar),
    }
}

/// Whether a pattern names the path or one above it.
fn covers(pattern: &str, path: &str) -> bool {
    if pattern.contains('*') {
        let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
        return ends.into_iter().any(|end| wildcard(pattern.as_bytes(), &path.as_bytes()[..end]));
    }
    path.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|skipped| wildcard(rest, &text[skipped..])),
        [first, rest @ ..] => text.first() == Some(first) && wildcard(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(filter: &Value) -> Option<Value> {
        let labels = json!({ "workflows.argoproj.io/creator": "u", "workflows.argoproj.io/phase": "Running" });
        let source = json!({ "metadata": { "name": "n", "labels": labels }, "status": { "phase": "Running", "at": null },
            "spec": { "templates": [{ "name": "a", "dag": 1 }, { "name": "b" }] } });
        SourceFilter::read(filter).expect("reads").of(source)
    }

    #[test]
    fn only_the_paths_that_are_asked_for_are_answered() {
        assert_eq!(
            of(&json!(["metadata.name", "status"])),
            Some(json!({ "metadata": { "name": "n" },
            "status": { "phase": "Running", "at": null } }))
        );
        assert_eq!(
            of(&json!("metadata.labels.workflows.argoproj.io/creator")),
            Some(json!({ "metadata": { "labels": { "workflows.argoproj.io/creator": "u" } } }))
        );
        assert_eq!(
            of(&json!({ "includes": ["spec.templates.name"] })),
            Some(json!({ "spec": { "templates": [{ "name": "a" }, { "name": "b" }] } }))
        );
        assert_eq!(
            of(&json!({ "includes": ["metadata", "st*"], "excludes": ["*.labels", "status.at"] })),
            Some(json!({ "metadata": { "name": "n" }, "status": { "phase": "Running" } }))
        );
        assert_eq!(of(&json!(["none"])), Some(json!({})));
        assert_eq!(of(&json!(false)), None);
        assert!(SourceFilter::read(&json!({ "only": [] })).is_err() && SourceFilter::read(&json!([1])).is_err());
    }
}
