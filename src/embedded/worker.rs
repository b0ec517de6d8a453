//! The worker: takes claimed jobs, runs each attempt in a task of its own, renews its lease, rescues what dead workers held, and
//! drains when it is told to stop.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iolaus_activities::{BoxFuture, Clock, Registry, SlotClass, Stop};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tracing::Instrument;

use super::Embedded;
use super::store::{self, ClaimRequest, ClaimScope, Claimed, Claimer, Finished, Store, StoreError, WorkerBeat, WorkerRegistration};
use crate::client::ClientError;
use crate::executor::{self, Assignment, AttemptStore, Decision, ExecutorSettings, Outcome, SaveError};
use crate::job::JobId;
use crate::telemetry;

/// How a worker works.
#[derive(Clone)]
pub struct WorkerOptions {
    /// The activities that it runs.
    pub registry: Registry,
    /// Attempts of slot class `work` at a time.
    pub slots_work: usize,
    /// Attempts of slot class `waits` at a time.
    pub slots_waits: usize,
    /// When it drains, attempts may go on for this long.
    pub drain_deadline: Duration,
    /// An attempt that ignores a stop is dropped after this long.
    pub cancel_grace: Duration,
    /// Unchanged progress is worth a warning after this long.
    pub stall_after: Duration,
}

/// Progress is written at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// Between two tries to store the end of an attempt.
const FINISH_PAUSE: Duration = Duration::from_millis(500);
/// A worker renews its lease this often within its timeout.
const BEATS: u32 = 4;
/// Forgetting old executions starts this often.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A running worker. [`Worker::drain`] stops it in order; dropping it stops it as a crash would.
pub struct Worker {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Shared {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    options: WorkerOptions,
    worker_timeout: Duration,
    retention: Duration,
    name: String,
    scope: ClaimScope,
    id: AtomicI64,
    accepting: AtomicBool,
    drains_waits: AtomicBool,
    drains_all: AtomicBool,
    free: BTreeMap<SlotClass, AtomicUsize>,
    running: AtomicUsize,
    idle: Notify,
    renewed: Mutex<Duration>,
    claimed: mpsc::UnboundedSender<Claimed>,
}

impl Worker {
    /// Registers a worker and starts to claim jobs.
    pub async fn start(host: &Arc<Embedded>, options: WorkerOptions) -> Result<Self, ClientError> {
        Self::start_for(host, options, ClaimScope::Any).await
    }

    /// The same for one job alone.
    pub(super) async fn start_one(host: &Arc<Embedded>, options: WorkerOptions, job_id: JobId) -> Result<Self, ClientError> {
        Self::start_for(host, options, ClaimScope::Job(job_id)).await
    }

    async fn start_for(host: &Arc<Embedded>, options: WorkerOptions, scope: ClaimScope) -> Result<Self, ClientError> {
        host.look_after();
        // As many as there are slots, which bounds it.
        let (claimed, receiver) = mpsc::unbounded_channel();
        let slots = [(SlotClass::Work, options.slots_work), (SlotClass::Waits, options.slots_waits)];
        let shared = Arc::new(Shared {
            store: host.store.clone(),
            clock: host.clock.clone(),
            worker_timeout: host.options.worker_timeout,
            retention: host.options.retention,
            name: worker_name(),
            scope,
            id: AtomicI64::new(0),
            accepting: AtomicBool::new(true),
            drains_waits: AtomicBool::new(false),
            drains_all: AtomicBool::new(false),
            free: slots.into_iter().map(|(class, slots)| (class, AtomicUsize::new(slots))).collect(),
            running: AtomicUsize::new(0),
            idle: Notify::new(),
            renewed: Mutex::new(host.clock.monotonic()),
            claimed,
            options,
        });
        shared.register().await.map_err(|error| host.unavailable(error))?;
        host.store.add_claimer(shared.clone()).await;
        let tasks = vec![tokio::spawn(run_claimed(shared.clone(), receiver)), tokio::spawn(stay_alive(shared.clone()))];
        tracing::info!(worker = %shared.name, database = %host.store.path().display(), "the worker is ready");
        Ok(Self { shared, tasks })
    }

