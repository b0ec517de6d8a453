//! Elasticsearch's date maths: `now-1M/d`, `2026-01-31||+1M`, RFC 3339, a day, or Unix milliseconds; all in UTC.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::Value;

use crate::sandbox::time;

/// Which end of a rounded unit is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// Its first millisecond: `gte` and `lt`.
    Down,
    /// Its last millisecond: `gt` and `lte`.
    Up,
}

/// The instant in Unix milliseconds; `None` for what is no date.
pub(super) fn date_maths(value: &Value, now: i64, rounding: Rounding) -> Option<i64> {
    let text = match value {
        Value::Number(number) => return number.as_i64(),
        Value::String(text) => text.as_str(),
        _ => return None,
    };
    let (anchor, maths) = match text.strip_prefix("now") {
        Some(maths) => (now, maths),
        None => match text.split_once("||") {
            Some((date, maths)) => (fixed(date)?, maths),
            None => (fixed(text)?, ""),
        },
    };
    let mut at = utc(anchor)?;
    let mut rest = maths;
    while let Some(operator) = rest.chars().next() {
        rest = &rest[operator.len_utf8()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let amount: i64 = if digits == 0 { 1 } else { rest[..digits].parse().ok()? };
        let unit = rest[digits..].chars().next()?;
        rest = &rest[digits + unit.len_utf8()..];
        at = match operator {
            '+' => at.checked_add(span(unit, amount)?).ok()?,
            '-' => at.checked_sub(span(unit, amount)?).ok()?,
            '/' if digits == 0 => {
                let start = start_of(unit, at)?;
                match rounding {
                    Rounding::Down => start,
                    Rounding::Up => {
                        start.checked_add(span(unit, 1)?).ok()?.checked_sub(Span::new().try_milliseconds(1).ok()?).ok()?
                    }
                }
            }
            _ => return None,
        };
    }
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

fn fixed(text: &str) -> Option<i64> {
    time::parse(text).or_else(|| time::parse(&format!("{text}T00:00:00Z")))
}

fn utc(at: i64) -> Option<DateTime> {
    Some(Timestamp::from_millisecond(at).ok()?.to_zoned(TimeZone::UTC).datetime())
}

fn span(unit: char, amount: i64) -> Option<Span> {
    let span = Span::new();
    match unit {
        'y' => span.try_years(amount),
        'M' => span.try_months(amount),
        'w' => span.try_weeks(amount),
        'd' => span.try_days(amount),
        'h' | 'H' => span.try_hours(amount),
        'm' => span.try_minutes(amount),
        's' => span.try_seconds(amount),
        _ => return None,
    }
    .ok()
}

/// The first instant of the unit; weeks begin on Monday.
fn start_of(unit: char, at: DateTime) -> Option<DateTime> {
    let (date, time) = (at.date(), at.time());
    let date = match unit {
        'y' => date.first_of_year(),
        'M' => date.first_of_month(),
        'w' => date.checked_sub(Span::new().try_days(i64::from(date.weekday().to_monday_zero_offset())).ok()?).ok()?,
        _ => date,
    };
    let time = match unit {
        'y' | 'M' | 'w' | 'd' => Time::midnight(),
        'h' | 'H' => Time::new(time.hour(), 0, 0, 0).ok()?,
        'm' => Time::new(time.hour(), time.minute(), 0, 0).ok()?,
        's' => Time::new(time.hour(), time.minute(), time.second(), 0).ok()?,
        _ => return None,
    };
    Some(date.to_datetime(time))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn months_years_and_rounding_go_by_the_calendar() {
        let now = time::parse("2026-03-31T10:20:30.400Z").expect("a time");
        let written = |text: &str, rounding| date_maths(&json!(text), now, rounding).map(time::precise);
        for (text, expected) in [
            ("now", "2026-03-31T10:20:30.400Z"),
            ("now-2h", "2026-03-31T08:20:30.400Z"),
            ("now-1d+30m", "2026-03-30T10:50:30.400Z"),
            ("now-1M", "2026-02-28T10:20:30.400Z"),
            ("now-1y", "2025-03-31T10:20:30.400Z"),
            ("now+1w", "2026-04-07T10:20:30.400Z"),
            ("now/d", "2026-03-31T00:00:00.000Z"),
            ("now-1M/M", "2026-02-01T00:00:00.000Z"),
            ("now/y", "2026-01-01T00:00:00.000Z"),
            ("now/w", "2026-03-30T00:00:00.000Z"),
            ("now/h", "2026-03-31T10:00:00.000Z"),
            ("now-d", "2026-03-30T10:20:30.400Z"),
            ("2026-01-31||+1M/d", "2026-02-28T00:00:00.000Z"),
            ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ] {
            assert_eq!(written(text, Rounding::Down).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(written("now/d", Rounding::Up).as_deref(), Some("2026-03-31T23:59:59.999Z"));
        assert_eq!(written("now/M", Rounding::Up).as_deref(), Some("2026-03-31T23:59:59.999Z"));
        for text in ["now-1x", "now*2d", "now-", "now/2d", "yesterday", "2026-01-31||+"] {
            assert_eq!(written(text, Rounding::Down), None, "{text}");
        }
        assert_eq!(date_maths(&json!(5), now, Rounding::Down), Some(5));
    }
}
