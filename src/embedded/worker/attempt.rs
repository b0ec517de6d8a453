//! One attempt on this host: run, decide, store, then tell.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iolaus_activities::{BoxFuture, EffectOutcome, EffectOwner, OtherEffect, Reservation, Reserved, SlotClass, Stop};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tracing::Instrument;

use super::Shared;
use crate::embedded::store::{ClaimScope, Claimed, Finished, StoreError, Tx, other_effects};
use crate::executor::{
    self, Assignment, AttemptStore, Cancel, Decision, Execution, ExecutorSettings, InFlight, Outcome, Ran, SaveError,
};
use crate::telemetry::{self, AttemptEnd};

/// Progress of work is written at most this often.
const WORK_PROGRESS: Duration = Duration::from_secs(10);
/// Waits are many, and each makes progress at every look.
const WAITS_PROGRESS: Duration = Duration::from_secs(60);
/// How long the answer to an effect may keep an attempt past a stop or a timeout. Its own bound is shorter.
const EFFECT_EXTENSION: Duration = Duration::from_secs(300);
/// Between two tries to store the end of an attempt.
const FINISH_PAUSE: Duration = Duration::from_millis(500);

/// One attempt: run, decide, store, then tell.
pub(super) async fn attempt(shared: Arc<Shared>, job: Box<Claimed>, stop: watch::Sender<Option<Stop>>) {
    let (id, token, class) = (job.id, job.token, job.slot_class);
    let execution = job.execution.clone();
    let span = telemetry::process_span(
        &execution.trace,
        &execution.activity,
        &execution.tenant,
        &execution.job_id,
        execution.run_id,
        execution.attempts,
    );
    let waited = Duration::from_millis(job.waited_ms);
    telemetry::record_wait(&span, waited);
    let began = shared.clock.monotonic();
    let mut ran = run(&shared, job, stop.clone()).instrument(span.clone()).await;
    let ended = shared.clock.monotonic();
    ran.outcome = wait_for_tenant(&shared, ran.outcome);
    // Boxed, like all that a wait does not need while it waits.
    let finished = Box::pin(finish(&shared, id, token, &execution, &ran, &stop).instrument(span.clone()));
    let decision = finished.await;
    shared.unreached.warn(&execution, &decision, shared.clock.as_ref());
    let (named, error) = decision.telling();
    telemetry::record_outcome(&span, named, error.as_deref());
    drop(span);
    shared.store.hub().metrics().attempt(&AttemptEnd {
        activity: &execution.activity,
        tenant: &execution.tenant,
        outcome: named,
        error: error.as_deref(),
        waited,
        ran: ended.saturating_sub(began),
        stored: shared.clock.monotonic().saturating_sub(ended),
    });
    shared.store.hub().ended(id, token);
    shared.release(class, &execution.tenant);
    if shared.store.hub().wants_slots() {
        shared.store.nudge(false).await;
    }
}

async fn run(shared: &Arc<Shared>, job: Box<Claimed>, stop: watch::Sender<Option<Stop>>) -> Ran {
    // A claim takes only what is registered.
    let Some(activity) = shared.options.registry.get(&job.execution.activity).cloned() else {
        return Ran { outcome: Outcome::Drained, answers_cancel: false };
    };
    let settings = ExecutorSettings {
        cancel_grace: shared.options.cancel_grace,
        stop_extension: EFFECT_EXTENSION,
        timeout_extension: EFFECT_EXTENSION,
        in_flight: InFlight::default(),
        stall_after: shared.options.stall_after,
        progress_interval: match job.slot_class {
            SlotClass::Work => WORK_PROGRESS,
            SlotClass::Waits => WAITS_PROGRESS,
        },
    };
    let (id, token, execution) = (job.id, job.token, job.execution.clone());
    let store = Arc::new(Lease { shared: shared.clone(), id, token, execution });
    let Claimed { execution, input, checkpoint, .. } = *job;
    let assignment = Box::new(Assignment { activity, execution, input, checkpoint });
    executor::run_attempt(assignment, store, stop, shared.clock.clone(), &settings).await
}

/// A worker lets the job of a held tenant wait, which costs it nothing. Whoever works one job alone is answered instead.
fn wait_for_tenant(shared: &Shared, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(failure) if failure.tenant_held && matches!(shared.scope, ClaimScope::Any) => Outcome::TenantHeld(failure),
        outcome => outcome,
    }
}

