//! The embedded host under the suite.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iolaus::client::JobClient;
use iolaus::embedded::{Embedded, EmbeddedOptions, Worker, WorkerOptions};
use iolaus::executor::CancelPlans;
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Registry, SystemClock};

use crate::support::probe::Probe;

use super::{GRACE, HostUnderTest, WorkerUnderTest, judge};

struct File {
    embedded: Arc<Embedded>,
    _directory: tempfile::TempDir,
}

#[async_trait]
impl HostUnderTest for File {
    fn client(&self) -> Arc<dyn JobClient> {
        self.embedded.client()
    }

    async fn worker(&self, registry: Registry) -> Box<dyn WorkerUnderTest> {
        let options = WorkerOptions {
            registry,
            tenants: Tenants::none(),
            throttles: Arc::default(),
            slots_work: 32,
            slots_waits: 32,
            drain_deadline: Duration::from_millis(200),
            cancel_grace: GRACE,
            stall_after: Duration::from_secs(600),
        };
        Box::new(Running(Worker::start(&self.embedded, options).await.unwrap()))
    }

    fn is_cluster(&self) -> bool {
        false
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
async fn the_embedded_host_passes_every_case() {
    judge(|_| {
        let directory = tempfile::tempdir().unwrap();
        let cancel_plans = CancelPlans::of(&Registry::default().with(Probe::new()));
        let options = EmbeddedOptions { cancel_plans, ..EmbeddedOptions::at(directory.path().join("iolaus.db")) };
        let embedded = Embedded::open(options, Arc::new(SystemClock::new())).unwrap();
        Arc::new(File { embedded, _directory: directory })
    })
    .await;
}
