//! The main job against the sandbox: one effect for one intent, whatever is lost on the way.

use std::time::Duration;

use iolaus::sandbox::{AutomationAccess, Generation};
use iolaus_activities::{Clock, Status};
use serde_json::json;

use crate::support::host::target;
use crate::support::tenant::{APP, BOTH, CRAWLER, FAILING, FAILING_APP, RUNNING, RUNNING_APP, TestTenant, idle, request, with};

#[tokio::test]
async fn a_rerun_passes_only_when_the_workflow_run_succeeded() {
    let tenant = TestTenant::new().await;
    let verdict = tenant.run("workflow_rerun", json!({"workflow": CRAWLER})).await;
    assert_eq!(verdict.status, Status::Passed, "{verdict:#?}");
    assert_eq!((&verdict.facts["phase"], &verdict.facts["started"]), (&json!("Succeeded"), &json!(true)));
    assert_eq!(tenant.submissions(), [verdict.facts["run"].as_str().unwrap()]);
}

#[tokio::test]
async fn a_run_that_failed_is_the_tenants_own_no() {
    let tenant = TestTenant::new().await;
    let verdict = tenant.run("workflow_rerun", json!({"workflow": FAILING})).await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Failed, 1), "{verdict:#?}");
    assert_eq!(verdict.facts["phase"], "Failed");
}

#[tokio::test]
async fn an_active_run_is_adopted_and_followed() {
    let tenant = TestTenant::new().await;
    let verdict = tenant.run("workflow_rerun", json!({"workflow": RUNNING})).await;
    assert_eq!((verdict.status, &verdict.facts["started"]), (Status::Passed, &json!(false)), "{verdict:#?}");
    assert!(verdict.message.is_some_and(|message| message.ends_with("(adopted: it was running already)")));
    assert_eq!(tenant.submissions(), [""; 0]);
}

#[tokio::test]
async fn a_native_rerun_passes_only_when_the_run_succeeded_and_an_active_run_is_adopted() {
    for (app, status, started) in
        [(APP, Status::Passed, true), (FAILING_APP, Status::Failed, true), (RUNNING_APP, Status::Passed, false)]
    {
        let tenant = TestTenant::of(Generation::Native).await;
        let verdict = tenant.run("workflow_rerun", json!({"app": app})).await;
        assert_eq!((verdict.status, verdict.attempts), (status, 1), "{verdict:#?}");
        assert_eq!((&verdict.facts["started"], &verdict.facts["generation"]), (&json!(started), &json!("native")));
        let run = verdict.facts["run"].as_str().unwrap().to_owned();
        assert_eq!(tenant.submissions(), if started { vec![run] } else { vec![] });
    }
}

#[tokio::test]
async fn what_belongs_to_the_other_generation_is_told_so_by_the_tenant() {
    for (generation, input) in [(Generation::Argo, json!({"app": APP})), (Generation::Native, json!({"workflow": CRAWLER}))] {
        let tenant = TestTenant::of(generation).await;
        let verdict = tenant.run("workflow_rerun", input).await;
        let failure = verdict.failure.unwrap();
        let code = if generation == Generation::Argo { "generation.unsupported" } else { "workflow.not_found" };
        assert_eq!((verdict.status, failure.code.as_str()), (Status::Unresolved, code), "{failure:#?}");
    }
}

#[tokio::test]
async fn a_run_that_was_skipped_is_no_verdict_while_the_run_that_does_the_work_is_there() {
    let tenant = TestTenant::of(Generation::Native).await;
    tenant.fault(json!({"path": "/submit", "action": {"kind": "cut_after_applying"}}));
    // The first run is shown only after the window; the tenant takes a second submission in, and skips its run.
    tenant.sandbox.set_index_lag(std::time::Duration::from_secs(62));
    tenant.fault(json!({"path": "/submit", "nth": 2, "action": {"kind": "end_as", "phase": "Skipped"}}));
    let verdict = tenant.run("workflow_rerun", json!({"app": APP})).await;
    assert_eq!(verdict.status, Status::Passed, "{verdict:#?}");
    assert_eq!(tenant.submissions()[0], verdict.facts["run"].as_str().unwrap());
}

