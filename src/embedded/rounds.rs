//! Keeps a process in step with the file: promotes due jobs and closes expired ones on time, and after a wake from another process
//! looks for what that process did. A slow round finds whatever a lost wake did not bring.

use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::Clock;
use tokio::sync::Notify;

use super::essential;
use super::queue_clock::{QueueClock, StepWatch};
use super::store::{self, Store, StoreError};
use super::wake::Listener;
use super::wal::WalWatch;

/// The safety net under the wakes.
const ROUND: Duration = Duration::from_secs(5);
/// After an error of the file.
const PAUSE: Duration = Duration::from_secs(1);

/// After a look at everything that somebody waits for, so many times as long as it took goes by before the next one: thousands who wait
/// beside a busy worker in another process cost a fifth of a core and no more.
const REST: u32 = 4;
/// But no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The tasks, which end with this.
pub(super) struct Rounds([tokio::task::JoinHandle<()>; 2]);

impl Rounds {
    pub(super) fn start(store: &Arc<Store>, clock: &Arc<QueueClock>, wal_warn_bytes: u64) -> Self {
        // Before anything else: a wake that comes until then would be lost, and only the next slow round would make up for it.
        let listener = listen(store, None);
        let asked = Arc::new(Notify::new());
        let telling = essential::spawn(store, "tell_closed", tell_closed(store.clone(), clock.clone(), asked.clone()));
        let wal = WalWatch::new(wal_warn_bytes, clock.clone());
        Self([essential::spawn(store, "maintenance", go(store.clone(), clock.clone(), listener, asked, wal)), telling])
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn go(store: Arc<Store>, clock: Arc<QueueClock>, mut listener: Option<Listener>, asked: Arc<Notify>, mut wal: WalWatch) {
    let mut step = StepWatch::default();
    let mut timer = store.hub().timer();
    // Beside others the writer opens its connection, and learns what is due, when it is first asked.
    store.nudge(true).await;
    let (mut round, mut rest) = (clock.deadline(ROUND), false);
    loop {
        let due = *timer.borrow_and_update();
        let wait = due.map(|at| Duration::try_from(at.duration_since(clock.now())).unwrap_or_default());
        // What is due and cannot be written stays due.
        let wait = wait.map(|wait| if rest { wait.max(PAUSE) } else { wait });
        let result = tokio::select! {
            biased;
            () = woken(listener.as_ref()) => look(&store, &asked).await,
            () = due_in(clock.as_ref(), wait) => settle_due(&store).await.map(|passes_over| rest = passes_over),
            _ = timer.changed() => Ok(()),
            () = &mut round => {
                round = clock.deadline(ROUND);
                wal.check(store.path());
                step.check(&clock);
                if listener.as_ref().is_some_and(|listener| !listener.is_in_place()) {
                    listener = listen(&store, listener);
                }
                look(&store, &asked).await
            }
        };
        if let Err(error) = result {
            if let Some(repeated) = store.hub().log_due(&error, clock.monotonic()) {
                tracing::warn!(%error, repeated, "a round over the queue failed; it is repeated");
            }
            clock.deadline(PAUSE).await;
        }
    }
}

/// Binds a socket anew; the one before it, which nobody finds any more, goes first.
fn listen(store: &Store, before: Option<Listener>) -> Option<Listener> {
    drop(before);
    let listening = store.hub().listen();
    let failed =
        |error| tracing::warn!(%error, "wakes from other processes cannot be received; their jobs are found every few seconds");
    listening.map_err(failed).ok()
}

async fn woken(listener: Option<&Listener>) {
    match listener {
        Some(listener) => listener.woken().await,
        None => std::future::pending().await,
    }
}

async fn due_in(clock: &dyn Clock, wait: Option<Duration>) {
    match wait {
        Some(wait) if wait.is_zero() => {}
        Some(wait) => clock.sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Promotes and expires what is due, a bounded number in each transaction. Answers whether damaged jobs were passed over.
async fn settle_due(store: &Store) -> Result<bool, StoreError> {
    // A limit on starts may leave room again.
    store.nudge(true).await;
    loop {
        let (more, passes_over) = store.write(|tx| Ok((tx.promote()? | tx.expire()?, tx.passes_over()))).await?;
        if !more {
            return Ok(passes_over);
        }
    }
}

/// Looks for what other processes did.
async fn look(store: &Store, asked: &Notify) -> Result<(), StoreError> {
    store.nudge(true).await;
    asked.notify_one();
    let workers = store.hub().workers();
    if workers.is_empty() {
        return Ok(());
    }
    let cancelled = store.read(move |conn| {
        let mut cancelled = Vec::new();
        for worker in workers {
            cancelled.extend(store::cancel_requests(conn, worker)?);
        }
        Ok(cancelled)
    });
    store.hub().told_cancelled(&cancelled.await?);
    Ok(())
}

/// Tells those who wait what other processes have closed, whenever there may be something.
async fn tell_closed(store: Arc<Store>, clock: Arc<QueueClock>, asked: Arc<Notify>) {
    loop {
        asked.notified().await;
        let awaited = store.hub().awaited();
        if awaited.is_empty() {
            continue;
        }
        let began = clock.monotonic();
        match store.read(move |conn| store::closed_among(conn, &awaited)).await {
            Ok(closed) => store.hub().told_closed(&closed),
            Err(error) => tracing::warn!(%error, "a look for closed jobs failed; it is repeated"),
        }
        let took = clock.monotonic().saturating_sub(began);
        if !took.is_zero() {
            clock.sleep(took.saturating_mul(REST).min(LONGEST_REST)).await;
        }
    }
}
