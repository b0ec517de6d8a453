//! Whose jobs a worker's free slots may go to, so that one tenant cannot take them all. Pure arithmetic over one slot class.
//!
//! Half of the slots is reserved for tenants that run fewer jobs than their share of it; the other half goes to the first that comes.
//! What a tenant does not use of its share stays free for it while there are at least as many reserved slots as tenants. With more
//! tenants the reserved slots are for those of them that run nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Tells of which tenants nothing can be asked now.
pub(crate) trait Holds: fmt::Debug + Send + Sync {
    /// Whether nothing can be asked of this one.
    fn is_held(&self, tenant: &str) -> bool;
}

/// What is known of a slot class before anything runs. Made once: a worker may know thousands of tenants, of which few have jobs.
#[derive(Debug)]
pub(crate) struct ShareTable {
    /// Half of all slots: what is kept for all tenants together.
    reserve: usize,
    /// What no tenant's reserve is ever less than.
    least: usize,
    /// Each tenant's part of the reserve, rounded up: what is kept is bounded by the whole.
    each: usize,
    /// What all tenants together lack to their shares while nothing runs.
    lacking: usize,
    /// How many jobs of each tenant may run.
    most: BTreeMap<String, usize>,
    holds: Option<Arc<dyn Holds>>,
}

impl ShareTable {
    /// For a class with so many slots. Of each tenant at most so many jobs run; zero: as many as there are slots.
    pub(crate) fn new(
        slots: usize,
        tenants: impl IntoIterator<Item = (String, usize)>,
        holds: Option<Arc<dyn Holds>>,
    ) -> Arc<Self> {
        let limited = |(name, max_jobs)| (name, if max_jobs == 0 { usize::MAX } else { max_jobs });
        let most: BTreeMap<_, _> = tenants.into_iter().map(limited).collect();
        let (count, reserve) = (most.len(), slots / 2);
        let each = if count > 1 { reserve.div_ceil(count) } else { 0 };
        let lacking = most.values().map(|most| each.min(*most)).sum();
        Arc::new(Self { reserve, least: reserve.checked_div(count).unwrap_or(0), each, lacking, most, holds })
    }

    /// A tenant's part of the reserve.
    fn share(&self, tenant: &str) -> usize {
        self.most.get(tenant).map_or(0, |most| self.each.min(*most))
    }
}

/// The free slots of one class, and whose jobs they may go to.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    free: usize,
    table: Arc<ShareTable>,
    /// Slots that are used within the shares of their tenants, of all of them together.
    used: usize,
    /// Slots that all of them together lack to their shares.
    lacking: usize,
    /// Jobs that run, of each tenant that has any.
    running: BTreeMap<String, usize>,
}

impl Shares {
    /// With so many free slots, and what runs of each tenant that has anything running.
    pub(crate) fn new(table: Arc<ShareTable>, free: usize, running: BTreeMap<String, usize>) -> Self {
        let used = running.iter().map(|(tenant, running)| table.share(tenant).min(*running)).sum();
        Self { free, lacking: table.lacking.saturating_sub(used), used, table, running }
    }

    /// Slots without owners, as many as there are.
    pub(crate) fn unlimited(free: usize) -> Self {
        Self::new(ShareTable::new(free, [], None), free, BTreeMap::new())
    }

    /// How many slots are free, for any tenant.
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// Whether nothing can be asked of a tenant now.
    pub(crate) fn is_held(&self, tenant: &str) -> bool {
        self.table.holds.as_ref().is_some_and(|holds| holds.is_held(tenant))
    }

    /// How many slots a tenant may have now. One that the worker does not know has no share of its own.
    pub(crate) fn room(&self, tenant: &str) -> usize {
        if self.is_held(tenant) {
            return 0;
        }
        let (share, running) = (self.table.share(tenant), self.running(tenant));
        let (used, lacking) = (self.used - share.min(running), self.lacking - share.saturating_sub(running));
        let reserved = self.table.reserve.saturating_sub(self.table.least.min(share)).saturating_sub(used);
        let most = self.table.most.get(tenant).copied().unwrap_or(usize::MAX);
        self.free.saturating_sub(reserved.min(lacking)).min(most.saturating_sub(running))
    }

    /// Takes a slot for a tenant; false if it may have none.
    pub(crate) fn take(&mut self, tenant: &str) -> bool {
        if self.room(tenant) == 0 {
            return false;
        }
        self.free -= 1;
        if self.running(tenant) < self.table.share(tenant) {
            self.used += 1;
            self.lacking -= 1;
        }
        *self.running.entry(tenant.to_owned()).or_default() += 1;
        true
    }

