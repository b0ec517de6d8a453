//! Runs. A run's phase is a pure function of the time: nothing ticks in the background.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::routing::MethodFilter;
use serde_json::{Value, json};

use super::answer::{Refusal, Reply};
use super::automation::EngineRun;
use super::grant::GrantRequest;
use super::identity::Principal;
use super::ledger::What;
use super::search::{Document, Search, WORKFLOWS};
use super::state::{Call, SharedTenant, Tenant, route};
use super::time;

/// So many runs are kept; the oldest goes first.
const MAX_RUNS: usize = 100_000;
/// 36^5: the suffixes that there are.
const SUFFIXES: u64 = 60_466_176;

/// Number of a run, in the order of submission.
pub(super) type RunId = u64;

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) phase: String,
    pub(super) message: Option<String>,
}

impl Ending {
    pub(super) fn succeeded() -> Self {
        Self { phase: "Succeeded".to_owned(), message: None }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { phase: "Failed".to_owned(), message: Some(message.into()) }
    }
}

/// One run of a workflow.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) workflow: String,
    /// Whether the Automation Engine runs it: its name is the engine's id, and no index of runs shows it.
    pub(super) engine: bool,
    pub(super) by: Arc<Principal>,
    pub(super) created_at: i64,
    pub(super) running_at: i64,
    pub(super) ends_at: i64,
    pub(super) end: Ending,
    pub(super) stopped_at: Option<i64>,
    pub(super) grant: Option<GrantRequest>,
}

impl Run {
    /// When the run ends or ended.
    pub(super) fn finished_at(&self) -> i64 {
        self.stopped_at.unwrap_or(self.ends_at)
    }

    /// Whether the run, at its end, does what its package is for.
    pub(super) fn applies_grant(&self) -> bool {
        self.grant.is_some() && self.stopped_at.is_none() && self.end.phase == "Succeeded"
    }

    fn phase(&self, at: i64) -> (&str, Option<&str>) {
        if at >= self.finished_at() {
            (self.end.phase.as_str(), self.end.message.as_deref())
        } else if at < self.running_at {
            ("Pending", None)
        } else {
            ("Running", None)
        }
    }

    /// The run as the Automation Engine records it at an instant, if that runs it; `None` before its creation.
    fn engine_run(&self, at: i64) -> Option<EngineRun> {
        let finished = (at >= self.finished_at()).then(|| self.finished_at());
        let started = (at >= self.running_at || finished.is_some()).then(|| self.running_at.min(self.finished_at()));
        let (phase, message) = self.phase(at);
        (self.engine && at >= self.created_at).then(|| EngineRun {
            id: self.name.clone(),
            slug: self.workflow.clone(),
            status: phase.to_owned(),
            created_at: self.created_at,
            started_at: started,
            completed_at: finished,
            message: message.map(str::to_owned),
        })
    }

    /// The run's document as it stands at an instant; `None` before its creation.
    pub(super) fn document(&self, at: i64) -> Option<Value> {
        if at < self.created_at {
            return None;
        }
        let finished = at >= self.finished_at();
        let (phase, message) = self.phase(at);
        let mut labels = json!({
            "workflows.argoproj.io/phase": phase,
            "workflows.argoproj.io/creator": self.by.user_id,
            "workflows.argoproj.io/creator-email": self.by.email.replace('@', ".at."),
            "workflows.argoproj.io/creator-preferred-username": self.by.username,
            "workflows.argoproj.io/workflow-template": self.workflow,
        });
        let started = at >= self.running_at || finished;
        let mut status = json!({
            "phase": phase,
            "startedAt": started.then(|| time::seconds(self.running_at.min(self.finished_at()))),
            "finishedAt": finished.then(|| time::seconds(self.finished_at())),
            "progress": if finished { "1/1" } else { "0/1" },
            "estimatedDuration": (self.ends_at - self.created_at) / 1_000,
            "conditions": [{ "type": "PodRunning", "status": if started && !finished { "True" } else { "False" } }],
            "storedWorkflowTemplateSpec": { "workflowTemplateRef": { "name": self.workflow } },
        });
        if finished {
            labels["workflows.argoproj.io/completed"] = json!("true");
            labels["workflows.argoproj.io/workflow-archiving-status"] = json!("Archived");
            status["resourcesDuration"] = json!({ "cpu": 3, "memory": 2 });
        }
        if let Some(message) = message {
            status["message"] = json!(message);
        }
        Some(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": { "name": self.name, "generateName": format!("{}-", self.workflow), "namespace": "default",
                "uid": format!("uid-{}", self.name), "resourceVersion": "1", "generation": 1,
                "creationTimestamp": time::seconds(self.created_at), "labels": labels,
                "annotations": { "workflows.argoproj.io/pod-name-format": "v1" } },
            "spec": { "workflowTemplateRef": { "name": self.workflow } },
            "status": status,
        }))
    }
}

