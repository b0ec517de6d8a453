//! Several jobs of one queue that want the same workflow.

use super::*;
use jiff::SignedDuration;

use crate::effects::{EffectOutcome, EffectOwner, EffectRegister, MAX_OTHER_EFFECTS};

/// A job of the case's queue.
pub(super) fn job(case: &Case, queue: &Arc<EffectRegister>, id: &str) -> TestHost {
    TestHost::in_queue(case.clock.clone(), id, queue)
}

pub(super) async fn run(case: &Case, host: &TestHost, more: Value) -> Result<Verdict, ActivityError> {
    host.attempt(WorkflowRerun::new(case.tenants.clone()), case.input(&more)).await
}

pub(super) async fn driven(case: &Case, host: &TestHost, more: Value) -> Verdict {
    drive(&case.clock, run(case, host, more)).await.expect("a verdict")
}

#[tokio::test]
async fn jobs_that_search_at_the_same_moment_start_one_run() {
    for kind in BOTH {
        for lag in [0, 10] {
            let case = Case::of(kind, |world| world.lag = Duration::from_secs(lag)).await;
            let queue = Arc::default();
            let hosts = ["a", "b", "c", "d"].map(|id| job(&case, &queue, id));
            let [a, b, c, d] = &hosts;
            let input = || json!({"until": "submitted"});
            let all = async {
                tokio::join!(run(&case, a, input()), run(&case, b, input()), run(&case, c, input()), run(&case, d, input()))
            };
            let (a, b, c, d) = drive(&case.clock, all).await;
            let verdicts = [a, b, c, d].map(|ended| ended.expect("a verdict"));
            assert_eq!((case.submits(), case.world().applied), (1, 1), "{kind:?} {lag}");
            let ours = format!("{}-ours1", world_of(kind));
            assert!(verdicts.iter().all(|verdict| fact(verdict, "run") == &json!(ours)), "{verdicts:?}");
            assert_eq!(verdicts.iter().filter(|verdict| fact(verdict, "started") == &json!(true)).count(), 1, "{verdicts:?}");
            let adopted = verdicts.iter().filter(|verdict| verdict.message().contains("(adopted: ")).count();
            assert_eq!(adopted, 3, "{verdicts:?}");
        }
    }
}

#[tokio::test]
async fn a_run_that_the_index_does_not_show_yet_is_adopted_from_the_job_that_submitted_it() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.lag = Duration::from_secs(9)).await;
        let queue = Arc::default();
        driven(&case, &job(&case, &queue, "first"), json!({"until": "submitted"})).await;
        case.clock.advance(Duration::from_secs(2)).await;
        let second = driven(&case, &job(&case, &queue, "second"), json!({"until": "submitted"})).await;
        assert_eq!((case.submits(), fact(&second, "started")), (1, &json!(false)));
        assert!(second.message().ends_with("(adopted: job first submitted it)"), "{}", second.message());
    }
}

#[tokio::test]
async fn a_job_that_wants_a_run_of_its_own_gets_one_beside_that_of_another_job() {
    let case = Case::new(|_| {}).await;
    let queue = Arc::default();
    driven(&case, &job(&case, &queue, "first"), json!({"until": "submitted"})).await;
    let second = driven(&case, &job(&case, &queue, "second"), json!({"until": "submitted", "idempotent": false})).await;
    assert_eq!((case.world().applied, fact(&second, "started")), (2, &json!(true)));
}

#[tokio::test]
async fn a_run_that_another_job_started_is_no_evidence_for_a_lost_answer() {
    let case = Case::new(|_| {}).await;
    let queue = Arc::default();
    let input = || json!({"until": "submitted", "idempotent": false});
    driven(&case, &job(&case, &queue, "first"), input()).await;
    // The run of the first is not in the index yet, so that no search before the second submission shows it.
    case.world().submits.push_back(does(false, Reply::cut()));
    let second = driven(&case, &job(&case, &queue, "second"), input()).await;
    assert_eq!((case.submits(), case.world().applied), (3, 2), "{second:?}");
    assert_eq!((fact(&second, "run"), fact(&second, "started")), (&json!(format!("{W}-ours2")), &json!(true)));
}

