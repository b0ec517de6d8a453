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
    pub(super) status: Option<&'static str>,
    /// A status, or the code of a failure.
    pub(super) error: Option<String>,
}

/// A status as a label: one that HTTP knows, or `other`. A tenant that makes up statuses must not make up time series.
pub(super) fn known_status(status: u16) -> &'static str {
    const KNOWN: [(u16, &str); 45] = [
        (200, "200"),
        (201, "201"),
        (202, "202"),
        (203, "203"),
        (204, "204"),
        (205, "205"),
        (206, "206"),
        (300, "300"),
        (301, "301"),
        (302, "302"),
        (303, "303"),
        (304, "304"),
        (307, "307"),
        (308, "308"),
        (400, "400"),
        (401, "401"),
        (402, "402"),
        (403, "403"),
        (404, "404"),
        (405, "405"),
        (406, "406"),
        (407, "407"),
        (408, "408"),
        (409, "409"),
        (410, "410"),
        (411, "411"),
        (412, "412"),
        (413, "413"),
        (414, "414"),
        (415, "415"),
        (418, "418"),
        (421, "421"),
        (422, "422"),
        (423, "423"),
        (424, "424"),
        (425, "425"),
        (426, "426"),
        (428, "428"),
        (429, "429"),
        (431, "431"),
        (500, "500"),
        (501, "501"),
        (502, "502"),
        (503, "503"),
        (504, "504"),
    ];
    KNOWN.iter().find(|(known, _)| *known == status).map_or("other", |(_, label)| label)
}

/// Records one. `host` is that of a configured tenant, so that there are few.
pub(super) fn exchange(method: &Method, host: String, outcome: Outcome, took: Duration) {
    let mut of = vec![KeyValue::new("http.request.method", method.as_str().to_owned()), KeyValue::new("server.address", host)];
    of.extend(outcome.status.map(|status| KeyValue::new("http.response.status_code", status)));
    of.extend(outcome.error.map(|error| KeyValue::new("error.type", error)));
    DURATION.record(took.as_secs_f64(), &of);
}
