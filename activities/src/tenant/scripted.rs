//! A small HTTP server for unit tests: answers from a script or a closure, records every request, and complains when it is dropped
//! with an unused answer or after an unexpected request.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing_subscriber::layer::SubscriberExt;

use super::{Tenant, TenantSettings, Tenants};
use crate::clock::{Clock, ManualClock};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    manner: Manner,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Whole,
    /// Close without an answer.
    Cut,
    /// Close in the middle of the body.
    CutBody,
    /// Never answer.
    Hang,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string())
    }

    pub(crate) fn ok(body: &Value) -> Self {
        Self::json(200, body)
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned(), manner: Manner::Whole }
    }

    pub(crate) fn cut() -> Self {
        Self { manner: Manner::Cut, ..Self::text(200, "") }
    }

    pub(crate) fn cut_body() -> Self {
        Self { manner: Manner::CutBody, ..Self::text(200, "{\"half\":") }
    }

    pub(crate) fn hang() -> Self {
        Self { manner: Manner::Hang, ..Self::text(200, "") }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Handler = Box<dyn FnMut(&Recorded) -> Option<Reply> + Send>;

/// The server.
pub(crate) struct Scripted {
    base: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    handler: Mutex<Handler>,
    script: Mutex<VecDeque<Reply>>,
    requests: Mutex<Vec<Recorded>>,
    unexpected: Mutex<Vec<String>>,
}

impl Scripted {
    /// Answers the first request with the first reply, and so on.
    pub(crate) async fn script(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::start(replies.into_iter().collect(), Box::new(|_| None)).await
    }

    /// Answers by a closure; None is an unexpected request.
    pub(crate) async fn answering(handler: impl FnMut(&Recorded) -> Option<Reply> + Send + 'static) -> Self {
        Self::start(VecDeque::new(), Box::new(handler)).await
    }

    async fn start(script: VecDeque<Reply>, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let base = format!("http://{}", listener.local_addr().expect("it is bound"));
        let state = Arc::new(State {
            handler: Mutex::new(handler),
            script: Mutex::new(script),
            requests: Mutex::default(),
            unexpected: Mutex::default(),
        });
        let serving = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Self { base, state, task }
    }

    /// Every request so far, oldest first.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        lock(&self.state.requests).clone()
    }

    /// How many requests so far have this method and a target that ends so.
    pub(crate) fn count(&self, method: &str, end: &str) -> usize {
        self.requests().iter().filter(|request| request.method == method && request.target.ends_with(end)).count()
    }

    /// Settings that lead here.
    pub(crate) fn settings(&self) -> TenantSettings {
        TenantSettings { base_url: self.base.clone(), api_key: Some("test-api-key".into()), ..TenantSettings::default() }
    }

    /// The tenant `default`, which is this server.
    pub(crate) fn tenants(&self, clock: &Arc<ManualClock>) -> Arc<Tenants> {
        tenants(self.settings(), clock)
    }

    /// The same, alone.
    pub(crate) fn tenant(&self, clock: &Arc<ManualClock>) -> Arc<Tenant> {
        self.tenants(clock).get("default").expect("it was configured")
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            let unexpected = lock(&self.state.unexpected).clone();
            assert!(unexpected.is_empty(), "unexpected requests: {unexpected:#?}");
            let unused = lock(&self.state.script).len();
            assert_eq!(unused, 0, "answers that nobody asked for");
        }
    }
}

/// A clock that stands at an even second.
pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().expect("a time")))
}

/// The tenant `default` alone.
pub(crate) fn tenants(settings: TenantSettings, clock: &Arc<ManualClock>) -> Arc<Tenants> {
    spans();
    let clock: Arc<dyn Clock> = clock.clone();
    Tenants::new(BTreeMap::from([("default".to_owned(), settings)]), clock).expect("the settings are good")
}

/// All client spans of this process. One subscriber for all tests, because `tracing` remembers per process who is interested in what.
pub(crate) fn spans() -> &'static InMemorySpanExporter {
    static SPANS: OnceLock<InMemorySpanExporter> = OnceLock::new();
    SPANS.get_or_init(|| {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).expect("nobody else sets one");
        exporter
    })
}

/// Waits, without moving the clock, until something is so. The test fails when it does not come about.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1_000_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("this does not come about: {what}");
}

/// Runs a future while time jumps from sleep to sleep, each time when everything is at rest.
pub(crate) async fn drive<F: Future>(clock: &ManualClock, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    loop {
        tokio::select! {
            biased;
            output = &mut future => return output,
            () = clock.advance_to_next_sleep() => {}
        }
    }
}

/// A search's answer.
pub(crate) fn hits(sources: &[Value]) -> Value {
    let hits: Vec<_> = sources.iter().map(|source| json!({"_id": source["metadata"]["name"], "_source": source})).collect();
    json!({"hits": {"total": {"value": hits.len(), "relation": "eq"}, "hits": hits}})
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let Some(request) = read(&mut stream).await else { return };
    lock(&state.requests).push(request.clone());
    let scripted = lock(&state.script).pop_front();
    let reply = scripted.or_else(|| (lock(&state.handler))(&request));
    let reply = reply.unwrap_or_else(|| {
        lock(&state.unexpected).push(format!("{} {}", request.method, request.target));
        Reply::text(599, "unexpected")
    });
    if reply.manner == Manner::Hang {
        std::future::pending::<()>().await;
    }
    if reply.manner == Manner::Cut {
        return;
    }
    let promised = reply.body.len() + usize::from(reply.manner == Manner::CutBody);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {promised}\r\n", reply.status);
    for (name, value) in &reply.headers {
        write!(head, "{name}: {value}\r\n").expect("strings take everything");
    }
    // The client may have gone away, which is its right.
    stream.write_all(format!("{head}\r\n{}", reply.body).as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

async fn read(stream: &mut TcpStream) -> Option<Recorded> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<_, _> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let length: usize = headers.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
    while bytes.len() < head_end + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = &bytes[head_end + 4..];
    let text = || if body.is_empty() { Value::Null } else { String::from_utf8_lossy(body).into() };
    let body = serde_json::from_slice(body).unwrap_or_else(|_| text());
    Some(Recorded { method, target, headers, body })
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
