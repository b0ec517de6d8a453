//! Asks a sandbox that runs elsewhere whether it serves: for images without curl.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A sandbox on the same machine answers in a millisecond.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ends well if a sandbox that listens at `address` answers within three seconds that it is well.
pub async fn probe(address: SocketAddr) -> io::Result<()> {
    let status = tokio::time::timeout(PATIENCE, ask(reachable(address))).await.map_err(io::Error::from)??;
    if status == StatusCode::OK { Ok(()) } else { Err(io::Error::other(format!("it answered {status}"))) }
}

/// A listener on every address is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

async fn ask(address: SocketAddr) -> io::Result<StatusCode> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get("/sandbox/health").header(HOST, address.to_string()).body(Empty::<Bytes>::new());
    // It ends with the sender; what breaks it is told by the request.
    tokio::spawn(connection);
    let answer = sender.send_request(request.map_err(io::Error::other)?).await;
    Ok(answer.map_err(io::Error::other)?.status())
}
