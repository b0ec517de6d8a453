//! The native generation: `/v1/app`, and its runs in the metastore's index.

use super::*;

const APP: &str = "bq-prod-3f9ab2c1";
const LONG: &str = "redshift-dwh-9a4be150";
const LONG_RUN: &str = "3c6ef372fe94f82a";

impl Harness {
    async fn native() -> Self {
        Self::with(SandboxOptions { generation: Generation::Native, ..SandboxOptions::default() }).await
    }

    async fn submit_app(&self, slug: &str) -> (StatusCode, Value) {
        self.post(&format!("/api/service/v1/app/{slug}/submit"), &Value::Null).await
    }

    async fn app_run(&self, slug: &str) -> String {
        let (status, answer) = self.submit_app(slug).await;
        assert_eq!((status.as_u16(), answer["slug"].as_str()), (200, Some(slug)), "{answer}");
        answer["run_id"].as_str().expect("a run").to_owned()
    }

    async fn app_status(&self, run: &str) -> Value {
        let (status, answer) = self.get(&format!("/api/service/v1/app/runs/{run}")).await;
        assert_eq!((status.as_u16(), answer["run_id"].as_str()), (200, Some(run)), "{answer}");
        answer
    }

    /// Names and statuses of the runs of a workflow that a search finds, sorted as asked.
    async fn app_runs(&self, slug: &str, filter: &Value, sort: &Value) -> Vec<(String, String)> {
        let mut filters = vec![
            json!({ "term": { "__state": { "value": "ACTIVE", "case_insensitive": false } } }),
            json!({ "term": { "__typeName.keyword": { "value": "AppWorkflowRun", "case_insensitive": false } } }),
            json!({ "prefix": { "qualifiedName": { "value": format!("default/apps/automation_engine/workflows/{slug}/") } } }),
        ];
        filters.extend((!filter.is_null()).then(|| filter.clone()));
        let body = json!({ "attributes": ["appWorkflowRunStatus"],
            "dsl": { "from": 0, "size": 20, "track_total_hits": true, "query": { "bool": { "filter": filters } }, "sort": sort } });
        let (status, answer) = self.post("/api/meta/search/indexsearch", &body).await;
        assert_eq!(status, 200, "{answer}");
        let entities = answer["entities"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let row = |entity: &Value| (text(&entity["attributes"]["name"]), text(&entity["attributes"]["appWorkflowRunStatus"]));
        entities.iter().map(row).collect()
    }
}

fn new(name: &str) -> Value {
    json!({ "app_id": "snowflake-crawler", "name": name, "inputs": { "extraction_method": "direct", "unheard_of": 1 } })
}

#[tokio::test]
async fn an_argo_tenant_has_no_apps_and_a_native_one_no_templates() {
    let argo = Harness::start().await;
    for path in ["/api/service/v1/app", "/api/service/v1/apps/bigquery-crawler", "/api/service/v1/app/bq-prod-3f9ab2c1"] {
        assert_eq!(argo.get(path).await.0, 404, "{path}");
    }
    let native = Harness::native().await;
    let (status, answer) = native.submit(CRAWLER).await;
    assert_eq!(status, 404);
    let message = format!("clusterworkflowtemplates.argoproj.io \"{CRAWLER}\" not found");
    assert_eq!(answer["message"], message);
    let body = json!({ "metadata": { "name": "csa-1" }, "spec": { "templates": [{ "dag": { "tasks": [{ "templateRef":
        { "name": "csa-api-token-connection-admin" } }] } }] } });
    let (status, answer) = native.post("/api/service/package-workflows?submit=true", &body).await;
    let message = "clusterworkflowtemplates.argoproj.io \"csa-api-token-connection-admin\" not found";
    assert_eq!((status.as_u16(), answer["message"].as_str()), (404, Some(message)));
    for index in ["workflows", "runs"] {
        let (status, found) = native.post(&format!("/api/service/{index}/indexsearch"), &json!({})).await;
        assert_eq!((status.as_u16(), &found["hits"]["total"]["value"]), (200, &json!(0)), "{index}");
    }
    assert!(native.kinds().is_empty());
}

#[tokio::test]
async fn an_app_is_described_and_its_contract_read_and_kept() {
    let harness = Harness::native().await;
    let (status, app) = harness.get("/api/service/v1/apps/bigquery-crawler").await;
    assert_eq!((status.as_u16(), &app["native_ready"], &app["entrypoints"][0]["name"]), (200, &json!(true), &json!("crawler")));
    let (_, contract) = harness.get("/api/service/v1/apps/bigquery-crawler/inputs?entrypoint=crawler").await;
    assert_eq!((&contract["title"], &contract["type"]), (&json!("AppInputContract"), &json!("object")));
    for path in ["bigquery-crawler/inputs?entrypoint=other", "csa-api-token-connection-admin/inputs"] {
        let (status, answer) = harness.get(&format!("/api/service/v1/apps/{path}")).await;
        assert_eq!((status.as_u16(), &answer["code"]), (400, &json!(1003)), "{path}");
    }
    assert_eq!(harness.get("/api/service/v1/apps/none").await.0, 404);

    let create = async |body: Value| harness.post("/api/service/v1/app", &body).await;
    let mut wrong = new("wrong");
    wrong["inputs"]["hidden_datasets"] = json!("yes");
    let (status, answer) = create(wrong).await;
    assert_eq!((status.as_u16(), &answer["code"]), (400, &json!(1000)));
    assert!(answer["message"].as_str().is_some_and(|message| message.contains("'hidden_datasets' must be of type")), "{answer}");
    let (status, answer) = create(json!({ "app_id": "snowflake-miner", "name": "m", "inputs": {} })).await;
    assert_eq!((status.as_u16(), &answer["code"]), (400, &json!(1000)), "it demands a connection");
    let mut elsewhere = new("elsewhere");
    elsewhere["entrypoint"] = json!("miner");
    assert_eq!(create(elsewhere).await.1["code"], 1003);
    let update = json!({ "inputs": { "connection_qualified_name": 7 } });
    let (status, answer) = harness.ask("sandbox-admin", Method::PUT, &format!("/api/service/v1/app/{APP}"), &update).await;
    assert_eq!((status.as_u16(), &answer["code"]), (400, &json!(1000)));
    assert!(harness.kinds().is_empty());
}

#[tokio::test]
async fn a_created_app_runs_unless_told_not_to_and_its_name_is_taken() {
    let harness = Harness::native().await;
    let (status, created) = harness.post("/api/service/v1/app", &new("Fresh one")).await;
    assert_eq!((status.as_u16(), &created["execution_mode"]), (200, &json!("native")), "{created}");
    let slug = created["slug"].as_str().expect("a slug");
    assert!(slug.starts_with("fresh-one-"), "{slug}");
    assert_eq!(harness.app_status(created["run_id"].as_str().expect("a run")).await["slug"], slug);

    let (status, taken) = harness.post("/api/service/v1/app", &new("Fresh one")).await;
    assert_eq!((status.as_u16(), &taken["slug"], &taken["version"]), (409, &created["slug"], &created["version"]));
    assert!(taken["message"].is_string() && taken.as_object().is_some_and(|body| body.len() == 3), "{taken}");
    let (status, taken) = harness.post("/api/service/v1/app", &new("tableau-sales")).await;
    assert_eq!((status.as_u16(), &taken["slugs"]), (409, &json!(["tableau-sales-6ce1a94f", "tableau-sales-0b6f8d23"])));

    let mut quiet = new("quiet");
    quiet["run"] = json!(false);
    quiet["entrypoint"] = Value::Null;
    quiet["schedule"] = json!({ "cron": "0 9 * * *", "timezone": "UTC" });
    let (status, created) = harness.post("/api/service/v1/app", &quiet).await;
    assert_eq!((status.as_u16(), &created["run_id"]), (200, &Value::Null));
    assert!(created["schedule_trigger_id"].is_string(), "{created}");
    assert_eq!(harness.kinds(), ["app_created", "app_run_submitted", "app_created", "app_scheduled"]);
}

#[tokio::test]
async fn apps_are_listed_page_by_page_and_by_exact_name() {
    let harness = Harness::native().await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..10 {
        let (status, page) = harness.get(&format!("/api/service/v1/app?limit=3&cursor={cursor}")).await;
        assert_eq!(status, 200, "{page}");
        seen.extend(
            page["workflows"].as_array().expect("a list").iter().map(|row| row["slug"].as_str().expect("a slug").to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else {
            assert_eq!(page["has_more"], false);
            break;
        };
        assert_eq!(page["has_more"], true);
        next.clone_into(&mut cursor);
    }
    assert_eq!((seen.len(), seen[0].as_str(), seen[6].as_str()), (7, "tableau-sales-6ce1a94f", APP), "{seen:?}");
    let (_, named) = harness.get("/api/service/v1/app?name=bq-prod").await;
    assert_eq!((named["workflows"].as_array().map(Vec::len), &named["workflows"][0]["slug"]), (Some(1), &json!(APP)));
    let (_, none) = harness.get("/api/service/v1/app?name=bq").await;
    assert_eq!(none["workflows"], json!([]), "the filter is no prefix");
    assert_eq!(harness.get("/api/service/v1/app?cursor=what").await.0, 400);
}

#[tokio::test]
async fn an_app_is_replaced_scheduled_and_deleted() {
    let harness = Harness::native().await;
    let path = format!("/api/service/v1/app/{APP}");
    let ask = async |method: Method, path: &str, body: Value| harness.ask("sandbox-member", method, path, &body).await;
    let before = harness.get(&path).await.1;
    let (status, updated) = ask(Method::PUT, &path, json!({ "inputs": { "include_filter": {} } })).await;
    assert_eq!((status.as_u16(), &updated["slug"]), (200, &json!(APP)));
    assert!(updated["version"].as_i64() > before["version"].as_i64(), "{updated}");
    let after = harness.get(&path).await.1;
    assert_eq!(
        (&after["version"], &after["dag"]["extract"]["inputs"]["args"]),
        (&updated["version"], &json!({ "include_filter": {} }))
    );

    let schedule = format!("{path}/schedule");
    assert_eq!(ask(Method::POST, &schedule, json!({ "cron": "0 9 * * *", "timezone": null })).await.0, 400);
    let (status, added) = ask(Method::POST, &schedule, json!({ "cron": "0 9 * * *", "timezone": "UTC" })).await;
    assert_eq!((status.as_u16(), &added["cron"], &added["timezone"]), (200, &json!("0 9 * * *"), &json!("UTC")));
    assert_eq!(harness.get(&path).await.1["schedules"], json!([added]));
    let trigger = format!("{schedule}/{}", added["trigger_id"].as_str().expect("a trigger"));
    let (status, removed) = ask(Method::DELETE, &trigger, Value::Null).await;
    assert_eq!((status.as_u16(), removed), (200, json!({ "trigger_id": added["trigger_id"], "deleted": true })));
    assert_eq!(ask(Method::DELETE, &trigger, Value::Null).await.0, 404);
    assert_eq!(harness.get(&path).await.1["schedules"], json!([]));

    let (status, deleted) = ask(Method::DELETE, &path, Value::Null).await;
    assert_eq!((status.as_u16(), deleted), (200, json!({ "slug": APP, "archived": true })));
    assert_eq!(harness.get(&path).await.0, 404);
    assert_eq!(harness.submit_app(APP).await.0, 404);
    assert_eq!(harness.kinds(), ["app_updated", "app_scheduled", "app_unscheduled", "app_deleted"]);
    let effects = serde_json::to_value(harness.sandbox.effects()).expect("serializes");
    assert!(effects.as_array().is_some_and(|effects| effects.iter().all(|effect| effect["by"] == "joe")), "{effects}");
}

#[tokio::test]
async fn an_app_run_is_pending_then_running_then_over() {
    let harness = Harness::native().await;
    let run = harness.app_run(APP).await;
    let pending = harness.app_status(&run).await;
    assert_eq!((&pending["status"], &pending["started_at"], &pending["slug"]), (&json!("Pending"), &Value::Null, &json!(APP)));
    harness.pass(Duration::from_millis(300));
    assert_eq!(harness.app_status(&run).await["status"], "Running");
    harness.pass(Duration::from_millis(1_500));
    let over = harness.app_status(&run).await;
    assert_eq!((&over["status"], &over["started_at"]), (&json!("Succeeded"), &json!(time::seconds(START + 300))));
    assert_eq!(harness.get("/api/service/v1/app/runs/none").await.0, 404);

    let failing = harness.app_run("postgres-crm-18c2d9e6").await;
    let native = format!("/api/service/package-workflows/native-status/{failing}?execution_mode=automation-engine");
    let (_, open) = harness.get(&native).await;
    assert_eq!((&open["status"], &open["dag_nodes"]["extract"]["completed_at"]), (&json!("Pending"), &Value::Null));
    harness.pass(ALL_PHASES);
    let (status, ended) = harness.get(&native).await;
    assert_eq!(
        (status.as_u16(), &ended["status"], &ended["workflow_slug"]),
        (200, &json!("Failed"), &json!("postgres-crm-18c2d9e6"))
    );
    assert!(ended["dag_nodes"]["extract"]["error_message"].as_str().is_some_and(|text| text.contains("refused")), "{ended}");
    assert_eq!(harness.get(&native.replace("automation-engine", "argo")).await.0, 400);
}

#[tokio::test]
async fn one_run_of_an_app_is_active_at_a_time_and_a_second_is_refused_in_the_way_that_was_chosen() {
    let refused = |already_active| async move {
        let options = SandboxOptions { generation: Generation::Native, already_active, ..SandboxOptions::default() };
        let harness = Harness::with(options).await;
        let (status, body) = harness.submit_app(LONG).await;
        let others = harness.submit_app(APP).await.0;
        (status.as_u16(), body, others.as_u16(), harness.kinds().len())
    };
    let (status, body, others, effects) = refused(AlreadyActive::Masked500).await;
    assert_eq!((status, others, effects), (500, 200, 1));
    assert!(body["message"].as_str().is_some_and(|message| message.contains("AE-WF-409-03")), "{body}");
    let (status, body, _, effects) = refused(AlreadyActive::Conflict409).await;
    assert_eq!((status, effects, &body["code"]), (409, 1, &json!("AE-WF-409-03")));
    let (status, _, _, effects) = refused(AlreadyActive::Allow).await;
    assert_eq!((status, effects), (200, 2));

    let harness = Harness::native().await;
    assert_eq!(harness.app_status(LONG_RUN).await["status"], "Running");
    harness.pass(Duration::from_millis(1_500));
    assert_eq!(harness.app_status(LONG_RUN).await["status"], "Succeeded");
    harness.app_run(LONG).await;
}

#[tokio::test]
async fn a_cancelled_app_run_is_stopped_at_once() {
    let harness = Harness::native().await;
    let cancel = async |run: &str| harness.post(&format!("/api/service/v1/app/runs/{run}/cancel"), &Value::Null).await;
    let (status, answer) = cancel(LONG_RUN).await;
    assert_eq!(status, 200);
    assert_eq!(answer, json!({ "run_id": LONG_RUN, "cancelled": true, "status": "Stopped", "slug": LONG }));
    assert_eq!(harness.app_status(LONG_RUN).await["status"], "Stopped");
    assert_eq!(cancel(LONG_RUN).await.0, 400, "it has ended");
    assert_eq!(cancel("none").await.0, 404);
    harness.app_run(LONG).await;
    assert_eq!(harness.kinds(), ["app_run_cancelled", "app_run_submitted"]);
}

#[tokio::test]
async fn a_run_of_an_app_ends_as_a_fault_says_however_it_was_started() {
    let harness = Harness::native().await;
    for (path, body) in [(format!("/api/service/v1/app/{APP}/submit"), Value::Null), ("/api/service/v1/app".to_owned(), new("x"))] {
        harness.sandbox.add_fault(Fault::new(Action::EndAs { phase: "Error".into(), message: Some("worn out".into()) }));
        harness.get("/api/service/v1/app").await;
        let run = harness.post(&path, &body).await.1["run_id"].as_str().expect("a run").to_owned();
        harness.pass(ALL_PHASES);
        assert_eq!(harness.app_status(&run).await["status"], "Error", "{path}");
    }
}

#[tokio::test]
async fn the_ledger_names_the_app_run_its_workflow_and_the_request() {
    let harness = Harness::native().await;
    let path = format!("/api/service/v1/app/{APP}/submit");
    let request = harness.request("sandbox-member", Method::POST, &path).header("x-atlan-request-id", "r-1");
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    let effects = serde_json::to_value(harness.sandbox.effects()).expect("serializes");
    assert_eq!(
        effects,
        json!([{ "at": time::precise(START), "kind": "app_run_submitted", "run": answer["run_id"], "slug": APP, "by": "joe", "request_id": "r-1" }])
    );
}

#[tokio::test]
async fn app_runs_are_found_in_the_metastore_with_what_was_asked_for() {
    let harness = Harness::native().await;
    harness.pass(Duration::from_secs(10));
    let run = harness.app_run(APP).await;
    harness.pass(Duration::from_millis(300));
    let newest = json!([{ "appWorkflowRunStartedAt": { "order": "desc" } }]);
    let old = ("9e3779b97f4a7c15".to_owned(), "Succeeded".to_owned());
    let running = (run.clone(), "Running".to_owned());
    assert_eq!(harness.app_runs(APP, &Value::Null, &newest).await, [running.clone(), old]);
    let active = json!({ "terms": { "appWorkflowRunStatus": ["Pending", "Running"] } });
    assert_eq!(harness.app_runs(APP, &active, &json!([{ "__guid": { "order": "asc" } }])).await, std::slice::from_ref(&running));
    let since = json!({ "range": { "appWorkflowRunStartedAt": { "gte": START } } });
    assert_eq!(harness.app_runs(APP, &since, &newest).await, [running]);
    assert!(harness.app_runs("bq-prod", &Value::Null, &newest).await.is_empty(), "another slug");

    let attributes = [
        "appWorkflowRunStatus",
        "appWorkflowRunStartedAt",
        "appWorkflowRunCompletedAt",
        "appWorkflowRunStartedBy",
        "appWorkflowRunStoppedBy",
        "appWorkflowRunAppWorkflowSlug",
        "appWorkflowRunAppWorkflowName",
        "appWorkflowRunAppName",
        "appWorkflowRunTemporalRunId",
        "appWorkflowRunLabel",
    ];
    let name = format!("default/apps/automation_engine/workflows/{APP}/{run}");
    let body = json!({ "attributes": attributes, "dsl": { "query": { "term": { "qualifiedName": { "value": name } } } } });
    let (_, found) = harness.post("/api/meta/search/indexsearch", &body).await;
    let entity = &found["entities"][0];
    assert_eq!((&found["approximateCount"], &entity["attributes"]["qualifiedName"]), (&json!(1), &json!(name)));
    let given = entity["attributes"].as_object().expect("attributes");
    assert!(attributes.iter().all(|name| given.contains_key(*name)), "{entity}");
    assert_eq!((&given["appWorkflowRunStartedAt"], &given["appWorkflowRunCompletedAt"]), (&json!(START + 10_300), &Value::Null));
    let read = harness.get(&format!("/api/meta/entity/guid/{}", entity["guid"].as_str().expect("a guid"))).await.1;
    assert_eq!(read["entity"]["attributes"]["qualifiedName"], name);

    let unknown = json!({ "dsl": { "query": { "term": { "appWorkflowRunMood": "good" } } } });
    let (status, refused) = harness.post("/api/meta/search/indexsearch", &unknown).await;
    assert_eq!(status, 400);
    assert!(refused["errorMessage"].as_str().is_some_and(|message| message.contains("appWorkflowRunMood")), "{refused}");
}

#[tokio::test]
async fn the_metastore_shows_app_runs_with_the_index_lag_and_stale_where_a_fault_says_so() {
    let harness = Harness::native().await;
    harness.sandbox.set_index_lag(Duration::from_secs(10));
    let newest = json!([{ "appWorkflowRunStartedAt": "desc" }]);
    let run = harness.app_run(APP).await;
    assert_eq!(harness.app_runs(APP, &Value::Null, &newest).await.len(), 1, "the seeded one");
    harness.pass(Duration::from_secs(10));
    let found = harness.app_runs(APP, &Value::Null, &newest).await;
    assert_eq!(found[1], (run.clone(), "Pending".to_owned()), "a run that has not started sorts last");
    harness.pass(ALL_PHASES);
    assert_eq!(harness.app_runs(APP, &Value::Null, &newest).await[0], (run, "Succeeded".to_owned()));
    harness.sandbox.add_fault(Fault::new(Action::StaleIndex));
    assert_eq!(harness.app_runs(APP, &Value::Null, &newest).await.len(), 1, "as it was a minute ago");
}
