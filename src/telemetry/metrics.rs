//! What is counted and measured, under the names of [`names::metric`](super::names::metric). Recorded once a transaction is durable.
//!
//! Every attribute is bounded: an activity or a tenant that is neither registered nor configured is `other`, and nothing else comes from
//! outside. A job's id, an address or the text of an error is never an attribute.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use iolaus_activities::VerdictRecord;
use opentelemetry::metrics::noop::NoopMeterProvider;
use opentelemetry::metrics::{AsyncInstrument, Counter, Histogram, Meter, MeterProvider as _};
use opentelemetry::{KeyValue, StringValue};

use super::Meters;
use super::names::{self, attribute, metric, operation};

/// What is not known by name.
pub const OTHER: &str = "other";
/// Different checks that are counted by name; the rest is `other`.
const CHECKS: usize = 64;
/// The checks that tenants are known to make.
const TENANT_CHECKS: [&str; 2] = ["UserEnabled", "AtlanPublishPermission"];
/// The longest label value, in bytes.
const LABEL: usize = 64;
/// Seconds. Of what takes as long as a job: from a millisecond to eight hours.
const JOB: [f64; 17] =
    [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 28_800.0];
/// Seconds, of one attempt.
const ATTEMPT: [f64; 14] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0, 28_800.0];
/// Seconds, of an operation on the queue, of a commit.
const OPERATION: [f64; 12] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];
/// Operations of one commit.
const SIZES: [f64; 11] = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// The activities and tenants that are attributes under their own name. All others share one, which is their sum.
#[derive(Debug, Clone, Default)]
pub struct Known {
    activities: BTreeMap<String, Arc<str>>,
    tenants: BTreeMap<String, Arc<str>>,
}

impl Known {
    /// These, and no others.
    pub fn new<'a>(activities: impl IntoIterator<Item = &'a str>, tenants: impl IntoIterator<Item = &'a str>) -> Self {
        let name = |name: &'a str| (name.to_owned(), Arc::from(name));
        Self { activities: activities.into_iter().map(name).collect(), tenants: tenants.into_iter().map(name).collect() }
    }

    /// Of the tenants only so many, the first in alphabetical order: every process with the same configuration names the same.
    #[must_use]
    pub fn with_max_tenants(mut self, most: usize) -> Self {
        if let Some(first_without) = self.tenants.keys().nth(most).cloned() {
            self.tenants.split_off(&first_without);
        }
        self
    }

    fn activity(&self, name: &str) -> StringValue {
        bounded(&self.activities, name)
    }

    fn tenant(&self, name: &str) -> StringValue {
        bounded(&self.tenants, name)
    }
}

fn bounded(known: &BTreeMap<String, Arc<str>>, name: &str) -> StringValue {
    known.get(name).map_or_else(|| OTHER.into(), |name| name.clone().into())
}

/// The instruments. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Instruments>);

struct Instruments {
    known: Known,
    meter: Meter,
    sent: Counter<u64>,
    consumed: Counter<u64>,
    operations: Histogram<f64>,
    process: Histogram<f64>,
    waited: Histogram<f64>,
    lasted: Histogram<f64>,
    attempts: Counter<u64>,
    verdicts: Counter<u64>,
    checks: Counter<u64>,
    claims: Counter<u64>,
    leases_lost: Counter<u64>,
    rescues: Counter<u64>,
    commits: Counter<u64>,
    commit_duration: Histogram<f64>,
    commit_size: Histogram<f64>,
    check_names: std::sync::Mutex<BTreeSet<String>>,
    /// Unix time of the last claim that worked, in milliseconds; 0: none yet.
    claimed_at: AtomicI64,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Nobody reads them.
impl Default for Metrics {
    fn default() -> Self {
        Self::of(NoopMeterProvider::new().meter(names::SERVICE), Known::default())
    }
}

impl Metrics {
    /// Instruments that these meters read.
    pub fn new(meters: &Meters, known: Known) -> Self {
        meters.limits().know(known.activities.len(), known.tenants.len());
        Self::of(meters.provider().meter(names::SERVICE), known)
    }

