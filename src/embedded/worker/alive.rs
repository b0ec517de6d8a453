//! Liveness: renews the worker's lease, rescues what dead workers held, and forgets old executions on the way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use crate::embedded::store::{self, StoreError, WorkerBeat};

/// A worker renews its lease this often within its timeout.
const BEATS: u32 = 4;
/// Forgetting old executions starts this often.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Renews the lease, and looks for workers that do not.
pub(super) async fn stay_alive(shared: Arc<Shared>) {
    let mut seen: HashMap<i64, (WorkerBeat, Duration)> = HashMap::new();
    let mut looked = shared.clock.monotonic();
    let mut every = shared.worker_timeout / BEATS;
    loop {
        shared.clock.deadline(every).await;
        if let Err(error) = renew(&shared).await {
            if let Some(repeated) = shared.store.hub().log_due(&error, shared.clock.monotonic()) {
                tracing::error!(%error, worker = %shared.name, repeated, "the lease was not renewed");
            }
            continue;
        }
        // After a freeze of this process the others' beats are as old as it was frozen: they get their time anew.
        let now = shared.clock.monotonic();
        if now.saturating_sub(looked) > every * 2 {
            seen.clear();
        }
        looked = now;
        match rescue_dead(&shared, &mut seen).await {
            // Another worker may have a shorter timeout, which is kept here as well.
            Ok(shortest) => every = shortest.unwrap_or(Duration::MAX).min(shared.worker_timeout) / BEATS,
            Err(error) => {
                if let Some(repeated) = shared.store.hub().log_due(&error, shared.clock.monotonic()) {
                    tracing::error!(%error, worker = %shared.name, repeated, "dead workers could not be looked for");
                }
            }
        }
    }
}

/// Forgets old executions, a few in each transaction, so that the lease is renewed in between.
pub(super) async fn forget_old(shared: Arc<Shared>) {
    loop {
        shared.clock.deadline(PRUNE_EVERY).await;
        if let Err(error) = prune(&shared).await {
            tracing::error!(%error, "old executions could not be forgotten");
        }
    }
}

async fn renew(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let (id, sent) = (shared.id.load(Ordering::SeqCst), shared.clock.monotonic());
    let recorded = shared.recorded_retention();
    let beat = shared.store.write(move |tx| {
        recorded.map_or(Ok(()), |retention| tx.hold_retention(retention))?;
        tx.beat(id)
    });
    if beat.await? {
        shared.renewed(sent);
        return Ok(());
    }
    tracing::warn!(worker = %shared.name, "another worker took this one for dead; its attempts end and it starts anew");
    shared.store.hub().told_lease_lost(id);
    shared.register().await
}

/// Answers the shortest timeout of the other workers.
async fn rescue_dead(
    shared: &Arc<Shared>,
    seen: &mut HashMap<i64, (WorkerBeat, Duration)>,
) -> Result<Option<Duration>, StoreError> {
    let own = shared.id.load(Ordering::SeqCst);
    let now = shared.clock.monotonic();
    let beats = shared.store.read(store::beats).await?;
    let shortest = beats.iter().filter(|beat| beat.id != own).map(|beat| beat.timeout).min();
    seen.retain(|id, _| beats.iter().any(|beat| beat.id == *id));
    for beat in beats.into_iter().filter(|beat| beat.id != own) {
        let (last, since) = seen.entry(beat.id).or_insert_with(|| (beat.clone(), now)).clone();
        if last != beat {
            seen.insert(beat.id, (beat, now));
        } else if now.saturating_sub(since) >= beat.timeout {
            seen.remove(&beat.id);
            rescue(shared, beat).await?;
        }
    }
    Ok(shortest)
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
    if total == 0 {
        // It held nothing, or another rescuer was first.
        return Ok(());
    }
    tracing::warn!(worker = %shared.name, dead = %beat.name, jobs = total, "a worker died; its jobs were rescued");
    Ok(())
}

async fn prune(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let retention = shared.retention;
    while shared.store.write(move |tx| Ok(tx.prune_unkept(retention)? | tx.prune_effects()?)).await? {}
    Ok(())
}
