//! The writer thread: takes what is waiting, runs it in one transaction, commits once, then answers everyone. Nothing outside the file
//! changes before COMMIT has returned.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use iolaus_activities::Clock as _;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::claim::{self, Claimer};
use super::counts::Counts;
use super::in_use::InUse;
use super::isolation::{PassedOver, execute};
use super::maintenance::Maintenance;
use super::opening::{First, Opened};
use super::operation::{Kind, Operation, Run};
use super::starting::Starting;
use super::turnstile::Turnstile;
use super::{StoreError, dying, rows, schema};
use crate::embedded::files::{Identity, StateDirectory};
use crate::embedded::hub::{After, Hub};
use crate::embedded::queue_clock::QueueClock;
use crate::embedded::{Durability, EmbeddedOptions, MAX_DEATHS};
use crate::executor::CancelPlans;

mod claims;
mod connection;

use claims::{Claims, claim_for};

/// Operations in one transaction at most.
pub(crate) const BATCH: usize = 256;

/// A transaction in progress, as operations see it.
pub(crate) struct Tx<'c> {
    pub(super) conn: &'c Connection,
    /// The wall clock at the start of the transaction.
    pub(super) now: Timestamp,
    /// Spreads retry delays.
    pub(super) jitter: f64,
    /// What to tell the process once the transaction is durable.
    pub(super) after: After,
    /// How many executions went from which state to which.
    pub(super) counts: Counts,
    /// What the activities say about cancelling their jobs.
    pub(super) plans: CancelPlans,
    /// Workers in a row that may die while they run one job.
    pub(super) max_deaths: u32,
    /// What it may still do beside what it was asked for.
    pub(super) maintenance: Maintenance,
    /// Each job that it does something about is kept from the others.
    pub(super) isolates: bool,
    /// Jobs that it leaves alone.
    pub(super) passed_over: PassedOver,
    /// Slots of this process that are free for what is stored now, if nobody waits for them.
    pub(super) starting: Option<Starting>,
}

impl<'c> Tx<'c> {
    pub(super) fn new(conn: &'c Connection, now: Timestamp, jitter: f64) -> Self {
        // To the millisecond, as it is stored.
        let now = rows::at_ms(rows::ms(now)).unwrap_or(now);
        let (after, counts, plans, maintenance) = Default::default();
        let (isolates, passed_over) = Default::default();
        Self { conn, now, jitter, after, counts, plans, max_deaths: MAX_DEATHS, maintenance, isolates, passed_over, starting: None }
    }
}

/// How the operations of a transaction are kept from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Apart {
    /// Not at all: if one fails, all are undone and run again with savepoints. Nearly always none does, and a savepoint keeps a copy of
    /// each page that is written after it.
    Together,
    /// By savepoints.
    Savepoints,
}

/// Why the operations of a transaction did not all run.
enum Undone {
    /// One of them failed, or the claim that follows them, and nothing kept it from the others.
    One,
    /// The transaction is gone.
    All(StoreError),
}

impl<E: Into<StoreError>> From<E> for Undone {
    fn from(error: E) -> Self {
        Self::All(error.into())
    }
}

/// The thread's own state.
pub(super) struct Writer {
    place: Arc<StateDirectory>,
    durability: Durability,
    plans: CancelPlans,
    max_deaths: u32,
    conn: Connection,
    /// The files that it is on.
    identity: Identity,
    turnstile: Arc<Turnstile>,
    hub: Arc<Hub>,
    clock: Arc<QueueClock>,
    claimers: Vec<Arc<dyn Claimer>>,
    /// There may be claimable jobs that no claim has seen.
    maybe_ready: bool,
    turns: claim::Turns,
    /// Slots that the last transaction left free.
    free_left: usize,
    /// When a limit on starts leaves room for a job that waits.
    next_start: Option<Timestamp>,
    /// Jobs that cannot be written.
    passed_over: PassedOver,
    /// Let go of after the connection.
    in_use: Arc<InUse>,
}

impl Writer {
    pub(super) fn start(
        opened: Opened,
        options: &EmbeddedOptions,
        mut operations: mpsc::Receiver<Operation>,
        hub: Arc<Hub>,
        clock: Arc<QueueClock>,
    ) -> Result<(), StoreError> {
        let thread = std::thread::Builder::new().name("iolaus-writer".into());
        let Opened { place, identity, turnstile, in_use, connection, durability } = opened;
        let (plans, max_deaths) = (options.cancel_plans.clone(), options.max_deaths);
        let writer = move |conn| Self {
            place,
            durability,
            plans,
            max_deaths,
            conn,
            identity,
            turnstile,
            hub,
            clock,
            claimers: Vec::new(),
            maybe_ready: true,
            turns: claim::Turns::default(),
            free_left: 0,
            next_start: None,
            passed_over: PassedOver::default(),
            in_use,
        };
        let started = match connection {
            First::Writer(conn) => {
                let mut writer = writer(conn);
                writer.publish_timers();
                thread.spawn(move || writer.serve(None, &mut operations))
            }
            First::Reader(conn) => thread.spawn(move || {
                let mut writer = writer(conn);
                if let Some(first) = writer.open_when_asked(&mut operations) {
                    writer.serve(Some(first), &mut operations);
                }
            }),
        };
        started.map(drop).map_err(StoreError::io)
    }

