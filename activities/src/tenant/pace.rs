//! A token bucket: how soon the next request to a tenant may be sent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Hands out so many permissions a second on average, and so many at once after a pause. Who comes later waits longer.
pub(super) struct Pace {
    per_second: f64,
    burst: f64,
    /// What is left (negative: promised to those who wait), and when (monotonic) that was so.
    left: Mutex<(f64, Duration)>,
}

impl Pace {
    /// Zero a second is no limit.
    pub(super) fn new(per_second: impl Into<f64>, burst: u32, now: Duration) -> Self {
        Self { per_second: per_second.into(), burst: burst.into(), left: Mutex::new((burst.into(), now)) }
    }

    /// Takes one permission, and says after what time it holds.
    pub(super) fn take(&self, now: Duration) -> Duration {
        if self.per_second <= 0.0 {
            return Duration::ZERO;
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = left.0 + now.saturating_sub(left.1).as_secs_f64() * self.per_second;
        *left = (grown.min(self.burst) - 1.0, now.max(left.1));
        Duration::try_from_secs_f64(-left.0 / self.per_second).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_each_waits_its_turn() {
        let pace = Pace::new(10, 2, Duration::ZERO);
        let ms = |at: u64| pace.take(Duration::from_millis(at)).as_millis();
        assert_eq!([ms(0), ms(0), ms(0), ms(0)], [0, 0, 100, 200]);
        assert_eq!(ms(300), 0, "what was promised has been earned");
        assert_eq!([ms(60_000), ms(60_000), ms(60_000)], [0, 0, 100], "a pause earns no more than the burst");
    }

    #[test]
    fn zero_is_no_limit() {
        let pace = Pace::new(0, 1, Duration::ZERO);
        assert!((0..100).all(|_| pace.take(Duration::ZERO).is_zero()));
    }
}
