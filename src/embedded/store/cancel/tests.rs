use std::collections::BTreeMap;

use iolaus_activities::{
    Activity, ActivityContext, ActivityError, ActivityOptions, CancelPlan, Category, Failure, Registry, Stop, Verdict,
};
use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::json;

use super::*;
use crate::embedded::Durability;
use crate::embedded::store::enqueue::JobRows;
use crate::embedded::store::model::request;
use crate::embedded::store::workers::{WorkerBeat, WorkerRegistration};
use crate::embedded::store::{Claimed, Finished, claim, schema};
use crate::executor::{CancelPlans, Execution, Outcome};
use crate::job::{IdConflictPolicy, IdReusePolicy, JobId, NewJob, RunId, TraceContext};

const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Has an effect that a cancel undoes. It is never run here.
struct Undoing;

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

impl Activity for Undoing {
    const NAME: &'static str = "probe";
    type Input = Nothing;

    fn on_cancel(_: &str, _: &Nothing, _: &Value) -> CancelPlan {
        CancelPlan::Undo
    }

    async fn run(&self, _: &ActivityContext, _: Nothing) -> Result<Verdict, ActivityError> {
        Ok(Verdict::passed("it passed"))
    }
}

struct File {
    conn: Connection,
    _dir: tempfile::TempDir,
}

impl File {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let conn = schema::open_writer(&dir.path().join("t.db"), Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
        Self { conn, _dir: dir }
    }

