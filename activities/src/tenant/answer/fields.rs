//! The types of the fields that are read. A value of another kind than expected is an absent one: one odd field must not lose the rest of
//! an answer, and no error may quote it. Where the difference matters, the field says so.

use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::containers::{skip_map, skip_sequence};
use super::decode::{EXACT, SECRET};
use crate::text::clip_to;

/// The longest name that is shown, in bytes.
pub(in crate::tenant) const NAME: usize = 256;
/// The longest phase of a run, in bytes.
pub(in crate::tenant) const PHASE: usize = 64;
/// The longest name by which something is asked for again, in bytes: qualified names are long.
const IDENTIFIER: usize = 1024;
/// A number of milliseconds since 1970 is larger than this, a number of seconds is not.
const LEAST_MILLIS: i64 = 100_000_000_000;

/// A field that holds one text, number or boolean.
trait Scalar: Default {
    fn text(_: &str) -> Self {
        Self::default()
    }

    fn number(_: &Number) -> Self {
        Self::default()
    }

    fn flag(_: bool) -> Self {
        Self::default()
    }
}

struct Any<T>(PhantomData<T>);

impl<'de, T: Scalar> Visitor<'de> for Any<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<T, E> {
        Ok(T::flag(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<T, E> {
        Ok(T::number(&value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<T, E> {
        Ok(T::number(&value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<T, E> {
        Ok(Number::from_f64(value).map(|number| T::number(&number)).unwrap_or_default())
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::text(text))
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<T, A::Error> {
        skip_sequence(sequence).map(|_| T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        skip_map(map).map(|()| T::default())
    }
}

/// A text of at most so many bytes that is not empty; longer ones end in `…`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::tenant) struct Text<const LONGEST: usize>(pub(in crate::tenant) Option<String>);

/// The same, also of a number.
#[derive(Debug, Default, Clone)]
pub(in crate::tenant) struct Plain<const LONGEST: usize>(pub(in crate::tenant) Option<String>);

/// A name by which something is asked for again, or compared. One that is too long, or that had to be sanitized, is none: what is left
/// of it would name something else.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::tenant) struct Exact(pub(in crate::tenant) Option<String>);

/// A new secret of ours. Taken as it is, and shown nowhere.
#[derive(Debug, Default)]
pub(in crate::tenant) struct Secret(pub(in crate::tenant) Option<SecretString>);

/// A boolean.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::tenant) struct Flag(pub(in crate::tenant) Option<bool>);

/// A number, also as a text.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::tenant) struct Count(pub(in crate::tenant) Option<f64>);

/// A time in RFC 3339.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::tenant) struct Time(pub(in crate::tenant) Option<Timestamp>);

/// A time in RFC 3339, in milliseconds or in seconds; cut to the second. Zero is none.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::tenant) struct Moment(pub(in crate::tenant) Option<Timestamp>);

impl Count {
    /// As a whole number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was checked to be whole and not negative")]
    pub(in crate::tenant) fn whole(self) -> Option<u64> {
        self.0.filter(|number| *number >= 0.0 && *number < 9e15 && number.fract() == 0.0).map(|number| number as u64)
    }
}

fn not_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

impl<const LONGEST: usize> Scalar for Text<LONGEST> {
    fn text(text: &str) -> Self {
        Self(not_empty(text).map(|text| clip_to(text.to_owned(), LONGEST)))
    }
}

impl<const LONGEST: usize> Scalar for Plain<LONGEST> {
    fn text(text: &str) -> Self {
        Self(Text::<LONGEST>::text(text).0)
    }

    fn number(number: &Number) -> Self {
        Self(Some(clip_to(number.to_string(), LONGEST)))
    }
}

impl Scalar for Exact {
    fn text(text: &str) -> Self {
        Self(not_empty(text).filter(|text| text.len() <= IDENTIFIER).map(str::to_owned))
    }
}

impl Scalar for Secret {
    fn text(text: &str) -> Self {
        Self(not_empty(text).map(SecretString::from))
    }
}

impl Scalar for Flag {
    fn flag(value: bool) -> Self {
        Self(Some(value))
    }
}

impl Scalar for Count {
    fn text(text: &str) -> Self {
        Self(text.trim().parse().ok().filter(|number: &f64| number.is_finite()))
    }

    fn number(number: &Number) -> Self {
        Self(number.as_f64())
    }
}

impl Scalar for Time {
    fn text(text: &str) -> Self {
        Self(text.parse().ok())
    }
}

impl Scalar for Moment {
    fn text(text: &str) -> Self {
        Self(text.parse().ok().and_then(cut_to_the_second))
    }

    fn number(number: &Number) -> Self {
        let at = match number.as_i64().filter(|number| *number > 0) {
            Some(millis) if millis > LEAST_MILLIS => Timestamp::from_millisecond(millis).ok(),
            Some(seconds) => Timestamp::from_second(seconds).ok(),
            None => None,
        };
        Self(at.and_then(cut_to_the_second))
    }
}

fn cut_to_the_second(at: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(at.as_second()).ok()
}

macro_rules! decoded_from_any_value {
    ($type:ty $(, $generics:tt: usize)?) => {
        impl<'de, $(const $generics: usize)?> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Any(PhantomData))
            }
        }
    };
}

decoded_from_any_value!(Text<LONGEST>, LONGEST: usize);
decoded_from_any_value!(Plain<LONGEST>, LONGEST: usize);
decoded_from_any_value!(Flag);
decoded_from_any_value!(Count);
decoded_from_any_value!(Time);
decoded_from_any_value!(Moment);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(EXACT, Any(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(SECRET, Any(PhantomData))
    }
}
