//! What happens to jobs, told to the rest of the process once it is durable: who waits for a verdict, who runs what was cancelled, when
//! the next job is due. The file stays the truth; everything here can be lost and read again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iolaus_activities::{SlotClass, Stop, VerdictRecord};
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use super::wake::{Listener, Waker};

/// What a durable transaction means to the rest of the process.
#[derive(Default)]
pub(crate) struct After {
    /// Executions that were closed.
    pub(crate) closed: Vec<(i64, VerdictRecord)>,
    /// Running executions that somebody asked to cancel.
    pub(crate) cancel_requested: Vec<(i64, Option<String>)>,
    /// There may be jobs to claim.
    pub(crate) ready: bool,
    /// When the next scheduled or expiring job is due may have changed.
    pub(crate) timers: bool,
    /// Other processes may want to look.
    pub(crate) wake_others: bool,
}

/// One for each open file.
pub(super) struct Hub {
    waiters: Mutex<HashMap<i64, Vec<oneshot::Sender<()>>>>,
    running: Mutex<HashMap<(i64, i64), Running>>,
    workers: Mutex<HashSet<i64>>,
    timer: watch::Sender<Option<Timestamp>>,
    waker: Waker,
}

/// An attempt of this process.
struct Running {
    worker: i64,
    slot_class: SlotClass,
    stop: watch::Sender<Option<Stop>>,
}

impl Running {
    /// Asks it to stop. The first reason stands, but for a lost lease, which overrides every other.
    fn stop(&self, reason: &Stop) {
        self.stop.send_if_modified(|stop| {
            let changes = stop.is_none() || (*reason == Stop::LeaseLost && *stop != Some(Stop::LeaseLost));
            if changes {
                *stop = Some(reason.clone());
            }
            changes
        });
    }
}

impl Hub {
    pub(super) fn new(waker: Waker) -> Arc<Self> {
        let timer = watch::Sender::new(None);
        Arc::new(Self { waiters: Mutex::default(), running: Mutex::default(), workers: Mutex::default(), timer, waker })
    }

    /// Ends when the execution is closed, in this process or, after [`Hub::told_closed`], in another. Ask the file after subscribing.
    pub(super) fn wait_for(&self, id: i64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = lock(&self.waiters);
        let entry = waiters.entry(id).or_default();
        entry.retain(|waiter| !waiter.is_closed());
        entry.push(sender);
        receiver
    }

    /// The executions that somebody waits for.
    pub(super) fn awaited(&self) -> Vec<i64> {
        let mut waiters = lock(&self.waiters);
        waiters.retain(|_, waiting| {
            waiting.retain(|waiter| !waiter.is_closed());
            !waiting.is_empty()
        });
        waiters.keys().copied().collect()
    }

    /// These executions are closed.
    pub(super) fn told_closed(&self, ids: &[i64]) {
        let mut waiters = lock(&self.waiters);
        for waiter in ids.iter().filter_map(|id| waiters.remove(id)).flatten() {
            // Whoever waited may have given up.
            waiter.send(()).ok();
        }
    }

    /// An attempt of this process has started.
    pub(super) fn started(&self, id: i64, token: i64, worker: i64, slot_class: SlotClass, stop: watch::Sender<Option<Stop>>) {
        lock(&self.running).insert((id, token), Running { worker, slot_class, stop });
    }

    /// It has ended.
    pub(super) fn ended(&self, id: i64, token: i64) {
        lock(&self.running).remove(&(id, token));
    }

    /// Somebody asked to cancel these executions.
    pub(super) fn told_cancelled(&self, requests: &[(i64, Option<String>)]) {
        if requests.is_empty() {
            return;
        }
        for ((id, _), running) in lock(&self.running).iter() {
            if let Some((_, reason)) = requests.iter().find(|(wanted, _)| wanted == id) {
                running.stop(&Stop::Cancelled { reason: reason.clone() });
            }
        }
    }

    /// A worker of this process drains: all it runs, or what it runs of one slot class.
    pub(super) fn told_draining(&self, worker: i64, class: Option<SlotClass>) {
        let mine = |running: &&Running| running.worker == worker && class.is_none_or(|class| class == running.slot_class);
        lock(&self.running).values().filter(mine).for_each(|running| running.stop(&Stop::Draining));
    }

    /// A worker of this process was taken for dead.
    pub(super) fn told_lease_lost(&self, worker: i64) {
        lock(&self.running).values().filter(|running| running.worker == worker).for_each(|running| running.stop(&Stop::LeaseLost));
    }

    /// A worker of this process has a new row; 0 stands for none.
    pub(super) fn worker_changed(&self, from: i64, to: i64) {
        let mut workers = lock(&self.workers);
        workers.remove(&from);
        if to != 0 {
            workers.insert(to);
        }
    }

    /// The rows of this process's workers.
    pub(super) fn workers(&self) -> Vec<i64> {
        lock(&self.workers).iter().copied().collect()
    }

    /// Starts to receive wakes from other processes.
    pub(super) fn listen(&self) -> std::io::Result<Listener> {
        self.waker.listen()
    }

    /// When the next scheduled or expiring job is due.
    pub(super) fn timer(&self) -> watch::Receiver<Option<Timestamp>> {
        self.timer.subscribe()
    }

    pub(super) fn set_timer(&self, at: Option<Timestamp>) {
        self.timer.send_if_modified(|timer| std::mem::replace(timer, at) != at);
    }

    /// A transaction is durable.
    pub(super) fn publish(&self, after: &After) {
        self.told_cancelled(&after.cancel_requested);
        if !after.closed.is_empty() {
            for (_, verdict) in &after.closed {
                crate::telemetry::verdict_event(verdict);
            }
            let ids: Vec<i64> = after.closed.iter().map(|(id, _)| *id).collect();
            self.told_closed(&ids);
        }
        if after.wake_others {
            self.waker.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
