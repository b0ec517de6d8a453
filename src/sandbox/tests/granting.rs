//! Connections and their admins, by the package and by hand.

use super::*;

const BULK: &str = "/api/meta/entity/bulk/?replaceTags=false&appendTags=false";

fn replacement(connection: &str, users: &Value) -> Value {
    json!({ "entities": [{ "typeName": "Connection", "businessAttributes": null, "guid": "-1",
        "attributes": { "qualifiedName": connection, "adminUsers": users } }] })
}

#[tokio::test]
async fn the_package_grants_at_its_runs_end_and_once() {
    let harness = Harness::start().await;
    let run = harness.started(GRANT).await;
    harness.pass(Duration::from_millis(1_799));
    assert_eq!(harness.sandbox.admin_users(PROD), ["jane"]);
    harness.pass(Duration::from_millis(1));
    assert_eq!(harness.sandbox.admin_users(PROD), ["jane", CI_USER]);
    assert_eq!(harness.phase(&run).await.as_deref(), Some("Succeeded"));
    harness.started(GRANT).await;
    harness.pass(ALL_PHASES);
    assert_eq!(harness.kinds(), ["run_submitted", "admin_granted_by_run", "run_submitted"], "already an admin: no change");
    let effects = harness.sandbox.effects();
    assert_eq!(effects[1].at, time::precise(START + 1_800));
    assert_eq!(effects[1].what, What::AdminGrantedByRun { connection: PROD.into(), user: CI_USER.into(), run, pruned: Vec::new() });
}

#[tokio::test]
async fn a_package_run_that_cannot_grant_fails_and_says_why() {
    let harness = Harness::start().await;
    let ci = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99";
    let cases = [
        ("sandbox-api-token", "default/snowflake/9999999999", ci, "is not permitted"),
        ("sandbox-member", PROD, ci, "is not permitted"),
        ("sandbox-admin", "default/none/1", ci, "unable to find connection"),
        ("sandbox-admin", PROD, "none", "unable to find API token"),
        ("sandbox-admin", "", ci, "missing required parameters"),
    ];
    for (number, (bearer, connection, token, expected)) in cases.into_iter().enumerate() {
        let name = format!("csa-api-token-connection-admin-179500000{number}");
        let parameters =
            json!([{ "name": "connection_qualified_name", "value": connection }, { "name": "api_token_guid", "value": token }]);
        let body = json!({ "metadata": { "name": name, "annotations": { "package.argoproj.io/name": "@csa/api-token-connection-admin" } },
            "spec": { "templates": [{ "name": "main", "dag": { "tasks": [{ "name": "run", "arguments": { "parameters": parameters } }] } }] } });
        assert_eq!(harness.ask(bearer, Method::POST, "/api/service/package-workflows?submit=false", &body).await.0, 200);
        let (_, run) = harness.ask(bearer, Method::POST, "/api/service/package-workflows/submit", &submission(&name)).await;
        harness.pass(ALL_PHASES);
        let ended = harness.found(run["metadata"]["name"].as_str().expect("a name")).await.expect("found");
        assert_eq!(ended["status"]["phase"], "Failed", "{expected}");
        assert!(ended["status"]["message"].as_str().is_some_and(|message| message.contains(expected)), "{ended}");
    }
    assert!(!harness.kinds().contains(&"admin_granted_by_run".to_owned()));
}

#[tokio::test]
async fn the_package_prunes_admins_that_do_not_exist() {
    let harness = Harness::start().await;
    assert_eq!(harness.post(BULK, &replacement(PROD, &json!(["jane", "gone"]))).await.0, 200);
    harness.started(GRANT).await;
    harness.pass(ALL_PHASES);
    assert_eq!(harness.sandbox.admin_users(PROD), ["jane", CI_USER]);
}

#[tokio::test]
async fn a_bulk_write_replaces_the_whole_list() {
    let harness = Harness::start().await;
    let (status, answer) = harness.post(BULK, &replacement(PROD, &json!(["joe", "joe"]))).await;
    assert_eq!((status.as_u16(), &answer["mutatedEntities"]["UPDATE"][0]["attributes"]["adminUsers"]), (200, &json!(["joe"])));
    assert_eq!(answer["guidAssignments"]["-1"], "c0000000-0000-4000-8000-000000000001");
    let (status, same) = harness.post("/api/meta/entity/bulk", &replacement(PROD, &json!(["joe"]))).await;
    assert_eq!((status.as_u16(), same.get("mutatedEntities")), (200, None));
    let expected = What::AdminsReplaced {
        connection: PROD.into(),
        before: vec!["jane".into()],
        after: vec!["joe".into()],
        by: "service-account-apikey-11111111-2222-3333-4444-555555555555".into(),
    };
    let effects: Vec<_> = harness.sandbox.effects().into_iter().map(|effect| effect.what).collect();
    assert_eq!(effects, [expected]);
}

