//! The life of a job, written once as a state machine without a database, and driven by random commands side by side with the store.
//! After every command both must say the same of every execution.

mod commands;
mod life;
mod terms;

use std::path::Path;

use jiff::Timestamp;
use proptest::test_runner::{Config, TestRunner};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::enqueue::{Admission, JobRows, Retried};
use super::writer::Tx;
use super::{Finished, claim, schema};
use crate::client::{Cancelled, PauseKind, Target};
use crate::embedded::Durability;
use crate::executor::{self, Cancel, CancelPlans, Execution};
use crate::job::{IdConflictPolicy, IdReusePolicy, JobState, RunId, TraceContext};
use commands::{Command, How, Wanted, commands};
use life::Life;
use terms::{Seen, job_id, new_job, outcome, plans, seen, worker_beat};
pub(super) use terms::{new_job_for_tests, registration, request};

const CASES: u32 = 2_000;
const COMMANDS: usize = 60;
const JOBS: u8 = 4;
const WORKERS: usize = 3;
const TENANTS: [&str; 2] = ["one", "two"];
/// The spread of retry delays: the store is told it, and the model computes with it.
const JITTER: f64 = 0.5;
/// Workers in a row that may die while they run one job.
const MAX_DEATHS: u32 = 2;

/// A right that was handed out; it may be void by now.
struct Lease {
    life: usize,
    id: i64,
    token: i64,
    execution: Execution,
}

/// Store and model side by side.
struct Both {
    conn: Connection,
    now: Timestamp,
    lives: Vec<Life>,
    ids: Vec<(i64, RunId)>,
    leases: Vec<Lease>,
    /// The rows of the workers that are registered.
    workers: [Option<i64>; WORKERS],
    paused: [bool; TENANTS.len()],
    plans: CancelPlans,
}

impl Both {
    fn new(conn: Connection) -> Self {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let (lives, ids, leases, workers, paused) = Default::default();
        Self { conn, now, lives, ids, leases, workers, paused, plans: plans() }
    }

