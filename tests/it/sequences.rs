//! The life of a sequence on the embedded host: its steps one after the other, whatever becomes of them and whoever dies when.

use std::time::Duration;

use iolaus::client::{Cancelled, ClientError, JobDetail, ListFilter, PauseKind};
use iolaus::embedded::{Executed, execute};
use iolaus::job::{IdConflictPolicy, IdReusePolicy, JobState};
use iolaus::sequence::{Gate, SequenceRequest, StepRequest};
use iolaus_activities::{Status, VerdictRecord};
use serde_json::{Value, json};

use crate::support::host::{BROKEN_SEQUENCES, TestHost, target};
use crate::support::probe::Act;

use Gate::{Hard, Soft};

fn step(gate: Gate, act: Act) -> StepRequest {
    let acts = serde_json::to_value([act]).unwrap();
    StepRequest { activity: "probe".into(), gate, input: json!({ "acts": acts }), ..StepRequest::default() }
}

/// A sequence of probes, named `s1`, `s2`, ….
fn sequence(job_id: &str, steps: impl IntoIterator<Item = StepRequest>) -> SequenceRequest {
    let named = steps.into_iter().enumerate().map(|(n, step)| StepRequest { name: Some(format!("s{}", n + 1)), ..step });
    SequenceRequest { steps: named.collect(), job_id: Some(job_id.into()), ..SequenceRequest::default() }
}

fn code(verdict: &VerdictRecord) -> &str {
    verdict.failure.as_ref().map_or("", |failure| failure.code.as_str())
}

/// Status by status, as far as steps were started.
fn statuses(detail: &JobDetail) -> Vec<Option<Status>> {
    detail.steps.iter().filter(|step| step.job.is_some()).map(|step| step.status).collect()
}

