mod native;

use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::activity::ActivityInfo;
use crate::clock::{Clock, ManualClock};
use crate::context::Stop;
use crate::failure::{Category, Failure};
use crate::tenant::TenantSettings;
use crate::tenant::scripted::{Reply, Scripted, clock, drive, hits, tenants};
use crate::testing::TestHost;

const RUN: &str = "atlan-snowflake-1-abcde";

fn shown(phase: &Value) -> Reply {
    Reply::ok(&hits(&[json!({
        "metadata": {"name": RUN, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"workflows.argoproj.io/creator": "u-9"}},
        "spec": {"workflowTemplateRef": {"name": "atlan-snowflake-1"}},
        "status": {"phase": phase, "message": "their words"},
    })]))
}

fn nothing() -> Reply {
    Reply::ok(&hits(&[]))
}

struct Case {
    clock: Arc<ManualClock>,
    host: TestHost,
    server: Scripted,
}

impl Case {
    async fn script(replies: impl IntoIterator<Item = Reply>) -> Self {
        let clock = clock();
        Self { host: TestHost::new(clock.clone()), server: Scripted::script(replies).await, clock }
    }

    async fn answering(handler: impl FnMut() -> Reply + Send + 'static) -> Self {
        let clock = clock();
        let handler = Mutex::new(handler);
        let server = Scripted::answering(move |_| Some(handler.lock().expect("no panic")())).await;
        Self { host: TestHost::new(clock.clone()), server, clock }
    }

    async fn attempt(&self, more: Value) -> Result<Verdict, ActivityError> {
        let mut input = json!({"run": RUN});
        for (name, value) in more.as_object().expect("an object") {
            input[name] = value.clone();
        }
        drive(&self.clock, self.host.attempt(AwaitCompletion::new(self.server.tenants(&self.clock)), input)).await
    }

    async fn failure(&self, more: Value) -> Failure {
        match self.attempt(more).await {
            Err(ActivityError::Failed(failure)) => failure,
            other => panic!("no failure: {other:?}"),
        }
    }
}

#[tokio::test]
async fn only_succeeded_passes_and_every_other_end_is_the_tenants_no() {
    for phase in ["Succeeded", "Failed", "Error", "Stopped", "Terminated", "Skipped", "Omitted", "Cancelled", "TimedOut"] {
        let verdict = Case::script([shown(&json!(phase))]).await.attempt(json!({})).await.expect("a verdict");
        assert_eq!(verdict.is_passed(), phase == "Succeeded", "{phase}");
        let facts = verdict.facts();
        assert_eq!(facts["phase"], phase);
        assert_eq!(facts["run"], RUN);
        assert_eq!(facts["workflow"], "atlan-snowflake-1");
        assert_eq!(facts["created_at"], "2026-01-01T00:00:00.000Z");
        assert_eq!(facts["creator"], "u-9");
        assert!(verdict.is_passed() || verdict.message().contains("their words"));
    }
}

#[tokio::test]
async fn no_phase_an_unknown_phase_and_not_yet_indexed_are_no_end() {
    let phases = [nothing(), shown(&json!(null)), shown(&json!("")), shown(&json!("Pondering")), shown(&json!("Running"))];
    let case = Case::script(phases.into_iter().chain([shown(&json!("Succeeded"))])).await;
    assert!(case.attempt(json!({})).await.expect("a verdict").is_passed());
    let phases: Vec<_> = case.host.progress().iter().map(|progress| progress["phase"].clone()).collect();
    assert_eq!(phases, [json!(null), json!(null), json!(null), json!("Pondering"), json!("Running")]);
    let newest = case.host.progress().pop().expect("progress");
    assert_eq!((&newest["run"], &newest["looks"], newest["since"].is_string()), (&json!(RUN), &json!(5), true));
}

#[tokio::test]
async fn it_looks_for_that_very_run() {
    let case = Case::script([shown(&json!("Succeeded"))]).await;
    case.attempt(json!({})).await.expect("a verdict");
    assert_eq!(case.server.requests()[0].body["query"]["bool"]["filter"][0]["term"]["_id"]["value"], RUN);
}

