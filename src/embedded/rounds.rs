//! Keeps a process in step with the file: promotes due jobs and closes expired ones on time, and after a wake from another process
//! looks for what that process did. A slow round finds whatever a lost wake did not bring.

use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::Clock;

use super::store::{self, Store, StoreError};
use super::wake::Listener;

/// The safety net under the wakes.
const ROUND: Duration = Duration::from_secs(5);
/// After an error of the file.
const PAUSE: Duration = Duration::from_secs(1);

/// The task, which ends with this.
pub(super) struct Rounds(tokio::task::JoinHandle<()>);

impl Rounds {
    pub(super) fn start(store: Arc<Store>, clock: Arc<dyn Clock>) -> Self {
        Self(tokio::spawn(go(store, clock)))
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn go(store: Arc<Store>, clock: Arc<dyn Clock>) {
    let listener = match store.hub().listen() {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(%error, "wakes from other processes cannot be received; their jobs are found every few seconds");
            None
        }
    };
    let mut timer = store.hub().timer();
    let mut round = clock.deadline(ROUND);
    loop {
        let due = *timer.borrow_and_update();
        let wait = due.map(|at| Duration::try_from(at.duration_since(clock.now())).unwrap_or_default());
        let result = tokio::select! {
            biased;
            () = woken(listener.as_ref()) => look(&store).await,
            () = due_in(clock.as_ref(), wait) => settle_due(&store).await,
            _ = timer.changed() => Ok(()),
            () = &mut round => {
                round = clock.deadline(ROUND);
                look(&store).await
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "a round over the queue failed; it is repeated");
            clock.deadline(PAUSE).await;
        }
    }
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

/// Promotes and expires what is due, a bounded number in each transaction.
async fn settle_due(store: &Store) -> Result<(), StoreError> {
    while store.write(|tx| Ok(tx.promote()? | tx.expire()?)).await? {}
    Ok(())
}

/// Looks for what other processes did.
async fn look(store: &Store) -> Result<(), StoreError> {
    store.nudge(true).await;
    let (awaited, workers) = (store.hub().awaited(), store.hub().workers());
    if awaited.is_empty() && workers.is_empty() {
        return Ok(());
    }
    let (closed, cancelled) = store
        .read(move |conn| {
            let closed = store::closed_among(conn, &awaited)?;
            let mut cancelled = Vec::new();
            for worker in workers {
                cancelled.extend(store::cancel_requests(conn, worker)?);
            }
            Ok((closed, cancelled))
        })
        .await?;
    store.hub().told_closed(&closed);
    store.hub().told_cancelled(&cancelled);
    Ok(())
}
