//! Listings of the tenant, read page by page until the caller has enough, everything was read, or a bound is reached. What was left out
//! is always counted, so that a command can say so.

use std::collections::BTreeSet;

use super::Tenant;
use super::page_size::Found;
use super::send::Call;
use crate::failure::{Category, Failure};

/// The most rows that one listing returns: searches of the tenant answer nothing beyond this window.
pub const MOST_LISTED: usize = 10_000;
/// A tenant whose pages hold one row each is read no longer than this.
pub(super) const MOST_PAGES: usize = 1_000;

/// What a listing returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The rows, in the tenant's order.
    pub rows: Vec<T>,
    /// How many there are in all, where the tenant says so.
    pub total: Option<u64>,
    /// Whether the tenant has more rows than were read.
    pub more: bool,
    /// Rows that were read and are not among `rows`, since they have no name.
    pub unreadable: usize,
}

/// One page as it was fetched.
pub(super) struct Page<T> {
    /// How many elements it had. The next page begins after them, whether they could be read or not.
    pub(super) elements: usize,
    /// How many there are in all, where the page says so.
    pub(super) total: Option<u64>,
    /// Those that could be read.
    pub(super) rows: Vec<T>,
    /// How many more elements it had than are kept of one answer. They were not read at all.
    pub(super) cut: usize,
    /// Whether more may follow, as far as the page itself shows.
    pub(super) more: bool,
    /// Whether `total` is exact, so that nothing follows once it is reached.
    pub(super) exact: bool,
}

impl<T> Page<T> {
    /// A page as it was found, with the rows that its elements are.
    pub(super) fn of<E>(found: Found<E>, row: impl Fn(E) -> Option<T>) -> Self {
        let Found { items, count, more, told, exact, .. } = found;
        let cut = count.saturating_sub(items.len());
        Self { elements: count, total: told, rows: items.into_iter().filter_map(row).collect(), cut, more, exact }
    }
}

impl<T> Listed<T> {
    pub(super) fn new() -> Self {
        Self { rows: Vec::new(), total: None, more: true, unreadable: 0 }
    }

    /// Both lists in one.
    #[must_use]
    pub fn joined(mut self, other: Self) -> Self {
        self.total = self.known_total().zip(other.known_total()).map(|(one, two)| one.saturating_add(two));
        self.more |= other.more;
        self.unreadable += other.unreadable;
        self.rows.extend(other.rows);
        self
    }

    /// No more than so many rows.
    pub fn truncate(&mut self, limit: usize) {
        if self.rows.len() > limit {
            self.total = self.known_total();
            self.more = true;
            self.rows.truncate(limit);
        }
    }

    fn known_total(&self) -> Option<u64> {
        self.total.or_else(|| (!self.more).then(|| u64::try_from(self.rows.len()).unwrap_or(u64::MAX)))
    }
}

/// Reads pages of at most `page` elements from `fetch(offset, size)` until there are `limit` rows or no more. A row that was seen before
/// is left out: elements that are added while we read push others to the next page.
pub(super) async fn pages<T>(
    limit: usize,
    page: usize,
    name: impl Fn(&T) -> &str,
    mut fetch: impl AsyncFnMut(usize, usize) -> Result<Page<T>, Failure>,
) -> Result<Listed<T>, Failure> {
    let (mut listed, mut seen, mut offset, mut cut) = (Listed::new(), BTreeSet::new(), 0, 0);
    for _ in 0..MOST_PAGES {
        let size = page.min(limit.saturating_sub(listed.rows.len())).min(MOST_LISTED.saturating_sub(offset));
        if size == 0 {
            break;
        }
        let found = fetch(offset, size).await?;
        offset += found.elements;
        listed.total = found.total.or(listed.total);
        cut += found.cut;
        listed.unreadable += found.elements.saturating_sub(found.cut + found.rows.len());
        let (shown, before) = (found.rows.len(), listed.rows.len());
        listed.rows.extend(found.rows.into_iter().filter(|row| seen.insert(name(row).to_owned())));
        let have = u64::try_from(listed.rows.len() + listed.unreadable + cut).unwrap_or(u64::MAX);
        if shown > 0 && listed.rows.len() == before && listed.total.is_none_or(|total| have < total) {
            // The tenant answers with the same page again, whatever is asked for.
            listed.more = true;
            return Ok(listed);
        }
        listed.more = match listed.total {
            // An approximate total may be too small, and then a full page shows that more may follow.
            Some(total) => u64::try_from(offset).unwrap_or(u64::MAX) < total || (!found.exact && found.more),
            None => found.more,
        };
        if !listed.more || found.elements == 0 {
            break;
        }
    }
    listed.more |= cut > 0;
    Ok(listed)
}

