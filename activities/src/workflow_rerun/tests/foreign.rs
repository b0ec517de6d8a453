//! Answers to a submission that name a run which is not ours: of another workflow, of another user, or of no one.

use super::*;

const THEIRS: &str = "atlan-redshift-1684500800-k2v9d";

fn named(name: &str) -> Reply {
    Reply::ok(&json!({"metadata": {"name": name}}))
}

#[tokio::test]
async fn an_answer_that_names_the_run_of_another_workflow_says_nothing_about_ours() {
    for name in [THEIRS, "..", "../x", W] {
        for applies in [true, false] {
            let case = Case::new(|world| {
                world.with_run(THEIRS, 5, Some((90, "Succeeded")));
                // The index of this workflow's runs does not show it.
                world.runs[0].seen_from = Timestamp::MAX;
                world.submits.push_back(does(applies, named(name)));
            })
            .await;
            let verdict = case.attempt(json!({})).await.expect("a verdict");
            assert_eq!(fact(&verdict, "run"), &json!(format!("{W}-ours1")), "{name}: {verdict:?}");
            assert_eq!((case.submits(), case.world().applied), (2 - usize::from(applies), 1), "{name}");
        }
    }
}

#[tokio::test]
async fn a_followed_run_that_turns_out_to_be_of_another_workflow_is_not_ours_and_is_not_stopped() {
    for applies in [true, false] {
        let case = Case::new(|world| {
            world.with_run("atlan-snowflake-1684500411-2-k2v9d", 5, None);
            world.runs[0].seen_from = Timestamp::MIN;
            world.foreign = Some("atlan-snowflake-1684500411-2-k2v9d");
            world.lag = Duration::from_secs(20);
            world.submits.push_back(does(applies, named("atlan-snowflake-1684500411-2-k2v9d")));
        })
        .await;
        // The search for the workflow's runs does not show it, the look at it by name does.
        let ended = case.attempt(json!({"stop_on_cancel": true, "idempotent": false})).await;
        assert_eq!((case.submits(), case.world().stopped.len()), (1, 0), "{ended:?}");
        if applies {
            let verdict = ended.expect("a verdict");
            assert_eq!((fact(&verdict, "run"), fact(&verdict, "started")), (&json!(format!("{W}-ours1")), &json!(false)));
        } else {
            let Err(ActivityError::Failed(failure)) = ended else { panic!("no failure: {ended:?}") };
            assert_eq!((failure.code.as_ref(), failure.retryable), ("run.unconfirmed", false), "{failure}");
            assert!(failure.message.contains("is a run of another-workflow, not of"), "{failure}");
        }
    }
}

#[tokio::test]
async fn a_cancel_before_the_first_look_stops_no_run_of_another_workflow() {
    let theirs = "atlan-snowflake-1684500411-2-k2v9d";
    let case = Case::new(|world| {
        world.with_run(theirs, 5, None);
        world.foreign = Some(theirs);
        world.submits.push_back(does(false, named(theirs)));
    })
    .await;
    let host = case.host.clone();
    case.world().on_submit = Some(Box::new(move || host.stop(Some(Stop::Cancelled { reason: None }))));
    let ended = case.attempt(json!({"stop_on_cancel": true, "idempotent": false})).await;
    let Err(ActivityError::Cancelled { facts, .. }) = &ended else { panic!("not cancelled: {ended:?}") };
    assert_eq!((case.world().stopped.len(), &facts["stop_requested"]), (0, &json!(false)), "{ended:?}");
}

#[tokio::test]
async fn a_cancel_stops_no_run_of_another_app_that_an_answer_named() {
    for at_once in [true, false] {
        let case = Case::of(Kind::App, |world| {
            world.with_run("theirs", 5, None);
            world.runs[0].seen_from = Timestamp::MAX;
            world.foreign = Some("theirs");
            world.submits.push_back(does(false, Reply::ok(&json!({"run_id": "theirs"}))));
        })
        .await;
        let host = case.host.clone();
        let cancel = move || host.stop(Some(Stop::Cancelled { reason: None }));
        if at_once {
            case.world().on_submit = Some(Box::new(cancel));
        } else {
            assert_eq!(case.failure(json!({"stop_on_cancel": true})).await.code, "tenant.unreadable");
            cancel();
        }
        let ended = case.attempt(json!({"stop_on_cancel": true})).await;
        assert!(matches!(&ended, Err(ActivityError::Cancelled { facts, .. }) if facts["stop_requested"] == false), "{ended:?}");
        assert_eq!(case.server.count("POST", "/cancel"), 0);
    }
}

