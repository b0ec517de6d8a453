//! The worker: takes claimed jobs, runs each attempt in a task of its own, and drains when it is told to stop.

mod alive;
mod attempt;
mod gauges;
mod holds;
mod served;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Clock, Registry, SlotClass, Stop};
use tokio::sync::{Notify, mpsc, watch};

use super::store::{
    ClaimRequest, ClaimScope, Claimed, Claimer, ServedTenants, ShareTable, Shares, Store, StoreError, WorkerRegistration,
};
use super::{Embedded, essential, store};
use crate::client::ClientError;
use crate::executor;
use crate::job::{JobId, Throttles};

/// How a worker works.
#[derive(Clone)]
pub struct WorkerOptions {
    /// The activities that it runs.
    pub registry: Registry,
    /// The tenants that they act on. Jobs are taken only of those with an address and credentials, and of none that is held; each has its
    /// share of the slots. None of them: whatever a job names is taken.
    pub tenants: Arc<Tenants>,
    /// Limits over all workers of the file.
    pub throttles: Arc<Throttles>,
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

/// A running worker. [`Worker::drain`] stops it in order; dropping it stops it as a crash would.
pub struct Worker {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// A job under a lease, and the way to stop its attempt.
type Delivered = (Box<Claimed>, watch::Sender<Option<Stop>>);

struct Shared {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    options: WorkerOptions,
    worker_timeout: Duration,
    retention: Duration,
    name: String,
    scope: ClaimScope,
    served: Arc<ServedTenants>,
    unreached: executor::UnreachedWarnings,
    id: AtomicI64,
    accepting: AtomicBool,
    drains_waits: AtomicBool,
    drains_all: AtomicBool,
    free: BTreeMap<SlotClass, AtomicUsize>,
    running: AtomicUsize,
    /// Whose jobs the slots of each class may go to.
    shares: BTreeMap<SlotClass, Arc<ShareTable>>,
    /// Attempts that run, by slot class and tenant.
    by_tenant: Mutex<BTreeMap<SlotClass, BTreeMap<String, usize>>>,
    /// Told after each registration: the row is a new one.
    registered: Notify,
    idle: Notify,
    renewed: Mutex<Duration>,
    claimed: mpsc::Sender<Delivered>,
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
        host.check_may_work()?;
        host.look_after();
        let (claimed, receiver) = mpsc::channel(options.slots_work + options.slots_waits);
        let slots = [(SlotClass::Work, options.slots_work), (SlotClass::Waits, options.slots_waits)];
        let shared = Arc::new(Shared {
            store: host.store.clone(),
            clock: host.clock.clone(),
            worker_timeout: host.options.worker_timeout,
            retention: host.options.retention,
            name: executor::of_this_worker(),
            shares: slots.into_iter().map(|(class, slots)| (class, served::shares(slots, &options.tenants))).collect(),
            scope,
            served: Arc::new(served::served(&options.tenants)),
            unreached: executor::UnreachedWarnings::default(),
            id: AtomicI64::new(0),
            accepting: AtomicBool::new(true),
            drains_waits: AtomicBool::new(false),
            drains_all: AtomicBool::new(false),
            free: slots.into_iter().map(|(class, slots)| (class, AtomicUsize::new(slots))).collect(),
            running: AtomicUsize::new(0),
            by_tenant: Mutex::default(),
            registered: Notify::new(),
            idle: Notify::new(),
            renewed: Mutex::new(host.clock.monotonic()),
            claimed,
            options,
        });
        shared.register().await.map_err(|error| host.unavailable(error))?;
        host.store.add_claimer(shared.clone()).await;
        gauges::watch_worker(&shared, &host.options.metrics);
        let tasks = vec![
            essential::spawn(&shared.store, "run_claimed", run_claimed(shared.clone(), receiver)),
            essential::spawn(&shared.store, "stay_alive", alive::stay_alive(shared.clone())),
            essential::spawn(&shared.store, "forget_old", alive::forget_old(shared.clone())),
            essential::spawn(&shared.store, "watch_holds", holds::watch(shared.clone())),
        ];
        tracing::info!(worker = %shared.name, database = %host.store.path().display(), "the worker is ready");
        Ok(Self { shared, tasks })
    }

    /// Its name, as `status` shows it.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Ends when this process must stop using the file, as when a newer version has upgraded it.
    pub async fn failed(&self) -> ClientError {
        let error = self.shared.store.failed().await;
        super::unavailable(&self.shared.store.path().display().to_string(), error)
    }