    /// Its name, as `status` shows it.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Stops claiming, lets attempts finish until the drain deadline, then gives the rest back.
    pub async fn drain(self) -> Result<(), ClientError> {
        self.drain_within(self.shared.options.drain_deadline).await
    }

    pub(super) async fn drain_within(&self, deadline: Duration) -> Result<(), ClientError> {
        let shared = &self.shared;
        shared.accepting.store(false, Ordering::SeqCst);
        let worker = shared.id.load(Ordering::SeqCst);
        // A claim that was under way is delivered before this answers, so that nothing starts unseen after the last look. A store that
        // fails here fails below, too.
        shared.store.write(|_| Ok(())).await.ok();
        // Waits outlive any deadline, and resume from their checkpoint.
        shared.drain(worker, Some(SlotClass::Waits));
        tokio::select! {
            biased;
            () = shared.until_idle() => {}
            () = shared.clock.deadline(deadline) => {}
        }
        shared.drain(worker, None);
        shared.until_idle().await;
        let place = shared.store.path().display().to_string();
        shared.store.write(move |tx| tx.unregister_worker(worker)).await.map_err(|error| super::unavailable(&place, error))?;
        tracing::info!(worker = %shared.name, "the worker has drained");
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.accepting.store(false, Ordering::SeqCst);
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Claimer for Shared {
    fn request(&self) -> Option<ClaimRequest> {
        if !self.accepting.load(Ordering::SeqCst) {
            return None;
        }
        let free = |class| self.free.get(&class).map_or(0, |free| free.load(Ordering::SeqCst));
        let request = ClaimRequest {
            worker_id: self.id.load(Ordering::SeqCst),
            scope: self.scope.clone(),
            activities: self.options.registry.infos().map(|info| (info.name, info.version)).collect(),
            free_work: free(SlotClass::Work),
            free_waits: free(SlotClass::Waits),
        };
        (request.free() > 0).then_some(request)
    }

    fn deliver(&self, jobs: Vec<Claimed>) {
        for job in jobs {
            if let Some(free) = self.free.get(&job.slot_class) {
                free.fetch_sub(1, Ordering::SeqCst);
            }
            self.running.fetch_add(1, Ordering::SeqCst);
            // The receiver lives as long as the worker; a job claimed after that is rescued as any of a dead worker.
            self.claimed.send(job).ok();
        }
    }

    fn alive(&self) -> bool {
        self.accepting.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn register(&self) -> Result<(), StoreError> {
        let activities = self.options.registry.infos().map(|info| info.name).collect();
        let registration = WorkerRegistration { name: self.name.clone(), activities };
        let sent = self.clock.monotonic();
        let id = self.store.write(move |tx| tx.register_worker(&registration)).await?;
        let previous = self.id.swap(id, Ordering::SeqCst);
        self.store.hub().worker_changed(previous, id);
        self.renewed(sent);
        Ok(())
    }

    fn renewed(&self, at: Duration) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Whether a rescuer cannot have given up on this worker yet, with a fifth of the timeout in hand.
    fn lease_alive(&self) -> bool {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.monotonic().saturating_sub(renewed) < self.worker_timeout * 4 / 5
    }

    fn release(&self, class: SlotClass) {
        if let Some(free) = self.free.get(&class) {
            free.fetch_add(1, Ordering::SeqCst);
        }
        if self.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.idle.notify_waiters();
        }
    }

    /// Tells what runs, and what is about to start, to stop.
    fn drain(&self, worker: i64, class: Option<SlotClass>) {
        let flag = if class.is_some() { &self.drains_waits } else { &self.drains_all };
        flag.store(true, Ordering::SeqCst);
        self.store.hub().told_draining(worker, class);
    }

    fn drains(&self, class: SlotClass) -> bool {
        self.drains_all.load(Ordering::SeqCst) || (class == SlotClass::Waits && self.drains_waits.load(Ordering::SeqCst))
    }

    async fn until_idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.running.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }
}

async fn run_claimed(shared: Arc<Shared>, mut claimed: mpsc::UnboundedReceiver<Claimed>) {
    while let Some(job) = claimed.recv().await {
        tokio::spawn(attempt(shared.clone(), job));
    }
}

/// One attempt: run, decide, store, then tell.
async fn attempt(shared: Arc<Shared>, job: Claimed) {
    let (id, token, class) = (job.id, job.token, job.slot_class);
    let worker = shared.id.load(Ordering::SeqCst);
    let stop = watch::Sender::new(None);
    shared.store.hub().started(id, token, worker, class, stop.clone());
    if shared.drains(class) {
        // It was claimed before the drain and is known to the hub only now.
        stop.send_if_modified(|stop| stop.is_none() && stop.replace(Stop::Draining).is_none());
    }
    let execution = job.execution.clone();
    let span = telemetry::process_span(
        &execution.trace,
        &execution.activity,
        &execution.tenant,
        &execution.job_id,
        execution.run_id,
        execution.attempts,
    );
    telemetry::record_wait(&span, Duration::from_millis(job.waited_ms));
    let outcome = run(&shared, job, stop.clone()).instrument(span.clone()).await;
    let decision = finish(&shared, id, token, &execution, outcome, &stop).instrument(span.clone()).await;
    let (named, error) = telling(&decision);
    telemetry::record_outcome(&span, named, error.as_deref());
    drop(span);
    shared.store.hub().ended(id, token);
    shared.release(class);
    shared.store.nudge(false).await;
}

async fn run(shared: &Arc<Shared>, job: Claimed, stop: watch::Sender<Option<Stop>>) -> Outcome {
    // A claim takes only what is registered.
    let Some(activity) = shared.options.registry.get(&job.execution.activity).cloned() else { return Outcome::Drained };
    let settings = ExecutorSettings {
        cancel_grace: shared.options.cancel_grace,
        stall_after: shared.options.stall_after,
        progress_interval: PROGRESS_INTERVAL,
    };
    let store = Arc::new(Lease { shared: shared.clone(), id: job.id, token: job.token });
    let assignment = Assignment { activity, execution: job.execution, input: job.input, checkpoint: job.checkpoint };
    executor::run_attempt(assignment, store, stop, shared.clock.clone(), &settings).await
}

/// Stores the end of an attempt. A store that fails is asked again for as long as the lease may live: the write is fenced, so that
/// repeating it is harmless.
async fn finish(
    shared: &Arc<Shared>,
    id: i64,
    token: i64,
    execution: &executor::Execution,
    outcome: Outcome,
    stop: &watch::Sender<Option<Stop>>,
) -> Decision {
    let mut cancel_requested = matches!(*stop.borrow(), Some(Stop::Cancelled { .. }));
    loop {
        let decision = executor::decide(execution, outcome.clone(), cancel_requested, shared.clock.now(), shared.clock.random());
        let stored = decision.clone();
        match shared.store.write(move |tx| tx.finish(id, token, &stored)).await {
            Ok(Finished::Done) => return decision,
            Ok(Finished::CancelRequested) => cancel_requested = true,
            Ok(Finished::LeaseLost) => {
                tracing::warn!(
                    job_id = %execution.job_id, run_id = %execution.run_id, attempt = execution.attempts,
                    "the attempt lost its lease; nothing was written"
                );
                return Decision::Nothing;
            }
            Err(error) => {
                tracing::error!(job_id = %execution.job_id, run_id = %execution.run_id, %error, "the end of an attempt was not stored");
                if matches!(error, StoreError::Closed) || !shared.lease_alive() {
                    return Decision::Nothing;
                }
                shared.clock.sleep(FINISH_PAUSE).await;
            }
        }
    }
}

/// The outcome's name and error type, for the trace.
fn telling(decision: &Decision) -> (&'static str, Option<String>) {
    match decision {
        Decision::Close(closing) => (closing.state.as_str(), closing.verdict.failure.as_ref().map(|failure| failure.code.clone())),
        Decision::Retry { failure, .. } => ("retry_scheduled", Some(failure.code.clone())),
        Decision::GiveBack => ("drained", None),
        Decision::Nothing => ("lost", Some("lease_lost".to_owned())),
    }
}

/// The durable side of one attempt.
struct Lease {
    shared: Arc<Shared>,
    id: i64,
    token: i64,
}

impl AttemptStore for Lease {
    fn save(&self, checkpoint: Value) -> BoxFuture<'_, Result<(), SaveError>> {
        let (id, token) = (self.id, self.token);
        Box::pin(async move {
            match self.shared.store.write(move |tx| tx.save_checkpoint(id, token, &checkpoint)).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(SaveError::LeaseLost),
                Err(error) => Err(SaveError::Unavailable(error.to_string())),
            }
        })
    }