#[tokio::test]
async fn a_lost_submission_of_an_app_is_settled_by_the_list_of_the_automation_engine_where_it_may_be_read() {
    for access in [AutomationAccess::Allowed, AutomationAccess::Empty, AutomationAccess::Forbidden, AutomationAccess::Absent] {
        let tenant = TestTenant::with(|options| (options.generation, options.automation) = (Generation::Native, access)).await;
        tenant.fault(json!({"path": "/submit", "action": {"kind": "cut_after_applying"}}));
        // The metastore's index alone is a minute late.
        tenant.fault(json!({"path": "/meta/search/indexsearch", "times": 0, "action": {"kind": "stale_index"}}));
        let began = tenant.host.clock.monotonic();
        let verdict = tenant.run("workflow_rerun", json!({"app": APP, "unknown_fate": "fail", "until": "submitted"})).await;
        let took = tenant.host.clock.monotonic().saturating_sub(began);
        let submissions = tenant.submissions();
        assert_eq!(submissions.len(), 1, "{access:?}: {submissions:?}");
        // Neither a refusal nor an empty list says anything, and then the index decides at the end of the window.
        assert_eq!(took < Duration::from_secs(60), access == AutomationAccess::Allowed, "{access:?}: {took:?}");
        if access == AutomationAccess::Allowed {
            assert_eq!(verdict.facts["run"], submissions[0].as_str(), "{verdict:#?}");
            assert_eq!((verdict.status, &verdict.facts["started"]), (Status::Passed, &json!(false)));
        }
        let asked = tenant.sandbox.requests().iter().filter(|request| request.target.starts_with("/automation/")).count();
        assert!(asked == 1 || (asked > 1 && access == AutomationAccess::Empty), "{access:?} is asked {asked} times");
    }
}

#[tokio::test]
async fn the_same_intent_after_a_lost_disk_is_one_submission() {
    for generation in BOTH {
        let tenant = TestTenant::of(generation).await;
        let intent = with(idle(generation), json!({"since": "2026-01-01T00:00:00Z"}));
        let worker = tenant.host.worker().await;
        let job = tenant.host.enqueue(request("workflow_rerun", intent.clone())).await.unwrap();
        tenant.host.drive(tenant.host.until_so("a submission", || !tenant.submissions().is_empty())).await;
        // The machine dies here: the job is cancelled only so that this database ends in order.
        drop(worker);
        tenant.host.client.cancel(target(job.job_id.as_str()), None).await.unwrap();
        tenant.host.verdict(job.job_id.as_str()).await;
        let tenant = tenant.with_an_empty_disk();
        let verdict = tenant.run("workflow_rerun", intent).await;
        assert_eq!((verdict.status, &verdict.facts["started"]), (Status::Passed, &json!(false)), "{verdict:#?}");
        assert_eq!(tenant.submissions().len(), 1);
    }
}

#[tokio::test]
async fn an_index_that_lags_hides_no_run_from_the_search_for_evidence() {
    for generation in BOTH {
        for lag in [0, 9, 30] {
            let tenant = TestTenant::lagging(generation, lag).await;
            tenant.fault(json!({"path": "/submit", "action": {"kind": "cut_after_applying"}}));
            let verdict = tenant.run("workflow_rerun", idle(generation)).await;
            assert_eq!(verdict.status, Status::Passed, "lag {lag} s: {verdict:#?}");
            assert_eq!(tenant.submissions(), [verdict.facts["run"].as_str().unwrap()], "lag {lag} s");
            assert_eq!(verdict.facts["started"], false, "no answer of ours named the run");
        }
    }
}

#[tokio::test]
async fn beyond_the_window_a_careful_rerun_is_ambiguous_and_its_command_adopts_the_run() {
    for generation in BOTH {
        let tenant = TestTenant::lagging(generation, 600).await;
        tenant.fault(json!({"path": "/submit", "action": {"kind": "cut_after_applying"}}));
        let verdict = tenant.run("workflow_rerun", with(idle(generation), json!({"unknown_fate": "fail"}))).await;
        assert_eq!((verdict.status, tenant.submissions().len()), (Status::Unresolved, 1), "{verdict:#?}");
        let failure = verdict.failure.unwrap();
        assert_eq!(failure.code, "rerun.ambiguous");
        let command = failure.suggested_action.unwrap();
        let since = command.split_whitespace().find_map(|word| word.strip_prefix("since=")).expect("it names the intent's time");
        tenant.sandbox.set_index_lag(std::time::Duration::ZERO);
        let verdict = tenant.run("workflow_rerun", with(idle(generation), json!({"since": since}))).await;
        assert_eq!((verdict.status, tenant.submissions().len()), (Status::Passed, 1), "{verdict:#?}");
    }
}