    /// What probes ask. It may outlive the worker, and then says no.
    pub fn readiness(&self) -> Readiness {
        Readiness(self.shared.clone())
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
        // A beat that met a removed row would register anew.
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        shared.store.write(move |tx| tx.unregister_worker(worker)).await.map_err(|error| super::unavailable(&place, error))?;
        shared.store.hub().worker_changed(worker, 0);
        tracing::info!(worker = %shared.name, "the worker has drained");
        Ok(())
    }
}

/// Whether a worker works.
#[derive(Clone)]
pub struct Readiness(Arc<Shared>);

impl Readiness {
    /// Whether it claims jobs, gives its signs of life, and the file answers. `Err` says what is wrong.
    pub async fn ready(&self) -> Result<(), String> {
        let shared = &self.0;
        if !shared.accepting.load(Ordering::SeqCst) {
            return Err("the worker drains".into());
        }
        if !shared.lease_alive() {
            return Err("the worker could not give its sign of life in time".into());
        }
        let registered = shared.id.load(Ordering::SeqCst);
        let beats = shared.store.read(store::beats).await.map_err(|error| format!("the queue does not answer: {error}"))?;
        if !beats.iter().any(|beat| beat.id == registered) {
            return Err("the queue does not know the worker".into());
        }
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
    fn free(&self) -> usize {
        if !self.accepting.load(Ordering::SeqCst) || !self.lease_alive() {
            return 0;
        }
        self.free.values().map(|free| free.load(Ordering::SeqCst)).sum()
    }

    fn request(&self) -> Option<ClaimRequest> {
        if Claimer::free(self) == 0 {
            return None;
        }
        let request = ClaimRequest {
            worker_id: self.id.load(Ordering::SeqCst),
            scope: self.scope.clone(),
            activities: self.options.registry.infos().map(|info| (info.name, info.version)).collect(),
            tenants: self.served.clone(),
            work: self.shares(SlotClass::Work),
            waits: self.shares(SlotClass::Waits),
            throttles: self.options.throttles.clone(),
        };
        (request.free() > 0).then_some(request)
    }

    fn deliver(&self, worker_id: i64, jobs: Vec<Claimed>) {
        for mut job in jobs {
            if let Some(free) = self.free.get(&job.slot_class) {
                let before = free.fetch_sub(1, Ordering::SeqCst);
                debug_assert!(before > 0, "no more is claimed than there are free slots");
            }
            self.running.fetch_add(1, Ordering::SeqCst);
            self.store.hub().metrics().consumed(&job.execution.activity);
            self.counts(|counts| {
                let of_class = counts.entry(job.slot_class).or_default();
                *of_class.entry(job.execution.tenant.clone()).or_default() += 1;
            });
            // Known from this moment on, so that no cancel and no drain misses it before its task has run.
            let stop = watch::Sender::new(job.cancelled.take());
            self.store.hub().started(job.id, job.token, worker_id, job.slot_class, stop.clone());
            if self.drains(job.slot_class) {
                // One that only undoes does so all the same.
                stop.send_if_modified(|stop| stop.is_none().then(|| *stop = Some(Stop::Draining)).is_some());
            }
            // There is room for as many as there are slots. The receiver lives as long as the worker; a job claimed after that is rescued
            // as any of a dead worker.
            self.claimed.try_send((Box::new(job), stop)).ok();
        }
    }

    fn alive(&self) -> bool {
        self.accepting.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn register(&self) -> Result<(), StoreError> {
        let activities = self.options.registry.infos().map(|info| info.name).collect();
        let tenants = self.served.as_ref().clone();
        let job_id = match &self.scope {
            ClaimScope::Any => None,
            ClaimScope::Job(job_id) => Some(job_id.clone()),
        };
        let (name, timeout) = (self.name.clone(), self.worker_timeout);
        let registration = WorkerRegistration { name, activities, tenants, timeout, job_id };
        let sent = self.clock.monotonic();
        let recorded = self.recorded_retention();
        let id = self.store.write(move |tx| {
            recorded.map_or(Ok(()), |retention| tx.set_retention(retention))?;
            tx.register_worker(&registration)
        });
        let id = id.await?;
        let previous = self.id.swap(id, Ordering::SeqCst);
        self.store.hub().worker_changed(previous, id);
        self.registered.notify_one();
        self.renewed(sent);
        Ok(())
    }

    /// What the file says of how long closed executions are kept: nothing by one that works a single job and not the queue.
    fn recorded_retention(&self) -> Option<Duration> {
        matches!(self.scope, ClaimScope::Any).then_some(self.retention)
    }

    fn renewed(&self, at: Duration) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Whether a rescuer cannot have given up on this worker yet, with a fifth of the timeout in hand.
    fn lease_alive(&self) -> bool {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.monotonic().saturating_sub(renewed) < self.worker_timeout * 4 / 5
    }

    fn counts<T>(&self, f: impl FnOnce(&mut BTreeMap<SlotClass, BTreeMap<String, usize>>) -> T) -> T {
        f(&mut self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The free slots of a class, and whose jobs may have them. Who works one job alone takes it whatever its tenant says.
    fn shares(&self, class: SlotClass) -> Shares {
        let free = self.free.get(&class).map_or(0, |free| free.load(Ordering::SeqCst));
        match (&self.scope, self.shares.get(&class)) {
            (ClaimScope::Any, Some(table)) => {
                Shares::new(table.clone(), free, self.counts(|counts| counts.get(&class).cloned().unwrap_or_default()))
            }
            _ => Shares::unlimited(free),
        }
    }

    fn release(&self, class: SlotClass, tenant: &str) {
        self.counts(|counts| {
            let of_class = counts.entry(class).or_default();
            if of_class.get_mut(tenant).is_some_and(|count| {
                *count -= 1;
                *count == 0
            }) {
                of_class.remove(tenant);
            }
        });
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

async fn run_claimed(shared: Arc<Shared>, mut claimed: mpsc::Receiver<Delivered>) {
    while let Some((job, stop)) = claimed.recv().await {
        tokio::spawn(attempt::attempt(shared.clone(), job, stop));
    }
}
