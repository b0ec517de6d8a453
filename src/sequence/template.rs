//! An input of which some fields are facts that are not known yet: checked as far as that goes, and its options resolved.

use std::collections::BTreeMap;

use iolaus_activities::ActivityOptions;
use serde_json::{Map, Value, json};

use super::FactOf;
use crate::intake::{Content, Intake, OptionOverrides};
use crate::job::Refused;

/// Takes the facts out of an input: the fields whose value is `{"from": …, "fact": …}` and nothing else.
pub(super) fn split(input: Value) -> Result<(Value, BTreeMap<String, FactOf>), Refused> {
    let Value::Object(fields) = input else { return Ok((input, BTreeMap::new())) };
    let (mut literal, mut facts) = (Map::new(), BTreeMap::new());
    for (field, value) in fields {
        if value.get("from").is_none() && value.get("fact").is_none() {
            literal.insert(field, value);
            continue;
        }
        let at = format!("input.{field}");
        let fact = serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string().as_str() {
            "." => Refused::new(&at, error.inner().to_string()),
            inner => Refused::new(format!("{at}.{inner}"), error.inner().to_string()),
        })?;
        facts.insert(field, fact);
    }
    Ok((Value::Object(literal), facts))
}

/// Checks an input with values of the right kind in place of the facts, and takes these out again. A fact may not decide about the
/// step's options: they are resolved now.
pub(super) fn resolve(
    intake: &Intake,
    activity: &str,
    literal: Value,
    facts: BTreeMap<String, FactOf>,
    options: &OptionOverrides,
) -> Result<(Content, BTreeMap<String, FactOf>), Refused> {
    if facts.is_empty() {
        return Ok((intake.resolve(activity, literal, options)?, facts));
    }
    let mut filled = literal;
    let mut chosen = BTreeMap::new();
    for field in facts.keys() {
        filled[field] = stand_ins()[0].clone();
        chosen.insert(field.clone(), 0);
    }
    let mut content = fill(intake, activity, &mut filled, &mut chosen, options)?;
    for (field, at) in &chosen {
        refuse_deciding(intake, activity, &filled, field, *at, &content.options, options)?;
    }
    let mut named = BTreeMap::new();
    for (field, fact) in facts {
        let stored = own_name(&content.input, &field)?;
        if let Value::Object(fields) = &mut content.input {
            fields.remove(&stored);
        }
        named.insert(stored, fact);
    }
    Ok((content, named))
}

/// Values of every kind that an input takes. The first that a field accepts stands in for the fact.
fn stand_ins() -> [Value; 11] {
    [
        json!("fact"),
        json!("90000000-0000-4000-8000-000000000002"),
        json!("1h"),
        json!("2h"),
        json!("2000-01-01T00:00:00Z"),
        json!("default/snowflake/1234567890"),
        json!(1),
        json!(true),
        json!(false),
        json!([]),
        json!({}),
    ]
}

/// Tries stand-ins until the input as a whole is accepted. If none helps, the first complaint is the one to tell.
fn fill(
    intake: &Intake,
    activity: &str,
    filled: &mut Value,
    chosen: &mut BTreeMap<String, usize>,
    options: &OptionOverrides,
) -> Result<Content, Refused> {
    let stand_ins = stand_ins();
    let mut first: BTreeMap<String, Refused> = BTreeMap::new();
    loop {
        let refused = match intake.resolve(activity, filled.clone(), options) {
            Ok(content) => return Ok(content),
            Err(refused) => refused,
        };
        let Some((field, at)) = chosen.iter_mut().find(|(field, _)| is_about(&refused, field)) else { return Err(refused) };
        let told = first.entry(field.clone()).or_insert(refused);
        *at += 1;
        match stand_ins.get(*at) {
            Some(value) => filled[field] = value.clone(),
            None => return Err(told.clone()),
        }
    }
}

/// Whether a complaint is about the value of a field, and not about its name.
fn is_about(refused: &Refused, field: &str) -> bool {
    let path = refused.field.strip_prefix("input.").unwrap_or_default();
    let at = path.split(['.', '[']).next().unwrap_or_default();
    !refused.reason.starts_with("unknown field") && (at == field || at == field.replace('-', "_"))
}

/// Refuses a fact whose value would change the options, as a `timeout` does.
fn refuse_deciding(
    intake: &Intake,
    activity: &str,
    filled: &Value,
    field: &str,
    at: usize,
    resolved: &ActivityOptions,
    options: &OptionOverrides,
) -> Result<(), Refused> {
    let mut other = filled.clone();
    for value in stand_ins().into_iter().skip(at + 1) {
        other[field] = value;
        if intake.resolve(activity, other.clone(), options).is_ok_and(|content| content.options != *resolved) {
            let reason = "decides about the step's options, which are resolved when the sequence is enqueued: it cannot be a fact";
            return Err(Refused::new(format!("input.{field}"), reason));
        }
    }
    Ok(())
}

/// The name under which a field is stored, which may differ from the one it was given by.
fn own_name(input: &Value, field: &str) -> Result<String, Refused> {
    let named = [field.to_owned(), field.replace('-', "_")].into_iter().find(|name| input.get(name).is_some());
    named.ok_or_else(|| Refused::new(format!("input.{field}"), "is another name of a field: use its own name for a fact"))
}