#[tokio::test]
async fn a_bulk_write_that_may_not_be_changes_nothing() {
    let harness = Harness::start().await;
    let cases = [
        ("sandbox-api-token", PROD, json!([]), 400, "ATLAS-400-00-114"),
        ("sandbox-api-token", "default/none/1", json!(["joe"]), 404, "ATLAS-404-00-009"),
        ("sandbox-member", PROD, json!(["joe"]), 403, "ATLAS-403-00-001"),
        ("sandbox-admin", "default/snowflake/9999999999", json!(["joe"]), 403, "ATLAS-403-00-001"),
        ("sandbox-admin", PROD, json!(["<b>"]), 400, "ATLAS-400-00-029"),
    ];
    for (bearer, connection, users, expected, code) in cases {
        let (status, error) = harness.ask(bearer, Method::POST, BULK, &replacement(connection, &users)).await;
        assert_eq!((status.as_u16(), &error["errorCode"]), (expected, &json!(code)), "{connection} {users}");
    }
    assert!(harness.sandbox.effects().is_empty());
}

#[tokio::test]
async fn an_entity_is_read_at_once_while_the_index_lags() {
    let harness = Harness::start().await;
    harness.sandbox.set_index_lag(Duration::from_secs(5));
    harness.post(BULK, &replacement(PROD, &json!(["jane", "joe"]))).await;
    let entity = |answer: &Value| answer["entity"]["attributes"]["adminUsers"].clone();
    let (_, by_name) = harness.get(&format!("/api/meta/entity/uniqueAttribute/type/Connection?attr:qualifiedName={PROD}")).await;
    assert_eq!(entity(&by_name), json!(["jane", "joe"]));
    let (_, by_guid) = harness.get("/api/meta/entity/guid/c0000000-0000-4000-8000-000000000001?minExtInfo=false").await;
    assert_eq!(entity(&by_guid), json!(["jane", "joe"]));
    assert_eq!(searched(&harness, 0).await["entities"][0]["attributes"]["adminUsers"], json!(["jane"]));
    harness.pass(Duration::from_secs(5));
    assert_eq!(searched(&harness, 0).await["entities"][0]["attributes"]["adminUsers"], json!(["jane", "joe"]));
    let last = searched(&harness, 1).await;
    assert_eq!((last.get("entities"), &last["approximateCount"]), (None, &json!(1)));
    assert_eq!(harness.get("/api/meta/entity/guid/none").await.0, 404);
    assert_eq!(harness.get("/api/meta/entity/uniqueAttribute/type/Table?attr:qualifiedName=x").await.0, 404);
}

#[tokio::test]
async fn a_connection_is_found_by_name_with_its_type_in_upper_case() {
    let harness = Harness::start().await;
    let term = |field: &str, value: &str| json!({ "term": { field: { "value": value } } });
    let filter = [term("__typeName.keyword", "CONNECTION"), term("name.keyword", "prod"), term("connectorName", "snowflake")];
    let body = json!({ "attributes": ["adminUsers"], "dsl": { "query": { "bool": { "filter": filter } } }, "relationAttributes": ["name"] });
    let (_, answer) = harness.post("/api/meta/search/indexsearch", &body).await;
    assert_eq!(answer["entities"][0]["attributes"]["qualifiedName"], PROD);
}

async fn searched(harness: &Harness, from: usize) -> Value {
    let term = |field: &str, value: &str| json!({ "term": { field: { "value": value, "case_insensitive": false } } });
    let filter = [term("__typeName.keyword", "Connection"), term("__state", "ACTIVE"), term("qualifiedName", PROD)];
    let body = json!({ "attributes": ["adminUsers"], "requestMetadata": { "saveSearchLog": false, "utmTags": ["project_sdk_python"] },
        "dsl": { "from": from, "size": 1, "aggregations": {}, "track_total_hits": true, "query": { "bool": { "filter": filter } },
            "sort": [{ "__guid": { "order": "asc" } }] } });
    let (status, answer) = harness.post("/api/meta/search/indexsearch", &body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}