/// Stores the end of an attempt. A store that fails is asked again until it answers: the write is fenced, so that repeating it is
/// harmless. After a write of unknown fate the very same end is sent again, and is recognised if it was stored before.
async fn finish(
    shared: &Arc<Shared>,
    id: i64,
    token: i64,
    execution: &Execution,
    ran: &Ran,
    stop: &watch::Sender<Option<Stop>>,
) -> Decision {
    let mut cancel_requested = matches!(*stop.borrow(), Some(Stop::Cancelled { .. }));
    let mut of_unknown_fate: Option<Decision> = None;
    loop {
        let again = of_unknown_fate.is_some();
        let decided = match of_unknown_fate.clone() {
            Some(decision) => Ok(decision),
            None => decide(shared, id, token, execution, ran, cancel_requested).await,
        };
        let finished = match decided.clone() {
            Ok(decision) => shared.store.write(move |tx| tx.finish_attempt(id, token, &decision, again)).await,
            Err(error) => Err(error),
        };
        if matches!(&finished, Err(error) if error.is_unknown()) {
            of_unknown_fate = decided.clone().ok();
        }
        let decision = decided.unwrap_or(Decision::Nothing);
        match finished {
            Ok(Finished::Done) => {
                if let Decision::Close(closing) = &decision {
                    telemetry::verdict_event(&closing.verdict, &closing.logged());
                    shared.store.hub().metrics().verdict(&closing.verdict);
                }
                return decision;
            }
            Ok(Finished::CancelRequested) => (cancel_requested, of_unknown_fate) = (true, None),
            Ok(Finished::LeaseLost) => {
                execution.tell_lease_lost();
                return Decision::Nothing;
            }
            Err(error) => {
                if let Some(repeated) = shared.store.hub().log_due(&error, shared.clock.monotonic()) {
                    let (job_id, run_id) = (&execution.job_id, &execution.run_id);
                    tracing::error!(%job_id, %run_id, %error, repeated, "the end of an attempt was not stored");
                }
                // A worker that drains leaves it to a rescue; any other lives on, and then nobody else would end it.
                if matches!(error, StoreError::Closed) || shared.drains_all.load(Ordering::SeqCst) {
                    return Decision::Nothing;
                }
                shared.clock.sleep(FINISH_PAUSE).await;
            }
        }
    }
}

async fn decide(
    shared: &Shared,
    id: i64,
    token: i64,
    execution: &Execution,
    ran: &Ran,
    cancel_requested: bool,
) -> Result<Decision, StoreError> {
    let cancel = cancel(shared, id, token, ran, cancel_requested).await?;
    Ok(executor::decide(execution, ran.outcome.clone(), &cancel, shared.clock.now(), shared.clock.random()))
}

/// A requested cancel, as this attempt ended. What its activity did not answer, the stored checkpoint does: asked behind whatever the
/// attempt still had to store.
async fn cancel(shared: &Shared, id: i64, token: i64, ran: &Ran, requested: bool) -> Result<Cancel, StoreError> {
    match (requested, &ran.outcome) {
        (false, _) => Ok(Cancel::NotRequested),
        (true, Outcome::Verdict(_) | Outcome::Cancelled { .. } | Outcome::LeaseLost) => Ok(Cancel::Answered),
        (true, _) if ran.answers_cancel => Ok(Cancel::Answered),
        (true, _) => shared.store.write(move |tx| tx.cancel_of_attempt(id, token)).await,
    }
}

/// The durable side of one attempt.
struct Lease {
    shared: Arc<Shared>,
    id: i64,
    token: i64,
    execution: Arc<Execution>,
}

impl Lease {
    /// Writes in the name of this attempt; None says that it does not own its lease any more.
    async fn fenced<T: Send + 'static>(
        &self,
        write: impl FnMut(&mut Tx<'_>) -> Result<Option<T>, StoreError> + Send + 'static,
    ) -> Result<T, SaveError> {
        match self.shared.store.write(write).await {
            Ok(written) => written.ok_or(SaveError::LeaseLost),
            Err(error) => Err(SaveError::Unavailable(error.to_string())),
        }
    }
}

impl AttemptStore for Lease {
    fn save(&self, checkpoint: Value) -> BoxFuture<'_, Result<(), SaveError>> {
        let (id, token) = (self.id, self.token);
        Box::pin(self.fenced(move |tx| Ok(tx.save_checkpoint(id, token, &checkpoint)?.then_some(()))))
    }

    fn reserve(&self, checkpoint: Value, reservation: Reservation) -> BoxFuture<'_, Result<Reserved, SaveError>> {
        let (id, token) = (self.id, self.token);
        Box::pin(self.fenced(move |tx| tx.reserve_effect(id, token, &checkpoint, &reservation)))
    }

    fn settle(&self, checkpoint: Value, key: String, outcome: EffectOutcome) -> BoxFuture<'_, Result<bool, SaveError>> {
        let (id, token) = (self.id, self.token);
        Box::pin(self.fenced(move |tx| tx.settle_effect(id, token, &checkpoint, &key, &outcome)))
    }

    fn other_effects(&self, key: String, since: Timestamp) -> BoxFuture<'_, Result<Vec<OtherEffect>, SaveError>> {
        let (execution, now) = (self.execution.clone(), self.shared.clock.now());
        Box::pin(async move {
            let owner = EffectOwner { job_id: execution.job_id.to_string(), run_id: execution.run_id.to_string() };
            let read = self.shared.store.read(move |conn| other_effects(conn, &execution.tenant, &owner, &key, since, now));
            read.await.map_err(|error| SaveError::Unavailable(error.to_string()))
        })
    }

    fn report(&self, progress: Option<Value>, stalled_since: Option<Timestamp>) -> BoxFuture<'_, ()> {
        let (id, token) = (self.id, self.token);
        Box::pin(async move {
            let written = self.shared.store.write(move |tx| tx.save_progress(id, token, progress.as_ref(), stalled_since)).await;
            if let Err(error) = written {
                tracing::debug!(%error, "progress was not stored");
            }
        })
    }

    fn lease_alive(&self) -> bool {
        self.shared.lease_alive()
    }
}
