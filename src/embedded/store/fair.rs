//! Which of the heads of the lanes are claimed: by priority, and within a priority by turns of the tenants. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::Shares;
use super::claim::CLAIMS;

/// A job at the front of its lane.
pub(super) struct Head {
    pub(super) id: i64,
    pub(super) priority: i64,
    pub(super) run_at: i64,
    /// Its place in the list of tenants.
    pub(super) tenant: usize,
    pub(super) waits: bool,
    pub(super) activity: std::rc::Rc<str>,
}

/// Chooses as many as there are shares for, and as `may_start` lets pass.
pub(super) fn fair(
    mut heads: Vec<Head>,
    tenants: &[String],
    turn: usize,
    mut work: Shares,
    mut waits: Shares,
    mut may_start: impl FnMut(&str, &str) -> bool,
) -> Vec<i64> {
    heads.sort_unstable_by_key(|head| (head.priority, head.run_at, head.id));
    let mut chosen = Vec::new();
    let mut rest = heads.into_iter().peekable();
    while let Some(priority) = rest.peek().map(|head| head.priority) {
        let mut queues: BTreeMap<usize, VecDeque<Head>> = BTreeMap::new();
        while let Some(head) = rest.next_if(|head| head.priority == priority) {
            queues.entry(head.tenant).or_default().push_back(head);
        }
        // Those from this turn's tenant on come first. A tenant without a further job leaves the circle.
        let mut before = queues;
        let mut circle: VecDeque<_> = before.split_off(&(turn % tenants.len().max(1))).into_values().collect();
        circle.extend(before.into_values());
        while let Some(mut queue) = circle.pop_front() {
            let Some(head) = queue.pop_front() else { continue };
            let (shares, tenant) = (if head.waits { &mut waits } else { &mut work }, &tenants[head.tenant]);
            if chosen.len() < CLAIMS && shares.room(tenant) > 0 && may_start(&head.activity, tenant) && shares.take(tenant) {
                chosen.push(head.id);
            }
            circle.push_back(queue);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(id: i64, priority: i64, tenant: usize) -> Head {
        Head { id, priority, run_at: id, tenant, waits: false, activity: "a".into() }
    }

    #[test]
    fn tenants_take_turns_within_a_priority() {
        let heads = || vec![head(1, 3, 0), head(2, 3, 0), head(3, 3, 0), head(4, 3, 1), head(5, 1, 1)];
        let two = ["one".to_owned(), "two".to_owned()];
        let chosen = |turn, work| fair(heads(), &two, turn, Shares::unlimited(work), Shares::unlimited(0), |_, _| true);
        assert_eq!(chosen(0, 3), [5, 1, 4]);
        assert_eq!(chosen(1, 3), [5, 4, 1]);
        assert_eq!(chosen(0, 9), [5, 1, 4, 2, 3]);
        assert_eq!(fair(Vec::new(), &[], 7, Shares::unlimited(9), Shares::unlimited(9), |_, _| true), [0_i64; 0]);
    }

    #[test]
    fn slots_of_one_class_are_not_spent_on_the_other() {
        let waits = |id| Head { waits: true, ..head(id, 3, 0) };
        let heads = vec![waits(1), waits(2), head(3, 3, 0)];
        assert_eq!(fair(heads, &["one".to_owned()], 0, Shares::unlimited(5), Shares::unlimited(1), |_, _| true), [1, 3]);
    }
}