    fn tx<T>(&self, f: impl FnOnce(&mut Tx<'_>) -> T) -> T {
        self.conn.execute_batch("BEGIN").expect("it begins");
        let mut tx = Tx::new(&self.conn, self.now, JITTER);
        (tx.plans, tx.max_deaths) = (self.plans.clone(), MAX_DEATHS);
        let done = f(&mut tx);
        tx.counts.store(&self.conn).expect("they are stored");
        let counted = "SELECT activity, tenant, state, count FROM job_counts WHERE count <> 0";
        let there = "SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3";
        let differ = format!("SELECT EXISTS({counted} EXCEPT {there}) OR EXISTS({there} EXCEPT {counted})");
        assert_eq!(self.conn.query_row(&differ, [], |row| row.get(0)), Ok(false), "what is counted is what is there");
        self.conn.execute_batch("COMMIT").expect("it commits");
        done
    }

    fn newest(&self, job: u8) -> Option<usize> {
        self.lives.iter().rposition(|life| life.wanted.job == job)
    }

    fn apply(&mut self, command: &Command) {
        match command {
            Command::Enqueue(wanted) => self.enqueue(wanted),
            Command::Claim { worker, free } => self.claim(*worker, *free),
            Command::Save { lease, value } => self.save(*lease, *value),
            Command::Finish { lease, how } => self.finish(*lease, *how),
            Command::Cancel { job } => self.cancel(*job),
            Command::Retry { job } => self.retry(*job),
            Command::Beat { worker } => {
                if let Some(id) = self.workers[*worker] {
                    assert!(self.tx(|tx| tx.beat(id)).expect("it beats"), "a registered worker is known");
                }
            }
            Command::Rescue { worker, saw_the_newest } => self.rescue(*worker, *saw_the_newest),
            Command::Drain { worker } => self.drain(*worker),
            Command::Clock { seconds } => self.now += jiff::SignedDuration::from_secs((*seconds).into()),
            Command::Settle => self.settle(),
            Command::Pause { tenant } => {
                self.paused[*tenant] = true;
                self.tx(|tx| tx.pause(PauseKind::Tenant, TENANTS[*tenant], None)).expect("it pauses");
            }
            Command::Resume { tenant } => {
                let was = std::mem::take(&mut self.paused[*tenant]);
                assert_eq!(self.tx(|tx| tx.resume(PauseKind::Tenant, TENANTS[*tenant])).expect("it resumes"), was);
            }
            Command::Crash(wanted) => self.crash(wanted),
        }
    }

    fn enqueue(&mut self, wanted: &Wanted) {
        let run_id = RunId::generate(self.now);
        let got = self.tx(|tx| tx.enqueue(&JobRows::new(new_job(wanted, run_id))?)).expect("it is stored or refused");
        let newest = self.newest(wanted.job).map(|life| (life, self.lives[life].state));
        let refused = newest.is_some_and(|(_, state)| match (state.is_open(), wanted.reuse) {
            (true, _) => wanted.conflict == IdConflictPolicy::Fail,
            (false, IdReusePolicy::Allow) => false,
            (false, IdReusePolicy::AllowFailedOnly) => state == JobState::Completed,
            (false, IdReusePolicy::Reject) => true,
        });
        match newest {
            Some((life, state)) if refused => assert_eq!(got, Admission::Taken { run_id: self.ids[life].1, state }),
            Some((life, state)) if state.is_open() && self.lives[life].wanted.tenant != wanted.tenant => {
                let Admission::Other(other) = got else { panic!("it is open for another tenant: {got:?}") };
                let of = TENANTS[self.lives[life].wanted.tenant];
                assert_eq!((other.run_id, other.state, other.tenant.as_str()), (self.ids[life].1, state, of));
            }
            Some((life, state)) if state.is_open() => {
                assert_eq!(got, Admission::Existing { id: self.ids[life].0, run_id: self.ids[life].1, input_differs: false });
            }
            _ => {
                let Admission::Open { id, .. } = got else { panic!("it should be new: {got:?}") };
                self.ids.push((id, run_id));
                self.lives.push(Life::opened(wanted, self.now));
            }
        }
    }

    fn claim(&mut self, worker: usize, free: usize) {
        let id = *self.workers[worker].get_or_insert_with(|| {
            self.conn.execute_batch("BEGIN").expect("it begins");
            let mut tx = Tx::new(&self.conn, self.now, JITTER);
            let id = tx.register_worker(&registration(worker)).expect("it registers");
            self.conn.execute_batch("COMMIT").expect("it commits");
            id
        });
        let request = request(id, free);
        let (claimed, _) = self.tx(|tx| claim::claim(tx, &request, &mut claim::Turns::default())).expect("it claims");
        self.promoted();
        self.expired();
        let eligible = |life: &Life| life.state == JobState::Available && !self.paused[life.wanted.tenant];
        let ready = self.lives.iter().filter(|life| eligible(life)).count();
        assert_eq!(claimed.len(), free.min(ready), "as many as there are, and as there is room for");
        let mut least = 0;
        for job in claimed {
            let life = self.ids.iter().position(|(id, _)| *id == job.id).expect("it is known");
            assert!(eligible(&self.lives[life]), "{:?}", self.lives[life]);
            least = least.max(self.lives[life].wanted.priority);
            let taken = &mut self.lives[life];
            (taken.state, taken.worker, taken.expires) = (JobState::Running, Some(worker), None);
            (taken.attempt, taken.token) = (taken.attempt + 1, taken.token + 1);
            assert_eq!((job.token, job.execution.attempts), (taken.token, taken.attempt));
            assert_eq!(job.checkpoint, taken.checkpoint.map(|value| json!(value)));
            assert_eq!(job.cancelled.is_some(), taken.cancel_requested, "who only undoes starts cancelled");
            self.leases.push(Lease { life, id: job.id, token: job.token, execution: (*job.execution).clone() });
        }
        let passed_over = self.lives.iter().find(|life| {
            let left = life.state == JobState::Available && !self.paused[life.wanted.tenant];
            left && life.wanted.priority < least
        });
        assert!(passed_over.is_none(), "a more urgent job was passed over: {passed_over:?}");
    }

    /// The lease that a number means, and whether it is still the right to its attempt.
    fn lease(&self, number: usize) -> Option<(&Lease, bool)> {
        let lease = self.leases.get(number.checked_rem(self.leases.len())?)?;
        let life = &self.lives[lease.life];
        Some((lease, life.state == JobState::Running && life.token == lease.token))
    }

    fn save(&mut self, number: usize, value: u8) {
        let Some((lease, holds)) = self.lease(number) else { return };
        let (life, id, token) = (lease.life, lease.id, lease.token);
        assert_eq!(self.tx(|tx| tx.save_checkpoint(id, token, &json!(value))).expect("it answers"), holds);
        if holds {
            self.lives[life].checkpoint = Some(value);
        }
    }

    fn finish(&mut self, number: usize, how: How) {
        let Some((lease, holds)) = self.lease(number) else { return };
        let (life, id, token, execution) = (lease.life, lease.id, lease.token, lease.execution.clone());
        // A worker that has not heard of a cancel decides without it, and is told to decide again.
        let mut cancel = Cancel::NotRequested;
        let finished = loop {
            let decision = executor::decide(&execution, outcome(how), &cancel, self.now, JITTER);
            match self.tx(|tx| tx.finish(id, token, &decision)).expect("it answers") {
                Finished::CancelRequested if cancel == Cancel::NotRequested => {
                    cancel = self.tx(|tx| tx.cancel_of_attempt(id, token)).expect("it answers");
                }
                finished => break finished,
            }
        };
        assert_eq!(finished, if holds { Finished::Done } else { Finished::LeaseLost });
        if holds {
            let now = self.now;
            self.lives[life].ends(how, now);
        }
    }

    fn cancel(&mut self, job: u8) {
        let target = Target::newest(job_id(job));
        let got = self.tx(|tx| tx.cancel(&target, None)).expect("it answers");
        let (Some(life), now) = (self.newest(job), self.now) else { return assert_eq!(got, None) };
        let life = &mut self.lives[life];
        let expected = match life.state {
            JobState::Running => {
                life.cancel_requested = true;
                Cancelled::Requested
            }
            state if state.is_open() && life.cancel_requested => Cancelled::LastAttempt,
            state if state.is_open() && life.undoes() => {
                life.goes_to_undo(now);
                Cancelled::LastAttempt
            }
            state if state.is_open() => {
                life.close(JobState::Cancelled, "cancelled");
                Cancelled::Closed
            }
            _ => Cancelled::AlreadyClosed,
        };
        assert_eq!(got, Some(expected));
    }

    fn retry(&mut self, job: u8) {
        let (target, run_id) = (Target::newest(job_id(job)), RunId::generate(self.now));
        let got = self.tx(|tx| tx.retry(&target, run_id, TraceContext::generate(), false)).expect("it answers");
        match self.newest(job) {
            None => assert_eq!(got, Retried::NotFound),
            Some(life) if self.lives[life].state.is_open() => assert_eq!(got, Retried::StillOpen),
            Some(life) => {
                assert_eq!(got, Retried::Open(run_id));
                let id = self.conn.query_row("SELECT max(id) FROM jobs", [], |row| row.get(0)).expect("a row");
                self.ids.push((id, run_id));
                let again = Wanted { delay: 0, ..self.lives[life].wanted.clone() };
                self.lives.push(Life::opened(&again, self.now));
            }
        }
    }

    fn rescue(&mut self, worker: usize, saw_the_newest: bool) {
        let Some(id) = self.workers[worker] else { return };
        let select = "SELECT beat FROM workers WHERE id = ?1";
        let beat: i64 = self.conn.query_row(select, [id], |row| row.get(0)).expect("it is registered");
        let seen = worker_beat(worker, id, if saw_the_newest { beat } else { beat - 1 });
        let (rescued, more) = self.tx(|tx| tx.rescue(&seen)).expect("it answers");
        if !saw_the_newest {
            return assert_eq!((rescued, more), (0, false), "a beat that has changed means life");
        }
        let now = self.now;
        let held: Vec<_> = self.lives.iter_mut().filter(|life| life.worker == Some(worker)).collect();
        assert_eq!((rescued, more), (held.len(), false));
        for life in held {
            life.loses_its_worker(now);
        }
        self.workers[worker] = None;
    }

    /// A worker stops in order: it gives back what it has, and is gone.
    fn drain(&mut self, worker: usize) {
        let Some(id) = self.workers[worker] else { return };
        let held = |lease: &Lease| {
            let life = &self.lives[lease.life];
            life.worker == Some(worker) && life.token == lease.token && life.state == JobState::Running
        };
        let leases: Vec<_> = self.leases.iter().enumerate().filter(|(_, lease)| held(lease)).map(|(number, _)| number).collect();
        for number in leases {
            self.finish(number, How::Drained);
        }
        self.tx(|tx| tx.unregister_worker(id)).expect("it unregisters");
        assert!(!self.tx(|tx| tx.beat(id)).expect("it answers"), "who has stopped is not known any more");
        self.workers[worker] = None;
    }

    fn settle(&mut self) {
        self.tx(|tx| tx.promote().and_then(|_| tx.expire())).expect("it settles");
        self.promoted();
        self.expired();
    }

    fn promoted(&mut self) {
        for life in self.lives.iter_mut().filter(|life| matches!(life.state, JobState::Scheduled | JobState::Retryable)) {
            if life.run_at <= self.now {
                life.state = JobState::Available;
            }
        }
    }

    fn expired(&mut self) {
        for life in self.lives.iter_mut().filter(|life| life.expires.is_some_and(|expires| expires <= self.now)) {
            if life.cancel_requested {
                life.close(JobState::Cancelled, "cancelled");
            } else {
                life.close(JobState::Discarded, "unresolved");
            }
        }
    }

    /// What was not committed leaves no trace.
    fn crash(&mut self, wanted: &Wanted) {
        self.conn.execute_batch("BEGIN").expect("it begins");
        let mut tx = Tx::new(&self.conn, self.now, JITTER);
        let rows = JobRows::new(new_job(wanted, RunId::generate(self.now))).expect("it is a job");
        tx.promote().and_then(|_| tx.expire()).and_then(|_| tx.enqueue(&rows)).expect("it runs");
        for id in self.workers.into_iter().flatten() {
            claim::claim(&mut tx, &request(id, 1), &mut claim::Turns::default()).expect("it claims");
        }
        let path = self.conn.path().expect("it is a file").to_owned();
        self.conn = open(path.as_ref());
    }

    /// Both say the same of every execution, and of when there will be something to do.
    fn agree(&self) {
        for (life, (id, _)) in self.lives.iter().zip(&self.ids) {
            assert_eq!(self.stored(*id), Some(seen(life)), "{life:?}");
        }
        let due = |life: &Life| matches!(life.state, JobState::Scheduled | JobState::Retryable).then_some(life.run_at);
        let next = self.lives.iter().flat_map(|life| due(life).into_iter().chain(life.expires)).min();
        assert_eq!(claim::next_timer(&self.conn).expect("it reads"), next);
        let stray: i64 = self
            .conn
            .query_row("SELECT count(*) FROM jobs WHERE (state = 'running') <> (worker_id IS NOT NULL)", [], |row| row.get(0))
            .expect("it reads");
        assert_eq!(stray, 0, "who runs has a worker, and nobody else has");
    }

    fn stored(&self, id: i64) -> Option<Seen> {
        let select = "SELECT j.state, j.attempt, j.drains, j.lease_token, j.run_at, j.expires_at, j.cancel_requested_at IS NOT NULL, \
                      c.checkpoint, v.status, (SELECT count(*) FROM job_verdicts v WHERE v.id = j.id) \
                      FROM jobs j LEFT JOIN job_checkpoints c ON c.id = j.id LEFT JOIN job_verdicts v ON v.id = j.id WHERE j.id = ?1";
        let read = self.conn.prepare_cached(select).expect("it prepares").query_row(params![id], |row| {
            Ok(Seen {
                state: row.get(0)?,
                numbers: (row.get(1)?, row.get(2)?, row.get(3)?),
                run_at: row.get(4)?,
                expires: row.get(5)?,
                cancel_requested: row.get(6)?,
                checkpoint: row.get(7)?,
                verdict: row.get(8)?,
                verdicts: row.get(9)?,
            })
        });
        read.optional().expect("it reads")
    }
}

fn open(path: &Path) -> Connection {
    let conn = schema::open_writer(path, Durability::Full, Timestamp::UNIX_EPOCH).expect("it opens");
    conn.pragma_update(None, "synchronous", "OFF").expect("it is set");
    conn
}

#[test]
fn the_store_and_the_state_machine_agree_after_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.db");
    let kept = std::cell::RefCell::new(Some(open(&path)));
    let mut runner = TestRunner::new(Config { cases: CASES, max_shrink_iters: 2_000, ..Config::default() });
    let outcome = runner.run(&commands(), |commands| {
        // A case that failed took the connection with it.
        let conn = kept.take().unwrap_or_else(|| open(&path));
        for table in [
            "jobs",
            "job_inputs",
            "job_checkpoints",
            "job_verdicts",
            "job_failures",
            "workers",
            "pauses",
            "worker_holds",
            "silent_workers",
            "job_counts",
            "effects",
        ] {
            conn.execute_batch(&format!("DELETE FROM {table}")).unwrap();
        }
        let mut both = Both::new(conn);
        for command in &commands {
            both.apply(command);
            both.agree();
        }
        kept.replace(Some(both.conn));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
