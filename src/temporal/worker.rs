//! The worker on this host: an SDK worker for each slot class, whose tasks become attempts of ours; it drains when it is told to stop.
//!
//! An SDK worker keeps something of every task that it ever had, so each is replaced after a number of tasks (`RECYCLED_AFTER`): a new
//! one polls, and the old one ends with its last attempt.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Category, Clock, Failure, Registry, SlotClass, Stop};
use temporalio_client::Client;
use temporalio_common::ActivityDefinition;
use temporalio_common::data_converters::RawValue;
use temporalio_common::telemetry::TelemetryOptions;
use temporalio_common::worker::{WorkerDeploymentOptions, WorkerDeploymentVersion};
use temporalio_sdk::activities::{ActivityContext, ActivityDefinitions, ActivityError, ActivityImplementer, ExecutableActivity};
use temporalio_sdk::runtime::worker_tuner::{FixedSizeSlotSupplier, TunerHolder};
use temporalio_sdk::runtime::{PollerBehavior, RuntimeOptions};
use temporalio_sdk::{Runtime, Worker as SdkWorker, WorkerOptions as SdkOptions};
use tokio::sync::{Notify, watch};

use super::sequence::SequenceWorkflow;
use super::{Temporal, attempt, connect, gauges};
use crate::client::ClientError;
use crate::telemetry::Metrics;

/// Tasks after which an SDK worker is replaced. It keeps some hundred bytes of each.
const RECYCLED_AFTER: u64 = 20_000;
/// Workflow tasks at once, of each SDK worker. They take no time.
const WORKFLOW_TASKS: usize = 20;
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
    host: Arc<Temporal>,
    client: OnceLock<Client>,
    running: Mutex<Running>,
    number: AtomicU64,
    tasks: BTreeMap<SlotClass, (AtomicU64, Notify)>,
    stopping: watch::Sender<bool>,
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
        if let Some((tasks, recycle)) = self.tasks.get(&class)
            && tasks.fetch_add(1, Ordering::Relaxed) % RECYCLED_AFTER == RECYCLED_AFTER - 1
        {
            recycle.notify_one();
        }
        Started { shared: self.clone(), number }
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
}

impl Drop for Started {
    fn drop(&mut self) {
        self.shared.running().remove(&self.number);
        self.shared.idle.notify_waiters();
    }
}

/// Serves a slot class's task queue until the worker stops.
async fn serve(shared: Arc<Shared>, class: SlotClass) -> Result<(), String> {
    let mut generations = FuturesUnordered::new();
    let mut stopping = shared.stopping.subscribe();
    loop {
        let mut worker = generation(&shared, class).await?;
        let stop = worker.shutdown_handle();
        generations.push(async move { worker.run().await }.boxed_local());
        let recycle = &shared.tasks[&class].1;
        let ended = loop {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => break true,
                () = recycle.notified() => break false,
                Some(ended) = generations.next() => {
                    // An old one ends with its last attempt; the newest only with an error.
                    ended.map_err(|error| error.to_string())?;
                    if generations.is_empty() {
                        return Err("the SDK's worker has ended".to_owned());
                    }
                }
            }
        };
        stop();
        if ended {
            while let Some(ended) = generations.next().await {
                ended.map_err(|error| error.to_string())?;
            }
            return Ok(());
        }
        tracing::info!(slot_class = class.as_str(), "the SDK's worker is replaced by a new one");
    }
}

/// A new SDK worker, on a connection of its own: two on one connection may not poll the same queue.
async fn generation(shared: &Arc<Shared>, class: SlotClass) -> Result<SdkWorker, String> {
    let client = connect::connect(&shared.host.options.connecting).await.map_err(|error| error.to_string())?;
    let runtime = RuntimeOptions::builder().telemetry_options(TelemetryOptions::builder().build()).build()?;
    let runtime = Runtime::from_current_tokio(runtime).map_err(|error| error.to_string())?;
    let tuner = TunerHolder::builder()
        .workflow_task_slot_supplier(FixedSizeSlotSupplier::new(WORKFLOW_TASKS))
        .activity_task_slot_supplier(FixedSizeSlotSupplier::new(shared.slots(class)))
        .local_activity_task_slot_supplier(FixedSizeSlotSupplier::new(1))
        .nexus_task_slot_supplier(FixedSizeSlotSupplier::new(1))
        .build();
    let deployment = match &shared.options.version {
        None => WorkerDeploymentOptions::from_build_id(env!("CARGO_PKG_VERSION").to_owned()),
        Some((name, build)) => {
            let version = WorkerDeploymentVersion::builder().deployment_name(name.clone()).build_id(build.clone()).build();
            WorkerDeploymentOptions::new(version).use_worker_versioning(true).build()
        }
    };
    let options = SdkOptions::new(shared.host.options.queue(class))
        .register_activities(Activities { shared: shared.clone(), class })
        .tuner(tuner)
        .activity_task_poller_behavior(PollerBehavior::SimpleMaximum(shared.options.pollers))
        .deployment_options(deployment)
        .client_identity_override(connect::identity());
    let mut options = options.build();
    if class == SlotClass::Work {
        // The steps of a sequence go to both queues; the sequence itself is work, and takes no slot of it.
        options.register_workflow::<SequenceWorkflow>().map_err(|error| error.to_string())?;
    }
    SdkWorker::new(&runtime, client, options).map_err(|error| error.to_string())
}

thread_local! {
    /// The activity that is being registered: the SDK asks a type for its activity's name, and ours are known only now.
    static REGISTERING: RefCell<String> = const { RefCell::new(String::new()) };
}

/// An activity by its name.
struct ByName(String);

impl ActivityDefinition for ByName {
    type Input = RawValue;
    type Output = RawValue;

    fn name(&self) -> &str {
        &self.0
    }
}

impl ExecutableActivity for ByName {
    type Implementer = Activities;
    const REQUIRES_INSTANCE: bool = true;

    fn definition() -> Self {
        Self(REGISTERING.with_borrow(Clone::clone))
    }

    fn execute(
        receiver: Option<Arc<Activities>>,
        ctx: ActivityContext,
        input: RawValue,
    ) -> BoxFuture<'static, Result<RawValue, ActivityError>> {
        async move {
            if let Some(of) = receiver {
                attempt::attempt(of.shared.clone(), ctx, input, of.class).await;
            }
            // The server has been told, by us.
            Err(ActivityError::WillCompleteAsync)
        }
        .boxed()
    }
}

/// Everything that is registered.
struct Activities {
    shared: Arc<Shared>,
    class: SlotClass,
}

impl ActivityImplementer for Activities {
    fn register_all(self: Arc<Self>, definitions: &mut ActivityDefinitions) {
        for info in self.shared.options.registry.infos() {
            REGISTERING.set(info.name.to_owned());
            definitions.register_activity::<ByName>(self.clone());
        }
    }
}