    fn report(&self, progress: Option<Value>, stalled_since: Option<Timestamp>) -> BoxFuture<'_, ()> {
        let (id, token) = (self.id, self.token);
        Box::pin(async move {
            let written = self.shared.store.write(move |tx| tx.save_progress(id, token, progress.as_ref(), stalled_since)).await;
            if let Err(error) = written {
                tracing::debug!(%error, "progress was not stored");
            }
        })
    }

    fn lease_alive(&self) -> bool {
        self.shared.lease_alive()
    }
}

/// Renews the lease, and looks for workers that do not.
async fn stay_alive(shared: Arc<Shared>) {
    let mut seen: HashMap<i64, (WorkerBeat, Duration)> = HashMap::new();
    let mut pruned = shared.clock.monotonic();
    loop {
        shared.clock.deadline(shared.worker_timeout / BEATS).await;
        if let Err(error) = renew(&shared).await {
            tracing::error!(%error, worker = %shared.name, "the lease was not renewed");
            continue;
        }
        if let Err(error) = rescue_dead(&shared, &mut seen).await {
            tracing::error!(%error, worker = %shared.name, "dead workers could not be looked for");
        }
        if shared.clock.monotonic().saturating_sub(pruned) >= PRUNE_EVERY {
            pruned = shared.clock.monotonic();
            if let Err(error) = prune(&shared).await {
                tracing::error!(%error, "old executions could not be forgotten");
            }
        }
    }
}

