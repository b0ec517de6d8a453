use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use iolaus_activities::{Status, VerdictRecord};
use jiff::Timestamp;
use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::*;
use crate::job::{JobId, RunId, TraceContext};

/// Runs something under the span layer and answers with the spans that ended.
fn traced(run: impl FnOnce()) -> Vec<SpanData> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let subscriber = tracing_subscriber::registry().with(spans(provider.tracer("test")));
    tracing::subscriber::with_default(subscriber, run);
    exporter.get_finished_spans().expect("the exporter works")
}

fn process(trace: &TraceContext) -> tracing::Span {
    let id = JobId::from_caller("nightly").expect("it is an id");
    process_span(trace, "workflow_rerun", "default", &id, RunId::generate(Timestamp::UNIX_EPOCH), 2)
}

fn attribute_of(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string())
}

#[test]
fn an_attempt_has_the_stored_context_as_its_parent_and_as_a_link() {
    let spans = traced(|| {
        let send = send_span("workflow_rerun", "default");
        let stored = context_of(&send);
        drop(send);
        let attempt = process(&stored);
        record_outcome(&attempt, "retry_scheduled", Some("503"));
    });
    let [send, attempt] = &spans[..] else { panic!("two spans, not {}", spans.len()) };
    assert_eq!((send.name.as_ref(), &send.span_kind), ("send workflow_rerun", &SpanKind::Producer));
    assert_eq!((attempt.name.as_ref(), &attempt.span_kind), ("process workflow_rerun", &SpanKind::Consumer));
    assert_eq!(attempt.parent_span_id, send.span_context.span_id());
    assert_eq!(attempt.span_context.trace_id(), send.span_context.trace_id());
    assert_eq!(attempt.links.links[0].span_context.span_id(), send.span_context.span_id());
    assert_eq!(attribute_of(attempt, "error.type").as_deref(), Some("503"));
    assert_eq!(attribute_of(attempt, "iolaus.outcome").as_deref(), Some("retry_scheduled"));
    assert_eq!(attribute_of(attempt, "iolaus.attempt").as_deref(), Some("2"));
    assert!(matches!(attempt.status, opentelemetry::trace::Status::Error { .. }));
}

#[test]
fn the_span_of_a_request_that_nothing_has_checked_yet_is_bounded() {
    let huge = "x".repeat(1 << 20);
    let spans = traced(|| drop(send_span(&huge, &huge)));
    assert!(spans[0].name.len() < 1024, "{}", spans[0].name.len());
    for pair in &spans[0].attributes {
        assert!(pair.value.to_string().len() < 1024, "{}", pair.key);
    }
}

#[test]
fn a_send_is_a_child_of_the_command_around_it() {
    let spans = traced(|| command_span("enqueue").in_scope(|| drop(send_span("publish_preflight", "default"))));
    assert_eq!(spans[0].parent_span_id, spans[1].span_context.span_id());
    assert_eq!(spans[1].name, "iolaus enqueue");
}

#[test]
fn an_attempt_does_not_hang_below_whatever_span_the_worker_is_in() {
    let trace = TraceContext::generate();
    let spans = traced(|| command_span("worker").in_scope(|| drop(process(&trace))));
    assert_eq!(spans[0].span_context.trace_id().to_string(), trace.trace_id());
    assert_ne!(spans[1].span_context.trace_id().to_string(), trace.trace_id());
}

#[test]
fn a_stored_context_that_is_none_starts_a_trace_of_its_own() {
    let broken = TraceContext { traceparent: "rubbish".into(), tracestate: Some("also,rubbish".into()) };
    let spans = traced(|| drop(process(&broken)));
    assert!(spans[0].span_context.is_valid() && spans[0].links.links.is_empty());
}

#[test]
fn spans_of_libraries_and_events_do_not_reach_the_exporter() {
    let spans = traced(|| {
        drop(tracing::info_span!(target: "hyper::client", "connect"));
        tracing::info_span!("ours").in_scope(|| tracing::error!("an event"));
    });
    assert_eq!(spans.len(), 1);
    assert!(spans[0].events.events.is_empty());
}

#[test]
fn a_context_is_made_up_when_nothing_traces() {
    let context = context_of(&send_span("publish_preflight", "default"));
    assert_eq!(context.trace_id().len(), 32);
    assert_ne!(context.trace_id(), context_of(&tracing::Span::none()).trace_id());
}

#[test]
fn a_context_survives_the_way_through_a_job() {
    let stored = TraceContext {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        tracestate: Some("a=1".into()),
    };
    let mut seen = None;
    traced(|| seen = Some(context_of(&process(&stored))));
    let seen = seen.expect("it ran");
    assert_eq!(seen.trace_id(), stored.trace_id());
    assert_eq!(seen.tracestate, stored.tracestate);
    assert_ne!(seen.traceparent, stored.traceparent, "the span is the attempt's own");
}

#[test]
fn export_is_wanted_only_when_an_endpoint_is_set_and_nobody_says_no() {
    let rows: &[(&[(&str, &str)], bool)] = &[
        (&[], false),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], false),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")], true),
        (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/v1/traces")], true),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "TRUE")], false),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "false")], true),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_TRACES_EXPORTER", "none")], false),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_TRACES_EXPORTER", "otlp")], true),
    ];
    for (variables, expected) in rows {
        let env: HashMap<&str, &str> = variables.iter().copied().collect();
        assert_eq!(wants_export(&|name: &str| env.get(name).map(ToString::to_string), "TRACES"), *expected, "{variables:?}");
    }
}

#[test]
fn a_service_name_of_the_environment_wins() {
    assert!(names_the_service(Some("a=b, service.name=mine")));
    assert!(!names_the_service(Some("my.service.name=mine")) && !names_the_service(None));
}

