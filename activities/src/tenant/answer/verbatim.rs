//! A value that is kept as the tenant sent it, but for secrets and control characters, and within limits that every reader of a verdict
//! can bear: what is stored can always be read again.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::fields::NAME;
use crate::text::clip_to;

/// How deep arrays and objects may be nested.
const DEPTH: usize = 16;
/// How many elements are kept in all.
const ELEMENTS: usize = 256;
/// What stands where something was left out.
const LEFT_OUT: &str = "…";

/// A bounded value. Absent is null.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::tenant) struct Verbatim(Value);

impl Verbatim {
    /// The value itself.
    pub(in crate::tenant) fn into_value(self) -> Value {
        self.0
    }

    /// The value itself.
    pub(in crate::tenant) fn value(&self) -> &Value {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Verbatim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut left = ELEMENTS;
        deserializer.deserialize_any(Bounded { depth: DEPTH, left: &mut left }).map(Self)
    }
}

struct Bounded<'l> {
    depth: usize,
    left: &'l mut usize,
}

impl Bounded<'_> {
    fn inner(&mut self) -> Bounded<'_> {
        Bounded { depth: self.depth - 1, left: self.left }
    }

    fn take(&mut self) -> bool {
        let fits = *self.left > 0;
        *self.left = self.left.saturating_sub(1);
        fits
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth == 0 {
            return deserializer.deserialize_any(Scalars);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Scalars.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Scalars.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Scalars.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Scalars.visit_f64(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Scalars.visit_str(text)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            if !self.take() {
                if sequence.next_element::<IgnoredAny>()?.is_some() {
                    values.push(LEFT_OUT.into());
                }
                while sequence.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Value::Array(values));
            }
            match sequence.next_element_seed(self.inner())? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        loop {
            if !self.take() {
                if map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    values.insert(LEFT_OUT.to_owned(), LEFT_OUT.into());
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(Value::Object(values));
            }
            match map.next_key::<String>()? {
                Some(key) => {
                    let value = map.next_value_seed(self.inner())?;
                    values.insert(clip_to(key, NAME), value);
                }
                None => return Ok(Value::Object(values)),
            }
        }
    }
}

/// At the greatest depth: what holds others is left out.
struct Scalars;

impl<'de> Visitor<'de> for Scalars {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(clip_to(text.to_owned(), NAME).into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(LEFT_OUT.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(LEFT_OUT.into())
    }
}
