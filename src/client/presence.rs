//! Who works on a host, what is held back, and which jobs no worker takes.

use std::collections::{HashMap, HashSet};

use iolaus_activities::timestamp;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::{JobState, SEQUENCE};

/// The host as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostStatus {
    /// Who works on it, and what is held back.
    #[serde(flatten)]
    pub presence: Presence,
    /// How many executions stand where.
    pub counts: Vec<StateCount>,
    /// When the oldest due job became due.
    #[serde(with = "timestamp::optional")]
    pub oldest_due: Option<Timestamp>,
    /// Open jobs that no live worker takes.
    pub without_worker: Vec<WithoutWorker>,
}

impl HostStatus {
    /// Finds the jobs that no live worker takes among those that were counted.
    pub fn new(presence: Presence, counts: Vec<StateCount>, oldest_due: Option<Timestamp>) -> Self {
        // Both may have thousands of tenants: neither is searched through for each of the other.
        let (takers, executors) = (Takers::of(presence.live()), Takers::of(presence.executors()));
        let mut without_worker: Vec<WithoutWorker> = Vec::new();
        let mut known: HashMap<(&str, &str), usize> = HashMap::new();
        for StateCount { activity, tenant, state, count } in counts.iter().filter(|count| count.state.is_open() && count.count > 0)
        {
            let Some(missing) = takers.missing(activity, tenant) else { continue };
            if *state == JobState::Running && executors.missing(activity, tenant).is_none() {
                continue;
            }
            let at = *known.entry((activity, tenant)).or_insert(without_worker.len());
            match without_worker.get_mut(at) {
                Some(known) => known.jobs = known.jobs.saturating_add(*count),
                None => {
                    without_worker.push(WithoutWorker {
                        activity: activity.clone(),
                        tenant: tenant.clone(),
                        jobs: *count,
                        missing,
                    });
                }
            }
        }
        Self { presence, counts, oldest_due, without_worker }
    }
}

/// Open jobs of an activity and a tenant that no live worker takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WithoutWorker {
    /// The activity's name.
    pub activity: String,
    /// The tenant's name.
    pub tenant: String,
    /// How many jobs.
    pub jobs: u64,
    /// What kind of worker is missing.
    pub missing: Missing,
}

/// What kind of worker is missing for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// Any live worker at all.
    Worker,
    /// One that runs the activity.
    Activity,
    /// One that has an address and credentials for the tenant.
    Tenant,
}

/// Who works on a host, and what is held back. Costs the same however many jobs there are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Presence {
    /// Where jobs are kept, as a person would name it.
    pub place: String,
    /// The host's time when this was read: what the times of its jobs are compared with.
    #[serde(skip)]
    pub now: Timestamp,
    /// The workers that are registered.
    pub workers: Vec<WorkerStatus>,
    /// What is paused.
    pub pauses: Vec<Pause>,
    /// What workers do not ask of tenants for now.
    pub holds: Vec<TenantHold>,
}

impl Presence {
    /// The live workers that take whatever they can run. A process that works one job alone is no worker for others.
    pub fn live(&self) -> impl Iterator<Item = &WorkerStatus> {
        self.workers.iter().filter(|worker| worker.live && worker.job_id.is_none())
    }

    /// Whether a live process works this job, or the sequence that it is a step of, alone.
    pub fn is_executed(&self, job_id: &str) -> bool {
        let is_it = |own: &str| job_id.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.workers.iter().any(|worker| worker.live && worker.job_id.as_deref().is_some_and(is_it))
    }

    /// The live processes that work one job alone.
    fn executors(&self) -> impl Iterator<Item = &WorkerStatus> {
        self.workers.iter().filter(|worker| worker.live && worker.job_id.is_some())
    }

    /// What kind of worker is missing for a job of an activity and a tenant; `None` when a live worker takes it. No worker takes a
    /// sequence: they take its steps.
    pub fn missing(&self, activity: &str, tenant: &str) -> Option<Missing> {
        Takers::of(self.live()).missing(activity, tenant)
    }
}

/// Which jobs some workers take, by activity and tenant.
struct Takers<'a> {
    any: bool,
    /// By activity, the tenants that are served. `None`: whatever a job names.
    tenants: HashMap<&'a str, Option<HashSet<&'a str>>>,
}

impl<'a> Takers<'a> {
    fn of(workers: impl Iterator<Item = &'a WorkerStatus>) -> Self {
        let mut takers = Self { any: false, tenants: HashMap::new() };
        for worker in workers {
            takers.any = true;
            for activity in &worker.activities {
                let served = takers.tenants.entry(activity).or_insert_with(|| Some(HashSet::new()));
                match (&worker.tenants, served.as_mut()) {
                    (Some(tenants), Some(served)) => served.extend(tenants.iter().map(String::as_str)),
                    (None, _) => *served = None,
                    (Some(_), None) => {}
                }
            }
        }
        takers
    }

    fn missing(&self, activity: &str, tenant: &str) -> Option<Missing> {
        if activity == SEQUENCE {
            return None;
        }
        if !self.any {
            return Some(Missing::Worker);
        }
        match self.tenants.get(activity) {
            None => Some(Missing::Activity),
            Some(Some(served)) if !served.contains(tenant) => Some(Missing::Tenant),
            Some(_) => None,
        }
    }
}

/// A tenant of which a worker asks nothing for now, because it does not accept our credentials, asked to be left alone, or failed at
/// everything lately. The worker takes none of its jobs until that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantHold {
    /// The tenant's name.
    pub tenant: String,
    /// The worker's name.
    pub worker: String,
    /// Why.
    pub reason: String,
    /// Since when.
    #[serde(with = "timestamp")]
    pub since: Timestamp,
    /// When it ends by itself; None: when a probe of the tenant is answered.
    #[serde(with = "timestamp::optional")]
    pub until: Option<Timestamp>,
}

/// How many executions of an activity and tenant are in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct StateCount {
    pub activity: String,
    pub tenant: String,
    pub state: JobState,
    pub count: u64,
}

/// A worker that is registered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerStatus {
    /// `host-pid-number`.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The activities that it runs.
    pub activities: Vec<String>,
    /// The tenants that it serves: those that it has an address and credentials for. `None`: whatever a job names, or not known.
    pub tenants: Option<Vec<String>>,
    /// When it started.
    #[serde(with = "timestamp")]
    pub started_at: Timestamp,
    /// When it last renewed its row, by its own clock. For people; nothing is decided by it.
    #[serde(with = "timestamp")]
    pub last_beat: Timestamp,
    /// Executions that it holds.
    pub running: u64,
    /// Whether it has renewed its row lately.
    pub live: bool,
    /// The one job that it works, as `iolaus execute` does. `None`: whatever it can run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
}

impl WorkerStatus {
    /// Whether it takes jobs of a tenant, as far as that is known.
    pub fn serves(&self, tenant: &str) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.iter().any(|name| name == tenant))
    }
}

/// What can be paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PauseKind {
    /// Every job of an activity.
    Activity,
    /// Every job of a tenant.
    Tenant,
}

impl PauseKind {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::Tenant => "tenant",
        }
    }
}

/// A stored pause: workers claim no job of it until it is resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// What kind of thing.
    pub kind: PauseKind,
    /// Its name.
    pub name: String,
    /// Why, if somebody said so.
    pub reason: Option<String>,
    /// Since when.
    #[serde(with = "timestamp")]
    pub paused_at: Timestamp,
}
