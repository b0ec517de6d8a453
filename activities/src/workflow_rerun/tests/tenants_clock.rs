//! Clocks that disagree: the tenant's `Date`, the times of its runs, and ours.

use super::*;

#[tokio::test]
async fn evidence_for_a_lost_answer_needs_no_clock() {
    for kind in BOTH {
        for (dated, run_skew, our_lead) in [(true, -12, 0), (true, -3_600, 0), (true, 3_600, 0), (false, 0, 30), (false, -30, 0)] {
            let case = Case::of(kind, |world| {
                world.dated = dated;
                world.run_skew = SignedDuration::from_secs(run_skew);
                world.with_run("before", 5, Some((1, "Failed")));
                world.submits.push_back(does(true, Reply::json(502, &json!({}))));
            })
            .await;
            case.clock.jump(SignedDuration::from_secs(our_lead));
            case.world().skew = SignedDuration::from_secs(-our_lead);
            let verdict = case.attempt(json!({"idempotent": false})).await.expect("a verdict");
            assert_eq!((case.submits(), case.world().applied), (1, 1), "{kind:?} {dated} {run_skew} {our_lead}: {verdict:?}");
            assert_eq!(fact(&verdict, "run"), &json!(format!("{}-ours1", world_of(kind))));
        }
    }
}

#[tokio::test]
async fn one_wrong_date_does_not_shorten_the_search_for_a_lost_submission() {
    let case = Case::new(|world| {
        world.lag = Duration::from_secs(30);
        world.submits.push_back(does(true, Reply::cut()));
    })
    .await;
    let host = TestHost::in_queue(case.clock.clone(), "job", &Arc::default());
    let run =
        || host.attempt(WorkflowRerun::new(case.tenants.clone()), case.input(&json!({"until": "submitted", "idempotent": false})));
    let settling = async {
        while host.progress().iter().all(|progress| progress["step"] != "settling an unknown fate") {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = drive(&case.clock, run()) => panic!("it has ended: {ended:?}"),
        () = settling => {}
    }
    // Its next attempt sees dates that are an hour ahead.
    case.world().skew = SignedDuration::from_hours(1);
    let verdict = drive(&case.clock, run()).await.expect("a verdict");
    assert_eq!((case.submits(), case.world().applied), (1, 1), "{verdict:?}");
}

#[tokio::test]
async fn since_is_exact_where_the_tenants_clock_is_known_and_the_sentence_gives_both_times() {
    // The job says since = now. (answers are dated, run created so long ago) -> adopted?
    for (dated, ago, adopted) in [(true, 0, true), (true, 1, false), (true, 4, false), (false, 4, true), (false, 6, false)] {
        let case = Case::new(|world| {
            world.dated = dated;
            world.with_run("theirs", ago, None);
            world.runs[0].ends = Some((world.now() + 1.seconds(), "Succeeded"));
        })
        .await;
        let verdict = case.attempt(json!({"since": "2026-01-01T00:00:00.700Z", "until": "submitted"})).await.expect("a verdict");
        assert_eq!(fact(&verdict, "run") == "theirs", adopted, "{dated} {ago}: {}", verdict.message());
        let created = case.world().runs[0].created;
        let both = format!("{}, and since=2026-01-01T00:00:00.700Z", timestamp::format(created));
        assert_eq!(verdict.message().contains(&both), adopted, "{}", verdict.message());
        assert_eq!(verdict.message().contains("up to 5s are allowed"), adopted && ago > 0, "{}", verdict.message());
    }
}

#[tokio::test]
async fn since_is_exact_where_answers_are_quick_and_tolerant_where_they_are_too_slow_to_tell_the_clock() {
    for kind in BOTH {
        // The job says since = now. (answers take so many milliseconds, run created so many seconds ago) -> adopted?
        for (takes, ago, adopted) in [(200, 0, true), (200, 4, false), (900, 4, false), (6_000, 4, true), (6_000, 12, false)] {
            let case = Case::of(kind, |world| {
                world.answers_take = Duration::from_millis(takes);
                world.lasts = Duration::from_secs(1);
                world.with_run("theirs", ago, Some((ago + 1, "Succeeded")));
            })
            .await;
            let verdict =
                case.attempt(json!({"since": "2026-01-01T00:00:00.700Z", "until": "submitted"})).await.expect("a verdict");
            let told = format!("{kind:?} {takes} {ago}: {}", verdict.message());
            assert_eq!(fact(&verdict, "run") == "theirs", adopted, "{told}");
            let says_so = verdict.message().contains("is not known to the second, so up to 5s are allowed");
            assert_eq!(says_so, adopted && takes > 1_000, "{told}");
        }
    }
}

#[tokio::test]
async fn a_step_that_is_retried_on_another_machine_adopts_its_own_run_under_any_skew_that_is_tolerated() {
    for kind in BOTH {
        for (dated, run_skew) in [(true, -4), (true, 4), (false, -4), (false, 4), (true, 0)] {
            // Thirty seconds ahead it is `since` that is waited for, and not the index.
            for ahead in [0, 3, 30] {
                let mut case = Case::of(kind, |world| {
                    world.dated = dated;
                    world.run_skew = SignedDuration::from_secs(run_skew);
                })
                .await;
                let since = timestamp::format(case.clock.now() + ahead.seconds());
                let input = || json!({"since": since, "until": "submitted"});
                case.attempt(input()).await.expect("a verdict");
                case.host = Arc::new(TestHost::new(case.clock.clone()));
                let again = case.attempt(input()).await.expect("a verdict");
                assert_eq!(
                    (case.submits(), fact(&again, "started")),
                    (1, &json!(false)),
                    "{kind:?} {dated} {run_skew} {ahead}: {again:?}"
                );
            }
        }
    }
}
