//! The durable side of one attempt: its heartbeats, checkpoints and end, each a call of our own by the task token that is awaited.
//!
//! One serial sender: no call of an attempt begins before the last one has ended, and every call carries the newest checkpoint. A call
//! whose fate is unknown may still arrive within its deadline; a `save` in the same attempt waits that out, so that the older one cannot
//! land after it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iolaus_activities::{Clock, Stop};
use jiff::Timestamp;
use serde_json::Value;
use temporalio_client::errors::AsyncActivityError;
use temporalio_client::{ActivityDescribeOptions, ActivityIdentifier, AsyncActivityHandle, Client, RetryOptions, RpcOptions};
use temporalio_common::error::ApplicationFailure;
use tokio::sync::watch;

use super::status::{is_gone, is_invalid};
use super::wire::Details;
use crate::executor::SaveError;

/// One call. The server drops it when this is over.
const CALL: Duration = Duration::from_secs(10);
/// After its deadline a call cannot arrive any more, clocks and scheduling included.
const SETTLED: Duration = Duration::from_secs(1);
/// Of the heartbeat timeout, after which no effect is started without a newer answer.
const ALIVE: f64 = 0.8;
/// Heartbeats within one heartbeat timeout.
const BEATS: u32 = 3;
/// Between two heartbeats at most, and for a caller that set no heartbeat timeout: so late does a cancel arrive.
const SLOWEST: Duration = Duration::from_secs(20);
/// Between two at least.
const FASTEST: Duration = Duration::from_millis(200);

/// How a call ended that ends an attempt.
#[derive(Debug)]
pub(super) enum Ended {
    /// The server has it.
    Done,
    /// The server knows no such attempt any more: nothing was written.
    LeaseLost,
    /// The server, or our own encoding, does not take this end, and will not take it later.
    Refused(String),
}

/// What an attempt is an attempt of.
pub(super) struct Of {
    /// The task token, which names this very attempt.
    pub(super) token: Vec<u8>,
    /// The id of the activity, and its run's if it is a standalone one.
    pub(super) activity_id: String,
    pub(super) standalone: Option<String>,
    /// What the server was told, if anything.
    pub(super) heartbeat_timeout: Option<Duration>,
}

/// The lease of one attempt.
pub(super) struct Lease {
    handle: AsyncActivityHandle<Client>,
    of: Of,
    clock: Arc<dyn Clock>,
    stop: watch::Sender<Option<Stop>>,
    known: Mutex<Known>,
    sender: tokio::sync::Mutex<()>,
}

struct Known {
    details: Details,
    /// When the server last renewed the lease, counted from when it was asked.
    renewed: Duration,
    /// Until each of these a call of unknown fate may still arrive.
    unsettled: Vec<Duration>,
}

impl Lease {
    pub(super) fn new(client: Client, of: Of, details: Details, stop: watch::Sender<Option<Stop>>, clock: Arc<dyn Clock>) -> Self {
        let known = Known { details, renewed: clock.monotonic(), unsettled: Vec::new() };
        let handle = AsyncActivityHandle::new(client, ActivityIdentifier::from_task_token(of.token.clone().into()));
        Self { handle, of, clock, stop, known: Mutex::new(known), sender: tokio::sync::Mutex::new(()) }
    }

    /// Beats until dropped.
    pub(super) async fn beat(&self) {
        let every = self.of.heartbeat_timeout.map_or(SLOWEST, |timeout| (timeout / BEATS).clamp(FASTEST, SLOWEST));
        loop {
            self.clock.sleep(every).await;
            if let Err(SaveError::Unavailable(error)) = self.renew().await {
                tracing::warn!(%error, "a heartbeat did not arrive; it is repeated");
            }
        }
    }

    /// Asks once whether the lease is still ours and what the server has to say.
    pub(super) async fn renew(&self) -> Result<(), SaveError> {
        let _turn = self.sender.lock().await;
        self.call().await
    }

    /// What the next attempt and people are to know.
    pub(super) fn details(&self) -> Details {
        self.known().details.clone()
    }

    /// Stores the activity's verdict.
    pub(super) async fn complete(&self, verdict: Value) -> Result<Ended, String> {
        let _turn = self.sender.lock().await;
        ended(self.handle.complete(Some(verdict), options()).await)
    }

    /// Stores a failure, with what the next attempt is to know.
    pub(super) async fn fail(&self, failure: ApplicationFailure) -> Result<Ended, String> {
        let _turn = self.sender.lock().await;
        ended(self.handle.fail(failure, Some(self.details()), options()).await)
    }

