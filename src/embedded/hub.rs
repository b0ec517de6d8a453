//! What happens to jobs, told to the rest of the process once it is durable: who waits for a verdict, who runs what was cancelled, when
//! the next job is due. The file stays the truth; everything here can be lost and read again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use iolaus_activities::{SlotClass, Stop};
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use super::error::StoreError;
use super::log_limit::LogLimit;
use super::wake::{Interest, Listener, News, Waker};
use crate::executor::Closing;
use crate::telemetry::Metrics;

/// What a durable transaction means to the rest of the process.
#[derive(Default)]
pub(crate) struct After {
    /// Executions that were closed.
    pub(crate) closed: Vec<Closed>,
    /// Running executions that somebody asked to cancel.
    pub(crate) cancel_requested: Vec<(i64, Option<String>)>,
    /// There may be jobs to claim.
    pub(crate) ready: bool,
    /// When the next scheduled or expiring job is due may have changed.
    pub(crate) timers: bool,
    /// When a limit on starts leaves room for a job that waits.
    pub(crate) next_start: Option<Timestamp>,
    /// Activity and tenant of each job that was taken from a dead worker.
    pub(crate) rescued: Vec<(String, String)>,
    /// Other processes may want to look.
    pub(crate) wake_others: bool,
}

/// How far this had come before an operation.
pub(crate) struct Mark {
    lengths: [usize; 3],
    flags: [bool; 3],
    next_start: Option<Timestamp>,
}

impl After {
    pub(crate) fn mark(&self) -> Mark {
        let lengths = [self.closed.len(), self.cancel_requested.len(), self.rescued.len()];
        Mark { lengths, flags: [self.ready, self.timers, self.wake_others], next_start: self.next_start }
    }

    /// Forgets what was added since: the operation was undone.
    pub(crate) fn undo(&mut self, to: &Mark) {
        let [closed, cancel_requested, rescued] = to.lengths;
        self.closed.truncate(closed);
        self.cancel_requested.truncate(cancel_requested);
        self.rescued.truncate(rescued);
        [self.ready, self.timers, self.wake_others] = to.flags;
        self.next_start = to.next_start;
    }
}

/// An execution that was closed.
pub(crate) struct Closed {
    pub(crate) id: i64,
    pub(crate) closing: Arc<Closing>,
    /// An attempt of this process ended it, and tells its verdict itself: the writer has better things to do than to write log lines.
    pub(crate) by_attempt: bool,
}

/// One for each open file.
pub(super) struct Hub {
    waiters: Mutex<HashMap<i64, Vec<oneshot::Sender<()>>>>,
    running: Mutex<HashMap<(i64, i64), Running>>,
    workers: Mutex<HashSet<i64>>,
    failure: OnceLock<StoreError>,
    timer: watch::Sender<Option<Timestamp>>,
    /// Jobs wait for a free slot of this process.
    wants_slots: AtomicBool,
    /// Operations of the writer that it has nothing left to do of.
    served: AtomicU64,
    waker: Waker,
    metrics: Metrics,
    logged: Mutex<LogLimit>,
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
    pub(super) fn new(waker: Waker, metrics: Metrics) -> Arc<Self> {
        let timer = watch::Sender::new(None);
        Arc::new(Self {
            waiters: Mutex::default(),
            running: Mutex::default(),
            workers: Mutex::default(),
            failure: OnceLock::new(),
            timer,
            wants_slots: AtomicBool::new(false),
            served: AtomicU64::new(0),
            waker,
            metrics,
            logged: Mutex::default(),
        })
    }

    /// Ends when the execution is closed, in this process or, after [`Hub::told_closed`], in another. Ask the file after subscribing.
    pub(super) fn wait_for(&self, id: i64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = lock(&self.waiters);
        let entry = waiters.entry(id).or_default();
        entry.retain(|waiter| !waiter.is_closed());
        entry.push(sender);
        drop(waiters);
        self.interest_changed();
        receiver
    }

