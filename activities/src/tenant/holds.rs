//! When nothing is asked of a tenant for now: it does not know our credentials any more, or it asked to be left alone for a while.
//! Everything asked meanwhile fails at once, without a request. The first kind ends when a probe is answered, the second by itself.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::send::Call;
use super::{Tenant, Tenants};
use crate::failure::{Category, Failure};

/// Why nothing is asked of a tenant for now.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    /// What everything that is asked of it gets.
    pub failure: Failure,
    /// Since when, by our wall clock.
    pub since: Timestamp,
    /// When (monotonic) it ends by itself; None: when [`Tenant::probe`] is answered.
    pub until: Option<Duration>,
}

/// The hold of one tenant, if there is one.
pub(super) struct Held {
    hold: Mutex<Option<Hold>>,
    changes: watch::Sender<u64>,
}

impl Held {
    pub(super) fn new(changes: watch::Sender<u64>) -> Self {
        Self { hold: Mutex::default(), changes }
    }

    /// Changes the hold; who waits for changes is told if the closure says so.
    fn change(&self, change: impl FnOnce(&mut Option<Hold>) -> bool) -> bool {
        let changed = change(&mut self.hold.lock().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
        changed
    }
}

impl Tenants {
    /// What is held now, in alphabetical order of the tenants.
    pub fn holds(&self) -> Vec<(String, Hold)> {
        self.tenants.values().filter_map(|tenant| Some((tenant.name.clone(), tenant.hold()?))).collect()
    }

    /// Marked as changed whenever a hold begins, or ends by a probe. Not when one ends by itself.
    pub fn holds_changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Tenant {
    /// The hold that is in force.
    pub fn hold(&self) -> Option<Hold> {
        let now = self.clock.monotonic();
        let hold = self.held.hold.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hold.filter(|hold| hold.until.is_none_or(|until| now < until))
    }

    /// What a call gets while the tenant is held.
    pub(super) fn held_back(&self, call: &Call) -> Option<Failure> {
        let Hold { failure, until, .. } = self.hold()?;
        let left = until.map(|until| until.saturating_sub(self.clock.monotonic()));
        Some(failure.after(left).with_source(call.source()))
    }

    /// For how much longer the tenant asked to be left alone.
    pub(super) fn left_alone_for(&self) -> Option<Duration> {
        Some(self.hold()?.until?.saturating_sub(self.clock.monotonic()))
    }

    pub(super) fn is_locked_out(&self) -> bool {
        self.hold().is_some_and(|hold| hold.until.is_none())
    }

    /// Leaves the tenant alone for a while, as it asked. An earlier wish that lasts longer stands; so does a refusal of our credentials.
    pub(super) fn leave_alone(&self, wait: Duration) {
        let (since, until) = (self.clock.now(), self.clock.monotonic().saturating_add(wait));
        let message = format!("tenant `{}` asked to be left alone for {} s", self.name, wait.as_secs_f64().ceil());
        let failure = Failure::new("tenant.rate_limited", Category::RateLimited, message).holding_tenant();
        self.held.change(|hold| {
            let stands = hold.as_ref().is_some_and(|hold| hold.until.is_none_or(|earlier| earlier >= until));
            if !stands {
                *hold = Some(Hold { failure, since, until: Some(until) });
            }
            !stands
        });
    }

    /// The tenant does not know our credentials: nothing is asked until a probe finds that it does again. Told once.
    pub(super) fn locked_out(&self, failure: Failure) {
        // Who we were is not to be believed either: another credential may be somebody else's.
        self.learned(|learned| learned.identity = None);
        let since = self.clock.now();
        let reason = failure.message.clone();
        let fresh = self.held.change(|hold| {
            let fresh = hold.as_ref().is_none_or(|hold| hold.until.is_some());
            if fresh {
                *hold = Some(Hold { failure: failure.holding_tenant(), since, until: None });
            }
            fresh
        });
        if fresh {
            tracing::error!(
                tenant = self.name,
                reason,
                "the tenant does not accept our credentials; nothing is asked of it until it does"
            );
        }
    }

    /// The tenant knows us.
    pub(super) fn let_in(&self) {
        let ended = self.held.change(|hold| hold.take_if(|hold| hold.until.is_none()).is_some());
        if ended {
            tracing::warn!(tenant = self.name, "the tenant accepts our credentials again");
        }
    }
}
