//! The life of workflows and runs.

use super::*;

#[tokio::test]
async fn a_run_is_pending_then_running_then_succeeded() {
    let harness = Harness::start().await;
    let (status, answer) = harness.submit(CRAWLER).await;
    assert_eq!((status.as_u16(), &answer["status"]["phase"]), (200, &json!("Pending")));
    let run = answer["metadata"]["name"].as_str().expect("a name").to_owned();
    let suffix = run.strip_prefix(&format!("{CRAWLER}-")).expect("the workflow's name first");
    assert!(suffix.len() == 5 && suffix.chars().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase()), "{suffix}");

    let pending = harness.found(&run).await.expect("found at once without a lag");
    assert_eq!((&pending["status"]["phase"], &pending["status"]["startedAt"]), (&json!("Pending"), &Value::Null));
    harness.pass(Duration::from_millis(300));
    assert_eq!(harness.phase(&run).await.as_deref(), Some("Running"));
    harness.pass(Duration::from_millis(1_500));
    let ended = harness.found(&run).await.expect("found");
    assert_eq!(ended["status"]["phase"], "Succeeded");
    assert_eq!(ended["status"]["finishedAt"], time::seconds(START + 1_800));
    assert_eq!(ended["metadata"]["labels"]["workflows.argoproj.io/phase"], "Succeeded");
    assert_eq!(ended["metadata"]["creationTimestamp"], time::seconds(START));
}

#[tokio::test]
async fn the_failing_crawler_fails_with_its_message() {
    let harness = Harness::start().await;
    let run = harness.started("atlan-postgres-1684500700").await;
    harness.pass(ALL_PHASES);
    let ended = harness.found(&run).await.expect("found");
    assert_eq!(ended["status"]["phase"], "Failed");
    assert!(ended["status"]["message"].as_str().is_some_and(|message| message.contains("refused")));
}

#[tokio::test]
async fn the_long_run_of_the_seed_is_running_and_succeeds_after_the_start() {
    let harness = Harness::start().await;
    let run = "atlan-redshift-1684500800-k2v9d";
    assert_eq!(harness.phase(run).await.as_deref(), Some("Running"));
    assert_eq!(harness.submit("atlan-redshift-1684500800").await.0, 500);
    harness.pass(Duration::from_millis(1_500));
    assert_eq!(harness.phase(run).await.as_deref(), Some("Succeeded"));
    assert_eq!(harness.submit("atlan-redshift-1684500800").await.0, 200);
}

#[tokio::test]
async fn a_lagging_index_shows_neither_a_new_run_nor_its_new_phase() {
    let harness = Harness::start().await;
    harness.sandbox.set_index_lag(Duration::from_secs(10));
    let run = harness.started(CRAWLER).await;
    assert_eq!(harness.phase(&run).await, None);
    harness.pass(Duration::from_secs(10));
    assert_eq!(harness.phase(&run).await.as_deref(), Some("Pending"), "it has long succeeded");
    harness.pass(ALL_PHASES);
    assert_eq!(harness.phase(&run).await.as_deref(), Some("Succeeded"));
}

#[tokio::test]
async fn a_second_active_run_is_refused_in_the_way_that_was_chosen() {
    let refused = |already_active| async move {
        let harness = Harness::with(SandboxOptions { already_active, ..SandboxOptions::default() }).await;
        harness.started(CRAWLER).await;
        let (status, body) = harness.submit(CRAWLER).await;
        (status.as_u16(), body, harness.kinds().len())
    };
    let (status, body, effects) = refused(AlreadyActive::Masked500).await;
    assert_eq!((status, effects), (500, 1));
    assert!(body["message"].as_str().is_some_and(|message| message.contains("AE-WF-409-03")), "{body}");
    let (status, body, effects) = refused(AlreadyActive::Conflict409).await;
    assert_eq!((status, effects, &body["code"]), (409, 1, &json!("AE-WF-409-03")));
    let (status, _, effects) = refused(AlreadyActive::Allow).await;
    assert_eq!((status, effects), (200, 2));
}

#[tokio::test]
async fn a_member_is_served_by_the_package_endpoint_only() {
    let harness = Harness::start().await;
    let body = submission(CRAWLER);
    let submit = async |endpoint: &str| harness.ask("sandbox-member", Method::POST, endpoint, &body).await.0;
    assert_eq!(submit("/api/service/workflows/submit").await, 403);
    assert_eq!(submit("/api/service/package-workflows/submit").await, 200);
    let effects = serde_json::to_value(harness.sandbox.effects()).expect("serializes");
    assert_eq!((&effects[0]["by"], &effects[0]["endpoint"]), (&json!("joe"), &json!("package-workflows")));
}

#[tokio::test]
async fn an_unknown_template_cannot_be_submitted() {
    let harness = Harness::start().await;
    let (status, body) = harness.submit("atlan-snowflake-1").await;
    assert_eq!(status, 404);
    assert!(body["message"].as_str().is_some_and(|message| message.contains("\"atlan-snowflake-1\" not found")));
    assert_eq!(harness.post("/api/service/workflows/submit", &json!({ "namespace": "default" })).await.0, 400);
    assert!(harness.kinds().is_empty());
}

