//! A lost submission of an app is settled by the Automation Engine's list of runs too, where it may be read.

use super::*;

/// An app whose first submission is applied (or not) without an answer, and whose index is too late for the window.
async fn lost(applies: bool, set_up: impl FnOnce(&mut World)) -> Case {
    Case::of(Kind::App, |world| {
        world.lag = Duration::from_secs(600);
        world.lasts = Duration::from_secs(5_000);
        world.submits.push_back(does(applies, Reply::cut()));
        world.engine_list = None;
        set_up(world);
    })
    .await
}

fn asked_for_the_list(case: &Case) -> usize {
    case.server.requests().iter().filter(|request| request.target.starts_with("/automation/")).count()
}

/// A run of somebody else that is not indexed yet.
fn with_unindexed(world: &mut World, name: &str, ago: i64, ends: Option<(i64, &'static str)>) {
    world.with_run(name, ago, ends);
    world.runs.last_mut().expect("one").seen_from = world.now() + 900.seconds();
}

#[tokio::test]
async fn a_lost_submission_that_the_automation_engine_lists_is_adopted_although_the_index_is_late() {
    for idempotent in [true, false] {
        for death in 0..=3 {
            let case = lost(true, |_| {}).await;
            if death > 0 {
                case.host.die_at_save(death);
            }
            let input = || json!({"idempotent": idempotent, "until": "submitted"});
            let verdict = case.to_the_verdict(input()).await;
            assert_eq!(fact(&verdict, "run"), &json!(format!("{A}-ours1")), "death at {death}");
            let why = "(adopted: it appeared after a submission of this job whose answer was lost)";
            assert!(verdict.is_passed() && verdict.message().ends_with(why), "{}", verdict.message());
            assert_eq!((case.submits(), case.world().applied, fact(&verdict, "started")), (1, 1, &json!(false)));
            assert!(case.clock.monotonic() < Duration::from_secs(60), "it did not wait for the index");
        }
    }
}

#[tokio::test]
async fn the_automation_engine_is_asked_only_about_a_lost_submission() {
    for input in [json!({}), json!({"idempotent": false}), json!({"since": "2025-12-31T23:59:00Z"})] {
        let case = Case::of(Kind::App, |world| world.engine_list = None).await;
        assert!(case.attempt(input).await.expect("a verdict").is_passed());
        assert_eq!(asked_for_the_list(&case), 0);
    }
}

#[tokio::test]
async fn a_run_that_was_created_before_the_submission_is_not_ours_although_no_search_had_shown_it() {
    for applies in [true, false] {
        let case = lost(applies, |world| {
            world.lag = Duration::from_secs(63);
            world.lasts = Duration::from_secs(10);
            with_unindexed(world, "before", 4, Some((3, "Succeeded")));
            with_unindexed(world, "long-before", 4_000, Some((3, "Failed")));
        })
        .await;
        let verdict = case.to_the_verdict(json!({})).await;
        assert_eq!((fact(&verdict, "run"), case.world().applied), (&json!(format!("{A}-ours1")), 1), "{verdict:?}");
        assert_eq!((case.submits(), fact(&verdict, "started")), (2 - usize::from(applies), &json!(!applies)));
    }
}

#[tokio::test]
async fn a_listed_run_of_another_app_is_not_ours_and_keeps_no_submission_back() {
    let created = "2026-01-01T00:00:01Z";
    for named in [json!(null), json!("another-app"), json!(A)] {
        let case = lost(false, |world| {
            world.engine_list =
                Some(Reply::ok(&json!({"data": [{"guid": "foreign", "workflow_slug": named, "created_at": created}]})));
            with_unindexed(world, "foreign", 0, Some((1, "Succeeded")));
            world.foreign = Some("foreign");
        })
        .await;
        let verdict = case.to_the_verdict(json!({"until": "submitted"})).await;
        assert_eq!((case.submits(), fact(&verdict, "started")), (2, &json!(true)), "{named}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_listed_run_that_the_tenant_does_not_show_is_neither_adopted_nor_proof_of_absence() {
    let case = lost(true, |world| world.hidden = Some("")).await;
    for _ in 0..3 {
        let failure = case.failure(json!({"until": "submitted"})).await;
        assert_eq!((failure.code.as_ref(), failure.retryable), ("run.unconfirmed", true));
        case.clock.advance(Duration::from_secs(100)).await;
    }
    case.world().hidden = None;
    let verdict = case.to_the_verdict(json!({"until": "submitted"})).await;
    assert_eq!((verdict.is_passed(), case.submits(), case.world().applied), (true, 1, 1));
}

#[tokio::test]
async fn an_empty_list_proves_nothing_and_the_index_decides_within_the_window() {
    for empty in [json!({"data": []}), json!({"data": null})] {
        // (applied, indexed after so many seconds) -> submissions
        for (applies, lag, submits) in [(true, 50, 1), (false, 0, 2)] {
            let case = lost(applies, |world| {
                world.lag = Duration::from_secs(lag);
                world.engine_list = Some(Reply::ok(&empty));
            })
            .await;
            let at = note_submits(&case, || {});
            let verdict = case.to_the_verdict(json!({"until": "submitted"})).await;
            assert_eq!((case.submits(), case.world().applied, fact(&verdict, "started")), (submits, 1, &json!(!applies)));
            let at = at.lock().expect("no panic");
            assert!(at.iter().skip(1).all(|again| *again >= at[0] + Duration::from_secs(60)), "{at:?}");
        }
    }
}

#[tokio::test]
async fn a_list_that_is_refused_is_asked_for_once_and_the_index_decides_as_before() {
    for refusal in [Reply::json(403, &json!({})), Reply::json(404, &json!({})), Reply::text(200, "<html>Sign in</html>")] {
        for applies in [true, false] {
            let case = lost(applies, |world| {
                world.lag = Duration::from_secs(20);
                world.engine_list = Some(refusal.clone());
                world.submits.push_back(does(false, Reply::cut()));
            })
            .await;
            let verdict = case.to_the_verdict(json!({"until": "submitted"})).await;
            assert_eq!((verdict.is_passed(), case.submits(), case.world().applied), (true, if applies { 1 } else { 3 }, 1));
            assert_eq!(asked_for_the_list(&case), 1, "{refusal:?}");
        }
    }
}

#[tokio::test]
async fn a_list_that_fails_fails_no_job() {
    for failing in [Reply::cut(), Reply::json(500, &json!({})), Reply::ok(&json!({"data": "x"})), Reply::text(429, "")] {
        for applies in [true, false] {
            let case = lost(applies, |world| {
                world.lag = Duration::from_secs(20);
                world.engine_list = Some(failing.clone());
            })
            .await;
            let verdict = case.attempt(json!({"until": "submitted"})).await.expect("a verdict at once");
            assert_eq!((verdict.is_passed(), case.submits()), (true, 2 - usize::from(applies)), "{failing:?}");
            assert!(asked_for_the_list(&case) <= 4, "it is left alone for a while");
        }
    }
}

type Change = fn(&mut World);

#[tokio::test]
async fn where_the_tenants_clock_is_not_known_the_list_is_not_believed() {
    // How the clock is unknown, and when a run is said to be created that was there before the submission, in seconds from now.
    let unknown: [(Change, i64); 3] = [
        (|world| (world.dated, world.skew) = (false, SignedDuration::from_secs(30)), -5),
        (|world| world.answers_take = Duration::from_secs(5), 8),
        (|world| world.run_skew = SignedDuration::from_secs(30), 25),
    ];
    for (number, (unknown, created)) in unknown.into_iter().enumerate() {
        let case = lost(false, |world| {
            unknown(world);
            with_unindexed(world, "before", -created, Some((1, "Succeeded")));
        })
        .await;
        let verdict = case.to_the_verdict(json!({"until": "submitted"})).await;
        assert_eq!((case.submits(), fact(&verdict, "started")), (2, &json!(true)), "{number}: {verdict:?}");
    }
}
