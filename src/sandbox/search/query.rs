//! Reading a query clause by clause; whatever is unknown is refused by name.

use regex::Regex;
use serde_json::Value;

use super::date_maths::{Rounding, date_maths};
use super::fields::{Field, Kind, Mapping};
use super::regexp;
use super::{Unsupported, object, single};

/// A query that was understood.
#[derive(Debug)]
pub(super) enum Query {
    All,
    Bool { must: Vec<Query>, should: Vec<Query>, must_not: Vec<Query>, minimum: usize },
    Field { path: String, test: Test },
}

/// What is asked of one field.
#[derive(Debug)]
pub(super) enum Test {
    OneOf { values: Vec<String>, ignore_case: bool },
    Prefix { value: String, ignore_case: bool },
    Regexp(Regex),
    Range(Vec<(Bound, i64)>),
    Exists,
}

/// One side of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Query {
    /// The values of which the query demands one at `path`.
    pub(super) fn required(&self, path: &str) -> Option<&[String]> {
        match self {
            Self::Field { path: own, test: Test::OneOf { values, ignore_case: false } } if own == path => Some(values),
            Self::Bool { must, .. } => must.iter().find_map(|clause| clause.required(path)),
            _ => None,
        }
    }

    /// What the query demands the value at `path` to begin with.
    pub(super) fn prefix(&self, path: &str) -> Option<&str> {
        match self {
            Self::Field { path: own, test: Test::Prefix { value, ignore_case: false } } if own == path => Some(value),
            Self::Field { path: own, test: Test::OneOf { values, ignore_case: false } } if own == path => match &values[..] {
                [value] => Some(value),
                _ => None,
            },
            Self::Bool { must, .. } => must.iter().find_map(|clause| clause.prefix(path)),
            _ => None,
        }
    }
}

/// Reads clauses against a mapping.
pub(super) struct Reader<'a> {
    pub(super) mapping: &'a Mapping,
    pub(super) now: i64,
}

