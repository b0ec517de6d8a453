//! Whose jobs a worker's free slots may go to, so that one tenant cannot take them all. Pure arithmetic over one slot class.
//!
//! Half of the slots is shared out equally among the tenants that the worker knows, and what a tenant does not use of its share stays
//! free for it; the other half goes to whoever comes first.

use std::collections::BTreeMap;

/// The free slots of one class, and who may have them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares {
    free: usize,
    tenants: BTreeMap<String, Share>,
}

#[derive(Debug, Clone, Default)]
struct Share {
    running: usize,
    /// Kept for it, running or not, held or not: attempts that wait may take hours, and a hold may last a second.
    reserved: usize,
    /// It never runs more.
    most: usize,
    /// Nothing can be asked of it now.
    held: bool,
}

impl Shares {
    /// Of a class with so many slots in all, so many of them free.
    pub(crate) fn new(slots: usize, free: usize, tenants: &[TenantShare]) -> Self {
        let count = tenants.len();
        // At least one each, as long as there are as many.
        let reserved = (slots / 2).checked_div(count).unwrap_or(0).max(usize::from(count > 1 && slots >= count));
        let share = |tenant: &TenantShare| {
            let most = if tenant.max_jobs == 0 { usize::MAX } else { tenant.max_jobs };
            Share { running: tenant.running, reserved: reserved.min(most), most, held: tenant.held }
        };
        Self { free, tenants: tenants.iter().map(|tenant| (tenant.name.clone(), share(tenant))).collect() }
    }

    /// Slots without owners, as many as there are.
    #[cfg(test)]
    pub(crate) fn unlimited(free: usize) -> Self {
        Self { free, tenants: BTreeMap::new() }
    }

    /// How many slots are free, for whomever.
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// Whether nothing can be asked of a tenant now.
    pub(crate) fn is_held(&self, tenant: &str) -> bool {
        self.tenants.get(tenant).is_some_and(|share| share.held)
    }

    /// How many slots a tenant may have now. One that the worker does not know has no share of its own.
    pub(crate) fn room(&self, tenant: &str) -> usize {
        let own = self.tenants.get(tenant);
        if own.is_some_and(|share| share.held) {
            return 0;
        }
        let kept = |(name, share): (&String, &Share)| if name == tenant { 0 } else { share.reserved.saturating_sub(share.running) };
        let left = self.free.saturating_sub(self.tenants.iter().map(kept).sum());
        own.map_or(left, |share| left.min(share.most.saturating_sub(share.running)))
    }

    /// Takes a slot for a tenant; false if it may have none.
    pub(crate) fn take(&mut self, tenant: &str) -> bool {
        if self.room(tenant) == 0 {
            return false;
        }
        self.free -= 1;
        if let Some(share) = self.tenants.get_mut(tenant) {
            share.running += 1;
        }
        true
    }
}

/// What is known of one tenant when slots are shared out.
#[derive(Debug, Clone)]
pub(crate) struct TenantShare {
    pub(crate) name: String,
    pub(crate) running: usize,
    /// Zero: no limit of its own.
    pub(crate) max_jobs: usize,
    pub(crate) held: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, running: usize) -> TenantShare {
        TenantShare { name: name.into(), running, max_jobs: 0, held: false }
    }

    #[test]
    fn a_tenant_alone_may_have_everything() {
        assert_eq!(Shares::new(8, 8, &[tenant("a", 0)]).room("a"), 8);
        assert_eq!(Shares::new(8, 3, &[]).room("a"), 3);
    }

    #[test]
    fn what_is_kept_for_others_is_not_taken() {
        let mut shares = Shares::new(8, 8, &[tenant("a", 0), tenant("b", 0)]);
        let taken = (0..8).filter(|_| shares.take("a")).count();
        assert_eq!((taken, shares.room("b")), (6, 2), "half of eight is shared out, two each");
        assert_eq!(shares.room("stranger"), 0, "a tenant that is not known has no share");
        let busy = Shares::new(8, 2, &[tenant("a", 4), tenant("b", 2)]);
        assert_eq!((busy.room("a"), busy.room("b")), (2, 2), "whoever has its share keeps nobody else from the rest");
    }

    #[test]
    fn each_has_one_slot_as_long_as_there_are_as_many() {
        let four = |running| [tenant("a", running), tenant("b", 0), tenant("c", 0), tenant("d", 0)];
        assert_eq!(Shares::new(4, 4, &four(0)).room("a"), 1);
        assert_eq!(Shares::new(4, 3, &four(1)).room("a"), 0);
        assert_eq!(Shares::new(3, 3, &four(0)).room("a"), 3, "there are too few to keep any");
    }

    #[test]
    fn a_limit_of_its_own_holds_and_nothing_is_kept_beyond_it() {
        let limited = |running| TenantShare { max_jobs: 2, ..tenant("a", running) };
        assert_eq!(Shares::new(8, 7, &[limited(1)]).room("a"), 1);
        let room = |slots, running| Shares::new(slots, slots - running, &[limited(running), tenant("b", 0)]).room("b");
        assert_eq!((room(32, 0), room(32, 2)), (30, 30), "two are all that it may ever use");
    }

    #[test]
    fn who_is_held_gets_nothing_and_finds_its_share_afterwards() {
        let tenants = |held| [TenantShare { held, ..tenant("a", 0) }, tenant("b", 0)];
        let mut shares = Shares::new(8, 8, &tenants(true));
        assert_eq!((shares.room("a"), shares.is_held("a")), (0, true));
        let taken = (0..8).filter(|_| shares.take("b")).count();
        assert_eq!(taken, 6, "what others took meanwhile, it would wait for as long as they run");
        let [a, b] = tenants(false);
        assert_eq!(Shares::new(8, 8 - taken, &[a, TenantShare { running: taken, ..b }]).room("a"), 2);
    }
}
