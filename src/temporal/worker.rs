//! The worker on this host: an SDK worker for each slot class, whose tasks become attempts of ours; it drains when it is told to stop.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Category, Clock, Failure, Registry, SlotClass, Stop};
use temporalio_client::Client;
use tokio::sync::{Notify, watch};

use super::generations::serve;
use super::{Temporal, connect, gauges};
use crate::client::ClientError;
use crate::telemetry::Metrics;

/// Tasks after which an SDK worker is replaced. It keeps some hundred bytes of each.
const RECYCLED_AFTER: u64 = 20_000;
/// The old SDK worker's slots come on top of the new one's until its attempts end. Waits are long: theirs are replaced when no more than
/// this part of the slots is in use, or after this many times as many tasks.
const QUIET_PART: usize = 10;
const BUSY_FACTOR: u64 = 10;
/// After the deadline and the grace, attempts that end have this long to say so.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// How a worker works.
#[derive(Clone)]
pub struct WorkerOptions {
    /// The activities that it runs.
    pub registry: Registry,
    /// The tenants that they act on; None of them: whatever a job names is tried.
    pub tenants: Arc<Tenants>,
    /// Attempts of slot class `work` at a time.
    pub slots_work: usize,
    /// Attempts of slot class `waits` at a time.
    pub slots_waits: usize,
    /// Polls at once, of each slot class.
    pub pollers: usize,
    /// The deployment's name and this build's id, for worker versioning.
    pub version: Option<(String, String)>,
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
    ended: watch::Receiver<Option<Result<(), String>>>,
}

/// Whether a worker is there for jobs.
#[derive(Clone)]
pub struct Readiness {
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<Result<(), String>>>,
}

/// The attempts that run, by a number of their own, each with the way to stop it.
type Running = BTreeMap<u64, (SlotClass, watch::Sender<Option<Stop>>)>;

pub(super) struct Shared {
    pub(super) options: WorkerOptions,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) host: Arc<Temporal>,
    client: OnceLock<Client>,
    running: Mutex<Running>,
    number: AtomicU64,
    tasks: BTreeMap<SlotClass, (AtomicU64, Notify)>,
    pub(super) stopping: watch::Sender<bool>,
    gives_up: AtomicBool,
    idle: Notify,
}

impl Worker {
    /// Connects and starts to poll.
    pub async fn start(host: &Arc<Temporal>, options: WorkerOptions) -> Result<Self, ClientError> {
        let client = host.connected().await?;
        let per_class = || (AtomicU64::new(0), Notify::new());
        let shared = Arc::new(Shared {
            clock: host.clock.clone(),
            host: host.clone(),
            client: OnceLock::from(client),
            running: Mutex::default(),
            number: AtomicU64::new(0),
            tasks: BTreeMap::from([(SlotClass::Work, per_class()), (SlotClass::Waits, per_class())]),
            stopping: watch::Sender::new(false),
            gives_up: AtomicBool::new(false),
            idle: Notify::new(),
            options,
        });
        gauges::watch(&shared, &host.options.metrics);
        let (telling, ended) = watch::channel(None);
        let (handle, serving) = (tokio::runtime::Handle::current(), shared.clone());
        // The SDK's workers are no `Send`: they stay on this thread, and their attempts run on the runtime's.
        let thread = std::thread::Builder::new().name("iolaus-temporal".into()).spawn(move || {
            let both = async {
                let serve = |class| serve(serving.clone(), class);
                tokio::try_join!(serve(SlotClass::Work), serve(SlotClass::Waits)).map(drop)
            };
            telling.send_replace(Some(handle.block_on(both)));
        });
        thread.map_err(|error| host.unavailable(error, false))?;
        let place = host.place();
        tracing::info!(%place, worker = %connect::identity(), "the worker is ready");
        Ok(Self { shared, ended })
    }

    /// Ends when the worker cannot go on, with the reason.
    pub async fn failed(&self) -> ClientError {
        let mut ended = self.ended.clone();
        let why = match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().and_then(Result::err),
            Err(_) => None,
        };
        self.shared.host.unavailable(why.unwrap_or_else(|| "the worker has ended".to_owned()), false)
    }

    /// Says whether it is there for jobs.
    pub fn readiness(&self) -> Readiness {
        Readiness { shared: self.shared.clone(), ended: self.ended.clone() }
    }

    /// Takes no more, lets attempts finish within the deadline, and gives the rest back.
    pub async fn drain(self) -> Result<(), ClientError> {
        let shared = &self.shared;
        shared.stopping.send_replace(true);
        // Waits would outlive any deadline, and resume from their checkpoints.
        shared.tell(Some(SlotClass::Waits), &Stop::Draining);
        let (deadline, grace) = (shared.options.drain_deadline, shared.options.cancel_grace);
        if within(shared, deadline, shared.until_idle()).await.is_none() {
            shared.tell(None, &Stop::Draining);
            within(shared, grace, shared.until_idle()).await;
        }
        shared.gives_up.store(true, Ordering::SeqCst);
        let mut ended = self.ended.clone();
        // The SDK would wait for attempts for ever.
        within(shared, LAST_CALLS, ended.wait_for(Option::is_some)).await;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stopping.send_replace(true);
        self.shared.tell(None, &Stop::LeaseLost);
        self.shared.gives_up.store(true, Ordering::SeqCst);
    }
}

