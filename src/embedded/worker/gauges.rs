//! What is asked for and not recorded: slots, and how the queue stands. Asked by whoever reads the metrics, on a thread that may block;
//! nothing is read from the file unless somebody asks.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iolaus_activities::SlotClass;
use jiff::Timestamp;
use opentelemetry::KeyValue;
use rusqlite::Connection;

use super::Shared;
use crate::client::PauseKind;
use crate::embedded::store::{self, StoreError};
use crate::embedded::wal;
use crate::telemetry::Metrics;
use crate::telemetry::names::{attribute, metric};

/// Registers the gauges of a worker. They last as long as it does.
pub(super) fn watch_worker(worker: &Arc<Shared>, metrics: &Metrics) {
    let slots = |name: metric::Name, of: fn(&Shared, SlotClass) -> usize| {
        metrics.gauge(name, Arc::downgrade(worker), move |worker: &Shared, _, observe| {
            for class in [SlotClass::Work, SlotClass::Waits] {
                let slots = u32::try_from(of(worker, class)).unwrap_or(u32::MAX);
                observe(slots.into(), &[KeyValue::new(attribute::SLOT_CLASS, class.as_str())]);
            }
        });
    };
    slots(metric::SLOTS_LIMIT, slots_of);
    slots(metric::SLOTS_USED, |worker, class| {
        let free = worker.free.get(&class).map_or(0, |free| free.load(Ordering::SeqCst));
        slots_of(worker, class).saturating_sub(free)
    });
    metrics.gauge(metric::CLAIM_TIME, Arc::downgrade(worker), |_: &Shared, metrics, observe| {
        if let Some(at) = metrics.claimed_at() {
            observe(at, &[]);
        }
    });
    metrics.gauge(metric::WAL_SIZE, Arc::downgrade(worker), |worker: &Shared, _, observe| {
        #[expect(clippy::cast_precision_loss, reason = "no disk is so large")]
        observe(wal::size(worker.store.path()) as f64, &[]);
    });
    metrics.gauge(metric::JOBS, Arc::downgrade(worker), |worker: &Shared, metrics, observe| {
        sums(
            observe,
            read(worker, store::counts).unwrap_or_default().into_iter().map(|count| {
                let state = KeyValue::new(attribute::STATE, count.state.as_str());
                let of = vec![metrics.activity(&count.activity), state, metrics.tenant(&count.tenant)];
                #[expect(clippy::cast_precision_loss, reason = "no queue has so many jobs")]
                let jobs = count.count as f64;
                (of, jobs)
            }),
        );
    });
    metrics.gauge(metric::OLDEST_AGE, Arc::downgrade(worker), |worker: &Shared, metrics, observe| {
        let mut oldest = read(worker, store::oldest_due_of_each).unwrap_or_default().into_iter().collect::<Vec<_>>();
        // Of those that share a series, the oldest is told last.
        oldest.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        for ((activity, tenant), at) in oldest {
            observe(age(worker, at), &[metrics.activity(&activity), metrics.tenant(&tenant)]);
        }
    });
    metrics.gauge(metric::RUNNING_AGE, Arc::downgrade(worker), |worker: &Shared, metrics, observe| {
        let mut running = read(worker, store::longest_running).unwrap_or_default();
        running.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        for (activity, at) in running {
            observe(age(worker, at), &[metrics.activity(&activity)]);
        }
    });
    metrics.gauge(metric::TENANT_PAUSED, Arc::downgrade(worker), |worker: &Shared, metrics, observe| {
        let all = read(worker, store::pauses).unwrap_or_default().into_iter();
        let paused = all.filter(|pause| pause.kind == PauseKind::Tenant).map(|pause| (pause.name, "operator"));
        // Several workers may hold one tenant, which is one all the same.
        let held = read(worker, store::holds).unwrap_or_default().into_iter().map(|hold| (hold.tenant, "tenant"));
        let waiting: BTreeSet<_> = paused.chain(held).collect();
        sums(
            observe,
            waiting
                .into_iter()
                .map(|(tenant, reason)| (vec![KeyValue::new(attribute::REASON, reason), metrics.tenant(&tenant)], 1.0)),
        );
    });
}

/// Observes values, added up where names that are not known share a series.
fn sums(observe: &dyn Fn(f64, &[KeyValue]), values: impl Iterator<Item = (Vec<KeyValue>, f64)>) {
    let mut sums: HashMap<Vec<KeyValue>, f64> = HashMap::new();
    for (of, value) in values {
        *sums.entry(of).or_default() += value;
    }
    for (of, sum) in &sums {
        observe(*sum, of);
    }
}

fn slots_of(worker: &Shared, class: SlotClass) -> usize {
    match class {
        SlotClass::Work => worker.options.slots_work,
        SlotClass::Waits => worker.options.slots_waits,
    }
}

fn read<T>(worker: &Shared, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Option<T> {
    let read = worker.store.read_here(query);
    read.inspect_err(|error| tracing::debug!(%error, "a gauge could not be read")).ok()
}

/// Seconds since then.
fn age(worker: &Shared, at: Timestamp) -> f64 {
    Duration::try_from(worker.clock.now().duration_since(at)).unwrap_or_default().as_secs_f64()
}
