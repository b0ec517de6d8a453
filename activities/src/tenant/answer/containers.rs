//! Objects and lists, none of which fails on a value of another kind.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fields::NAME;
use crate::text::clip_to;

/// An object, and the default where there is none.
#[derive(Debug, Default, Clone)]
pub(in crate::tenant) struct Lenient<T>(pub(in crate::tenant) T);

impl<T> Deref for Lenient<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: DeserializeOwned + Default> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Object(PhantomData))
    }
}

struct Object<T>(PhantomData<T>);

macro_rules! absent {
    ($($name:ident($type:ty))*) => {$(
        fn $name<E>(self, _: $type) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    )*};
}

impl<'de, T: DeserializeOwned + Default> Visitor<'de> for Object<T> {
    type Value = Lenient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    absent! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str) }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Lenient::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
        skip_sequence(sequence).map(|_| Lenient::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Lenient)
    }
}

/// What a list holds.
pub(in crate::tenant) trait Element: DeserializeOwned + Send + 'static {
    /// How many are kept of one list.
    const MOST: usize = 512;
}

impl<T: Element + Default> Element for Lenient<T> {
    const MOST: usize = T::MOST;
}

/// A list: as many of its elements as are kept, and how many there were.
#[derive(Debug, Default, Clone)]
pub(in crate::tenant) enum List<T> {
    #[default]
    Absent,
    Null,
    Other,
    Items {
        kept: Vec<T>,
        count: usize,
    },
}

impl<T> List<T> {
    /// The elements that were kept, and how many there were; none of what is no list.
    pub(in crate::tenant) fn into_items(self) -> Option<(Vec<T>, usize)> {
        match self {
            Self::Items { kept, count } => Some((kept, count)),
            Self::Absent | Self::Null | Self::Other => None,
        }
    }

    /// The elements that were kept.
    pub(in crate::tenant) fn items(&self) -> &[T] {
        match self {
            Self::Items { kept, .. } => kept,
            Self::Absent | Self::Null | Self::Other => &[],
        }
    }

    /// The same, if the list is whole, or if `empty` says that none is meant by its absence.
    pub(in crate::tenant) fn or_empty(self, empty: bool) -> Option<(Vec<T>, usize)> {
        match self {
            Self::Absent | Self::Null if empty => Some((Vec::new(), 0)),
            other => other.into_items(),
        }
    }
}

impl<'de, T: Element> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Elements(PhantomData))
    }
}

struct Elements<T>(PhantomData<T>);

macro_rules! no_list {
    ($($name:ident($type:ty))*) => {$(
        fn $name<E>(self, _: $type) -> Result<Self::Value, E> {
            Ok(List::Other)
        }
    )*};
}

impl<'de, T: Element> Visitor<'de> for Elements<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    no_list! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str) }

    fn visit_unit<E>(self) -> Result<List<T>, E> {
        Ok(List::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<List<T>, A::Error> {
        skip_map(map).map(|()| List::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<List<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < T::MOST {
            match sequence.next_element()? {
                Some(element) => kept.push(element),
                None => return Ok(List::Items { count: kept.len(), kept }),
            }
        }
        let count = kept.len() + skip_sequence(sequence)?;
        Ok(List::Items { kept, count })
    }
}

/// The entries of an object whose keys are the tenant's, at most 512, in the order in which they came.
#[derive(Debug)]
pub(in crate::tenant) struct Pairs<T>(pub(in crate::tenant) Vec<(String, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Element + Default> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Entries(PhantomData))
    }
}

struct Entries<T>(PhantomData<T>);

impl<'de, T: Element + Default> Visitor<'de> for Entries<T> {
    type Value = Pairs<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    absent! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str) }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Pairs::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
        skip_sequence(sequence).map(|_| Pairs::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while pairs.len() < T::MOST {
            match map.next_entry::<String, T>()? {
                Some((key, value)) => pairs.push((clip_to(key, NAME), value)),
                None => return Ok(Pairs(pairs)),
            }
        }
        skip_map(map).map(|()| Pairs(pairs))
    }
}

/// How many elements were skipped.
pub(super) fn skip_sequence<'de, A: SeqAccess<'de>>(mut sequence: A) -> Result<usize, A::Error> {
    let mut count = 0;
    while sequence.next_element::<IgnoredAny>()?.is_some() {
        count += 1;
    }
    Ok(count)
}

pub(super) fn skip_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}
