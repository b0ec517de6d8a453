//! A queue in a file of its own, and an activity that does nothing: what several benchmarks measure with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use iolaus::client::Target;
use iolaus::embedded::{Embedded, EmbeddedOptions, Worker, WorkerOptions};
use iolaus::intake::{Intake, JobRequest};
use iolaus::job::{NewJob, TraceContext};
use iolaus::telemetry::{Known, Meters, Metrics};
use iolaus_activities::tenant::{TenantSettings, Tenants};
use iolaus_activities::{Activity, ActivityContext, ActivityError, Clock, Registry, SystemClock, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;

/// Does nothing. Repeat story: nothing happens twice, either.
pub(crate) struct Noop;

#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct NoopInput {}

impl Activity for Noop {
    const NAME: &'static str = "noop";
    type Input = NoopInput;

    async fn run(&self, _: &ActivityContext, _: NoopInput) -> Result<Verdict, ActivityError> {
        Ok(Verdict::passed("nothing was done"))
    }
}

/// A queue with so many tenants, and a worker that serves them all.
pub(crate) struct Queue {
    pub(crate) host: Arc<Embedded>,
    pub(crate) worker: Worker,
    intake: Intake,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) meters: Meters,
}

impl Queue {
    pub(crate) async fn open(path: &Path, tenants: usize) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let settings = TenantSettings {
            base_url: "http://127.0.0.1:9".into(),
            api_key: Some("of-the-benchmark".into()),
            ..TenantSettings::default()
        };
        let names: Vec<String> = (0..tenants).map(tenant).collect();
        let all: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), settings.clone())).collect();
        let tenants = Tenants::new(all, clock.clone()).expect("they are accepted");
        let meters = Meters::new();
        let metrics = Metrics::new(&meters, Known::new([Noop::NAME], names.iter().map(String::as_str)));
        let host = Embedded::open(EmbeddedOptions { metrics, ..EmbeddedOptions::at(path) }, clock.clone()).expect("it opens");
        let registry = || Registry::default().with(Noop);
        let options = WorkerOptions {
            registry: registry(),
            tenants,
            throttles: Arc::default(),
            slots_work: 32,
            slots_waits: 10_000,
            drain_deadline: Duration::from_secs(600),
            cancel_grace: Duration::from_secs(10),
            stall_after: Duration::from_secs(600),
        };
        let worker = Worker::start(&host, options).await.expect("it starts");
        Self { host, worker, intake: Intake::new(&registry(), BTreeMap::default(), names), clock, meters }
    }

    /// A job of this tenant, due after `delay`.
    fn job(&self, of: usize, delay: Option<Duration>) -> NewJob {
        let (activity, tenant) = (Noop::NAME.into(), Some(tenant(of)));
        let request = JobRequest { activity, input: json!({}), tenant, delay, ..JobRequest::default() };
        self.intake.admit(request, TraceContext::generate(), self.clock.now()).expect("it is admitted")
    }

    /// Stores so many jobs of so many tenants in turn, and answers them. `producers` enqueues are under way at once.
    pub(crate) async fn enqueue(&self, jobs: usize, busy: usize, producers: usize, delay: Option<Duration>) -> Vec<Target> {
        let mut tasks = JoinSet::new();
        for producer in 0..producers {
            let jobs: Vec<_> = (producer..jobs).step_by(producers).map(|n| self.job(n % busy, delay)).collect();
            let client = self.host.client();
            tasks.spawn(async move {
                let mut stored = Vec::new();
                for job in jobs {
                    let enqueued = client.enqueue(job).await.expect("it is stored");
                    stored.push(Target::run(enqueued.job_id, enqueued.run_id));
                }
                stored
            });
        }
        tasks.join_all().await.concat()
    }

    /// Jobs a second, from the first enqueue to the last verdict.
    pub(crate) async fn jobs_a_second(&self, jobs: usize, busy: usize, producers: usize) -> f64 {
        let began = self.clock.monotonic();
        let stored = self.enqueue(jobs, busy, producers, None).await;
        self.until_closed(stored).await;
        jobs as f64 / self.clock.monotonic().saturating_sub(began).as_secs_f64()
    }

    pub(crate) async fn until_closed(&self, jobs: Vec<Target>) {
        let client = self.host.client();
        for job in jobs {
            client.wait(job).await.expect("a verdict");
        }
    }
}

pub(crate) fn tenant(n: usize) -> String {
    format!("tenant-{n:05}")
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