fn of_user(name: &str, creator: &str) -> Reply {
    Reply::ok(&json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"workflows.argoproj.io/creator": creator}}, "spec": {"workflowTemplateRef": {"name": W}}}))
}

#[tokio::test]
async fn a_run_of_another_user_that_an_answer_names_is_neither_started_by_us_nor_stopped() {
    let theirs = format!("{W}-jane1");
    for (idempotent, shown) in [(true, true), (false, true), (true, false)] {
        let case = Case::new(|world| {
            world.me = Some("u-me");
            world.with_run(&theirs, 0, None);
            world.runs[0].creator = Some("u-jane");
            world.runs[0].seen_from = if shown { world.now() + 1.seconds() } else { Timestamp::MAX };
            world.submits.push_back(does(false, of_user(&theirs, "u-jane")));
        })
        .await;
        let ended = case.attempt(json!({"idempotent": idempotent, "stop_on_cancel": true, "until": "submitted"})).await;
        assert_eq!((case.submits(), case.world().stopped.len()), (1, 0), "{ended:?}");
        if idempotent && shown {
            let verdict = ended.expect("a verdict");
            assert_eq!((fact(&verdict, "run"), fact(&verdict, "started")), (&json!(theirs), &json!(false)), "{verdict:?}");
        } else {
            let Err(ActivityError::Failed(failure)) = ended else { panic!("no failure: {ended:?}") };
            assert_eq!(failure.code.as_ref(), "rerun.ambiguous", "{failure}");
            assert!(failure.message.contains(&format!("run {theirs}, which u-jane created")), "{failure}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_names_another_users_run_is_settled_by_our_own_run_where_there_is_one() {
    let case = Case::new(|world| {
        world.me = Some("u-me");
        world.submits.push_back(does(true, of_user(&format!("{W}-jane1"), "u-jane")));
    })
    .await;
    let verdict = case.attempt(json!({"until": "submitted"})).await.expect("a verdict");
    assert_eq!((fact(&verdict, "run"), fact(&verdict, "started")), (&json!(format!("{W}-ours1")), &json!(false)), "{verdict:?}");
    assert_eq!(case.submits(), 1);
}

#[tokio::test]
async fn a_whoami_that_does_not_say_who_we_are_is_none_and_nothing_is_submitted_on_its_strength() {
    let doubled = r#"{"userId":"u-me","username":"x","roles":[{"name":"$admin"}],"error":{"message":"no"},"error":null}"#;
    for whoami in [
        Reply::ok(&json!({"username": "x", "roles": [{"name": "$admin"}]})),
        Reply::ok(&json!({"userId": "", "username": "x", "roles": [{"name": "$admin"}]})),
        Reply::ok(&json!({"userId": "u-me", "roles": [{"name": "$admin"}], "error": {"code": 500}})),
        Reply::text(200, doubled),
    ] {
        let case = Case::new(|world| {
            world.me = Some("u-me");
            world.whoami.push_back(whoami.clone());
        })
        .await;
        let failure = case.failure(json!({"until": "submitted"})).await;
        assert_eq!((failure.code.as_ref(), failure.retryable, case.submits()), ("tenant.unreadable", true, 0), "{whoami:?}");
        assert!(case.to_the_verdict(json!({"until": "submitted"})).await.is_passed());
    }
}

#[tokio::test]
async fn a_named_run_that_is_never_found_is_settled_like_a_lost_answer_and_not_sent_again() {
    for applies in [true, false] {
        let case = Case::new(|world| world.submits.push_back(does(applies, named(&format!("{W}-zzzzz"))))).await;
        let ended = case.attempt(json!({"idempotent": false})).await;
        assert_eq!(case.submits(), 1, "{ended:?}");
        if applies {
            let verdict = ended.expect("a verdict");
            assert_eq!((fact(&verdict, "run"), fact(&verdict, "started")), (&json!(format!("{W}-ours1")), &json!(false)));
        } else {
            let Err(ActivityError::Failed(failure)) = ended else { panic!("no failure: {ended:?}") };
            assert_eq!(failure.code.as_ref(), "run.not_found", "{failure}");
        }
    }
}