/// All runs that are kept.
#[derive(Debug, Default)]
pub(super) struct Runs {
    all: BTreeMap<RunId, Run>,
    by_name: HashMap<String, RunId>,
    by_workflow: HashMap<String, BTreeSet<RunId>>,
    /// Runs that have not ended, by the time at which they will.
    open: BTreeSet<(i64, RunId)>,
    submitted: RunId,
}

impl Runs {
    /// Adds a run; it is open until its end has been settled.
    pub(super) fn add(&mut self, run: Run) -> RunId {
        self.submitted += 1;
        let id = self.submitted;
        self.by_name.insert(run.name.clone(), id);
        self.by_workflow.entry(run.workflow.clone()).or_default().insert(id);
        self.open.insert((run.ends_at, id));
        self.all.insert(id, run);
        while self.all.len() > MAX_RUNS {
            let Some(oldest) = self.all.first_key_value().map(|(id, _)| *id) else {
                break;
            };
            self.remove(oldest);
        }
        id
    }

    fn remove(&mut self, id: RunId) {
        let Some(run) = self.all.remove(&id) else {
            return;
        };
        self.by_name.remove(&run.name);
        self.open.remove(&(run.ends_at, id));
        if let Some(ids) = self.by_workflow.get_mut(&run.workflow) {
            ids.remove(&id);
        }
    }

    /// The runs created between two instants, the oldest submission first.
    pub(super) fn between(&self, from: i64, to: i64) -> impl Iterator<Item = &Run> {
        self.all.values().filter(move |run| (from..=to).contains(&run.created_at))
    }

