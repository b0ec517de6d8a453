//! The signs of life of one attempt: what it saved and reported last, and since when nothing has changed.

use std::time::Duration;

use iolaus_activities::Clock;
use jiff::Timestamp;
use serde_json::Value;

use crate::job::limits;

/// What an attempt has shown of itself.
pub(super) struct Signs {
    pub(super) last: Duration,
    pub(super) changed: Duration,
    pub(super) changed_at: Timestamp,
    /// Both as JSON: a value of a few fields takes ten times the room, and there may be ten thousand of them.
    pub(super) checkpoint: Option<Box<str>>,
    pub(super) progress: Option<Box<str>>,
    pub(super) stalled: bool,
    pub(super) unreported: bool,
}

impl Signs {
    /// Notes a sign of life; whether it brought anything new.
    pub(super) fn sign_of_life(&mut self, clock: &dyn Clock, change: impl FnOnce(&mut Self) -> bool) -> bool {
        self.last = clock.monotonic();
        let changed = change(self);
        if changed {
            self.changed = self.last;
            self.changed_at = clock.now();
            self.unreported |= self.stalled;
            self.stalled = false;
        }
        changed
    }
}

/// As it is kept and compared.
pub(super) fn text(value: &Value) -> Box<str> {
    value.to_string().into_boxed_str()
}

/// Progress is for people: one that is too large is shown as its size alone.
pub(super) fn bounded(progress: &str) -> Value {
    match progress.len() {
        size if size > limits::CHECKPOINT => serde_json::json!({ "progress_dropped_bytes": size }),
        _ => serde_json::from_str(progress).unwrap_or_else(|_| Value::String(progress.to_owned())),
    }
}
