//! What the pages of a search for the runs of one workflow or app show together, and how far that is all.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::page_size::Found;
use super::runs::Run;
use crate::timestamp;

/// What a search for the runs of one workflow or app shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunsShown {
    /// The newest first.
    pub runs: Vec<Run>,
    /// Whether these are all that the tenant has, as far as it says. Otherwise there may be older ones.
    pub complete: bool,
    /// Whether all hits that were asked for came, readable or not: down to the bound or, without one, a page. Otherwise a run that is
    /// not shown may exist, however new it is.
    pub reaches: bool,
    /// Hits that cannot be told from others.
    pub nameless: Vec<Nameless>,
}

/// A hit of a search for runs without a name that can be read, and that a request could name.
#[derive(Debug, Clone, PartialEq)]
pub struct Nameless {
    /// Its place among the hits of the search, counted from 1.
    pub position: usize,
    /// What else it shows. Its name is empty.
    pub run: Run,
}

impl Nameless {
    /// The words for it.
    pub fn describe(&self) -> String {
        let phase = self.run.phase.as_deref().unwrap_or("without a phase");
        let created = self.run.created_at.map(|at| format!("created at {}", timestamp::format(at)));
        let created = created.unwrap_or_else(|| "without a time".to_owned());
        format!("hit {} of a search has no name that can be read ({phase}, {created})", self.position)
    }
}

/// A search that is being read page by page.
pub(super) struct Reading<'a> {
    /// What the runs are runs of.
    of: &'a str,
    /// No run that was created before this is asked for; None: one page is enough.
    bound: Option<Timestamp>,
    seen: BTreeSet<String>,
    /// How many hits were read. The next page begins behind them.
    pub(super) from: usize,
    /// How many of them were seen before.
    repeated: usize,
    pub(super) shown: RunsShown,
}

impl<'a> Reading<'a> {
    pub(super) fn new(of: &'a str, bound: Option<Timestamp>) -> Self {
        Self { of, bound, seen: BTreeSet::new(), from: 0, repeated: 0, shown: RunsShown::default() }
    }

    /// Takes a page in, and says whether another one is to be read. `read` gives a run without a name where there is none. A hit that
    /// names another workflow or app is none of those that were asked for.
    pub(super) fn take<T>(&mut self, mut found: Found<T>, read: impl Fn(T) -> Run) -> bool {
        let (before, kept, mut past) = (self.shown.runs.len(), found.items.len(), false);
        for (number, run) in std::mem::take(&mut found.items).into_iter().map(read).enumerate() {
            past |= run.created_at.zip(self.bound).is_some_and(|(created, bound)| created < bound);
            if run.workflow.as_deref().is_some_and(|named| named != self.of) {
                continue;
            }
            if run.name.is_empty() {
                self.shown.nameless.push(Nameless { position: self.from + number + 1, run });
            } else if self.seen.insert(run.name.clone()) {
                self.shown.runs.push(run);
            } else {
                // A run that is created while we read pushes others to the next page, where they are seen again.
                self.repeated += 1;
            }
        }
        self.from += found.count;
        let whole = kept == found.count && found.is_last(self.from.saturating_sub(self.repeated));
        let enough = past || (self.bound.is_none() && found.count >= found.asked);
        self.shown.complete = whole && self.shown.nameless.is_empty();
        self.shown.reaches = whole || enough;
        found.more && !enough && self.shown.runs.len() > before
    }
}
