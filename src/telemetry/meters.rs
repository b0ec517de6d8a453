//! Who reads the metrics: Prometheus, whenever it asks, and OTLP where the standard variables name a collector.

use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

use super::series::SeriesLimits;

/// The provider and what Prometheus is answered from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Meters {
    provider: SdkMeterProvider,
    registry: Registry,
    limits: SeriesLimits,
}

impl Meters {
    /// For Prometheus alone.
    pub fn new() -> Self {
        Self::build(Resource::builder().with_service_name(super::names::SERVICE).build(), false)
    }

    pub(super) fn build(resource: Resource, otlp: bool) -> Self {
        let registry = Registry::new();
        let limits = SeriesLimits::default();
        let mut builder = SdkMeterProvider::builder().with_resource(resource).with_view(limits.view());
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false).build();
        match reader {
            Ok(reader) => builder = builder.with_reader(reader),
            Err(error) => super::warn_early(&format!("metrics cannot be read by Prometheus: {error}")),
        }
        if otlp {
            match opentelemetry_otlp::MetricExporter::builder().with_http().build() {
                Ok(exporter) => builder = builder.with_periodic_exporter(exporter),
                Err(error) => super::warn_early(&format!("metrics are not exported: {error}")),
            }
        }
        Self { provider: builder.build(), registry, limits }
    }

    /// Where instruments come from.
    pub fn provider(&self) -> &SdkMeterProvider {
        &self.provider
    }

    /// How many series instruments may have.
    pub(super) fn limits(&self) -> &SeriesLimits {
        &self.limits
    }

    /// Everything, in Prometheus' text format. It may read the queue: not for a thread that must not block.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    pub(super) fn shutdown(&self, deadline: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(deadline) {
            tracing::debug!(%error, "the last metrics were not sent");
        }
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}
