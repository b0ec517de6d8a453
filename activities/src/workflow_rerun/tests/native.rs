//! What is so of apps alone: runs that are skipped, and hits that only hint at a run.

use super::*;

async fn app(set_up: impl FnOnce(&mut World)) -> Case {
    Case::of(Kind::App, set_up).await
}

#[tokio::test]
async fn an_idle_app_is_submitted_once_and_followed_to_its_end() {
    let case = app(|_| {}).await;
    let verdict = case.attempt(json!({})).await.expect("a verdict");
    assert!(verdict.is_passed());
    for (name, value) in [
        ("workflow", json!(A)),
        ("run", json!(format!("{A}-ours1"))),
        ("phase", json!("Succeeded")),
        ("created_at", json!("2026-01-01T00:00:00.000Z")),
        ("creator", json!(null)),
        ("started", json!(true)),
        ("generation", json!("native")),
    ] {
        assert_eq!(fact(&verdict, name), &value, "{name}");
    }
    let targets: Vec<_> = case.server.requests().into_iter().take(3).map(|request| request.target).collect();
    let submit = format!("/api/service/v1/app/{A}/submit");
    assert_eq!(targets, [format!("/api/service/v1/app/{A}"), "/api/meta/search/indexsearch".to_owned(), submit]);
}

#[tokio::test]
async fn the_command_of_an_ambiguous_app_names_the_app() {
    let case = app(|world| world.submits.push_back(does(false, Reply::cut()))).await;
    let failure = case.failure(json!({"unknown_fate": "fail"})).await;
    let words = format!("workflow_rerun app={A} unknown_fate=fail since=2026-01-01T00:00:00.700Z");
    assert_eq!((failure.code.as_ref(), failure.suggested_action), ("rerun.ambiguous", Some(format!("iolaus execute {words}"))));
    assert_eq!(failure.source.operation.as_deref(), Some("apps.submit"));
}

/// The first submission was applied, but is shown only after the window; the second one is accepted and skipped.
fn late(world: &mut World) {
    world.lag = Duration::from_secs(63);
    world.submits.push_back(does(true, Reply::cut()));
}

/// Somebody on the way sends a submission twice; the answer is the second one's.
fn doubled(world: &mut World) {
    world.arrivals = 2;
}

