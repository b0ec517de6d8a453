//! What the parts of a worker share: its options, the attempts that run, and when an SDK worker has had its tasks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Clock, EffectRegister, Failure, Registry, SlotClass, Stop};
use temporalio_client::Client;
use tokio::sync::{Notify, watch};

use super::{Temporal, served};
use crate::executor::{CancelPlans, InFlight, UnreachedWarnings};
use crate::telemetry::Metrics;

/// Tasks after which an SDK worker is replaced. It keeps some hundred bytes of each.
const RECYCLED_AFTER: u64 = 20_000;
/// The old SDK worker's slots come on top of the new one's until its attempts end. Waits are long: theirs are replaced when no more than
/// this part of the slots is in use, or after this many times as many tasks.
const QUIET_PART: usize = 10;
const BUSY_FACTOR: u64 = 10;

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

/// The attempts that run, by a number of their own, each with the way to stop it.
type Running = BTreeMap<u64, (SlotClass, watch::Sender<Option<Stop>>)>;

/// What the parts of a worker share.
pub(super) struct Shared {
    pub(super) options: WorkerOptions,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) host: Arc<Temporal>,
    client: OnceLock<Client>,
    running: Mutex<Running>,
    number: AtomicU64,
    tasks: BTreeMap<SlotClass, (AtomicU64, Notify)>,
    pub(super) stopping: watch::Sender<bool>,
    /// What the attempts of this process know of each other's effects.
    pub(super) effects: Arc<EffectRegister>,
    /// Effects whose answers are awaited.
    pub(super) in_flight: InFlight,
    pub(super) cancel_plans: CancelPlans,
    gives_up: AtomicBool,
    idle: Notify,
    pub(super) unreached: UnreachedWarnings,
}

impl Shared {
    pub(super) fn new(host: &Arc<Temporal>, client: Client, options: WorkerOptions) -> Self {
        let per_class = || (AtomicU64::new(0), Notify::new());
        Self {
            clock: host.clock.clone(),
            host: host.clone(),
            client: OnceLock::from(client),
            running: Mutex::default(),
            number: AtomicU64::new(0),
            tasks: BTreeMap::from([(SlotClass::Work, per_class()), (SlotClass::Waits, per_class())]),
            stopping: watch::Sender::new(false),
            effects: Arc::default(),
            in_flight: InFlight::default(),
            cancel_plans: CancelPlans::of(&options.registry),
            gives_up: AtomicBool::new(false),
            idle: Notify::new(),
            unreached: UnreachedWarnings::default(),
            options,
        }
    }

    pub(super) fn client(&self) -> Option<Client> {
        self.client.get().cloned()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.host.options.metrics
    }

    /// From now on no end of an attempt is tried to be stored again.
    pub(super) fn give_up(&self) {
        self.gives_up.store(true, Ordering::SeqCst);
    }

    pub(super) fn gives_up(&self) -> bool {
        self.gives_up.load(Ordering::SeqCst)
    }

    /// Refuses an attempt for a tenant that this worker cannot ask.
    pub(super) fn check_tenant(&self, name: &str) -> Result<(), Failure> {
        served::check(&self.options.tenants, name)
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

    /// Tells the attempts of a class, or all, to stop; who was told before keeps that reason.
    pub(super) fn tell(&self, class: Option<SlotClass>, reason: &Stop) {
        for (_, stop) in self.running().values().filter(|(of, _)| class.is_none_or(|class| class == *of)) {
            stop.send_if_modified(|stop| stop.is_none().then(|| *stop = Some(reason.clone())).is_some());
        }
    }

    /// Ends when no attempt runs.
    pub(super) async fn until_idle(&self) {
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