    /// Stores that it was cancelled, which the server takes only when somebody has asked for it.
    pub(super) async fn cancel(&self, details: Value) -> Result<Ended, String> {
        let _turn = self.sender.lock().await;
        ended(self.handle.report_cancelation(Some(details), options()).await)
    }

    /// Renews the lease with the newest details, and hears what the server has to say. Only with the sender's turn.
    async fn call(&self) -> Result<(), SaveError> {
        let asked = self.clock.monotonic();
        // If this is dropped on its way, its fate is unknown, too.
        let arrives_until = asked + CALL + SETTLED;
        {
            let mut known = self.known();
            known.unsettled.retain(|until| *until > asked);
            known.unsettled.push(arrives_until);
        }
        let answer = self.handle.heartbeat(Some(self.details()), options()).await;
        if answer.is_ok() {
            self.known().unsettled.retain(|until| *until != arrives_until);
        }
        match answer {
            Ok(answer) => {
                self.known().renewed = asked;
                if answer.cancel_requested {
                    self.tell_cancelled().await;
                } else if answer.activity_paused || answer.activity_reset {
                    // The server starts another attempt once it is resumed, or at once.
                    self.tell(&Stop::Draining);
                }
                if answer.activity_reset {
                    // What this attempt saves is not for the one that begins anew.
                    return Err(SaveError::Unavailable("the activity was reset".to_owned()));
                }
                Ok(())
            }
            Err(AsyncActivityError::NotFound(status)) if is_gone(&status) => {
                self.tell(&Stop::LeaseLost);
                Err(SaveError::LeaseLost)
            }
            Err(error) => Err(SaveError::Unavailable(error.to_string())),
        }
    }

    async fn tell_cancelled(&self) {
        if self.stop.borrow().is_some() {
            return;
        }
        let mut reason = None;
        if let Some(run_id) = self.of.standalone.clone() {
            // What they said; without it the cancel is delivered all the same.
            let described = self.handle.client().get_untyped_activity_handle(self.of.activity_id.clone(), Some(run_id));
            let described = described.describe(ActivityDescribeOptions::default());
            // No heartbeat is sent meanwhile.
            let described = tokio::time::timeout(CALL / 2, described).await;
            reason = described.ok().and_then(Result::ok).and_then(|found| found.canceled_reason().map(str::to_owned));
        }
        self.tell(&Stop::Cancelled { reason });
    }

    /// The first reason stands, but a lost lease is worse than any.
    fn tell(&self, reason: &Stop) {
        self.stop.send_if_modified(|stop| {
            let news = stop.is_none() || (*reason == Stop::LeaseLost && *stop != Some(Stop::LeaseLost));
            if news {
                *stop = Some(reason.clone());
            }
            news
        });
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a checkpoint durable.
    pub(super) async fn save(&self, checkpoint: Value) -> Result<(), SaveError> {
        let _turn = self.sender.lock().await;
        let now = self.clock.monotonic();
        let unsettled = {
            let mut known = self.known();
            known.unsettled.retain(|until| *until > now);
            known.unsettled.iter().max().copied()
        };
        if let Some(until) = unsettled {
            self.clock.sleep(until.saturating_sub(now)).await;
        }
        // From here on every call carries it, this one or a later one.
        self.known().details.checkpoint = Some(checkpoint);
        self.call().await
    }

    /// What the next heartbeat carries for people.
    pub(super) fn show(&self, progress: Option<Value>, stalled_since: Option<Timestamp>) {
        let mut known = self.known();
        known.details.progress = progress;
        known.details.stalled_since = stalled_since;
    }

    /// Whether the server has renewed the lease in time.
    pub(super) fn is_alive(&self) -> bool {
        let quiet = self.clock.monotonic().saturating_sub(self.known().renewed);
        self.of.heartbeat_timeout.is_none_or(|timeout| quiet < timeout.mul_f64(ALIVE))
    }
}

/// A single call within its time. Repeating is ours, since each repetition has to carry the newest details.
fn options() -> RpcOptions {
    let mut options = RpcOptions::default();
    options.timeout = Some(CALL);
    options.retry_options = Some(RetryOptions::no_retries());
    options
}

fn ended(call: Result<(), AsyncActivityError>) -> Result<Ended, String> {
    match call {
        Ok(()) => Ok(Ended::Done),
        Err(AsyncActivityError::NotFound(status)) if is_gone(&status) => Ok(Ended::LeaseLost),
        Err(AsyncActivityError::PayloadConversion(error)) => Ok(Ended::Refused(error.to_string())),
        Err(AsyncActivityError::Rpc(status)) if is_invalid(&status) => Ok(Ended::Refused(status.to_string())),
        Err(error) => Err(error.to_string()),
    }
}
