//! Times as this project writes them: RFC 3339, UTC, milliseconds. For `#[serde(with = "timestamp")]`.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serializer};

/// `2026-01-02T03:04:05.678Z`.
pub fn format(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// For `#[serde(with = "timestamp")]`.
pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*at))
}

/// For `#[serde(with = "timestamp")]`. Any RFC 3339 offset is read.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is no RFC 3339 time such as 2026-01-02T03:04:05Z")))
}

/// The same for `Option<Timestamp>`.
pub mod optional {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    /// For `#[serde(with = "timestamp::optional")]`.
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// For `#[serde(with = "timestamp::optional")]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        #[derive(Deserialize)]
        struct Wrapped(#[serde(with = "super")] Timestamp);
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn milliseconds_are_always_written() {
        assert_eq!(super::format(jiff::Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
