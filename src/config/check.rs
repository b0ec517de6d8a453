//! What a configuration that could be read must hold: ranges, keys that go together, names that are there.

use std::collections::BTreeMap;
use std::time::Duration;

use config::{Map, Value};
use iolaus_activities::{duration, tenant};

use super::load::{at, plain};
use super::variables::non_empty;
use super::{Config, ConfigError, Environment, HostKind};
use crate::job::{Throttle, limits};
use crate::telemetry;

/// The variables that name a proxy. The library that reads them ignores what it cannot read.
const PROXIES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
/// Connections of the HTTP server. Fewer leave no room for two probes and Prometheus beside a client that misbehaves.
const CONNECTIONS: std::ops::RangeInclusive<usize> = 8..=65_536;
/// Tenants that are counted under their own name. Each may have some hundred series, and these are kept in memory.
const COUNTED_TENANTS: std::ops::RangeInclusive<usize> = 0..=100_000;
/// What the HTTP server may wait for a client, and a client for it.
const HTTP_TIME: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);

fn limits_of_the_queue(config: &Config, merged: &Map<String, Value>) -> Result<(), ConfigError> {
    let of = |kind: &'static str, limits: &BTreeMap<String, Throttle>| {
        limits.iter().map(move |(name, limit)| (format!("limits.{kind}.{name}"), *limit)).collect::<Vec<_>>()
    };
    for (key, limit) in of("activities", &config.limits.activities).into_iter().chain(of("tenants", &config.limits.tenants)) {
        let rate = limit.max_starts_per_second;
        if rate != 0.0 && !(0.001..=1_000_000.0).contains(&rate) {
            let key = format!("{key}.max_starts_per_second");
            return Err(at(merged, &key, &format!("{rate} is out of range"), "choose 0.001 to 1000000, or 0 for no limit"));
        }
    }
    if let Some(name) = config.limits.tenants.keys().find(|name| !config.tenants.contains_key(*name)) {
        let known = tenant::few(config.tenants.keys().map(String::as_str));
        return Err(at(merged, &format!("limits.tenants.{name}"), "there is no such tenant", &format!("the tenants are {known}")));
    }
    Ok(())
}

/// Bytes of jobs that may wait to be stored.
const WAITING: std::ops::RangeInclusive<u64> = 65_536..=1 << 31;
/// Bytes of write-ahead log that are no cause for a warning.
const LOG: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;

pub(super) fn values(config: &Config, merged: &Map<String, Value>) -> Result<(), ConfigError> {
    let worker = &config.worker;
    for (key, slots) in [("worker.slots_work", worker.slots_work), ("worker.slots_waits", worker.slots_waits)] {
        if !(1..=1_000_000).contains(&slots) {
            return Err(at(merged, key, &format!("{slots} is out of range"), "choose 1 to 1000000"));
        }
    }
    for (key, time, least) in [
        ("worker.worker_timeout", worker.worker_timeout, Duration::from_secs(1)),
        ("worker.stall_after", worker.stall_after, Duration::from_secs(1)),
        ("database.write_timeout", config.database.write_timeout, Duration::from_secs(1)),
        ("database.retention", config.database.retention, Duration::from_secs(60)),
    ] {
        if time < least {
            return Err(at(merged, key, "is too short", &format!("choose {} or more", iolaus_activities::duration::format(least))));
        }
    }
    if !(1..=1_000).contains(&worker.max_deaths) {
        return Err(at(merged, "worker.max_deaths", &format!("{} is out of range", worker.max_deaths), "choose 1 to 1000"));
    }
    let waiting = u64::try_from(config.database.max_waiting_bytes).unwrap_or(u64::MAX);
    for (key, bytes, range) in
        [("database.max_waiting_bytes", waiting, WAITING), ("database.wal_warn_bytes", config.database.wal_warn_bytes, LOG)]
    {
        if !range.contains(&bytes) {
            let hint = format!("choose {} to {}", range.start(), range.end());
            return Err(at(merged, key, &format!("{bytes} is out of range"), &hint));
        }
    }
    if !config.log.level.is_empty() {
        telemetry::check_filter(&config.log.level)
            .map_err(|problem| at(merged, "log.level", &problem, "write info, debug, or warn,iolaus=debug"))?;
    }
    limits_of_the_queue(config, merged)?;
    temporal(config, merged)?;
    http(config, merged)?;
    let most = config.metrics.max_tenants;
    if !COUNTED_TENANTS.contains(&most) {
        let hint = format!("choose {} to {}", COUNTED_TENANTS.start(), COUNTED_TENANTS.end());
        return Err(at(merged, "metrics.max_tenants", &format!("{most} is out of range"), &hint));
    }
    tenants(config, merged)?;
    for (name, overrides) in &config.activities {
        overrides.validate().map_err(|refused| {
            let field = refused.field.strip_prefix("options.").unwrap_or(&refused.field).to_owned();
            at(merged, &format!("activities.{name}.{field}"), &refused.reason, "correct it, or remove it for the default")
        })?;
    }
    Ok(())
}