    fn serve(&mut self, mut first: Option<Operation>, operations: &mut mpsc::Receiver<Operation>) {
        while let Some(first) = first.take().or_else(|| operations.blocking_recv()) {
            let mut batch: Vec<Box<dyn Run>> = Vec::new();
            self.take(first, &mut batch);
            let mut taken = 1;
            while batch.len() < BATCH
                && let Ok(next) = operations.try_recv()
            {
                self.take(next, &mut batch);
                taken += 1;
            }
            self.claimers.retain(|claimer| claimer.alive());
            let mut done = true;
            if !batch.is_empty() || self.should_claim() || !self.in_use.is_recorded(&self.identity, &self.clock) {
                done = self.transact(batch);
            }
            self.hub.set_wants_slots(self.maybe_ready);
            // A slot that became free before that was said told nobody.
            while done && self.free() > self.free_left && self.should_claim() {
                done = self.transact(Vec::new());
                self.hub.set_wants_slots(self.maybe_ready);
            }
            self.hub.add_served(taken);
            if self.hub.failure().is_some() {
                // A newer build owns the file now: this process writes no more.
                return;
            }
        }
    }

    fn take(&mut self, operation: Operation, batch: &mut Vec<Box<dyn Run>>) {
        match operation.into_kind() {
            Kind::Run(run) => batch.push(run),
            Kind::Nudge { ready: false } => {}
            Kind::Nudge { ready: true } => {
                self.maybe_ready = true;
                self.publish_timers();
            }
            Kind::AddClaimer(claimer) => {
                self.claimers.push(claimer);
                self.maybe_ready = true;
            }
        }
    }

    /// Whether a transaction for claiming alone is worth the write lock: a free slot, and a look at the file that finds something.
    fn should_claim(&mut self) -> bool {
        if !self.maybe_ready || self.free() == 0 {
            return false;
        }
        // An error shows itself again in the transaction, which has somebody to tell.
        let found = claim::peek(&self.conn, self.clock.now()).unwrap_or(true);
        self.maybe_ready = found;
        found
    }

    /// Free slots of this process's workers, now.
    fn free(&self) -> usize {
        self.claimers.iter().map(|claimer| claimer.free()).sum()
    }

    /// Runs these operations, claims, commits and answers. False if it was not kept, or may not have been.
    fn transact(&mut self, mut batch: Vec<Box<dyn Run>>) -> bool {
        // Whoever comes first at that time looks, be it the timer or anybody else.
        self.maybe_ready |= self.next_start.is_some_and(|at| at <= self.clock.now());
        let mut refused: Vec<Option<StoreError>> = vec![None; batch.len()];
        let (began, operations) = (self.clock.monotonic(), batch.len());
        let looked = self.maybe_ready;
        let outcome = self.run_and_commit(&mut batch, &mut refused);
        match outcome {
            Ok((after, claimed)) => {
                dying::point();
                let jobs: usize = claimed.iter().map(|(_, _, jobs)| jobs.len()).sum();
                let took = self.clock.monotonic().saturating_sub(began);
                let claims = (looked || jobs > 0).then_some(jobs);
                self.hub.metrics().committed(operations, took, claims, rows::ms(self.clock.now()));
                for (claimer, worker_id, jobs) in claimed {
                    claimer.deliver(worker_id, jobs);
                }
                self.hub.publish(&after);
                let starts = after.next_start.is_some() || self.next_start.is_some_and(|at| at <= self.clock.now());
                if starts {
                    self.next_start = after.next_start;
                }
                if after.timers || starts {
                    self.publish_timers();
                }
                for (run, refusal) in batch.into_iter().zip(refused) {
                    run.answer(refusal.map_or(Ok(()), Err));
                }
                dying::point();
                true
            }
            Err(error) => {
                if let Some(repeated) = self.hub.log_due(&error, self.clock.monotonic()) {
                    tracing::error!(%error, operations = batch.len(), repeated, "a transaction failed");
                }
                if looked {
                    self.hub.metrics().claim_failed();
                }
                if error.is_final() {
                    self.hub.fail(error.clone());
                }
                for run in batch {
                    run.answer(Err(error.clone()));
                }
                if !error.is_final() {
                    self.reopen();
                }
                false
            }
        }
    }

