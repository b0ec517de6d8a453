//! The writer thread: takes what is waiting, runs it in one transaction, commits once, then answers everyone. Nothing outside the file
//! changes before COMMIT has returned.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iolaus_activities::Clock;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::claim::{self, Claimed, Claimer};
use super::turnstile::Turnstile;
use super::{StoreError, schema};
use crate::embedded::files;
use crate::embedded::hub::{After, Hub};

/// Operations in one transaction at most.
const BATCH: usize = 256;

/// A transaction in progress, as operations see it.
pub(crate) struct Tx<'c> {
    pub(super) conn: &'c Connection,
    /// The wall clock at the start of the transaction.
    pub(super) now: Timestamp,
    /// Spreads retry delays.
    pub(super) jitter: f64,
    /// What to tell the process once the transaction is durable.
    pub(super) after: After,
}

trait Run: Send {
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Typed<F, T> {
    apply: Option<F>,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Run for Typed<F, T>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let Some(apply) = self.apply.take() else { return Err(StoreError::Closed) };
        self.result = Some(apply(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        // Whoever asked may have gone away; what was committed stays.
        reply.send(committed.and_then(|()| result.ok_or(StoreError::Closed))).ok();
    }
}

/// Something for the writer to do.
pub(crate) struct Operation(Kind);

enum Kind {
    Run(Box<dyn Run>),
    Nudge { ready: bool },
    AddClaimer(Arc<dyn Claimer>),
}

impl Operation {
    pub(super) fn new<T: Send + 'static>(
        apply: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        reply: oneshot::Sender<Result<T, StoreError>>,
    ) -> Self {
        Self(Kind::Run(Box::new(Typed { apply: Some(apply), result: None, reply })))
    }

    pub(super) fn nudge(ready: bool) -> Self {
        Self(Kind::Nudge { ready })
    }

    pub(super) fn add_claimer(claimer: Arc<dyn Claimer>) -> Self {
        Self(Kind::AddClaimer(claimer))
    }
}

/// Who gets which jobs, under which worker's row.
type Claims = (Arc<dyn Claimer>, i64, Vec<Claimed>);

/// The thread's own state.
pub(super) struct Writer {
    path: PathBuf,
    conn: Connection,
    /// The file that it was opened on.
    file: Option<(u64, u64)>,
    turnstile: Arc<Turnstile>,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    claimers: Vec<Arc<dyn Claimer>>,
    /// There may be claimable jobs that no claim has seen.
    maybe_ready: bool,
    /// Rotates the tenants' turns.
    turn: usize,
}

impl Writer {
    pub(super) fn start(
        path: &Path,
        operations: mpsc::Receiver<Operation>,
        hub: Arc<Hub>,
        clock: Arc<dyn Clock>,
    ) -> Result<(), StoreError> {
        let turnstile = Arc::new(Turnstile::open(path)?);
        let conn = {
            let _turn = turnstile.enter_or_give_up()?;
            schema::open_writer(path, clock.now())?
        };
        let mut writer = Self {
            path: path.to_owned(),
            conn,
            file: files::identity(path),
            turnstile,
            hub,
            clock,
            claimers: Vec::new(),
            maybe_ready: true,
            turn: 0,
        };
        writer.publish_timers();
        std::thread::Builder::new()
            .name("iolaus-writer".into())
            .spawn(move || writer.serve(operations))
            .map(drop)
            .map_err(StoreError::io)
    }

    fn serve(&mut self, mut operations: mpsc::Receiver<Operation>) {
        while let Some(first) = operations.blocking_recv() {
            let mut batch: Vec<Box<dyn Run>> = Vec::new();
            self.take(first, &mut batch);
            while batch.len() < BATCH
                && let Ok(next) = operations.try_recv()
            {
                self.take(next, &mut batch);
            }
            self.claimers.retain(|claimer| claimer.alive());
            if !batch.is_empty() || self.should_claim() {
                self.transact(batch);
            }
            if self.hub.failure().is_some() {
                // A newer build owns the file now: this process writes no more.
                return;
            }
        }
    }

