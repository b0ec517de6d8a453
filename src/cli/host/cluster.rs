//! From the configuration to a cluster.

use std::sync::Arc;

use async_trait::async_trait;
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{named_file, shipped};
use secrecy::SecretString;

use crate::client::ClientError;
use crate::config::{Config, TemporalConfig};
use crate::executor::CancelPlans;
use crate::http;
use crate::telemetry::Metrics;
use crate::temporal::{Connecting, Readiness, TemporalOptions, Tls, WorkerOptions};

pub(super) fn options(config: &Config, metrics: Metrics) -> Result<TemporalOptions, ClientError> {
    let temporal = &config.temporal;
    let tls = temporal.tls.then(|| Tls {
        ca_file: temporal.tls_ca_file.clone(),
        server_name: temporal.tls_server_name.clone(),
        client: temporal.tls_cert_file.clone().zip(temporal.tls_key_file.clone()),
    });
    let connecting = Connecting {
        address: temporal.address.clone(),
        namespace: temporal.namespace.clone(),
        api_key: api_key(temporal)?,
        tls,
        connect_timeout: temporal.connect_timeout,
        environment: true,
    };
    let registry = shipped(&Tenants::none());
    Ok(TemporalOptions {
        connecting,
        task_queue: temporal.task_queue.clone(),
        heartbeat_timeout: temporal.heartbeat_timeout,
        tenant_attribute: Some(temporal.tenant_attribute.clone()).filter(|name| !name.is_empty()),
        activities: registry.infos().map(|info| info.name.to_owned()).collect(),
        metrics,
        cancel_plans: CancelPlans::of(&registry),
    })
}

fn api_key(temporal: &TemporalConfig) -> Result<Option<SecretString>, ClientError> {
    let Some(file) = &temporal.api_key_file else { return Ok(temporal.api_key.clone()) };
    match named_file::read_text(file, named_file::SMALL) {
        Ok(key) => Ok(Some(key.trim().to_owned().into())),
        Err(error) => Err(ClientError::Unavailable {
            // Its name is not shown: it may be the key itself, pasted at the wrong place.
            place: "the file that temporal.api_key_file names".to_owned(),
            unknown: false,
            hint: Some("name a readable file that holds the key".into()),
            source: error.into(),
        }),
    }
}

pub(super) fn worker_options(config: &Config, tenants: Arc<Tenants>) -> WorkerOptions {
    let (worker, temporal) = (&config.worker, &config.temporal);
    WorkerOptions {
        registry: shipped(&tenants),
        tenants,
        slots_work: worker.slots_work,
        slots_waits: worker.slots_waits,
        pollers: temporal.pollers,
        version: (!temporal.deployment.is_empty()).then(|| (temporal.deployment.clone(), temporal.build_id.clone())),
        drain_deadline: worker.drain_deadline,
        cancel_grace: worker.cancel_grace,
        stall_after: worker.stall_after,
    }
}

/// A worker, as the probes see it.
pub(super) struct OfWorker(pub(super) Readiness);

#[async_trait]
impl http::Readiness for OfWorker {
    async fn ready(&self) -> Result<(), String> {
        self.0.ready().await
    }
}
