//! Keeps a log readable while the same thing fails again and again.

use std::time::Duration;

/// The same line is written so often at most.
const INTERVAL: Duration = Duration::from_secs(60);

/// What was logged last, and how often it came again since.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    last: Option<(String, Duration)>,
    repeated: u64,
}

impl LogLimit {
    /// Whether this is to be logged now: how often it came since it was logged last, and was not. Something else is logged at once.
    pub(super) fn due(&mut self, text: &str, now: Duration) -> Option<u64> {
        if self.last.as_ref().is_some_and(|(last, at)| last == text && now.saturating_sub(*at) < INTERVAL) {
            self.repeated += 1;
            return None;
        }
        self.last = Some((text.to_owned(), now));
        Some(std::mem::take(&mut self.repeated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_line_is_written_once_a_minute_and_another_at_once() {
        let mut limit = LogLimit::default();
        let at = Duration::from_secs;
        assert_eq!(limit.due("full", at(1)), Some(0));
        assert_eq!((limit.due("full", at(2)), limit.due("full", at(60))), (None, None));
        assert_eq!(limit.due("full", at(61)), Some(2));
        assert_eq!(limit.due("broken", at(62)), Some(0));
    }
}
