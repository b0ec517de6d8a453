//! Time as the sandbox sees it: Unix milliseconds from a closure, and the ways in which a tenant writes them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// Where the sandbox reads the time: Unix milliseconds, never negative steps expected.
pub type TimeSource = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How the sandbox waits before it sends a late answer.
pub type Sleep = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Waits in real time.
#[expect(clippy::disallowed_methods, reason = "the one place of the sandbox that really waits")]
pub(super) fn system_sleep() -> Sleep {
    Arc::new(|duration| Box::pin(tokio::time::sleep(duration)))
}

/// The machine's own clock. The only place of the sandbox that reads it.
#[expect(clippy::disallowed_methods, reason = "the one place of the sandbox that asks the operating system")]
pub(super) fn system_clock() -> TimeSource {
    Arc::new(|| Timestamp::now().as_millisecond())
}

/// A duration in whole milliseconds, saturating.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// RFC 3339 cut to whole seconds with `Z`: how workflow documents write time.
pub(super) fn seconds(at: i64) -> String {
    timestamp(at).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 with milliseconds: how the ledger writes time.
pub(super) fn precise(at: i64) -> String {
    timestamp(at).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// The value of an HTTP `Date` header.
pub(super) fn http_date(at: i64) -> String {
    timestamp(at).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Reads RFC 3339 back into Unix milliseconds.
pub(super) fn parse(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// A clock outside of what the calendar can write is shown as the epoch.
fn timestamp(at: i64) -> Timestamp {
    Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_written_as_its_reader_expects() {
        let at = 1_684_500_411_007;
        assert_eq!(seconds(at), "2023-05-19T12:46:51Z");
        assert_eq!(precise(at), "2023-05-19T12:46:51.007Z");
        assert_eq!(http_date(at), "Fri, 19 May 2023 12:46:51 GMT");
        assert_eq!(parse("2023-05-19T12:46:51Z"), Some(1_684_500_411_000));
        assert_eq!(parse("yesterday"), None);
    }
}
