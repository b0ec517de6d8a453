//! What an answer says of itself beside what it holds: that it is an error, that a search was cut short.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::containers::{skip_map, skip_sequence};

/// Whether a field claims something: anything but null, false, zero and what is empty does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::tenant) struct Claim(pub(in crate::tenant) bool);

impl<'de> Deserialize<'de> for Claim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClaimVisitor)
    }
}

struct ClaimVisitor;

impl<'de> Visitor<'de> for ClaimVisitor {
    type Value = Claim;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Claim, E> {
        Ok(Claim(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Claim, E> {
        Ok(Claim(value != 0))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Claim, E> {
        Ok(Claim(value != 0))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Claim, E> {
        Ok(Claim(value != 0.0))
    }

    fn visit_str<E>(self, text: &str) -> Result<Claim, E> {
        let text = text.trim();
        Ok(Claim(!(text.is_empty() || text == "0" || text.eq_ignore_ascii_case("false"))))
    }

    fn visit_unit<E>(self) -> Result<Claim, E> {
        Ok(Claim(false))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Claim, A::Error> {
        skip_sequence(sequence).map(|count| Claim(count > 0))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claim, A::Error> {
        let first = map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?;
        skip_map(map).map(|()| Claim(first.is_some()))
    }
}
