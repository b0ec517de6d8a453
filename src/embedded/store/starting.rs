//! Starts a job in the very transaction that stores it, when a slot of this process is free and no other job waits for it: one row is
//! written instead of one written, looked for and changed.

use std::sync::Arc;

use iolaus_activities::SlotClass;
use jiff::Timestamp;
use rusqlite::Connection;

use super::StoreError;
use super::claim::{ClaimRequest, ClaimScope, Claimed};
use super::paused::{Paused, paused};
use crate::executor::Execution;
use crate::job::NewJob;

/// Free slots, and what was started on them.
pub(crate) struct Starting {
    /// In the order of the writer's claimers; `None` has no free slot.
    workers: Vec<Option<Starter>>,
    /// What must not be started; read when the first job asks.
    paused: Option<Paused>,
    /// Whether anything may be started at all.
    open: bool,
}

/// A worker with free slots.
pub(super) struct Starter {
    /// What it can still take.
    pub(super) request: ClaimRequest,
    /// What it was given.
    pub(super) jobs: Vec<Claimed>,
}

impl Starting {
    /// On the slots of these workers.
    pub(super) fn on(requests: impl Iterator<Item = Option<ClaimRequest>>) -> Self {
        let workers: Vec<_> = requests.map(|request| Some(Starter { request: request?, jobs: Vec::new() })).collect();
        Self { open: workers.iter().any(Option::is_some), workers, paused: None }
    }

    /// Takes a slot for a job that is due now, and answers whose it is. `None`: it waits like any other.
    pub(super) fn take(&mut self, conn: &Connection, job: &NewJob) -> Result<Option<Slot>, StoreError> {
        if self.open && self.paused.is_none() {
            self.look(conn)?;
        }
        if !self.open {
            return Ok(None);
        }
        let is_paused = self.paused.as_ref().is_some_and(|paused| {
            paused.contains(&("activity", job.activity.as_str())) || paused.contains(&("tenant", job.tenant.as_str()))
        });
        if is_paused {
            return Ok(None);
        }
        let waits = job.options.slot_class == SlotClass::Waits;
        for (index, starter) in self.workers.iter_mut().enumerate() {
            let Some(Starter { request, .. }) = starter else { continue };
            // One that works a single job takes part in claims alone.
            let takes_any = matches!(request.scope, ClaimScope::Any)
                && request.runs(&job.activity, job.activity_version)
                && request.serves(&job.tenant)
                && !request.throttles.concern(&job.activity, &job.tenant);
            if takes_any && request.shares_mut(waits).take(&job.tenant) {
                return Ok(Some(Slot { index, worker_id: request.worker_id }));
            }
        }
        Ok(None)
    }

    /// Nothing is started past a job that waits, nor for a worker that was taken for dead.
    fn look(&mut self, conn: &Connection) -> Result<(), StoreError> {
        self.paused = Some(paused(conn)?);
        self.open = !conn.prepare_cached("SELECT 1 FROM jobs WHERE state = 'available' LIMIT 1")?.exists([])?;
        let mut registered = conn.prepare_cached("SELECT 1 FROM workers WHERE id = ?1")?;
        for starter in self.workers.iter().flatten() {
            self.open &= registered.exists([starter.request.worker_id])?;
        }
        Ok(())
    }

    /// Notes what was started on a slot, under lease token 1.
    pub(super) fn start(&mut self, slot: &Slot, id: i64, job: &NewJob, now: Timestamp, close_by: Option<Timestamp>) {
        let execution = Execution {
            job_id: job.job_id.clone(),
            run_id: job.run_id,
            activity: job.activity.clone(),
            tenant: job.tenant.clone(),
            attempts: 1,
            drains: 0,
            options: job.options.clone(),
            enqueued_at: now,
            started_at: Some(now),
            close_by,
            trace: job.trace.clone(),
        };
        let claimed = Claimed {
            id,
            token: 1,
            slot_class: job.options.slot_class,
            execution: Arc::new(execution),
            input: job.input.clone(),
            checkpoint: None,
            cancelled: None,
            waited_ms: 0,
        };
        if let Some(Some(starter)) = self.workers.get_mut(slot.index) {
            starter.jobs.push(claimed);
        }
    }

    /// What each worker can still take, and what it was given.
    pub(super) fn into_workers(self) -> Vec<Option<Starter>> {
        self.workers
    }
}

/// A slot that was taken.
pub(super) struct Slot {
    index: usize,
    pub(super) worker_id: i64,
}
