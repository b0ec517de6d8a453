//! Identity, preflight, searches and the other routes that change nothing.

use super::*;

#[tokio::test]
async fn a_missing_or_unknown_bearer_is_a_json_401_dated_by_the_sandboxs_clock() {
    let harness = Harness::start().await;
    for bearer in ["", "nobody"] {
        let answer = harness.request(bearer, Method::GET, "/api/service/whoami").send().await.expect("an answer");
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["date"], time::http_date(START).as_str());
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["code"], 401);
    }
    let log = harness.sandbox.requests();
    assert_eq!((log[0].status, log[0].principal.as_deref(), log[0].authorization), (Some(401), None, true));
    let logged = serde_json::to_string(&log).expect("serializes");
    assert!(!logged.contains("nobody"), "a bearer's value is never logged: {logged}");
}

#[tokio::test]
async fn an_unknown_route_is_a_json_404() {
    let harness = Harness::start().await;
    let (status, body) = harness.get("/api/service/v1/app").await;
    assert_eq!((status.as_u16(), &body["code"]), (404, &json!(404)));
    let (status, _) = harness.ask("sandbox-admin", Method::DELETE, "/api/service/whoami", &Value::Null).await;
    assert_eq!(status, 405);
}

#[tokio::test]
async fn a_body_beyond_two_mebibytes_is_refused() {
    let harness = Harness::start().await;
    let (status, body) = harness.post("/api/service/workflows/submit", &json!("x".repeat(2 * 1024 * 1024))).await;
    assert_eq!((status.as_u16(), &body["code"]), (413, &json!(413)));
    let answer = harness.request("sandbox-admin", Method::POST, "/api/service/workflows/submit").body("{").send().await;
    assert_eq!(answer.expect("an answer").status(), 400);
}

#[tokio::test]
async fn whoami_tells_each_principal_its_role() {
    let harness = Harness::start().await;
    let expected = [
        ("sandbox-api-token", "service-account-apikey-11111111-2222-3333-4444-555555555555", "$api-token-default-access"),
        ("sandbox-admin", "jane", "$admin"),
        ("sandbox-member", "joe", "$member"),
        ("sandbox-service-account", "service-account-connector", "$api-token-default-access"),
    ];
    for (bearer, username, role) in expected {
        let (_, who) = harness.ask(bearer, Method::GET, "/api/service/whoami", &Value::Null).await;
        assert_eq!((&who["username"], &who["roles"][0]["name"]), (&json!(username), &json!(role)));
    }
}

#[tokio::test]
async fn the_preflight_answers_each_verdict() {
    let harness = Harness::start().await;
    let (enabled, disabled, denied) =
        ("8c1e2d8a-1564-4e95-8b14-ea14522fcf61", "0d15ab1e-d000-4000-8000-000000000001", "90000000-0000-4000-8000-000000000002");
    let cases = [
        (enabled, PROD, json!([])),
        (disabled, PROD, json!(["UserEnabled"])),
        (denied, PROD, json!(["AtlanPublishPermission"])),
        (disabled, "default/postgres/1111111111", json!(["UserEnabled", "AtlanPublishPermission"])),
        (denied, "", json!([])),
        (disabled, "", json!(["UserEnabled"])),
        (enabled, "default/unknown/1", json!(["AtlanPublishPermission"])),
    ];
    for (user, connection, failed) in cases {
        let body = json!({ "user_id": user, "connection_qualified_name": connection });
        let (status, verdict) = harness.post(PREFLIGHT, &body).await;
        assert_eq!(status, 200);
        assert_eq!((&verdict["passed"], &verdict["failed_checks"]), (&json!(failed == json!([])), &failed), "{body}");
    }
    let body = json!({ "user_id": disabled, "connection_qualified_name": "default/postgres/1111111111" });
    let (_, verdict) = harness.post(PREFLIGHT, &body).await;
    assert_eq!(verdict["message"], format!("User {disabled} failed publish preflight checks: UserEnabled, AtlanPublishPermission"));
}

const PREFLIGHT: &str = "/api/service/workflows/preflight/user-publish-check";

