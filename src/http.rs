//! What an operator's machines ask: whether the process lives, whether it is ready to work, and its metrics.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 as long as the process answers at all |
//! | `/readyz` | 200 while the queue answers and the worker gives its signs of life; 503 with the reason otherwise |
//! | `/metrics` | Prometheus' text format; the names are in [`names::metric`](crate::telemetry::names::metric) |
//!
//! Nothing here says anything of a job, and there is nothing to change, so there is no login; it listens on loopback unless told otherwise.
//! Anyone who reaches it may connect as often as they like: the number of connections and every wait are bounded.

mod connections;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use iolaus_activities::Clock;
use tokio::net::{TcpListener, TcpSocket};

use crate::telemetry::Meters;

/// A probe that takes longer is answered with no.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections that may wait to be accepted. One that finds no room tries again only a second later.
const BACKLOG: u32 = 4_096;
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Who knows whether work is done here.
#[async_trait]
pub trait Readiness: Send + Sync {
    /// Whether jobs are worked; `Err` says why not.
    async fn ready(&self) -> Result<(), String>;
}

/// What one server grants its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time; of the process's descriptors, a quarter at most.
    pub max_connections: usize,
    /// From accepting a connection to the end of its first request's head.
    pub header_timeout: Duration,
    /// From a request's head to its answer.
    pub request_timeout: Duration,
    /// From an answer to the end of the next request's head, the sending of the answer included.
    pub idle_timeout: Duration,
}

/// An address that is listened on and not yet answered at.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Bound {
    /// Takes the address. Clients that connect wait until [`serve`](Self::serve).
    pub fn to(listen: SocketAddr, limits: Limits) -> std::io::Result<Self> {
        let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, limits })
    }

    /// Answers from now on.
    pub fn serve(self, readiness: Arc<dyn Readiness>, meters: Meters, clock: Arc<dyn Clock>) -> Server {
        let router = Router::new()
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Answers { readiness, meters });
        let task = tokio::spawn(connections::serve(self.listener, router, self.limits, clock));
        Server { address: self.address, task }
    }
}

/// A server that stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Answers {
    readiness: Arc<dyn Readiness>,
    meters: Meters,
}

async fn readyz(State(answers): State<Answers>) -> Response {
    let asked = tokio::time::timeout(PATIENCE, answers.readiness.ready()).await;
    match asked.unwrap_or_else(|_| Err("the queue gave no answer in time".into())) {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn metrics(State(answers): State<Answers>) -> Response {
    match tokio::task::spawn_blocking(move || answers.meters.text()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