#[tokio::test]
async fn a_run_of_another_user_is_no_evidence_for_a_lost_answer() {
    let case = Case::new(|world| {
        world.me = Some("u-me");
        world.submits.push_back(does(false, Reply::cut()));
    })
    .await;
    let world = case.world.clone();
    // Started by hand while the answer is awaited. The lock is held by the answer itself, so it happens at the first search after.
    let by_hand = move |world: &mut World| {
        world.with_run("by-hand", 0, None);
        world.runs[0].creator = Some("u-other");
    };
    let host = case.host.clone();
    let started = async {
        loop {
            if host.progress().iter().any(|progress| progress["step"] == "settling an unknown fate") {
                return by_hand(&mut world.lock().expect("no panic"));
            }
            tokio::task::yield_now().await;
        }
    };
    let (verdict, ()) = tokio::join!(case.attempt(json!({"until": "submitted", "idempotent": false})), started);
    let verdict = verdict.expect("a verdict");
    assert_eq!((case.submits(), case.world().applied, fact(&verdict, "started")), (2, 1, &json!(true)), "{verdict:?}");
}

/// The list of other jobs' runs is bounded. A run that it lacks is refused when it is claimed, and then something else decides.
#[tokio::test]
async fn a_run_that_turns_out_to_be_another_jobs_when_it_is_claimed_is_passed_over() {
    let case = Case::new(|world| world.submits.push_back(does(false, Reply::cut()))).await;
    let queue: Arc<EffectRegister> = Arc::default();
    let begun = case.clock.now();
    let applied = |owner: &str, run: &str, at| {
        let owner = EffectOwner { job_id: owner.to_owned(), run_id: owner.to_owned() };
        let outcome = EffectOutcome::Applied { run: run.to_owned() };
        assert!(queue.settle("default", &owner, &format!("workflow/{W}"), &outcome, at));
    };
    applied("the oldest", "late", begun - SignedDuration::from_hours(2));
    for n in 0..MAX_OTHER_EFFECTS {
        applied(&format!("other {n}"), &format!("run {n}"), begun - SignedDuration::from_hours(1));
    }
    let (host, world) = (job(&case, &queue, "ours"), case.world.clone());
    let shown = async {
        while host.progress().iter().all(|progress| progress["step"] != "settling an unknown fate") {
            tokio::task::yield_now().await;
        }
        world.lock().expect("no panic").with_run("late", 0, None);
    };
    let attempt = driven(&case, &host, json!({"until": "submitted", "idempotent": false}));
    let (verdict, ()) = tokio::join!(attempt, shown);
    assert_eq!((case.submits(), case.world().applied, fact(&verdict, "started")), (2, 1, &json!(true)), "{verdict:?}");
}

/// After a step of the clock the record of another job's submission seems to be of this moment.
#[tokio::test]
async fn a_run_that_ended_before_the_job_began_is_not_adopted_whatever_its_record_says() {
    let case = Case::new(|world| {
        world.with_run("ended", 3_600, Some((3_000, "Succeeded")));
    })
    .await;
    let queue: Arc<EffectRegister> = Arc::default();
    let owner = EffectOwner { job_id: "other".to_owned(), run_id: "other".to_owned() };
    let outcome = EffectOutcome::Applied { run: "ended".to_owned() };
    let ahead = case.clock.now() + SignedDuration::from_hours(1);
    assert!(queue.settle("default", &owner, &format!("workflow/{W}"), &outcome, ahead));
    let verdict = driven(&case, &job(&case, &queue, "ours"), json!({"until": "submitted"})).await;
    assert_eq!((case.submits(), fact(&verdict, "started")), (1, &json!(true)), "{verdict:?}");
}

/// The page before the submission was short, so that it did not name all runs.
#[tokio::test]
async fn an_old_run_that_comes_into_view_when_another_is_deleted_is_no_evidence() {
    for kind in BOTH {
        // Minutes ago, and days ago.
        for age in [60, 86_400] {
            let case = Case::of(kind, |world| {
                world.page_cap = 20;
                for n in 1..=30 {
                    world.with_run(&format!("old-{n}"), n * age, Some((1, "Succeeded")));
                }
                world.submits.push_back(does(false, Reply::cut()));
            })
            .await;
            let (host, world) = (case.host.clone(), case.world.clone());
            let deleted = async {
                while host.progress().iter().all(|progress| progress["step"] != "settling an unknown fate") {
                    tokio::task::yield_now().await;
                }
                world.lock().expect("no panic").runs.retain(|run| run.name != "old-1");
            };
            let attempt = case.attempt(json!({"until": "submitted", "idempotent": false}));
            let (verdict, ()) = tokio::join!(attempt, deleted);
            let verdict = verdict.expect("a verdict");
            let counts = (case.submits(), case.world().applied, fact(&verdict, "started"));
            assert_eq!(counts, (2, 1, &json!(true)), "{kind:?} {age}: {verdict:?}");
        }
    }
}

