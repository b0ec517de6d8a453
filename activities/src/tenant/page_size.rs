//! How many results one request asks for. A tenant that refuses so many, or whose answer is too long, is asked for half as many, and for
//! twice as many again after a while, so that one odd answer does not cost requests for ever.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Tenant;
use super::classify::is_oversized;
use super::documents::Page;
use super::send::Call;
use crate::failure::{Category, Failure};

/// For how long a smaller size is kept before a larger one is tried again.
const BELIEVED: Duration = Duration::from_secs(600);

/// How many results one request of some kind asks for.
pub(super) struct PageSize {
    most: usize,
    now: Mutex<Current>,
}

struct Current {
    results: usize,
    /// Until when (monotonic) this is assumed to be the most that the tenant accepts.
    until: Duration,
}

impl PageSize {
    /// As many as this, until the tenant refuses so many.
    pub(super) fn of(most: usize) -> Self {
        Self { most, now: Mutex::new(Current { results: most, until: Duration::ZERO }) }
    }

    /// As many as may be asked for now (monotonic).
    pub(super) fn at(&self, now: Duration) -> usize {
        let mut current = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        while current.results < self.most && now >= current.until {
            let until = current.until.saturating_add(BELIEVED);
            *current = Current { results: (current.results * 2).min(self.most), until };
        }
        current.results
    }

    /// `refused` results were too many, so half as many are asked for. False if that was only one.
    pub(super) fn shrink(&self, refused: usize, now: Duration) -> bool {
        if refused > 1 {
            let until = now.saturating_add(BELIEVED);
            *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Current { results: refused / 2, until };
        }
        refused > 1
    }
}

/// One page of a search or listing.
pub(super) struct Found<T> {
    /// What can be read of it.
    pub(super) items: Vec<T>,
    /// How many results it holds, readable or not.
    pub(super) count: usize,
    /// How many were asked for.
    pub(super) asked: usize,
    /// Whether more results may follow behind those of this page.
    pub(super) more: bool,
    /// How many results the tenant says there are in all.
    pub(super) told: Option<u64>,
    /// Whether it counts them exactly.
    pub(super) exact: bool,
    /// Whether it says that there may be more than it counts.
    pub(super) open: bool,
}

impl<T> Found<T> {
    /// Whether this page is the last one, also by what the tenant tells, once `shown` results were seen in all, none of them twice. No
    /// results at all are believed only beside a count that says so.
    pub(super) fn is_last(&self, shown: usize) -> bool {
        let told = self.told.map_or(shown > 0, |told| u64::try_from(shown).is_ok_and(|shown| told <= shown));
        !self.more && !self.open && told
    }
}

impl Tenant {
    /// Reads one page of a search of at most `wanted` results from `from` on, and fewer if its answer is too long.
    pub(super) async fn page<P: Page>(
        &self,
        wanted: usize,
        from: usize,
        search: impl Fn(usize) -> Call,
    ) -> Result<Found<P::Item>, Failure> {
        let (call, asked, page): (_, _, P) = self.read_page(wanted, search).await?;
        let (total, told, open) = (page.total(), page.told(), page.is_open());
        let (items, count) = self.items_of(&call, page)?;
        // A short page is the last one, unless the tenant counts more than it has shown.
        let counted = total.is_some_and(|total| u64::try_from(from + count).is_ok_and(|shown| shown < total));
        let more = count > 0 && (count >= asked || counted);
        Ok(Found { items, count, asked, more, told, exact: !open && total.is_some() && total == told, open })
    }

    /// What can be read of a page, and how many results it holds; a failure if it is none, or if the search did not look everywhere.
    pub(super) fn items_of<P: Page>(&self, call: &Call, page: P) -> Result<(Vec<P::Item>, usize), Failure> {
        if let Some(why) = page.incomplete() {
            let message = format!("tenant `{}` answered {}, but the search is incomplete: {why}", self.name, call.operation);
            return Err(Failure::new("tenant.unavailable", Category::DependencyUnavailable, message).with_source(call.source()));
        }
        page.into_items().ok_or_else(|| self.unexpected(call, P::LACKS))
    }

    /// Reads one answer of at most `wanted` results, and of fewer if it is too long. Also returns the request that was answered, and how
    /// many results it asked for.
    pub(super) async fn read_page<T: DeserializeOwned + Send + 'static>(
        &self,
        wanted: usize,
        search: impl Fn(usize) -> Call,
    ) -> Result<(Call, usize, T), Failure> {
        loop {
            let asked = wanted.min(self.page_size.at(self.clock.monotonic()));
            let call = search(asked);
            match self.read::<T>(&call).await {
                Err(failure) if is_oversized(&failure) && self.page_size.shrink(asked, self.clock.monotonic()) => {
                    tracing::warn!(tenant = self.name, results = asked, %failure, "too many results for one answer; asking for fewer");
                }
                Err(failure) => return Err(failure),
                Ok(page) => return Ok((call, asked, page)),
            }
        }
    }
}
