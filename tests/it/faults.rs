//! Every exchange broken: each scenario is repeated with its Nth HTTP exchange failing, N = 1, 2, … until no fault fires. Always one
//! verdict, never two effects, never a `passed` that the tenant did not say, and `passed` wherever the fault was passing.

use std::collections::BTreeSet;

use iolaus::sandbox::Generation;
use iolaus_activities::Status;
use serde_json::{Value, json};

use crate::support::tenant::{
    APP, CRAWLER, DISABLED, ENABLED, FAILING, FAILING_APP, RUNNING, RUNNING_APP, RUNNING_APP_RUN, TestTenant, grant, preflight,
    with,
};

struct Scenario {
    generation: Generation,
    name: &'static str,
    activity: &'static str,
    input: Value,
    /// What the tenant says when nothing is broken.
    truth: Status,
    /// How many runs it submits.
    submissions: usize,
}

fn scenarios() -> Vec<Scenario> {
    let scenario = |name, activity, input, truth, submissions| {
        let generation = Generation::Argo;
        Scenario { generation, name, activity, input, truth, submissions }
    };
    vec![
        scenario("preflight that passes", "publish_preflight", preflight(ENABLED), Status::Passed, 0),
        scenario("preflight that is refused", "publish_preflight", preflight(DISABLED), Status::Failed, 0),
        scenario("grant by the package", "token_admin_grant", grant("package"), Status::Passed, 1),
        scenario("grant directly", "token_admin_grant", grant("direct"), Status::Passed, 0),
        scenario("await", "await_completion", json!({"run": format!("{RUNNING}-k2v9d")}), Status::Passed, 0),
        scenario("rerun by name", "workflow_rerun", json!({"workflow": CRAWLER}), Status::Passed, 1),
        scenario(
            "rerun by type, submitted",
            "workflow_rerun",
            json!({"type": "snowflake", "until": "submitted"}),
            Status::Passed,
            1,
        ),
        scenario("rerun of a failing crawler", "workflow_rerun", json!({"workflow": FAILING}), Status::Failed, 1),
        scenario("rerun of a running crawler", "workflow_rerun", json!({"workflow": RUNNING}), Status::Passed, 0),
        scenario(
            "rerun without idempotence",
            "workflow_rerun",
            json!({"workflow": CRAWLER, "idempotent": false}),
            Status::Passed,
            1,
        ),
        scenario("rerun since", "workflow_rerun", json!({"workflow": CRAWLER, "since": "2026-01-01T00:00:00Z"}), Status::Passed, 1),
    ]
}

fn native_scenarios() -> Vec<Scenario> {
    let scenario = |name, activity, input, truth, submissions| {
        let generation = Generation::Native;
        Scenario { generation, name, activity, input, truth, submissions }
    };
    let since = json!({"app": APP, "since": "2026-01-01T00:00:00Z"});
    vec![
        scenario("await of an app's run", "await_completion", json!({"app_run": RUNNING_APP_RUN}), Status::Passed, 0),
        scenario("rerun of an app", "workflow_rerun", json!({"app": APP}), Status::Passed, 1),
        scenario("rerun of an app, submitted", "workflow_rerun", json!({"app": APP, "until": "submitted"}), Status::Passed, 1),
        scenario("rerun of a failing app", "workflow_rerun", json!({"app": FAILING_APP}), Status::Failed, 1),
        scenario("rerun of a running app", "workflow_rerun", json!({"app": RUNNING_APP}), Status::Passed, 0),
        scenario(
            "rerun of an app without idempotence",
            "workflow_rerun",
            json!({"app": APP, "idempotent": false}),
            Status::Passed,
            1,
        ),
        scenario("rerun of an app since", "workflow_rerun", since, Status::Passed, 1),
    ]
}

fn actions() -> Vec<Value> {
    vec![
        json!({"kind": "cut_before_applying"}),
        json!({"kind": "cut_after_applying"}),
        json!({"kind": "status", "status": 503, "headers": [], "body": {"code": 503, "message": "unavailable"}}),
        json!({"kind": "status_after_applying", "status": 503, "body": {"code": 503, "message": "unavailable"}}),
        json!({"kind": "garbage"}),
        json!({"kind": "garbage_after_applying"}),
    ]
}

/// More exchanges than any scenario has.
const MOST: u64 = 200;

