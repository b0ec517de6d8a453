//! Checking inputs against a contract: the part of JSON Schema that the sandbox's contracts use, which is `required`,
//! and `type` and `enum` of properties. As in JSON Schema, what a contract does not name is not checked.

use serde_json::Value;

/// The first mismatch, with the name of its property.
pub(super) fn check(contract: &Value, inputs: &Value) -> Result<(), String> {
    let given = inputs.as_object().ok_or_else(|| format!("inputs must be an object, not {}", kind(inputs)))?;
    let required = contract["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = required.into_iter().find(|name| !given.contains_key(*name)) {
        return Err(format!("'{missing}' is a required property"));
    }
    for (name, schema) in contract["properties"].as_object().into_iter().flatten() {
        let Some(value) = given.get(name) else {
            continue;
        };
        if !has_type(&schema["type"], value) {
            return Err(format!("'{name}' must be of type {}, not {}", schema["type"], kind(value)));
        }
        if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
            return Err(format!("'{name}' must be one of {}", schema["enum"]));
        }
    }
    Ok(())
}

fn has_type(wanted: &Value, value: &Value) -> bool {
    match wanted {
        Value::Array(list) => list.iter().any(|one| has_type(one, value)),
        Value::String(name) => name == kind(value) || (name == "number" && value.is_number()),
        _ => true,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mismatch_is_named_and_what_the_contract_does_not_name_passes() {
        let contract = json!({ "required": ["a"], "properties": {
            "a": { "type": ["object", "string"] }, "b": { "type": "integer" }, "c": { "type": "string", "enum": ["x", "y"] } } });
        for (inputs, mismatch) in [
            (json!({ "a": "q", "b": 1, "c": "x", "other": [null] }), None),
            (json!({ "a": {} }), None),
            (json!({ "b": 1 }), Some("'a' is a required property")),
            (json!({ "a": null }), Some("'a' must be of type [\"object\",\"string\"], not null")),
            (json!({ "a": "", "b": 1.5 }), Some("'b' must be of type \"integer\", not number")),
            (json!({ "a": "", "c": "z" }), Some("'c' must be one of [\"x\",\"y\"]")),
            (json!([]), Some("inputs must be an object, not array")),
        ] {
            assert_eq!(check(&contract, &inputs).err().as_deref(), mismatch, "{inputs}");
        }
    }
}