#[tokio::test]
async fn a_stopped_run_answers_running_and_is_failed_afterwards() {
    let harness = Harness::start().await;
    let run = harness.started(GRANT).await;
    harness.pass(Duration::from_millis(500));
    let path = format!("/api/service/runs/{run}/stop");
    let (status, answer) = harness.post(&path, &Value::Null).await;
    assert_eq!((status.as_u16(), &answer["status"]["phase"]), (200, &json!("Running")));
    assert_eq!(harness.phase(&run).await.as_deref(), Some("Failed"));
    assert_eq!(harness.post(&path, &Value::Null).await.0, 400, "it has ended");
    assert_eq!(harness.post("/api/service/runs/none/stop", &Value::Null).await.0, 404);
    harness.pass(ALL_PHASES);
    assert_eq!(harness.kinds(), ["run_submitted", "run_stopped"], "a stopped package run grants nothing");
}

#[tokio::test]
async fn a_created_workflow_keeps_its_name_and_runs_unless_told_not_to() {
    let harness = Harness::start().await;
    let body = |name: &str| {
        json!({ "metadata": { "name": name, "namespace": "default", "labels": null, "annotations": { "a": "b" } },
        "spec": { "entrypoint": "main", "templates": [] }, "payload": [] })
    };
    let (status, created) = harness.post("/api/service/workflows?submit=true", &body("mine-1")).await;
    assert_eq!((status.as_u16(), &created["metadata"]["name"], &created["payload"]), (200, &json!("mine-1"), &json!([])));
    assert_eq!(harness.post("/api/service/package-workflows?submit=true", &body("mine-1")).await.0, 409);
    assert_eq!(harness.post("/api/service/workflows?submit=false", &body("mine-2")).await.0, 200);
    assert_eq!(harness.kinds(), ["workflow_created", "run_submitted", "workflow_created"]);
    let ill = json!({ "metadata": { "name": "x", "labels": { "a": null } } });
    assert_eq!(harness.post("/api/service/workflows", &ill).await.0, 400);
}

#[tokio::test]
async fn a_workflow_is_scheduled_handed_over_and_archived() {
    let harness = Harness::start().await;
    let path = format!("/api/service/workflows/{CRAWLER}");
    let body = json!({ "metadata": { "annotations": { "orchestration.atlan.com/schedule": "5 4 * * *" } }, "spec": null });
    let (status, updated) = harness.post(&path, &body).await;
    assert_eq!((status.as_u16(), &updated["metadata"]["annotations"]), (200, &body["metadata"]["annotations"]));
    assert_eq!(updated["spec"]["entrypoint"], "main", "null is absent");
    assert_eq!(harness.post(&format!("{path}/changeownership"), &json!({ "username": "joe" })).await.0, 200);
    assert_eq!(harness.post(&format!("{path}/changeownership?username=jane"), &Value::Null).await.0, 200);
    assert_eq!(harness.post(&format!("{path}/archive"), &Value::Null).await.0, 200);
    assert_eq!(harness.submit(CRAWLER).await.0, 404);
    assert_eq!(harness.post(&path, &body).await.0, 404);
    assert_eq!(harness.kinds(), ["workflow_updated", "owner_changed", "owner_changed", "workflow_archived"]);
}

#[tokio::test]
async fn a_schedule_is_shown_as_a_cron_run_until_it_is_removed() {
    let harness = Harness::start().await;
    let path = format!("/api/service/workflows/{CRAWLER}");
    let cron = format!("/api/service/runs/cron/{CRAWLER}-cron");
    let annotated = |annotations: Value| json!({ "metadata": { "annotations": annotations } });
    assert_eq!(harness.get(&cron).await.0, 404);
    let both = json!({ "orchestration.atlan.com/schedule": "5 4 * * *", "orchestration.atlan.com/timezone": "Europe/Paris" });
    harness.post(&path, &annotated(both)).await;
    let (status, shown) = harness.get(&cron).await;
    assert_eq!((status.as_u16(), &shown["metadata"]["name"]), (200, &json!(format!("{CRAWLER}-cron"))));
    assert_eq!((&shown["spec"]["schedule"], &shown["spec"]["timezone"]), (&json!("5 4 * * *"), &json!("Europe/Paris")));
    assert_eq!(shown["spec"]["workflowSpec"]["workflowTemplateRef"]["name"], CRAWLER);
    let (_, list) = harness.get("/api/service/runs/cron").await;
    assert_eq!(list["items"], json!([shown]));
    harness.post(&path, &annotated(json!({ "orchestration.atlan.com/timezone": "Europe/Paris" }))).await;
    assert_eq!(harness.get(&cron).await.0, 404, "a time zone alone is no schedule");
    assert_eq!(harness.get("/api/service/runs/cron").await.1["items"], json!([]));
}

#[tokio::test]
async fn a_run_triggered_as_owner_is_the_owners_whoever_asked() {
    let harness = Harness::start().await;
    let path = "/api/service/workflows/triggerAsOwner";
    let (status, run) = harness.ask("sandbox-member", Method::POST, path, &submission(CRAWLER)).await;
    assert_eq!(status, 200, "{run}");
    assert_eq!(run["metadata"]["labels"]["workflows.argoproj.io/creator-preferred-username"], "jane");
    let effects = serde_json::to_value(harness.sandbox.effects()).expect("serializes");
    assert_eq!((&effects[0]["by"], &effects[0]["endpoint"]), (&json!("jane"), &json!("triggerAsOwner")));
    assert_eq!(harness.ask("sandbox-member", Method::POST, path, &submission("none")).await.0, 404);
}
