//! OAuth clients, API tokens, personas, and who may give rights.

use super::*;

const CLIENTS: &str = "/api/service/oauth-clients";
const STEWARDS: &str = "default/xS2hdJ7TWUqhVcZHC3zoVN";

impl Harness {
    async fn created(&self, display_name: &str, role: &str) -> Value {
        let body = json!({ "displayName": display_name, "description": "d", "role": role, "personaQNs": [STEWARDS] });
        let (status, client) = self.post(CLIENTS, &body).await;
        assert_eq!(status, 200, "{client}");
        client
    }

    async fn login(&self, client: &Value) -> (StatusCode, Value) {
        let body = json!({ "clientId": client["clientId"], "clientSecret": client["clientSecret"] });
        self.ask("", Method::POST, &format!("{CLIENTS}/token"), &body).await
    }

    async fn listed(&self, query: &str) -> Value {
        let (status, list) = self.get(&format!("{CLIENTS}?{query}")).await;
        assert_eq!(status, 200, "{list}");
        list
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["records"].as_array().into_iter().flatten().filter_map(|record| record["displayName"].as_str()).collect()
}

#[tokio::test]
async fn a_client_can_at_once_log_in_with_its_role_and_no_more_once_it_is_purged() {
    let harness = Harness::start().await;
    let client = harness.created("ci", "$admin_connections").await;
    let (_, token) = harness.login(&client).await;
    let bearer = token["accessToken"].as_str().expect("a token");
    let (_, who) = harness.ask(bearer, Method::GET, "/api/service/whoami", &Value::Null).await;
    assert_eq!(who["roles"][0]["name"], "$admin_connections");
    let path = format!("{CLIENTS}/{}", client["clientId"].as_str().expect("an id"));
    assert_eq!(harness.ask("sandbox-admin", Method::DELETE, &path, &Value::Null).await, (StatusCode::OK, Value::Null));
    assert_eq!(harness.ask(bearer, Method::GET, "/api/service/whoami", &Value::Null).await.0, 401, "its tokens end with it");
    assert_eq!(harness.login(&client).await.0, 401);
    assert_eq!(harness.get(&path).await.0, 404);
    assert_eq!(harness.kinds(), ["oauth_client_created", "oauth_client_purged"]);
    let known = serde_json::to_string(&(harness.sandbox.effects(), harness.sandbox.requests())).expect("serializes");
    assert!(!known.contains(client["clientSecret"].as_str().expect("a secret")), "{known}");
}

#[tokio::test]
async fn a_client_of_an_unknown_role_or_persona_is_not_created() {
    let harness = Harness::start().await;
    let bodies = [
        json!({ "displayName": "ci", "role": "$root" }),
        json!({ "displayName": "ci", "role": "Admin" }),
        json!({ "displayName": "ci", "role": "$admin", "personaQNs": ["default/none"] }),
        json!({ "displayName": "", "role": "$admin" }),
        json!({ "displayName": "ci", "role": "$admin", "tokenExpirySeconds": 0 }),
    ];
    for body in bodies {
        assert_eq!(harness.post(CLIENTS, &body).await.0, 400, "{body}");
    }
    let body = json!({ "displayName": "ci", "role": "$admin" });
    assert_eq!(harness.ask("sandbox-member", Method::POST, CLIENTS, &body).await.0, 403);
    assert!(harness.kinds().is_empty());
}

#[tokio::test]
async fn clients_are_listed_by_page_and_order_with_both_spellings_of_count() {
    let harness = Harness::start().await;
    for name in ["a", "b"] {
        harness.pass(Duration::from_millis(1));
        harness.created(name, "$member").await;
    }
    assert_eq!(names(&harness.listed("count=true&offset=0&limit=20&sort=-createdAt").await), ["b", "a", "sandbox"]);
    let page = harness.listed("count=True&offset=1&limit=1&sort=createdAt").await;
    assert_eq!((names(&page), &page["totalRecord"]), (vec!["a"], &json!(3)));
    assert_eq!(harness.listed("count=false").await["totalRecord"], 0);
    assert_eq!(names(&harness.listed("count=true&offset=3").await), Vec::<&str>::new());
    assert_eq!(harness.get(&format!("{CLIENTS}?sort=name")).await.0, 400);
    assert!(!harness.listed("").await.to_string().contains("ecret"), "a secret is shown by the creation alone");
}

#[tokio::test]
async fn an_update_changes_only_what_it_gives() {
    let harness = Harness::start().await;
    let client = harness.created("ci", "$member").await;
    let path = format!("{CLIENTS}/{}", client["clientId"].as_str().expect("an id"));
    harness.pass(Duration::from_secs(1));
    let (_, changed) = harness.ask("sandbox-admin", Method::PUT, &path, &json!({ "description": "new" })).await;
    assert_eq!((&changed["displayName"], &changed["description"]), (&json!("ci"), &json!("new")));
    assert_eq!(
        (&changed["role"], &changed["personaQNs"], &changed["updatedBy"]),
        (&json!("$member"), &json!([STEWARDS]), &json!("jane"))
    );
    assert!(changed["updatedAt"].as_str() > changed["createdAt"].as_str());
    assert_eq!(harness.ask("sandbox-admin", Method::PUT, &path, &json!({ "role": "$admin" })).await.0, 400);
    assert_eq!(harness.get(&path).await.1, changed);
}

#[tokio::test]
async fn the_roles_that_can_be_given_are_found_by_the_recorded_filters() {
    let harness = Harness::start().await;
    for (filter, expected) in [
        (r#"{"$or": [{"level": "workspace"}, {"level": "admin-subrole"}]}"#, 4),
        (r#"{"level": "workspace"}"#, 3),
        (r#"{"name":{"$ilike":"$%"}}"#, 4),
    ] {
        let mut url = reqwest::Url::parse(&harness.sandbox.base_url()).expect("a URL");
        url.query_pairs_mut().append_pair("count", "True").append_pair("filter", filter);
        let (_, roles) = harness.get(&format!("/api/service/roles?{}", url.query().unwrap_or_default())).await;
        assert_eq!(roles["filterRecord"], expected, "{filter}");
        assert!(roles["records"][0]["memberCount"].is_string());
    }
}

#[tokio::test]
async fn a_name_stands_for_one_persona_for_two_or_for_none() {
    let harness = Harness::start().await;
    for (name, expected) in [("Data Stewards", 1), ("Readers", 2), ("nobody", 0)] {
        let term = |field: &str, value: &str| json!({ "term": { field: { "value": value } } });
        let filter = [term("__state", "ACTIVE"), term("__typeName.keyword", "PERSONA"), term("name.keyword", name)];
        let body = json!({ "attributes": [], "relationAttributes": ["name"], "dsl": { "from": 0, "size": 300,
            "query": { "bool": { "filter": filter } }, "sort": [{ "__guid": { "order": "asc" } }] } });
        let (_, found) = harness.post("/api/meta/search/indexsearch", &body).await;
        assert_eq!(found["entities"].as_array().map_or(0, Vec::len), expected, "{name}");
    }
}

#[tokio::test]
async fn an_api_token_is_a_bearer_at_once_until_its_validity_ends() {
    let harness = Harness::start().await;
    let path = "/api/service/apikeys";
    let body = json!({ "displayName": "new", "description": "d", "personaQualifiedNames": [STEWARDS], "validitySeconds": 60 });
    let (status, token) = harness.post(path, &body).await;
    assert_eq!(status, 200, "{token}");
    let attributes = &token["attributes"];
    assert_eq!(attributes["access.token.lifespan"], "60");
    assert_eq!(attributes["personaQualifiedName"], json!([STEWARDS]).to_string());
    let bearer = attributes["accessToken"].as_str().expect("its value");
    let who = harness.ask(bearer, Method::GET, "/api/service/whoami", &Value::Null).await.1;
    assert_eq!(who["username"], format!("service-account-{}", token["clientId"].as_str().expect("an id")));
    let one = format!("{path}/{}", token["id"].as_str().expect("a guid"));
    let (_, changed) = harness.post(&one, &json!({ "displayName": "other", "description": "" })).await;
    assert_eq!((&changed["displayName"], &changed["attributes"]["personaQualifiedName"]), (&json!("other"), &json!("[]")));
    assert!(changed["attributes"].get("accessToken").is_none());
    harness.pass(Duration::from_secs(60));
    assert_eq!(harness.ask(bearer, Method::GET, "/api/service/whoami", &Value::Null).await.0, 401);
    for (seconds, expected) in [(json!(-1), 200), (json!(157_680_000), 200), (json!(157_680_001), 400), (json!(0), 400)] {
        let body = json!({ "displayName": "new", "validitySeconds": seconds });
        assert_eq!(harness.post(path, &body).await.0, expected, "{seconds}");
    }
}

#[tokio::test]
async fn the_value_of_an_api_token_outlives_access_tokens_and_is_rotated_until_the_same_end() {
    let harness = Harness::start().await;
    let body = json!({ "displayName": "new", "validitySeconds": 60 });
    let (_, token) = harness.post("/api/service/apikeys", &body).await;
    let value = token["attributes"]["accessToken"].as_str().expect("its value");
    let username = format!("service-account-{}", token["clientId"].as_str().expect("an id"));
    let change = |change: Value| {
        let change = serde_json::from_value(change).expect("a change");
        harness.sandbox.change_credentials(change).expect("it can be made");
    };
    change(json!({ "kind": "expire_issued" }));
    assert_eq!(harness.whoami(value).await.0, 200);
    change(json!({ "kind": "rotate", "username": username, "bearer": "new-value" }));
    assert_eq!((harness.whoami(value).await.0, harness.whoami("new-value").await.0), (401, 200));
    harness.pass(Duration::from_secs(60));
    assert_eq!(harness.whoami("new-value").await.0, 401);
}

#[tokio::test]
async fn a_purged_api_token_is_no_bearer_and_no_admin_any_more() {
    let harness = Harness::start().await;
    let (_, token) = harness.post("/api/service/apikeys", &json!({ "displayName": "new" })).await;
    let bearer = token["attributes"]["accessToken"].as_str().expect("its value");
    let one = |guid: &str| format!("/api/service/apikeys/{guid}");
    let path = one(token["id"].as_str().expect("a guid"));
    assert_eq!(harness.ask(bearer, Method::DELETE, &path, &Value::Null).await.0, 200);
    assert_eq!(harness.ask(bearer, Method::DELETE, &path, &Value::Null).await.0, 401);
    let own = one("b0000000-0000-4000-8000-000000000001");
    assert_eq!(harness.ask("sandbox-admin", Method::DELETE, &own, &Value::Null).await.0, 200);
    assert_eq!(harness.get("/api/service/whoami").await.0, 401, "the seeded bearer was that token's value");
    assert_eq!(harness.kinds(), ["api_token_created", "api_token_purged", "api_token_purged"]);
}

#[tokio::test]
async fn where_admins_are_strict_only_those_named_and_connection_admins_may_grant() {
    let harness = Harness::with(SandboxOptions { strict_admins: true, ..SandboxOptions::default() }).await;
    let client = harness.created("ci", "$admin_connections").await;
    let client = harness.login(&client).await.1["accessToken"].as_str().expect("a token").to_owned();
    let bulk = json!({ "entities": [{ "typeName": "Connection", "guid": "-1",
        "attributes": { "qualifiedName": PROD, "adminUsers": ["jane", "joe"] } }] });
    for (bearer, expected, phase) in
        [("sandbox-api-token", 403, "Failed"), ("sandbox-admin", 200, "Succeeded"), (client.as_str(), 200, "Succeeded")]
    {
        assert_eq!(harness.ask(bearer, Method::POST, "/api/meta/entity/bulk", &bulk).await.0, expected, "{bearer}");
        let path = "/api/service/package-workflows/submit";
        let (_, run) = harness.ask(bearer, Method::POST, path, &submission(GRANT)).await;
        harness.pass(ALL_PHASES);
        assert_eq!(harness.phase(run["metadata"]["name"].as_str().expect("a run")).await.as_deref(), Some(phase), "{bearer}");
    }
}
