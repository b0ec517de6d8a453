//! What the executions of one queue know of each other's effects: who is about to submit which workflow, and which run came of it.
//! Without that, two jobs that search at the same moment both find nothing and both submit, and a job whose answer was lost could take
//! another job's run for its own.
//!
//! A host keeps these records as durably as its checkpoints. [`EffectRegister`] keeps them in memory: it is the reference for hosts that
//! store them, and what tests and hosts without a store of their own use.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// Records are kept for this long: longer than any execution may look for the effect of its own intent.
pub const EFFECT_RETENTION: SignedDuration = SignedDuration::from_hours(31 * 24);
/// At most this many effects of others are returned, the newest.
pub const MAX_OTHER_EFFECTS: usize = 100;

/// The execution that an effect belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EffectOwner {
    /// The caller's business id.
    pub job_id: String,
    /// The execution.
    pub run_id: String,
}

/// How far an effect is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectState {
    /// It is about to be sent, or was sent and its fate is unknown.
    Intent,
    /// The tenant applied it.
    Applied {
        /// The tenant's run that came of it.
        run: String,
    },
}

/// An effect of another execution of the same queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherEffect {
    /// Whose it is.
    pub owner: EffectOwner,
    /// How far it is.
    pub state: EffectState,
    /// When its newest intent was saved, by the host's wall clock.
    pub at: Timestamp,
}

/// An intent that is to be saved unless another execution is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// What the effect is about, within one tenant: for a submission, the workflow.
    pub key: String,
    /// An intent of another execution is in the way if it was saved at or after this.
    pub intents_since: Timestamp,
    /// An effect of another execution that was applied is in the way if its intent was saved at or after this. None: it never is.
    pub applied_since: Option<Timestamp>,
}

/// What became of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// Checkpoint and intent are durable.
    Saved,
    /// Nothing was saved, because of these effects of other executions, the newest first.
    Conflict(Vec<OtherEffect>),
}

/// How an intent ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectOutcome {
    /// The tenant applied it, and this run came of it.
    Applied {
        /// The tenant's run.
        run: String,
    },
    /// It is proven that nothing was applied.
    NotApplied,
}

/// Effects in memory, by tenant and key.
///
/// ```
/// # use iolaus_activities::*;
/// let register = EffectRegister::default();
/// let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
/// let owner = |id: &str| EffectOwner { job_id: id.into(), run_id: format!("run-{id}") };
/// let reservation = Reservation { key: "workflow/nightly".into(), intents_since: now, applied_since: Some(now) };
/// assert_eq!(register.reserve("default", &owner("a"), &reservation, now), Reserved::Saved);
/// assert!(matches!(register.reserve("default", &owner("b"), &reservation, now), Reserved::Conflict(_)));
/// ```
#[derive(Debug, Default)]
pub struct EffectRegister {
    rows: Mutex<BTreeMap<(String, String), Vec<Row>>>,
}

#[derive(Debug)]
struct Row {
    owner: EffectOwner,
    state: EffectState,
    at: Timestamp,
}

impl EffectRegister {
    /// Saves an intent of `owner`, replacing its earlier record under this key, unless another execution is in the way. Records from the
    /// future, which a step of the clock has left, are dated `now`: otherwise they would be in the way until the clock is there again.
    pub fn reserve(&self, tenant: &str, owner: &EffectOwner, reservation: &Reservation, now: Timestamp) -> Reserved {
        self.with(tenant, &reservation.key, now, |rows| {
            for row in rows.iter_mut() {
                row.at = row.at.min(now);
            }
            let in_the_way = |row: &Row| match row.state {
                EffectState::Intent => row.at >= reservation.intents_since,
                EffectState::Applied { .. } => reservation.applied_since.is_some_and(|since| row.at >= since),
            };
            let conflicts = others(rows, owner, in_the_way);
            if !conflicts.is_empty() {
                return Reserved::Conflict(conflicts);
            }
            rows.retain(|row| row.owner != *owner);
            rows.push(Row { owner: owner.clone(), state: EffectState::Intent, at: now });
            Reserved::Saved
        })
    }

    /// Ends the intent of `owner` under this key. False, and nothing is changed, if the run is recorded as another execution's.
    pub fn settle(&self, tenant: &str, owner: &EffectOwner, key: &str, outcome: &EffectOutcome, now: Timestamp) -> bool {
        self.with(tenant, key, now, |rows| {
            let EffectOutcome::Applied { run } = outcome else {
                rows.retain(|row| row.owner != *owner);
                return true;
            };
            let state = EffectState::Applied { run: run.clone() };
            if rows.iter().any(|row| row.owner != *owner && row.state == state) {
                return false;
            }
            let at = rows.iter().find(|row| row.owner == *owner).map_or(now, |row| row.at);
            rows.retain(|row| row.owner != *owner);
            rows.push(Row { owner: owner.clone(), state, at });
            true
        })
    }

    /// The effects of other executions under this key whose intents were saved at or after `since`, the newest first.
    pub fn others(&self, tenant: &str, owner: &EffectOwner, key: &str, since: Timestamp, now: Timestamp) -> Vec<OtherEffect> {
        self.with(tenant, key, now, |rows| others(rows, owner, |row| row.at >= since))
    }

    fn with<T>(&self, tenant: &str, key: &str, now: Timestamp, f: impl FnOnce(&mut Vec<Row>) -> T) -> T {
        let mut all = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = now.saturating_sub(EFFECT_RETENTION).unwrap_or(Timestamp::MIN);
        all.retain(|_, rows| {
            rows.retain(|row| row.at >= oldest);
            !rows.is_empty()
        });
        f(all.entry((tenant.to_owned(), key.to_owned())).or_default())
    }
}