#[tokio::test]
async fn a_run_that_is_never_indexed_is_not_found_after_the_grace() {
    let case = Case::answering(nothing).await;
    let failure = case.failure(json!({})).await;
    assert_eq!((failure.code.as_ref(), failure.retryable), ("run.not_found", false));
    assert!(case.clock.monotonic() >= Duration::from_secs(60) && case.clock.monotonic() < Duration::from_secs(70));
}

#[tokio::test]
async fn the_time_that_runs_out_counts_from_the_first_attempt_on() {
    let case = Case::answering(|| shown(&json!("Running"))).await;
    case.host.die_at_save(1);
    assert_eq!(case.attempt(json!({"timeout": "603s"})).await, Err(ActivityError::Interrupted));
    case.host.stop(Some(Stop::Draining));
    assert_eq!(case.attempt(json!({"timeout": "603s"})).await, Err(ActivityError::Interrupted));
    case.host.stop(None);
    case.clock.advance(Duration::from_secs(540)).await;
    let failure = case.failure(json!({"timeout": "603s"})).await;
    assert_eq!((failure.code.as_ref(), failure.category, failure.retryable), ("wait.timed_out", Category::Timeout, false));
    assert_eq!(case.clock.monotonic(), Duration::from_secs(603));
    assert!(failure.message.contains("Running"), "{failure}");
    assert_eq!(failure.facts["phase"], "Running");
    let suggested = failure.suggested_action.expect("a command");
    assert_eq!(suggested, format!("iolaus execute await_completion run={RUN} timeout=24h"));
}

#[tokio::test]
async fn a_few_failing_looks_are_borne_and_more_end_the_attempt() {
    let down = || Reply::json(500, &json!({"retry_after": 40}));
    let case = Case::script([down(), down(), shown(&json!("Succeeded"))]).await;
    assert!(case.attempt(json!({})).await.expect("a verdict").is_passed());
    assert!(case.clock.monotonic() >= Duration::from_secs(80), "never sooner than asked");

    let case = Case::answering(down).await;
    let failure = case.failure(json!({})).await;
    assert!(failure.code == "tenant.unavailable" && failure.retryable);
    assert_eq!(case.server.requests().len(), 5);
}

#[tokio::test]
async fn a_look_that_fails_is_no_progress() {
    let down = || Reply::json(500, &json!({}));
    let case = Case::script([shown(&json!("Running")), down(), down(), shown(&json!("Succeeded"))]).await;
    case.attempt(json!({})).await.expect("a verdict");
    let progress = case.host.progress();
    assert!(progress.len() == 3 && progress.iter().all(|seen| *seen == progress[0]), "{progress:?}");
}

#[tokio::test]
async fn a_look_that_takes_long_gives_signs_of_life() {
    let clock = clock();
    let host = Arc::new(TestHost::new(clock.clone()));
    let server = Scripted::script([Reply::hang()]).await;
    let settings = TenantSettings { request_timeout: Duration::from_secs(600), ..server.settings() };
    let (attempting, tenants) = (host.clone(), tenants(settings, &clock));
    let attempt = tokio::spawn(async move { attempting.attempt(AwaitCompletion::new(tenants), json!({"run": RUN})).await });
    clock.advance(Duration::from_secs(29)).await;
    assert_eq!((server.requests().len(), host.progress().len()), (1, 0));
    clock.advance(Duration::from_secs(1)).await;
    assert_eq!(host.progress().len(), 1);
    host.stop(Some(Stop::Draining));
    assert_eq!(attempt.await.expect("no panic"), Err(ActivityError::Interrupted));
}

#[tokio::test]
async fn a_final_failure_of_a_look_ends_the_wait_at_once() {
    let case = Case::script(vec![Reply::json(401, &json!({})); 2]).await;
    let failure = case.failure(json!({})).await;
    assert_eq!((failure.code.as_ref(), failure.facts["run"].as_str()), ("tenant.unauthenticated", Some(RUN)));
}

