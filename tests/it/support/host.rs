//! A database in a directory of its own, under a clock that the test moves. When it is dropped it checks what must hold of any
//! database: no execution left running, one verdict for each closed execution, none for an open one.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use iolaus::client::{ClientError, Enqueued, JobClient, JobDetail, Target};
use iolaus::embedded::{Embedded, EmbeddedOptions, Worker, WorkerOptions};
use iolaus::executor::CancelPlans;
use iolaus::intake::{Intake, JobRequest};
use iolaus::job::{Job, JobId, NewJob, Refused, TraceContext};
use iolaus::sequence::{self, SequenceRequest};
use iolaus::telemetry::{Known, Meters, Metrics};
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{ManualClock, Registry, VerdictRecord};
use serde_json::{Value, json};

use super::probe::{Act, Probe};
use super::watchdog::{Patience, Watched};

pub(crate) struct TestHost {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) embedded: Arc<Embedded>,
    pub(crate) client: Arc<dyn JobClient>,
    pub(crate) probe: Probe,
    options: EmbeddedOptions,
    dir: Option<Arc<tempfile::TempDir>>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) throttles: Arc<iolaus::job::Throttles>,
    _watched: Watched,
}

impl TestHost {
    /// A worker counts as dead after a day, so that a jump of the clock kills nobody.
    pub(crate) fn new() -> Self {
        Self::with_worker_timeout(Duration::from_secs(24 * 3600))
    }

    /// An empty disk under a clock that stands somewhere already.
    pub(crate) fn on(clock: Arc<ManualClock>) -> Self {
        Self::create(clock, Duration::from_secs(24 * 3600), |_| {})
    }

    pub(crate) fn with_worker_timeout(worker_timeout: Duration) -> Self {
        Self::create(clock(), worker_timeout, |_| {})
    }

    /// Counts what happens for these meters; of tenants it knows `default` alone.
    pub(crate) fn measured(meters: &Meters) -> Self {
        Self::measured_as(Metrics::new(meters, Known::new(["probe"], ["default"])))
    }

    pub(crate) fn measured_as(metrics: Metrics) -> Self {
        Self::with_worker_timeout(Duration::from_secs(10)).opened_with(|options| options.metrics = metrics)
    }

    /// Answers after this long of real time that the fate of a write is not known.
    pub(crate) fn with_write_timeout(self, write_timeout: Duration) -> Self {
        self.opened_with(|options| options.write_timeout = write_timeout)
    }

    /// Lets only so many bytes of jobs wait to be stored, and no enqueue wait for room.
    pub(crate) fn narrow(max_waiting_bytes: usize) -> Self {
        Self::new().opened_with(|options| {
            options.max_waiting_bytes = max_waiting_bytes;
            options.enqueue_timeout = Duration::ZERO;
        })
    }

    fn opened_with(mut self, change: impl FnOnce(&mut EmbeddedOptions)) -> Self {
        change(&mut self.options);
        Self::open(self.options.clone(), self.clock.clone(), self.probe.clone(), self.dir.take())
    }

    /// On a file that is there already.
    pub(crate) fn on_file(worker_timeout: Duration, write: impl FnOnce(&Path)) -> Self {
        Self::create(clock(), worker_timeout, write)
    }

