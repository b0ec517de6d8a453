//! JSON into the fields that are read. A deserializer around `serde_json`'s streaming one: every text and key that is kept is sanitized,
//! every element is counted, and what a type ignores is skipped without being stored.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Problem, Sanitizer};

/// The elements of arrays and objects that one answer may have where we read it. What is ignored is not counted.
const ELEMENTS: usize = 128 * 1024;
/// The name of a newtype whose text is taken only if sanitizing leaves it as it is. Used by [`super::fields`].
pub(super) const EXACT: &str = "$iolaus::exact";
/// The name of a newtype that is a secret of ours, and taken as it is.
pub(super) const SECRET: &str = "$iolaus::secret";
/// The longest secret, in bytes.
const LONGEST_SECRET: usize = 16 * 1024;

/// Decodes a body, or says what is wrong with it without quoting any of it.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], sanitizer: &Sanitizer) -> Result<T, Problem> {
    let context = Context { sanitizer, elements: Cell::new(0) };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let decoded = T::deserialize(Guarded { inner: &mut json, context: &context, mode: Mode::Text });
    decoded.and_then(|value| json.end().map(|()| value)).map_err(|error| Problem::Unexpected(describe(&error)))
}

/// Only the messages of this module and of derived structs are shown, and these name our own fields; serde's others quote values.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let ours = ["duplicate field", "missing field", TOO_MANY, TOO_DEEP].iter().find(|start| text.starts_with(**start));
    match ours {
        Some(_) => text.split(" at line ").next().unwrap_or_default().to_owned(),
        None => "a value of another kind than expected".to_owned(),
    }
}

const TOO_MANY: &str = "more elements than any answer has";
const TOO_DEEP: &str = "recursion limit exceeded";

struct Context<'c> {
    sanitizer: &'c Sanitizer,
    elements: Cell<usize>,
}

impl Context<'_> {
    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        self.elements.set(self.elements.get() + 1);
        if self.elements.get() > ELEMENTS { Err(E::custom(TOO_MANY)) } else { Ok(()) }
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Text,
    Exact,
    Secret,
}

/// Anything of `serde` on its way through: a deserializer, a visitor, a seed, or access to a sequence or map.
struct Guarded<'c, T> {
    inner: T,
    context: &'c Context<'c>,
    mode: Mode,
}

impl<'c, T> Guarded<'c, T> {
    fn around<U>(&self, inner: U) -> Guarded<'c, U> {
        Guarded { inner, context: self.context, mode: self.mode }
    }
}

macro_rules! forward {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.around(visitor);
            self.inner.$name(visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guarded<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_option
        deserialize_unit deserialize_seq deserialize_map
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.around(visitor);
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        match name {
            EXACT => Guarded { mode: Mode::Exact, ..self }.deserialize_any(visitor),
            SECRET => Guarded { mode: Mode::Secret, ..self }.deserialize_any(visitor),
            _ => {
                let visitor = self.around(visitor);
                self.inner.deserialize_newtype_struct(name, visitor)
            }
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.around(visitor);
        self.inner.deserialize_tuple(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, name: &'static str, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.around(visitor);
        self.inner.deserialize_tuple_struct(name, len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.around(visitor);
        self.inner.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.around(visitor);
        self.inner.deserialize_enum(name, variants, visitor)
    }

    /// The name of a field is compared and not kept.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_identifier(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guarded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<V::Value, E> {
        self.inner.visit_bool(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<V::Value, E> {
        self.inner.visit_i64(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<V::Value, E> {
        self.inner.visit_u64(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<V::Value, E> {
        self.inner.visit_f64(value)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<V::Value, E> {
        match self.mode {
            Mode::Text => match self.context.sanitizer.text(text) {
                Cow::Borrowed(text) => self.inner.visit_str(text),
                Cow::Owned(text) => self.inner.visit_string(text),
            },
            Mode::Exact if self.context.sanitizer.text(text) == text => self.inner.visit_str(text),
            Mode::Secret if text.len() <= LONGEST_SECRET => self.inner.visit_str(text),
            Mode::Exact | Mode::Secret => self.inner.visit_unit(),
        }
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<V::Value, A::Error> {
        let sequence = self.around(sequence);
        self.inner.visit_seq(sequence)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let map = self.around(map);
        self.inner.visit_map(map)
    }

    /// No field of an answer is read as an enum: an unknown variant would be an error that quotes it.
    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<V::Value, A::Error> {
        Err(A::Error::custom("enums are not read"))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guarded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.context.count()?;
        let seed = self.around(seed);
        self.inner.next_element_seed(seed)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.context.count()?;
        let seed = self.around(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.next_value_seed(seed)
    }
}
