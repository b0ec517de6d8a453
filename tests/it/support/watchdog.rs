//! Ends the whole run, by name, when a test hangs: a run that stands still tells nobody which test it was.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use iolaus_activities::{Clock, SystemClock};

/// No test takes a tenth of this.
const PATIENCE: Duration = Duration::from_secs(300);
/// A longer storm is given this for each of its kills.
const FOR_EACH_KILL: Duration = Duration::from_secs(3);
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
pub(crate) struct Patience(Duration);

/// The bound of one wait.
const ONE_WAIT: Duration = Duration::from_secs(120);

impl Patience {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self(CLOCK.monotonic())
    }

    pub(crate) fn is_over(&self) -> bool {
        CLOCK.monotonic().saturating_sub(self.0) > ONE_WAIT
    }

    /// Fails the test, with what it waits for, when the time is over.
    pub(crate) fn check(&self, what: impl FnOnce() -> String) {
        assert!(!self.is_over(), "{}, after {} s", what(), ONE_WAIT.as_secs());
    }
}

fn watch() {
    let kills = std::env::var("IOLAUS_STORM_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(0);
    let patience = PATIENCE + FOR_EACH_KILL.saturating_mul(kills);
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