impl Tenant {
    /// A listing that has to be complete to be of use, and is not.
    pub(super) fn incomplete<T>(&self, call: &Call, listed: &Listed<T>) -> Failure {
        let total = listed.total.map_or_else(|| "more".to_owned(), |total| total.to_string());
        let message = format!("tenant `{}` listed {} of {total} rows for {}", self.name, listed.rows.len(), call.operation);
        Failure::new("tenant.unreadable", Category::DependencyUnavailable, message).with_source(call.source())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tenant that has rows of these names, gives at most `most` in a page, and says `total`.
    async fn listed(names: &[&str], most: usize, total: Option<u64>, limit: usize) -> (Listed<String>, Vec<(usize, usize)>) {
        let mut asked = Vec::new();
        let found = pages(limit, 3, String::as_str, async |offset, size| {
            asked.push((offset, size));
            let page: Vec<_> = names.iter().skip(offset).take(size.min(most)).collect();
            let rows = page.iter().filter(|name| !name.is_empty()).map(|name| (**name).to_owned()).collect();
            Ok(Page { elements: page.len(), total, rows, cut: 0, more: page.len() >= size, exact: total.is_some() })
        });
        (found.await.expect("an answer"), asked)
    }

    #[tokio::test]
    async fn a_page_that_is_shorter_than_asked_does_not_end_a_listing_whose_total_is_larger() {
        let (found, asked) = listed(&["a", "b", "c", "d"], 1, Some(4), 100).await;
        assert_eq!((found.rows.len(), found.more, asked.len()), (4, false, 4));
        let (found, asked) = listed(&["a", "b", "c", "d"], 9, None, 100).await;
        assert_eq!((found.rows.len(), found.more, asked), (4, false, vec![(0, 3), (3, 3)]));
    }

    #[tokio::test]
    async fn a_tenant_that_gives_less_than_its_total_is_not_asked_for_ever_and_the_rest_is_counted() {
        let (found, asked) = listed(&["a", "b"], 9, Some(7), 100).await;
        assert_eq!((found.rows.len(), found.total, found.more, asked.len()), (2, Some(7), true, 2));
    }

    #[tokio::test]
    async fn a_tenant_that_answers_every_page_with_the_first_is_asked_once_more_and_the_rest_is_said_to_be_missing() {
        for total in [Some(7), Some(4), None] {
            let mut asked = 0;
            let found = pages(100, 3, String::as_str, async |_, size| {
                asked += 1;
                let rows: Vec<_> = ["a", "b", "c"].into_iter().take(size).map(str::to_owned).collect();
                Ok(Page { elements: rows.len(), total, rows, cut: 0, more: true, exact: true })
            });
            let found = found.await.expect("an answer");
            assert_eq!((found.rows.len(), found.total, found.more, asked), (3, total, true, 2));
        }
    }

    #[tokio::test]
    async fn no_more_is_read_than_the_caller_wants() {
        let (found, asked) = listed(&["a", "b", "c", "d", "e"], 9, Some(5), 4).await;
        assert_eq!((found.rows.len(), found.more, asked), (4, true, vec![(0, 3), (3, 1)]));
    }

    #[tokio::test]
    async fn one_element_that_cannot_be_read_does_not_lose_the_rest_and_a_row_seen_twice_is_one() {
        let (found, _) = listed(&["a", "", "b", "a", "c"], 9, Some(5), 100).await;
        assert_eq!((found.rows, found.unreadable, found.more), (["a", "b", "c"].map(str::to_owned).to_vec(), 1, false));
    }

    #[tokio::test]
    async fn a_listing_ends_at_its_bound_and_says_that_there_is_more() {
        let mut number = 0;
        let found = pages(usize::MAX, 100, String::as_str, async |_, size| {
            let rows = (0..size).map(|n| format!("{number}-{n}")).collect();
            number += 1;
            Ok(Page { elements: size, total: None, rows, cut: 0, more: true, exact: false })
        });
        let found = found.await.expect("an answer");
        assert_eq!((found.rows.len(), found.more), (MOST_LISTED, true));
    }

    #[tokio::test]
    async fn elements_that_were_cut_off_are_not_unreadable_and_leave_a_listing_incomplete() {
        let found = pages(100, 3, String::as_str, async |_, _| {
            Ok(Page { elements: 5, total: Some(5), rows: vec!["a".to_owned(), "b".to_owned()], cut: 2, more: true, exact: true })
        });
        let found = found.await.expect("an answer");
        assert_eq!((found.rows.len(), found.unreadable, found.more), (2, 1, true));
    }

    #[tokio::test]
    async fn a_total_that_is_only_approximate_does_not_end_a_listing_whose_page_is_full() {
        let mut asked = 0;
        let found = pages(100, 3, String::as_str, async |offset, size| {
            asked += 1;
            let rows: Vec<_> = (offset..(offset + size).min(5)).map(|n| n.to_string()).collect();
            Ok(Page { elements: rows.len(), total: Some(3), cut: 0, more: rows.len() >= size, exact: false, rows })
        });
        let found = found.await.expect("an answer");
        assert_eq!((found.rows.len(), found.more, asked), (5, false, 2));
    }

    #[test]
    fn two_lists_in_one_say_how_many_there_are_in_all_where_both_are_known() {
        let list = |rows: usize, total, more| Listed { rows: vec![0; rows], total, more, unreadable: 1 };
        let mut joined = list(3, Some(3), false).joined(list(2, None, false));
        joined.truncate(4);
        assert_eq!((joined.rows.len(), joined.total, joined.more, joined.unreadable), (4, Some(5), true, 2));
        assert_eq!(list(3, Some(3), false).joined(list(2, None, true)).total, None);
    }
}
