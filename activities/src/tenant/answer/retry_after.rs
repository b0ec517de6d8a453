//! How long a tenant asks us to wait: the header `Retry-After` in every form that was ever allowed.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// However long the tenant asks us to wait, no longer than this.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// Seconds, whole or not, or a date, of which the time from `at` is taken.
pub(super) fn header(text: &str, at: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return seconds(number);
    }
    let date = http_date(text)?;
    Some(Duration::try_from(date.duration_since(at)).unwrap_or_default().min(LONGEST))
}

/// A number of seconds. A negative one is none.
pub(super) fn seconds(number: f64) -> Option<Duration> {
    if number.is_nan() || number < 0.0 {
        return None;
    }
    Some(Duration::try_from_secs_f64(number).unwrap_or(LONGEST).min(LONGEST))
}

/// A date as HTTP writes it: today's form, and those of RFC 850 and of C's `asctime`.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    match httpdate::parse_http_date(text) {
        Ok(date) => Timestamp::try_from(date).ok(),
        Err(_) => DateTimeParser::new().parse_timestamp(text).ok(),
    }
}
