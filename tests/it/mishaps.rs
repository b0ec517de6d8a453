//! What goes wrong on a real machine: frozen and dead processes, disks that fill up, files that are damaged, replaced or deleted, races
//! between a claim and a cancel. Nothing is lost, nothing is closed twice, and it goes on when the cause is gone.

use std::sync::Arc;
use std::time::Duration;

use iolaus::embedded::{Embedded, EmbeddedOptions, Worker, WorkerOptions};
use iolaus::intake::JobRequest;
use iolaus::job::JobState;
use iolaus_activities::{Clock, ManualClock, Status};
use serde_json::json;

use crate::support::host::{TestHost, probe_job, target};
use crate::support::probe::Act;

fn file(host: &TestHost) -> rusqlite::Connection {
    rusqlite::Connection::open(host.path()).unwrap()
}

/// A worker that was taken for dead claims under its old row before it notices: nobody may own that job for ever.
#[tokio::test]
async fn what_a_worker_claims_after_its_row_was_removed_is_not_lost() {
    let host = TestHost::with_worker_timeout(Duration::from_secs(10));
    let frozen_clock = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
    let options = EmbeddedOptions { worker_timeout: Duration::from_secs(10), ..EmbeddedOptions::at(host.path()) };
    let frozen = Embedded::open(options, frozen_clock.clone()).unwrap();
    let thawed = Worker::start(&frozen, host.worker_options()).await.unwrap();
    // It is frozen: its clock stands. Another one finds it dead, removes its row and goes away.
    let rescuer = host.worker().await;
    host.pass_time(Duration::from_millis(500), host.clock.sleep(Duration::from_secs(20))).await;
    rescuer.drain().await.unwrap();
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM workers"), 0);
    // It thaws, and the wake of an enqueue is there before its next beat is due.
    host.enqueue_acts("orphan", [Act::UntilStopped, Act::Pass]).await;
    host.clock.until_at_rest().await;
    frozen_clock.advance(Duration::from_secs(3)).await;
    let other = host.worker().await;
    for _ in 0..60 {
        frozen_clock.advance(Duration::from_secs(2)).await;
        host.clock.advance(Duration::from_secs(2)).await;
    }
    let job = host.detail("orphan").await.job;
    assert_eq!(job.state, JobState::Completed, "two minutes later, with two live workers: {job:?}");
    thawed.drain().await.unwrap();
    other.drain().await.unwrap();
}

/// A store that fails for longer than the lease and then recovers, while the worker lives on.
#[tokio::test]
async fn an_end_that_could_not_be_stored_for_a_while_does_not_leave_the_job_running_for_ever() {
    let host = TestHost::with_worker_timeout(Duration::from_secs(10));
    let worker = host.worker().await;
    let other = host.another();
    let second = other.worker().await;
    host.enqueue_acts("stuck", [Act::Gate, Act::Pass]).await;
    host.probe.started.notified().await;
    file(&host)
        .execute_batch(
            "CREATE TRIGGER full_1 BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'disk full'); END;
             CREATE TRIGGER full_2 BEFORE UPDATE ON workers BEGIN SELECT RAISE(ABORT, 'disk full'); END;",
        )
        .unwrap();
    host.probe.gate.add_permits(1);
    for _ in 0..30 {
        host.clock.advance(Duration::from_millis(500)).await;
    }
    file(&host).execute_batch("DROP TRIGGER full_1; DROP TRIGGER full_2;").unwrap();
    for _ in 0..60 {
        host.clock.advance(Duration::from_secs(2)).await;
    }
    let job = host.detail("stuck").await.job;
    assert_ne!(job.state, JobState::Running, "two minutes after the disk has room again: {job:?}");
    worker.drain().await.unwrap();
    second.drain().await.unwrap();
}

#[tokio::test]
async fn one_damaged_row_does_not_stop_the_queue() {
    let host = TestHost::new();
    host.enqueue_acts("poison", [Act::Pass]).await;
    file(&host).execute("UPDATE job_inputs SET options = json_remove(options, '$.timeouts')", []).unwrap();
    let worker = host.worker().await;
    let stored = host.enqueue(probe_job("healthy", [Act::Pass])).await;
    assert!(stored.is_ok(), "{stored:?}");
    assert_eq!(host.verdict("healthy").await.status, Status::Passed);
    assert_eq!(host.verdict("poison").await.failure.unwrap().code, "input.undecodable");
    worker.drain().await.unwrap();
}

