//! What the store and the model say to each other.

use std::sync::Arc;

use iolaus_activities::{
    Activity, ActivityContext, ActivityError, ActivityOptions, CancelPlan, Category, Failure, Registry, RetryPolicy, SlotClass,
    Timeouts, Verdict,
};
use serde_json::{Map, Value, json};

use super::TENANTS;
use super::commands::{How, Wanted};
use super::life::{Life, seconds};
use crate::embedded::store::claim::{ClaimRequest, ClaimScope};
use crate::embedded::store::rows::ms;
use crate::embedded::store::workers::{WorkerBeat, WorkerRegistration};
use crate::embedded::store::{ServedTenants, Shares};
use crate::executor::{CancelPlans, Outcome};
use crate::job::{JobId, NewJob, RunId, TraceContext};

/// The checkpoint of an effect that a cancel undoes.
pub(super) const UNDO: u8 = 3;

/// The activity of every job. It is never run.
struct Probe;

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

impl Activity for Probe {
    const NAME: &'static str = "probe";
    type Input = Nothing;

    fn on_cancel(_: &str, _: &Nothing, checkpoint: &Value) -> CancelPlan {
        if *checkpoint == json!(UNDO) { CancelPlan::Undo } else { CancelPlan::default() }
    }

    async fn run(&self, _: &ActivityContext, _: Nothing) -> Result<Verdict, ActivityError> {
        Ok(Verdict::passed("it passed"))
    }
}

pub(super) fn plans() -> CancelPlans {
    CancelPlans::of(&Registry::default().with(Probe))
}

/// An execution as both can tell it.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) state: String,
    /// Attempts, drains, token.
    pub(super) numbers: (u32, u32, i64),
    pub(super) run_at: i64,
    pub(super) expires: Option<i64>,
    pub(super) cancel_requested: bool,
    pub(super) checkpoint: Option<String>,
    pub(super) verdict: Option<String>,
    pub(super) verdicts: i64,
}

pub(super) fn seen(life: &Life) -> Seen {
    Seen {
        state: life.state.as_str().to_owned(),
        numbers: (life.attempt, life.drains, life.token),
        run_at: ms(life.run_at),
        expires: life.expires.map(ms),
        cancel_requested: life.cancel_requested,
        checkpoint: life.checkpoint.map(|value| value.to_string()),
        verdict: life.verdict.map(str::to_owned),
        verdicts: i64::from(life.verdict.is_some()),
    }
}

pub(super) fn outcome(how: How) -> Outcome {
    match how {
        How::Passed => Outcome::Verdict(Verdict::passed("it passed")),
        How::Retryable => Outcome::Failed(Failure::new("probe.down", Category::DependencyUnavailable, "it is down")),
        How::Final => Outcome::Failed(Failure::new("probe.denied", Category::Permission, "it is denied")),
        How::Drained => Outcome::Drained,
        How::TenantHeld => Outcome::TenantHeld(Failure::new("tenant.unauthenticated", Category::Auth, "nobody knows us")),
        How::Cancelled => Outcome::Cancelled { message: None, facts: Map::new() },
    }
}

pub(super) fn job_id(job: u8) -> JobId {
    JobId::from_caller(format!("job-{job}")).expect("an id")
}

pub(super) fn new_job(wanted: &Wanted, run_id: RunId) -> NewJob {
    NewJob {
        job_id: job_id(wanted.job),
        run_id,
        activity: "probe".into(),
        activity_version: 1,
        tenant: TENANTS[wanted.tenant].into(),
        input: json!({}),
        options: ActivityOptions {
            slot_class: SlotClass::Work,
            retry: RetryPolicy { maximum_attempts: wanted.attempts.into(), ..RetryPolicy::default() },
            timeouts: Timeouts {
                schedule_to_close: wanted.whole.map(seconds),
                schedule_to_start: wanted.start.map(seconds),
                ..Timeouts::default()
            },
        },
        labels: std::collections::BTreeMap::new(),
        priority: wanted.priority,
        delay: (wanted.delay > 0).then(|| seconds(wanted.delay)),
        id_conflict_policy: wanted.conflict,
        id_reuse_policy: wanted.reuse,
        trace: TraceContext::generate(),
    }
}

/// One that is due at once.
pub(in crate::embedded::store) fn new_job_for_tests() -> NewJob {
    let (conflict, reuse) = Default::default();
    let wanted = Wanted { job: 0, delay: 0, whole: None, start: None, attempts: 0, priority: 3, tenant: 0, conflict, reuse };
    new_job(&wanted, RunId::generate(jiff::Timestamp::UNIX_EPOCH))
}

pub(in crate::embedded::store) fn registration(worker: usize) -> WorkerRegistration {
    WorkerRegistration {
        name: format!("w-{worker}"),
        activities: vec!["probe"],
        tenants: ServedTenants::All,
        timeout: std::time::Duration::from_secs(10),
        job_id: None,
    }
}

pub(super) fn worker_beat(worker: usize, id: i64, beat: i64) -> WorkerBeat {
    let WorkerRegistration { name, timeout, .. } = registration(worker);
    WorkerBeat { id, name, beat, timeout }
}

pub(in crate::embedded::store) fn request(worker_id: i64, free: usize) -> ClaimRequest {
    ClaimRequest {
        worker_id,
        scope: ClaimScope::Any,
        activities: [("probe", 1)].into(),
        tenants: Arc::default(),
        work: Shares::unlimited(free),
        waits: Shares::unlimited(0),
        throttles: Arc::default(),
    }
}
