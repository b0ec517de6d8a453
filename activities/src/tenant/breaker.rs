//! A circuit breaker: whether a tenant fails at everything, whatever is asked of it. Then every request would fail too, and each job
//! would spend its attempts and the tenant's strength on finding that out. Pure; the hold that follows from it is in `holds`.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many requests in a row must fail, with no answer between them. A read is sent three times, so that it takes several calls.
const FAILURES: usize = 10;
/// The same, after a probe was answered and nothing else since: an outage of a part of the tenant, which `whoami` does not see.
const FAILURES_AGAIN: usize = 3;
/// They must fail within this time. A job that asks once a minute is no burden and learns more by asking.
const WINDOW: Duration = Duration::from_secs(60);
/// The first probe comes after this long, and each further one after twice as long.
const FIRST_PROBE: Duration = Duration::from_secs(1);
/// No probe waits longer: so long may a tenant be back before its jobs continue.
pub(super) const LONGEST_PROBE: Duration = Duration::from_secs(30);

/// Counts the failures of one tenant.
#[derive(Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    /// The newest failures in a row: when (monotonic) and of which request.
    failures: VecDeque<(Duration, String)>,
    /// How often it opened since something other than a probe was answered.
    opened: u32,
    /// How long to wait for the next probe.
    interval: Duration,
    /// From when (monotonic) on a request of a job may be the probe, in a host that sends none.
    trial_at: Duration,
    /// The request that is the probe.
    trial: Option<String>,
}

impl Breaker {
    /// Notes a request that failed. True when it opens by that.
    pub(super) fn failed(&self, now: Duration, request_id: &str) -> bool {
        let mut state = self.lock();
        let enough = if state.opened > 0 { FAILURES_AGAIN } else { FAILURES };
        if state.failures.len() >= FAILURES {
            state.failures.pop_front();
        }
        state.failures.push_back((now, request_id.to_owned()));
        let recent = state.failures.iter().rev().take(enough);
        let is_recent = recent.clone().count() == enough && recent.clone().all(|(at, _)| now.saturating_sub(*at) <= WINDOW);
        // The repeats of one request say little about all others.
        if !is_recent || recent.clone().all(|(_, of)| of == request_id) {
            return false;
        }
        state.failures.clear();
        state.interval = FIRST_PROBE.saturating_mul(1 << state.opened.min(5)).min(LONGEST_PROBE);
        state.opened = state.opened.saturating_add(1);
        state.trial_at = now.saturating_add(state.interval * 2);
        state.trial = None;
        true
    }

    /// Notes a probe that failed, or a request that was let through as one.
    pub(super) fn probe_failed(&self, now: Duration) {
        let mut state = self.lock();
        state.interval = (state.interval * 2).clamp(FIRST_PROBE, LONGEST_PROBE);
        state.trial_at = now.saturating_add(state.interval * 2);
        state.trial = None;
    }

    /// Notes an answer. One to a probe says nothing of the operations that failed.
    pub(super) fn answered(&self, is_probe: bool) {
        let mut state = self.lock();
        state.failures.clear();
        state.trial = None;
        if !is_probe {
            state.opened = 0;
        }
    }

    /// How long to wait before the next probe.
    pub(super) fn interval(&self) -> Duration {
        self.lock().interval
    }

    /// Whether a request may pass while it is open: one, when no probe was sent for twice its interval.
    pub(super) fn lets_try(&self, now: Duration, request_id: &str) -> bool {
        let mut state = self.lock();
        let may = now >= state.trial_at;
        if may {
            state.trial = Some(request_id.to_owned());
            // Should its caller give up before it is answered, another one may try.
            state.trial_at = now.saturating_add(LONGEST_PROBE * 2);
        }
        may
    }

    /// Whether this request was let through.
    pub(super) fn is_trial(&self, request_id: &str) -> bool {
        self.lock().trial.as_deref() == Some(request_id)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Fails so often, each time another request, all within a second. How often it opened.
    fn fail(breaker: &Breaker, times: usize, at: Duration) -> usize {
        (0..times).filter(|n| breaker.failed(at, &format!("{at:?}-{n}"))).count()
    }

    #[test]
    fn it_opens_at_the_tenth_failure_in_a_row_and_an_answer_between_them_starts_anew() {
        let breaker = Breaker::default();
        assert_eq!(fail(&breaker, 9, SECOND), 0);
        breaker.answered(false);
        assert_eq!(fail(&breaker, 9, SECOND), 0);
        assert!(breaker.failed(SECOND, "last"));
    }

    #[test]
    fn the_repeats_of_one_request_do_not_open_it() {
        let breaker = Breaker::default();
        assert!((0..20).all(|_| !breaker.failed(SECOND, "the same")));
        assert!(breaker.failed(SECOND, "another"));
    }

    #[test]
    fn failures_that_are_far_apart_do_not_open_it() {
        let breaker = Breaker::default();
        assert!((0..50).all(|n| !breaker.failed(SECOND * 7 * n, &n.to_string())), "ten of them take more than a minute");
    }

    #[test]
    fn probes_become_rarer_up_to_a_bound() {
        let breaker = Breaker::default();
        assert_eq!(fail(&breaker, 10, SECOND), 1);
        let intervals: Vec<u64> = (0..7)
            .map(|_| {
                let interval = breaker.interval().as_secs();
                breaker.probe_failed(SECOND);
                interval
            })
            .collect();
        assert_eq!(intervals, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_part_of_the_tenant_that_stays_away_opens_it_again_sooner_and_for_longer() {
        let breaker = Breaker::default();
        assert_eq!(fail(&breaker, 10, SECOND), 1);
        for longer in [2, 4, 8, 16, 30, 30] {
            breaker.answered(true);
            assert_eq!((fail(&breaker, 3, SECOND), breaker.interval().as_secs()), (1, longer), "only whoami is answered");
        }
        breaker.answered(false);
        assert_eq!((fail(&breaker, 9, SECOND), fail(&breaker, 1, SECOND), breaker.interval().as_secs()), (0, 1, 1));
    }
}
