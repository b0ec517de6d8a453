//! The store of one attempt on this host: its lease, and what the attempts of this process know of each other's effects. A cluster has
//! no place that all workers of a task queue share in one step with a checkpoint, so that each process keeps its own register.

use std::sync::Arc;

use iolaus_activities::{BoxFuture, Clock, EffectOutcome, EffectOwner, EffectRegister, OtherEffect, Reservation, Reserved};
use jiff::Timestamp;
use serde_json::Value;

use super::lease::Lease;
use crate::executor::{AttemptStore, Execution, SaveError};

/// The store of one attempt.
pub(super) struct OfAttempt {
    lease: Arc<Lease>,
    register: Arc<EffectRegister>,
    clock: Arc<dyn Clock>,
    tenant: String,
    owner: EffectOwner,
}

impl OfAttempt {
    pub(super) fn new(lease: Arc<Lease>, register: Arc<EffectRegister>, clock: Arc<dyn Clock>, execution: &Execution) -> Self {
        let owner = EffectOwner { job_id: execution.job_id.to_string(), run_id: execution.run_id.to_string() };
        Self { lease, register, clock, tenant: execution.tenant.clone(), owner }
    }
}

impl AttemptStore for OfAttempt {
    fn save(&self, checkpoint: Value) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(self.lease.save(checkpoint))
    }

    /// If the checkpoint is not saved, the intent stays: nothing was sent, but that is known to this attempt alone, which ends.
    fn reserve(&self, checkpoint: Value, reservation: Reservation) -> BoxFuture<'_, Result<Reserved, SaveError>> {
        Box::pin(async move {
            let reserved = self.register.reserve(&self.tenant, &self.owner, &reservation, self.clock.now());
            if reserved == Reserved::Saved {
                self.lease.save(checkpoint).await?;
            }
            Ok(reserved)
        })
    }

    fn settle(&self, checkpoint: Value, key: String, outcome: EffectOutcome) -> BoxFuture<'_, Result<bool, SaveError>> {
        Box::pin(async move {
            let settled = self.register.settle(&self.tenant, &self.owner, &key, &outcome, self.clock.now());
            if settled {
                self.lease.save(checkpoint).await?;
            }
            Ok(settled)
        })
    }

    fn other_effects(&self, key: String, since: Timestamp) -> BoxFuture<'_, Result<Vec<OtherEffect>, SaveError>> {
        let others = self.register.others(&self.tenant, &self.owner, &key, since, self.clock.now());
        Box::pin(std::future::ready(Ok(others)))
    }

    /// The next heartbeat carries it.
    fn report(&self, progress: Option<Value>, stalled_since: Option<Timestamp>) -> BoxFuture<'_, ()> {
        self.lease.show(progress, stalled_since);
        Box::pin(std::future::ready(()))
    }

    fn lease_alive(&self) -> bool {
        self.lease.is_alive()
    }
}
