//! The metastore: search (lagging), reading by entity (never lagging), and replacing a connection's admins.

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Map, Value, json};

use super::answer::{Refusal, Reply};
use super::connections::{Admins, Connection};
use super::keys;
use super::ledger::What;
use super::personas::Persona;
use super::search::{METASTORE, Search};
use super::state::{Call, SharedTenant, Tenant, route};

/// So many connections can be stored.
const MAX_CONNECTIONS: usize = 10_000;
/// Attributes that a new connection may have besides its names and admins. They are not shown.
const NEW_ATTRIBUTES: [&str; 7] = ["category", "connectorName", "defaultCredentialGuid", "description", "host", "name", "port"];

/// Search, entities, type definitions.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new()
        .route("/search/indexsearch", route(MethodFilter::POST, search))
        .route("/entity/uniqueAttribute/type/{type}", route(MethodFilter::GET, by_qualified_name))
        .route("/entity/guid/{guid}", route(MethodFilter::GET, by_guid))
        .route("/entity/bulk", route(MethodFilter::POST, bulk))
        .route("/entity/bulk/", route(MethodFilter::POST, bulk))
        .route("/types/typedefs", route(MethodFilter::GET, typedefs))
        .route("/types/typedefs/", route(MethodFilter::GET, typedefs))
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::atlas(400, "ATLAS-400-00-029", message)
}

/// Keys of a search request besides `dsl` that change nothing here.
const IGNORED: [&str; 5] =
    ["requestMetadata", "relationAttributes", "includeRelationshipAttributes", "excludeMeanings", "showSearchScore"];

