//! Personas: found by a search of the metastore, named by OAuth clients and API tokens.

use serde_json::{Value, json};

use super::answer::Refusal;
use super::search::Document;

/// A persona. Several may have one name; the qualified name is its own.
#[derive(Debug)]
pub(super) struct Persona {
    pub(super) guid: String,
    pub(super) qualified_name: String,
    pub(super) name: String,
    pub(super) created_at: i64,
}

impl Persona {
    pub(super) fn entity(&self) -> Value {
        json!({ "typeName": "Persona", "guid": self.guid, "status": "ACTIVE", "displayText": self.name,
            "attributes": { "qualifiedName": self.qualified_name, "name": self.name, "displayName": self.name } })
    }

    /// What the index holds of the persona at an instant.
    pub(super) fn indexed(&self, at: i64) -> Option<Document> {
        let source = || {
            json!({ "__typeName": "Persona", "__state": "ACTIVE", "__guid": self.guid,
                "qualifiedName": self.qualified_name, "name": self.name, "entity": self.entity() })
        };
        (self.created_at <= at).then(|| Document { id: self.guid.clone(), source: source() })
    }
}

/// Reads a list of qualified names from a body; absent and null are none. A name of no persona is a 400.
pub(super) fn named(personas: &[Persona], key: &str, value: Option<&Value>) -> Result<Vec<String>, Refusal> {
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Refusal::new(400, format!("{key} must be a list"))),
    };
    let known = |name: &Value| {
        let name = name.as_str().unwrap_or_default();
        let persona = personas.iter().find(|persona| persona.qualified_name == name);
        persona
            .map(|persona| persona.qualified_name.clone())
            .ok_or_else(|| Refusal::new(400, format!("{key}: there is no persona {name:?}")))
    };
    list.iter().map(known).collect()
}
