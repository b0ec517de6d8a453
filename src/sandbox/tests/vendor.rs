//! What the vendor's client asks for besides runs: people, groups, credentials, new connections, schedule queries.

use super::*;

#[tokio::test]
async fn users_and_groups_are_listed_filtered_and_sorted() {
    let harness = Harness::start().await;
    let names = async |path: &str, key: &str| {
        let (status, answer) = harness.get(&format!("/api/service/{path}")).await;
        assert_eq!(status, 200, "{answer}");
        let records = answer["records"].as_array().expect("records").iter();
        records.map(|record| record[key].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("users?sort=username&count=True&maxLoginEvents=1", "username").await, ["dora", "jane", "joe", "noah"]);
    assert_eq!(names("users?sort=-username&limit=1&offset=1", "username").await, ["joe"]);
    assert_eq!(names("users?filter=%7B%22username%22%3A%7B%22%24in%22%3A%5B%22joe%22%5D%7D%7D", "username").await, ["joe"]);
    assert_eq!(names("users?filter=%7B%22email%22%3A%7B%22%24ilike%22%3A%22%25AH%40%25%22%7D%7D", "username").await, ["noah"]);
    for path in ["v2/groups?sort=name", "groups?sort=name"] {
        assert_eq!(names(path, "name").await, ["data_stewards", "engineers"]);
    }
    assert_eq!(names("groups/90000000-0000-4000-8000-0000000000a2/members", "username").await, ["joe"]);
    assert_eq!(names("users/8c1e2d8a-1564-4e95-8b14-ea14522fcf61/groups", "alias").await, ["Data Stewards"]);
    let (_, current) = harness.get("/api/service/users/current").await;
    let (_, whoami) = harness.get("/api/service/whoami").await;
    assert_eq!((&current["id"], &current["username"]), (&whoami["userId"], &whoami["username"]));
    assert_eq!(harness.get("/api/service/users?sort=nothing").await.0, 400);
}

#[tokio::test]
async fn a_credential_shows_no_secret_and_its_name_is_taken_once() {
    let harness = Harness::start().await;
    let body = json!({ "name": "mine", "host": "h", "password": "hush-1", "extra": { "key": "hush-2" }, "username": "hush-3" });
    let (status, made) = harness.post("/api/service/credentials?testCredential=true", &body).await;
    let guid = made["id"].as_str().expect("a guid").to_owned();
    assert_eq!((status.as_u16(), &made["name"], &made["version"]), (200, &json!("mine"), &json!("1")));
    let (status, taken) = harness.post("/api/service/credentials", &body).await;
    assert!(status == 400 && taken["message"].as_str().is_some_and(|text| text.contains("credentials_name_key")), "{taken}");
    let path = format!("/api/service/credentials/{guid}");
    assert_eq!(harness.post(&path, &json!({ "host": "other" })).await.1["host"], "other");
    assert_eq!(harness.get(&path).await.1["version"], "2");
    let (_, list) = harness.get("/api/service/credentials?filter=%7B%22name%22%3A%22default-snowflake-1684500500-0%22%7D").await;
    assert_eq!(list["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(harness.post("/api/service/credentials/test", &json!({ "host": "h" })).await.1["message"], "successful");
    assert_eq!(harness.post("/api/service/credentials/test", &json!({ "host": "unreachable" })).await.1["message"], "failed");
    assert_eq!(harness.post(&format!("{path}/archive"), &Value::Null).await.0, 200);
    assert_eq!(harness.get(&path).await.0, 404);
    assert_eq!(harness.kinds(), ["credential_created", "credential_updated", "credential_purged"]);
    let log = serde_json::to_string(&harness.sandbox.requests()).expect("serializes");
    assert!(!log.contains("hush-1") && !log.contains("hush-2") && !made.to_string().contains("hush"), "{log}");
}

#[tokio::test]
async fn a_connection_is_created_with_its_creator_as_an_admin_and_found() {
    let harness = Harness::start().await;
    let name = "default/snowflake/1795000000";
    let entity = |admins: Value| {
        json!({ "entities": [{ "typeName": "Connection", "guid": "-7", "attributes": { "qualifiedName": name, "name": "fresh",
            "connectorName": "snowflake", "category": "warehouse", "adminUsers": admins } }] })
    };
    let save = async |bearer: &str, body: &Value| harness.ask(bearer, Method::POST, "/api/meta/entity/bulk", body).await;
    assert_eq!(save("sandbox-admin", &entity(json!([]))).await.1["errorCode"], "ATLAS-400-00-114");
    assert_eq!(save("sandbox-member", &entity(json!(["joe"]))).await.0, 404, "a member creates none");
    let (status, made) = save("sandbox-admin", &entity(json!(["joe"]))).await;
    let guid = made["guidAssignments"]["-7"].as_str().expect("a guid");
    assert_eq!((status.as_u16(), &made["mutatedEntities"]["CREATE"][0]["guid"]), (200, &json!(guid)), "{made}");
    let (_, read) = harness.get(&format!("/api/meta/entity/guid/{guid}")).await;
    assert_eq!(read["entity"]["attributes"]["adminUsers"], json!(["joe", "jane"]));
    assert_eq!(harness.sandbox.admin_users(name), ["joe", "jane"]);
    assert_eq!(harness.kinds(), ["connection_created"]);
}

#[tokio::test]
async fn schedule_queries_ran_or_were_missed_between_two_dates() {
    let harness = Harness::start().await;
    let annotations =
        json!({ "package.argoproj.io/name": "@atlan/schedule-query", "orchestration.atlan.com/schedule": "5 4 * * *" });
    let body = json!({ "metadata": { "name": "asq-1", "annotations": annotations }, "spec": { "templates": [] } });
    assert_eq!(harness.post("/api/service/workflows?submit=false", &body).await.0, 200);
    let days = format!("startDate={}&endDate={}", time::seconds(START - 1_000), time::seconds(START + 5_000));
    let (ran, missed) = ("runs/cron/scheduleQueriesBetweenDuration", "runs/cron/missedScheduleQueriesBetweenDuration");
    let ask = async |path: &str| harness.get(&format!("/api/service/{path}?{days}")).await.1;
    assert_eq!((ask(ran).await, &ask(missed).await[0]["metadata"]["name"]), (Value::Null, &json!("asq-1")));
    let run = harness.started("asq-1").await;
    assert_eq!((&ask(ran).await[0]["metadata"]["name"], ask(missed).await), (&json!(run), Value::Null));
    assert_eq!(harness.get(&format!("/api/service/{ran}?startDate=x&endDate=y")).await.0, 400);
}

#[tokio::test]
async fn a_workflow_is_not_handed_to_a_user_who_does_not_exist() {
    let harness = Harness::start().await;
    let path = format!("/api/service/workflows/{CRAWLER}/changeownership");
    let (status, refused) = harness.post(&path, &json!({ "username": "stranger" })).await;
    assert!(status == 404 && refused["message"] == "user \"stranger\" does not exist", "{refused}");
    assert!(harness.kinds().is_empty());
    assert_eq!(harness.post(&path, &json!({ "username": CI_USER })).await.0, 200, "a service account may own one");
}

#[tokio::test]
async fn a_search_is_sorted_by_its_id_and_ranges_go_by_the_calendar() {
    let harness = Harness::start().await;
    let ids = async |query: &Value| {
        let (status, found) = harness.post("/api/service/workflows/indexsearch", query).await;
        assert_eq!(status, 200, "{found}");
        found["hits"]["hits"].as_array().expect("hits").iter().map(|hit| hit["_id"].clone()).collect::<Vec<_>>()
    };
    let sorted = ids(&json!({ "size": 2, "sort": ["_score", { "_id": { "order": "desc", "unmapped_type": "keyword" } }] })).await;
    assert_eq!(sorted, [GRANT, "atlan-tableau-1684500901"]);
    let since = |edge: &str| json!({ "query": { "nested": { "path": "metadata", "query": { "range": { "metadata.creationTimestamp": { "gte": edge } } } } } });
    assert_eq!(ids(&since("2023-05-19||/M")).await.len(), 7);
    assert_eq!(ids(&since("now-1y/d")).await.len(), 0);
    assert_eq!(ids(&since("now-10y")).await.len(), 7);
}
