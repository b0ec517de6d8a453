//! The physical reference of the benchmark: one thread that commits in groups and does nothing else. The same rows, bytes and indexes
//! as a job leaves, on the same disk, without admission, rules, fences, leases, spans or anybody to tell.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iolaus_activities::VerdictRecord;
use jiff::Timestamp;
use rusqlite::{Connection, params};
use tokio::sync::{Notify, mpsc, oneshot};

use super::rows::{ms, to_json};
use super::writer::BATCH;
use super::{StoreError, schema};
use crate::embedded::Durability;
use crate::job::NewJob;

/// What the loop writes for one job, as text, made before anything is measured.
pub struct BareJob {
    job: NewJob,
    run_id: String,
    input: String,
    options: String,
    verdict: String,
}

impl BareJob {
    /// The rows of a job that ends with this verdict.
    pub fn new(job: NewJob, verdict: &VerdictRecord) -> Self {
        // Plain data of our own always serialises.
        let text = |value: Result<String, StoreError>| value.unwrap_or_default();
        let (input, options, verdict) = (text(to_json(&job.input)), text(to_json(&job.options)), text(to_json(verdict)));
        Self { run_id: job.run_id.to_string(), input, options, verdict, job }
    }
}

/// A running loop. It ends when this is dropped.
pub struct BareLoop {
    operations: mpsc::Sender<(BareJob, oneshot::Sender<()>)>,
    finished: Arc<Finished>,
}

#[derive(Default)]
struct Finished {
    jobs: AtomicU64,
    commits: AtomicU64,
    changed: Notify,
}

impl BareLoop {
    /// Opens a file of its own. With `work`, each job runs at once and is closed by the next transaction; otherwise jobs are only
    /// stored.
    pub fn start(path: &Path, durability: Durability, work: bool) -> anyhow::Result<Self> {
        let conn = schema::open_writer(path, durability, Timestamp::UNIX_EPOCH)?;
        let (operations, receiver) = mpsc::channel(4096);
        let finished = Arc::new(Finished::default());
        let telling = finished.clone();
        std::thread::Builder::new().name("bare-loop".into()).spawn(move || {
            let mut bare = Bare { conn, running: Vec::new(), work };
            if let Err(error) = bare.serve(receiver, &telling) {
                tracing::error!(%error, "the bare loop ended");
            }
        })?;
        Ok(Self { operations, finished })
    }

    /// Stores a job, and answers when it is durable.
    pub async fn enqueue(&self, job: BareJob) -> anyhow::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.operations.send((job, reply)).await.map_err(|_| StoreError::Closed)?;
        Ok(answer.await?)
    }

    /// Ends when so many jobs were closed in all.
    pub async fn until_finished(&self, jobs: u64) {
        loop {
            let changed = self.finished.changed.notified();
            if self.finished.jobs.load(Ordering::SeqCst) >= jobs {
                return;
            }
            changed.await;
        }
    }

    /// Transactions so far.
    pub fn commits(&self) -> u64 {
        self.finished.commits.load(Ordering::SeqCst)
    }
}

struct Bare {
    conn: Connection,
    /// What runs, until the next transaction closes it, with its verdict.
    running: Vec<(i64, String)>,
    work: bool,
}

impl Bare {
    fn serve(
        &mut self,
        mut operations: mpsc::Receiver<(BareJob, oneshot::Sender<()>)>,
        finished: &Finished,
    ) -> Result<(), StoreError> {
        loop {
            let mut batch = Vec::new();
            if self.running.is_empty() {
                let Some(first) = operations.blocking_recv() else { return Ok(()) };
                batch.push(first);
            }
            while batch.len() < BATCH
                && let Ok(next) = operations.try_recv()
            {
                batch.push(next);
            }
            let closed = std::mem::take(&mut self.running);
            self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            for (id, verdict) in &closed {
                self.close(*id, verdict)?;
            }
            for (job, _) in &mut batch {
                let id = self.insert(job)?;
                if self.work {
                    self.running.push((id, std::mem::take(&mut job.verdict)));
                }
            }
            self.conn.prepare_cached("COMMIT")?.execute([])?;
            finished.commits.fetch_add(1, Ordering::SeqCst);
            for (_, reply) in batch {
                reply.send(()).ok();
            }
            if !closed.is_empty() {
                finished.jobs.fetch_add(closed.len() as u64, Ordering::SeqCst);
                finished.changed.notify_waiters();
            }
        }
    }

    /// A job that works starts in the transaction that stores it, as one of the host does that finds a slot free.
    fn insert(&self, bare: &BareJob) -> Result<i64, StoreError> {
        let (job, now) = (&bare.job, ms(Timestamp::UNIX_EPOCH));
        let (state, started) = if self.work { ("running", Some(1)) } else { ("available", None) };
        self.conn
            .prepare_cached(
                "INSERT INTO jobs(job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, run_at, enqueued_at, \
                                  attempt, lease_token, started_at, worker_id) \
                 VALUES (?1,?2,?3,?4,'work',?5,?6,?7,?8,?8,?9,?9,?10,?10)",
            )?
            .execute(params![
                job.job_id.as_str(),
                bare.run_id,
                job.activity,
                job.activity_version,
                job.tenant,
                state,
                job.priority,
                now,
                started.unwrap_or(0),
                started
            ])?;
        let id = self.conn.last_insert_rowid();
        self.conn
            .prepare_cached("INSERT INTO job_inputs(id, input, options, traceparent) VALUES (?1,?2,?3,?4)")?
            .execute(params![id, bare.input, bare.options, job.trace.traceparent])?;
        Ok(id)
    }

    fn close(&self, id: i64, verdict: &str) -> Result<(), StoreError> {
        self.conn
            .prepare_cached(
                "UPDATE jobs SET state = 'completed', finished_at = 1, worker_id = NULL, expires_at = NULL WHERE id = ?1",
            )?
            .execute([id])?;
        self.conn
            .prepare_cached("INSERT INTO job_verdicts(id, status, code, verdict) VALUES (?1, 'passed', NULL, ?2)")?
            .execute(params![id, verdict])?;
        Ok(())
    }
}