    fn tx<T>(&self, f: impl FnOnce(&mut Tx<'_>) -> T) -> T {
        let mut tx = Tx::new(&self.conn, "2026-01-01T00:00:00Z".parse().unwrap(), 0.5);
        tx.plans = CancelPlans::of(&Registry::default().with(Undoing));
        f(&mut tx)
    }

    fn enqueue(&self) {
        let job = NewJob {
            job_id: JobId::from_caller("job").unwrap(),
            run_id: RunId::generate(Timestamp::UNIX_EPOCH),
            activity: "probe".into(),
            activity_version: 1,
            tenant: "one".into(),
            input: json!({}),
            options: ActivityOptions::default(),
            labels: BTreeMap::new(),
            priority: 3,
            delay: None,
            id_conflict_policy: IdConflictPolicy::Fail,
            id_reuse_policy: IdReusePolicy::Allow,
            trace: TraceContext::generate(),
        };
        self.tx(|tx| tx.enqueue(&JobRows::new(job)?)).unwrap();
    }

    /// A new worker takes the job.
    fn claim(&self) -> (i64, Claimed) {
        let registration = WorkerRegistration {
            name: "w".into(),
            activities: vec!["probe"],
            tenants: crate::embedded::store::served::ServedTenants::default(),
            timeout: TIMEOUT,
            job_id: None,
        };
        let worker = self.tx(|tx| tx.register_worker(&registration)).unwrap();
        let (mut claimed, _) = self.tx(|tx| claim::claim(tx, &request(worker, 1), &mut claim::Turns::default())).unwrap();
        (worker, claimed.pop().expect("the job"))
    }

    fn save(&self, claimed: &Claimed) {
        assert!(self.tx(|tx| tx.save_checkpoint(claimed.id, claimed.token, &json!({"run": "r-1"}))).unwrap());
    }

    fn cancel(&self) -> Cancelled {
        self.tx(|tx| tx.cancel(&Target::newest(JobId::from_caller("job").unwrap()), Some("enough".into()))).unwrap().unwrap()
    }

    fn rescue(&self, worker: i64) {
        let seen = WorkerBeat { id: worker, name: "w".into(), beat: 0, timeout: TIMEOUT };
        assert_eq!(self.tx(|tx| tx.rescue(&seen)).unwrap(), (1, false));
    }

    /// Ends an attempt as its worker does, which learns of the cancel only by that.
    fn finish(&self, execution: &Execution, claimed: &Claimed, outcome: &Outcome) {
        let mut cancel = Cancel::NotRequested;
        loop {
            let decision = self.tx(|tx| executor::decide(execution, outcome.clone(), &cancel, tx.now, tx.jitter));
            match self.tx(|tx| tx.finish(claimed.id, claimed.token, &decision)).unwrap() {
                Finished::CancelRequested => cancel = self.tx(|tx| tx.cancel_of_attempt(claimed.id, claimed.token)).unwrap(),
                finished => return assert_eq!(finished, Finished::Done),
            }
        }
    }

    fn row(&self) -> (String, u32, u32) {
        let sql = "SELECT state, attempt, undo_attempts FROM jobs";
        self.conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    }

    fn verdict(&self) -> Value {
        let verdict: String = self.conn.query_row("SELECT verdict FROM job_verdicts", [], |row| row.get(0)).unwrap();
        serde_json::from_str(&verdict).unwrap()
    }
}

#[test]
fn a_job_that_kills_every_worker_that_undoes_it_is_closed_and_says_what_was_not_undone() {
    let file = File::new();
    file.enqueue();
    let (worker, claimed) = file.claim();
    file.save(&claimed);
    assert_eq!(file.cancel(), Cancelled::Requested);
    file.rescue(worker);
    for undo in 1..=MAX_UNDO_ATTEMPTS {
        assert_eq!(file.row(), ("available".into(), undo, undo));
        let (worker, claimed) = file.claim();
        assert_eq!(claimed.cancelled, Some(Stop::Cancelled { reason: Some("enough".into()) }));
        file.rescue(worker);
    }
    let verdict = file.verdict();
    assert_eq!((&verdict["status"], &verdict["facts"]["last_checkpoint"]), (&json!("cancelled"), &json!({"run": "r-1"})));
    assert!(verdict["message"].as_str().unwrap().contains("was not undone"), "{verdict}");
}

#[test]
fn an_attempt_that_ended_before_it_knew_of_the_cancel_is_followed_by_one_that_undoes() {
    let down = Failure::new("probe.down", Category::DependencyUnavailable, "it is down");
    let denied = Failure::new("probe.denied", Category::Permission, "it is denied");
    for (outcome, attempts) in
        [(Outcome::Drained, 0), (Outcome::Dropped, 1), (Outcome::Failed(down), 1), (Outcome::Failed(denied), 1)]
    {
        let file = File::new();
        file.enqueue();
        let (_, claimed) = file.claim();
        file.save(&claimed);
        assert_eq!(file.cancel(), Cancelled::Requested);
        file.finish(&claimed.execution.clone(), &claimed, &outcome);
        assert_eq!(file.row(), ("available".into(), attempts, 1), "{outcome:?}");
    }
}

#[test]
fn an_attempt_that_has_saved_nothing_has_nothing_to_undo() {
    let file = File::new();
    file.enqueue();
    let (_, claimed) = file.claim();
    assert_eq!(file.cancel(), Cancelled::Requested);
    file.finish(&claimed.execution.clone(), &claimed, &Outcome::Drained);
    assert_eq!((&file.verdict()["status"], &file.verdict()["message"]), (&json!("cancelled"), &json!("enough")));
}

#[test]
fn a_verdict_after_a_requested_cancel_completes_and_one_over_its_limit_closes_as_cancelled() {
    for (verdict, status) in [
        (Verdict::passed("it passed"), "passed"),
        (Verdict::passed("it passed").fact("rows", "x".repeat(crate::job::limits::VERDICT)), "cancelled"),
    ] {
        let file = File::new();
        file.enqueue();
        let (_, claimed) = file.claim();
        assert_eq!(file.cancel(), Cancelled::Requested);
        file.finish(&claimed.execution.clone(), &claimed, &Outcome::Verdict(verdict));
        assert_eq!(file.verdict()["status"], status);
    }
}

#[test]
fn an_end_that_is_sent_again_is_known_if_it_was_stored_and_is_a_lost_lease_if_a_rescue_came_first() {
    let down = Outcome::Failed(Failure::new("probe.down", Category::DependencyUnavailable, "it is down"));
    let denied = Outcome::Failed(Failure::new("probe.denied", Category::Permission, "it is denied"));
    for outcome in [Outcome::Verdict(Verdict::passed("it passed")), down, denied, Outcome::Drained] {
        for was_rescued in [false, true] {
            let file = File::new();
            file.enqueue();
            let (worker, claimed) = file.claim();
            let not_cancelled = Cancel::NotRequested;
            let decision = file.tx(|tx| executor::decide(&claimed.execution, outcome.clone(), &not_cancelled, tx.now, tx.jitter));
            let end = |again| file.tx(|tx| tx.finish_attempt(claimed.id, claimed.token, &decision, again)).unwrap();
            if was_rescued {
                file.rescue(worker);
                assert_eq!(end(true), Finished::LeaseLost, "{outcome:?}");
            } else {
                assert_eq!(end(true), Finished::Done, "the first was not stored: {outcome:?}");
                assert_eq!((end(false), end(true)), (Finished::LeaseLost, Finished::Done), "{outcome:?}");
            }
        }
    }
}
