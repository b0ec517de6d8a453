//! Time, sleep and randomness as arguments. Nothing in an activity or a host asks the operating system for them directly.

mod manual;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub use manual::ManualClock;

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
    /// Time since the machine started, including time while it was suspended. It is the same for all processes of the machine, and
    /// no clock adjustment moves it.
    fn since_boot(&self) -> Duration;
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

    fn since_boot(&self) -> Duration {
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Monotonic;
        // Neither of them is ever negative.
        Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clocks_of_one_machine_agree_on_the_time_since_it_started() {
        let (one, other) = (SystemClock::new(), SystemClock::new());
        let (before, between, after) = (one.since_boot(), other.since_boot(), one.since_boot());
        assert!(before > Duration::ZERO && before <= between && between <= after, "{before:?} {between:?} {after:?}");
    }

    #[test]
    fn system_randomness_stays_within_its_range() {
        let clock = SystemClock::new();
        assert!((0..1000).all(|_| (0.0..1.0).contains(&clock.random())));
    }
}
