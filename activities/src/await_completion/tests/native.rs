//! Waiting for the run of an app.

use super::*;
use crate::tenant::Generation;
use crate::tenant::scripted::Recorded;

const SLUG: &str = "bq-prod-3f9ab2c1";
const ID: &str = "9e3779b97f4a7c15";

/// A tenant whose runs have this status by themselves and in the index, at any moment.
struct Tenant {
    itself: Box<dyn FnMut() -> Option<&'static str> + Send>,
    indexed: Option<&'static str>,
    steps: Reply,
}

fn said() -> Reply {
    Reply::ok(&json!({"dag_nodes": {"extract": {"error_message": "their words"}, "publish": {"error_message": null}}}))
}

impl Tenant {
    fn answer(&mut self, request: &Recorded) -> Option<Reply> {
        let run = format!("/api/service/v1/app/runs/{ID}");
        Some(match request.target.as_str() {
            target if target == run => match (self.itself)() {
                Some(status) => {
                    let started_at = "2026-01-01T00:00:00Z";
                    Reply::ok(&json!({"run_id": ID, "status": status, "slug": SLUG, "started_at": started_at}))
                }
                None => Reply::json(404, &json!({"message": "no such run"})),
            },
            "/api/service/v1/app?limit=1" => Reply::ok(&json!({"workflows": []})),
            "/api/meta/search/indexsearch" => {
                let name = format!("default/apps/automation_engine/workflows/{SLUG}/{ID}");
                let entity = |status| json!({"attributes": {"qualifiedName": name, "appWorkflowRunStatus": status}});
                let entities: Vec<_> = self.indexed.into_iter().map(entity).collect();
                Reply::ok(&json!({"approximateCount": entities.len(), "entities": entities}))
            }
            target if target.contains("/native-status/") && (self.itself)().is_none() => Reply::json(404, &json!({})),
            target if target.contains("/native-status/") => self.steps.clone(),
            target if target.ends_with("/cancel") => Reply::ok(&json!({"run_id": ID, "cancelled": true, "status": "Stopped"})),
            _ => return None,
        })
    }
}

async fn case(indexed: Option<&'static str>, itself: impl FnMut() -> Option<&'static str> + Send + 'static) -> Case {
    let clock = clock();
    let mut tenant = Tenant { itself: Box::new(itself), indexed, steps: said() };
    let server = Scripted::answering(move |request| tenant.answer(request)).await;
    Case { host: TestHost::new(clock.clone()), server, clock }
}

async fn attempt(case: &Case, more: Value) -> Result<Verdict, ActivityError> {
    let mut input = json!({"app_run": ID});
    input.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    drive(&case.clock, case.host.attempt(AwaitCompletion::new(case.server.tenants(&case.clock)), input)).await
}

