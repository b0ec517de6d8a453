//! What this worker does not ask of tenants for now: shows it to people, asks now and then whether it is over, and lets the jobs of a
//! tenant that is there again be claimed at once.
//!
//! A hold is a process's own, on purpose: another worker may have newer credentials, and then goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iolaus_activities::Failure;
use iolaus_activities::tenant::Hold;
use jiff::Timestamp;

use super::Shared;
use crate::embedded::store::StoredHold;

/// The first probe of a tenant that does not accept our credentials comes after this long.
const FIRST_PROBE: Duration = Duration::from_secs(5);
/// Each further one after twice as long, up to this.
const LONGEST_PROBE: Duration = Duration::from_secs(60);
/// When what is shown could not be stored.
const PAUSE: Duration = Duration::from_secs(5);

/// When the next probe of a tenant is due (monotonic), and how long after the last.
struct Probe {
    at: Duration,
    after: Duration,
}

/// Runs as long as the worker.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut changes = shared.options.tenants.holds_changed();
    let mut shown = (shared.id.load(Ordering::SeqCst), Vec::new());
    let mut probes: BTreeMap<String, Probe> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let holds = shared.options.tenants.holds();
        if let Err(nap) = show(&shared, &holds, &mut shown).await {
            shared.clock.deadline(nap).await;
            continue;
        }
        let now = shared.clock.monotonic();
        probes.retain(|name, _| holds.iter().any(|(held, hold)| held == name && hold.until.is_none()));
        for (name, _) in holds.iter().filter(|(_, hold)| hold.until.is_none()) {
            probes.entry(name.clone()).or_insert_with(|| Probe { at: now + jittered(&shared, FIRST_PROBE), after: FIRST_PROBE });
        }
        if let Some((name, probe)) = probes.iter_mut().find(|(_, probe)| probe.at <= now) {
            if let Err(failure) = ask(&shared, name).await {
                tracing::debug!(tenant = name, code = %failure.code, "the tenant does not accept our credentials yet");
            }
            probe.after = (probe.after * 2).min(LONGEST_PROBE);
            probe.at = shared.clock.monotonic() + jittered(&shared, probe.after);
            continue;
        }
        let next = probes.values().map(|probe| probe.at).chain(holds.iter().filter_map(|(_, hold)| hold.until)).min();
        tokio::select! {
            biased;
            // The tenants live as long as this worker's options.
            _ = changes.changed() => {}
            () = shared.registered.notified() => {}
            () = until(&shared, next) => {}
        }
    }
}

async fn ask(shared: &Shared, tenant: &str) -> Result<(), Failure> {
    shared.options.tenants.get(tenant)?.probe().await
}

async fn until(shared: &Shared, next: Option<Duration>) {
    match next {
        Some(next) => shared.clock.sleep(next.saturating_sub(shared.clock.monotonic())).await,
        None => std::future::pending().await,
    }
}

/// The upper half of a time is left to chance, so that many workers do not ask at once.
fn jittered(shared: &Shared, time: Duration) -> Duration {
    time.mul_f64(shared.clock.random().mul_add(0.5, 0.5))
}

/// Shows what is held, and wakes the claims when less is held than before. On an error, after how long to try again.
async fn show(shared: &Shared, holds: &[(String, Hold)], shown: &mut (i64, Vec<StoredHold>)) -> Result<(), Duration> {
    let worker = shared.id.load(Ordering::SeqCst);
    let now = (worker, holds.iter().map(|(tenant, hold)| stored(shared, tenant, hold)).collect::<Vec<_>>());
    if *shown == now {
        return Ok(());
    }
    let rows = now.1.clone();
    if let Err(error) = shared.store.write(move |tx| tx.show_holds(worker, &rows)).await {
        tracing::warn!(%error, "what is held could not be shown");
        return Err(PAUSE);
    }
    let ended = shown.1.iter().any(|before| now.1.iter().all(|hold| hold.tenant != before.tenant));
    *shown = now;
    if ended {
        shared.store.nudge(true).await;
    }
    Ok(())
}

fn stored(shared: &Shared, tenant: &str, hold: &Hold) -> StoredHold {
    let left = hold.until.map(|until| until.saturating_sub(shared.clock.monotonic()));
    // To the second, so that the same hold is the same row however late one looks.
    let until = left.map(|left| shared.clock.now().saturating_add(left).unwrap_or(Timestamp::MAX));
    let until = until.map(|until| until.round(jiff::Unit::Second).unwrap_or(until));
    StoredHold { tenant: tenant.to_owned(), reason: hold.failure.message.clone(), since: hold.since, until }
}
