//! The server of probes and metrics before clients that misbehave: half requests, silence, more connections than there is room for.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iolaus::http::{Bound, Limits, Readiness, Server};
use iolaus::sandbox::SandboxOptions;
use iolaus::telemetry::Meters;
use iolaus_activities::{Clock, ManualClock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::cli::harness::{CONNECTION, Place, USER};
use crate::cli::metrics::{address, get};
use crate::support::watchdog::Watched;

const HALF: &[u8] = b"GET /livez HTTP/1.1\r\nhost: a\r\nx-slow: ";
const WHOLE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
/// As many as are tried where this process may open them.
const GOAL: u64 = 10_000;
/// A machine that is busy with other tests may be slow for a while; a server without limits never answers in time.
const TRIES: usize = 30;
/// Descriptors that the rest of the tests in this process may need.
const OTHERS: u64 = 2_000;

const LIMITS: Limits = Limits {
    max_connections: 256,
    header_timeout: Duration::from_secs(5),
    request_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(60),
};

/// Ready once it is given leave, so that a request can be kept open. The second counts who has asked.
struct Gate(Semaphore, Semaphore);

#[async_trait]
impl Readiness for Gate {
    async fn ready(&self) -> Result<(), String> {
        self.1.add_permits(1);
        self.0.acquire().await.map_err(|error| error.to_string())?.forget();
        Ok(())
    }
}

fn server(limits: Limits) -> (Server, Arc<ManualClock>, Arc<Gate>) {
    let clock = Arc::new(ManualClock::at("2026-11-27T00:00:00Z".parse().unwrap()));
    let gate = Arc::new(Gate(Semaphore::new(0), Semaphore::new(0)));
    let bound = Bound::to(SocketAddr::from(([127, 0, 0, 1], 0)), limits).unwrap();
    (bound.serve(gate.clone(), Meters::new(), clock.clone()), clock, gate)
}

async fn connect(server: &Server, sent: &[u8]) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream
}

/// Reads one answer without a body's end: until this part has come.
async fn until(stream: &mut tokio::net::TcpStream, part: &str) {
    let (mut got, mut buffer) = (Vec::new(), [0; 1024]);
    while !String::from_utf8_lossy(&got).contains(part) {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "closed before `{part}`: {}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..read]);
    }
}

/// Whether the server has closed it.
async fn is_closed(stream: &mut tokio::net::TcpStream) -> bool {
    matches!(stream.read(&mut [0; 1024]).await, Ok(0) | Err(_))
}

#[tokio::test]
async fn a_client_that_sends_half_a_request_or_none_is_cut_after_header_timeout() {
    let _watched = Watched::new();
    let (server, clock, _gate) = server(LIMITS);
    let mut half = connect(&server, HALF).await;
    let mut silent = connect(&server, b"").await;
    let mut fine = connect(&server, WHOLE).await;
    until(&mut fine, "alive").await;
    clock.advance(LIMITS.header_timeout).await;
    assert!(is_closed(&mut half).await && is_closed(&mut silent).await);
    fine.write_all(WHOLE).await.unwrap();
    until(&mut fine, "alive").await;
}