/// Rowids of pruned executions come back, and with them (id, token).
#[tokio::test]
async fn an_attempt_of_a_forgotten_execution_does_not_close_another_one() {
    let host = TestHost::with_worker_timeout(Duration::from_secs(10));
    let frozen = host.another();
    let worker = frozen.worker().await;
    host.enqueue_acts("a", [Act::Gate, Act::Refuse]).await;
    host.probe.started.notified().await;
    drop(worker);
    let rescuer = host.worker().await;
    host.pass_time(Duration::from_millis(500), host.client.wait(target("a"))).await.unwrap();
    // What `prune` does, once the retention is over.
    for table in ["job_inputs", "job_checkpoints", "job_verdicts", "job_failures", "jobs"] {
        host.tamper(&format!("DELETE FROM {table} WHERE id = 1"));
    }
    host.enqueue_acts("b", [Act::UntilStopped]).await;
    host.clock.until_at_rest().await;
    assert_eq!(host.detail("b").await.job.state, JobState::Running);
    // The first attempt of `a` wakes up.
    host.probe.gate.add_permits(1);
    host.clock.until_at_rest().await;
    let verdict = host.detail("b").await.verdict;
    assert!(verdict.is_none(), "b was closed by an attempt of another job: {verdict:?}");
    host.pass_time(Duration::from_secs(1), rescuer.drain()).await.unwrap();
}

/// The claim is durable, the attempt's task has not run yet, and the cancel arrives.
#[tokio::test]
async fn a_cancel_between_claim_and_start_is_delivered_at_once() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.clock.until_at_rest().await;
    let (client, job) = (host.client.clone(), host.admit(probe_job("raced", [Act::UntilStopped])).unwrap());
    // This runtime's only thread is busy meanwhile.
    let cancelled = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            client.enqueue(job).await.unwrap();
            client.cancel(target("raced"), None).await.unwrap()
        })
    })
    .join()
    .unwrap();
    assert_eq!(cancelled, iolaus::client::Cancelled::Requested);
    host.clock.until_at_rest().await;
    let at_once = host.detail("raced").await.job.state;
    // Shorter than start_to_close. Steady traffic: every round starts anew when the next due job changes, so the safety net of 5 s never comes.
    for n in 0..50 {
        host.clock.advance(Duration::from_secs(1)).await;
        let id = format!("d{n}");
        host.enqueue(JobRequest { delay: Some(Duration::from_secs(10_000 - 10 * n)), ..probe_job(&id, [Act::Pass]) })
            .await
            .unwrap();
        host.clock.until_at_rest().await;
    }
    let later = host.detail("raced").await.job.state;
    assert_eq!((at_once, later), (JobState::Cancelled, JobState::Cancelled), "(at once, after 50 s)");
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_final_failure_after_a_requested_cancel_closes_as_cancelled() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("x", [Act::GateThenDenied]).await;
    host.probe.started.notified().await;
    // Another process has stored the request; its wake is still on its way.
    file(&host).execute("UPDATE jobs SET cancel_requested_at = 1", []).unwrap();
    host.probe.gate.add_permits(1);
    let verdict = host.verdict("x").await;
    assert_eq!(verdict.status, Status::Cancelled);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_worker_renews_its_lease_while_it_forgets_old_executions() {
    let host = TestHost::with_worker_timeout(Duration::from_secs(10));
    host.tamper(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
         INSERT INTO jobs(job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, run_at, enqueued_at, finished_at)
         SELECT 'old-' || i, i, 'probe', 1, 'work', 'default', 'completed', 3, 0, 0, 1 FROM n;
         INSERT INTO job_inputs(id, input, options, traceparent) SELECT id, '{}', '{}', '' FROM jobs;
         INSERT INTO job_verdicts(id, status, verdict) SELECT id, 'passed', '{}' FROM jobs",
    );
    let worker = host.worker().await;
    // From here on the worker is busy for long, and the clock must move all the same.
    host.clock.advance(Duration::from_secs(59)).await;
    host.clock.advance_without_waiting(Duration::from_secs(2));
    host.until_sql("SELECT count(*) < 60000 FROM jobs").await;
    let left = |host: &TestHost| host.sql::<i64>("SELECT count(*) FROM jobs");
    let before = host.sql::<i64>("SELECT beat FROM workers");
    // The worker may still be on its way to its next wait: it is moved until its beat is there, or until it has nothing to forget.
    while host.sql::<i64>("SELECT beat FROM workers") == before && left(&host) > 0 {
        host.clock.advance_without_waiting(Duration::from_millis(2500));
        host.client.resume(iolaus::client::PauseKind::Tenant, "none".into()).await.unwrap();
    }
    assert!(left(&host) > 0, "no beat until all rows were forgotten");
    drop(worker);
}

