//! A place where a test may end this process, as a power cut does between two writes. Outside this crate's own tests it is nothing.

/// A point between two steps of a write.
#[cfg(not(test))]
pub(super) fn point() {}

#[cfg(test)]
pub(super) use tests::point;

/// Every point of a scenario in turn: a child process dies there, and this one looks at what is left.
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use iolaus_activities::tenant::Tenants;
    use iolaus_activities::{
        Activity, ActivityContext, ActivityError, ActivityOptions, CancelPlan, Category, EffectOutcome, Failure, Registry,
        Reservation, Reserved, RetryPolicy, SystemClock, Verdict,
    };
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use crate::client::{JobClient, PauseKind, Target};
    use crate::embedded::{Embedded, EmbeddedOptions, Worker, WorkerOptions};
    use crate::executor::CancelPlans;
    use crate::intake::{Intake, JobRequest};
    use crate::job::{IdConflictPolicy, IdReusePolicy, JobState, NewJob, TraceContext};
    use crate::sequence::{self, Gate, SequenceRequest, StepRequest};

    /// The checkpoint of an effect that a cancel undoes.
    const UNDO: &str = "undo";
    const KEY: &str = "key";
    const WHERE: &str = "IOLAUS_TEST_DIES_AT";
    const FILE: &str = "IOLAUS_TEST_FILE";
    const CHILD: &str = "embedded::store::dying::tests::child_that_dies_where_it_is_told";
    /// More points than a scenario has.
    const MOST: u64 = 2_000;
    /// As many points are passed at least until a file of the first schema is upgraded.
    const UPGRADE: u64 = 6;
    /// Children at once.
    const AT_ONCE: u64 = 4;

    pub(in crate::embedded::store) fn point() {
        static PASSED: AtomicU64 = AtomicU64::new(0);
        static DIES_AT: OnceLock<Option<u64>> = OnceLock::new();
        let dies_at = DIES_AT.get_or_init(|| std::env::var(WHERE).ok().and_then(|value| value.parse().ok()));
        if dies_at.is_some_and(|at| PASSED.fetch_add(1, Ordering::SeqCst) + 1 == at) {
            std::process::abort();
        }
    }

    /// Does what its job is called. Repeat story: it only says what it saved.
    struct Named;

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Nothing {}

    impl Activity for Named {
        const NAME: &'static str = "named";
        type Input = Nothing;

        fn options(_: &Nothing) -> ActivityOptions {
            let retry = RetryPolicy { initial_interval: Duration::from_millis(1), maximum_attempts: 9, ..RetryPolicy::default() };
            ActivityOptions { retry, ..ActivityOptions::default() }
        }

        fn on_cancel(_: &str, _: &Nothing, checkpoint: &serde_json::Value) -> CancelPlan {
            if checkpoint == UNDO { CancelPlan::Undo } else { CancelPlan::default() }
        }

        async fn run(&self, ctx: &ActivityContext, _: Nothing) -> Result<Verdict, ActivityError> {
            match ctx.attempt().job_id.as_str() {
                "saves" if ctx.checkpoint::<u32>()?.is_none() => {
                    ctx.heartbeat(&"looking");
                    ctx.save(&7).await?;
                    Err(Failure::new("named.down", Category::DependencyUnavailable, "down, the first time").into())
                }
                "saves" => Ok(Verdict::passed("saved").fact("checkpoint", ctx.checkpoint::<u32>()?)),
                "reserves" if ctx.checkpoint::<u32>()?.is_none() => {
                    let reservation = Reservation { key: KEY.into(), intents_since: ctx.now(), applied_since: None };
                    assert_eq!(ctx.reserve(&1, reservation).await?, Reserved::Saved);
                    Err(Failure::new("named.down", Category::DependencyUnavailable, "down, the first time").into())
                }
                "reserves" => {
                    assert!(ctx.settle(&2, KEY, EffectOutcome::Applied { run: "r-1".into() }).await?);
                    Ok(Verdict::passed("settled"))
                }
                "undone" => {
                    ctx.unless_stopped(std::future::ready(())).await?;
                    ctx.save(&UNDO).await?;
                    let down = Failure::new("named.down", Category::DependencyUnavailable, "down for an hour");
                    Err(down.after(Some(Duration::from_secs(3600))).into())
                }
                "denied" => Err(Failure::new("named.denied", Category::Permission, "no").into()),
                "stopped" => Err(ctx.stopped().await.into()),
                _ => Ok(Verdict::passed("it passed")),
            }
        }
    }

    fn registry() -> Registry {
        Registry::default().with(Named)
    }

    fn open(path: &Path) -> Arc<Embedded> {
        // A worker that died is found out about soon.
        let cancel_plans = CancelPlans::of(&registry());
        let options = EmbeddedOptions { worker_timeout: Duration::from_millis(200), cancel_plans, ..EmbeddedOptions::at(path) };
        Embedded::open(options, Arc::new(SystemClock::new())).unwrap()
    }

    fn target(id: &str) -> Target {
        Target::newest(id.parse().unwrap())
    }

    /// What was acknowledged, one a line, as soon as it was.
    fn tell(what: &str) {
        use std::io::Write;
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "ACK {what}").unwrap();
        stdout.flush().unwrap();
    }

    async fn enqueue(client: &Arc<dyn JobClient>, id: &str, delay: Option<Duration>) {
        let request = JobRequest {
            activity: "named".into(),
            input: serde_json::json!({}),
            job_id: Some(id.into()),
            delay,
            id_conflict_policy: IdConflictPolicy::UseExisting,
            id_reuse_policy: IdReusePolicy::Reject,
            ..JobRequest::default()
        };
        let intake = Intake::new(&registry(), BTreeMap::default(), vec!["default".into()]);
        let job = intake.admit(request, TraceContext::generate(), jiff::Timestamp::UNIX_EPOCH).unwrap();
        store(client, job).await;
    }

    async fn enqueue_sequence(client: &Arc<dyn JobClient>, id: &str, delay: Option<Duration>) {
        let step = |name: &str, gate| StepRequest {
            name: Some(name.into()),
            activity: "named".into(),
            input: serde_json::json!({}),
            gate,
            ..StepRequest::default()
        };
        let request = SequenceRequest {
            steps: vec![step("one", Gate::Hard), step("two", Gate::Soft), step("three", Gate::Hard)],
            job_id: Some(id.into()),
            delay,
            id_conflict_policy: Some(IdConflictPolicy::UseExisting),
            id_reuse_policy: IdReusePolicy::Reject,
            ..SequenceRequest::default()
        };
        let intake = Intake::new(&registry(), BTreeMap::default(), vec!["default".into()]);
        let job = sequence::admit(&intake, request, TraceContext::generate(), jiff::Timestamp::UNIX_EPOCH).unwrap();
        store(client, job).await;
    }

    async fn store(client: &Arc<dyn JobClient>, job: NewJob) {
        let id = job.job_id.clone();
        match client.enqueue(job).await {
            Ok(_) => tell(&format!("stored {id}")),
            // It was closed in an earlier life of this scenario.
            Err(crate::client::ClientError::Conflict { .. }) => {}
            Err(error) => panic!("{id}: {error}"),
        }
    }

    async fn until_it_waits_or_is_cancelled(client: &Arc<dyn JobClient>, id: &str) {
        loop {
            let job = client.get(target(id)).await.unwrap().job;
            if job.state == JobState::Retryable || job.cancel_requested || !job.state.is_open() {
                return;
            }
        }
    }

    /// Everything that writes: storing at once, later and onto a free slot, claiming, saving, with and without an effect, failing, retrying, cancelling what waits
    /// and what runs, going from step to step, pausing, retrying by hand, forgetting, rescuing what an earlier life left, draining.
    async fn scenario(path: &Path) {
        let host = open(path);
        let client = host.client();
        enqueue(&client, "waits", None).await;
        enqueue(&client, "later", Some(Duration::from_millis(5))).await;
        enqueue(&client, "unwanted", Some(Duration::from_secs(3600))).await;
        client.cancel(target("unwanted"), Some("nobody wants it".into())).await.unwrap();
        tell("closed unwanted cancelled");
        enqueue_sequence(&client, "unsteps", Some(Duration::from_secs(3600))).await;
        client.cancel(target("unsteps"), None).await.unwrap();
        tell("closed unsteps cancelled");
        client.pause(PauseKind::Tenant, "elsewhere".into(), None).await.unwrap();
        client.resume(PauseKind::Tenant, "elsewhere".into()).await.unwrap();
        let options = WorkerOptions {
            registry: registry(),
            tenants: Tenants::none(),
            throttles: Arc::default(),
            slots_work: 8,
            slots_waits: 1,
            drain_deadline: Duration::from_secs(5),
            cancel_grace: Duration::from_secs(5),
            stall_after: Duration::from_secs(600),
        };
        let worker = Worker::start(&host, options).await.unwrap();
        for id in ["saves", "reserves", "undone", "denied", "stopped", "passes"] {
            enqueue(&client, id, None).await;
        }
        enqueue_sequence(&client, "steps", None).await;
        client.cancel(target("stopped"), None).await.unwrap();
        until_it_waits_or_is_cancelled(&client, "undone").await;
        client.cancel(target("undone"), None).await.unwrap();
        for (id, status) in [
            ("waits", "passed"),
            ("later", "passed"),
            ("saves", "passed"),
            ("reserves", "passed"),
            ("undone", "cancelled"),
            ("denied", "unresolved"),
            ("stopped", "cancelled"),
            ("passes", "passed"),
            ("steps", "passed"),
        ] {
            let verdict = client.wait(target(id)).await.unwrap();
            assert_eq!(verdict.status.as_str(), status, "{id}: {verdict:?}");
            tell(&format!("closed {id} {status}"));
        }
        worker.drain().await.unwrap();
        let far = "2000-01-01T00:00:00Z".parse().unwrap();
        host.store.write(move |tx| tx.prune(far)).await.unwrap();
    }

    #[test]
    #[ignore = "started by the test below as a process of its own, which it may end"]
    fn child_that_dies_where_it_is_told() {
        let path = std::env::var(FILE).unwrap();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(scenario(Path::new(&path)));
        tell("the end");
    }

    /// Runs the scenario in a process of its own, and answers with what it acknowledged.
    fn run(path: &Path, dies_at: u64) -> Vec<String> {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--ignored", "--nocapture"])
            .env(FILE, path)
            .env(WHERE, dies_at.to_string())
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        // The harness's own first line may stand before it on the same line.
        let lines: Vec<String> = told.lines().filter_map(|line| Some(line.split_once("ACK ")?.1.to_owned())).collect();
        let ended = lines.last().is_some_and(|line| line == "the end");
        let died = std::os::unix::process::ExitStatusExt::signal(&output.status).is_some();
        assert!(ended || died, "point {dies_at}: it neither ended nor died: {output:?}");
        lines
    }

    fn check(path: &Path, dies_at: u64, acknowledged: &[String]) {
        if !path.exists() {
            assert!(acknowledged.is_empty());
            return;
        }
        drop(open(path));
        let file = rusqlite::Connection::open(path).unwrap();
        let integrity: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(integrity, "ok", "point {dies_at}");
        let exists = |sql: &str, id: &str| file.prepare(sql).unwrap().exists([id]).unwrap();
        for line in acknowledged {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["stored", id] => assert!(
                    exists("SELECT 1 FROM jobs WHERE job_id = ?1", id),
                    "point {dies_at}: {id} was acknowledged and is gone"
                ),
                ["closed", id, status] => {
                    let sql = format!(
                        "SELECT 1 FROM jobs j JOIN job_verdicts v ON v.id = j.id WHERE j.job_id = ?1 AND v.status = '{status}'"
                    );
                    assert!(exists(&sql, id), "point {dies_at}: the verdict of {id} was told and is gone");
                }
                _ => {}
            }
        }
        let counted = "SELECT activity, tenant, state, count FROM job_counts WHERE count <> 0";
        let there = "SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3";
        for (what, sql) in [
            ("job ids stored twice", "SELECT count(*) - count(DISTINCT job_id) FROM jobs".to_owned()),
            (
                "closed without exactly one verdict, or open with one",
                "SELECT count(*) FROM jobs j WHERE (j.finished_at IS NOT NULL) <> EXISTS(SELECT 1 FROM job_verdicts v WHERE v.id = j.id)".to_owned(),
            ),
            ("without input", "SELECT count(*) FROM jobs j WHERE NOT EXISTS(SELECT 1 FROM job_inputs i WHERE i.id = j.id)".to_owned()),
            (
                "sequences that are open without exactly one open step, or closed with one",
                "SELECT count(*) FROM jobs s WHERE s.activity = 'sequence' AND (s.finished_at IS NULL) \
                 <> (SELECT count(*) FROM jobs j WHERE j.parent_id = s.id AND j.finished_at IS NULL)".to_owned(),
            ),
            (
                "effects that are not as the checkpoint beside them",
                "SELECT count(*) FROM jobs j JOIN job_checkpoints c ON c.id = j.id LEFT JOIN effects e ON e.run_id = j.run_id \
                 WHERE j.job_id = 'reserves' AND NOT (c.checkpoint = '1' AND e.id IS NOT NULL AND e.run IS NULL) \
                 AND NOT (c.checkpoint = '2' AND e.run IS 'r-1')"
                    .to_owned(),
            ),
            ("effects of no checkpoint", "SELECT count(*) FROM effects WHERE run_id NOT IN (SELECT j.run_id FROM jobs j JOIN job_checkpoints c ON c.id = j.id)".to_owned()),
            ("miscounted", format!("SELECT EXISTS({counted} EXCEPT {there}) + EXISTS({there} EXCEPT {counted})")),
        ] {
            let wrong: i64 = file.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(wrong, 0, "point {dies_at}: {what}");
        }
    }

    /// True if the process died at that point. `old`: the file is of the first schema, and is upgraded on the way.
    fn dies_and_is_survived(dies_at: u64, old: bool) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        if old {
            let file = rusqlite::Connection::open(&path).unwrap();
            file.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
            file.pragma_update(None, "application_id", 0x494F_4C41).unwrap();
            file.execute_batch(include_str!("schema/001_initial.sql")).unwrap();
            file.pragma_update(None, "user_version", 1).unwrap();
        }
        let mut acknowledged = run(&path, dies_at);
        let died = acknowledged.last().is_none_or(|line| line != "the end");
        check(&path, dies_at, &acknowledged);
        if died {
            // The next process goes on where this one stopped, to the same end.
            acknowledged.extend(run(&path, 0));
            assert_eq!(acknowledged.last().map(String::as_str), Some("the end"), "point {dies_at}");
            check(&path, dies_at, &acknowledged);
        }
        died
    }

    #[test]
    fn a_process_that_dies_at_any_point_of_a_write_loses_nothing_that_was_acknowledged() {
        let next = AtomicU64::new(1);
        let last = AtomicU64::new(MOST);
        std::thread::scope(|scope| {
            let one_after_another = || {
                loop {
                    let dies_at = next.fetch_add(1, Ordering::SeqCst);
                    if dies_at > last.load(Ordering::SeqCst) {
                        return;
                    }
                    if dies_at <= UPGRADE {
                        assert!(dies_and_is_survived(dies_at, true));
                    }
                    if !dies_and_is_survived(dies_at, false) {
                        last.fetch_min(dies_at, Ordering::SeqCst);
                    }
                }
            };
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(one_after_another)).collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
        let points = last.into_inner();
        assert!((50..MOST).contains(&points), "a process died at each of {} points", points - 1);
    }
}
