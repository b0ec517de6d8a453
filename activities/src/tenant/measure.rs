//! How long exchanges took, under the semantic conventions' name `http.client.request.duration`, on whatever meter the program has set.

use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use reqwest::Method;

/// Seconds, as the conventions advise.
const BOUNDARIES: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The first exchange comes long after the program has set its meter.
static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    opentelemetry::global::meter("iolaus")
        .f64_histogram("http.client.request.duration")
        .with_unit("s")
        .with_description("How long requests to tenants took")
        .with_boundaries(BOUNDARIES.to_vec())
        .build()
});

/// What came of an exchange.
pub(super) struct Outcome {
    pub(super) status: Option<u16>,
    /// A status, or the code of a failure.
    pub(super) error: Option<String>,
}

/// Records one. `host` is that of a configured tenant, so that there are few.
pub(super) fn exchange(method: &Method, host: String, outcome: Outcome, took: Duration) {
    let mut of = vec![KeyValue::new("http.request.method", method.as_str().to_owned()), KeyValue::new("server.address", host)];
    of.extend(outcome.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
    of.extend(outcome.error.map(|error| KeyValue::new("error.type", error)));
    DURATION.record(took.as_secs_f64(), &of);
}