    /// The executions that somebody waits for.
    pub(super) fn awaited(&self) -> Vec<i64> {
        let mut waiters = lock(&self.waiters);
        waiters.retain(|_, waiting| {
            waiting.retain(|waiter| !waiter.is_closed());
            !waiting.is_empty()
        });
        let awaited = waiters.keys().copied().collect();
        drop(waiters);
        self.interest_changed();
        awaited
    }

    /// Others know what concerns this process.
    fn interest_changed(&self) {
        self.waker.change(|| self.interest());
    }

    fn interest(&self) -> Interest {
        if !lock(&self.workers).is_empty() {
            return Interest::Everything;
        }
        let waiters = lock(&self.waiters);
        match waiters.keys().next() {
            Some(id) if waiters.len() == 1 => Interest::Closed(*id),
            _ => Interest::AnyClosed,
        }
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
        drop(workers);
        self.interest_changed();
    }

    /// The rows of this process's workers.
    pub(super) fn workers(&self) -> Vec<i64> {
        lock(&self.workers).iter().copied().collect()
    }

    /// Starts to receive wakes from other processes.
    pub(super) fn listen(&self) -> std::io::Result<Listener> {
        self.waker.listen(self.interest())
    }

    /// When the next scheduled or expiring job is due.
    pub(super) fn timer(&self) -> watch::Receiver<Option<Timestamp>> {
        self.timer.subscribe()
    }

    pub(super) fn set_timer(&self, at: Option<Timestamp>) {
        self.timer.send_if_modified(|timer| std::mem::replace(timer, at) != at);
    }

    /// The writer says whether jobs wait for a free slot of this process.
    pub(super) fn set_wants_slots(&self, wants: bool) {
        self.wants_slots.store(wants, Ordering::SeqCst);
    }

    /// Whether whoever frees a slot should tell the writer. A slot that is free before this is asked is seen by the writer otherwise.
    pub(super) fn wants_slots(&self) -> bool {
        self.wants_slots.load(Ordering::SeqCst)
    }

    /// The writer has nothing left to do of so many more operations.
    pub(super) fn add_served(&self, operations: u64) {
        self.served.fetch_add(operations, Ordering::SeqCst);
    }

    /// How many operations the writer has nothing left to do of.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    /// This process must not use the file any more.
    pub(super) fn fail(&self, error: StoreError) {
        // The first reason stands.
        self.failure.set(error).ok();
    }

    /// Why this process must not use the file any more.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.get().cloned()
    }

    /// Whether an error of the file is to be logged, and how often it was not since it was logged last.
    pub(super) fn log_due(&self, error: &StoreError, now: Duration) -> Option<u64> {
        lock(&self.logged).due(&error.to_string(), now)
    }

    /// Where what happens is counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A transaction is durable.
    pub(super) fn publish(&self, after: &After) {
        self.told_cancelled(&after.cancel_requested);
        let ids: Vec<i64> = after.closed.iter().map(|closed| closed.id).collect();
        if !ids.is_empty() {
            for closed in after.closed.iter().filter(|closed| !closed.by_attempt) {
                crate::telemetry::verdict_event(&closed.closing.verdict, &closed.closing.logged());
                self.metrics.verdict(&closed.closing.verdict);
            }
            self.told_closed(&ids);
        }
        for (activity, tenant) in &after.rescued {
            self.metrics.rescued(activity, tenant);
        }
        if after.wake_others {
            self.waker.wake(News { closed: &ids });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_is_undone_tells_nothing() {
        let mut after = After { ready: true, cancel_requested: vec![(1, None)], ..After::default() };
        let mark = after.mark();
        after.cancel_requested.push((2, None));
        after.rescued.push(("a".into(), "t".into()));
        (after.timers, after.wake_others, after.next_start) = (true, true, Some(Timestamp::UNIX_EPOCH));
        after.undo(&mark);
        assert_eq!(after.cancel_requested, [(1, None)]);
        assert!(after.ready && !after.timers && !after.wake_others && after.rescued.is_empty() && after.next_start.is_none());
    }
}