impl Reader<'_> {
    /// Reads one clause within the nested path `context`.
    pub(super) fn read(&self, clause: &Value, context: Option<&str>) -> Result<Query, Unsupported> {
        let (name, body) = single(clause, "query")?;
        match name {
            "match_all" if object(body, name)?.is_empty() => Ok(Query::All),
            "bool" => self.read_bool(body, context),
            "nested" => self.read_nested(body),
            "term" | "prefix" | "regexp" => self.read_value(name, body, context),
            "terms" => self.read_terms(body, context),
            "range" => self.read_range(body, context),
            "exists" => match single(body, name)? {
                ("field", Value::String(field)) => {
                    Ok(Query::Field { path: self.mapping.field(field, context, name)?.path, test: Test::Exists })
                }
                (other, _) => Err(unknown(other, name)),
            },
            other => Err(Unsupported::new(format!("unknown query [{other}]"))),
        }
    }

    fn read_bool(&self, body: &Value, context: Option<&str>) -> Result<Query, Unsupported> {
        let (mut must, mut should, mut must_not) = (Vec::new(), Vec::new(), Vec::new());
        let mut minimum = None;
        for (key, value) in object(body, "bool")? {
            let into = match key.as_str() {
                "must" | "filter" => &mut must,
                "should" => &mut should,
                "must_not" => &mut must_not,
                "minimum_should_match" => {
                    minimum = Some(super::count(value, "minimum_should_match")?);
                    continue;
                }
                other => return Err(unknown(other, "bool")),
            };
            let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for clause in list {
                into.push(self.read(clause, context)?);
            }
        }
        let minimum = minimum.unwrap_or_else(|| usize::from(must.is_empty() && !should.is_empty()));
        Ok(Query::Bool { must, should, must_not, minimum })
    }

    fn read_nested(&self, body: &Value) -> Result<Query, Unsupported> {
        let (mut path, mut query) = (None, None);
        for (key, value) in object(body, "nested")? {
            match (key.as_str(), value) {
                ("path", Value::String(given)) => path = Some(given.as_str()),
                ("query", given) => query = Some(given),
                (other, _) => return Err(unknown(other, "nested")),
            }
        }
        let (Some(path), Some(query)) = (path, query) else {
            return Err(Unsupported::new("[nested] needs both path and query"));
        };
        self.mapping.nested(path)?;
        self.read(query, Some(path))
    }

    /// `term`, `prefix` and `regexp`: `{"field": {"value": ..}}` or `{"field": scalar}`.
    fn read_value(&self, clause: &str, body: &Value, context: Option<&str>) -> Result<Query, Unsupported> {
        let (name, body) = single(body, clause)?;
        let field = self.whole_values(name, context, clause)?;
        let (mut value, mut ignore_case) = (None, field.ignore_case);
        match body {
            Value::Object(options) => {
                for (key, option) in options {
                    match (key.as_str(), option) {
                        ("value", option) => value = Some(scalar(option, clause)?),
                        ("case_insensitive", Value::Bool(given)) => ignore_case |= *given,
                        (other, _) => return Err(unknown(other, clause)),
                    }
                }
            }
            bare => value = Some(scalar(bare, clause)?),
        }
        let value = value.ok_or_else(|| Unsupported::new(format!("[{clause}] on [{name}] needs a value")))?;
        let test = match clause {
            "term" => Test::OneOf { values: vec![value], ignore_case },
            "prefix" => Test::Prefix { value, ignore_case },
            _ => Test::Regexp(regexp::compile(&value, ignore_case)?),
        };
        Ok(Query::Field { path: field.path, test })
    }

    fn read_terms(&self, body: &Value, context: Option<&str>) -> Result<Query, Unsupported> {
        let (name, list) = single(body, "terms")?;
        let field = self.whole_values(name, context, "terms")?;
        let list = list.as_array().ok_or_else(|| Unsupported::new(format!("[terms] on [{name}] needs a list of scalars")))?;
        let values = list.iter().map(|value| scalar(value, "terms")).collect::<Result<_, _>>()?;
        Ok(Query::Field { path: field.path, test: Test::OneOf { values, ignore_case: field.ignore_case } })
    }

    fn read_range(&self, body: &Value, context: Option<&str>) -> Result<Query, Unsupported> {
        let (name, bounds) = single(body, "range")?;
        let field = self.mapping.field(name, context, "range")?;
        if field.kind != Kind::Date {
            return Err(Unsupported::new(format!("[range] on [{name}]: only dates are supported")));
        }
        let mut read = Vec::new();
        for (key, value) in object(bounds, "range")? {
            let bound = match key.as_str() {
                "gt" => Bound::Above,
                "gte" => Bound::AtLeast,
                "lt" => Bound::Below,
                "lte" => Bound::AtMost,
                other => return Err(unknown(other, "range")),
            };
            let rounding = if matches!(bound, Bound::Above | Bound::AtMost) { Rounding::Up } else { Rounding::Down };
            let Some(at) = date_maths(value, self.now, rounding) else {
                return Err(Unsupported::new(format!("[range] on [{name}]: failed to parse date [{value}]")));
            };
            read.push((bound, at));
        }
        Ok(Query::Field { path: field.path, test: Test::Range(read) })
    }

    fn whole_values(&self, name: &str, context: Option<&str>, clause: &str) -> Result<Field, Unsupported> {
        let field = self.mapping.field(name, context, clause)?;
        if field.kind == Kind::Keyword {
            return Ok(field);
        }
        // A real index answers nothing here, which helps nobody.
        Err(Unsupported::new(format!("[{clause}] on [{name}] matches no whole value; use [{name}.keyword]")))
    }
}

fn unknown(key: &str, clause: &str) -> Unsupported {
    Unsupported::new(format!("[{clause}] query does not support [{key}]"))
}

fn scalar(value: &Value, clause: &str) -> Result<String, Unsupported> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(Unsupported::new(format!("[{clause}] needs a scalar, not [{value}]"))),
    }
}
