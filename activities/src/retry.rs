//! When to try again: pure arithmetic. The jitter is an argument, and nothing here knows a clock.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration;
use crate::failure::Failure;

/// How an execution retries its attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RetryPolicy {
    /// The delay after the first failed attempt.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub initial_interval: Duration,
    /// What each further delay is multiplied by; at least 1.
    pub backoff_coefficient: f64,
    /// No delay is longer, unless the tenant asks for it.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub maximum_interval: Duration,
    /// How many attempts there may be; 0 means unlimited.
    pub maximum_attempts: u32,
    /// Failure codes after which there is no further attempt.
    #[serde(default)]
    pub non_retryable_codes: Vec<String>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial_interval: Duration::from_secs(1),
            backoff_coefficient: 2.0,
            maximum_interval: Duration::from_secs(60),
            maximum_attempts: 0,
            non_retryable_codes: Vec::new(),
        }
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again after this long.
    RetryAfter(Duration),
    /// The failure admits no further attempt.
    NotRetryable,
    /// The policy's attempts are used up.
    AttemptsUsedUp,
}

impl RetryPolicy {
    /// What follows when `attempts` (counted from 1) have failed, the last with `failure`.
    ///
    /// `jitter` in `0.0..1.0` spreads the delay over its upper half (0.5 to 1 of the computed value), so that jobs that
    /// failed together do not come back together. A delay is never shorter than the failure's `retry_after`.
    pub fn next(&self, attempts: u32, failure: &Failure, jitter: f64) -> Next {
        if !failure.retryable || self.non_retryable_codes.iter().any(|code| *code == failure.code) {
            return Next::NotRetryable;
        }
        if self.maximum_attempts != 0 && attempts >= self.maximum_attempts {
            return Next::AttemptsUsedUp;
        }
        let policy = self.interval(attempts).mul_f64(jitter.clamp(0.0, 1.0).mul_add(0.5, 0.5));
        Next::RetryAfter(policy.max(failure.retry_after.unwrap_or_default()))
    }

    /// The delay after the `attempts`-th failed attempt, without jitter.
    pub fn interval(&self, attempts: u32) -> Duration {
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial_interval.as_secs_f64() * self.backoff_coefficient.max(1.0).powi(exponent);
        if seconds.is_finite() && seconds < self.maximum_interval.as_secs_f64() {
            Duration::from_secs_f64(seconds)
        } else {
            self.maximum_interval
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Category;

    fn policy() -> RetryPolicy {
        RetryPolicy { maximum_attempts: 5, non_retryable_codes: vec!["no.more".into()], ..RetryPolicy::default() }
    }

    fn lost(after: Option<u64>) -> Failure {
        Failure::new("tenant.unavailable", Category::DependencyUnavailable, "down").after(after.map(Duration::from_secs))
    }

    #[test]
    fn the_table_of_next_steps_holds() {
        let secs = |s: f64| Next::RetryAfter(Duration::from_secs_f64(s));
        let refused = Failure::new("x", Category::Permission, "no");
        let listed = lost(None).clone();
        let listed = Failure { code: "no.more".into(), ..listed };
        // (attempts made, failure, jitter) -> next
        let rows: &[(u32, Failure, f64, Next)] = &[
            (1, lost(None), 1.0, secs(1.0)),
            (1, lost(None), 0.0, secs(0.5)),
            (2, lost(None), 1.0, secs(2.0)),
            (4, lost(None), 1.0, secs(8.0)),
            (1, lost(None), f64::MAX, secs(1.0)),
            (1, lost(None), -3.0, secs(0.5)),
            (1, lost(Some(7)), 1.0, secs(7.0)),
            (1, lost(Some(3600)), 1.0, secs(3600.0)),
            (5, lost(None), 1.0, Next::AttemptsUsedUp),
            (6, lost(Some(7)), 1.0, Next::AttemptsUsedUp),
            (1, refused, 1.0, Next::NotRetryable),
            (1, listed, 1.0, Next::NotRetryable),
        ];
        for (attempts, failure, jitter, expected) in rows {
            assert_eq!(policy().next(*attempts, failure, *jitter), *expected, "attempts {attempts}, {failure:?}, jitter {jitter}");
        }
    }

    #[test]
    fn no_number_of_attempts_overflows_the_interval() {
        for attempts in [0, 1, 63, 64, 1_000, u32::MAX] {
            let interval = policy().interval(attempts);
            assert!(interval <= Duration::from_secs(60), "attempt {attempts}: {interval:?}");
        }
        let steep = RetryPolicy { backoff_coefficient: f64::MAX, ..policy() };
        assert_eq!(steep.interval(3), Duration::from_secs(60));
        let nonsense = RetryPolicy { backoff_coefficient: f64::NAN, ..policy() };
        assert_eq!(nonsense.interval(3), Duration::from_secs(1));
    }

    #[test]
    fn zero_attempts_mean_unlimited() {
        let endless = RetryPolicy { maximum_attempts: 0, ..policy() };
        assert!(matches!(endless.next(u32::MAX, &lost(None), 1.0), Next::RetryAfter(_)));
    }
}