fn temporal(config: &Config, merged: &Map<String, Value>) -> Result<(), ConfigError> {
    let temporal = &config.temporal;
    if let Some((problem, hint)) = missing_host(config.host.kind, cfg!(feature = "temporal")) {
        return Err(at(merged, "host.kind", problem, hint));
    }
    if temporal.task_queue.is_empty() || temporal.task_queue.len() > limits::NAME {
        let hint = format!("choose a name of 1 to {} bytes", limits::NAME);
        return Err(at(merged, "temporal.task_queue", "is empty or too long", &hint));
    }
    if !(1..=1_000).contains(&temporal.pollers) {
        return Err(at(merged, "temporal.pollers", &format!("{} is out of range", temporal.pollers), "choose 1 to 1000"));
    }
    for (key, time, least) in
        [("connect_timeout", temporal.connect_timeout, 1), ("heartbeat_timeout", temporal.heartbeat_timeout, 1)]
    {
        if time < Duration::from_secs(least) {
            return Err(at(merged, &format!("temporal.{key}"), "is too short", &format!("choose {least}s or more")));
        }
    }
    if temporal.tls_cert_file.is_some() != temporal.tls_key_file.is_some() {
        let (missing, other) = if temporal.tls_cert_file.is_some() {
            ("temporal.tls_key_file", "tls_cert_file")
        } else {
            ("temporal.tls_cert_file", "tls_key_file")
        };
        return Err(at(merged, missing, &format!("is not set, and {other} is"), "set both, or neither"));
    }
    if temporal.deployment.is_empty() != temporal.build_id.is_empty() {
        return Err(at(merged, "temporal.build_id", "and temporal.deployment go together", "set both, or neither"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !temporal.tenant_attribute.chars().all(plain) {
        return Err(at(merged, "temporal.tenant_attribute", "is no name of a search attribute", "use letters, digits and `_`"));
    }
    Ok(())
}

/// The HTTP server's bounds.
fn http(config: &Config, merged: &Map<String, Value>) -> Result<(), ConfigError> {
    let http = &config.http;
    if !CONNECTIONS.contains(&http.max_connections) {
        let hint = format!("choose {} to {}", CONNECTIONS.start(), CONNECTIONS.end());
        return Err(at(merged, "http.max_connections", &format!("{} is out of range", http.max_connections), &hint));
    }
    for (key, time) in [
        ("http.header_timeout", http.header_timeout),
        ("http.request_timeout", http.request_timeout),
        ("http.idle_timeout", http.idle_timeout),
    ] {
        if !HTTP_TIME.contains(&time) {
            let hint = format!("choose {} to {}", duration::format(*HTTP_TIME.start()), duration::format(*HTTP_TIME.end()));
            return Err(at(merged, key, &format!("{} is out of range", duration::format(time)), &hint));
        }
    }
    Ok(())
}

/// Addresses and limits of each tenant. Secrets are not read here.
fn tenants(config: &Config, merged: &Map<String, Value>) -> Result<(), ConfigError> {
    config.tenants.iter().try_for_each(|(name, settings)| {
        settings.check(name).map_err(|error| at(merged, &format!("tenants.{name}.{}", error.key), &error.problem, error.hint))
    })
}

/// The proxy variables, whose values may hold a password and are not shown.
pub(super) fn proxies(environment: &Environment) -> Result<(), ConfigError> {
    let is_wrong = |name: &&&str| non_empty(environment, name).is_some_and(|value| !value.to_str().is_some_and(tenant::is_proxy));
    match PROXIES.iter().find(is_wrong) {
        None => Ok(()),
        Some(name) => Err(plain(
            &format!("the variable {name}"),
            "is no address of a proxy",
            &format!("write an address such as http://proxy.example.com:3128, or unset {name}"),
        )),
    }
}

/// What a build without the Temporal host says when it is asked for it.
pub(super) fn missing_host(kind: HostKind, has_temporal: bool) -> Option<(&'static str, &'static str)> {
    let hint = "use the image or build with `--features temporal`, or write kind = \"embedded\"";
    (kind == HostKind::Temporal && !has_temporal).then_some(("this build has no temporal host", hint))
}