#[tokio::test]
async fn a_connection_that_is_kept_without_a_request_is_cut_after_idle_timeout() {
    let _watched = Watched::new();
    let (server, clock, _gate) = server(LIMITS);
    let mut kept = connect(&server, WHOLE).await;
    until(&mut kept, "alive").await;
    // Half a request starts no time of its own.
    clock.advance(LIMITS.idle_timeout / 2).await;
    kept.write_all(HALF).await.unwrap();
    clock.advance(LIMITS.idle_timeout / 2).await;
    assert!(is_closed(&mut kept).await);
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_time_is_cut_after_request_timeout() {
    let _watched = Watched::new();
    let limits = Limits { request_timeout: Duration::from_millis(500), ..LIMITS };
    let (server, clock, _gate) = server(limits);
    let mut asked = connect(&server, b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut fine = connect(&server, WHOLE).await;
    until(&mut fine, "alive").await;
    clock.advance(limits.request_timeout).await;
    assert!(is_closed(&mut asked).await);
}

#[tokio::test]
async fn for_a_new_connection_the_oldest_without_a_request_is_closed_then_an_idle_one_and_not_one_that_is_answered() {
    let _watched = Watched::new();
    let (server, _clock, gate) = server(Limits { max_connections: 3, ..LIMITS });
    let mut idle = connect(&server, WHOLE).await;
    until(&mut idle, "alive").await;
    let mut half = connect(&server, HALF).await;
    let mut asked = connect(&server, b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut second = connect(&server, WHOLE).await;
    until(&mut second, "alive").await;
    assert!(is_closed(&mut half).await, "it was the only one without a request");
    let mut third = connect(&server, WHOLE).await;
    until(&mut third, "alive").await;
    assert!(is_closed(&mut idle).await, "it was the oldest idle one");
    gate.0.add_permits(1);
    until(&mut asked, "ready").await;
}

#[tokio::test]
async fn a_new_connection_is_answered_where_all_others_are_being_answered() {
    let _watched = Watched::new();
    let (server, _clock, gate) = server(Limits { max_connections: 2, ..LIMITS });
    let mut busy = Vec::new();
    for _ in 0..2 {
        busy.push(connect(&server, b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await);
        gate.1.acquire().await.unwrap().forget();
    }
    let mut probe = connect(&server, WHOLE).await;
    until(&mut probe, "alive").await;
    assert!(is_closed(&mut busy[0]).await, "it was the oldest");
    gate.0.add_permits(1);
    until(&mut busy[1], "ready").await;
}

/// Whether a probe is answered within the time that an orchestrator gives it.
fn answer_in_time(address: &str, path: &str) -> bool {
    let clock = SystemClock::new();
    let began = clock.monotonic();
    let answer = get(address, path);
    let took = clock.monotonic().saturating_sub(began);
    answer.is_some_and(|(status, _)| status == 200) && took < Duration::from_secs(2)
}

#[test]
fn probes_answer_within_two_seconds_and_jobs_run_beside_thousands_of_half_requests() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("IOLAUS_HTTP__LISTEN", "127.0.0.1:0");
    // Without a limit of its own the server would leave none of these for the job.
    let mut worker = place.start_with_descriptors(256, "worker");
    let address = address(&mut worker);
    let may = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let attackers = GOAL.min(may.saturating_sub(OTHERS).max(200));
    let mut half_open = Vec::new();
    for _ in 0..attackers {
        let mut stream = TcpStream::connect(&address).unwrap();
        // The server may have closed it already.
        stream.write_all(HALF).ok();
        half_open.push(stream);
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        let tries = (0..TRIES).map(|_| answer_in_time(&address, path));
        assert!(tries.into_iter().any(|in_time| in_time), "{path} has no answer within 2 s beside {attackers} half requests");
    }
    let ran = place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --wait"));
    assert_eq!((ran.code, ran.json()["status"].as_str()), (0, Some("passed")), "{ran:?}");
    drop(half_open);
    assert_eq!(worker.terminate().code, 0);
}

#[test]
fn a_worker_whose_address_is_taken_never_says_that_it_is_ready() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("IOLAUS_LOG", "info");
    place.set("IOLAUS_HTTP__LISTEN", taken.local_addr().unwrap().to_string());
    let ran = place.run("worker");
    assert!(ran.code == 6 && ran.stderr.contains("`http.listen`"), "{ran:?}");
    assert!(!ran.stderr.contains("is ready"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_client_that_sends_nothing_after_its_request_gets_the_answer() {
    let _watched = Watched::new();
    let (server, _clock, gate) = server(LIMITS);
    for request in [WHOLE, b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let mut half_closed = connect(&server, request).await;
        half_closed.shutdown().await.unwrap();
        gate.0.add_permits(1);
        until(&mut half_closed, "200 OK").await;
        assert!(is_closed(&mut half_closed).await);
    }
}
