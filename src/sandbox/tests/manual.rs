//! Runs that another user starts by hand, and who may use the admin routes.

use super::*;

async fn admin(harness: &Harness, path: &str, body: &Value) -> (StatusCode, Value) {
    harness.ask("none", Method::POST, &format!("/sandbox/{path}"), body).await
}

#[tokio::test]
async fn a_run_started_by_hand_has_its_own_creator_even_where_a_second_submit_is_refused() {
    let harness = Harness::start().await;
    let own = harness.started(CRAWLER).await;
    let (status, started) = admin(&harness, "runs", &json!({ "workflow": CRAWLER, "age_ms": 100 })).await;
    let foreign = started["run"].as_str().expect("a run").to_owned();
    assert_eq!(status, 200, "{started}");
    let creator = async |run: &str| {
        let run = harness.found(run).await.expect("indexed");
        (run["metadata"]["labels"]["workflows.argoproj.io/creator"].clone(), run["metadata"]["creationTimestamp"].clone())
    };
    let (_, me) = harness.get("/api/service/whoami").await;
    assert_eq!(creator(&own).await, (me["userId"].clone(), json!(time::seconds(START))));
    let (_, joe) = harness.ask("sandbox-member", Method::GET, "/api/service/whoami", &Value::Null).await;
    assert_eq!(creator(&foreign).await, (joe["userId"].clone(), json!(time::seconds(START - 100))));
    let effects = serde_json::to_value(harness.sandbox.effects()).expect("serializes");
    assert_eq!((&effects[1]["by"], &effects[1]["endpoint"]), (&json!("joe"), &json!("manual")));
    assert_eq!(harness.sandbox.requests().len(), 5, "an admin request is no exchange");
}

#[tokio::test]
async fn a_run_of_an_app_is_started_by_hand_as_well() {
    let harness = Harness::with(SandboxOptions { generation: Generation::Native, ..SandboxOptions::default() }).await;
    let manual = ManualRun { by: "dora".to_owned(), ..ManualRun::of("bq-prod-3f9ab2c1") };
    let run = harness.sandbox.start_manual_run(&manual).expect("starts");
    let (status, shown) = harness.get(&format!("/api/service/v1/app/runs/{run}")).await;
    assert_eq!((status.as_u16(), &shown["status"]), (200, &json!("Pending")));
    let effects = serde_json::to_value(harness.sandbox.effects()).expect("serializes");
    assert_eq!((&effects[0]["by"], &effects[0]["run"]), (&json!("dora"), &json!(run)));
}

#[tokio::test]
async fn a_run_of_an_unknown_workflow_or_user_is_refused_by_name() {
    let harness = Harness::start().await;
    for (body, problem) in [
        (json!({ "workflow": "none" }), "workflow \"none\" not found"),
        (json!({ "workflow": CRAWLER, "by": "none" }), "user \"none\" not found"),
        (json!({ "workflow": CRAWLER, "who": "joe" }), "unknown field `who`"),
    ] {
        let (status, answer) = admin(&harness, "runs", &body).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.contains(problem), "{answer}");
    }
    assert!(harness.kinds().is_empty());
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_use_the_admin_routes() {
    let harness = Harness::start().await;
    let own = harness.sandbox.base_url();
    for (name, value, status) in [
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("origin", own.as_str(), 200),
        ("sec-fetch-site", "same-origin", 200),
    ] {
        let request = harness.client.post(format!("{own}/sandbox/index-lag")).header(name, value);
        let answer = request.body(r#"{"ms":5}"#).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{name}: {value}");
    }
}