    pub(super) fn get(&self, id: RunId) -> Option<&Run> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: RunId) -> Option<&mut Run> {
        self.all.get_mut(&id)
    }

    /// Takes the next run that has ended by `now` out of the open ones.
    pub(super) fn due(&mut self, now: i64) -> Option<RunId> {
        let first = self.open.first().copied().filter(|(ends_at, _)| *ends_at <= now)?;
        self.open.remove(&first);
        Some(first.1)
    }

    /// The newest open run of a workflow.
    pub(super) fn active(&self, workflow: &str) -> Option<&Run> {
        let ids = self.by_workflow.get(workflow)?;
        ids.iter()
            .rev()
            .filter_map(|id| Some((id, self.all.get(id)?)))
            .find(|(id, run)| self.open.contains(&(run.ends_at, **id)))
            .map(|(_, run)| run)
    }

    /// A name that no run submitted here has had: the workflow's, and five lower-case letters and digits.
    pub(super) fn next_name(&self, workflow: &str) -> String {
        // The factor shares no divisor with 36^5, so all suffixes come before one comes again.
        let mut number = (self.submitted + 1).wrapping_mul(23_456_789) % SUFFIXES;
        let mut suffix = String::with_capacity(5);
        for _ in 0..5 {
            let digit = u32::try_from(number % 36).expect("below 36");
            suffix.push(char::from_digit(digit, 36).expect("a digit of base 36"));
            number /= 36;
        }
        format!("{workflow}-{suffix}")
    }

    /// An id of the Automation Engine that no run submitted here has had.
    pub(super) fn next_engine_id(&self) -> String {
        // An odd factor: all numbers come before one comes again.
        format!("{:016x}", (self.submitted + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The engine's run of this id at an instant.
    pub(super) fn engine_run(&self, id: &str, at: i64) -> Option<EngineRun> {
        self.all.get(self.by_name.get(id)?)?.engine_run(at)
    }

    /// The engine's runs of a workflow, or all, at an instant, the newest submission first.
    pub(super) fn engine_runs(&self, workflow: Option<&str>, at: i64) -> Vec<EngineRun> {
        let of_workflow = |run: &&Run| workflow.is_none_or(|name| name == run.workflow);
        self.all.values().rev().filter(of_workflow).filter_map(|run| run.engine_run(at)).collect()
    }

    /// Ends an open run of the engine in this phase; whether there is such a run.
    pub(super) fn end(&mut self, id: &str, at: i64, phase: &str) -> bool {
        let Some((number, run)) = self.by_name.get(id).and_then(|number| Some((*number, self.all.get_mut(number)?))) else {
            return false;
        };
        let open = self.open.remove(&(run.ends_at, number));
        if open {
            run.stopped_at = Some(at);
            run.end = Ending { phase: phase.to_owned(), message: None };
        }
        open
    }

    /// The runs that a search can match, newest first.
    fn candidates(&self, search: &Search) -> Vec<&Run> {
        let by_id = search.required("_id").map(|names| {
            let ids: BTreeSet<RunId> = names.iter().filter_map(|name| self.by_name.get(name).copied()).collect();
            ids
        });
        let by_workflow = || {
            let names = search.required("spec.workflowTemplateRef.name")?;
            Some(names.iter().filter_map(|name| self.by_workflow.get(name)).flatten().copied().collect())
        };
        match by_id.or_else(by_workflow) {
            Some(ids) => ids.iter().rev().filter_map(|id| self.all.get(id)).collect(),
            None => self.all.values().rev().collect(),
        }
    }
}

/// `POST runs/indexsearch` and `POST runs/<run>/stop`.
pub(super) fn routes() -> Router<SharedTenant> {
    Router::new()
        .route("/runs/indexsearch", route(MethodFilter::POST, search))
        .route("/runs/{run}/stop", route(MethodFilter::POST, stop))
}

fn search(tenant: &mut Tenant, call: &Call, _: &str) -> Reply {
    let search = Search::parse(&call.body, &WORKFLOWS, call.now).map_err(|error| Refusal::new(400, error.to_string()))?;
    let at = tenant.index_time(call);
    let documents = tenant.runs.candidates(&search).into_iter().filter(|run| !run.engine).filter_map(|run| {
        let source = run.document(at)?;
        Some(Document { id: run.name.clone(), source })
    });
    Ok(search.page(documents).into_answer())
}

/// The answer still shows the run as it was; it is Failed from then on.
fn stop(tenant: &mut Tenant, call: &Call, name: &str) -> Reply {
    let unknown = || Refusal::new(404, format!("workflows.argoproj.io \"{name}\" not found"));
    let id = *tenant.runs.by_name.get(name).ok_or_else(unknown)?;
    let run = tenant.runs.all.get_mut(&id).filter(|run| !run.engine).ok_or_else(unknown)?;
    if !tenant.runs.open.remove(&(run.ends_at, id)) {
        return Err(Refusal::new(400, format!("cannot shutdown a completed workflow: {name}")));
    }
    let answer = run.document(call.now).ok_or_else(unknown)?;
    run.stopped_at = Some(call.now);
    run.end = Ending::failed("Stopped with strategy 'Stop'");
    let what = What::RunStopped { run: name.to_owned(), by: call.principal.username.clone() };
    tenant.ledger.record(call.now, what);
    Ok(answer)
}
