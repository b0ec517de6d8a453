//! How much of an activity or of a tenant may run, and start, over all workers of a queue.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Limits of one activity or one tenant. Zero is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Attempts at once.
    #[serde(default)]
    pub max_running: u32,
    /// Attempts that start in a second, on average; after a pause as many at once, one at least.
    #[serde(default)]
    pub max_starts_per_second: f64,
}

/// The limits of all that has any, by name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttles {
    /// Of activities.
    #[serde(default)]
    pub activities: BTreeMap<String, Throttle>,
    /// Of tenants.
    #[serde(default)]
    pub tenants: BTreeMap<String, Throttle>,
}

impl Throttles {
    /// Whether anything is said about jobs of this activity and tenant.
    pub fn concern(&self, activity: &str, tenant: &str) -> bool {
        self.activities.contains_key(activity) || self.tenants.contains_key(tenant)
    }

    /// The keys of the configuration that bound jobs of this activity and tenant, with their values.
    pub fn keys_of(&self, activity: &str, tenant: &str) -> Vec<String> {
        let kinds = [("activities", activity, self.activities.get(activity)), ("tenants", tenant, self.tenants.get(tenant))];
        let keys = kinds.into_iter().filter_map(|(kind, name, throttle)| Some((kind, name, throttle?))).flat_map(
            |(kind, name, throttle)| {
                let running =
                    (throttle.max_running > 0).then(|| format!("limits.{kind}.{name}.max_running = {}", throttle.max_running));
                let rate = throttle.max_starts_per_second;
                let starts = (rate > 0.0).then(|| format!("limits.{kind}.{name}.max_starts_per_second = {rate}"));
                running.into_iter().chain(starts)
            },
        );
        keys.collect()
    }
}
