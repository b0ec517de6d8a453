//! By how much the tenant's clock is ahead of ours, within bounds. A `Date` header is cut to the second and was written at an unknown
//! moment between our request and its answer, so one answer bounds the offset to an interval of one second and the round trip. All
//! answers are true of the same offset, so what is known is the intersection of their intervals.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A clock is certain if the middle of its interval is off by no more than this.
const CERTAIN_WITHIN: SignedDuration = SignedDuration::from_secs(1);
/// One part in so many: by this much two clocks may drift apart, as while one of them is being adjusted (500 ppm).
const MAX_DRIFT: u32 = 2_000;
/// What a `Date` header does not show.
const RESOLUTION: SignedDuration = SignedDuration::from_secs(1);

/// The interval in which the offset lies, tenant's clock less ours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ClockOffset {
    low: SignedDuration,
    high: SignedDuration,
    /// When (monotonic) that was so.
    at: Duration,
}

impl ClockOffset {
    /// What an answer shows that was received at `received` by our clock and at `now` by the monotonic one, `took` after its request was
    /// sent. Both ends are on our clock as it is now: it may have been set in between.
    pub(super) fn of(date: Timestamp, received: Timestamp, took: Duration, now: Duration) -> Self {
        let low = date.duration_since(received);
        let took = SignedDuration::try_from(took).unwrap_or(SignedDuration::MAX);
        Self { low, high: low.saturating_add(RESOLUTION).saturating_add(took), at: now }
    }

    /// The same at a later time (monotonic): the clocks may have drifted apart since.
    pub(super) fn aged(self, now: Duration) -> Self {
        let drift = SignedDuration::try_from(now.saturating_sub(self.at) / MAX_DRIFT).unwrap_or(SignedDuration::MAX);
        Self { low: self.low.saturating_sub(drift), high: self.high.saturating_add(drift), at: self.at.max(now) }
    }

    /// What both say. If they contradict each other a clock was set since, and only the newer one counts.
    pub(super) fn and(self, newer: Self) -> Self {
        let known = self.aged(newer.at);
        let both = Self { low: known.low.max(newer.low), high: known.high.min(newer.high), at: newer.at };
        if both.low <= both.high { both } else { newer }
    }

    /// The least that it can be.
    pub(super) fn low(self) -> SignedDuration {
        self.low
    }

    /// The most that it can be.
    pub(super) fn high(self) -> SignedDuration {
        self.high
    }

    /// The best estimate.
    pub(super) fn middle(self) -> SignedDuration {
        self.low.saturating_add(self.half_width())
    }

    /// By how much the estimate can be off.
    pub(super) fn half_width(self) -> SignedDuration {
        self.high.saturating_sub(self.low) / 2
    }

    /// Whether the estimate is within a second of the truth: a round trip of up to a second tells that at once.
    pub(super) fn is_certain(self) -> bool {
        self.half_width() <= CERTAIN_WITHIN
    }

    /// By how many whole seconds it is ahead at least (negative: behind), zero if the clocks may agree.
    pub(super) fn at_least(self) -> SignedDuration {
        let whole = |seconds: f64| SignedDuration::try_from_secs_f64(seconds).unwrap_or_default();
        if self.low > SignedDuration::ZERO {
            whole(self.low.as_secs_f64().ceil())
        } else if self.high < SignedDuration::ZERO {
            whole(self.high.as_secs_f64().floor())
        } else {
            SignedDuration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: i64 = 1_767_225_600_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(OURS + millis).expect("a time")
    }

    /// An answer of a tenant whose clock is `ahead` (milliseconds): when it is sent, when the `Date` is written, when it is received.
    fn answered(ahead: i64, sent: i64, dated: i64, received: i64) -> ClockOffset {
        let date = Timestamp::from_second(at(dated + ahead).as_second()).expect("a time");
        let millis = |millis: i64| Duration::from_millis(millis.try_into().expect("not negative"));
        ClockOffset::of(date, at(received), millis(received - sent), millis(received))
    }

    fn bounds(offset: ClockOffset) -> (i128, i128) {
        (offset.low().as_millis(), offset.high().as_millis())
    }

    #[test]
    fn one_answer_bounds_the_offset_by_a_second_and_the_round_trip() {
        assert_eq!(bounds(answered(0, 700, 750, 800)), (-800, 300));
        assert_eq!(bounds(answered(60_000, 0, 0, 0)), (60_000, 61_000));
        for ahead in [-7_300, -400, 0, 250, 3_900] {
            for (sent, dated, received) in [(0, 0, 900), (100, 1_000, 1_000), (650, 651, 652), (0, 15_000, 30_000)] {
                let (low, high) = bounds(answered(ahead, sent, dated, received));
                assert!(low <= ahead.into() && i128::from(ahead) <= high, "{ahead} is not in {low}..{high}");
            }
        }
    }

    #[test]
    fn further_answers_narrow_it_and_a_slow_one_takes_nothing_away() {
        let mut offset = answered(250, 0, 40, 80);
        assert!(offset.is_certain());
        for second in 1..20 {
            let sent = second * 1_370;
            offset = offset.and(answered(250, sent, sent + 40, sent + 80));
        }
        let (low, high) = bounds(offset);
        assert!(low <= 250 && 250 <= high && high - low < 250, "{low}..{high}");
        let slow = answered(250, 30_000, 30_010, 45_000);
        assert!(!slow.is_certain());
        assert!(offset.and(slow).is_certain());
    }

    #[test]
    fn a_round_trip_of_more_than_a_second_leaves_the_clock_uncertain() {
        for (took, certain) in [(0, true), (999, true), (1_000, true), (1_002, false), (10_000, false)] {
            assert_eq!(answered(0, 0, took, took).is_certain(), certain, "{took} ms");
        }
    }

    #[test]
    fn a_clock_that_was_set_starts_afresh_from_the_newest_answer() {
        for step in [-3_600_000, -2_500, 2_500, 3_600_000] {
            let newer = answered(step, 1_000, 1_040, 1_080);
            assert_eq!(answered(0, 0, 40, 80).and(newer), newer, "{step}");
        }
    }

    #[test]
    fn what_is_known_fades_because_clocks_drift() {
        let offset = answered(0, 0, 0, 0);
        assert!(offset.aged(Duration::from_secs(900)).is_certain());
        assert!(!offset.aged(Duration::from_secs(1_100)).is_certain());
    }

    #[test]
    fn times_at_the_end_of_the_calendar_overflow_nothing() {
        let offset = ClockOffset::of(Timestamp::MAX, Timestamp::MIN, Duration::MAX, Duration::ZERO);
        let other = ClockOffset::of(Timestamp::MIN, Timestamp::MAX, Duration::MAX, Duration::MAX);
        for offset in [offset, other, offset.and(other), offset.aged(Duration::MAX)] {
            assert!(!offset.is_certain() || offset.half_width() <= CERTAIN_WITHIN);
            offset.at_least();
            offset.middle();
        }
    }

    #[test]
    fn clocks_that_may_agree_are_said_to() {
        for (offset, ahead) in [
            (answered(0, 700, 750, 800), 0),
            (answered(60_000, 0, 0, 0), 60),
            (answered(60_000, 700, 700, 700), 60),
            (answered(-60_000, 700, 700, 700), -60),
        ] {
            assert_eq!(offset.at_least().as_secs(), ahead);
        }
    }
}