async fn break_every_exchange(scenario: &Scenario, action: &Value) {
    for nth in 1..MOST {
        let tenant = TestTenant::of(scenario.generation).await;
        tenant.fault(json!({"nth": nth, "action": action}));
        let verdict = tenant.run(scenario.activity, scenario.input.clone()).await;
        let case = format!("{} with exchange {nth} broken by {action}: {verdict:#?}", scenario.name);
        assert_eq!(tenant.submissions().len(), scenario.submissions, "effects of {case}");
        assert_eq!(verdict.status, scenario.truth, "{case}");
        let runs: BTreeSet<_> = tenant.submissions().into_iter().collect();
        if let (1, Some(run)) = (scenario.submissions, verdict.facts.get("run").and_then(Value::as_str)) {
            assert!(runs.contains(run), "the verdict is about another run: {case}");
        }
        if tenant.sandbox.faults_fired() == 0 {
            assert!(nth > 1, "no fault ever fired: {case}");
            return;
        }
    }
    panic!("{} goes on for ever", scenario.name);
}

macro_rules! broken {
    ($($test:ident: $action:expr;)*) => {$(
        #[tokio::test]
        async fn $test() {
            for scenario in scenarios().iter().chain(&native_scenarios()) {
                break_every_exchange(scenario, &actions()[$action]).await;
            }
        }
    )*};
}

broken! {
    any_exchange_may_be_cut_before_it_is_applied: 0;
    any_exchange_may_be_cut_after_it_was_applied: 1;
    any_exchange_may_be_answered_503: 2;
    any_exchange_may_be_answered_503_after_it_was_applied: 3;
    any_exchange_may_be_answered_with_garbage: 4;
    any_exchange_may_be_answered_with_garbage_after_it_was_applied: 5;
}

/// The parts of the addresses that every effect of an activity is sent to.
const EFFECTS: [&str; 3] = ["/submit", "submit=true", "/entity/bulk"];

#[tokio::test]
async fn an_effect_whose_answer_a_firewall_replaces_by_a_page_happens_once_whatever_the_status_says() {
    let rerun = |input: Value| ("workflow_rerun", with(input, json!({"idempotent": false})), 1);
    let granted = |method| ("token_admin_grant", grant(method), usize::from(method == "package"));
    let cases = [
        (Generation::Argo, rerun(json!({"workflow": CRAWLER}))),
        (Generation::Native, rerun(json!({"app": APP}))),
        (Generation::Argo, granted("package")),
        (Generation::Argo, granted("direct")),
    ];
    for (generation, (activity, input, submissions)) in cases {
        for (status, apply, lag) in
            [401, 403, 404, 429].into_iter().flat_map(|status| [(status, true, 0), (status, true, 3), (status, false, 0)])
        {
            let tenant = TestTenant::lagging(generation, lag).await;
            for path in EFFECTS {
                let page = json!({"kind": "web_page", "status": status, "apply": apply});
                tenant.fault(json!({"method": "POST", "path": path, "action": page}));
            }
            let verdict = tenant.run(activity, input.clone()).await;
            let case = format!("{input} behind a page with {status}, applied: {apply}, index {lag} s late: {verdict:#?}");
            assert_eq!((verdict.status, tenant.sandbox.faults_fired()), (Status::Passed, 1), "{case}");
            assert_eq!(tenant.submissions().len(), submissions, "{case}");
            let written = tenant.applied().iter().filter(|kind| *kind == "admins_replaced").count();
            assert_eq!(written, 1 - submissions, "{case}");
        }
    }
}

#[tokio::test]
async fn a_page_in_place_of_an_answer_never_makes_a_second_run_of_a_job_that_must_not_send_twice() {
    for (generation, name) in [(Generation::Argo, json!({"workflow": CRAWLER})), (Generation::Native, json!({"app": APP}))] {
        for (status, apply) in [401, 403, 404, 429].into_iter().flat_map(|status| [(status, true), (status, false)]) {
            let tenant = TestTenant::lagging(generation, 3).await;
            let page = json!({"kind": "web_page", "status": status, "apply": apply});
            tenant.fault(json!({"method": "POST", "path": "/submit", "action": page}));
            let input = with(name.clone(), json!({"idempotent": false, "unknown_fate": "fail"}));
            let verdict = tenant.run("workflow_rerun", input).await;
            let case = format!("{name} behind a page with {status}, applied: {apply}: {verdict:#?}");
            assert_eq!(tenant.submissions().len(), usize::from(apply), "{case}");
            if apply {
                assert_eq!(verdict.facts["run"], tenant.submissions()[0].as_str(), "{case}");
            } else {
                assert_eq!(verdict.failure.expect("a failure").code, "rerun.ambiguous", "{name} {status}");
            }
        }
    }
}
