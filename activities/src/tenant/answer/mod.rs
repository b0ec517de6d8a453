//! The one way in for what a tenant says. Bodies, headers and status lines are read here, bounded in bytes, depth and number of
//! elements, and leave only as numbers, times and texts that were sanitized: without our secrets, without control and
//! direction-changing characters, clipped to what each field needs. The bytes themselves are private to this module, so nothing else
//! can put them into a verdict, a failure, a log line or a label.
//!
//! | file | what it does |
//! |---|---|
//! | `receive` | reads a response within its limit: budget, gzip, character sets |
//! | `budget` | how many bytes of large answers may be in memory at once |
//! | `sanitize` | one text: secrets, control characters |
//! | `decode` | JSON into the fields that are read, every text sanitized on the way |
//! | `fields`, `containers`, `claim` | the types of those fields, none of which fails on an odd value |
//! | `verbatim` | a value that is kept as it was sent, within limits |
//! | `refusal` | the code, message and wait of an answer that is no success |
//! | `retry_after` | the forms of the header `Retry-After` |

mod budget;
mod claim;
mod condensed;
mod containers;
mod decode;
mod every;
mod exchange;
mod fields;
mod receive;
mod refusal;
mod retry_after;
mod sanitize;
mod unwanted;
mod verbatim;

#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::{DeserializeOwned, IgnoredAny};

pub(super) use budget::Large;
pub(super) use claim::Claim;
pub(super) use containers::{Element, Lenient, List, Pairs};
pub use every::decode_as_every_answer;
pub(super) use fields::{Count, Exact, Flag, Moment, NAME, PHASE, Plain, Secret, Text, Time};
pub(super) use receive::{Limit, receive};
pub(super) use refusal::Refusal;
pub(super) use sanitize::Sanitizer;
pub(super) use verbatim::Verbatim;

/// How much of a body that is not JSON is quoted, in bytes.
const QUOTE: usize = 200;
/// How much of the description of a transport error is kept, in bytes.
const DESCRIPTION: usize = 1024;

/// A status, and what came with it.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The `Date` header.
    pub(super) date: Option<Timestamp>,
    /// The `Retry-After` header.
    retry_after: Option<Duration>,
    /// Whether the content type is that of a web page.
    labelled_as_page: bool,
    content: Content,
    /// Kept until the body has been decoded.
    _budget: Option<budget::Reservation>,
}

enum Content {
    Whole(Vec<u8>),
    /// The connection ended before the body did.
    Cut(String),
    /// Longer than the limit of this many bytes.
    TooLong(Limit),
    /// Compressed in a way that cannot be undone within the limits.
    Unpackable(&'static str),
}

/// What kind of body came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing but white space.
    Empty,
    /// A JSON object: what the API's own answers and refusals are.
    Object,
    /// Any other JSON.
    OtherJson,
    /// A web page, so something else than the API answered.
    Page,
    /// Text that is neither.
    Text,
    /// It could not be read to its end.
    Unread,
}

/// Why a body is not the answer that was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// The connection ended before the body did.
    Cut(String),
    /// It is longer than this.
    TooLong(Limit),
    /// What came instead, in words that hold nothing of the tenant but a sanitized quotation.
    Unexpected(String),
}

impl Answer {
    /// What kind of body came.
    pub(super) fn form(&self) -> Form {
        let Content::Whole(bytes) = &self.content else { return Form::Unread };
        let body = bytes.trim_ascii_start();
        match body.first() {
            None if self.labelled_as_page => Form::Page,
            None => Form::Empty,
            Some(first) if is_json(body) => match first {
                b'{' => Form::Object,
                _ => Form::OtherJson,
            },
            Some(b'<') => Form::Page,
            Some(_) if self.labelled_as_page => Form::Page,
            Some(_) => Form::Text,
        }
    }

    /// Whether the connection ended before the body did.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self.content, Content::Cut(_))
    }

    /// The fields of a JSON object. With `or_empty`, an empty body is an object without fields. With `quoted`, a body that is no JSON is
    /// quoted, which the answer to a login never is.
    pub(super) fn decode<T: DeserializeOwned>(self, sanitizer: &Sanitizer, or_empty: bool, quoted: bool) -> Result<T, Problem> {
        let form = self.form();
        let unexpected = |problem: &str| Err(Problem::Unexpected(problem.to_owned()));
        let bytes = match self.content {
            Content::Whole(bytes) => bytes,
            Content::Cut(why) => return Err(Problem::Cut(why)),
            Content::TooLong(limit) => return Err(Problem::TooLong(limit)),
            Content::Unpackable(why) => return unexpected(why),
        };
        match form {
            Form::Empty if or_empty => decode::decode(b"{}", sanitizer),
            Form::Object => decode::decode(&bytes, sanitizer),
            Form::OtherJson if or_empty && bytes.trim_ascii() == b"null" => decode::decode(b"{}", sanitizer),
            Form::Empty => unexpected("an empty body"),
            Form::OtherJson => unexpected("JSON that is no object"),
            Form::Page => unexpected("a web page"),
            // What was meant to be JSON says nothing to people, and may hold a token.
            Form::Text if !quoted || bytes.trim_ascii_start().starts_with(b"{") || bytes.trim_ascii_start().starts_with(b"[") => {
                unexpected("a body that is no JSON")
            }
            Form::Text | Form::Unread => unexpected(&format!("a body that is no JSON: {}", quote(&bytes, sanitizer))),
        }
    }
}

/// A document of our own, read like one of the tenant's.
pub(super) fn decode_ours<T: DeserializeOwned>(document: &serde_json::Value) -> Option<T> {
    decode::decode(document.to_string().as_bytes(), &Sanitizer::default()).ok()
}

/// Whether all of it is one JSON value. Nothing is kept of it.
fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// The beginning of a body that is no JSON, as one sanitized line.
fn quote(bytes: &[u8], sanitizer: &Sanitizer) -> String {
    // More than is quoted, so that no secret is cut in two before it is removed.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(16 * 1024)]);
    let line = sanitizer.text(&text).split_whitespace().collect::<Vec<_>>().join(" ");
    crate::text::clip_to(line, QUOTE)
}

/// An error of the transport with its causes, in one line. A certificate's names may stand in it, so it is sanitized too.
pub(super) fn describe(error: &dyn std::error::Error, sanitizer: &Sanitizer) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        write!(text, ": {error}").ok();
        cause = error.source();
    }
    crate::text::clip_to(sanitizer.text(&text).into_owned(), DESCRIPTION)
}