    fn running(&self, tenant: &str) -> usize {
        self.running.get(tenant).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    struct TenantShare {
        name: String,
        running: usize,
        max_jobs: usize,
        held: bool,
    }

    impl Holds for BTreeSet<String> {
        fn is_held(&self, tenant: &str) -> bool {
            self.contains(tenant)
        }
    }

    /// So many slots, so many of them free, among these tenants.
    fn shares(slots: usize, free: usize, tenants: &[TenantShare]) -> Shares {
        let held: BTreeSet<_> = tenants.iter().filter(|tenant| tenant.held).map(|tenant| tenant.name.clone()).collect();
        let most = tenants.iter().map(|tenant| (tenant.name.clone(), tenant.max_jobs));
        let running = tenants.iter().filter(|tenant| tenant.running > 0).map(|tenant| (tenant.name.clone(), tenant.running));
        Shares::new(ShareTable::new(slots, most, Some(Arc::new(held))), free, running.collect())
    }

    fn tenant(name: &str, running: usize) -> TenantShare {
        TenantShare { name: name.into(), running, max_jobs: 0, held: false }
    }

    #[test]
    fn a_tenant_alone_may_have_everything() {
        assert_eq!(shares(8, 8, &[tenant("a", 0)]).room("a"), 8);
        assert_eq!(shares(8, 3, &[]).room("a"), 3);
    }

    #[test]
    fn what_is_kept_for_others_is_not_taken() {
        let mut of = shares(8, 8, &[tenant("a", 0), tenant("b", 0)]);
        let taken = (0..8).filter(|_| of.take("a")).count();
        assert_eq!((taken, of.room("b")), (6, 2), "half of eight is shared out, two each");
        assert_eq!(of.room("stranger"), 0, "a tenant that is not known has no share");
        let busy = shares(8, 2, &[tenant("a", 4), tenant("b", 2)]);
        assert_eq!((busy.room("a"), busy.room("b")), (2, 2), "a tenant that has its share keeps no other from the rest");
    }

    /// How many of so many slots one busy tenant gets beside so many others that run nothing, and what is left for one of these.
    fn busy_beside_idle(slots: usize, others: usize) -> (usize, usize) {
        let tenants: Vec<_> = (0..=others).map(|n| tenant(&format!("t-{n}"), 0)).collect();
        let mut of = shares(slots, slots, &tenants);
        let taken = (0..slots).filter(|_| of.take("t-0")).count();
        (taken, of.room(&format!("t-{others}")))
    }

    #[test]
    fn one_busy_tenant_gets_at_least_half_of_the_slots_and_no_fewer_by_leaps_as_tenants_are_added() {
        for slots in (1..=64).chain([1_000, 10_000]) {
            let mut before = slots;
            for others in 0..100 {
                let (taken, left) = busy_beside_idle(slots, others);
                assert!(taken >= slots.div_ceil(2), "{taken} of {slots} beside {others}");
                assert!(taken <= before, "{taken} after {before} of {slots} beside {others}");
                assert!(others < 3 || before - taken <= slots.div_ceil(16), "{taken} after {before} of {slots} beside {others}");
                assert!(others == 0 || slots < 2 || left > 0, "nothing is left of {slots} beside {others}");
                before = taken;
            }
        }
        let of_32: Vec<usize> = [1, 2, 4, 15, 16, 17, 31, 32, 99].map(|others| busy_beside_idle(32, others).0).into();
        assert_eq!(of_32, [24, 21, 19, 17, 16, 16, 16, 16, 16]);
    }

    #[test]
    fn what_is_reserved_is_given_out_to_those_that_run_nothing_and_then_keeps_none_from_the_rest() {
        let tenants: Vec<_> = (0..100).map(|n| tenant(&format!("t-{n}"), 0)).collect();
        let mut of = shares(8, 8, &tenants);
        assert_eq!((0..8).filter(|_| of.take("t-0")).count(), 4);
        assert_eq!((1..9).filter(|n| of.take(&format!("t-{n}"))).count(), 4);
        let mut small: Vec<_> = (0..100).map(|n| tenant(&format!("t-{n}"), usize::from((1..=4).contains(&n)))).collect();
        assert_eq!(shares(8, 4, &small).room("t-0"), 4, "four of the others have the reserve already");
        small[1].running = 4;
        assert_eq!(shares(8, 1, &small).room("t-1"), 0, "the last slot is for one that runs nothing");
        assert_eq!(shares(8, 1, &small).room("t-50"), 1);
    }

    #[test]
    fn a_limit_of_its_own_holds_and_nothing_is_kept_beyond_it() {
        let limited = |running| TenantShare { max_jobs: 2, ..tenant("a", running) };
        assert_eq!(shares(8, 7, &[limited(1)]).room("a"), 1);
        let room = |slots, running| shares(slots, slots - running, &[limited(running), tenant("b", 0)]).room("b");
        assert_eq!((room(32, 0), room(32, 2)), (30, 30), "two are all that it may ever use");
    }

    #[test]
    fn who_is_held_gets_nothing_and_finds_its_share_afterwards() {
        let tenants = |held| [TenantShare { held, ..tenant("a", 0) }, tenant("b", 0)];
        let mut of = shares(8, 8, &tenants(true));
        assert_eq!((of.room("a"), of.is_held("a")), (0, true));
        let taken = (0..8).filter(|_| of.take("b")).count();
        assert_eq!(taken, 6, "what others took meanwhile, it would wait for as long as they run");
        let [a, b] = tenants(false);
        assert_eq!(shares(8, 8 - taken, &[a, TenantShare { running: taken, ..b }]).room("a"), 2);
    }
}
