//! Logs on stderr, traces and metrics by OTLP when the standard `OTEL_*` variables ask for it, metrics for Prometheus. Telemetry is a lossy copy: the verdict in the
//! queue is the truth, and nothing here can fail a job.
//!
//! The SDK honours `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_*`, `OTEL_TRACES_SAMPLER*` and `OTEL_BSP_*`
//! itself. `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER=none` and `OTEL_METRICS_EXPORTER=none` are honoured here, because it does not know them. Spans get real ids in
//! any case: a verdict names its trace, and the tenant is sent a `traceparent`, whether or not anybody collects spans.

mod meters;
mod metrics;
pub mod names;
mod series;
mod trace;

use std::time::Duration;

use axum::http::Uri;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use serde::{Deserialize, Serialize};
use tracing::{Metadata, Subscriber};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, filter, fmt};

pub use meters::Meters;
pub use metrics::{AttemptEnd, Known, Metrics, OTHER};
pub use trace::{command_span, context_of, process_span, record_outcome, record_wait, send_span, verdict_event};

/// How long the last spans may take to leave when nobody says otherwise.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);
/// Log lines that may wait for whoever reads stderr. Those that find no room are lost: a reader that stands still stops no job.
const WAITING_LINES: usize = 1_024;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What may be said about telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// Which log lines are written, as `info` or `warn,iolaus=debug`. Checked by [`check_filter`].
    pub filter: String,
    /// How they look.
    pub format: LogFormat,
}

/// Flushes the last spans and metrics when it goes.
#[must_use = "dropping it at once ends telemetry"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
    meters: Meters,
    /// Writes the last log lines when it goes, in a second at most.
    _log: WorkerGuard,
}

impl Guard {
    /// The metrics of this process.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Sends what is left, in at most this long. Whether it arrived is unknown: the SDK answers Ok when the collector is away.
    pub fn shutdown(mut self, deadline: Duration) {
        self.flush(deadline);
    }

    fn flush(&mut self, deadline: Duration) {
        let Some(provider) = self.provider.take() else { return };
        // Side by side: a collector that hangs costs the deadline once.
        std::thread::scope(|scope| {
            scope.spawn(|| self.meters.shutdown(deadline));
            if let Err(error) = provider.shutdown_with_timeout(deadline) {
                tracing::debug!(%error, "the last spans were not flushed");
            }
        });
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flush(FLUSH_DEADLINE);
    }
}

/// Says what is wrong with a log filter.
pub fn check_filter(directives: &str) -> Result<(), String> {
    EnvFilter::builder().parse(directives).map_err(|error| format!("`{directives}` is no log filter: {error}"))?;
    match directives.split(',').map(str::trim).find(|directive| is_unknown_word(directive)) {
        Some(word) => Err(format!("`{word}` is no level (off, error, warn, info, debug, trace) and no target of this program")),
        None => Ok(()),
    }
}

/// A word alone is a level, or a target at its most verbose level; so a misspelt level would be the target of nothing.
fn is_unknown_word(directive: &str) -> bool {
    let is_word = !directive.is_empty() && !directive.contains(['=', '[', ':']);
    let is_level = directive.parse::<filter::LevelFilter>().is_ok();
    is_word && !is_level && directive.split('_').next() != Some(names::SERVICE)
}

/// Installs logs, traces and the W3C propagator for the whole process. Call it before there is a tokio runtime: the exporter's HTTP
/// client is a blocking one, so that the last spans leave after the runtime has gone.
pub fn init(settings: &TelemetrySettings, stderr_is_terminal: bool) -> Guard {
    let env = |name: &str| std::env::var(name).ok();
    let provider = provider(env);
    let meters = Meters::build(resource(&env), wants_export(&env, "METRICS") && unusable_endpoint(&env).is_none());
    opentelemetry::global::set_meter_provider(meters.provider().clone());
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let (stderr, log) = NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).finish(std::io::stderr());
    let logs = logs(settings, stderr, stderr_is_terminal);
    let subscriber = tracing_subscriber::registry().with(spans(provider.tracer(names::SERVICE))).with(logs);
    if subscriber.try_init().is_err() {
        tracing::debug!("telemetry was set up already");
    }
    Guard { provider: Some(provider), meters, _log: log }
}

