//! Time, sleep and randomness as arguments. Nothing in an activity or a host asks the operating system for them directly.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{oneshot, watch};

/// A boxed future, for the object-safe seams of this crate.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where an attempt takes time and randomness from.
///
/// Two kinds of waiting are told apart, because a test treats them differently: a [`sleep`](Clock::sleep) is wanted (a poll
/// interval, a retry delay) and a test may jump over it; a [`deadline`](Clock::deadline) is a guard or a routine that only
/// fires when time really passes over it.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Time since some fixed point, which no clock adjustment moves. Only differences have a meaning.
    fn monotonic(&self) -> Duration;
    /// A wait that the caller wants.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
    /// A wait that guards something else.
    fn deadline(&self, duration: Duration) -> BoxFuture<'static, ()>;
    /// A random number, evenly spread over `0.0..1.0`.
    fn random(&self) -> f64;
}

/// The operating system's clock and randomness.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the operating system")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the operating system")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that asks the operating system")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn deadline(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep(duration)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
    fn random(&self) -> f64 {
        // The low half of a version 4 UUID is random but for its two topmost bits.
        let bits = uuid::Uuid::new_v4().as_u64_pair().1 << 2 >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }
}

/// A clock that a test moves by hand. Its randomness is always `0.5`.
///
/// ```
/// # use iolaus_activities::{Clock, ManualClock};
/// # use std::time::Duration;
/// let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap());
/// clock.advance(Duration::from_secs(90));
/// assert_eq!(clock.now().to_string(), "2026-01-01T00:01:30Z");
/// ```
#[derive(Debug)]
pub struct ManualClock {
    inner: Mutex<Manual>,
    parked: watch::Sender<u64>,
}

#[derive(Debug)]
struct Manual {
    start: Timestamp,
    elapsed: Duration,
    skew: SignedDuration,
    next_id: u64,
    waits: BTreeMap<(Duration, u64), Wait>,
}

#[derive(Debug)]
struct Wait {
    wanted: bool,
    wake: oneshot::Sender<()>,
}

enum Step {
    Slept,
    Deadline,
    NobodySleeps,
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn at(start: Timestamp) -> Self {
        let inner = Manual { start, elapsed: Duration::ZERO, skew: SignedDuration::ZERO, next_id: 0, waits: BTreeMap::new() };
        Self { inner: Mutex::new(inner), parked: watch::Sender::new(0) }
    }

    /// Moves both clocks forward and wakes whatever is due.
    pub fn advance(&self, by: Duration) {
        let mut inner = self.lock();
        inner.elapsed += by;
        inner.wake_due();
    }

    /// Moves only the wall clock, either way, as an administrator or NTP does.
    pub fn jump(&self, by: SignedDuration) {
        self.lock().skew += by;
    }

    /// Waits until somebody sleeps, then moves time to the end of the shortest sleep. Deadlines on the way fire first, each in its
    /// turn, and may end that sleep: then nothing more is moved.
    pub async fn advance_to_next_sleep(&self) {
        let mut parked = self.parked.subscribe();
        loop {
            parked.borrow_and_update();
            match self.step_towards_first_sleep() {
                Step::Slept => return,
                // Lets whoever was guarded act on it before time goes on.
                Step::Deadline => tokio::task::yield_now().await,
                Step::NobodySleeps if parked.changed().await.is_err() => return,
                Step::NobodySleeps => {}
            }
        }
    }

    fn step_towards_first_sleep(&self) -> Step {
        let mut inner = self.lock();
        inner.waits.retain(|_, wait| !wait.wake.is_closed());
        if !inner.waits.values().any(|wait| wait.wanted) {
            return Step::NobodySleeps;
        }
        let Some(((at, _), wait)) = inner.waits.first_key_value() else { return Step::NobodySleeps };
        let (at, wanted) = (*at, wait.wanted);
        inner.elapsed = inner.elapsed.max(at);
        inner.wake_due();
        if wanted { Step::Slept } else { Step::Deadline }
    }

    fn wait(&self, duration: Duration, wanted: bool) -> BoxFuture<'static, ()> {
        let (wake, woken) = oneshot::channel();
        {
            let mut inner = self.lock();
            let key = (inner.elapsed.saturating_add(duration), inner.next_id);
            inner.next_id += 1;
            inner.waits.insert(key, Wait { wanted, wake });
            if duration.is_zero() {
                inner.wake_due();
            }
        }
        self.parked.send_modify(|n| *n += 1);
        Box::pin(async move {
            // A clock that is dropped wakes nobody: the wait then simply never ends.
            if woken.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Manual> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Manual {
    fn wake_due(&mut self) {
        while let Some(entry) = self.waits.first_entry() {
            if entry.key().0 > self.elapsed {
                break;
            }
            // The sleeper may have gone away, which is fine.
            entry.remove().wake.send(()).ok();
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let inner = self.lock();
        let elapsed = SignedDuration::try_from(inner.elapsed).unwrap_or(SignedDuration::MAX);
        inner.start.saturating_add(elapsed + inner.skew).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.lock().elapsed
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.wait(duration, true)
    }

    fn deadline(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.wait(duration, false)
    }

    fn random(&self) -> f64 {
        0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn a_sleep_ends_when_time_passes_over_it() {
        let clock = clock();
        let nap = tokio::spawn(clock.sleep(Duration::from_secs(5)));
        clock.advance(Duration::from_secs(5));
        nap.await.expect("the sleeper ran");
    }

    #[tokio::test]
    async fn advancing_to_the_next_sleep_passes_over_deadlines_but_never_aims_at_one() {
        let clock = clock();
        let guard = clock.deadline(Duration::from_secs(1));
        let nap = clock.sleep(Duration::from_secs(3));
        clock.advance_to_next_sleep().await;
        tokio::join!(guard, nap);
        assert_eq!(clock.monotonic(), Duration::from_secs(3));
    }

    #[test]
    fn a_wall_clock_jump_leaves_the_monotonic_clock_alone() {
        let clock = clock();
        clock.jump(SignedDuration::from_secs(-3600));
        assert_eq!(clock.now().as_second(), -3600);
        assert_eq!(clock.monotonic(), Duration::ZERO);
    }

    #[test]
    fn system_randomness_stays_within_its_range() {
        let clock = SystemClock::new();
        assert!((0..1000).all(|_| (0.0..1.0).contains(&clock.random())));
    }
}
