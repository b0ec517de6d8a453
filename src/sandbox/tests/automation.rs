//! The Automation Engine's own API, and the workflows of an argo tenant that it runs.

use super::*;

const APP: &str = "bq-prod-3f9ab2c1";
const RUNS: &str = "/automation/api/v1/runs";

async fn native() -> Harness {
    Harness::with(SandboxOptions { generation: Generation::Native, ..SandboxOptions::default() }).await
}

async fn engine() -> Harness {
    Harness::with(SandboxOptions { native_engine: true, ..SandboxOptions::default() }).await
}

/// The ids of the runs of a workflow, as the list has them.
async fn listed(harness: &Harness, slug: &str) -> Vec<Value> {
    let query = "page=0&page_size=20&include_test_runs=true&include_system=true";
    let (status, answer) = harness.get(&format!("{RUNS}?workflow_slug={slug}&{query}")).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"].as_array().expect("rows").iter().map(|row| row["guid"].clone()).collect()
}

#[tokio::test]
async fn runs_of_a_workflow_are_listed_newest_first_and_page_by_page_once_indexed() {
    let harness = native().await;
    harness.sandbox.set_index_lag(Duration::from_secs(5));
    let (_, first) = harness.post(&format!("/api/service/v1/app/{APP}/submit"), &Value::Null).await;
    assert_eq!(listed(&harness, APP).await, ["9e3779b97f4a7c15"], "the new run is not indexed");
    harness.pass(Duration::from_secs(5));
    assert_eq!(listed(&harness, APP).await, [first["run_id"].clone(), json!("9e3779b97f4a7c15")]);
    let (_, second) = harness.get(&format!("{RUNS}?workflow_slug={APP}&page=1&page_size=1")).await;
    assert_eq!((&second["data"][0]["run_id"], second["data"].as_array().map(Vec::len)), (&json!("9e3779b97f4a7c15"), Some(1)));
    assert_eq!(second["data"][0]["created_at"], "2026-01-01T08:00:00.000Z");
    assert!(listed(&harness, "none").await.is_empty());
    assert_eq!(harness.get(&format!("{RUNS}?include_system=maybe")).await.0, 422);
}

#[tokio::test]
async fn a_run_is_submitted_read_and_terminated_there_and_a_second_one_is_refused_unmasked() {
    let harness = native().await;
    let path = format!("/automation/api/v1/workflows/{APP}/submit");
    let (status, answer) = harness.post(&path, &json!({ "is_test_run": false })).await;
    let run = answer["data"]["guid"].as_str().expect("a guid").to_owned();
    assert_eq!(status, 200, "{answer}");
    let (status, refused) = harness.post(&path, &json!({})).await;
    assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("AE-WF-409-03")), "{refused}");
    let (_, read) = harness.get(&format!("{RUNS}/{run}")).await;
    assert_eq!((&read["data"]["status"], &read["data"]["workflow_slug"]), (&json!("Pending"), &json!(APP)));
    assert!(read["data"]["dag"]["extract"]["outputs"].is_object(), "{read}");
    for _ in 0..2 {
        let (status, ended) = harness.post(&format!("{RUNS}/{run}/terminate"), &Value::Null).await;
        assert_eq!((status.as_u16(), &ended["data"]["status"]), (200, &json!("Terminated")));
    }
    assert_eq!(harness.kinds(), ["app_run_submitted", "app_run_cancelled"], "the second one did nothing");
    let (status, missing) = harness.post("/automation/api/v1/workflows/none/submit", &json!({})).await;
    assert_eq!((status.as_u16(), &missing["code"]), (404, &json!("AE-WF-404-02")));
    assert_eq!(harness.get(&format!("{RUNS}/none")).await.0, 404);
}

#[tokio::test]
async fn its_api_serves_no_member_and_can_be_forbidden_empty_or_absent() {
    let harness = native().await;
    assert_eq!(harness.ask("sandbox-member", Method::GET, RUNS, &Value::Null).await.0, 403);
    harness.sandbox.set_automation_access(AutomationAccess::Empty);
    assert!(listed(&harness, APP).await.is_empty());
    assert_eq!(harness.get(&format!("{RUNS}/9e3779b97f4a7c15")).await.0, 404);
    for (access, status) in [("forbidden", 403), ("absent", 404), ("allowed", 200)] {
        let body = json!({ "access": access });
        assert_eq!(harness.ask("none", Method::POST, "/sandbox/automation", &body).await.0, 200);
        assert_eq!(harness.get(RUNS).await.0, status, "{access}");
    }
}

#[tokio::test]
async fn a_workflow_that_the_engine_runs_answers_only_an_id_and_is_followed_by_it() {
    let harness = engine().await;
    let (status, answer) = harness.submit(GRANT).await;
    let run = answer["run_id"].as_str().expect("an id").to_owned();
    assert_eq!((status.as_u16(), answer.as_object().map(serde_json::Map::len)), (200, Some(1)), "{answer}");
    assert_eq!(harness.found(&run).await, None, "no index of runs has it");
    let native_status = format!("/api/service/package-workflows/native-status/{run}?execution_mode=automation-engine");
    let (_, shown) = harness.get(&native_status).await;
    assert_eq!((&shown["status"], &shown["workflow_slug"]), (&json!("Pending"), &json!(GRANT)));
    assert_eq!(listed(&harness, GRANT).await, [json!(run)]);
    harness.pass(ALL_PHASES);
    assert_eq!(harness.get(&native_status).await.1["dag_nodes"]["extract"]["status"], "Succeeded");
    assert!(harness.sandbox.admin_users(PROD).iter().any(|user| user == CI_USER), "the package did what it is for");
}

#[tokio::test]
async fn a_run_of_the_engine_is_cancelled_by_its_id_and_not_stopped_as_a_workflow() {
    let harness = engine().await;
    let body = json!({ "metadata": { "name": "mine-1" }, "spec": { "entrypoint": "main", "templates": [] } });
    let (_, answer) = harness.post("/api/service/workflows?submit=true", &body).await;
    let run = answer["run_id"].as_str().expect("an id").to_owned();
    assert_eq!(harness.post(&format!("/api/service/runs/{run}/stop"), &Value::Null).await.0, 404);
    let path = format!("/api/service/v1/app/runs/{run}");
    assert_eq!(harness.post(&format!("{path}/cancel"), &Value::Null).await.1["cancelled"], true);
    assert_eq!(harness.get(&path).await.1["status"], "Stopped");
    assert_eq!(harness.post(&format!("{path}/cancel"), &Value::Null).await.0, 400, "it has ended");
    assert_eq!(harness.kinds(), ["workflow_created", "run_submitted", "run_stopped"]);
}
