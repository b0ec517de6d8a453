//! The Temporal host under the suite, against a real server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iolaus::client::JobClient;
use iolaus::executor::CancelPlans;
use iolaus::telemetry::Metrics;
use iolaus::temporal::{Connecting, Temporal, TemporalOptions, Worker, WorkerOptions};
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Registry, SystemClock};

use super::{GRACE, HostUnderTest, WorkerUnderTest, judge};
use crate::support::cluster::{Cluster, TENANT_ATTRIBUTE};
use crate::support::probe::Probe;

/// Short, so that a cancel arrives soon and a dead worker is noticed soon.
const HEARTBEAT: Duration = Duration::from_secs(10);

pub(crate) struct Queue {
    temporal: Arc<Temporal>,
}

impl Queue {
    /// A task queue of this name.
    pub(crate) fn new(address: &str, name: &str) -> Self {
        Self::with(address, name, Some(TENANT_ATTRIBUTE.to_owned()))
    }

    /// The same where no search attribute carries the tenant's name.
    pub(crate) fn without_attribute(address: &str, name: &str) -> Self {
        Self::with(address, name, None)
    }

    fn with(address: &str, name: &str, tenant_attribute: Option<String>) -> Self {
        let options = TemporalOptions {
            connecting: Connecting {
                address: address.to_owned(),
                namespace: "default".to_owned(),
                api_key: None,
                tls: None,
                connect_timeout: Duration::from_secs(10),
                environment: false,
            },
            task_queue: format!("iolaus-{name}"),
            heartbeat_timeout: HEARTBEAT,
            tenant_attribute,
            activities: vec!["probe".to_owned()],
            metrics: Metrics::default(),
            cancel_plans: CancelPlans::of(&Registry::default().with(Probe::new())),
        };
        Self { temporal: Temporal::new(options, Arc::new(SystemClock::new())) }
    }
}

#[async_trait]
impl HostUnderTest for Queue {
    fn client(&self) -> Arc<dyn JobClient> {
        self.temporal.client()
    }

    async fn worker(&self, registry: Registry) -> Box<dyn WorkerUnderTest> {
        let options = WorkerOptions {
            registry,
            tenants: Tenants::none(),
            slots_work: 32,
            slots_waits: 32,
            pollers: 2,
            version: None,
            drain_deadline: Duration::from_millis(200),
            cancel_grace: GRACE,
            stall_after: Duration::from_secs(600),
        };
        Box::new(Running(Worker::start(&self.temporal, options).await.unwrap()))
    }

    fn is_cluster(&self) -> bool {
        true
    }
}

struct Running(Worker);

#[async_trait]
impl WorkerUnderTest for Running {
    async fn drain(self: Box<Self>) {
        self.0.drain().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_temporal_host_passes_every_case() {
    let Some(cluster) = Cluster::shared() else { return };
    judge(|name| Arc::new(Queue::new(cluster.address(), name))).await;
}
