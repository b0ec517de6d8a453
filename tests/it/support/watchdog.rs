//! Ends the whole run, by name, when a test hangs: a run that stands still tells nobody which test it was.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use iolaus_activities::{Clock, SystemClock};

/// No test takes a tenth of this on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// A storm is given this for each fault that it is asked for.
const FOR_EACH_FAULT: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);

static WATCHED: Mutex<BTreeMap<u64, (String, Duration)>> = Mutex::new(BTreeMap::new());
/// The time; whoever asks for it first starts the watch.
static CLOCK: LazyLock<SystemClock> = LazyLock::new(|| {
    thread::spawn(watch);
    SystemClock::default()
});

/// A test that is watched until this is dropped.
pub(crate) struct Watched(u64);

impl Watched {
    /// Watches the test of this thread.
    pub(crate) fn new() -> Self {
        let now = CLOCK.monotonic();
        let name = thread::current().name().unwrap_or("a test").to_owned();
        let mut watched = watched();
        let id = watched.last_key_value().map_or(0, |(id, _)| id + 1);
        watched.insert(id, (name, now));
        Self(id)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        watched().remove(&self.0);
    }
}

/// The bound of one wait that only real work ends. It is far longer than any busy machine needs.
pub(crate) struct Patience {
    began: Duration,
    bound: Duration,
}

/// The bound of one wait.
const ONE_WAIT: Duration = Duration::from_secs(120);
/// The bound of a child process, which may have many waits of its own.
const ONE_CHILD: Duration = Duration::from_secs(400);

impl Patience {
    /// For one wait, which begins now.
    pub(crate) fn new() -> Self {
        Self { began: CLOCK.monotonic(), bound: ONE_WAIT }
    }

    /// For the whole life of a child process.
    pub(crate) fn long() -> Self {
        Self { bound: ONE_CHILD, ..Self::new() }
    }

    /// What is left of the time.
    pub(crate) fn left(&self) -> Duration {
        self.bound.saturating_sub(CLOCK.monotonic().saturating_sub(self.began))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Fails the test, with what it waits for, when the time is over.
    pub(crate) fn check(&self, what: impl FnOnce() -> String) {
        assert!(!self.is_over(), "{}, after {} s", what(), self.bound.as_secs());
    }
}

/// Waits, on a thread that may block, until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Patience::new();
    while !is_so() {
        thread::yield_now();
        patience.check(|| format!("this does not come about: {what}"));
    }
}

fn watch() {
    let faults = std::env::var("IOLAUS_STORM_FAULTS").ok().and_then(|faults| faults.parse().ok()).unwrap_or(0);
    let patience = PATIENCE + FOR_EACH_FAULT.saturating_mul(faults);
    loop {
        thread::park_timeout(LOOK);
        let hanging =
            watched().values().find(|(_, since)| CLOCK.monotonic().saturating_sub(*since) > patience).map(|(name, _)| name.clone());
        if let Some(name) = hanging {
            writeln!(std::io::stderr(), "{name} has not ended in {} s: the run is given up", patience.as_secs()).ok();
            std::process::abort();
        }
    }
}

fn watched() -> MutexGuard<'static, BTreeMap<u64, (String, Duration)>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}
