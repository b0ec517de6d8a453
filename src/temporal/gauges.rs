//! What is asked for and not recorded: the slots of a worker. How the queue stands, the cluster itself tells.

use std::sync::Arc;

use iolaus_activities::SlotClass;
use opentelemetry::KeyValue;

use super::shared::Shared;
use crate::telemetry::Metrics;
use crate::telemetry::names::{attribute, metric};

/// Registers the gauges of a worker. They last as long as it does.
pub(super) fn watch(worker: &Arc<Shared>, metrics: &Metrics) {
    for (name, of) in [(metric::SLOTS_LIMIT, Shared::slots as fn(&Shared, SlotClass) -> usize), (metric::SLOTS_USED, Shared::used)]
    {
        metrics.gauge(name, Arc::downgrade(worker), move |worker: &Shared, _, observe| {
            for class in [SlotClass::Work, SlotClass::Waits] {
                let slots = u32::try_from(of(worker, class)).unwrap_or(u32::MAX);
                observe(slots.into(), &[KeyValue::new(attribute::SLOT_CLASS, class.as_str())]);
            }
        });
    }
}
