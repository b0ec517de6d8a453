//! JSON in which every key of an object is given once. Of a key that is given twice most readers keep the last value, and the other one
//! is lost without a word.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Refuses a text that gives a key of an object twice, by the key and where it stands.
pub(crate) fn check(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<EachKeyOnce>(text).map(drop)
}

/// Any value, of which nothing is kept.
struct EachKeyOnce;

impl<'de> Deserialize<'de> for EachKeyOnce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Keys)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = EachKeyOnce;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EachKeyOnce, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format!("the key `{key}` is given twice")));
            }
            keys.insert(key);
            map.next_value::<EachKeyOnce>()?;
        }
        Ok(EachKeyOnce)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<EachKeyOnce, A::Error> {
        while seq.next_element::<EachKeyOnce>()?.is_some() {}
        Ok(EachKeyOnce)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<EachKeyOnce, E> {
        IgnoredAny.visit_bool(value).map(|_| EachKeyOnce)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<EachKeyOnce, E> {
        IgnoredAny.visit_i64(value).map(|_| EachKeyOnce)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<EachKeyOnce, E> {
        IgnoredAny.visit_u64(value).map(|_| EachKeyOnce)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<EachKeyOnce, E> {
        IgnoredAny.visit_f64(value).map(|_| EachKeyOnce)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<EachKeyOnce, E> {
        IgnoredAny.visit_str(value).map(|_| EachKeyOnce)
    }

    fn visit_unit<E: Error>(self) -> Result<EachKeyOnce, E> {
        IgnoredAny.visit_unit().map(|_| EachKeyOnce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_given_twice_is_refused_by_name_at_every_depth() {
        for (text, key) in [
            (r#"{"a": 1, "a": 1}"#, "`a`"),
            (r#"{"x": [0, {"deep": {"b": null, "c": true, "b": 2.5}}]}"#, "`b`"),
            (r#"[{"d": "x", "\u0064": -1}]"#, "`d`"),
        ] {
            let error = check(text).expect_err("it is refused").to_string();
            assert!(error.contains(key) && error.contains("is given twice at line 1"), "{error}");
        }
        for fine in [r#"{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}"#, "3", "\"a\"", "null", "[]", "-1.5e3", "false"] {
            assert!(check(fine).is_ok(), "{fine}");
        }
    }
}