/// Spans of this program go to OpenTelemetry. Events do not: they are logs, and span events are deprecated. Spans of libraries do not
/// either, or exporting would trace itself.
fn spans<S>(tracer: Tracer) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let ours = |metadata: &Metadata<'_>| metadata.is_span() && metadata.target().starts_with(names::SERVICE);
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_error_events_to_status(false)
        .with_filter(filter::filter_fn(ours).with_max_level_hint(tracing::Level::INFO))
}

fn logs<S>(settings: &TelemetrySettings, stderr: NonBlocking, stderr_is_terminal: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let as_text = match settings.format {
        LogFormat::Auto => stderr_is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if as_text {
        let ansi = stderr_is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        fmt::layer().with_writer(stderr).with_ansi(ansi).with_filter(filter).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(stderr).with_filter(filter).boxed()
    }
}

fn resource(env: &impl Fn(&str) -> Option<String>) -> Resource {
    let resource = Resource::builder();
    if env("OTEL_SERVICE_NAME").is_none() && !names_the_service(env("OTEL_RESOURCE_ATTRIBUTES").as_deref()) {
        return resource.with_service_name(names::SERVICE).build();
    }
    resource.build()
}

fn provider(env: impl Fn(&str) -> Option<String>) -> SdkTracerProvider {
    let builder = SdkTracerProvider::builder().with_resource(resource(&env));
    if !wants_export(&env, "TRACES") {
        return builder.build();
    }
    if let Some((variable, problem)) = unusable_endpoint(&env) {
        warn_early(&format!("nothing is exported: {variable} {problem}"));
        return builder.build();
    }
    match opentelemetry_otlp::SpanExporter::builder().with_http().build() {
        Ok(exporter) => builder.with_batch_exporter(exporter).build(),
        Err(error) => {
            warn_early(&format!("spans are not exported: {error}"));
            builder.build()
        }
    }
}

/// Logs are not installed yet, and a job is not refused because nobody may watch it.
fn warn_early(what: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "warning: {what}").ok();
}

/// Whether the variables ask for the export of a signal, `TRACES` or `METRICS`.
fn wants_export(env: &impl Fn(&str) -> Option<String>, signal: &str) -> bool {
    let says = |name: &str, word: &str| env(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word));
    let set = |name: &str| env(name).is_some_and(|value| !value.trim().is_empty());
    let endpoint = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
    endpoint && !says("OTEL_SDK_DISABLED", "true") && !says(&format!("OTEL_{signal}_EXPORTER"), "none")
}

/// The variable whose endpoint cannot be used, and why. The exporter quotes its endpoint wherever it fails, so that one with a password, or
/// with a key in the place of an address, is not given to it.
fn unusable_endpoint(env: &impl Fn(&str) -> Option<String>) -> Option<(&'static str, &'static str)> {
    const ENDPOINTS: [&str; 3] =
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"];
    let problem = |url: String| {
        let url = url.trim();
        if url.is_empty() {
            return None;
        }
        let address = url.parse::<Uri>().ok().filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
        if authority(url).contains('@') {
            return Some("holds a user or a password; send it in OTEL_EXPORTER_OTLP_HEADERS instead");
        }
        address.is_none().then_some("is not an http:// or https:// address")
    };
    ENDPOINTS.into_iter().find_map(|name| Some((name, env(name).and_then(problem)?)))
}

/// The part of an address before its path, also where the value is not a valid address.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn names_the_service(attributes: Option<&str>) -> bool {
    attributes.is_some_and(|list| list.split(',').any(|pair| pair.trim_start().starts_with("service.name=")))
}

#[cfg(test)]
mod tests;