    fn create(clock: Arc<ManualClock>, worker_timeout: Duration, write: impl FnOnce(&Path)) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let path = dir.path().join("state/iolaus.db");
        write(&path);
        let probe = Probe::new();
        let cancel_plans = CancelPlans::of(&iolaus_activities::shipped(&Tenants::none()).with(probe.clone()));
        let options = EmbeddedOptions { worker_timeout, cancel_plans, ..EmbeddedOptions::at(path) };
        Self::open(options, clock, probe, Some(dir))
    }

    /// Another process on the same file, as far as one process can play it. Only the first checks the invariants.
    pub(crate) fn another(&self) -> Self {
        Self::open(self.options.clone(), self.clock.clone(), self.probe.clone(), None)
    }

    /// The same with another `worker_timeout`.
    pub(crate) fn another_with_worker_timeout(&self, worker_timeout: Duration) -> Self {
        let options = EmbeddedOptions { worker_timeout, ..self.options.clone() };
        Self::open(options, self.clock.clone(), self.probe.clone(), None)
    }

    /// Keeps closed executions this long.
    pub(crate) fn keeping(self, retention: Duration) -> Self {
        self.opened_with(|options| options.retention = retention)
    }

    /// Another process with another `retention`.
    pub(crate) fn another_keeping(&self, retention: Duration) -> Self {
        let options = EmbeddedOptions { retention, ..self.options.clone() };
        Self::open(options, self.clock.clone(), self.probe.clone(), None)
    }

    fn open(options: EmbeddedOptions, clock: Arc<ManualClock>, probe: Probe, dir: Option<Arc<tempfile::TempDir>>) -> Self {
        let embedded = Embedded::open(options.clone(), clock.clone()).unwrap();
        observe(&clock, &embedded);
        let client = embedded.client();
        Self {
            clock,
            embedded,
            client,
            probe,
            options,
            dir,
            tenants: Tenants::none(),
            throttles: Arc::default(),
            _watched: Watched::new(),
        }
    }

    /// The same host, with the shipped activities acting on these tenants.
    pub(crate) fn with_tenants(mut self, tenants: Arc<Tenants>) -> Self {
        self.tenants = tenants;
        self
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.options.path.clone()
    }

    pub(crate) fn registry(&self) -> Registry {
        iolaus_activities::shipped(&self.tenants).with(self.probe.clone())
    }

    pub(crate) fn worker_options(&self) -> WorkerOptions {
        WorkerOptions {
            registry: self.registry(),
            tenants: self.tenants.clone(),
            throttles: self.throttles.clone(),
            slots_work: 4,
            slots_waits: 100,
            drain_deadline: Duration::from_secs(20),
            cancel_grace: Duration::from_secs(10),
            stall_after: Duration::from_secs(600),
        }
    }

    pub(crate) async fn worker(&self) -> Worker {
        Worker::start(&self.embedded, self.worker_options()).await.unwrap()
    }

    pub(crate) fn admit(&self, request: JobRequest) -> Result<NewJob, Refused> {
        let intake = Intake::new(&self.registry(), BTreeMap::default(), vec!["default".into(), "other".into()]);
        intake.admit(request, TraceContext::generate(), iolaus_activities::Clock::now(self.clock.as_ref()))
    }

    pub(crate) async fn enqueue(&self, request: JobRequest) -> Result<Enqueued, ClientError> {
        let job = self.admit(request)?;
        self.client.enqueue(job).await
    }

    /// The same for a tenant of the host's own.
    pub(crate) async fn enqueue_for(&self, request: JobRequest) -> Enqueued {
        let names = self.tenants.names().map(str::to_owned).collect();
        let intake = Intake::new(&self.registry(), BTreeMap::default(), names);
        let job = intake.admit(request, TraceContext::generate(), iolaus_activities::Clock::now(self.clock.as_ref())).unwrap();
        self.client.enqueue(job).await.unwrap()
    }

    pub(crate) fn admit_sequence(&self, request: SequenceRequest) -> Result<NewJob, Refused> {
        let intake = Intake::new(&self.registry(), BTreeMap::default(), vec!["default".into(), "other".into()]);
        sequence::admit(&intake, request, TraceContext::generate(), iolaus_activities::Clock::now(self.clock.as_ref()))
    }

    pub(crate) async fn enqueue_sequence(&self, request: SequenceRequest) -> Result<Enqueued, ClientError> {
        let job = self.admit_sequence(request)?;
        self.client.enqueue(job).await
    }

    pub(crate) async fn enqueue_acts(&self, job_id: &str, acts: impl IntoIterator<Item = Act>) -> Enqueued {
        self.enqueue(probe_job(job_id, acts)).await.unwrap()
    }

    /// The verdict of the newest execution, jumping over every sleep on the way.
    pub(crate) async fn verdict(&self, job_id: &str) -> VerdictRecord {
        self.drive(self.client.wait(target(job_id))).await.unwrap()
    }

    pub(crate) async fn detail(&self, job_id: &str) -> JobDetail {
        self.client.get(target(job_id)).await.unwrap()
    }

    /// Runs a future while jumping over every sleep, each time when everything is at rest.
    pub(crate) async fn drive<T>(&self, future: impl Future<Output = T>) -> T {
        let jump = async {
            loop {
                self.clock.advance_to_next_sleep().await;
            }
        };
        tokio::select! {
            biased;
            output = future => output,
            () = jump => unreachable!("it jumps for ever"),
        }
    }

    /// Lets exactly so long pass. Before and after, everything is at rest.
    pub(crate) async fn pass(&self, time: Duration) {
        self.clock.advance(time).await;
    }

    /// Waits, without moving the clock, for the verdict of the newest execution.
    pub(crate) async fn verdict_now(&self, job_id: &str) -> VerdictRecord {
        let verdict = self.client.wait(target(job_id));
        let message = async {
            let patience = Patience::new();
            while !patience.is_over() {
                self.client.presence().await.unwrap();
            }
            format!("{:#?}", self.client.get(target(job_id)).await)
        };
        tokio::select! {
            biased;
            verdict = verdict => verdict.unwrap(),
            message = message => panic!("job {job_id} has no verdict at this time of the clock: {message}"),
        }
    }

    /// Waits, without moving the clock, until a job is so.
    pub(crate) async fn until(&self, job_id: &str, is_so: impl Fn(&Job) -> bool) -> Job {
        let patience = Patience::new();
        loop {
            let found = self.client.get(target(job_id)).await;
            match found {
                Ok(detail) if is_so(&detail.job) => return detail.job,
                found => patience.check(|| format!("job {job_id} does not become what it should be; it is {found:#?}")),
            }
        }
    }

    /// Lets time pass in steps until a future ends. Before each step everything is at rest.
    pub(crate) async fn pass_time<T>(&self, step: Duration, future: impl Future<Output = T>) -> T {
        let pass = async {
            loop {
                self.clock.advance(step).await;
            }
        };
        tokio::select! {
            biased;
            output = future => output,
            () = pass => unreachable!("it passes for ever"),
        }
    }

    /// Waits, without moving the clock, until the file says so.
    pub(crate) async fn until_sql(&self, query: &str) {
        let patience = Patience::new();
        while !self.sql::<bool>(query) {
            self.client.presence().await.unwrap();
            patience.check(|| format!("the file never says yes to: {query}"));
        }
    }

    /// Waits, without moving the clock, until something beside the file is so.
    pub(crate) async fn until_so(&self, what: &str, is_so: impl Fn() -> bool) {
        let patience = Patience::new();
        while !is_so() {
            tokio::task::yield_now().await;
            patience.check(|| format!("this does not come about: {what}"));
        }
    }

    /// Changes the file behind the host's back.
    pub(crate) fn tamper(&self, sql: &str) {
        let counts =
            "DELETE FROM job_counts; INSERT INTO job_counts SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3";
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(&format!("BEGIN; {sql}; {counts}; COMMIT")).unwrap();
    }

    /// One value out of the file.
    pub(crate) fn sql<T: rusqlite::types::FromSql>(&self, query: &str) -> T {
        rusqlite::Connection::open(self.path()).unwrap().query_row(query, [], |row| row.get(0)).unwrap()
    }
}

