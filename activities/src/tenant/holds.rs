//! When nothing is asked of a tenant for now: it does not know our credentials any more, it fails at everything, or it asked to be left
//! alone for a while. Everything asked meanwhile fails at once, without a request. The first two kinds end when a probe is answered, the
//! third by itself.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::classify::{asks_to_wait, is_failing, is_reached};
use super::descriptors::is_local;
use super::send::{Call, Sent};
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
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The tenant asked to be left alone.
    LeftAlone,
    /// The tenant does not accept our credentials.
    LockedOut,
    /// The tenant fails at everything.
    Failing,
}

/// The hold of one tenant, if there is one.
pub(super) struct Held {
    hold: Mutex<Option<Hold>>,
    changes: watch::Sender<u64>,
    reach: Mutex<Reach>,
}

/// Whether this process has reached the tenant at all.
#[derive(Default)]
enum Reach {
    #[default]
    Untried,
    /// Since when (monotonic) it was tried, and how it failed last.
    Unreached(Duration, Box<Failure>),
    Reached,
}

impl Held {
    pub(super) fn new(changes: watch::Sender<u64>) -> Self {
        Self { hold: Mutex::default(), changes, reach: Mutex::default() }
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
        self.is_held_as(Kind::LockedOut)
    }

    fn is_held_as(&self, kind: Kind) -> bool {
        self.hold().is_some_and(|hold| hold.kind == kind)
    }

    /// What a call gets that must not be sent now. A probe may be sent, and, in a host that sends no probes, a request in its place.
    pub(super) fn refuses(&self, call: &Call) -> Option<Failure> {
        let failure = self.held_back(call).filter(|_| !call.is_probe())?;
        let may_try = self.is_held_as(Kind::Failing) && self.breaker.lets_try(self.clock.monotonic(), &call.request_id);
        (!may_try).then_some(failure)
    }

    /// How long to wait for the next probe of a tenant that fails at everything; None when it is not held for that.
    pub fn probe_interval(&self) -> Option<Duration> {
        self.is_held_as(Kind::Failing).then(|| self.breaker.interval())
    }

    /// Since when (monotonic) this process tries to reach the tenant, and how it failed last, if no request ever reached it.
    pub fn unreached(&self) -> Option<(Duration, Failure)> {
        match &*self.held.reach.lock().unwrap_or_else(PoisonError::into_inner) {
            Reach::Unreached(since, failure) => Some((*since, failure.as_ref().clone())),
            Reach::Untried | Reach::Reached => None,
        }
    }

    /// Learns from an exchange how the tenant is as a whole: that it wants to be left alone, that it failed again, that it answers.
    pub(super) fn heed(&self, call: &Call, sent: &Sent) {
        if is_local(sent) {
            return;
        }
        self.note_reach(call, sent);
        if let Some(wait) = asks_to_wait(sent) {
            return self.leave_alone(wait);
        }
        let now = self.clock.monotonic();
        if !is_failing(sent, &self.sanitizer()) {
            // Who hands out tokens may be well while all else fails.
            if !call.is_anonymous() {
                self.breaker.answered(call.is_probe());
                self.answers_again();
            }
        } else if self.is_held_as(Kind::Failing) {
            if call.is_probe() || self.breaker.is_trial(&call.request_id) {
                self.breaker.probe_failed(now);
            }
        } else if self.breaker.failed(now, &call.request_id) {
            self.fails_at_everything(self.failure_of(call, sent));
        }
    }

    fn note_reach(&self, call: &Call, sent: &Sent) {
        let mut reach = self.held.reach.lock().unwrap_or_else(PoisonError::into_inner);
        if is_reached(sent) {
            *reach = Reach::Reached;
            return;
        }
        let since = match &*reach {
            Reach::Reached => return,
            Reach::Untried => self.clock.monotonic(),
            Reach::Unreached(since, _) => *since,
        };
        *reach = Reach::Unreached(since, Box::new(self.failure_of(call, sent)));
    }

    /// The tenant fails whatever is asked of it: it is asked by probes alone until one is answered.
    fn fails_at_everything(&self, last: Failure) {
        let message = format!(
            "tenant `{}` failed at everything that was asked of it lately, and is only probed until it answers; the last failure: {}",
            self.name, last.message
        );
        let failure =
            Failure::new(last.code, last.category, message).with_retryable(true).with_source(last.source).holding_tenant();
        let failure = Failure { suggested_action: last.suggested_action, ..failure };
        let (since, reason) = (self.clock.now(), failure.message.clone());
        let fresh = self.held.change(|hold| {
            let fresh = hold.as_ref().is_none_or(|hold| hold.kind == Kind::LeftAlone);
            if fresh {
                *hold = Some(Hold { failure, since, until: None, kind: Kind::Failing });
            }
            fresh
        });
        if fresh {
            tracing::error!(
                tenant = self.name,
                reason,
                "the tenant fails at everything; its jobs wait, and probes ask until it answers"
            );
        }
    }

    fn answers_again(&self) {
        let ended = self.held.change(|hold| hold.take_if(|hold| hold.kind == Kind::Failing).is_some());
        if ended {
            tracing::warn!(tenant = self.name, "the tenant answers again; its jobs continue");
        }
    }

    /// Leaves the tenant alone for a while, as it asked. An earlier wish that lasts longer stands; so does a refusal of our credentials.
    pub(super) fn leave_alone(&self, wait: Duration) {
        let (since, until) = (self.clock.now(), self.clock.monotonic().saturating_add(wait));
        let message = format!("tenant `{}` asked to be left alone for {} s", self.name, wait.as_secs_f64().ceil());
        let failure = Failure::new("tenant.rate_limited", Category::RateLimited, message).holding_tenant();
        self.held.change(|hold| {
            let stands = hold.as_ref().is_some_and(|hold| match hold.kind {
                Kind::LockedOut => true,
                // It says itself when it will answer.
                Kind::Failing => false,
                Kind::LeftAlone => hold.until.is_some_and(|earlier| earlier >= until),
            });
            if !stands {
                *hold = Some(Hold { failure, since, until: Some(until), kind: Kind::LeftAlone });
            }
            !stands
        });
    }

    /// The tenant does not know our credentials: nothing is asked until a probe finds that it does again. Told once.
    pub(super) fn locked_out(&self, failure: Failure) {
        // Who we were is not to be believed either: another credential may be somebody else's, and may be allowed more.
        self.learned(|learned| (learned.identity, learned.automation_skipped) = (None, None));
        let since = self.clock.now();
        let reason = failure.message.clone();
        let fresh = self.held.change(|hold| {
            let fresh = hold.as_ref().is_none_or(|hold| hold.kind != Kind::LockedOut);
            if fresh {
                *hold = Some(Hold { failure: failure.holding_tenant(), since, until: None, kind: Kind::LockedOut });
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
        let ended = self.held.change(|hold| hold.take_if(|hold| hold.kind == Kind::LockedOut).is_some());
        if ended {
            tracing::warn!(tenant = self.name, "the tenant accepts our credentials again");
        }
    }
}
