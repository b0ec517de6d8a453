//! Submissions that the tenant refuses because a run is active: another's, or the one that an earlier arrival of the same request has
//! started, as when a proxy sends it twice.

use super::other_jobs::{driven, job, run};
use super::*;
use crate::effects::{EffectOwner, EffectRegister, EffectState};

const APPEARED: &str = "(adopted: it appeared after a submission of this job to which the tenant answered that a run is active)";
const RAN_ALREADY: &str = "(adopted: it was running already)";

/// A tenant without a second active run, which every submission reaches twice.
fn doubled(world: &mut World) {
    (world.refuses, world.arrivals) = (true, 2);
}

/// A tenant that refuses a second active run. Another run was created `ago` seconds ago, and a search shows it `shown` seconds from now.
fn beside(world: &mut World, ago: i64, shown: i64, ends: Option<(i64, &'static str)>) {
    world.refuses = true;
    world.with_run("theirs", ago, ends);
    world.runs[0].seen_from = world.now() + shown.seconds();
}

fn inputs() -> Vec<Value> {
    let mut inputs = Vec::new();
    for idempotent in [true, false] {
        for fate in ["resend", "fail"] {
            inputs.push(json!({"idempotent": idempotent, "unknown_fate": fate}));
        }
    }
    inputs
}

/// What the queue remembers of what was sent.
fn remembered(case: &Case, queue: &EffectRegister) -> Vec<EffectState> {
    let nobody = EffectOwner { job_id: "nobody".to_owned(), run_id: "nobody".to_owned() };
    let kind = case.world().kind;
    let key = format!("{}/{}", kind.noun(), world_of(kind));
    let others = queue.others("default", &nobody, &key, Timestamp::MIN, case.clock.now());
    others.into_iter().map(|other| other.state).collect()
}

#[tokio::test]
async fn a_run_that_the_first_arrival_of_our_submission_started_is_not_said_to_have_run_before() {
    for kind in BOTH {
        for me in [None, Some("u-me")] {
            for lag in [0, 5] {
                for input in inputs() {
                    let case = Case::of(kind, |world| {
                        doubled(world);
                        world.me = me;
                        world.lag = Duration::from_secs(lag);
                    })
                    .await;
                    let verdict = case.attempt(input.clone()).await.expect("a verdict");
                    let what = format!("{kind:?} {me:?} {lag} {input}: {verdict:?}");
                    assert_eq!(fact(&verdict, "run"), &json!(format!("{}-ours1", world_of(kind))), "{what}");
                    assert!(verdict.is_passed() && verdict.message().ends_with(APPEARED), "{what}");
                    assert_eq!((case.submits(), case.world().applied, fact(&verdict, "started")), (1, 1, &json!(false)), "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_run_that_the_first_arrival_started_and_that_ended_before_it_is_shown_is_ours_and_nothing_is_sent_again() {
    for kind in BOTH {
        // Before `index_lag` is over, and after it.
        for lag in [5, 30] {
            for input in inputs() {
                for death in 0..=4 {
                    let case = Case::of(kind, |world| {
                        doubled(world);
                        (world.lag, world.lasts) = (Duration::from_secs(lag), Duration::from_secs(3));
                    })
                    .await;
                    if death > 0 {
                        case.host.die_at_save(death);
                    }
                    let verdict = case.to_the_verdict(input.clone()).await;
                    let what = format!("{kind:?} {lag} {input}, death at {death}: {verdict:?}");
                    assert_eq!((case.submits(), case.world().applied), (1, 1), "{what}");
                    assert!(verdict.is_passed(), "{what}");
                    assert_eq!(fact(&verdict, "run"), &json!(format!("{}-ours1", world_of(kind))), "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_run_that_is_shown_late_and_was_created_before_the_submission_was_running_already() {
    for kind in BOTH {
        for me in [None, Some("u-me")] {
            for input in inputs() {
                let case = Case::of(kind, |world| {
                    beside(world, 3, 5, Some((100, "Succeeded")));
                    world.me = me;
                    world.runs[0].creator = me;
                })
                .await;
                let queue = Arc::default();
                let verdict = driven(&case, &job(&case, &queue, "ours"), input.clone()).await;
                let what = format!("{kind:?} {me:?} {input}: {verdict:?}");
                assert_eq!((case.submits(), fact(&verdict, "run")), (1, &json!("theirs")), "{what}");
                assert!(verdict.message().ends_with(RAN_ALREADY), "{what}");
                assert_eq!(remembered(&case, &queue), [], "the turn is over: {what}");
            }
        }
    }
}

#[tokio::test]
async fn another_users_run_of_the_same_second_is_adopted_as_running_and_never_called_ours() {
    for input in inputs() {
        let case = Case::new(|world| {
            world.me = Some("u-me");
            beside(world, 0, 3, Some((100, "Succeeded")));
            world.runs[0].creator = Some("u-jane");
        })
        .await;
        let queue = Arc::default();
        let verdict = driven(&case, &job(&case, &queue, "ours"), input).await;
        assert_eq!((case.submits(), fact(&verdict, "run"), fact(&verdict, "started")), (1, &json!("theirs"), &json!(false)));
        assert!(verdict.message().ends_with(RAN_ALREADY), "{}", verdict.message());
        assert_eq!(remembered(&case, &queue), []);
    }
}

#[tokio::test]
async fn beside_another_users_run_that_has_ended_ours_is_sent_again_unless_nothing_may_be() {
    for input in inputs() {
        let case = Case::new(|world| {
            world.me = Some("u-me");
            beside(world, 0, 5, Some((3, "Succeeded")));
            world.runs[0].creator = Some("u-jane");
        })
        .await;
        if input["unknown_fate"] == "fail" {
            let failure = case.failure(input).await;
            assert_eq!((failure.code.as_ref(), failure.retryable, case.submits()), ("rerun.ambiguous", false, 1), "{failure}");
            assert!(failure.message.contains("the tenant said that a run of it is active"), "{failure}");
            continue;
        }
        let verdict = case.to_the_verdict(input).await;
        assert_eq!((case.submits(), case.world().applied, fact(&verdict, "started")), (2, 1, &json!(true)), "{verdict:?}");
    }
}

#[tokio::test]
async fn a_run_that_another_user_started_after_ours_had_ended_hides_nothing_of_ours() {
    for input in inputs() {
        let case = Case::new(|world| {
            doubled(world);
            world.me = Some("u-me");
            (world.lag, world.lasts) = (Duration::from_secs(8), Duration::from_secs(2));
            world.with_run("janes", -3, Some((100, "Succeeded")));
            world.runs[0].creator = Some("u-jane");
        })
        .await;
        let verdict = case.attempt(input.clone()).await.expect("a verdict");
        assert_eq!((case.submits(), fact(&verdict, "run")), (1, &json!(format!("{W}-ours1"))), "{input}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_refusal_beside_no_run_in_sight_is_tried_again_by_the_retry_policy_and_never_where_nothing_may_be_sent_again() {
    for kind in BOTH {
        let refusal = || does(false, Reply::json(409, &json!({"code": "AE-WF-409-03"})));
        let case = Case::of(kind, |world| world.submits.extend(vec![refusal(); 9])).await;
        let at = note_submits(&case, || {});
        for _ in 0..5 {
            let failure = case.failure(json!({})).await;
            assert_eq!((failure.code.as_ref(), failure.retryable), ("workflow.already_active", true), "{failure}");
        }
        assert_eq!((case.submits(), case.world().applied), (5, 0));
        let at = at.lock().expect("no panic").clone();
        assert!(at.windows(2).all(|two| two[1] >= two[0] + Duration::from_secs(60)), "{at:?}");

        let case = Case::of(kind, |world| world.submits.push_back(refusal())).await;
        let failure = case.failure(json!({"unknown_fate": "fail"})).await;
        assert_eq!((failure.code.as_ref(), case.submits()), ("rerun.ambiguous", 1), "{failure}");
        assert!(failure.message.contains("was submitted once, the tenant said that a run of it is active"), "{failure}");
    }
}

#[tokio::test]
async fn jobs_of_one_queue_whose_submissions_are_doubled_make_one_run_while_it_is_active() {
    for kind in BOTH {
        for me in [None, Some("u-me")] {
            for (first, second) in [(true, true), (true, false), (false, true), (false, false)] {
                let case = Case::of(kind, |world| {
                    doubled(world);
                    world.me = me;
                })
                .await;
                let queue = Arc::default();
                let (a, b) = (job(&case, &queue, "a"), job(&case, &queue, "b"));
                let input = |idempotent| json!({"idempotent": idempotent, "until": "submitted"});
                let both = async { tokio::join!(run(&case, &a, input(first)), run(&case, &b, input(second))) };
                let (a, b) = drive(&case.clock, both).await;
                for verdict in [a.expect("a verdict"), b.expect("a verdict")] {
                    let what = format!("{kind:?} {me:?} {first} {second}: {verdict:?}");
                    assert_eq!(fact(&verdict, "run"), &json!(format!("{}-ours1", world_of(kind))), "{what}");
                    assert_eq!(fact(&verdict, "started"), false, "{what}");
                }
                assert_eq!(case.world().applied, 1);
                assert!(!remembered(&case, &queue).contains(&EffectState::Intent), "the turns are over");
            }
        }
    }
}

/// The creators of an app's runs are not known, so that nothing tells the run from ours.
#[tokio::test]
async fn a_run_by_hand_in_the_same_second_is_said_to_have_appeared_and_to_be_no_jobs() {
    for kind in BOTH {
        for (first, second) in [(true, true), (true, false), (false, true), (false, false)] {
            let case = Case::of(kind, |world| beside(world, 0, 3, None)).await;
            let queue = Arc::default();
            let (a, b) = (job(&case, &queue, "a"), job(&case, &queue, "b"));
            let input = |idempotent| json!({"idempotent": idempotent, "until": "submitted", "stop_on_cancel": true});
            let both = async { tokio::join!(run(&case, &a, input(first)), run(&case, &b, input(second))) };
            let (a, b) = drive(&case.clock, both).await;
            for verdict in [a.expect("a verdict"), b.expect("a verdict")] {
                let what = format!("{kind:?} {first} {second}: {verdict:?}");
                assert_eq!((fact(&verdict, "run"), fact(&verdict, "started")), (&json!("theirs"), &json!(false)), "{what}");
                assert!(verdict.message().ends_with(APPEARED) || verdict.message().ends_with(RAN_ALREADY), "{what}");
            }
            assert_eq!(case.world().applied, 0);
            assert_eq!(remembered(&case, &queue), [], "the turns are over");
        }
    }
}

#[tokio::test]
async fn a_cancel_while_the_run_in_the_way_is_searched_says_what_may_have_happened_and_how_to_look() {
    for kind in BOTH {
        let case = Case::of(kind, doubled).await;
        let host = case.host.clone();
        case.world().on_submit = Some(Box::new(move || host.stop(Some(Stop::Cancelled { reason: None }))));
        let ended = case.attempt(json!({"stop_on_cancel": true})).await;
        let Err(ActivityError::Cancelled { message, facts }) = ended else { panic!("not cancelled: {ended:?}") };
        let message = message.expect("a message");
        assert!(message.contains("whether that had an effect is not known; see `iolaus runs list"), "{message}");
        assert_eq!(&facts["submissions_of_unknown_fate"], &json!(1));
    }
}

#[tokio::test]
async fn a_run_that_was_in_the_way_and_ends_before_it_is_looked_at_again_is_adopted_and_nothing_is_sent_twice() {
    for kind in BOTH {
        // Shown at once, and late; it began 3 s before, and ends a second later, and later than that.
        for (shown, ends) in [(0, 4), (0, 5), (0, 8), (5, 8), (8, 12)] {
            for input in inputs() {
                let case = Case::of(kind, |world| beside(world, 3, shown, Some((ends, "Succeeded")))).await;
                let began = case.clock.monotonic();
                let verdict = case.attempt(input.clone()).await.expect("a verdict");
                let what = format!("{kind:?} shown {shown}, ends {ends}, {input}: {verdict:?}");
                if case.submits() == 0 {
                    // It was shown as active before anything was sent.
                    continue;
                }
                assert_eq!((case.submits(), fact(&verdict, "run"), case.world().applied), (1, &json!("theirs"), 0), "{what}");
                // One that has ended when it is shown is told by its name alone.
                let message = verdict.message();
                assert!(verdict.is_passed() && (message.ends_with(RAN_ALREADY) || message.ends_with(APPEARED)), "{what}");
                assert!(case.clock.monotonic().saturating_sub(began) <= Duration::from_secs(30), "{what}");
            }
        }
    }
}
