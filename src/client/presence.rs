//! Who works on a host, what is held back, and which jobs no worker takes.

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
        let mut without_worker: Vec<WithoutWorker> = Vec::new();
        for StateCount { activity, tenant, state, count } in counts.iter().filter(|count| count.state.is_open() && count.count > 0)
        {
            let Some(missing) = presence.missing(activity, tenant) else { continue };
            if *state == JobState::Running && presence.is_executing(activity, tenant) {
                continue;
            }
            match without_worker.iter_mut().find(|known| known.activity == *activity && known.tenant == *tenant) {
                Some(known) => known.jobs += count,
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

    /// Whether a live process that works one job alone may be working one of this activity and tenant.
    fn is_executing(&self, activity: &str, tenant: &str) -> bool {
        let executes = |worker: &WorkerStatus| worker.live && worker.job_id.is_some() && worker.serves(tenant);
        self.workers.iter().any(|worker| executes(worker) && worker.activities.iter().any(|name| name == activity))
    }

    /// What kind of worker is missing for a job of an activity and a tenant; `None` when a live worker takes it. No worker takes a
    /// sequence: they take its steps.
    pub fn missing(&self, activity: &str, tenant: &str) -> Option<Missing> {
        if activity == SEQUENCE {
            return None;
        }
        let runs = |worker: &&WorkerStatus| worker.activities.iter().any(|name| name == activity);
        if self.live().next().is_none() {
            Some(Missing::Worker)
        } else if !self.live().any(|worker| runs(&worker)) {
            Some(Missing::Activity)
        } else if !self.live().filter(runs).any(|worker| worker.serves(tenant)) {
            Some(Missing::Tenant)
        } else {
            None
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
