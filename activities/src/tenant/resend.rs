//! Reads, sent again within one attempt: at most three sends, never sooner than the tenant asks. Effects never come here.
//!
//! The one file that uses the crate `backoff`. That crate is no longer maintained; we use only its arithmetic, with its randomness off
//! and without its clock or its loops. Should it have to go, `delays` is the place: `200 ms * 2^n` is all that is taken from it.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use serde::de::DeserializeOwned;

use super::Tenant;
use super::classify::{is_bad_request, is_denied, worth_resending};
use super::send::{Call, LONGEST_WAIT, Sent};
use crate::clock::BoxFuture;
use crate::failure::Failure;

/// How often a read is sent at most.
const SENDS: usize = 3;
/// For how long a tenant is taken for one that does not understand `_source`.
const PLAIN: Duration = Duration::from_secs(3600);

impl Tenant {
    /// Sends a call that changes nothing, a few times if need be, and reads its answer. Boxed, so that thousands of waits that are not
    /// asking at the moment keep no room for it.
    pub(super) fn read<'a, T: DeserializeOwned + Send + 'static>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<T, Failure>> {
        Box::pin(self.read_at_last(call))
    }

    async fn read_at_last<T: DeserializeOwned + Send + 'static>(&self, call: &Call) -> Result<T, Failure> {
        let mut delays = delays();
        let mut without_fields = false;
        loop {
            // Taken before it is sent: another search may learn meanwhile that the tenant does not understand it.
            let plain = self.searches_are_plain();
            let sent = self.send(call).await;
            if is_bad_request(&sent) && call.asks_for_fields() {
                if !without_fields && !plain {
                    // It may be that the tenant does not understand `_source`.
                    self.search_plainly(true);
                    without_fields = true;
                    continue;
                }
                if without_fields {
                    // It refuses the search without it too, so that was not the reason.
                    self.search_plainly(false);
                }
            }
            // A probe has a time of its own for the next one.
            let again = worth_resending(call, &sent) && !call.is_probe();
            if is_denied(&sent) && delays.len() == 0 {
                self.learn_who(call).await;
            }
            let failure = match sent {
                Sent::Answered(answer) => match self.read_answer(call, answer) {
                    Ok(body) => return Ok(body),
                    Err(failure) => failure,
                },
                Sent::NotDelivered(failure) | Sent::UnknownDelivery(failure) => failure,
            };
            let Some(delay) = delays.next().filter(|_| again) else { return Err(failure) };
            let wanted = failure.retry_after.unwrap_or_default();
            if wanted > LONGEST_WAIT {
                return Err(failure);
            }
            // The upper half of the delay is left to chance, so that callers that failed together do not come back together.
            let jittered = delay.mul_f64(self.clock.random().mul_add(0.5, 0.5));
            self.clock.sleep(jittered.max(wanted)).await;
        }
    }
}

impl Tenant {
    /// Whether searches are sent without the fields that they ask for, because the tenant does not understand that.
    pub(super) fn searches_are_plain(&self) -> bool {
        let now = self.clock.monotonic();
        self.learned(|learned| learned.plain_searches.is_some_and(|until| now < until))
    }

    fn search_plainly(&self, plainly: bool) {
        let until = self.clock.monotonic().saturating_add(PLAIN);
        self.learned(|learned| learned.plain_searches = plainly.then_some(until));
    }
}

/// The waits between the sends of one call.
fn delays() -> impl ExactSizeIterator<Item = Duration> {
    let mut backoff = ExponentialBackoff {
        initial_interval: Duration::from_millis(200),
        current_interval: Duration::from_millis(200),
        multiplier: 2.0,
        randomization_factor: 0.0,
        max_interval: LONGEST_WAIT,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    (1..SENDS).map(move |_| backoff.next_backoff().unwrap_or(LONGEST_WAIT))
}
