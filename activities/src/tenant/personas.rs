//! Personas: by their name through the metastore's search, where a name may be that of several, and by their qualified name.

use serde_json::{Value, json};

use super::Tenant;
use super::app_runs::entities;
use super::runs::{segment, text};
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
        let entities = entities(&answer).map_err(|problem| self.unexpected(&call, problem))?;
        let personas = entities.iter().filter_map(persona);
        Ok(personas.filter(|persona| persona.name == name).collect())
    }

    /// The active persona of this qualified name, read as an entity, which no index delays.
    pub async fn persona(&self, qualified_name: &str) -> Result<Option<Persona>, Failure> {
        let target = format!(
            "api/meta/entity/uniqueAttribute/type/Persona?attr:qualifiedName={}&minExtInfo=false&ignoreRelationships=true",
            segment(qualified_name)
        );
        let call = Call::get("personas.show", target).needs("the right to see personas");
        let body = match self.read(&call).await {
            Err(failure) if failure.code == "tenant.not_found" => return Ok(None),
            body => body?,
        };
        if body["entity"]["status"] == "DELETED" {
            return Ok(None);
        }
        let persona = persona(&body["entity"]).filter(|persona| persona.qualified_name == qualified_name);
        persona.map(Some).ok_or_else(|| self.unexpected(&call, "it shows another persona"))
    }
}

fn persona(entity: &Value) -> Option<Persona> {
    let attributes = &entity["attributes"];
    Some(Persona { name: text(&attributes["name"])?, qualified_name: text(&attributes["qualifiedName"])? })
}