#[test]
fn an_endpoint_with_a_password_or_that_is_no_address_is_named_by_its_variable_and_not_used() {
    let named = |name: &'static str, url: &str| {
        let url = url.to_owned();
        unusable_endpoint(&move |asked: &str| (asked == name).then(|| url.clone()))
    };
    for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] {
        for url in ["http://user:hush@c:4318", "https://hush@c/v1/traces", "user:hush@c:4318"] {
            assert!(matches!(named(name, url), Some((named, why)) if named == name && why.contains("password")), "{url}");
        }
        for url in ["https//u:hush@h:1", "http:/u:hush@h", "ey.hush.hush", "c:4318", "grpc://c:4317", "http://"] {
            assert!(matches!(named(name, url), Some((named, why)) if named == name && !why.contains("hush")), "{url}");
        }
        for url in ["http://c:4318", "https://c/a@b", "https://c?x=a@b", ""] {
            assert_eq!(named(name, url), None, "{url}");
        }
    }
}

#[test]
fn a_wrong_log_filter_is_refused_and_a_misspelt_level_with_the_levels_there_are() {
    for fine in ["warn,iolaus=debug", "info", "DEBUG", "off", "iolaus", "iolaus_activities", "hyper=info", "a::b", "[span]=info"] {
        assert_eq!(check_filter(fine), Ok(()), "{fine}");
    }
    assert!(check_filter("iolaus=loud").is_err());
    for misspelt in ["debugg", "warn,inof", "warning", "verbose"] {
        let refused = check_filter(misspelt).expect_err("it is refused");
        assert!(refused.contains("off, error, warn, info, debug, trace"), "{refused}");
    }
}

#[test]
fn the_event_of_a_closed_job_carries_the_whole_verdict_and_warns_when_unresolved() {
    for (status, level) in [(Status::Passed, "INFO"), (Status::Unresolved, "WARN")] {
        let verdict = verdict(status);
        let line: serde_json::Value =
            serde_json::from_str(&logged(|| verdict_event(&verdict, &serde_json::to_string(&verdict).unwrap())))
                .expect("one JSON line");
        assert_eq!(line["level"], level);
        assert_eq!(line["target"], names::VERDICT_TARGET);
        assert_eq!(line["iolaus.job.id"], "nightly");
        let inside = line["iolaus.verdict"].as_str().expect("a text");
        assert_eq!(serde_json::from_str::<VerdictRecord>(inside).expect("a verdict"), verdict);
    }
}

fn verdict(status: Status) -> VerdictRecord {
    VerdictRecord {
        job_id: "nightly".into(),
        run_id: "r".into(),
        activity: "workflow_rerun".into(),
        tenant: "default".into(),
        status,
        message: None,
        checks: Vec::new(),
        facts: serde_json::Map::new(),
        failure: None,
        attempts: 1,
        enqueued_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: Timestamp::UNIX_EPOCH,
        duration_ms: 0,
        trace_id: "t".into(),
    }
}

fn logged(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("one thread").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = fmt::layer().json().flatten_event(true).with_writer(move || writer.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), run);
    let bytes = lines.0.lock().expect("one thread").clone();
    String::from_utf8(bytes).expect("text")
}

/// Takes one HTTP exchange, or none, from a process that ends by itself.
fn what_a_process_exports(variables: &[(&str, &str)]) -> Option<String> {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = collector.local_addr().expect("an address");
    let received = std::thread::spawn(move || {
        let (mut stream, _) = collector.accept().expect("a connection");
        let mut bytes = Vec::new();
        let mut chunk = [0_u8; 4096];
        loop {
            let n = stream.read(&mut chunk).unwrap_or(0);
            bytes.extend_from_slice(&chunk[..n]);
            if n == 0 || is_complete(&bytes) {
                break;
            }
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .ok();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "telemetry::tests::child_that_traces", "--ignored", "--nocapture"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
        .env("NO_PROXY", "127.0.0.1")
        .envs(variables.iter().copied())
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:?}");
    // An empty exchange of our own ends the collector when nothing came.
    drop(std::net::TcpStream::connect(address));
    Some(received.join().expect("the collector")).filter(|text| !text.is_empty())
}

fn is_complete(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::trim).map(String::from));
    let length: usize = length.and_then(|n| n.parse().ok()).unwrap_or(0);
    bytes.len() >= head.len() + 4 + length
}

#[test]
#[ignore = "started by the tests below as a process of its own, for its environment"]
fn child_that_traces() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let guard = init(&TelemetrySettings { filter: "info".into(), format: LogFormat::Auto }, false);
    drop(send_span("publish_preflight", "default"));
    assert!(tracing::Span::current().context().span().span_context().trace_id() == opentelemetry::TraceId::INVALID);
    guard.shutdown(Duration::from_secs(5));
}

#[test]
fn a_collector_receives_spans_under_the_service_name_without_a_runtime() {
    let request = what_a_process_exports(&[]).expect("something was exported");
    assert!(request.starts_with("POST /v1/traces HTTP/1.1"), "{request}");
    assert!(request.contains("service.name") && request.contains("iolaus") && request.contains("send publish_preflight"));
}

#[test]
fn nothing_is_exported_when_the_sdk_is_disabled() {
    assert_eq!(what_a_process_exports(&[("OTEL_SDK_DISABLED", "true")]), None);
}

#[test]
fn a_service_name_set_outside_is_kept() {
    let request = what_a_process_exports(&[("OTEL_SERVICE_NAME", "nightly-extractions")]).expect("something was exported");
    assert!(request.contains("nightly-extractions"));
}
