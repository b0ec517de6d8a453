//! What this worker does not ask of tenants for now: shows it to people, asks now and then whether it is over, and lets the jobs of a
//! tenant that is there again be claimed at once.
//!
//! A hold is a process's own, on purpose: another worker may have newer credentials, and then goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iolaus_activities::tenant::{Hold, Tenant};
use jiff::Timestamp;
use tokio::task::{AbortHandle, JoinSet};

use super::Shared;
use crate::embedded::store::{StoreError, StoredHold};

/// The first probe of a tenant that does not accept our credentials comes after this long. One that fails at everything has its own
/// times.
const FIRST_PROBE: Duration = Duration::from_secs(5);
/// Each further one after twice as long, up to this.
const LONGEST_PROBE: Duration = Duration::from_secs(60);
/// When what is shown could not be stored.
const PAUSE: Duration = Duration::from_secs(5);

/// Holds that one transaction stores.
const MAX_CHANGES: usize = 256;

/// The holds as they were stored, under which row of the worker.
type Shown = (i64, Vec<StoredHold>);

/// Runs as long as the worker.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut changes = shared.options.tenants.holds_changed();
    let mut shown: Shown = (shared.id.load(Ordering::SeqCst), Vec::new());
    let mut held = BTreeSet::new();
    let mut probes = Probes::default();
    loop {
        let is_news = changes.has_changed().unwrap_or(false);
        changes.mark_unchanged();
        let holds = shared.options.tenants.holds();
        let names = holds.iter().map(|(name, _)| name.clone()).collect();
        // A hold may also have begun and ended since the last look, and a claim may have passed its jobs over meanwhile.
        if is_news || !held.is_subset(&names) {
            shared.store.nudge(true).await;
        }
        held = names;
        probes.follow(&shared, &holds);
        let stored = show(&shared, &holds, &mut shown).await;
        if let Err(error) = &stored {
            tracing::warn!(%error, "what is held could not be shown");
        }
        let ends = holds.iter().filter_map(|(_, hold)| hold.until).min();
        tokio::select! {
            biased;
            // The tenants live as long as this worker's options.
            _ = changes.changed() => {}
            () = shared.registered.notified() => {}
            () = until(&shared, ends) => {}
            () = shared.clock.deadline(PAUSE), if stored.is_err() => {}
        }
    }
}

async fn until(shared: &Shared, ends: Option<Duration>) {
    match ends {
        Some(ends) => shared.clock.sleep(ends.saturating_sub(shared.clock.monotonic())).await,
        None => std::future::pending().await,
    }
}

/// One probe for each tenant that is held until a probe is answered, in a task of its own, since one may hang. They end with the watch.
#[derive(Default)]
struct Probes {
    tasks: JoinSet<()>,
    /// By the tenant, and since when it is held.
    of: BTreeMap<(String, Timestamp), AbortHandle>,
}

impl Probes {
    /// Ends the probes of holds that are over, and starts those of new ones.
    fn follow(&mut self, shared: &Arc<Shared>, holds: &[(String, Hold)]) {
        let probed: BTreeSet<_> =
            holds.iter().filter(|(_, hold)| hold.until.is_none()).map(|(name, hold)| (name.clone(), hold.since)).collect();
        self.of.retain(|hold, probe| {
            let stands = probed.contains(hold);
            if !stands {
                probe.abort();
            }
            stands
        });
        while self.tasks.try_join_next().is_some() {}
        for hold in probed.into_iter().filter(|hold| !self.of.contains_key(hold)).collect::<Vec<_>>() {
            // A tenant that is held is known.
            let Ok(tenant) = shared.options.tenants.get(&hold.0) else { continue };
            let probe = self.tasks.spawn(probe(shared.clone(), tenant));
            self.of.insert(hold, probe);
        }
    }
}

/// Asks whether the tenant knows us, or answers, again, until it is aborted.
async fn probe(shared: Arc<Shared>, tenant: Arc<Tenant>) {
    let mut after = FIRST_PROBE;
    loop {
        let wait = tenant.probe_interval().unwrap_or(after);
        shared.clock.sleep(jittered(&shared, wait)).await;
        if tenant.hold().is_some_and(|hold| hold.until.is_none())
            && let Err(failure) = tenant.probe().await
        {
            tracing::debug!(tenant = tenant.name(), code = %failure.code, "the tenant is still held");
        }
        after = (after * 2).min(LONGEST_PROBE);
    }
}

/// The upper half of a time is left to chance, so that many workers do not ask at once.
fn jittered(shared: &Shared, time: Duration) -> Duration {
    time.mul_f64(shared.clock.random().mul_add(0.5, 0.5))
}

/// Stores what is held for people to see, if it is not what they see already.
async fn show(shared: &Shared, holds: &[(String, Hold)], shown: &mut Shown) -> Result<(), StoreError> {
    let worker = shared.id.load(Ordering::SeqCst);
    let now = (worker, holds.iter().map(|(tenant, hold)| stored(shared, tenant, hold)).collect::<Vec<_>>());
    if *shown == now {
        return Ok(());
    }
    // After an error it is not known what is stored.
    let before = std::mem::take(shown);
    let mut clears = before.0 != worker;
    let (was, is) = (if clears { BTreeMap::new() } else { by_tenant(&before.1) }, by_tenant(&now.1));
    let gone = was.keys().filter(|tenant| !is.contains_key(*tenant)).map(|tenant| ((*tenant).to_owned(), None));
    let changed = is.iter().filter(|(tenant, hold)| was.get(*tenant) != Some(hold));
    let changed = changed.map(|(tenant, hold)| ((*tenant).to_owned(), Some((*hold).clone())));
    let mut rest = gone.chain(changed).collect::<Vec<_>>();
    while clears || !rest.is_empty() {
        let step: Vec<_> = rest.drain(..rest.len().min(MAX_CHANGES)).collect();
        shared.store.write(move |tx| tx.show_holds(worker, clears, &step)).await?;
        clears = false;
    }
    *shown = now;
    Ok(())
}

fn by_tenant(holds: &[StoredHold]) -> BTreeMap<&str, &StoredHold> {
    holds.iter().map(|hold| (hold.tenant.as_str(), hold)).collect()
}

fn stored(shared: &Shared, tenant: &str, hold: &Hold) -> StoredHold {
    let left = hold.until.map(|until| until.saturating_sub(shared.clock.monotonic()));
    // To the second, so that the same hold is the same row however late one looks.
    let until = left.map(|left| shared.clock.now().saturating_add(left).unwrap_or(Timestamp::MAX));
    let until = until.map(|until| until.round(jiff::Unit::Second).unwrap_or(until));
    StoredHold { tenant: tenant.to_owned(), reason: hold.failure.message.clone(), since: hold.since, until }
}
