//! Faults: what shall go wrong, at which exchange, how often.

mod action;
mod answers;
mod rewrite;

use serde::{Deserialize, Serialize};

pub use action::Action;
pub(super) use answers::{faulty, with_headers};
pub(super) use rewrite::{Undated, accepts_gzip, encoded, rewrites, rewritten};

/// At most so many faults stand at once; more are refused.
pub(super) const MAX_FAULTS: usize = 1_000;

/// One thing that goes wrong. It counts the exchanges that it matches from the moment it is added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// HTTP method, any case; `None`: every method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A part of the request target (path and query); `None`: every route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The first matching exchange that is hit, counted from 1.
    #[serde(default = "one")]
    pub nth: u64,
    /// How many matching exchanges in a row are hit; 0: all from `nth` on.
    #[serde(default = "one")]
    pub times: u64,
    /// What happens to them.
    pub action: Action,
}

fn one() -> u64 {
    1
}

impl Fault {
    /// A fault that hits the very next exchange, whatever it is.
    pub fn new(action: Action) -> Self {
        Self { method: None, path: None, nth: 1, times: 1, action }
    }

    /// Only for targets that contain `path`.
    #[must_use]
    pub fn on(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// From the `nth` matching exchange on.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = nth;
        self
    }

    /// So many times in a row; 0: for ever.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Only for this method.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    fn matches(&self, method: &str, target: &str) -> bool {
        self.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.path.as_deref().is_none_or(|part| target.contains(part))
            && self.action.concerns(method, target)
    }
}

/// The standing faults and what they have seen.
#[derive(Debug, Default)]
pub(super) struct Faults {
    standing: Vec<Standing>,
    fired: u64,
}

#[derive(Debug)]
struct Standing {
    fault: Fault,
    seen: u64,
    spent: bool,
}

impl Faults {
    /// Adds a fault, or says why it cannot stand.
    pub(super) fn add(&mut self, fault: Fault) -> Result<(), String> {
        fault.action.check()?;
        if self.standing.len() >= MAX_FAULTS {
            return Err(format!("at most {MAX_FAULTS} faults stand at once"));
        }
        self.standing.push(Standing { fault, seen: 0, spent: false });
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.standing.clear();
    }

    /// How many exchanges were hit since the start.
    pub(super) fn fired(&self) -> u64 {
        self.fired
    }

    pub(super) fn standing(&self) -> Vec<Fault> {
        self.standing.iter().map(|standing| standing.fault.clone()).collect()
    }

    /// Counts one exchange at every fault; the first one due hits it.
    pub(super) fn hit(&mut self, method: &str, target: &str) -> Option<Action> {
        let mut action = None;
        for standing in &mut self.standing {
            let Fault { nth, times, .. } = standing.fault;
            if !standing.fault.matches(method, target) {
                continue;
            }
            standing.seen += 1;
            let first = nth.max(1);
            // Dropped with its last hit, so that whoever is still here and past `nth` is due.
            standing.spent = times != 0 && standing.seen.saturating_add(1) >= first.saturating_add(times);
            if standing.seen >= first && action.is_none() {
                action = Some(standing.fault.action.clone());
            }
        }
        self.standing.retain(|standing| !standing.spent);
        self.fired += u64::from(action.is_some());
        action
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_fault_hits_from_the_nth_matching_exchange_on_and_so_many_times() {
        let mut faults = Faults::default();
        let fault = Fault::new(Action::Hang).on("/submit").nth(2).times(2);
        faults.add(fault).expect("valid");
        let mut hits = Vec::new();
        for target in ["/a/submit", "/whoami", "/a/submit", "/a/submit", "/a/submit"] {
            hits.push(faults.hit("POST", target).is_some());
        }
        assert_eq!(hits, [false, false, true, true, false]);
        assert_eq!(faults.fired(), 2);
        assert!(faults.standing().is_empty(), "a spent fault is dropped");
    }

    #[test]
    fn times_zero_never_ends() {
        let mut faults = Faults::default();
        faults.add(Fault::new(Action::Garbage).times(0)).expect("valid");
        assert!((0..50).all(|_| faults.hit("GET", "/x").is_some()));
    }

    #[test]
    fn a_fault_of_runs_waits_for_an_exchange_that_starts_one() {
        let mut faults = Faults::default();
        faults.add(Fault::new(Action::SwallowGrant)).expect("valid");
        assert_eq!(faults.hit("GET", "/api/service/whoami"), None);
        assert_eq!(faults.hit("POST", "/api/service/workflows?submit=true"), Some(Action::SwallowGrant));
    }

    #[test]
    fn a_fault_reads_from_json_with_defaults_and_refuses_unknown_keys() {
        let fault: Fault = serde_json::from_str(r#"{"action":{"kind":"status","status":503}}"#).expect("reads");
        assert_eq!((fault.nth, fault.times, fault.path), (1, 1, None));
        assert!(serde_json::from_str::<Fault>(r#"{"nht":2,"action":{"kind":"hang"}}"#).is_err());
        assert!(Faults::default().add(Fault::new(Action::StatusAfterApplying { status: 99, body: Value::Null })).is_err());
    }
}
