//! Effects that were sent and whose answer is awaited. While one is in flight, and for a moment after it, neither a stop nor a timeout
//! drops the attempt: dropped in between, it would never learn what it had done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iolaus_activities::{Clock, EffectInFlight};
use tokio::sync::watch;

/// The answer to one effect is waited for at most this long, whatever bound the activity names.
const ANSWER_MAX_WAIT: Duration = Duration::from_secs(300);

/// How many effects of a worker's attempts are in flight.
#[derive(Debug, Clone)]
pub struct InFlight(watch::Sender<usize>);

impl Default for InFlight {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl InFlight {
    /// Ends when there is none.
    pub async fn none(&self) {
        // The sender is alive as long as this is.
        self.0.subscribe().wait_for(|count| *count == 0).await.ok();
    }
}

/// The effects of one attempt.
pub(super) struct Effects {
    clock: Arc<dyn Clock>,
    of_worker: InFlight,
    state: Mutex<State>,
}

/// Times are monotonic.
#[derive(Default)]
struct State {
    number: u64,
    /// Until when the answer to each is waited for.
    in_flight: BTreeMap<u64, Duration>,
    /// When the last one was answered.
    answered: Option<Duration>,
}

impl Effects {
    pub(super) fn new(clock: Arc<dyn Clock>, of_worker: InFlight) -> Arc<Self> {
        Arc::new(Self { clock, of_worker, state: Mutex::default() })
    }

    /// An effect was sent, whose answer takes at most `bound`.
    pub(super) fn begin(self: &Arc<Self>, bound: Duration) -> EffectInFlight {
        let until = self.clock.monotonic().saturating_add(bound.min(ANSWER_MAX_WAIT));
        let number = {
            let mut state = self.state();
            state.number += 1;
            let number = state.number;
            state.in_flight.insert(number, until);
            number
        };
        self.of_worker.0.send_modify(|count| *count += 1);
        let effects = self.clone();
        EffectInFlight::new(move || effects.end(number))
    }

    fn end(&self, number: u64) {
        let now = self.clock.monotonic();
        {
            let mut state = self.state();
            state.in_flight.remove(&number);
            state.answered = Some(now);
        }
        self.of_worker.0.send_modify(|count| *count -= 1);
    }

    /// For how long an attempt that should be dropped now must still be left alone: until its effects are answered, and for `after` from
    /// then on, in which it may save the answer and act on it. All of it is at most `most` from `since` on, which the first hold sets.
    /// None: it may be dropped.
    pub(super) fn hold(&self, after: Duration, most: Duration, since: &mut Option<Duration>) -> Option<Duration> {
        let now = self.clock.monotonic();
        let state = self.state();
        let answered = state.answered.map(|at| at.saturating_add(after));
        let until = state.in_flight.values().copied().chain(answered).max().filter(|until| *until > now)?;
        let since = *since.get_or_insert(now);
        let left = until.min(since.saturating_add(most)).saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iolaus_activities::ManualClock;

    const AFTER: Duration = Duration::from_secs(10);
    const MOST: Duration = Duration::from_secs(60);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn effects() -> (Arc<ManualClock>, Arc<Effects>) {
        let clock = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
        (clock.clone(), Effects::new(clock, InFlight::default()))
    }

    #[tokio::test]
    async fn an_attempt_is_left_alone_until_its_effect_is_answered_and_a_moment_longer() {
        let (clock, effects) = effects();
        let mut since = None;
        assert_eq!(effects.hold(AFTER, MOST, &mut since), None);
        let guard = effects.begin(seconds(30));
        clock.advance(seconds(12)).await;
        assert_eq!(effects.hold(AFTER, MOST, &mut since), Some(seconds(18)));
        drop(guard);
        assert_eq!(effects.hold(AFTER, MOST, &mut since), Some(AFTER));
        clock.advance(AFTER).await;
        assert_eq!(effects.hold(AFTER, MOST, &mut since), None);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_waited_for_no_longer_than_its_bound() {
        let (clock, effects) = effects();
        let mut since = None;
        let _guard = effects.begin(seconds(30));
        clock.advance(seconds(30)).await;
        assert_eq!(effects.hold(AFTER, MOST, &mut since), None);
    }

    #[tokio::test]
    async fn no_number_of_effects_holds_an_attempt_for_longer_than_is_allowed() {
        let (clock, effects) = effects();
        let mut since = None;
        for _ in 0..2 {
            let _guard = effects.begin(seconds(3_600));
            assert_eq!(effects.hold(AFTER, MOST, &mut since), Some(MOST.saturating_sub(Clock::monotonic(clock.as_ref()))));
            clock.advance(seconds(25)).await;
        }
        clock.advance(seconds(10)).await;
        let _guard = effects.begin(seconds(30));
        assert_eq!(effects.hold(AFTER, MOST, &mut since), None);
    }

    #[tokio::test]
    async fn a_worker_knows_when_no_effect_of_its_attempts_is_in_flight() {
        let clock = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
        let of_worker = InFlight::default();
        let effects = Effects::new(clock, of_worker.clone());
        let guard = effects.begin(seconds(30));
        assert_eq!(*of_worker.0.borrow(), 1);
        drop(guard);
        of_worker.none().await;
    }
}