async fn failure(case: &Case, more: Value) -> Failure {
    match attempt(case, more).await {
        Err(ActivityError::Failed(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

#[tokio::test]
async fn only_succeeded_passes_and_every_other_end_is_the_tenants_no() {
    for phase in ["Succeeded", "Failed", "Error", "Stopped", "Terminated", "Skipped", "Omitted", "Cancelled", "TimedOut"] {
        let verdict = attempt(&case(None, move || Some(phase)).await, json!({})).await.expect("a verdict");
        assert_eq!(verdict.is_passed(), phase == "Succeeded", "{phase}");
        let facts = verdict.facts();
        for (name, value) in [("phase", phase), ("run", ID), ("workflow", SLUG), ("generation", "native")] {
            assert_eq!(facts[name], value);
        }
        assert_eq!(facts["created_at"], "2026-01-01T00:00:00.000Z");
        assert_eq!(verdict.message().ends_with("extract: their words"), phase != "Succeeded");
    }
}

#[tokio::test]
async fn an_end_is_told_although_the_tenant_does_not_say_why() {
    for steps in [Reply::json(404, &json!({})), Reply::cut(), Reply::ok(&json!({}))] {
        let clock = clock();
        let mut tenant = Tenant { itself: Box::new(|| Some("Failed")), indexed: None, steps };
        let server = Scripted::answering(move |request| tenant.answer(request)).await;
        let case = Case { host: TestHost::new(clock.clone()), server, clock };
        let verdict = attempt(&case, json!({})).await.expect("a verdict");
        assert_eq!((verdict.is_passed(), verdict.message()), (false, format!("run {ID} ended as Failed").as_str()));
    }
}

#[tokio::test]
async fn a_pending_a_paused_and_an_unknown_run_are_not_at_their_end() {
    let mut phases = ["Pending", "Paused", "Pondering", "Running", "Succeeded"].into_iter();
    let case = case(Some("Succeeded"), move || phases.next()).await;
    assert!(attempt(&case, json!({})).await.expect("a verdict").is_passed());
    let seen: Vec<_> = case.host.progress().iter().map(|progress| progress["phase"].clone()).collect();
    assert_eq!(seen, ["Pending", "Paused", "Pondering", "Running"]);
    assert_eq!(case.host.progress().last().expect("progress")["looks"], 4);
}

#[tokio::test]
async fn a_run_that_the_tenant_does_not_have_is_not_found_after_the_grace() {
    let case = case(None, || None).await;
    let failure = failure(&case, json!({})).await;
    assert_eq!((failure.code.as_ref(), failure.retryable), ("run.not_found", false));
    assert!(case.clock.monotonic() >= Duration::from_secs(60) && case.clock.monotonic() < Duration::from_secs(70));
}

#[tokio::test]
async fn the_time_that_runs_out_is_saved_and_the_command_goes_on_waiting() {
    let case = case(Some("Running"), || Some("Running")).await;
    case.host.stop(Some(Stop::Draining));
    assert_eq!(attempt(&case, json!({"timeout": "600s"})).await, Err(ActivityError::Interrupted));
    case.host.stop(None);
    case.clock.advance(Duration::from_secs(500)).await;
    let failure = failure(&case, json!({"timeout": "600s"})).await;
    assert_eq!((failure.code.as_ref(), case.clock.monotonic()), ("wait.timed_out", Duration::from_secs(600)));
    assert_eq!(failure.suggested_action, Some(format!("iolaus execute await_completion app_run={ID} timeout=24h")));
}

#[tokio::test]
async fn an_index_that_stands_still_hides_no_end_for_long() {
    let clock = clock();
    let at = clock.clone();
    let ends = Duration::from_secs(1_000);
    let mut tenant = Tenant {
        itself: Box::new(move || Some(if at.monotonic() < ends { "Running" } else { "Succeeded" })),
        indexed: Some("Running"),
        steps: said(),
    };
    let server = Scripted::answering(move |request| tenant.answer(request)).await;
    let case = Case { host: TestHost::new(clock.clone()), server, clock };
    assert!(attempt(&case, json!({})).await.expect("a verdict").is_passed());
    assert!(case.clock.monotonic() < ends + Duration::from_secs(900 + 40));
    let reads = case.server.count("GET", &format!("/runs/{ID}"));
    assert!(reads <= 3, "{reads} reads of one run: the index is asked for the rest");
}

#[tokio::test]
async fn cancelling_cancels_the_run_only_if_that_was_asked_for() {
    for asked in [false, true] {
        let clock = clock();
        let host = Arc::new(TestHost::new(clock.clone()));
        let stopping = host.clone();
        let itself = move || {
            stopping.stop(Some(Stop::Cancelled { reason: None }));
            Some("Running")
        };
        let mut tenant = Tenant { itself: Box::new(itself), indexed: None, steps: said() };
        let server = Scripted::answering(move |request| tenant.answer(request)).await;
        let input = json!({"app_run": ID, "stop_on_cancel": asked});
        let ended = drive(&clock, host.attempt(AwaitCompletion::new(server.tenants(&clock)), input)).await;
        let Err(ActivityError::Cancelled { facts, .. }) = ended else { panic!("not cancelled: {ended:?}") };
        assert_eq!(facts["stop_requested"], asked);
        assert_eq!(server.count("POST", &format!("/api/service/v1/app/runs/{ID}/cancel")), usize::from(asked));
    }
}

#[tokio::test]
async fn a_tenant_of_the_other_generation_is_not_asked() {
    let clock = clock();
    for (generation, input) in [(Generation::Argo, json!({"app_run": ID})), (Generation::Native, json!({"run": RUN}))] {
        let host = TestHost::new(clock.clone());
        let tenants = tenants(TenantSettings { generation, ..TenantSettings::default() }, &clock);
        let ended = host.attempt(AwaitCompletion::new(tenants), input).await;
        let Err(ActivityError::Failed(failure)) = ended else { panic!("no failure: {ended:?}") };
        assert_eq!((failure.code.as_ref(), failure.category), ("generation.unsupported", Category::Unimplemented));
        assert!(failure.suggested_action.is_some_and(|hint| hint.contains("tenants.default.generation")));
    }
}