    fn run_and_commit(
        &mut self,
        batch: &mut [Box<dyn Run>],
        refused: &mut [Option<StoreError>],
    ) -> Result<(After, Vec<Claims>), StoreError> {
        let turnstile = self.turnstile.clone();
        let _turn = turnstile.enter()?;
        if let Err(error) = self.place.verify(&self.identity) {
            // What would be written into a deleted file, nobody would ever see.
            self.give_up_files()?;
            return Err(error);
        }
        // Others cannot join without it. This process can go on without it.
        if let Err(error) = self.in_use.record(&self.place, &self.identity, &self.clock) {
            tracing::debug!(%error, "which files are in use could not be recorded again");
        }
        dying::point();
        execute(&self.conn, "BEGIN IMMEDIATE")?;
        self.passed_over.renew(self.clock.monotonic());
        let maybe_ready = self.maybe_ready;
        let mut ran = self.run_within(batch, refused, Apart::Together);
        if matches!(ran, Err(Undone::One)) && !self.conn.is_autocommit() {
            self.maybe_ready = maybe_ready;
            execute(&self.conn, "ROLLBACK")?;
            execute(&self.conn, "BEGIN IMMEDIATE")?;
            ran = self.run_within(batch, refused, Apart::Savepoints);
        }
        dying::point();
        match ran {
            Ok(done) => execute(&self.conn, "COMMIT").map(|()| done).map_err(|error| StoreError::CommitUnknown(Arc::new(error))),
            Err(undone) => {
                if !self.conn.is_autocommit() {
                    execute(&self.conn, "ROLLBACK")?;
                }
                Err(match undone {
                    Undone::All(error) => error,
                    Undone::One => StoreError::Panicked,
                })
            }
        }
    }

    fn run_within(
        &mut self,
        batch: &mut [Box<dyn Run>],
        refused: &mut [Option<StoreError>],
        apart: Apart,
    ) -> Result<(After, Vec<Claims>), Undone> {
        schema::check_version(&self.conn)?;
        let mut tx = Tx::new(&self.conn, self.clock.now(), self.clock.random());
        tx.plans = self.plans.clone();
        tx.max_deaths = self.max_deaths;
        tx.isolates = apart == Apart::Savepoints;
        tx.passed_over = self.passed_over.clone();
        if apart == Apart::Together && !self.maybe_ready {
            tx.starting = Some(Starting::on(self.claimers.iter().map(|claimer| claimer.request())));
        }
        for (run, refusal) in batch.iter_mut().zip(refused) {
            apply(&mut tx, run.as_mut(), refusal, apart)?;
        }
        let workers = match tx.starting.take() {
            Some(starting) => starting.into_workers(),
            None => Starting::on(self.claimers.iter().map(|claimer| claimer.request())).into_workers(),
        };
        let free: usize = workers.iter().flatten().map(|worker| worker.request.free() + worker.jobs.len()).sum();
        let (claimed, failed) = claim_for(&mut tx, &self.claimers, workers, &mut self.maybe_ready, &mut self.turns)?;
        if let Some(error) = failed {
            self.hub.metrics().claim_failed();
            if let Some(repeated) = self.hub.log_due(&error, self.clock.monotonic()) {
                tracing::error!(%error, repeated, hint = "iolaus fsck", "no jobs could be claimed");
            }
        }
        self.free_left = free.saturating_sub(claimed.iter().map(|(_, _, jobs)| jobs.len()).sum());
        tx.counts.store(tx.conn)?;
        self.passed_over = tx.passed_over;
        Ok((tx.after, claimed))
    }

    fn publish_timers(&mut self) {
        match claim::next_timer(&self.conn) {
            Ok(at) => self.hub.set_timer(at.into_iter().chain(self.next_start).min()),
            Err(error) => tracing::error!(%error, "the next due job could not be read"),
        }
    }
}

/// Runs one operation.
fn apply(tx: &mut Tx<'_>, run: &mut dyn Run, refusal: &mut Option<StoreError>, apart: Apart) -> Result<(), Undone> {
    let mut guarded = |tx: &mut Tx<'_>| catch_unwind(AssertUnwindSafe(|| run.apply(tx))).unwrap_or(Err(StoreError::Panicked));
    dying::point();
    if apart == Apart::Together {
        return guarded(tx).map_err(|error| if tx.conn.is_autocommit() { Undone::All(error) } else { Undone::One });
    }
    *refusal = tx.within_savepoint(guarded)?.err();
    Ok(())
}