#[tokio::test]
async fn evidence_of_the_same_user_is_called_ours_and_other_evidence_is_not() {
    for (me, said) in [(Some("u-me"), "an earlier submission of this job, whose answer was lost"), (None, "it appeared after")] {
        let case = Case::new(|world| {
            world.me = me;
            world.submits.push_back(does(true, Reply::cut()));
        })
        .await;
        let verdict = case.attempt(json!({})).await.expect("a verdict");
        assert!(verdict.message().contains(said), "{}", verdict.message());
    }
}

#[tokio::test]
async fn while_the_fate_of_another_submission_is_unknown_a_job_waits_for_it() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.submits.push_back(does(true, Reply::cut()))).await;
        let queue = Arc::default();
        let (first, second) = (job(&case, &queue, "first"), job(&case, &queue, "second"));
        // The first dies right after its intent is saved and its request was sent.
        first.die_after_save(2);
        assert_eq!(drive(&case.clock, run(&case, &first, json!({}))).await, Err(ActivityError::Interrupted));
        let both = async { tokio::join!(run(&case, &second, json!({})), run(&case, &first, json!({}))) };
        let (second, first) = drive(&case.clock, both).await;
        let (second, first) = (second.expect("a verdict"), first.expect("a verdict"));
        assert_eq!(case.world().applied, 1, "{second:?} {first:?}");
        assert_eq!(fact(&first, "run"), fact(&second, "run"));
    }
}