async fn renew(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let (id, sent) = (shared.id.load(Ordering::SeqCst), shared.clock.monotonic());
    if shared.store.write(move |tx| tx.beat(id)).await? {
        shared.renewed(sent);
        return Ok(());
    }
    tracing::warn!(worker = %shared.name, "another worker took this one for dead; its attempts end and it starts anew");
    shared.store.hub().told_lease_lost(id);
    shared.register().await
}

async fn rescue_dead(shared: &Arc<Shared>, seen: &mut HashMap<i64, (WorkerBeat, Duration)>) -> Result<(), StoreError> {
    let own = shared.id.load(Ordering::SeqCst);
    let now = shared.clock.monotonic();
    let beats = shared.store.read(store::beats).await?;
    seen.retain(|id, _| beats.iter().any(|beat| beat.id == *id));
    for beat in beats.into_iter().filter(|beat| beat.id != own) {
        let (last, since) = seen.entry(beat.id).or_insert_with(|| (beat.clone(), now)).clone();
        if last != beat {
            seen.insert(beat.id, (beat, now));
        } else if now.saturating_sub(since) >= shared.worker_timeout {
            seen.remove(&beat.id);
            rescue(shared, beat).await?;
        }
    }
    Ok(())
}

async fn rescue(shared: &Arc<Shared>, beat: WorkerBeat) -> Result<(), StoreError> {
    let mut total = 0;
    loop {
        let dead = beat.clone();
        let (rescued, more) = shared.store.write(move |tx| tx.rescue(&dead)).await?;
        total += rescued;
        if !more {
            break;
        }
    }
    tracing::warn!(worker = %shared.name, dead = %beat.name, jobs = total, "a worker died; its jobs were rescued");
    Ok(())
}

async fn prune(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let Ok(before) = shared.clock.now().checked_sub(shared.retention) else { return Ok(()) };
    while shared.store.write(move |tx| tx.prune(before)).await? {}
    Ok(())
}

fn worker_name() -> String {
    let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let host = host.as_deref().map(str::trim).filter(|host| !host.is_empty()).unwrap_or("localhost").to_owned();
    format!("{host}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