    fn of(meter: Meter, known: Known) -> Self {
        let counter = |(name, unit, description)| meter.u64_counter(name).with_unit(unit).with_description(description).build();
        let histogram = |(name, unit, description), boundaries: &[f64]| {
            meter.f64_histogram(name).with_unit(unit).with_description(description).with_boundaries(boundaries.to_vec()).build()
        };
        let (leases_lost, rescues) = (counter(metric::LEASES_LOST), counter(metric::RESCUES));
        // They are there before the first time, so that the first time is an increase.
        for activity in known.activities.values() {
            let of = [KeyValue::new(attribute::ACTIVITY, activity.clone())];
            leases_lost.add(0, &of);
            rescues.add(0, &of);
        }
        Self(Arc::new(Instruments {
            leases_lost,
            rescues,
            sent: counter(metric::SENT),
            consumed: counter(metric::CONSUMED),
            operations: histogram(metric::OPERATION_DURATION, &OPERATION),
            process: histogram(metric::PROCESS_DURATION, &ATTEMPT),
            waited: histogram(metric::WAIT_DURATION, &JOB),
            lasted: histogram(metric::JOB_DURATION, &JOB),
            attempts: counter(metric::ATTEMPTS),
            verdicts: counter(metric::VERDICTS),
            checks: counter(metric::CHECKS),
            claims: counter(metric::CLAIMS),
            commits: counter(metric::COMMITS),
            commit_duration: histogram(metric::COMMIT_DURATION, &OPERATION),
            commit_size: histogram(metric::COMMIT_SIZE, &SIZES),
            check_names: std::sync::Mutex::default(),
            claimed_at: AtomicI64::new(0),
            known,
            meter,
        }))
    }

    /// A gauge that is asked for and not recorded, for as long as what it asks is there.
    pub fn gauge<W: Send + Sync + 'static>(
        &self,
        (name, unit, description): metric::Name,
        of: Weak<W>,
        ask: impl Fn(&W, &Self, &dyn Fn(f64, &[KeyValue])) + Send + Sync + 'static,
    ) {
        let known = self.clone();
        let callback = move |observer: &dyn AsyncInstrument<f64>| {
            if let Some(asked) = of.upgrade() {
                ask(&asked, &known, &|value, of| observer.observe(value, of));
            }
        };
        self.meter().f64_observable_gauge(name).with_unit(unit).with_description(description).with_callback(callback).build();
    }

    /// The meter, for what is asked for instead of recorded.
    pub fn meter(&self) -> &Meter {
        &self.0.meter
    }

    /// The attribute of an activity.
    pub fn activity(&self, name: &str) -> KeyValue {
        KeyValue::new(attribute::ACTIVITY, self.0.known.activity(name))
    }

    /// The attribute of a tenant.
    pub fn tenant(&self, name: &str) -> KeyValue {
        KeyValue::new(attribute::TENANT_NAME, self.0.known.tenant(name))
    }

    /// Somebody enqueued jobs of an activity, or failed to.
    pub fn sent(&self, activity: &str, jobs: u64, took: Duration, error: Option<&'static str>) {
        let of = self.operation(operation::SEND, activity, error);
        self.0.operations.record(took.as_secs_f64(), &of);
        self.0.sent.add(jobs, &of);
    }

    /// A worker was given a job.
    pub fn consumed(&self, activity: &str) {
        self.0.consumed.add(1, &self.operation(operation::RECEIVE, activity, None));
    }

    /// An attempt ran and its end was stored, in this time each.
    pub fn attempt(&self, end: &AttemptEnd<'_>) {
        let instruments = &self.0;
        let (activity, tenant) = (self.activity(end.activity), self.tenant(end.tenant));
        instruments.waited.record(end.waited.as_secs_f64(), &[activity.clone(), tenant.clone()]);
        let error = end.error.map(|code| KeyValue::new(attribute::ERROR_TYPE, code.to_owned()));
        let process: Vec<_> = [Some(activity.clone()), error].into_iter().flatten().collect();
        instruments.process.record(end.ran.as_secs_f64(), &process);
        instruments.operations.record(end.stored.as_secs_f64(), &self.operation(operation::ACK, end.activity, None));
        if end.outcome == "lost" {
            instruments.leases_lost.add(1, std::slice::from_ref(&activity));
        }
        instruments.attempts.add(1, &[activity, KeyValue::new(attribute::OUTCOME_NAME, end.outcome), tenant]);
    }

    /// A job has its verdict.
    pub fn verdict(&self, verdict: &VerdictRecord) {
        let instruments = &self.0;
        let activity = self.activity(&verdict.activity);
        let status = KeyValue::new(attribute::VERDICT_STATUS, verdict.status.as_str());
        let lasted = Duration::from_millis(verdict.duration_ms);
        instruments.lasted.record(lasted.as_secs_f64(), &[activity.clone(), status.clone()]);
        instruments.verdicts.add(1, &[activity.clone(), self.tenant(&verdict.tenant), status]);
        for check in &verdict.checks {
            let name = KeyValue::new(attribute::CHECK, self.check_name(&verdict.activity, &check.name));
            instruments.checks.add(1, &[activity.clone(), name, KeyValue::new(attribute::PASSED, check.passed)]);
        }
    }

