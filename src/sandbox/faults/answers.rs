//! Answers that a fault gives in place of the route's own.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::Action;
use crate::sandbox::answer::{json_response, status_code};
use crate::sandbox::arrival::Arrived;

/// A huge body leaves in pieces of this size.
const PIECE: usize = 64 * 1024;

const LOGIN_PAGE: &str = "<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in</h1>\
    <p>Your session has ended, or a firewall refused the request.</p></body></html>";

/// The answer of an action that has one of its own, and whether the request is applied before it.
pub(in crate::sandbox) fn faulty(action: &Action, arrived: &Arrived) -> Option<(Response, bool)> {
    Some(match action {
        Action::Status { status, headers, body } => (with_headers(status_answer(*status, body), headers), false),
        Action::StatusAfterApplying { status, body } => (status_answer(*status, body), true),
        Action::Garbage => (garbage(), false),
        Action::GarbageAfterApplying => (garbage(), true),
        Action::EchoHeaders { apply } => (echo(arrived), *apply),
        Action::WebPage { status, apply } => (text(*status, "text/html; charset=utf-8", LOGIN_PAGE.to_owned()), *apply),
        Action::Raw { status, headers, body, apply } => {
            (with_headers(text(*status, "application/json", body.clone()), headers), *apply)
        }
        Action::Huge { bytes, gzip } => (huge(*bytes, *gzip), false),
        Action::Deep { depth } => {
            let depth = usize::try_from(*depth).unwrap_or(usize::MAX);
            (text(200, "application/json", "[".repeat(depth) + &"]".repeat(depth)), false)
        }
        _ => return None,
    })
}

fn text(status: u16, content_type: &'static str, body: String) -> Response {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status_code(status);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn status_answer(status: u16, body: &Value) -> Response {
    let body = if body.is_null() { json!({ "code": status, "message": "a fault of the sandbox" }) } else { body.clone() };
    json_response(status_code(status), &body)
}

/// Adds headers, each checked before.
pub(in crate::sandbox) fn with_headers(mut answer: Response, headers: &[(String, String)]) -> Response {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

fn garbage() -> Response {
    text(200, "text/html", "<html><body>upstream said something else</body></html>".to_owned())
}

fn echo(arrived: &Arrived) -> Response {
    let mut page = format!("{} {}\n", arrived.parts.method, arrived.target());
    for (name, value) in &arrived.parts.headers {
        writeln!(page, "{name}: {}", String::from_utf8_lossy(value.as_bytes())).expect("a string takes what is written");
    }
    text(200, "text/plain; charset=utf-8", page)
}

/// A document `{"message":"aaa…"}` of this size.
fn huge(bytes: u64, gzip: bool) -> Response {
    let (head, tail) = (&b"{\"message\":\""[..], &b"\"}"[..]);
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_sub(head.len() + tail.len());
    let piece = Bytes::from(vec![b'a'; PIECE]);
    let middle = std::iter::from_fn(move || {
        let size = left.min(PIECE);
        left -= size;
        (size > 0).then(|| piece.slice(..size))
    });
    let pieces = std::iter::once(Bytes::from_static(head)).chain(middle).chain(std::iter::once(Bytes::from_static(tail)));
    let mut answer = Response::new(Body::empty());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if gzip {
        *answer.body_mut() = Body::from(compressed(pieces));
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    } else {
        *answer.body_mut() = Body::new(Pieces::new(pieces));
    }
    answer
}

/// The pieces as one gzip stream.
pub(super) fn compressed(pieces: impl Iterator<Item = Bytes>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for piece in pieces {
        encoder.write_all(&piece).expect("memory takes every byte");
    }
    encoder.finish().expect("memory takes every byte")
}

/// A body that leaves piece by piece and says nothing of its length, so that a header may say anything of it.
pub(super) struct Pieces<I> {
    pieces: I,
    /// Whether the last piece was written to the connection: one that ends too early is closed with what is not yet written.
    flushed: bool,
}

impl<I> Pieces<I> {
    pub(super) fn new(pieces: I) -> Self {
        Self { pieces, flushed: true }
    }
}

impl<I: Iterator<Item = Bytes> + Unpin> hyper::body::Body for Pieces<I> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // A body that is not ready makes the server write what it has.
        self.flushed = !self.flushed;
        if self.flushed {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.pieces.next().map(|piece| Ok(Frame::data(piece))))
    }
}

/// A body whose one piece is followed by nothing, not even its end.
pub(super) struct Stalled(pub(super) Option<Bytes>);

impl hyper::body::Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // The server drops the body with the connection, so that nothing needs to wake it.
        self.0.take().map_or(Poll::Pending, |piece| Poll::Ready(Some(Ok(Frame::data(piece)))))
    }
}
