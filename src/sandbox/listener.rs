//! The accept loop. It speaks hyper itself, because only so can a connection be closed without a byte.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::arrival::Cut;
use super::server::Shared;

/// So many connections are served at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 4_096;
/// So long a stop waits for answers that are under way.
const GRACE: Duration = Duration::from_secs(2);

/// Accepts until `stop` turns true, then lets answers under way finish within the grace.
pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, shared.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "sandbox could not accept a connection");
                    // Out of file descriptors, most likely: do not spin.
                    #[expect(clippy::disallowed_methods, reason = "a pause of a real server, which no test waits for")]
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        connections.abort_all();
    }
}

/// Returns when the sandbox stops, or is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which is a stop as well.
    drop(stop.wait_for(|stopped| *stopped).await);
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    // Small answers leave at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "sandbox could not set nodelay");
    }
    let stopping = stop.clone();
    let service = service_fn(move |request| {
        let (shared, mut stopping) = (shared.clone(), stopping.clone());
        async move {
            let mut serving = pin!(shared.serve(request));
            tokio::select! {
                biased;
                answer = &mut serving => answer,
                // Only a hang, a delay or an unfinished body is still here when the sandbox stops.
                () = stopped(&mut stopping) => Err(Cut),
            }
        }
    });
    let mut connection = pin!(http1::Builder::new().auto_date_header(false).serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "sandbox connection ended");
    }
}
