//! The frames in which the tenant's services list things: hits of a search, entities of the metastore, records of a listing.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::answer::{Claim, Count, Element, Exact, Lenient, List, NAME, Text, Time};

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

    /// Whether it says that there may be more results than it counts.
    fn is_open(&self) -> bool {
        false
    }

    /// Why it says itself that it is not the whole answer, if it does: then it proves nothing.
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
    total: Count,
    successful: Count,
    failed: Count,
}

impl Shards {
    fn incomplete(&self) -> Option<String> {
        if let Some(failed) = self.failed.0.filter(|failed| *failed > 0.0) {
            return Some(format!("{failed} of its shards failed"));
        }
        // Those that were skipped count as successful.
        let (total, successful) = self.total.0.zip(self.successful.0)?;
        (successful < total).then(|| format!("{successful} of its {total} shards answered"))
    }
}

fn incomplete(errors: [Claim; 3], timed_out: Claim, cut: Claim, shards: &Shards) -> Option<String> {
    if errors.contains(&Claim(true)) {
        return Some("it is an error as well".to_owned());
    }
    if timed_out.0 {
        return Some("it timed out".to_owned());
    }
    if cut.0 {
        return Some("it was terminated early".to_owned());
    }
    shards.incomplete()
}

/// The answer to a search for workflows or runs.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Element + Default"))]
pub(super) struct Hits<T> {
    #[serde(default = "Default::default", rename = "hits")]
    list: Lenient<HitList<T>>,
    #[serde(default)]
    timed_out: Claim,
    #[serde(default)]
    terminated_early: Claim,
    #[serde(default)]
    error: Claim,
    #[serde(default)]
    errors: Claim,
    #[serde(default, rename = "errorCode")]
    error_code: Claim,
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
struct HitTotal {
    value: Option<u64>,
    /// Whether there may be more.
    is_open: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Total {
    value: Count,
    relation: Text<NAME>,
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
            Ok(HitTotal::default())
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
        Ok(HitTotal { value: Some(total), is_open: false })
    }

    fn visit_unit<E>(self) -> Result<HitTotal, E> {
        Ok(HitTotal::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<HitTotal, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(HitTotal::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HitTotal, A::Error> {
        let Total { value, relation } = Total::deserialize(MapAccessDeserializer::new(map))?;
        Ok(HitTotal { value: value.whole(), is_open: relation.0.is_some_and(|relation| relation != "eq") })
    }
}

impl<T: Element + Default> Page for Hits<T> {
    type Item = T;
    const LACKS: &'static str = "it has no list of hits";

    fn total(&self) -> Option<u64> {
        self.list.total.value
    }

    fn is_open(&self) -> bool {
        self.list.total.is_open
    }

    fn incomplete(&self) -> Option<String> {
        incomplete([self.error, self.errors, self.error_code], self.timed_out, self.terminated_early, &self.shards)
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
    timed_out: Claim,
    #[serde(default)]
    terminated_early: Claim,
    #[serde(default)]
    error: Claim,
    #[serde(default)]
    errors: Claim,
    #[serde(default, rename = "errorCode")]
    error_code: Claim,
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
        incomplete([self.error, self.errors, self.error_code], self.timed_out, self.terminated_early, &self.shards)
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
    #[serde(default)]
    error: Claim,
    #[serde(default)]
    errors: Claim,
    #[serde(default, rename = "errorCode")]
    error_code: Claim,
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

    fn incomplete(&self) -> Option<String> {
        incomplete([self.error, self.errors, self.error_code], Claim(false), Claim(false), &Shards::default())
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