impl Readiness {
    /// Ok while the server answers and the worker polls.
    pub async fn ready(&self) -> Result<(), String> {
        if *self.shared.stopping.borrow() {
            return Err("the worker is draining".to_owned());
        }
        if let Some(ended) = self.ended.borrow().clone() {
            return Err(ended.err().unwrap_or_else(|| "the worker has ended".to_owned()));
        }
        self.shared.host.client().check().await.map_err(|error| error.to_string())
    }
}

async fn within<T>(shared: &Shared, time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = shared.clock.deadline(time) => None,
    }
}

impl Shared {
    pub(super) fn client(&self) -> Option<Client> {
        self.client.get().cloned()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.host.options.metrics
    }

    pub(super) fn gives_up(&self) -> bool {
        self.gives_up.load(Ordering::SeqCst)
    }

    /// A job of a tenant that this worker does not know fails, and may go better on another worker.
    pub(super) fn check_tenant(&self, name: &str) -> Result<(), Failure> {
        if self.options.tenants.names().next().is_none() || self.options.tenants.get(name).is_ok() {
            return Ok(());
        }
        let message = format!("tenant {name} is not configured on this worker");
        Err(Failure::new("tenant.unknown", Category::Precondition, message)
            .suggest(format!("add the section [tenants.{name}] to the configuration of the workers")))
    }

    /// An attempt has started; it has ended when the answer is dropped.
    pub(super) fn started(self: &Arc<Self>, stop: watch::Sender<Option<Stop>>, class: SlotClass) -> Started {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        if self.gives_up() || (*self.stopping.borrow() && class == SlotClass::Waits) {
            stop.send_replace(Some(Stop::Draining));
        }
        self.running().insert(number, (class, stop));
        if let Some((tasks, _)) = self.tasks.get(&class) {
            tasks.fetch_add(1, Ordering::Relaxed);
        }
        Started { shared: self.clone(), number, class }
    }

    /// Ends when the SDK worker of a class has had its tasks. Counting begins anew.
    pub(super) async fn recycled(&self, class: SlotClass) {
        let Some((tasks, recycle)) = self.tasks.get(&class) else { return };
        loop {
            recycle.notified().await;
            // A notice that is left over from the one before says nothing.
            if tasks.load(Ordering::Relaxed) >= RECYCLED_AFTER {
                tasks.store(0, Ordering::Relaxed);
                return;
            }
        }
    }

    fn ended(&self, class: SlotClass) {
        let Some((tasks, recycle)) = self.tasks.get(&class) else { return };
        let tasks = tasks.load(Ordering::Relaxed);
        let quiet = || class == SlotClass::Work || self.used(class) * QUIET_PART <= self.slots(class);
        if tasks >= RECYCLED_AFTER && (tasks >= RECYCLED_AFTER * BUSY_FACTOR || quiet()) {
            recycle.notify_one();
        }
    }

    /// Slots of a class.
    pub(super) fn slots(&self, class: SlotClass) -> usize {
        match class {
            SlotClass::Work => self.options.slots_work,
            SlotClass::Waits => self.options.slots_waits,
        }
    }

    /// Attempts of a class that run.
    pub(super) fn used(&self, class: SlotClass) -> usize {
        self.running().values().filter(|(of, _)| *of == class).count()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, class: Option<SlotClass>, reason: &Stop) {
        for (_, stop) in self.running().values().filter(|(of, _)| class.is_none_or(|class| class == *of)) {
            stop.send_if_modified(|stop| stop.is_none().then(|| *stop = Some(reason.clone())).is_some());
        }
    }

    async fn until_idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.running().is_empty() {
                return;
            }
            idle.await;
        }
    }
}

/// An attempt that runs.
pub(super) struct Started {
    shared: Arc<Shared>,
    number: u64,
    class: SlotClass,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.shared.running().remove(&self.number);
        self.shared.ended(self.class);
        self.shared.idle.notify_waiters();
    }
}
