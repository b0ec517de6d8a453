//! How long exchanges took, under the semantic conventions' name `http.client.request.duration`, on whatever meter the program has set.

use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use reqwest::Method;
use tracing::Span;

use super::send::Sent;

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
    /// None: no answer came.
    pub(super) status: Option<Status>,
    /// A status, or the code of a failure.
    pub(super) error: Option<String>,
}

/// A status as a label. A tenant that makes up statuses must not make up time series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    /// One that HTTP knows.
    Known(u16),
    /// Any other.
    Other,
}

/// The label of a status.
pub(super) fn known_status(status: u16) -> Status {
    let known =
        matches!(status, 200..=206 | 300..=304 | 307 | 308 | 400..=415 | 417 | 421..=426 | 428 | 429 | 431 | 451 | 500..=504);
    if known { Status::Known(status) } else { Status::Other }
}

/// What stands for a status that HTTP does not know.
pub(super) const OTHER: &str = "other";

/// Records one. `host` is that of a configured tenant, so that there are few.
pub(super) fn exchange(method: &Method, host: String, outcome: Outcome, took: Duration) {
    let mut of = vec![KeyValue::new("http.request.method", method.as_str().to_owned()), KeyValue::new("server.address", host)];
    of.extend(outcome.status.map(|status| match status {
        Status::Known(status) => KeyValue::new("http.response.status_code", i64::from(status)),
        Status::Other => KeyValue::new("http.response.status_code", OTHER),
    }));
    of.extend(outcome.error.map(|error| KeyValue::new("error.type", error)));
    DURATION.record(took.as_secs_f64(), &of);
}

/// What came of an exchange, which its span is told too.
pub(super) fn outcome(span: &Span, sent: &Sent) -> Outcome {
    let (status, error) = match sent {
        Sent::Answered(answer) => {
            let status = known_status(answer.status);
            let label = match status {
                Status::Known(status) => {
                    span.record("http.response.status_code", status);
                    status.to_string()
                }
                Status::Other => {
                    span.record("http.response.status_code", OTHER);
                    OTHER.to_owned()
                }
            };
            (Some(status), (answer.status >= 400).then_some(label))
        }
        Sent::NotDelivered(failure) | Sent::UnknownDelivery(failure) => (None, Some(failure.code.to_string())),
    };
    if let Some(error) = &error {
        span.record("error.type", error);
        span.record("otel.status_code", "ERROR");
    }
    Outcome { status, error }
}
