//! Sequences that are asked for by name, with words instead of a file.

use serde_json::{Map, Value, json};

use super::{Gate, SequenceRequest, StepRequest};
use crate::job::Refused;

const CONNECTOR_PIPELINE: &str = "connector_pipeline";

/// The presets, with the words that they take.
pub const PRESETS: [(&str, &str); 1] = [(
    CONNECTOR_PIPELINE,
    "user_id, connection_qualified_name; api_token_guid (and method) if a grant is wanted; then those of workflow_rerun",
)];

/// The sequence of a preset.
///
/// # Errors
/// Names the field that is missing, or the preset that is unknown. Values are for the door to check.
pub fn preset(name: &str, words: Map<String, Value>) -> Result<SequenceRequest, Refused> {
    if name == CONNECTOR_PIPELINE {
        return connector_pipeline(words);
    }
    let known = PRESETS.map(|(name, _)| name).join(", ");
    Err(Refused::new("preset", format!("`{name}` is unknown; the presets are {known}")))
}

/// May this user publish? Then, if a token is named, make it an admin of the connection. Then run the crawler.
fn connector_pipeline(mut words: Map<String, Value>) -> Result<SequenceRequest, Refused> {
    let mut take = |names: [&str; 2]| names.into_iter().find_map(|name| words.remove(name));
    let user = take(["user_id", "user-id"]).ok_or_else(|| missing("user_id"))?;
    let connection = take(["connection_qualified_name", "connection"]).ok_or_else(|| missing("connection_qualified_name"))?;
    let token = take(["api_token_guid", "api-token-guid"]);
    let method = take(["method", "method"]);
    let mut steps = vec![step("preflight", "publish_preflight", json!({"user_id": user, "connection_qualified_name": connection}))];
    match (token, method) {
        (Some(token), method) => {
            let mut input = json!({"connection_qualified_name": connection, "api_token_guid": token});
            if let Some(method) = method {
                input["method"] = method;
            }
            steps.push(step("grant", "token_admin_grant", input));
        }
        (None, Some(_)) => return Err(Refused::new("method", "is how an API token is granted: name one with api_token_guid")),
        (None, None) => {}
    }
    steps.push(step("rerun", "workflow_rerun", Value::Object(words)));
    Ok(SequenceRequest { steps, ..SequenceRequest::default() })
}

fn step(name: &str, activity: &str, input: Value) -> StepRequest {
    StepRequest { name: Some(name.to_owned()), activity: activity.to_owned(), input, gate: Gate::Hard, ..StepRequest::default() }
}

fn missing(field: &str) -> Refused {
    Refused::new(field, "is missing")
}