fn others(rows: &[Row], owner: &EffectOwner, wanted: impl Fn(&Row) -> bool) -> Vec<OtherEffect> {
    let mut found: Vec<&Row> = rows.iter().filter(|row| row.owner != *owner && wanted(row)).collect();
    found.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.owner.cmp(&b.owner)));
    let other = |row: &Row| OtherEffect { owner: row.owner.clone(), state: row.state.clone(), at: row.at };
    found.into_iter().take(MAX_OTHER_EFFECTS).map(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).expect("a time")
    }

    fn owner(name: &str) -> EffectOwner {
        EffectOwner { job_id: name.to_owned(), run_id: format!("run of {name}") }
    }

    fn reservation(intents_since: i64, applied_since: Option<i64>) -> Reservation {
        Reservation { key: "k".to_owned(), intents_since: at(intents_since), applied_since: applied_since.map(at) }
    }

    fn applied(run: &str) -> EffectOutcome {
        EffectOutcome::Applied { run: run.to_owned() }
    }

    fn names(reserved: &Reserved) -> Vec<&str> {
        match reserved {
            Reserved::Saved => Vec::new(),
            Reserved::Conflict(others) => others.iter().map(|other| other.owner.job_id.as_str()).collect(),
        }
    }

    #[test]
    fn an_intent_keeps_other_executions_away_until_it_is_settled_or_old() {
        let register = EffectRegister::default();
        let reserve = |name: &str, since: i64, applied_since, now| {
            register.reserve("t", &owner(name), &reservation(since, applied_since), at(now))
        };
        assert_eq!(reserve("a", 0, None, 10), Reserved::Saved);
        assert_eq!(names(&reserve("b", 10, None, 10)), ["a"]);
        assert_eq!(register.reserve("other tenant", &owner("b"), &reservation(0, None), at(10)), Reserved::Saved);
        assert_eq!(reserve("a", 0, None, 12), Reserved::Saved, "an execution's own intent does not keep it away");
        assert_eq!(names(&reserve("b", 12, None, 13)), ["a"], "it was renewed");
        assert_eq!(reserve("b", 13, None, 40), Reserved::Saved, "an intent that is too old is in the way no more");
        assert_eq!(names(&reserve("c", 0, None, 41)), ["b", "a"], "the newest first");
    }

    #[test]
    fn an_intent_that_a_step_of_the_clock_left_in_the_future_is_in_the_way_no_longer_than_another() {
        let register = EffectRegister::default();
        let reserve = |name: &str, since: i64, now| register.reserve("t", &owner(name), &reservation(since, None), at(now));
        assert_eq!(reserve("a", 0, 3_600), Reserved::Saved);
        assert_eq!(names(&reserve("b", -50, 10)), ["a"], "the clock stepped back");
        assert_eq!(names(&reserve("b", 5, 65)), ["a"]);
        assert_eq!(reserve("b", 11, 71), Reserved::Saved);
    }

    #[test]
    fn an_applied_effect_is_in_the_way_only_of_those_who_ask_for_it() {
        let register = EffectRegister::default();
        assert_eq!(register.reserve("t", &owner("a"), &reservation(0, None), at(10)), Reserved::Saved);
        assert!(register.settle("t", &owner("a"), "k", &applied("r-1"), at(11)));
        assert_eq!(names(&register.reserve("t", &owner("b"), &reservation(0, Some(10)), at(12))), ["a"]);
        assert_eq!(register.reserve("t", &owner("b"), &reservation(0, Some(11)), at(12)), Reserved::Saved, "by its intent's time");
        assert_eq!(register.reserve("t", &owner("c"), &reservation(13, None), at(13)), Reserved::Saved);
        let others = register.others("t", &owner("c"), "k", at(0), at(14));
        assert_eq!(others[1].state, EffectState::Applied { run: "r-1".to_owned() });
    }

    #[test]
    fn one_run_belongs_to_one_execution() {
        let register = EffectRegister::default();
        assert!(register.settle("t", &owner("a"), "k", &applied("r-1"), at(0)));
        assert!(!register.settle("t", &owner("b"), "k", &applied("r-1"), at(1)));
        assert!(register.settle("t", &owner("a"), "k", &applied("r-1"), at(2)), "twice by the same execution");
        assert!(register.settle("t", &owner("b"), "k", &applied("r-2"), at(3)));
    }

    #[test]
    fn an_intent_without_effect_leaves_no_record() {
        let register = EffectRegister::default();
        assert_eq!(register.reserve("t", &owner("a"), &reservation(0, None), at(0)), Reserved::Saved);
        assert!(register.settle("t", &owner("a"), "k", &EffectOutcome::NotApplied, at(1)));
        assert_eq!(register.others("t", &owner("b"), "k", at(0), at(1)), []);
    }

    #[test]
    fn records_are_dropped_after_their_retention() {
        let register = EffectRegister::default();
        assert!(register.settle("t", &owner("a"), "k", &applied("r-1"), at(0)));
        let later = at(0).checked_add(EFFECT_RETENTION).expect("a time");
        assert_eq!(register.others("t", &owner("b"), "k", at(0), later).len(), 1);
        let too_late = later.checked_add(SignedDuration::from_secs(1)).expect("a time");
        assert_eq!(register.others("t", &owner("b"), "k", at(0), too_late), []);
    }
}
