//! What every host does alike: one list of cases, each on a queue of its own under real time. A case starts the workers that it needs
//! and waits for verdicts; none sleeps. `IOLAUS_CASE` picks cases by a part of their name.

mod cases;
#[cfg(feature = "temporal")]
pub(crate) mod cluster;
mod embedded;
mod more;
mod sequences;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iolaus::client::{ClientError, Enqueued, JobClient, JobDetail, Target};
use iolaus::intake::{Intake, JobRequest, OptionOverrides};
use iolaus::job::{JobId, NewJob, TraceContext};
use iolaus::sequence::{self, SequenceRequest};
use iolaus_activities::{Clock, Registry, SystemClock, VerdictRecord};
use tokio::sync::Semaphore;

use crate::support::host::probe_job;
use crate::support::probe::{Act, Probe};
use crate::support::watchdog::Watched;

/// No verdict takes longer on a machine that is busy with everything else.
const PATIENCE: Duration = Duration::from_secs(240);
/// Cases that run at the same time: their timeouts are seconds, and one server answers them all.
const AT_ONCE: usize = 12;
/// A stop that is ignored.
const GRACE: Duration = Duration::from_secs(1);

/// A host that is judged.
#[async_trait]
pub(crate) trait HostUnderTest: Send + Sync {
    /// Its door.
    fn client(&self) -> Arc<dyn JobClient>;
    /// A worker of its own.
    async fn worker(&self, registry: Registry) -> Box<dyn WorkerUnderTest>;
    /// Whether it is a cluster, for the few cases where the capability table says that hosts differ.
    fn is_cluster(&self) -> bool;
}

/// A worker that is judged.
#[async_trait]
pub(crate) trait WorkerUnderTest: Send + Sync {
    /// Stops it in order.
    async fn drain(self: Box<Self>);
}

/// One case: a host, an activity that does as it is told, and names of its own.
pub(crate) struct Case {
    pub(crate) host: Arc<dyn HostUnderTest>,
    pub(crate) probe: Probe,
    pub(crate) clock: SystemClock,
    name: String,
    _watched: Watched,
}

type Run = fn(Arc<Case>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs every case, a few at once and each on a host of its own, and names those that fail.
pub(crate) async fn judge(host: impl Fn(&str) -> Arc<dyn HostUnderTest>) {
    let all: Vec<(&str, Run)> = cases::CASES.iter().chain(more::CASES).chain(sequences::CASES).copied().collect();
    let wanted = std::env::var("IOLAUS_CASE").unwrap_or_default();
    // A case that waits for a place is not measured by its own times yet.
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let running: Vec<_> = all
        .into_iter()
        .filter(|(name, _)| name.contains(&wanted))
        .map(|(name, run)| {
            let own = own_name();
            let (host, places) = (host(&own), places.clone());
            let case = async move {
                let _place = places.acquire_owned().await.unwrap();
                run(Arc::new(Case::on(host, &own))).await;
            };
            (name, tokio::spawn(case))
        })
        .collect();
    let mut failed = Vec::new();
    for (name, case) in running {
        if let Err(error) = case.await {
            failed.push(format!("{name}: {error}"));
        }
    }
    assert!(failed.is_empty(), "cases that this host does not pass:\n{}", failed.join("\n"));
}

impl Case {
    /// A case of a test's own.
    pub(crate) fn on(host: Arc<dyn HostUnderTest>, name: &str) -> Self {
        Self { host, probe: Probe::new(), clock: SystemClock::new(), name: name.to_owned(), _watched: Watched::new() }
    }

    pub(crate) fn id(&self, id: &str) -> String {
        format!("{id}-{}", self.name)
    }

    pub(crate) fn target(&self, id: &str) -> Target {
        Target::newest(self.id(id).parse::<JobId>().unwrap())
    }

    pub(crate) fn registry(&self) -> Registry {
        Registry::default().with(self.probe.clone())
    }

    pub(crate) async fn worker(&self) -> Box<dyn WorkerUnderTest> {
        self.host.worker(self.registry()).await
    }

    /// A job of the probe that is tried again soon.
    pub(crate) fn job(&self, id: &str, acts: impl IntoIterator<Item = Act>) -> JobRequest {
        let quick = OptionOverrides { initial_interval: Some(Duration::from_millis(100)), ..OptionOverrides::default() };
        JobRequest { options: quick, ..probe_job(&self.id(id), acts) }
    }

    fn intake(&self) -> Intake {
        Intake::new(&self.registry(), BTreeMap::default(), vec!["default".into(), "other".into()])
    }

    pub(crate) fn admit(&self, request: JobRequest) -> NewJob {
        self.intake().admit(request, TraceContext::generate(), self.clock.now()).unwrap()
    }

    pub(crate) async fn enqueue(&self, request: JobRequest) -> Result<Enqueued, ClientError> {
        self.host.client().enqueue(self.admit(request)).await
    }

    pub(crate) async fn enqueue_acts(&self, id: &str, acts: impl IntoIterator<Item = Act>) -> Enqueued {
        self.enqueue(self.job(id, acts)).await.unwrap()
    }

    pub(crate) async fn enqueue_sequence(&self, request: SequenceRequest) -> Enqueued {
        let job = sequence::admit(&self.intake(), request, TraceContext::generate(), self.clock.now()).unwrap();
        self.host.client().enqueue(job).await.unwrap()
    }

    pub(crate) async fn verdict(&self, id: &str) -> VerdictRecord {
        self.within(self.host.client().wait(self.target(id))).await.unwrap()
    }

    pub(crate) async fn detail(&self, id: &str) -> JobDetail {
        self.host.client().get(self.target(id)).await.unwrap()
    }

    /// Until the probe has started an attempt of this job.
    pub(crate) async fn until_started(&self, id: &str) {
        self.until_seen(&self.id(id)).await;
    }

    /// The same for a step of a sequence, counted from 1.
    pub(crate) async fn until_step_started(&self, id: &str, step: usize) {
        self.until_seen(&format!("{}/{step}", self.id(id))).await;
    }

    async fn until_seen(&self, job_id: &str) {
        self.within(async {
            while self.probe.attempts(job_id).is_empty() {
                self.probe.started.notified().await;
            }
        })
        .await;
    }

    pub(crate) async fn within<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            output = future => output,
            () = self.clock.deadline(PATIENCE) => panic!("nothing happened for {PATIENCE:?}"),
        }
    }
}

/// A name that no other case has.
pub(crate) fn own_name() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..8].to_owned()
}

pub(crate) fn code(verdict: &VerdictRecord) -> &str {
    verdict.failure.as_ref().map_or("", |failure| failure.code.as_str())
}