fn search(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let body = call.body.as_object().ok_or_else(|| bad("the search request must be an object"))?;
    if let Some(key) = body.keys().find(|key| !["dsl", "attributes"].contains(&key.as_str()) && !IGNORED.contains(&key.as_str())) {
        return Err(bad(format!("unknown key [{key}] in the search request")));
    }
    let dsl = body.get("dsl").ok_or_else(|| bad("dsl is missing"))?;
    let search = Search::parse(dsl, &METASTORE, call.now).map_err(|error| bad(error.to_string()))?;
    let wanted: Vec<&str> =
        body.get("attributes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let at = tenant.index_time(call);
    let connections = tenant.connections.values().filter_map(|connection| connection.indexed(at));
    let personas = tenant.personas.iter().filter_map(|persona| persona.indexed(at));
    let page = search.page(connections.chain(personas).chain(tenant.apps.runs.indexed(&search, at)));
    let mut answer = json!({ "searchType": "INDEX_BASED", "approximateCount": page.total });
    if !page.hits.is_empty() {
        let entities = page.hits.into_iter().map(|(mut hit, _)| only(hit.source["entity"].take(), &wanted));
        answer["entities"] = entities.collect();
    }
    Ok(answer)
}

/// An entity with the attributes that a search asked for, and the two that are always there.
fn only(mut entity: Value, wanted: &[&str]) -> Value {
    if let Some(attributes) = entity["attributes"].as_object_mut() {
        attributes.retain(|name, _| ["qualifiedName", "name"].contains(&name.as_str()) || wanted.contains(&name.as_str()));
    }
    entity
}

fn by_qualified_name(tenant: &mut Tenant, call: &Call, type_name: &str) -> Reply {
    let name = call.query("attr:qualifiedName").ok_or_else(|| bad("attr:qualifiedName is missing"))?;
    let entity = match type_name {
        "Connection" => tenant.connections.get(name).map(|connection| connection.entity(connection.admins())),
        "Persona" => tenant.personas.iter().find(|persona| persona.qualified_name == name).map(Persona::entity),
        "AppWorkflowRun" => tenant.apps.runs.entity(name, call.now),
        _ => None,
    };
    let entity = entity.ok_or_else(|| unknown(type_name, name))?;
    Ok(json!({ "entity": entity, "referredEntities": {} }))
}

fn by_guid(tenant: &mut Tenant, call: &Call, guid: &str) -> Reply {
    let connection = tenant.connections.values().find(|connection| connection.guid == guid);
    let entity = connection
        .map(|connection| connection.entity(connection.admins()))
        .or_else(|| tenant.apps.runs.entity(guid, call.now))
        .ok_or_else(|| Refusal::atlas(404, "ATLAS-404-00-005", format!("Given instance guid {guid} is invalid/not found")))?;
    Ok(json!({ "entity": entity, "referredEntities": {} }))
}

fn unknown(type_name: &str, qualified_name: &str) -> Refusal {
    let message = format!("Instance {type_name} with unique attribute {{qualifiedName={qualified_name}}} does not exist");
    Refusal::atlas(404, "ATLAS-404-00-009", message)
}

/// A change that was understood and may be applied.
struct Change {
    assigned: Option<String>,
    to: To,
}

enum To {
    /// Another list of admins for a connection.
    Replace {
        qualified_name: String,
        admins: Admins,
    },
    Create(Box<Connection>),
}

/// Creates connections, and replaces the admin lists that each entity gives. All entities are looked at before the first one is
/// changed.
fn bulk(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let entities = call.body["entities"].as_array().ok_or_else(|| bad("entities must be a list"))?;
    let changes = entities.iter().map(|entity| read_change(tenant, call, entity)).collect::<Result<Vec<_>, _>>()?;
    let (mut created, mut updated, mut assignments) = (Vec::new(), Vec::new(), Map::new());
    let by = &call.principal.username;
    for Change { assigned, to } in changes {
        let guid = match to {
            To::Create(connection) => {
                let (name, admins) = (connection.qualified_name.clone(), connection.admins().users.clone());
                created.push(connection.entity(connection.admins()));
                let guid = connection.guid.clone();
                tenant.ledger.record(call.now, What::ConnectionCreated { connection: name.clone(), admins, by: by.clone() });
                tenant.connections.insert(name, *connection);
                guid
            }
            To::Replace { qualified_name, admins } => {
                let Some(connection) = tenant.connections.get_mut(&qualified_name) else {
                    continue;
                };
                if !connection.admins().same(&admins) {
                    let (before, after) = (connection.admins().users.clone(), admins.users.clone());
                    connection.set_admins(call.now, admins);
                    updated.push(connection.entity(connection.admins()));
                    let what = What::AdminsReplaced { connection: qualified_name, before, after, by: by.clone() };
                    tenant.ledger.record(call.now, what);
                }
                connection.guid.clone()
            }
        };
        assignments.extend(assigned.map(|assigned| (assigned, json!(guid))));
    }
    let mut answer = json!({ "guidAssignments": assignments });
    for (kind, entities) in [("CREATE", created), ("UPDATE", updated)] {
        if !entities.is_empty() {
            answer["mutatedEntities"][kind] = json!(entities);
        }
    }
    Ok(answer)
}

fn read_change(tenant: &Tenant, call: &Call, entity: &Value) -> Result<Change, Refusal> {
    let type_name = entity["typeName"].as_str().unwrap_or_default();
    if type_name != "Connection" {
        return Err(bad(format!("the sandbox changes entities of type Connection only, not {type_name:?}")));
    }
    let attributes = entity["attributes"].as_object().ok_or_else(|| bad("attributes must be an object"))?;
    let qualified_name = attributes.get("qualifiedName").and_then(Value::as_str).ok_or_else(|| bad("qualifiedName is missing"))?;
    let assigned = entity["guid"].as_str().map(str::to_owned);
    let Some(connection) = tenant.connections.get(qualified_name) else {
        let connection = new_connection(tenant, call, qualified_name, attributes)?;
        return Ok(Change { assigned, to: To::Create(Box::new(connection)) });
    };
    if !connection.may_administer(&call.principal, tenant.settings.strict_admins) {
        let message = format!("{} is not authorized to perform update entity: {qualified_name}", call.principal.username);
        return Err(Refusal::atlas(403, "ATLAS-403-00-001", message));
    }
    let admins = changed_admins(connection.admins(), attributes, |key, value| key == "name" && *value == connection.name)?;
    if admins.is_empty() {
        return Err(Refusal::atlas(400, "ATLAS-400-00-114", "Admin list should not be empty for type Connection"));
    }
    Ok(Change { assigned, to: To::Replace { qualified_name: qualified_name.to_owned(), admins } })
}

/// The lists as the attributes change them; any other attribute must be `allowed`.
fn changed_admins(
    admins: &Admins,
    attributes: &Map<String, Value>,
    allowed: impl Fn(&str, &Value) -> bool,
) -> Result<Admins, Refusal> {
    let mut admins = admins.clone();
    for (key, value) in attributes.iter().filter(|(_, value)| !value.is_null()) {
        match key.as_str() {
            "adminUsers" => admins.users = names(key, value)?,
            "adminGroups" => admins.groups = names(key, value)?,
            "adminRoles" => admins.roles = names(key, value)?,
            "qualifiedName" => {}
            other if allowed(other, value) => {}
            other => return Err(bad(format!("the sandbox cannot change attribute {other} of a Connection"))),
        }
    }
    Ok(admins)
}

/// A connection under a name that none has: `default/<connector>/<digits>`. Its creator becomes one of its admins.
fn new_connection(
    tenant: &Tenant,
    call: &Call,
    qualified_name: &str,
    attributes: &Map<String, Value>,
) -> Result<Connection, Refusal> {
    let form = match qualified_name.split('/').collect::<Vec<_>>()[..] {
        ["default", connector, digits] => !connector.is_empty() && digits.parse::<u64>().is_ok(),
        _ => false,
    };
    let name = attributes.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    // Without a name it was meant to change one that exists.
    let Some(name) = name.filter(|_| form && call.principal.may_manage()) else {
        return Err(unknown("Connection", qualified_name));
    };
    if tenant.connections.len() >= MAX_CONNECTIONS {
        return Err(bad(format!("the sandbox stores at most {MAX_CONNECTIONS} connections")));
    }
    let shown = |key: &str, _: &Value| NEW_ATTRIBUTES.contains(&key);
    let mut admins = changed_admins(&Admins::default(), attributes, shown)?;
    if admins.is_empty() {
        return Err(Refusal::atlas(400, "ATLAS-400-00-114", "Admin list should not be empty for type Connection"));
    }
    let creator = &call.principal.username;
    if !admins.users.contains(creator) {
        admins.users.push(creator.clone());
    }
    Ok(Connection::new(&keys::guid(), qualified_name, name, call.now, admins))
}

/// A list of names without repetition. Unknown names are taken as they are, like at a real tenant.
fn names(key: &str, value: &Value) -> Result<Vec<String>, Refusal> {
    let list = value.as_array().ok_or_else(|| bad(format!("{key} must be a list")))?;
    let mut names: Vec<String> = Vec::new();
    for value in list {
        let name = value.as_str().ok_or_else(|| bad(format!("{key} must hold strings")))?;
        if name.contains(['<', '>']) || name.starts_with("http:") || name.starts_with("https:") {
            return Err(bad(format!("{key}: invalid name {name:?}")));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Just enough that a client which waits for the definitions after a new login goes on.
fn typedefs(_: &mut Tenant, call: &Call, _: &str) -> Reply {
    let kind = call.query("type").unwrap_or("STRUCT");
    if !kind.eq_ignore_ascii_case("struct") {
        return Err(bad(format!("the sandbox knows type definitions of type STRUCT only, not {kind:?}")));
    }
    let definition = json!({ "category": "STRUCT", "guid": "d0000000-0000-4000-8000-000000000001", "name": "BadgeCondition",
        "description": "", "typeVersion": "1.0", "serviceType": "atlan", "attributeDefs": [] });
    Ok(json!({ "enumDefs": [], "structDefs": [definition], "entityDefs": [], "relationshipDefs": [] }))
}
