//! The connections of the server: a bounded number, each with a deadline for every phase. A client that sends half a request, reads
//! slowly or stays silent costs one connection for a bounded time, and none when another client needs it.

use std::time::Duration;
use std::{io, sync::Arc};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use iolaus_activities::Clock;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tower::ServiceExt;

use super::Limits;

/// The longest head of a request, in bytes. A probe's has a few hundred.
const HEAD_LIMIT: usize = 16 * 1024;
/// The rest of the process's descriptors is kept for work: one in so many may be a connection of this server.
const DESCRIPTOR_SHARE: u64 = 4;
/// For so many connections one more may be about to close.
const CLOSING_SHARE: usize = 4;
/// One in so many connections is too young to be closed for a new one.
const YOUNG_SHARE: usize = 4;
/// After an accept that failed, as without a free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has sent no complete request.
    First,
    /// A request is being answered.
    Answering,
    /// The last answer was made; it is being sent, or the next request is waited for.
    Idle,
}

struct Connection {
    id: Id,
    phase: watch::Receiver<Phase>,
    abort: AbortHandle,
}

/// Accepts and serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits, clock: Arc<dyn Clock>) {
    let most = most_connections(limits.max_connections, getrlimit(Resource::Nofile).current);
    let mut tasks = JoinSet::new();
    // The oldest first.
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                forget(&mut connections, id_of(ended));
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let full = connections.len() >= most;
        if (full || accepted.is_err())
            && let Some(victim) = victim(&connections)
        {
            connections.remove(victim).abort.abort();
        }
        // A descriptor is free once its task is gone. Waiting for each by itself would let the queue of the kernel overflow.
        while tasks.len().saturating_sub(connections.len()) > most / CLOSING_SHARE
            && let Some(ended) = tasks.join_next_with_id().await
        {
            forget(&mut connections, id_of(ended));
        }
        match accepted {
            Ok((stream, _)) => {
                let (tell, phase) = watch::channel(Phase::First);
                let abort = tasks.spawn(connection(stream, tell, router.clone(), limits, clock.clone()));
                connections.push(Connection { id: abort.id(), phase, abort });
            }
            Err(error) => {
                tracing::warn!(%error, connections = connections.len(), "a connection to the probes could not be accepted");
                clock.deadline(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How many connections there may be, where the process may have so many descriptors.
fn most_connections(configured: usize, descriptors: Option<u64>) -> usize {
    let share = descriptors.map_or(usize::MAX, |all| usize::try_from(all / DESCRIPTOR_SHARE).unwrap_or(usize::MAX));
    configured.min(share).max(1)
}

/// The connection to close for a new one: the oldest that has sent no complete request, else the oldest that is idle, else the oldest. One
/// that asks without end is never idle, and a few hundred of these must not keep a probe out.
fn victim(connections: &[Connection]) -> Option<usize> {
    // The youngest are given the time to send a request.
    let older = &connections[..connections.len() - connections.len() / YOUNG_SHARE];
    let oldest = |wanted: Phase| older.iter().position(|connection| *connection.phase.borrow() == wanted);
    oldest(Phase::First).or_else(|| oldest(Phase::Idle)).or_else(|| (!connections.is_empty()).then_some(0))
}

fn id_of(ended: Result<(Id, ()), tokio::task::JoinError>) -> Id {
    ended.map_or_else(|error| error.id(), |(id, ())| id)
}

fn forget(connections: &mut Vec<Connection>, id: Id) {
    connections.retain(|connection| connection.id != id);
}

async fn connection(stream: TcpStream, tell: watch::Sender<Phase>, router: Router, limits: Limits, clock: Arc<dyn Clock>) {
    let mut phases = tell.subscribe();
    let tell = &tell;
    let service = service_fn(move |request| {
        let router = router.clone();
        async move {
            tell.send_replace(Phase::Answering);
            let answer = router.oneshot(request).await;
            tell.send_replace(Phase::Idle);
            answer
        }
    });
    // A client that sends nothing more may still read its answer.
    let served = http1::Builder::new().half_close(true).max_buf_size(HEAD_LIMIT).serve_connection(TokioIo::new(stream), service);
    let overdue = async {
        loop {
            let limit = match *phases.borrow_and_update() {
                Phase::First => limits.header_timeout,
                Phase::Answering => limits.request_timeout,
                Phase::Idle => limits.idle_timeout,
            };
            tokio::select! {
                biased;
                // The sender lives as long as this task.
                _ = phases.changed() => {}
                () = clock.deadline(limit) => break,
            }
        }
    };
    let ended = tokio::select! {
        biased;
        ended = served => ended.map_err(io::Error::other),
        () = overdue => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the probes ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_descriptors_at_most_is_for_connections_of_this_server() {
        assert_eq!(most_connections(256, Some(1024)), 256);
        assert_eq!(most_connections(1024, Some(1024)), 256);
        assert_eq!(most_connections(1024, None), 1024);
        assert_eq!(most_connections(256, Some(3)), 1);
    }
}