    /// The checks of a preflight are named by the tenant, so only the known ones are counted by name; all others by us or by the caller.
    fn check_name(&self, activity: &str, name: &str) -> String {
        let by_tenant = activity == "publish_preflight" && !TENANT_CHECKS.contains(&name);
        if by_tenant || name.len() > LABEL {
            return OTHER.to_owned();
        }
        let mut names = self.0.check_names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if names.contains(name) {
            return name.to_owned();
        }
        if names.len() >= CHECKS {
            return OTHER.to_owned();
        }
        names.insert(name.to_owned());
        name.to_owned()
    }

    /// A job of a dead worker was taken from it.
    pub fn rescued(&self, activity: &str, tenant: &str) {
        let activity = self.activity(activity);
        self.0.rescues.add(1, std::slice::from_ref(&activity));
        self.0.attempts.add(1, &[activity, KeyValue::new(attribute::OUTCOME_NAME, "lost"), self.tenant(tenant)]);
    }

    /// A transaction was durable: so many operations in this time, and jobs that it claimed. `at` is milliseconds of Unix time.
    pub fn committed(&self, operations: usize, took: Duration, claims: Option<usize>, at: i64) {
        self.0.commits.add(1, &[]);
        self.0.commit_duration.record(took.as_secs_f64(), &[]);
        self.0.commit_size.record(f64::from(u32::try_from(operations).unwrap_or(u32::MAX)), &[]);
        let Some(jobs) = claims else { return };
        self.0.claimed_at.store(at, Ordering::Relaxed);
        self.claim(if jobs > 0 { "jobs" } else { "empty" });
    }

    /// A transaction that would have claimed was not kept.
    pub fn claim_failed(&self) {
        self.claim("error");
    }

    fn claim(&self, result: &'static str) {
        self.0.claims.add(1, &[KeyValue::new(attribute::RESULT, result)]);
    }

    /// When a claim last worked, in seconds of Unix time.
    pub fn claimed_at(&self) -> Option<f64> {
        let at = self.0.claimed_at.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of our days fit")]
        (at != 0).then_some(at as f64 / 1000.0)
    }

    fn operation(&self, name: &'static str, activity: &str, error: Option<&'static str>) -> Vec<KeyValue> {
        let mut of = vec![
            KeyValue::new(attribute::SYSTEM, names::SERVICE),
            KeyValue::new(attribute::OPERATION_NAME, name),
            KeyValue::new(attribute::DESTINATION, self.0.known.activity(activity)),
        ];
        of.extend(error.map(|error| KeyValue::new(attribute::ERROR_TYPE, error)));
        of
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub struct AttemptEnd<'a> {
    /// The activity.
    pub activity: &'a str,
    /// The tenant.
    pub tenant: &'a str,
    /// As the attribute `outcome` says it.
    pub outcome: &'static str,
    /// The code of a failure.
    pub error: Option<&'a str>,
    /// From being due to the start.
    pub waited: Duration,
    /// From the start to the end.
    pub ran: Duration,
    /// Until that was durable.
    pub stored: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_a_tenant_makes_up_is_no_label_of_its_own() {
        let metrics = Metrics::default();
        for n in 0..1_000 {
            assert_eq!(metrics.check_name("publish_preflight", &format!("made-up-{n}")), OTHER);
        }
        assert_eq!(metrics.check_name("sequence", &"x".repeat(LABEL + 1)), OTHER);
        for (activity, name) in
            [("publish_preflight", "UserEnabled"), ("token_admin_grant", "PackageRunSucceeded"), ("sequence", "load")]
        {
            assert_eq!(metrics.check_name(activity, name), name, "a made-up check takes no slot from others");
        }
    }

    #[test]
    fn no_number_of_steps_makes_more_labels_than_a_bound() {
        let metrics = Metrics::default();
        let labels: BTreeSet<_> = (0..1_000).map(|n| metrics.check_name("sequence", &format!("step-{n}"))).collect();
        assert_eq!(labels.len(), CHECKS + 1, "and `other`");
        assert_eq!(metrics.check_name("sequence", "step-0"), "step-0", "the first names keep their labels");
    }
}