    fn take(&mut self, operation: Operation, batch: &mut Vec<Box<dyn Run>>) {
        match operation.0 {
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
        if !self.maybe_ready || self.claimers.iter().all(|claimer| claimer.request().is_none()) {
            return false;
        }
        // An error shows itself again in the transaction, which has somebody to tell.
        let found = claim::peek(&self.conn, self.clock.now()).unwrap_or(true);
        self.maybe_ready = found;
        found
    }

    fn transact(&mut self, mut batch: Vec<Box<dyn Run>>) {
        let mut refused: Vec<Option<StoreError>> = vec![None; batch.len()];
        let outcome = self.run_and_commit(&mut batch, &mut refused);
        match outcome {
            Ok((after, claimed)) => {
                for (claimer, worker_id, jobs) in claimed {
                    claimer.deliver(worker_id, jobs);
                }
                self.hub.publish(&after);
                if after.timers {
                    self.publish_timers();
                }
                for (run, refusal) in batch.into_iter().zip(refused) {
                    run.answer(refusal.map_or(Ok(()), Err));
                }
            }
            Err(error) => {
                tracing::error!(%error, operations = batch.len(), "a transaction failed");
                if matches!(error, StoreError::Upgraded { .. }) {
                    self.hub.fail(error.clone());
                }
                for run in batch {
                    run.answer(Err(error.clone()));
                }
                self.reopen();
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
        if files::identity(&self.path) != self.file {
            // What would be written into a deleted file, nobody would ever see.
            return Err(StoreError::Replaced);
        }
        execute(&self.conn, "BEGIN IMMEDIATE")?;
        let ran = self.run_within(batch, refused);
        match ran {
            Ok(done) => execute(&self.conn, "COMMIT").map(|()| done).map_err(|error| StoreError::CommitUnknown(Arc::new(error))),
            Err(error) => {
                if !self.conn.is_autocommit() {
                    execute(&self.conn, "ROLLBACK")?;
                }
                Err(error)
            }
        }
    }

    fn run_within(
        &mut self,
        batch: &mut [Box<dyn Run>],
        refused: &mut [Option<StoreError>],
    ) -> Result<(After, Vec<Claims>), StoreError> {
        schema::check_version(&self.conn)?;
        let mut tx = Tx { conn: &self.conn, now: self.clock.now(), jitter: self.clock.random(), after: After::default() };
        for (run, refusal) in batch.iter_mut().zip(refused) {
            execute(tx.conn, "SAVEPOINT operation")?;
            let applied = catch_unwind(AssertUnwindSafe(|| run.apply(&mut tx))).unwrap_or(Err(StoreError::Panicked));
            match applied {
                Ok(()) => execute(tx.conn, "RELEASE operation")?,
                // The whole transaction is gone, as when the disk is full.
                Err(error) if tx.conn.is_autocommit() => return Err(error),
                Err(error) => {
                    execute(tx.conn, "ROLLBACK TO operation")?;
                    execute(tx.conn, "RELEASE operation")?;
                    *refusal = Some(error);
                }
            }
        }
        let mut claimed = Vec::new();
        if self.maybe_ready || tx.after.ready {
            self.maybe_ready = false;
            for claimer in &self.claimers {
                let Some(request) = claimer.request() else {
                    // It comes back as soon as it has a free slot.
                    self.maybe_ready = true;
                    continue;
                };
                self.turn = self.turn.wrapping_add(1);
                let (jobs, more) = claim::claim(&mut tx, &request, self.turn)?;
                self.maybe_ready |= more;
                if !jobs.is_empty() {
                    claimed.push((claimer.clone(), request.worker_id, jobs));
                }
            }
        }
        Ok((tx.after, claimed))
    }

    /// After a failed transaction nothing is assumed of the connection.
    fn reopen(&mut self) {
        let opened = match self.turnstile.enter_or_give_up() {
            Ok(_turn) => schema::open_writer(&self.path, self.clock.now()),
            Err(error) => Err(StoreError::io(error)),
        };
        match opened {
            Ok(conn) => {
                self.conn = conn;
                self.file = files::identity(&self.path);
            }
            Err(error) => tracing::error!(%error, "the database could not be opened again; the next operation tries once more"),
        }
        self.maybe_ready = true;
    }

    fn publish_timers(&mut self) {
        match claim::next_timer(&self.conn) {
            Ok(at) => self.hub.set_timer(at),
            Err(error) => tracing::error!(%error, "the next due job could not be read"),
        }
    }
}

fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}