#[tokio::test]
async fn steps_run_one_after_the_other_and_the_sequence_has_one_verdict_and_one_trace() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let request = SequenceRequest {
        labels: [("team".to_owned(), "data".to_owned())].into(),
        priority: Some(2),
        ..sequence("nightly", [step(Hard, Act::Pass), step(Soft, Act::Refuse), step(Hard, Act::Pass)])
    };
    host.enqueue_sequence(request).await.unwrap();
    let verdict = host.verdict("nightly").await;
    assert_eq!((verdict.activity.as_str(), verdict.status, verdict.attempts), ("sequence", Status::Passed, 0));
    assert_eq!(verdict.message.as_deref(), Some("2 of 3 steps passed; soft and not passed: s2"));
    assert_eq!(verdict.checks.iter().map(|check| check.passed).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(verdict.facts["steps"][1]["message"], "the tenant said no");
    assert_eq!(host.probe.order(), ["nightly/1", "nightly/2", "nightly/3"]);
    let detail = host.detail("nightly").await;
    assert_eq!((detail.job.state, detail.job.started_at.is_some()), (JobState::Completed, true));
    for step in &detail.steps {
        let step = host.detail(step.job.as_ref().unwrap().job_id.as_str()).await;
        assert_eq!(step.verdict.unwrap().trace_id, verdict.trace_id);
        assert_eq!((step.job.priority, step.labels["team"].as_str()), (2, "data"));
    }
    let filter = ListFilter { activity: Some("sequence".into()), ..ListFilter::default() };
    assert_eq!(host.client.list(filter, 10, None).await.unwrap().jobs.len(), 1);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_hard_step_that_does_not_pass_ends_the_sequence_as_itself_and_a_soft_one_does_not() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let rows = [
        (Act::Refuse, Status::Failed, JobState::Completed, ""),
        (Act::Denied, Status::Unresolved, JobState::Discarded, "probe.denied"),
    ];
    for (n, (act, status, state, failure)) in rows.into_iter().enumerate() {
        let (hard, soft) = (format!("hard-{n}"), format!("soft-{n}"));
        host.enqueue_sequence(sequence(&hard, [step(Hard, act.clone()), step(Hard, Act::Pass)])).await.unwrap();
        let verdict = host.verdict(&hard).await;
        assert_eq!((verdict.status, code(&verdict)), (status, failure));
        assert_eq!(verdict.checks[1].message.as_deref(), Some("not started"));
        let detail = host.detail(&hard).await;
        assert_eq!((detail.job.state, statuses(&detail)), (state, vec![Some(status)]));
        host.enqueue_sequence(sequence(&soft, [step(Soft, act), step(Hard, Act::Pass)])).await.unwrap();
        assert_eq!(host.verdict(&soft).await.status, Status::Passed);
        assert_eq!(statuses(&host.detail(&soft).await), [Some(status), Some(Status::Passed)]);
    }
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_sequence_waits_without_a_worker_and_is_cancelled_at_once_with_its_queued_step() {
    let host = TestHost::new();
    host.enqueue_sequence(sequence("queued", [step(Hard, Act::Pass), step(Soft, Act::Pass)])).await.unwrap();
    let detail = host.detail("queued").await;
    assert_eq!((detail.job.state, detail.job.worker.as_deref()), (JobState::Running, None));
    assert_eq!(detail.steps[0].job.as_ref().unwrap().state, JobState::Available);
    assert_eq!((detail.steps.len(), &detail.steps[1].job), (2, &None));
    assert_eq!(host.sql::<i64>(BROKEN_SEQUENCES), 0);
    assert_eq!(host.client.cancel(target("queued"), Some("not needed".into())).await.unwrap(), Cancelled::Closed);
    let verdict = host.verdict("queued").await;
    assert_eq!((verdict.status, verdict.message.as_deref(), code(&verdict)), (Status::Cancelled, Some("not needed"), "cancelled"));
    assert_eq!(host.detail("queued/1").await.verdict.unwrap().message.as_deref(), Some("not needed"));
    assert_eq!(host.client.cancel(target("queued"), None).await.unwrap(), Cancelled::AlreadyClosed);
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs"), 2, "no further step was opened");
}

#[tokio::test]
async fn cancelling_a_sequence_asks_the_step_that_runs_and_starts_none_after_it() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_sequence(sequence("polite", [step(Soft, Act::UntilStopped), step(Hard, Act::Pass)])).await.unwrap();
    host.probe.started.notified().await;
    assert_eq!(host.client.cancel(target("polite"), Some("enough".into())).await.unwrap(), Cancelled::Requested);
    let verdict = host.verdict("polite").await;
    assert_eq!((verdict.status, verdict.message.as_deref()), (Status::Cancelled, Some("enough")));
    assert_eq!(statuses(&host.detail("polite").await), [Some(Status::Cancelled)]);
    // A step that passes all the same keeps its verdict; the sequence is cancelled, even if it was the last.
    for (id, steps) in [("last", 1), ("first", 2)] {
        host.enqueue_sequence(sequence(id, vec![step(Hard, Act::Gate); steps])).await.unwrap();
        host.probe.started.notified().await;
        host.client.cancel(target(id), None).await.unwrap();
        host.probe.gate.add_permits(1);
        assert_eq!(host.verdict(id).await.status, Status::Cancelled);
        assert_eq!(statuses(&host.detail(id).await), [Some(Status::Passed)]);
    }
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn cancelling_a_step_alone_is_that_steps_verdict() {
    let host = TestHost::new();
    host.enqueue_sequence(sequence("hard", [step(Hard, Act::Pass), step(Hard, Act::Pass)])).await.unwrap();
    host.enqueue_sequence(sequence("soft", [step(Soft, Act::Pass), step(Hard, Act::Pass)])).await.unwrap();
    for id in ["hard/1", "soft/1"] {
        assert_eq!(host.client.cancel(target(id), Some("skip it".into())).await.unwrap(), Cancelled::Closed);
    }
    let hard = host.verdict("hard").await;
    assert_eq!((hard.status, hard.message.as_deref()), (Status::Cancelled, Some("step s1 was cancelled: skip it")));
    assert_eq!(host.detail("hard").await.job.state, JobState::Cancelled);
    let worker = host.worker().await;
    assert_eq!(host.verdict("soft").await.status, Status::Passed);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_fact_of_an_earlier_step_is_the_input_of_a_later_one() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let echo = |fact: &str| StepRequest {
        input: json!({"acts": ["echo"], "note": {"from": "s1", "fact": fact}}),
        ..step(Hard, Act::Pass)
    };
    host.enqueue_sequence(sequence("told", [step(Hard, Act::Tell(json!({"run": "r-1"}))), echo("run")])).await.unwrap();
    let verdict = host.verdict("told").await;
    assert_eq!((verdict.status, &verdict.facts["steps"][1]["facts"]["note"]), (Status::Passed, &json!("r-1")));
    host.enqueue_sequence(sequence("untold", [step(Soft, Act::Tell(json!({"run": null}))), echo("run")])).await.unwrap();
    let verdict = host.verdict("untold").await;
    assert_eq!((verdict.status, code(&verdict)), (Status::Unresolved, "sequence.fact_missing"));
    assert_eq!(host.detail("untold").await.job.state, JobState::Discarded);
    // A fact of the wrong kind is found out by whoever decodes the input.
    host.enqueue_sequence(sequence("odd", [step(Hard, Act::Tell(json!({"run": 7}))), echo("run")])).await.unwrap();
    let verdict = host.verdict("odd").await;
    assert_eq!((verdict.status, code(&verdict)), (Status::Unresolved, "input.undecodable"));
    assert!(verdict.message.as_deref().unwrap().contains("step s2") && verdict.message.as_deref().unwrap().contains("`note`"));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn fifty_steps_pass_and_every_open_moment_has_exactly_one_open_step() {
    let host = TestHost::new();
    host.enqueue_sequence(sequence("long", vec![step(Hard, Act::Pass); 50])).await.unwrap();
    let others = [host.another(), host.another()];
    let workers = [others[0].worker().await, others[1].worker().await];
    let looks = async {
        loop {
            assert_eq!(host.sql::<i64>(BROKEN_SEQUENCES), 0);
            host.client.presence().await.unwrap();
        }
    };
    let verdict = tokio::select! {
        verdict = host.client.wait(target("long")) => verdict.unwrap(),
        () = looks => unreachable!("it looks for ever"),
    };
    assert_eq!((verdict.status, verdict.message.as_deref()), (Status::Passed, Some("all 50 steps passed")));
    let order: Vec<String> = (1..=50).map(|n| format!("long/{n}")).collect();
    assert_eq!(host.probe.order(), order);
    for worker in workers {
        worker.drain().await.unwrap();
    }
}

#[tokio::test]
async fn the_step_of_a_dead_worker_is_rescued_and_the_sequence_goes_on() {
    let host = TestHost::with_worker_timeout(Duration::from_secs(10));
    let dying = host.another();
    let worker = dying.worker().await;
    let lost = StepRequest { input: json!({"acts": ["gate", "pass"]}), ..step(Hard, Act::Pass) };
    host.enqueue_sequence(sequence("orphan", [lost, step(Hard, Act::Pass)])).await.unwrap();
    host.probe.started.notified().await;
    drop(worker);
    let rescuer = host.worker().await;
    let verdict = host.pass_time(Duration::from_millis(500), host.client.wait(target("orphan"))).await.unwrap();
    assert_eq!(verdict.status, Status::Passed);
    assert_eq!(verdict.facts["steps"][0]["attempts"], 2);
    rescuer.drain().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_drains_keeps_nothing_of_a_sequence() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_sequence(sequence("moved", [step(Hard, Act::UntilStopped)])).await.unwrap();
    host.probe.started.notified().await;
    host.pass_time(Duration::from_secs(1), worker.drain()).await.unwrap();
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM workers"), 0);
    assert_eq!(host.detail("moved/1").await.job.state, JobState::Available);
    host.client.cancel(target("moved"), None).await.unwrap();
}

#[tokio::test]
async fn schedule_to_close_bounds_all_steps_together() {
    let host = TestHost::new();
    let bounded = |id: &str, steps: Vec<StepRequest>| SequenceRequest {
        schedule_to_close: Some(Duration::from_secs(30)),
        ..sequence(id, steps)
    };
    // Nobody works: the queued step is closed, and with it, although it is soft, the sequence.
    host.enqueue_sequence(bounded("queued", vec![step(Soft, Act::Pass), step(Hard, Act::Pass)])).await.unwrap();
    host.pass(Duration::from_secs(30)).await;
    let verdict = host.verdict_now("queued").await;
    assert_eq!((verdict.status, code(&verdict), verdict.duration_ms), (Status::Unresolved, "timeout.schedule_to_close", 30_000));
    let worker = host.worker().await;
    let steps = vec![step(Hard, Act::Sleep(20)), step(Hard, Act::Sleep(20)), step(Hard, Act::Pass)];
    host.enqueue_sequence(bounded("running", steps)).await.unwrap();
    host.until("running/1", |job| job.state == JobState::Running).await;
    host.pass(Duration::from_secs(20)).await;
    host.until("running/2", |job| job.state == JobState::Running).await;
    host.pass(Duration::from_secs(10)).await;
    let verdict = host.verdict_now("running").await;
    assert_eq!((verdict.status, code(&verdict), verdict.duration_ms), (Status::Unresolved, "timeout.schedule_to_close", 30_000));
    assert_eq!(statuses(&host.detail("running").await), [Some(Status::Passed), Some(Status::Unresolved)]);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_delayed_sequence_delays_its_first_step() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let request = SequenceRequest { delay: Some(Duration::from_secs(3_600)), ..sequence("later", vec![step(Hard, Act::Pass); 2]) };
    host.enqueue_sequence(request).await.unwrap();
    assert_eq!(host.detail("later/1").await.job.state, JobState::Scheduled);
    host.pass(Duration::from_secs(3_600)).await;
    assert_eq!(host.verdict_now("later").await.duration_ms, 3_600_000);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn id_policies_are_those_of_any_job() {
    let host = TestHost::new();
    let request = || sequence("one", [step(Hard, Act::Refuse)]);
    let first = host.enqueue_sequence(request()).await.unwrap();
    let refused = host.enqueue_sequence(request()).await;
    assert!(matches!(refused, Err(ClientError::Conflict { state: JobState::Running, .. })), "{refused:?}");
    let existing = SequenceRequest { id_conflict_policy: Some(IdConflictPolicy::UseExisting), ..request() };
    let existing = host.enqueue_sequence(existing).await.unwrap();
    assert_eq!((existing.run_id, existing.existing), (first.run_id, true));
    let worker = host.worker().await;
    host.verdict("one").await;
    for (policy, admitted) in
        [(IdReusePolicy::Reject, false), (IdReusePolicy::AllowFailedOnly, false), (IdReusePolicy::Allow, true)]
    {
        let answer = host.enqueue_sequence(SequenceRequest { id_reuse_policy: policy, ..request() }).await;
        assert_eq!(answer.is_ok(), admitted, "{policy:?}: {answer:?}");
    }
    host.verdict("one").await;
    let job = host.admit_sequence(sequence("again", [step(Hard, Act::Pass)])).unwrap();
    let first = host.client.enqueue(job.clone()).await.unwrap();
    host.verdict("again").await;
    assert_eq!(host.client.enqueue(job).await.unwrap(), first, "the same execution is stored once");
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_retry_begins_at_the_first_step_and_a_step_is_not_retried_alone() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let steps = || [step(Hard, Act::Tell(json!({"n": 1}))), step(Soft, Act::Denied), step(Hard, Act::Refuse)];
    let first = host.enqueue_sequence(sequence("redo", steps())).await.unwrap();
    host.verdict("redo").await;
    let Err(ClientError::Refused(refused)) = host.client.retry(target("redo/2"), true).await else { panic!("it must be refused") };
    assert!(refused.reason.contains("iolaus jobs retry redo"), "{refused}");
    let again = host.client.retry(target("redo"), false).await.unwrap();
    assert_ne!(again.run_id, first.run_id);
    host.verdict("redo").await;
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs WHERE job_id = 'redo/1'"), 2);
    assert_eq!(host.probe.attempts("redo/3"), [1, 1]);
    assert_eq!(host.detail("redo").await.steps.len(), 3);
    // It would rerun what may have been rerun, whatever became of the sequence itself.
    let forge = "UPDATE job_verdicts SET code = 'rerun.ambiguous' WHERE id = (SELECT max(id) FROM jobs WHERE job_id = 'redo/2')";
    rusqlite::Connection::open(host.path()).unwrap().execute(forge, []).unwrap();
    assert!(matches!(host.client.retry(target("redo"), false).await, Err(ClientError::NeedsAcceptDuplicate { .. })));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_paused_tenant_holds_the_next_step() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let other = StepRequest { tenant: Some("other".into()), ..step(Hard, Act::Pass) };
    host.client.pause(PauseKind::Tenant, "other".into(), None).await.unwrap();
    host.enqueue_sequence(sequence("held", [step(Hard, Act::Pass), other])).await.unwrap();
    host.until_sql("SELECT count(*) = 1 FROM jobs WHERE job_id = 'held/2' AND state = 'available' AND tenant = 'other'").await;
    host.client.resume(PauseKind::Tenant, "other".into()).await.unwrap();
    assert_eq!(host.verdict("held").await.status, Status::Passed);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn execute_works_all_steps_of_one_sequence_and_nothing_else() {
    let host = TestHost::new();
    host.enqueue_acts("bystander", [Act::Pass]).await;
    host.enqueue_sequence(sequence("other", [step(Hard, Act::Pass)])).await.unwrap();
    let waits = StepRequest { input: json!({"acts": ["pass"], "waits": true}), ..step(Hard, Act::Pass) };
    let steps = [step(Hard, Act::Pass), step(Hard, Act::Pass), waits, step(Hard, Act::Pass)];
    let job = host.admit_sequence(sequence("mine", steps)).unwrap();
    // Nobody moves the clock: only what each step's end brings about lets the next one start.
    let executed = execute(&host.embedded, host.worker_options(), job, std::future::pending()).await.unwrap();
    let Executed::Verdict(verdict) = executed else { panic!("it ended") };
    assert_eq!(verdict.status, Status::Passed);
    assert_eq!(host.probe.order(), ["mine/1", "mine/2", "mine/3", "mine/4"]);
    host.client.cancel(target("other"), None).await.unwrap();
}

#[tokio::test]
async fn execute_gives_a_sequence_back_and_goes_on_with_it_later() {
    let host = TestHost::new();
    let until = StepRequest { input: json!({"acts": ["until_stopped"]}), ..step(Hard, Act::Pass) };
    let job = || {
        let mut job = host.admit_sequence(sequence("mine", [step(Hard, Act::Pass), until.clone(), step(Hard, Act::Pass)])).unwrap();
        job.id_conflict_policy = IdConflictPolicy::UseExisting;
        job
    };
    let stop = host.until_sql("SELECT count(*) = 1 FROM jobs WHERE job_id = 'mine/2' AND state = 'running'");
    assert_eq!(execute(&host.embedded, host.worker_options(), job(), stop).await.unwrap(), Executed::NotYet);
    let detail = host.detail("mine").await;
    assert_eq!(statuses(&detail), [Some(Status::Passed), None]);
    let ended: Value = serde_json::to_value(&detail.steps[1].job).unwrap();
    assert_eq!((ended["state"].as_str(), ended["attempts"].as_u64()), (Some("available"), Some(0)));
    let pass = "UPDATE job_inputs SET input = '{\"acts\":[\"pass\"]}' WHERE id = (SELECT id FROM jobs WHERE job_id = 'mine/2')";
    rusqlite::Connection::open(host.path()).unwrap().execute(pass, []).unwrap();
    let executed = execute(&host.embedded, host.worker_options(), job(), std::future::pending()).await.unwrap();
    assert!(matches!(executed, Executed::Verdict(verdict) if verdict.status == Status::Passed));
}

#[tokio::test]
async fn an_end_of_a_step_that_cannot_be_stored_whole_is_not_stored_at_all() {
    // Each write of the transaction that ends step 1 and opens step 2 fails in turn, until the file can be written again.
    for (n, fails) in [
        "BEFORE UPDATE OF finished_at ON jobs WHEN NEW.job_id = 'whole/1'",
        "BEFORE INSERT ON job_verdicts",
        "BEFORE UPDATE OF started_at ON jobs WHEN NEW.job_id = 'whole'",
        "BEFORE INSERT ON jobs WHEN NEW.job_id = 'whole/2'",
        "AFTER INSERT ON jobs WHEN NEW.job_id = 'whole/2'",
        "BEFORE INSERT ON job_inputs WHEN (SELECT job_id FROM jobs WHERE id = NEW.id) = 'whole/2'",
        "AFTER INSERT ON job_inputs WHEN (SELECT job_id FROM jobs WHERE id = NEW.id) = 'whole/2'",
        "BEFORE UPDATE OF finished_at ON jobs WHEN NEW.job_id = 'whole'",
        "BEFORE INSERT ON job_verdicts WHEN (SELECT job_id FROM jobs WHERE id = NEW.id) = 'whole'",
    ]
    .into_iter()
    .enumerate()
    {
        let host = TestHost::new();
        host.enqueue_sequence(sequence("whole", [step(Hard, Act::Gate), step(Hard, Act::Pass)])).await.unwrap();
        let file = rusqlite::Connection::open(host.path()).unwrap();
        file.execute_batch(&format!("CREATE TRIGGER broken {fails} BEGIN SELECT raise(ABORT, 'the disk is broken'); END")).unwrap();
        let worker = host.worker().await;
        host.probe.started.notified().await;
        host.probe.gate.add_permits(1);
        // The writer answers in order; what it was asked before has failed by then, or is done.
        for _ in 0..200 {
            host.client.resume(PauseKind::Tenant, "none".into()).await.unwrap();
            assert_eq!(host.sql::<i64>(BROKEN_SEQUENCES), 0, "{fails}");
            // One question sees one state of the file: the end of a step and the next step are there together, or neither is.
            let together = "SELECT (SELECT count(*) FROM jobs j JOIN job_verdicts v ON v.id = j.id WHERE j.job_id = 'whole/1') \
                            = (SELECT count(*) FROM jobs WHERE job_id = 'whole/2')";
            assert!(host.sql::<bool>(together), "{fails}");
        }
        assert_eq!(host.detail("whole").await.job.state, JobState::Running, "case {n} never failed: {fails}");
        file.execute_batch("DROP TRIGGER broken").unwrap();
        assert_eq!(host.verdict("whole").await.status, Status::Passed, "{fails}");
        assert_eq!(host.probe.attempts("whole/2"), [1]);
        worker.drain().await.unwrap();
    }
}

#[tokio::test]
async fn a_stored_sequence_that_does_not_decode_ends_with_its_open_step() {
    let host = TestHost::new();
    host.enqueue_sequence(sequence("damaged", vec![step(Hard, Act::Pass); 2])).await.unwrap();
    let damage = "UPDATE job_inputs SET input = '{\"gone\":1}' WHERE id = (SELECT id FROM jobs WHERE job_id = 'damaged')";
    rusqlite::Connection::open(host.path()).unwrap().execute(damage, []).unwrap();
    let worker = host.worker().await;
    let verdict = host.verdict("damaged").await;
    assert_eq!((verdict.status, code(&verdict)), (Status::Unresolved, "input.undecodable"));
    worker.drain().await.unwrap();
}

/// What a step's end needs cannot be read: the sequence ends with a verdict that says so, the step with its own, and others go on.
#[tokio::test]
async fn a_step_that_ends_sets_aside_a_sequence_that_cannot_be_read() {
    for damage in [
        "UPDATE jobs SET run_id = 'mine' WHERE job_id = 'bad'",
        "DELETE FROM job_inputs WHERE id = (SELECT id FROM jobs WHERE job_id = 'bad')",
        "UPDATE job_verdicts SET verdict = '{}' WHERE id = (SELECT id FROM jobs WHERE job_id = 'bad/1')",
    ] {
        let host = TestHost::new();
        let worker = host.worker().await;
        for id in ["bad", "good"] {
            host.enqueue_sequence(sequence(id, [step(Hard, Act::Pass), step(Hard, Act::Gate), step(Hard, Act::Pass)]))
                .await
                .unwrap();
            // The first and the second step.
            host.probe.started.notified().await;
            host.verdict(&format!("{id}/1")).await;
            host.clock.until_at_rest().await;
        }
        rusqlite::Connection::open(host.path()).unwrap().execute_batch(damage).unwrap();
        host.probe.gate.add_permits(2);
        let verdict = host.verdict("bad").await;
        assert_eq!((verdict.status, code(&verdict)), (Status::Unresolved, "input.undecodable"), "{damage}");
        assert_eq!(host.verdict("bad/2").await.status, Status::Passed, "{damage}");
        assert_eq!(host.verdict("good").await.status, Status::Passed, "{damage}");
        assert!(host.client.check().await.unwrap().broken.is_empty() || damage.contains("job_verdicts"), "{damage}");
        worker.drain().await.unwrap();
    }
}