/// One attempt that dies while it settles a lost answer, and for how long nothing of the job happens then.
async fn dies_while_settling(case: &Case, host: &TestHost, input: Value, dead_for: u64) {
    let settling = async {
        while host.progress().iter().all(|progress| progress["step"] != "settling an unknown fate") {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = drive(&case.clock, run(case, host, input)) => panic!("it has ended: {ended:?}"),
        () = settling => {}
    }
    case.clock.advance(Duration::from_secs(dead_for)).await;
}

/// The worker of the first is dead for so long that the second no longer waits for what it sent.
#[tokio::test]
async fn the_run_of_a_later_job_whose_answer_was_lost_too_is_no_evidence_for_an_earlier_one() {
    let case = Case::new(|world| world.submits.extend([does(false, Reply::cut()), does(true, Reply::cut())])).await;
    let queue = Arc::default();
    let (first, second) = (job(&case, &queue, "first"), job(&case, &queue, "second"));
    let input = || json!({"until": "submitted", "idempotent": false});
    dies_while_settling(&case, &first, input(), 120).await;
    dies_while_settling(&case, &second, input(), 1).await;
    assert_eq!(case.world().applied, 1, "the second did not wait");
    let both = async { tokio::join!(run(&case, &first, input()), run(&case, &second, input())) };
    let (a, b) = drive(&case.clock, both).await;
    let (a, b) = (a.expect("a verdict"), b.expect("a verdict"));
    assert_eq!((fact(&a, "run"), fact(&a, "started")), (&json!(format!("{W}-ours2")), &json!(true)), "{a:?}");
    assert_eq!((fact(&b, "run"), case.world().applied), (&json!(format!("{W}-ours1")), 2), "{b:?}");
}

/// The same, seen only by the search that follows once the first has given its submission up.
#[tokio::test]
async fn a_submission_that_was_given_up_has_no_claim_to_what_a_later_job_started() {
    let case = Case::new(|world| {
        world.lag = Duration::from_secs(5);
        world.submits.extend([does(false, Reply::cut()), does(true, Reply::cut())]);
    })
    .await;
    let queue = Arc::default();
    let (first, second) = (job(&case, &queue, "first"), job(&case, &queue, "second"));
    let since = json!({"until": "submitted", "since": case.clock.now().to_string()});
    let own = json!({"until": "submitted", "idempotent": false});
    dies_while_settling(&case, &first, since.clone(), 120).await;
    dies_while_settling(&case, &second, own.clone(), 1).await;
    let adopted = driven(&case, &first, since).await;
    assert_eq!(fact(&adopted, "run"), &json!(format!("{W}-ours1")));
    assert!(adopted.message().contains("and since="), "{}", adopted.message());
    let settled = driven(&case, &second, own).await;
    assert_eq!((fact(&settled, "run"), case.world().applied), (&json!(format!("{W}-ours1")), 1), "{settled:?}");
}

#[tokio::test]
async fn two_lost_answers_of_two_jobs_are_settled_by_two_runs() {
    let case = Case::new(|world| {
        world.lag = Duration::from_secs(3);
        world.submits.extend([does(true, Reply::cut()), does(true, Reply::cut())]);
    })
    .await;
    let queue = Arc::default();
    let (first, second) = (job(&case, &queue, "first"), job(&case, &queue, "second"));
    let input = || json!({"until": "submitted", "idempotent": false});
    let both = async { tokio::join!(run(&case, &first, input()), run(&case, &second, input())) };
    let (a, b) = drive(&case.clock, both).await;
    let (a, b) = (a.expect("a verdict"), b.expect("a verdict"));
    assert_eq!((case.submits(), case.world().applied), (2, 2), "{a:?} {b:?}");
    assert_ne!(fact(&a, "run"), fact(&b, "run"));
}

#[tokio::test]
async fn a_tenant_that_answers_with_a_run_that_was_there_before_started_nothing() {
    let answer = |name: &str, created: &str| json!({"metadata": {"name": name, "creationTimestamp": created}, "spec": {"workflowTemplateRef": {"name": W}}});
    // One that the search before has shown, and one that is days old where that search did not name all.
    for (name, created, page_cap) in [("theirs", "2025-12-31T23:59:00Z", 20), ("older", "2025-12-29T00:00:00Z", 1)] {
        let case = Case::new(|world| {
            world.with_run("theirs", 60, None);
            world.with_run("another", 120, Some((1, "Failed")));
            world.page_cap = page_cap;
            world.submits.push_back(does(false, Reply::ok(&answer(name, created))));
        })
        .await;
        let verdict =
            case.attempt(json!({"until": "submitted", "idempotent": false, "stop_on_cancel": true})).await.expect("a verdict");
        assert_eq!((fact(&verdict, "run"), fact(&verdict, "started")), (&json!(name), &json!(false)), "{verdict:?}");
        assert!(verdict.message().contains("answered with a run that was there before"), "{}", verdict.message());
    }
}

#[tokio::test]
async fn a_tenant_that_answers_with_the_run_of_another_job_started_nothing() {
    let answer = |name: &str| json!({"metadata": {"name": name}, "spec": {"workflowTemplateRef": {"name": W}}});
    let case = Case::new(|world| world.submits.push_back(does(false, Reply::ok(&answer("shared"))))).await;
    let queue = Arc::default();
    let input = || json!({"until": "submitted", "idempotent": false});
    driven(&case, &job(&case, &queue, "first"), input()).await;
    case.world().submits.push_back(does(false, Reply::ok(&answer("shared"))));
    let second = driven(&case, &job(&case, &queue, "second"), input()).await;
    assert_eq!(fact(&second, "started"), &json!(false));
    assert!(second.message().contains("the tenant answered with a run that another job submitted"), "{}", second.message());
}

#[tokio::test]
async fn refused_looks_decide_nothing_while_the_run_continues() {
    let case = Case::new(|world| world.lag = Duration::ZERO).await;
    let world = case.world.clone();
    let host = case.host.clone();
    let refuse = async {
        loop {
            if host.progress().iter().any(|progress| progress.get("looks").is_some()) {
                world.lock().expect("no panic").refused_looks = 3;
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (verdict, ()) = tokio::join!(case.attempt(json!({})), refuse);
    assert!(verdict.expect("a verdict").is_passed());
    assert_eq!((case.submits(), case.world().refused_looks), (1, 0));
}

#[tokio::test]
async fn a_tenant_that_refuses_every_look_ends_the_wait_with_the_run_and_the_command_that_continues() {
    let case = Case::new(|world| world.lag = Duration::ZERO).await;
    let world = case.world.clone();
    case.world().on_submit = None;
    let host = case.host.clone();
    let refuse = async {
        loop {
            if host.progress().iter().any(|progress| progress.get("looks").is_some()) {
                world.lock().expect("no panic").refused_looks = usize::MAX;
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    case.world().lasts = Duration::from_secs(100_000);
    let before = case.clock.monotonic();
    let (ended, ()) = tokio::join!(case.attempt(json!({})), refuse);
    let Err(ActivityError::Failed(failure)) = ended else { panic!("no failure: {ended:?}") };
    assert!(case.clock.monotonic() >= before + Duration::from_secs(600), "{failure}");
    assert_eq!((failure.code.as_ref(), failure.facts["run"].as_str()), ("tenant.refused", Some(format!("{W}-ours1").as_str())));
    let command = failure.suggested_action.expect("a command");
    assert!(command.starts_with(&format!("iolaus execute await_completion run={W}-ours1")), "{command}");
}

#[tokio::test]
async fn a_refused_search_does_not_give_up_a_submission_of_unknown_fate() {
    let case = Case::new(|world| world.submits.push_back(does(true, Reply::cut()))).await;
    let world = case.world.clone();
    case.world().on_submit = Some(Box::new(|| {}));
    let host = case.host.clone();
    let refuse = async {
        loop {
            if host.progress().iter().any(|progress| progress["step"] == "settling an unknown fate") {
                world.lock().expect("no panic").refused_looks = 4;
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (verdict, ()) = tokio::join!(case.attempt(json!({})), refuse);
    assert!(verdict.expect("a verdict").is_passed());
    assert_eq!((case.submits(), case.world().applied), (1, 1));
}

#[tokio::test]
async fn a_cancel_during_the_submission_stops_the_run_that_came_of_it() {
    for kind in BOTH {
        let case = Case::of(kind, |_| {}).await;
        let host = case.host.clone();
        case.world().on_submit = Some(Box::new(move || host.stop(Some(Stop::Cancelled { reason: None }))));
        let ended = case.attempt(json!({"stop_on_cancel": true})).await;
        let Err(ActivityError::Cancelled { facts, .. }) = ended else { panic!("not cancelled: {ended:?}") };
        let run = format!("{}-ours1", world_of(kind));
        assert_eq!((&facts["run"], &facts["started"], &facts["stop_requested"]), (&json!(run), &json!(true), &json!(true)));
        assert_eq!(case.server.count("POST", if kind == Kind::Workflow { "/stop" } else { "/cancel" }), 1);
    }
}

#[tokio::test]
async fn a_cancel_with_a_lost_answer_says_what_may_have_happened_and_how_to_look() {
    let case = Case::new(|world| world.submits.push_back(does(true, Reply::cut()))).await;
    let host = case.host.clone();
    case.world().on_submit = Some(Box::new(move || host.stop(Some(Stop::Cancelled { reason: None }))));
    let ended = case.attempt(json!({"stop_on_cancel": true})).await;
    let Err(ActivityError::Cancelled { message, facts }) = ended else { panic!("not cancelled: {ended:?}") };
    let message = message.expect("a message");
    assert!(message.contains(&format!("iolaus runs list --workflow {W}")), "{message}");
    assert_eq!((&facts["workflow"], &facts["submissions_of_unknown_fate"]), (&json!(W), &json!(1)));
}

#[tokio::test]
async fn cancelling_a_job_that_no_worker_runs_undoes_what_its_checkpoint_names_or_says_what_remains() {
    use crate::activity::CancelPlan;

    let info = ActivityInfo::of::<WorkflowRerun>();
    let plan = |input: Value, checkpoint: Option<&Value>| info.on_cancel("acme", input, checkpoint);
    let input = |stop: bool| json!({"workflow": W, "stop_on_cancel": stop});
    assert_eq!(plan(input(true), None), CancelPlan::default());

    let case = Case::new(|world| world.lag = Duration::ZERO).await;
    case.host.die_after_save(3);
    assert_eq!(case.attempt(json!({})).await, Err(ActivityError::Interrupted));
    let saves = case.host.saves();
    assert_eq!(plan(input(true), Some(&saves[0])), CancelPlan::default(), "nothing was sent");

    let CancelPlan::Close { message, facts } = plan(input(true), Some(&saves[1])) else {
        panic!("an unknown run cannot be stopped")
    };
    assert!(message.expect("a message").contains(&format!("iolaus runs list --workflow {W} --tenant acme")));
    assert_eq!(facts["workflow"], W);

    assert_eq!(plan(input(true), Some(&saves[2])), CancelPlan::Undo);
    let CancelPlan::Close { message, facts } = plan(input(false), Some(&saves[2])) else { panic!("nothing is to be undone") };
    assert!(message.expect("a message").contains(&format!("iolaus runs stop {W}-ours1 --tenant acme")));
    assert_eq!((&facts["run"], &facts["stop_requested"]), (&json!(format!("{W}-ours1")), &json!(false)));

    let theirs = Case::new(|world| world.with_run("theirs", 5, None)).await;
    theirs.host.die_after_save(2);
    assert_eq!(theirs.attempt(json!({})).await, Err(ActivityError::Interrupted));
    let adopted = theirs.host.saves().pop().expect("a checkpoint");
    let CancelPlan::Close { message, facts } = plan(input(true), Some(&adopted)) else { panic!("it is not ours to stop") };
    assert!(message.expect("a message").contains("continues, since it was not started by this job"));
    assert_eq!((&facts["run"], &facts["stop_requested"]), (&json!("theirs"), &json!(false)));

    // The last attempt does nothing else.
    case.host.stop(Some(Stop::Cancelled { reason: None }));
    let ended = case.attempt(json!({"stop_on_cancel": true})).await;
    assert!(matches!(ended, Err(ActivityError::Cancelled { .. })), "{ended:?}");
    assert_eq!((case.server.count("POST", "/stop"), case.submits()), (1, 1));
}
