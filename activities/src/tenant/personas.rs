//! Personas by their name, through the metastore's search. A name may be that of several.

use serde_json::{Value, json};

use super::Tenant;
use super::runs::text;
use super::send::Call;
use crate::failure::Failure;

/// More personas of one name than this are not looked at.
const PAGE: usize = 300;

/// A persona of the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persona {
    /// What people call it; others may be called the same.
    pub name: String,
    /// Its own, as in `default/xS2hdJ7TWUqhVcZHC3zoVN`.
    pub qualified_name: String,
}

impl Tenant {
    /// The active personas of exactly this name.
    pub async fn personas_named(&self, name: &str) -> Result<Vec<Persona>, Failure> {
        let term = |field: &str, value: &str| json!({"term": {field: {"value": value}}});
        let filter = [term("__state", "ACTIVE"), term("__typeName.keyword", "PERSONA"), term("name.keyword", name)];
        let dsl = json!({"from": 0, "size": PAGE, "aggregations": {}, "track_total_hits": true,
            "query": {"bool": {"filter": filter}}, "sort": [{"__guid": {"order": "asc"}}]});
        let body = json!({"attributes": [], "dsl": dsl, "relationAttributes": ["name"],
            "requestMetadata": {"saveSearchLog": false, "utmTags": ["iolaus"]}});
        let call = Call::post("personas.search", "api/meta/search/indexsearch", Some(body)).needs("the right to see personas");
        let answer = self.read(&call).await?;
        let entities = match &answer["entities"] {
            Value::Array(entities) => entities.as_slice(),
            Value::Null if answer["approximateCount"].is_number() => &[],
            _ => return Err(self.unexpected(&call, "it has no list of entities")),
        };
        let personas = entities.iter().filter_map(persona);
        Ok(personas.filter(|persona| persona.name == name).collect())
    }
}

fn persona(entity: &Value) -> Option<Persona> {
    let attributes = &entity["attributes"];
    Some(Persona { name: text(&attributes["name"])?, qualified_name: text(&attributes["qualifiedName"])? })
}
