//! The frames in which the tenant's services list things: hits of a search, entities of the metastore, records of a listing.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::answer::{Count, Element, Exact, Flag, Lenient, List, NAME, Text, Time};

/// A page of results.
pub(super) trait Page: DeserializeOwned + Send + 'static {
    /// What it holds.
    type Item;
    /// What is wrong with an answer that is none.
    const LACKS: &'static str;

    /// How many results there are in all, where the tenant says so.
    fn total(&self) -> Option<u64>;

    /// How many results the tenant says there are, exactly or not.
    fn told(&self) -> Option<u64> {
        self.total()
    }

    /// Why the search behind it did not look everywhere, if it says so: then it proves nothing.
    fn incomplete(&self) -> Option<String> {
        None
    }

    /// What can be read of the results, and how many there are. None: this is no page, and never taken for "nothing found".
    fn into_items(self) -> Option<(Vec<Self::Item>, usize)>;
}

/// What a search says about itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shards {
    failed: Count,
}

fn incomplete(timed_out: Flag, shards: &Shards) -> Option<String> {
    match shards.failed.0 {
        Some(failed) if failed > 0.0 => Some(format!("{failed} of its shards failed")),
        _ if timed_out.0 == Some(true) => Some("it timed out".to_owned()),
        _ => None,
    }
}

/// The answer to a search for workflows or runs.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Element + Default"))]
pub(super) struct Hits<T> {
    #[serde(default = "Default::default", rename = "hits")]
    list: Lenient<HitList<T>>,
    #[serde(default)]
    timed_out: Flag,
    #[serde(default, rename = "_shards")]
    shards: Lenient<Shards>,
}

#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Element + Default"), default)]
struct HitList<T> {
    total: HitTotal,
    hits: List<Lenient<T>>,
}

impl<T> Default for HitList<T> {
    fn default() -> Self {
        Self { total: HitTotal::default(), hits: List::default() }
    }
}

/// How many hits there are in all: an object with a `value`, or, where the service is set so, the number itself.
#[derive(Debug, Default)]
struct HitTotal(Option<u64>);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Total {
    value: Count,
}

impl<'de> Deserialize<'de> for HitTotal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HitTotalVisitor)
    }
}

struct HitTotalVisitor;

macro_rules! no_total {
    ($($name:ident($type:ty))*) => {$(
        fn $name<E>(self, _: $type) -> Result<HitTotal, E> {
            Ok(HitTotal(None))
        }
    )*};
}

impl<'de> Visitor<'de> for HitTotalVisitor {
    type Value = HitTotal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    no_total! { visit_bool(bool) visit_i64(i64) visit_f64(f64) visit_str(&str) }

    fn visit_u64<E>(self, total: u64) -> Result<HitTotal, E> {
        Ok(HitTotal(Some(total)))
    }

    fn visit_unit<E>(self) -> Result<HitTotal, E> {
        Ok(HitTotal(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<HitTotal, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(HitTotal(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HitTotal, A::Error> {
        Total::deserialize(MapAccessDeserializer::new(map)).map(|total| HitTotal(total.value.whole()))
    }
}

impl<T: Element + Default> Page for Hits<T> {
    type Item = T;
    const LACKS: &'static str = "it has no list of hits";

    fn total(&self) -> Option<u64> {
        self.list.total.0
    }

    fn incomplete(&self) -> Option<String> {
        incomplete(self.timed_out, &self.shards)
    }

    fn into_items(self) -> Option<(Vec<T>, usize)> {
        let none = self.total() == Some(0);
        self.list.0.hits.or_empty(none).map(objects)
    }
}

/// The answer to a search in the metastore, which leaves the list out when it is empty, and then says so in another way.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Element + Default"))]
pub(super) struct Entities<T> {
    #[serde(default = "Default::default", rename = "entities")]
    list: List<Lenient<T>>,
    #[serde(default, rename = "approximateCount")]
    count: Count,
    #[serde(default)]
    timed_out: Flag,
    #[serde(default, rename = "_shards")]
    shards: Lenient<Shards>,
}

impl<T: Element + Default> Page for Entities<T> {
    type Item = T;
    const LACKS: &'static str = "it has no list of entities";

    /// The count is approximate.
    fn total(&self) -> Option<u64> {
        None
    }

    fn told(&self) -> Option<u64> {
        self.count.whole()
    }

    fn incomplete(&self) -> Option<String> {
        incomplete(self.timed_out, &self.shards)
    }

    fn into_items(self) -> Option<(Vec<T>, usize)> {
        self.list.or_empty(self.count.0.is_some()).map(objects)
    }
}

/// A listing. A null beside a total is an empty list.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Element + Default"))]
pub(super) struct Records<T> {
    #[serde(default = "Default::default", rename = "records")]
    list: List<Lenient<T>>,
    #[serde(default, rename = "totalRecord")]
    total: Count,
    #[serde(default, rename = "filterRecord")]
    filtered: Count,
}

impl<T: Element + Default> Page for Records<T> {
    type Item = T;
    const LACKS: &'static str = "it has no list of records";

    fn total(&self) -> Option<u64> {
        self.filtered.whole().filter(|filtered| *filtered > 0).or(self.total.whole())
    }

    /// Zero records that pass the filter are none, however many there are without it; but some tenants count no filtered ones at all.
    fn told(&self) -> Option<u64> {
        self.filtered.whole().or(self.total.whole())
    }

    fn into_items(self) -> Option<(Vec<T>, usize)> {
        self.list.or_empty(self.total.0.is_some()).map(objects)
    }
}

/// What is no object became an empty one, which names nothing.
fn objects<T>((items, count): (Vec<Lenient<T>>, usize)) -> (Vec<T>, usize) {
    (items.into_iter().map(|Lenient(item)| item).collect(), count)
}

/// The `metadata` of a workflow or run.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: Exact,
    pub(super) creation_timestamp: Time,
    pub(super) labels: Lenient<Labels>,
    pub(super) annotations: Lenient<Annotations>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Labels {
    #[serde(rename = "workflows.argoproj.io/creator")]
    pub(super) creator: Text<NAME>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Annotations {
    #[serde(rename = "package.argoproj.io/name")]
    pub(super) package: Text<NAME>,
}