#[tokio::test]
async fn the_preflight_gives_no_verdict_to_people_about_nobody_or_without_its_keys() {
    let harness = Harness::start().await;
    let body = json!({ "user_id": "8c1e2d8a-1564-4e95-8b14-ea14522fcf61", "connection_qualified_name": "" });
    assert_eq!(harness.ask("sandbox-admin", Method::POST, PREFLIGHT, &body).await.0, 403);
    let (status, error) = harness.post(PREFLIGHT, &json!({ "user_id": "x", "connection_qualified_name": "" })).await;
    assert_eq!((status.as_u16(), &error["code"]), (404, &json!(404)));
    for body in [
        json!({ "user_id": "x" }),
        json!({ "user-id": "x", "connection_qualified_name": "" }),
        json!({ "user_id": 1, "connection_qualified_name": "" }),
        json!([]),
    ] {
        assert_eq!(harness.post(PREFLIGHT, &body).await.0, 400, "{body}");
    }
}

#[tokio::test]
async fn a_workflow_is_found_by_type_by_prefix_and_by_name() {
    let harness = Harness::start().await;
    let search = async |clause: Value| {
        let sort = json!([{ "metadata.creationTimestamp": { "order": "desc", "nested": { "path": "metadata" } } }]);
        let body = json!({ "from": 0, "size": 5, "track_total_hits": true, "sort": sort,
            "query": { "bool": { "filter": [{ "nested": { "path": "metadata", "query": clause } }] } } });
        let (status, found) = harness.post("/api/service/workflows/indexsearch", &body).await;
        assert_eq!(status, 200, "{found}");
        let hits = found["hits"]["hits"].as_array().expect("hits").clone();
        assert_eq!(found["hits"]["total"]["value"], hits.len());
        hits.iter().map(|hit| hit["_id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let by_type =
        search(json!({ "regexp": { "metadata.name.keyword": { "value": "csa[-]api[-]token[-]connection[-]admin[-][0-9]{10}" } } }))
            .await;
    assert_eq!(by_type, [GRANT]);
    let crawler = search(json!({ "regexp": { "metadata.name.keyword": { "value": "atlan[-]snowflake[-][0-9]{10}" } } })).await;
    assert_eq!(crawler, [CRAWLER]);
    let by_prefix = search(json!({ "prefix": { "metadata.name.keyword": { "value": "atlan-snowflake" } } })).await;
    assert_eq!(by_prefix, ["atlan-snowflake-miner-1684500600", CRAWLER], "newest first");
    let by_name = search(json!({ "bool": { "must": [{ "term": { "metadata.name.keyword": { "value": GRANT } } }] } })).await;
    assert_eq!(by_name, [GRANT]);
    let package = "metadata.annotations.package.argoproj.io/name.keyword";
    let by_package = search(json!({ "term": { package: { "value": "@atlan/tableau" } } })).await;
    assert_eq!(by_package, ["atlan-tableau-1684500901", "atlan-tableau-1684500900"]);
    assert!(search(json!({ "term": { package: "@atlan/none" } })).await.is_empty());
}

#[tokio::test]
async fn an_unknown_clause_is_a_400_that_names_it() {
    let harness = Harness::start().await;
    for path in ["/api/service/workflows/indexsearch", "/api/service/runs/indexsearch"] {
        let (status, error) = harness.post(path, &json!({ "query": { "wildcard": { "_id": "a*" } } })).await;
        assert_eq!((status.as_u16(), &error["message"]), (400, &json!("unknown query [wildcard]")));
    }
    let (status, error) = harness.post("/api/meta/search/indexsearch", &json!({ "dsl": { "query": { "fuzzy": {} } } })).await;
    assert_eq!(status, 400);
    assert_eq!(error["errorMessage"], "unknown query [fuzzy]");
}

#[tokio::test]
async fn the_seeded_runs_are_found_as_the_vendors_client_asks() {
    let harness = Harness::start().await;
    let of = |workflow: &str| json!({ "nested": { "path": "spec", "query": { "term": { "spec.workflowTemplateRef.name.keyword": { "value": workflow } } } } });
    let latest = json!({ "from": 0, "size": 1, "track_total_hits": true, "query": { "bool": { "filter": [of(GRANT)] } },
        "sort": [{ "status.startedAt": { "order": "desc" } }] });
    let (_, found) = harness.post("/api/service/runs/indexsearch", &latest).await;
    let hit = &found["hits"]["hits"][0];
    assert_eq!(hit["_id"], format!("{GRANT}-t7s8b"));
    assert_eq!(hit["_source"]["status"]["finishedAt"], "2023-05-19T12:48:10Z");
    assert_eq!(hit["_source"]["metadata"]["labels"]["workflows.argoproj.io/completed"], "true");

    let paged = |from: usize| {
        json!({ "from": from, "size": 1, "query": { "bool": { "must": [of(GRANT)],
            "filter": [{ "term": { "status.phase.keyword": { "value": "Succeeded" } } }] } } })
    };
    for (from, hits) in [(0, 1), (1, 0)] {
        let (_, page) = harness.post("/api/service/runs/indexsearch", &paged(from)).await;
        assert_eq!(page["hits"]["hits"].as_array().map(Vec::len), Some(hits));
        assert_eq!(page["hits"]["total"]["value"], 1);
    }
}

#[tokio::test]
async fn tokens_are_found_by_each_of_their_names() {
    let harness = Harness::start().await;
    let filters = [
        "%7B%22id%22%3A%2292588c67-5ddf-4a45-8b5c-dd92f4b84e99%22%7D&sort=createdAt",
        "%7B%22clientId%22%3A%22apikey-33333333-4444-5555-6666-777777777777%22%7D",
        "%7B%22displayName%22%3A%22ci%22%7D",
    ];
    for filter in filters {
        let (_, found) = harness.get(&format!("/api/service/apikeys?count=True&offset=0&limit=5&filter={filter}")).await;
        assert_eq!(found["records"][0]["clientId"], "apikey-33333333-4444-5555-6666-777777777777");
        assert_eq!((&found["filterRecord"], &found["totalRecord"]), (&json!(1), &json!(3)));
    }
    let (_, page) = harness.get("/api/service/apikeys?count=True&offset=2&limit=2&sort=createdAt").await;
    assert_eq!(page["records"].as_array().map(Vec::len), Some(1));
    let (status, _) = harness.get("/api/service/apikeys?filter=%7B%22nme%22%3A%22ci%22%7D").await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn roles_are_listed_by_the_filters_that_the_vendors_client_sends() {
    let harness = Harness::start().await;
    let levels = "%7B%22%24or%22%3A+%5B%7B%22level%22%3A+%22workspace%22%7D%2C+%7B%22level%22%3A+%22admin-subrole%22%7D%5D%7D";
    let names = "%7B%22name%22%3A+%7B%22%24ilike%22%3A+%22%24%25%22%7D%7D";
    for filter in [levels, names] {
        let (status, found) = harness.get(&format!("/api/service/roles?count=True&offset=0&limit=100&filter={filter}")).await;
        assert_eq!((status.as_u16(), &found["filterRecord"]), (200, &json!(4)), "{found}");
    }
    let (_, types) = harness.get("/api/meta/types/typedefs/?type=STRUCT").await;
    assert_eq!(types["structDefs"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn the_admin_routes_are_no_exchanges_and_meet_no_faults() {
    let harness = Harness::start().await;
    let base = harness.sandbox.base_url();
    let fault = json!([{ "times": 0, "action": { "kind": "status", "status": 503, "headers": [["retry-after", "7"]] } }]);
    let added = harness.client.post(format!("{base}/sandbox/faults")).json(&fault).send().await.expect("an answer");
    assert_eq!(added.status(), 200);
    for path in ["health", "ledger", "requests", "faults"] {
        let answer = harness.client.get(format!("{base}/sandbox/{path}")).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
    }
    assert_eq!((harness.sandbox.requests().len(), harness.sandbox.faults_fired()), (0, 0));
    let answer = harness.request("sandbox-admin", Method::GET, "/api/service/whoami").send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"7".parse().expect("a value")));
    let cleared = harness.client.delete(format!("{base}/sandbox/faults")).send().await.expect("an answer");
    assert_eq!(cleared.status(), 200);
    assert_eq!(harness.get("/api/service/whoami").await.0, 200);
    for (path, body) in
        [("faults", json!({ "action": { "kind": "explode" } })), ("index-lag", json!({ "s": 1 })), ("none", json!({}))]
    {
        let answer = harness.client.post(format!("{base}/sandbox/{path}")).json(&body).send().await.expect("an answer");
        assert!(answer.status().is_client_error(), "{path}");
    }
}
