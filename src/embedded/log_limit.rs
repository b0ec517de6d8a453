//! Keeps a log readable while the same error comes again and again, as on a full disk.

use std::time::Duration;

/// The same error is written so often at most.
const INTERVAL: Duration = Duration::from_secs(60);
/// How many different errors are remembered.
const ERRORS: usize = 8;

/// The errors that were logged last.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Vec<Logged>);

#[derive(Debug)]
struct Logged {
    error: String,
    at: Duration,
    repeated: u64,
}

impl LogLimit {
    /// Whether this is to be logged now, and how often it came and was not logged since it was logged last.
    pub(super) fn due(&mut self, error: &str, now: Duration) -> Option<u64> {
        if let Some(logged) = self.0.iter_mut().find(|logged| logged.error == error) {
            if now.saturating_sub(logged.at) < INTERVAL {
                logged.repeated += 1;
                return None;
            }
            logged.at = now;
            return Some(std::mem::take(&mut logged.repeated));
        }
        if self.0.len() == ERRORS {
            self.0.remove(0);
        }
        self.0.push(Logged { error: error.to_owned(), at: now, repeated: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_error_is_written_once_a_minute_and_another_at_once() {
        let mut limit = LogLimit::default();
        let at = Duration::from_secs;
        assert_eq!(limit.due("full", at(1)), Some(0));
        assert_eq!((limit.due("full", at(2)), limit.due("broken", at(2)), limit.due("full", at(60))), (None, Some(0), None));
        assert_eq!(limit.due("full", at(61)), Some(2));
        for n in 0..100 {
            limit.due(&n.to_string(), at(62));
        }
        assert_eq!(limit.0.len(), ERRORS);
    }
}