/// Same tenant, same priority: the older job goes first, whatever its activity is called.
#[tokio::test]
async fn an_older_job_is_not_overtaken_for_its_activitys_name() {
    let host = TestHost::new();
    let rerun = JobRequest {
        activity: "workflow_rerun".into(),
        input: json!({"workflow": "w", "until": "submitted"}),
        job_id: Some("older".into()),
        ..JobRequest::default()
    };
    host.enqueue(rerun).await.unwrap();
    host.clock.advance(Duration::from_secs(3600)).await;
    for n in 0..3 {
        host.enqueue_acts(&format!("younger-{n}"), [Act::Gate]).await;
    }
    let options = WorkerOptions { slots_work: 1, slots_waits: 0, ..host.worker_options() };
    let worker = Worker::start(&host.embedded, options).await.unwrap();
    host.clock.until_at_rest().await;
    let older = host.detail("older").await.job;
    let overtaken = host.probe.order();
    host.probe.gate.add_permits(3);
    assert!(overtaken.is_empty() || older.attempts > 0, "{overtaken:?} went before {older:?}");
    for n in 0..3 {
        host.verdict(&format!("younger-{n}")).await;
    }
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_stall_is_over_when_a_checkpoint_changes_and_when_the_job_is_closed() {
    let host = TestHost::new();
    let options = WorkerOptions { stall_after: Duration::from_secs(20), ..host.worker_options() };
    let worker = Worker::start(&host.embedded, options).await.unwrap();
    let mut job = probe_job("slow", [Act::SaveEvery(50, 3)]);
    job.options.start_to_close = Some(Duration::from_secs(1000));
    host.enqueue(job).await.unwrap();
    host.probe.started.notified().await;
    let mut seen = Vec::new();
    for _ in 0..130 {
        host.clock.advance(Duration::from_secs(1)).await;
        let stalled = host.detail("slow").await.job.stalled_since.map(|at| at.to_string());
        if seen.last() != Some(&stalled) {
            seen.push(stalled);
        }
    }
    host.pass_time(Duration::from_secs(1), host.client.wait(target("slow"))).await.unwrap();
    let closed = host.detail("slow").await.job.stalled_since;
    worker.drain().await.unwrap();
    assert!(
        seen.len() > 3 && closed.is_none(),
        "stalled at 20, moved at 50, stalled at 70, moved at 100: {seen:?}, closed: {closed:?}"
    );
}

#[tokio::test]
async fn nothing_is_acknowledged_into_a_file_that_was_deleted() {
    let host = TestHost::new();
    host.enqueue_acts("one", [Act::Pass]).await;
    for name in ["", "-wal", "-shm"] {
        let mut path = host.path().into_os_string();
        path.push(name);
        std::fs::remove_file(path).unwrap();
    }
    let answer = host.enqueue(probe_job("two", [Act::Pass])).await;
    let other = host.another();
    assert!(answer.is_err() || other.client.get(target("two")).await.is_ok(), "acknowledged, and gone: {answer:?}");
}

#[tokio::test]
async fn the_newest_executions_ambiguity_cannot_be_sidestepped_with_an_older_run_id() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let first = host.enqueue_acts("m", [Act::Denied]).await;
    host.verdict("m").await;
    host.client.retry(target("m"), false).await.unwrap();
    host.verdict("m").await;
    let forge = "UPDATE job_verdicts SET code = 'rerun.ambiguous', verdict = json_set(verdict, '$.failure.code', 'rerun.ambiguous') \
                 WHERE id = 2";
    file(&host).execute(forge, []).unwrap();
    let older = iolaus::client::Target::run("m".parse().unwrap(), first.run_id);
    let answer = host.client.retry(older, false).await;
    host.verdict("m").await;
    worker.drain().await.unwrap();
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn unresolved_verdicts_have_a_limit_too() {
    use iolaus::executor::{Cancel, Decision, Execution, Outcome, decide};
    let host = TestHost::new();
    let job = host.admit(probe_job("x", [Act::Pass])).unwrap();
    let now = host.clock.now();
    let execution = Execution {
        job_id: job.job_id.clone(),
        run_id: job.run_id,
        activity: job.activity.clone(),
        tenant: job.tenant.clone(),
        attempts: 1,
        drains: 0,
        options: job.options.clone(),
        enqueued_at: now,
        started_at: Some(now),
        close_by: None,
        trace: job.trace.clone(),
    };
    let failure =
        iolaus_activities::Failure::new("x.y", iolaus_activities::Category::Permission, "no").fact("rows", "x".repeat(1 << 20));
    let Decision::Close(closing) = decide(&execution, Outcome::Failed(failure), &Cancel::NotRequested, now, 0.5) else { panic!() };
    let size = serde_json::to_vec(&closing.verdict).unwrap().len();
    assert!(size <= iolaus::job::limits::VERDICT, "{size}");
}

/// How many warnings one stall gives.
#[tokio::test]
async fn a_stall_gives_one_warning() {
    #[derive(Clone, Default)]
    struct Buf(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Buf {
        fn write(&mut self, b: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(b);
            Ok(b.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let buf = Buf::default();
    let writer = buf.clone();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(move || writer.clone()).finish());
    let host = TestHost::new();
    let options = WorkerOptions { stall_after: Duration::from_secs(10), ..host.worker_options() };
    let worker = Worker::start(&host.embedded, options).await.unwrap();
    host.enqueue_acts("still", [Act::Gate]).await;
    host.probe.started.notified().await;
    for _ in 0..55 {
        host.clock.advance(Duration::from_secs(1)).await;
    }
    host.probe.gate.add_permits(1);
    host.verdict("still").await;
    worker.drain().await.unwrap();
    let text = String::from_utf8(buf.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("has stalled").count(), 1);
}

/// A dead worker holds a damaged row: what else it held must still be rescued.
#[tokio::test]
async fn a_damaged_row_does_not_stop_a_rescue() {
    let host = TestHost::with_worker_timeout(Duration::from_secs(10));
    let dying = host.another();
    let worker = dying.worker().await;
    for id in ["bad", "good"] {
        host.enqueue_acts(id, [Act::Gate, Act::Pass]).await;
        host.probe.started.notified().await;
    }
    drop(worker);
    file(&host).execute("UPDATE job_inputs SET options = json_remove(options, '$.timeouts') WHERE id = 1", []).unwrap();
    let rescuer = host.worker().await;
    for _ in 0..60 {
        host.clock.advance(Duration::from_secs(1)).await;
    }
    let rows =
        host.sql::<String>("SELECT group_concat(job_id || ' ' || state || ' ' || attempt || ' ' || lease_token, '; ') FROM jobs");
    assert_eq!(host.detail("good").await.job.state, JobState::Completed, "{rows}");
    drop(rescuer);
}

/// A connection of ours that is opened again must not drop SQLite's locks: the next process to leave would delete the log in use.
#[tokio::test]
async fn what_is_acknowledged_after_a_failed_transaction_is_seen_by_other_processes() {
    let host = TestHost::new();
    file(&host).execute_batch("ALTER TABLE job_inputs RENAME TO away").unwrap();
    let worker = host.worker().await;
    assert!(host.enqueue(probe_job("one", [Act::Pass])).await.is_err(), "its input cannot be stored");
    file(&host).execute_batch("ALTER TABLE away RENAME TO job_inputs").unwrap();
    host.enqueue_acts("two", [Act::Pass]).await;
    let iolaus = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_iolaus"));
        command.args(arguments).env_clear().env("IOLAUS_DATABASE__PATH", host.path());
        let piped = std::process::Stdio::piped;
        crate::support::child::output(command.stdout(piped()).stderr(piped()).spawn().unwrap(), "iolaus jobs show")
    };
    let shown = iolaus(&["jobs", "show", "two"]);
    assert!(shown.status.success(), "{shown:?}");
    host.enqueue_acts("three", [Act::Pass]).await;
    assert!(iolaus(&["jobs", "show", "three"]).status.success(), "the others' leaving took the log away");
    host.verdict("three").await;
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_file_that_a_newer_version_upgraded_stops_the_worker_with_the_reason() {
    let host = TestHost::new();
    let worker = host.worker().await;
    file(&host)
        .execute_batch("UPDATE meta SET value = 'iolaus 9.0.0' WHERE name = 'upgraded_by'; PRAGMA user_version = 99")
        .unwrap();
    let refused = host.enqueue(probe_job("late", [Act::Pass])).await.unwrap_err();
    assert!(refused.to_string().contains("upgraded by iolaus 9.0.0"), "{refused}");
    assert!(worker.failed().await.to_string().contains("upgraded by iolaus 9.0.0"));
    file(&host).execute_batch("PRAGMA user_version = 1").unwrap();
}

#[tokio::test]
async fn what_is_forgotten_gives_its_space_back_to_the_file_system() {
    let host = TestHost::new();
    host.tamper(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
         INSERT INTO jobs(job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, run_at, enqueued_at, finished_at)
         SELECT 'old-' || i, i, 'probe', 1, 'work', 'default', 'completed', 3, 0, 0, 1 FROM n;
         INSERT INTO job_inputs(id, input, options, traceparent) SELECT id, hex(zeroblob(4000)), '{}', '' FROM jobs;
         INSERT INTO job_verdicts(id, status, verdict) SELECT id, 'passed', '{}' FROM jobs",
    );
    let pages = host.sql::<i64>("PRAGMA page_count");
    assert!(pages > 400, "{pages} pages");
    let worker = host.worker().await;
    host.clock.advance(Duration::from_secs(61)).await;
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs"), 0);
    host.clock.until_at_rest().await;
    let left = host.sql::<i64>("PRAGMA page_count");
    assert!(left < pages - 200, "{pages} pages before, {left} after");
    worker.drain().await.unwrap();
}
