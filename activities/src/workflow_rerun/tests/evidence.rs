//! What is no proof: searches that hide or cannot show what they count, and runs that are not of our submission.

use super::*;

fn answer(total: &Value, hits: &Value) -> Value {
    json!({"timed_out": false, "_shards": {"total": 1, "successful": 1, "failed": 0}, "hits": {"total": total, "hits": hits}})
}

fn one(hit: &Value) -> Value {
    answer(&json!({"value": 1, "relation": "eq"}), &json!([hit]))
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

/// Answers that show no run that can be read, and do not prove that there is none.
fn no_proofs(kind: Kind) -> Vec<Value> {
    let none = || answer(&json!({"value": 0, "relation": "eq"}), &json!([]));
    if kind == Kind::App {
        let entity = |attributes: Value| json!({"approximateCount": 1, "entities": [{"attributes": attributes}]});
        return vec![
            json!({"approximateCount": 3, "entities": []}),
            json!({"approximateCount": 3}),
            json!({"approximateCount": 1, "entities": [null]}),
            entity(json!({"appWorkflowRunStatus": "Running"})),
            entity(json!({"appWorkflowRunStatus": "Running", "qualifiedName": format!("default/elsewhere/{A}/1")})),
            entity(json!({"appWorkflowRunStatus": "Running", "qualifiedName": format!("{ROOT}/{A}/..")})),
            json!({"error": {"message": "down"}, "approximateCount": 0, "entities": []}),
            json!({"errorCode": "ATLAS-500-00-001", "approximateCount": 0}),
            json!({"entities": []}),
        ];
    }
    let running = json!({"phase": "Running"});
    let of_us = json!({"workflowTemplateRef": {"name": W}});
    vec![
        answer(&json!({"value": 3, "relation": "eq"}), &json!([])),
        answer(&json!(3), &json!([])),
        answer(&json!({"value": 0, "relation": "gte"}), &json!([])),
        answer(&json!("many"), &json!([])),
        one(&json!(null)),
        one(&json!({})),
        one(&json!("x")),
        one(&json!({"_source": {"metadata": {"name": 7}, "spec": of_us, "status": running}})),
        one(&json!({"_source": {"metadata": {"name": format!("{W}-abcde\u{200b}")}, "spec": of_us, "status": running}})),
        one(&json!({"_id": "..", "_source": {"metadata": {"name": ".."}, "spec": of_us, "status": running}})),
        with(none(), "error", json!({"message": "search backend down", "code": "AE-500"})),
        with(none(), "error", json!({"code": 500})),
        with(none(), "errors", json!(["down"])),
        with(none(), "errorCode", json!("ATLAS-500")),
        with(none(), "timed_out", json!("true")),
        with(none(), "terminated_early", json!(true)),
        with(none(), "_shards", json!({"total": 5, "successful": 0})),
        with(none(), "_shards", json!({"total": 5, "successful": 3, "failed": 0})),
    ]
}

#[tokio::test]
async fn a_search_that_hides_or_cannot_show_what_it_counts_is_no_proof_that_no_run_exists() {
    for kind in BOTH {
        for said in no_proofs(kind) {
            let case = Case::of(kind, |world| {
                world.submits.push_back(does(true, Reply::cut()));
                world.searches_say = Some((1, said.clone()));
            })
            .await;
            let failure = case.failure(json!({"idempotent": false})).await;
            assert_eq!((case.submits(), case.world().applied), (1, 1), "{kind:?} {said}: {failure}");
            let known = matches!(failure.code.as_ref(), "rerun.ambiguous" | "tenant.unreadable" | "tenant.unavailable");
            assert!(known && failure.retryable == (failure.code != "rerun.ambiguous"), "{kind:?} {said}: {failure}");
            if failure.retryable {
                case.world().searches_say = None;
                assert!(case.to_the_verdict(json!({"idempotent": false})).await.is_passed());
                assert_eq!((case.submits(), case.world().applied), (1, 1), "{kind:?} {said}");
            }
        }
    }
}

#[tokio::test]
async fn an_ambiguous_end_names_the_document_that_cannot_be_read_and_the_command_to_continue() {
    let case = Case::new(|world| {
        world.submits.push_back(does(true, Reply::cut()));
        let hit = json!({"_source": {"metadata": {"creationTimestamp": "2026-01-01T00:00:01Z"}, "status": {"phase": "Running"}}});
        world.searches_say = Some((1, one(&hit)));
    })
    .await;
    let failure = case.failure(json!({})).await;
    assert_eq!((failure.code.as_ref(), failure.retryable), ("rerun.ambiguous", false));
    let named = "hit 1 of a search has no name that can be read (Running, created at 2026-01-01T00:00:01.000Z)";
    assert!(failure.message.contains(named), "{failure}");
    let action = failure.suggested_action.expect("a command");
    assert!(action.starts_with("iolaus execute workflow_rerun") && action.contains(" since="), "{action}");
}

#[tokio::test]
async fn an_incomplete_search_that_is_followed_by_a_complete_one_settles_a_lost_answer() {
    for kind in BOTH {
        let case = Case::of(kind, |world| {
            world.submits.push_back(does(true, Reply::cut()));
            let said =
                if kind == Kind::App { json!({"approximateCount": 3, "entities": []}) } else { answer(&json!(3), &json!([])) };
            world.searches_say = Some((1, said));
        })
        .await;
        let (world, clock) = (case.world.clone(), case.clock.clone());
        // Longer than the window, in which all searches were incomplete.
        let sleep = clock.sleep(Duration::from_secs(75));
        let healed = async {
            sleep.await;
            world.lock().expect("no panic").searches_say = None;
        };
        let attempt = case.host.attempt(WorkflowRerun::new(case.tenants.clone()), case.input(&json!({"until": "submitted"})));
        let (verdict, ()) = drive(&case.clock, async { tokio::join!(attempt, healed) }).await;
        assert!(verdict.expect("a verdict").is_passed());
        assert_eq!((case.submits(), case.world().applied), (1, 1));
    }
}

#[tokio::test]
async fn an_incomplete_search_that_shows_no_active_run_keeps_a_first_submission_back() {
    for kind in BOTH {
        // An id that cannot be asked for is like that of a run that is not there: the tenant refuses a second one of an app itself.
        for said in no_proofs(kind).into_iter().filter(|said| kind == Kind::Workflow || !said.to_string().contains("/..")) {
            let case = Case::of(kind, |world| world.searches_say = Some((0, said.clone()))).await;
            let failure = case.failure(json!({"until": "submitted"})).await;
            assert_eq!((case.submits(), failure.retryable), (0, true), "{kind:?} {said}: {failure}");
            assert!(matches!(failure.code.as_ref(), "tenant.unreadable" | "tenant.unavailable"), "{kind:?} {said}: {failure}");
            case.world().searches_say = None;
            assert!(case.to_the_verdict(json!({"until": "submitted"})).await.is_passed());
            assert_eq!(case.submits(), 1);
        }
    }
}

/// Documents without a name of which it can be told that they are not the effect of a submission of this moment.
fn not_ours(kind: Kind) -> Vec<Value> {
    if kind == Kind::App {
        let entity = |attributes: Value| json!({"approximateCount": 1, "entities": [{"attributes": attributes}]});
        return vec![
            entity(json!({"appWorkflowRunStatus": "Failed", "appWorkflowRunStartedAt": 1_764_547_200_000_i64})),
            entity(json!({"appWorkflowRunStatus": "Failed", "qualifiedName": format!("{ROOT}/another-app/7")})),
        ];
    }
    let ended = json!({"phase": "Failed"});
    vec![
        one(&json!({"_source": {"metadata": {"name": 7, "creationTimestamp": "2025-12-01T00:00:00Z"}, "status": ended}})),
        one(&json!({"_source": {"spec": {"workflowTemplateRef": {"name": "another"}}, "status": {"phase": "Running"}}})),
        one(&json!({"_source": {"metadata": {"labels": {"workflows.argoproj.io/creator": "u-other"}}, "status": ended}})),
    ]
}

#[tokio::test]
async fn a_document_without_a_name_that_cannot_be_ours_is_no_obstacle() {
    for kind in BOTH {
        for said in not_ours(kind) {
            let case = Case::of(kind, |world| {
                world.me = Some("u-me");
                world.submits.push_back(does(false, Reply::cut()));
                world.searches_say = Some((0, said.clone()));
            })
            .await;
            let verdict = case.attempt(json!({"until": "submitted"})).await.unwrap_or_else(|error| panic!("{said}: {error:?}"));
            assert_eq!((case.submits(), fact(&verdict, "started")), (2, &json!(true)), "{kind:?} {said}");
        }
    }
}

#[tokio::test]
async fn hits_that_are_null_beside_a_total_of_zero_are_none() {
    let case = Case::new(|world| {
        world.submits.push_back(does(false, Reply::cut()));
        world.searches_say = Some((0, answer(&json!({"value": 0}), &json!(null))));
    })
    .await;
    assert_eq!(fact(&case.attempt(json!({"until": "submitted"})).await.expect("a verdict"), "started"), &json!(true));
    assert_eq!(case.submits(), 2);
}

#[tokio::test]
async fn a_run_from_long_before_the_submission_is_no_evidence_although_no_search_had_shown_it() {
    for kind in BOTH {
        let case = Case::of(kind, |world| {
            world.with_run("of-2023", 80_000_000, Some((60, "Succeeded")));
            world.runs[0].seen_from = world.now() + 3.seconds();
            world.submits.push_back(does(false, Reply::json(502, &json!({}))));
        })
        .await;
        let failure = case.failure(json!({"until": "submitted"})).await;
        assert_eq!((failure.code.as_ref(), case.submits()), ("rerun.ambiguous", 1), "{kind:?}: {failure}");
        assert!(failure.message.contains("run of-2023 was not shown before, but is said to be created at 2023-"), "{failure}");
    }
}

#[tokio::test]
async fn a_run_of_an_app_whose_id_cannot_be_asked_for_keeps_no_first_submission_back() {
    let entity = json!({"attributes": {"qualifiedName": format!("{ROOT}/{A}/.."), "appWorkflowRunStatus": "Running"}});
    let case = Case::of(Kind::App, |world| {
        world.searches_say = Some((0, json!({"approximateCount": 1, "entities": [entity]})));
    })
    .await;
    let verdict = case.attempt(json!({})).await.expect("a verdict");
    assert_eq!((case.submits(), fact(&verdict, "started")), (1, &json!(true)), "{verdict:?}");
}

#[tokio::test]
async fn one_row_whose_id_is_another_path_hides_no_run_of_ours() {
    let created = || "2026-01-01T00:00:01Z";
    for id in ["..", ".", "../x", "a\\..\\b"] {
        let case = Case::of(Kind::App, |world| {
            world.lasts = Duration::from_secs(5_000);
            world.submits.push_back(does(true, Reply::cut()));
            world.engine_list = Some(Reply::ok(&json!({"data": [
                {"guid": id, "workflow_slug": A, "status": "Running", "created_at": created()},
                {"guid": format!("{A}-ours1"), "workflow_slug": A, "status": "Running", "created_at": created()},
            ]})));
        })
        .await;
        let verdict = case.to_the_verdict(json!({"until": "submitted"})).await;
        assert_eq!((case.submits(), fact(&verdict, "run")), (1, &json!(format!("{A}-ours1"))), "{id}: {verdict:?}");

        let entity = |name: &str, started: i64| {
            json!({"attributes": {"qualifiedName": format!("{ROOT}/{A}/{name}"),
            "appWorkflowRunStatus": "Running", "appWorkflowRunStartedAt": started}})
        };
        let case = Case::of(Kind::App, |world| {
            world.lasts = Duration::from_secs(5_000);
            world.submits.push_back(does(true, Reply::cut()));
            let entities = [entity(id, 1_767_225_601_000), entity(&format!("{A}-ours1"), 1_767_225_601_000)];
            world.searches_say = Some((1, json!({"approximateCount": 2, "entities": entities})));
        })
        .await;
        let verdict = case.to_the_verdict(json!({"until": "submitted"})).await;
        assert_eq!((case.submits(), fact(&verdict, "run")), (1, &json!(format!("{A}-ours1"))), "{id}: {verdict:?}");
    }
}

/// A firewall or a rate limiter may answer in the tenant's place for hours.
#[tokio::test]
async fn submissions_that_a_page_keeps_away_are_tried_again_by_the_retry_policy_and_do_not_count_as_lost() {
    for kind in BOTH {
        let page = || does(false, Reply::text(403, "<html>blocked</html>"));
        let case = Case::of(kind, |world| world.submits.extend(vec![page(); 5])).await;
        for _ in 0..5 {
            let failure = case.failure(json!({})).await;
            assert_eq!((failure.code.as_ref(), failure.retryable), ("tenant.unavailable", true), "{failure}");
            assert!(failure.message.contains("403") && failure.suggested_action.is_some(), "{failure}");
        }
        let verdict = case.attempt(json!({})).await.expect("a verdict");
        assert_eq!((verdict.is_passed(), case.submits(), case.world().applied), (true, 6, 1), "{verdict:?}");

        // Beside lost answers those count.
        let lost = || does(false, Reply::cut());
        let case = Case::of(kind, |world| world.submits.extend([lost(), page(), lost(), page(), lost()])).await;
        let failure = loop {
            let failure = case.failure(json!({})).await;
            if !failure.retryable {
                break failure;
            }
        };
        assert_eq!((failure.code.as_ref(), case.submits()), ("rerun.ambiguous", 5), "{failure}");
    }
}