#[tokio::test]
async fn a_run_that_was_skipped_is_no_verdict_while_the_run_of_ours_is_there() {
    for (set_up, submits) in [(late as fn(&mut World), 2), (doubled, 1)] {
        for until in ["completed", "submitted"] {
            for death in 0..=6 {
                let case = app(set_up).await;
                if death > 0 {
                    case.host.die_at_save(death);
                }
                let verdict = case.to_the_verdict(json!({"until": until})).await;
                let what = format!("until {until}, death at {death}: {verdict:?}");
                assert!(verdict.is_passed(), "{what}");
                assert_eq!(fact(&verdict, "run"), &json!(format!("{A}-ours1")), "{what}");
                assert_eq!(fact(&verdict, "started"), false, "no answer named it: {what}");
                assert_eq!((case.world().applied, case.submits()), (1, submits), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_run_that_was_skipped_for_somebody_elses_is_no_verdict_either() {
    let case = app(|world| {
        world.with_run("theirs", 600, Some((700, "Failed")));
        // The index shows it late, so the check before the submission misses it.
        world.runs[0].seen_from = world.now() + 20.seconds();
    })
    .await;
    let verdict = case.attempt(json!({})).await.expect("a verdict");
    assert_eq!((fact(&verdict, "run"), fact(&verdict, "phase")), (&json!("theirs"), &json!("Failed")));
    assert_eq!((case.submits(), case.world().applied), (1, 0));
}

#[tokio::test]
async fn a_run_that_was_skipped_beside_none_is_the_tenants_no() {
    let case = app(|world| {
        let skipped = Reply::ok(&json!({"slug": A, "run_id": "skipped"}));
        world.submits.push_back(does(false, skipped));
        world.with_run("skipped", 0, Some((0, "Skipped")));
    })
    .await;
    let before = case.clock.monotonic();
    let verdict = case.attempt(json!({})).await.expect("a verdict");
    assert_eq!((verdict.is_passed(), fact(&verdict, "phase"), case.submits()), (false, &json!("Skipped"), 1));
    assert!(case.clock.monotonic() >= before + Duration::from_secs(60), "a search was answered after the window");
}

#[tokio::test]
async fn a_hit_that_cannot_be_confirmed_is_neither_adopted_nor_proof_of_absence() {
    let hides: [fn(&mut World); 2] = [|world| world.hidden = Some(""), |world| world.slug = "another-one"];
    for hide in hides {
        for input in [json!({}), json!({"since": "2025-12-31T23:59:00Z"})] {
            let case = app(|world| {
                world.submits.push_back(does(true, Reply::cut()));
                hide(world);
            })
            .await;
            for _ in 0..4 {
                let failure = case.failure(input.clone()).await;
                assert_eq!((failure.code.as_ref(), failure.retryable), ("run.unconfirmed", true));
                case.clock.advance(Duration::from_secs(100)).await;
            }
            assert_eq!(case.submits(), 1, "however long it takes");
            case.world().hidden = None;
            case.world().slug = A;
            let verdict = case.to_the_verdict(input).await;
            assert_eq!((verdict.is_passed(), case.submits(), case.world().applied), (true, 1, 1));
        }
    }
}

#[tokio::test]
async fn a_denied_submission_names_who_asked() {
    let case = app(|world| world.submits.push_back(does(false, Reply::json(403, &json!({}))))).await;
    let failure = case.failure(json!({})).await;
    assert!(failure.message.contains("service-account-x needs the right to run apps"), "{failure}");
}

#[tokio::test]
async fn a_ghost_in_the_index_keeps_no_first_submission_back() {
    let case = app(|world| {
        world.with_run("ghost", 600, Some((599, "Succeeded")));
        world.stale = Some("Running");
        world.hidden = Some("ghost");
    })
    .await;
    let verdict = case.attempt(json!({})).await.expect("a verdict");
    assert_eq!((case.submits(), fact(&verdict, "started")), (1, &json!(true)));
}

#[tokio::test]
async fn a_ghost_in_the_index_hides_nothing_of_what_became_of_a_submission() {
    for (applies, submits) in [(true, 1), (false, 2)] {
        let case = app(|world| {
            // So young that it could be the effect, had it not been there before.
            world.with_run("ghost", 2, Some((1, "Succeeded")));
            world.stale = Some("Running");
            world.hidden = Some("ghost");
            world.submits.push_back(does(applies, Reply::cut()));
        })
        .await;
        let verdict = case.to_the_verdict(json!({})).await;
        assert!(verdict.is_passed() && fact(&verdict, "run") != "ghost", "{verdict:?}");
        assert_eq!((case.submits(), case.world().applied), (submits, 1));
    }
}

#[tokio::test]
async fn a_ghost_that_appears_afterwards_hides_no_run_of_ours_but_forbids_another_submission() {
    for applies in [true, false] {
        let case = app(|world| {
            world.with_run("ghost", 0, Some((0, "Succeeded")));
            world.runs[0].seen_from = world.now() + 3.seconds();
            world.stale = Some("Running");
            world.hidden = Some("ghost");
            world.submits.push_back(does(applies, Reply::cut()));
        })
        .await;
        if applies {
            let verdict = case.to_the_verdict(json!({})).await;
            assert_eq!((verdict.is_passed(), fact(&verdict, "run")), (true, &json!(format!("{A}-ours1"))));
        } else {
            assert_eq!(case.failure(json!({})).await.code.as_ref(), "run.unconfirmed");
        }
        assert_eq!(case.submits(), 1);
    }
}

#[tokio::test]
async fn another_process_learns_the_tenants_clock_before_it_submits() {
    let mut case = app(|world| {
        world.skew = SignedDuration::from_mins(-2);
        world.lasts = Duration::from_secs(10);
        world.submits.extend([does(false, Reply::text(429, "")), does(true, Reply::cut())]);
    })
    .await;
    let input = || json!({"idempotent": false});
    assert_eq!(case.failure(input()).await.code.as_ref(), "tenant.rate_limited");
    case.tenants = tenants(case.server.settings(), &case.clock);
    let verdict = case.to_the_verdict(input()).await;
    assert_eq!((verdict.is_passed(), case.world().applied, case.submits()), (true, 1, 2), "{verdict:?}");
}

#[tokio::test]
async fn an_index_that_still_shows_a_run_as_active_is_not_believed() {
    let case = app(|world| {
        world.with_run("theirs", 600, Some((300, "Succeeded")));
        world.stale = Some("Running");
    })
    .await;
    let verdict = case.attempt(json!({"until": "submitted"})).await.expect("a verdict");
    assert_eq!((case.submits(), fact(&verdict, "started")), (1, &json!(true)));
}

#[tokio::test]
async fn a_tenant_without_apps_is_told_from_one_without_this_app() {
    for (has_apps, code) in [(true, "app.not_found"), (false, "generation.unsupported")] {
        let server = Scripted::answering(move |request| {
            let lists = has_apps && request.target == "/api/service/v1/app?limit=1";
            Some(if lists { Reply::ok(&json!({"workflows": []})) } else { Reply::json(404, &json!({"message": "no route"})) })
        })
        .await;
        let clock = clock();
        for (activity, input) in [("rerun", json!({"app": A})), ("await", json!({"app_run": "r-1"}))] {
            let host = TestHost::new(clock.clone());
            let ended = if activity == "rerun" {
                drive(&clock, host.attempt(WorkflowRerun::new(server.tenants(&clock)), input)).await
            } else {
                let awaiting = crate::await_completion::AwaitCompletion::new(server.tenants(&clock));
                drive(&clock, host.attempt(awaiting, input)).await
            };
            let Err(ActivityError::Failed(failure)) = ended else { panic!("no failure: {ended:?}") };
            let code = if activity == "await" && has_apps { "run.not_found" } else { code };
            assert_eq!((failure.code.as_ref(), failure.retryable), (code, false), "{activity}");
            let named = failure.suggested_action.is_some_and(|hint| hint.contains("tenants.default.generation"));
            assert_eq!(named, !has_apps, "{activity}");
        }
    }
}

#[tokio::test]
async fn a_tenant_without_workflows_is_told_from_one_without_this_workflow() {
    let server = Scripted::answering(|_| Some(Reply::json(404, &json!({"message": "no route"})))).await;
    let clock = clock();
    let ended = TestHost::new(clock.clone()).attempt(WorkflowRerun::new(server.tenants(&clock)), json!({"workflow": W})).await;
    let Err(ActivityError::Failed(failure)) = ended else { panic!("no failure: {ended:?}") };
    assert_eq!((failure.code.as_ref(), failure.category), ("generation.unsupported", Category::Unimplemented));
    assert!(failure.suggested_action.is_some_and(|hint| hint.contains("tenants.default.generation")));
}