/// Sequences that are open without exactly one open step, or closed with one.
pub(crate) const BROKEN_SEQUENCES: &str = "SELECT count(*) FROM jobs s WHERE s.activity = 'sequence' \
     AND (SELECT count(*) FROM jobs j WHERE j.parent_id = s.id AND j.finished_at IS NULL) <> (s.finished_at IS NULL)";

/// The clock waits for what the threads of this file do.
pub(crate) fn observe(clock: &ManualClock, embedded: &Arc<Embedded>) {
    let embedded = Arc::downgrade(embedded);
    clock.observe(move || {
        let embedded = embedded.upgrade();
        Box::pin(async move {
            match embedded {
                Some(embedded) => embedded.at_rest().await,
                None => 0,
            }
        })
    });
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()))
}

impl Drop for TestHost {
    fn drop(&mut self) {
        if self.dir.is_none() || std::thread::panicking() {
            return;
        }
        let counted = "SELECT activity, tenant, state, count FROM job_counts WHERE count <> 0";
        let there = "SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3";
        let miscounted = format!("SELECT EXISTS({counted} EXCEPT {there}) + EXISTS({there} EXCEPT {counted})");
        for (what, query) in [
            ("miscounted", miscounted.as_str()),
            ("left running", "SELECT count(*) FROM jobs WHERE state = 'running'"),
            (
                "closed without exactly one verdict, or open with one",
                "SELECT count(*) FROM jobs j WHERE (j.finished_at IS NOT NULL) <> EXISTS(SELECT 1 FROM job_verdicts v WHERE v.id = j.id) \
                 OR (j.finished_at IS NOT NULL) <> (j.state IN ('completed', 'discarded', 'cancelled'))",
            ),
            ("open as a step although their sequence is closed", BROKEN_SEQUENCES),
        ] {
            assert_eq!(self.sql::<i64>(query), 0, "executions {what}");
        }
    }
}

pub(crate) fn target(job_id: &str) -> Target {
    Target::newest(job_id.parse::<JobId>().unwrap())
}

pub(crate) fn probe_job(job_id: &str, acts: impl IntoIterator<Item = Act>) -> JobRequest {
    let acts: Vec<Value> = acts.into_iter().map(|act| serde_json::to_value(act).unwrap()).collect();
    JobRequest { activity: "probe".into(), input: json!({ "acts": acts }), job_id: Some(job_id.into()), ..JobRequest::default() }
}
