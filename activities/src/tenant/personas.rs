//! Personas: by their name through the metastore's search, where a name may be that of several, and by their qualified name.

use serde::Deserialize;
use serde_json::json;

use super::Tenant;
use super::answer::{Element, Exact, Lenient};
use super::documents::Entities;
use super::send::Call;
use super::target::encoded;
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
        let search = |size| {
            let dsl = json!({"from": 0, "size": size, "aggregations": {}, "track_total_hits": true,
                "query": {"bool": {"filter": filter}}, "sort": [{"__guid": {"order": "asc"}}]});
            let body = json!({"attributes": [], "dsl": dsl, "relationAttributes": ["name"],
                "requestMetadata": {"saveSearchLog": false, "utmTags": ["iolaus"]}});
            Call::post("personas.search", "api/meta/search/indexsearch", Some(body)).needs("the right to see personas")
        };
        let found = self.page::<Entities<PersonaEntity>>(PAGE, 0, &search).await?;
        let shows_none = found.count == 0 && found.told.is_some_and(|told| told > 0);
        let personas: Vec<_> = found.items.into_iter().filter_map(PersonaEntity::into_persona).collect();
        if shows_none || personas.len() < found.count {
            return Err(self.unexpected(&search(PAGE), "it counts personas that it does not show, or that cannot be read"));
        }
        Ok(personas.into_iter().filter(|persona| persona.name == name).collect())
    }

    /// The active persona of this qualified name, read as an entity, which no index delays.
    pub async fn persona(&self, qualified_name: &str) -> Result<Option<Persona>, Failure> {
        let target = format!(
            "api/meta/entity/uniqueAttribute/type/Persona?attr:qualifiedName={}&minExtInfo=false&ignoreRelationships=true",
            encoded(qualified_name)
        );
        let call = Call::get("personas.show", target).needs("the right to see personas");
        let shown: ShownPersona = match self.read(&call).await {
            Err(failure) if failure.code == "tenant.not_found" => return Ok(None),
            shown => shown?,
        };
        let Lenient(entity) = shown.entity;
        if entity.status.0.as_deref() == Some("DELETED") {
            return Ok(None);
        }
        let persona = entity.into_persona().filter(|persona| persona.qualified_name == qualified_name);
        persona.map(Some).ok_or_else(|| self.unexpected(&call, "it shows another persona"))
    }
}

/// The answer to a request for one persona.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownPersona {
    entity: Lenient<PersonaEntity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PersonaEntity {
    status: Exact,
    attributes: Lenient<Attributes>,
}

impl Element for PersonaEntity {}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Attributes {
    name: Exact,
    qualified_name: Exact,
}

impl PersonaEntity {
    fn into_persona(self) -> Option<Persona> {
        let attributes = self.attributes.0;
        Some(Persona { name: attributes.name.0?, qualified_name: attributes.qualified_name.0? })
    }
}