async fn cancelled(more: Value, stop_answer: Option<Reply>) -> (Option<String>, Value, usize) {
    let clock = clock();
    let host = Arc::new(TestHost::new(clock.clone()));
    let stopping = host.clone();
    let server = Scripted::answering(move |request| {
        if request.target.ends_with("/stop") {
            return stop_answer.clone();
        }
        stopping.stop(Some(Stop::Cancelled { reason: Some("enough".into()) }));
        Some(shown(&json!("Running")))
    })
    .await;
    let case = Case { clock, host: TestHost::new(crate::tenant::scripted::clock()), server };
    let mut input = json!({"run": RUN});
    input.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let ended = drive(&case.clock, host.attempt(AwaitCompletion::new(case.server.tenants(&case.clock)), input)).await;
    let Err(ActivityError::Cancelled { message, facts }) = ended else { panic!("not cancelled: {ended:?}") };
    (message, Value::Object(facts), case.server.count("POST", &format!("/api/service/runs/{RUN}/stop")))
}

#[tokio::test]
async fn cancelling_stops_the_run_only_if_that_was_asked_for() {
    let (message, facts, stops) = cancelled(json!({}), None).await;
    assert_eq!((stops, &facts["stop_requested"]), (0, &json!(false)));
    assert!(message.is_some_and(|message| message.starts_with("enough; ")));

    let (_, facts, stops) = cancelled(json!({"stop_on_cancel": true}), Some(Reply::ok(&json!({})))).await;
    assert_eq!((stops, &facts["stop_requested"], &facts["run"]), (1, &json!(true), &json!(RUN)));

    for (reply, said) in [
        (Reply::json(400, &json!({})), format!("run {RUN} could not be asked to stop")),
        (Reply::json(500, &json!({})), format!("whether run {RUN} was asked to stop is not known")),
        (Reply::text(403, "<html>blocked</html>"), format!("ask again with `iolaus runs stop {RUN}`")),
    ] {
        let (message, facts, stops) = cancelled(json!({"stop_on_cancel": true}), Some(reply)).await;
        assert_eq!((stops, &facts["stop_requested"]), (1, &json!(false)));
        assert!(message.as_ref().is_some_and(|message| message.contains(&said)), "{message:?}");
    }
}

#[tokio::test]
async fn other_stops_leave_the_run_alone() {
    let case = Case::script([]).await;
    for stop in [Stop::Draining, Stop::LeaseLost] {
        case.host.stop(Some(stop));
        assert_eq!(case.attempt(json!({"stop_on_cancel": true})).await, Err(ActivityError::Interrupted));
    }
}

#[test]
fn input_is_checked_and_shapes_the_options() {
    let info = ActivityInfo::of::<AwaitCompletion>();
    for (input, field) in [
        (json!({}), "run"),
        (json!({"run": "a", "app_run": "b"}), "run"),
        (json!({"run": "../x"}), "run"),
        (json!({"run": ".."}), "run"),
        (json!({"run": "a", "timeout": "0s"}), "timeout"),
        (json!({"run": "a", "timeout": "40d"}), "timeout"),
        (json!({"run": "a", "poll_interval": "1ms"}), "poll_interval"),
    ] {
        assert_eq!(info.prepare(input.clone()).expect_err("it is refused").field, field, "{input}");
    }
    let prepared = info.prepare(json!({"run": "a", "timeout": "1h"})).expect("it is accepted");
    assert_eq!(prepared.input, json!({"run": "a", "timeout": "1h", "stop_on_cancel": false}));
    assert_eq!(prepared.options.slot_class, SlotClass::Waits);
    assert_eq!(prepared.options.timeouts.start_to_close, Duration::from_secs(4_200));
    assert_eq!(prepared.options.timeouts.schedule_to_close, Some(Duration::from_secs(7_200)));
}
