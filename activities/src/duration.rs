//! Durations in configuration, inputs and stored options: `"250ms"`, `"30s"`, `"5m"`, `"24h"`, `"7d"`. A number without a unit is refused
//! wherever it is written: one reader takes it for seconds and the next for minutes.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// A hundred years. Longer is a typing error, and would not survive arithmetic on timestamps.
const LONGEST_MS: u64 = 100 * 365 * 86_400_000;

/// Reads a duration as people write it.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim();
    if unit.is_empty() && !number.is_empty() {
        return Err(without_unit(number));
    }
    let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
    match (number.parse::<u64>(), scale) {
        (Ok(number), Some(scale)) => from_ms(number.saturating_mul(scale)),
        _ => Err(format!("`{text}` is no duration: write a whole number and one of ms, s, m, h, d, as in 90s")),
    }
}

/// Writes a duration so that [`parse`] reads it back, in the largest unit that is exact. Below a millisecond is dropped.
pub fn format(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let exact = UNITS.iter().rev().find(|(_, scale)| ms != 0 && ms.is_multiple_of(*scale));
    let (unit, scale) = exact.unwrap_or(&("s", 1_000));
    format!("{}{unit}", ms / scale)
}

fn without_unit(number: impl fmt::Display) -> String {
    format!("`{number}` has no unit: write one of ms, s, m, h, d behind it, as in {number}s")
}

fn from_ms(ms: u64) -> Result<Duration, String> {
    if ms > LONGEST_MS {
        return Err("a duration is at most a hundred years".into());
    }
    Ok(Duration::from_millis(ms))
}

/// For `#[serde(with = "duration")]`.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// For `#[serde(with = "duration")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationVisitor)
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"30s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Duration, E> {
        Err(E::custom(without_unit(number)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
        Err(E::custom(without_unit(number)))
    }
}

/// The same for `Option<Duration>`.
pub mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// For `#[serde(with = "duration::optional")]`.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// For `#[serde(with = "duration::optional")]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Wrapped(#[serde(with = "super")] Duration);
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_written_back() {
        for (text, ms) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(parse(&format(Duration::from_millis(ms))), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(format(Duration::from_secs(90)), "90s");
        assert_eq!(format(Duration::from_secs(86_400)), "1d");
    }

    #[test]
    fn a_number_without_a_unit_is_refused_as_text_and_as_a_number() {
        #[derive(Debug, serde::Deserialize)]
        struct Timed(#[serde(with = "super")] Duration);
        for text in ["90", " 90 ", "0"] {
            let refused = parse(text).expect_err("it is refused");
            assert!(refused.contains("has no unit") && refused.contains("ms, s, m, h, d"), "{refused}");
        }
        for json in ["90", "-1", "\"90\""] {
            let refused = serde_json::from_str::<Timed>(json).expect_err("it is refused").to_string();
            assert!(refused.contains("has no unit") || refused.contains("no duration"), "{refused}");
        }
        assert_eq!(serde_json::from_str::<Timed>("\"90s\"").expect("it is read").0, Duration::from_secs(90));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "s", "-1s", "1.5h", "3 weeks", "99999999999999999999s", "999999999d", "١s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
