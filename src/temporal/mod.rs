//! The Temporal host: the same activities on a cluster. Jobs are Standalone Activities, sequences are workflows, the server keeps both.
//!
//! The SDK polls, hands out tasks and counts slots, and does nothing else for an attempt: heartbeats, checkpoints and the end of an
//! attempt are calls of our own by its task token, each awaited (`lease`). So a checkpoint is durable when `save` says so, an older one
//! never lands after a newer one, a reason to stop is the one that the server gave, and the end of an attempt that lost its lease is
//! refused by the server. The SDK answers for no activity: to it each of ours completes elsewhere.
//!
//! What this host does differently, or not at all, is [`CAPABILITIES`].

mod attempt;
mod capabilities;
mod client;
mod connect;
mod describe;
mod effects;
mod gauges;
mod generations;
mod history;
mod lease;
mod paused;
mod queries;
mod sequence;
mod sequences;
mod served;
mod shared;
mod start;
mod status;
mod wire;
mod worker;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use iolaus_activities::Clock;
use temporalio_client::Client;
use tokio::sync::OnceCell;

pub use capabilities::{CAPABILITIES, Capability};
pub use connect::{Connecting, Tls};
pub use shared::WorkerOptions;
pub use worker::{Readiness, Worker};

use crate::client::{ClientError, JobClient};
use crate::executor::CancelPlans;
use crate::telemetry::Metrics;

/// This host's name, as errors name it.
pub(crate) const HOST: &str = "temporal";

/// What helps when a cluster does not answer as it should.
const HINT: &str = "check temporal.address, temporal.namespace and how to log in, and that the cluster is up";

/// How to use a cluster.
#[derive(Debug, Clone)]
pub struct TemporalOptions {
    /// Where it is, and how to log in.
    pub connecting: Connecting,
    /// The task queue of slot class `work`; that of the other class has `-waits` behind it.
    pub task_queue: String,
    /// An attempt whose worker has not been heard of for this long is another worker's.
    pub heartbeat_timeout: Duration,
    /// A search attribute of type Keyword that carries the tenant's name, if the namespace has one.
    pub tenant_attribute: Option<String>,
    /// The activities of this build, for those who ask what a worker runs.
    pub activities: Vec<String>,
    /// Where what happens is counted.
    pub metrics: Metrics,
    /// What the activities say about cancelling their jobs.
    pub cancel_plans: CancelPlans,
}

impl TemporalOptions {
    /// The task queue of a slot class.
    pub(crate) fn queue(&self, class: iolaus_activities::SlotClass) -> String {
        match class {
            iolaus_activities::SlotClass::Work => self.task_queue.clone(),
            iolaus_activities::SlotClass::Waits => format!("{}-waits", self.task_queue),
        }
    }
}

/// A cluster, connected to when it is first needed.
pub struct Temporal {
    options: TemporalOptions,
    clock: Arc<dyn Clock>,
    connected: OnceCell<Client>,
    place: OnceLock<(String, String)>,
}

impl Temporal {
    /// Remembers where the cluster is.
    pub fn new(options: TemporalOptions, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { options, clock, connected: OnceCell::new(), place: OnceLock::new() })
    }

    /// The door to the jobs in it.
    pub fn client(self: &Arc<Self>) -> Arc<dyn JobClient> {
        Arc::new(client::TemporalClient::new(self.clone()))
    }

    /// The connection, made by whoever first needs it.
    async fn connected(&self) -> Result<Client, ClientError> {
        let client = self.connected.get_or_try_init(|| connect::connect(&self.options.connecting)).await;
        client.cloned().map_err(|error| self.unavailable(error, false))
    }

    /// As the cluster's own tools name it.
    fn of_tools(&self) -> paused::Place {
        let (address, namespace) = self.place.get_or_init(|| connect::place(&self.options.connecting)).clone();
        paused::Place { address, namespace }
    }

    /// As a person would name it.
    fn place(&self) -> String {
        let paused::Place { address, namespace } = self.of_tools();
        format!("task queue {} of namespace {namespace} at {address}", self.options.task_queue)
    }

    fn unavailable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>, unknown: bool) -> ClientError {
        ClientError::Unavailable { place: self.place(), unknown, hint: Some(HINT.into()), source: source.into() }
    }

    fn unsupported(what: impl Into<String>) -> ClientError {
        ClientError::Unsupported { what: what.into(), host: HOST }
    }
}
