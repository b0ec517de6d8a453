//! Reading a response: never more than its limit, however it is compressed, and never more large ones at once than the budget allows.

use std::io::Write;

use flate2::write::MultiGzDecoder;
use jiff::Timestamp;
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderName, HeaderValue, RETRY_AFTER};

use super::budget::{FREE, Large};
use super::{Answer, Content, Sanitizer, describe, retry_after};

/// What is read of an answer that is no success, in bytes. A longer body is a page, and its beginning is enough.
const REFUSAL: usize = FREE;
/// What gzip may make of one byte, on average, once it has made `RATIO_FROM`. JSON of many similar documents stays far below.
const RATIO: usize = 200;
const RATIO_FROM: usize = 1024 * 1024;
/// How much of a compressed body is unpacked at a time before anything is reserved: at most 64 KiB come of it.
const SMALL_STEP: usize = 64;
const STEP: usize = 4 * 1024;
const GZIP: [u8; 2] = [0x1F, 0x8B];
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The longest body that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tenant) struct Limit {
    pub(in crate::tenant) bytes: usize,
    /// Whether that is the setting `body_limit`, and not what no answer of this operation exceeds.
    pub(in crate::tenant) is_the_setting: bool,
}

/// Reads a response. `now` is what our clock shows.
pub(in crate::tenant) async fn receive(
    mut response: Response,
    limit: Limit,
    large: &Large,
    sanitizer: &Sanitizer,
    now: impl Fn() -> Timestamp,
) -> Answer {
    let status = response.status().as_u16();
    let header = |name: HeaderName| response.headers().get(name).and_then(|value| HeaderValue::to_str(value).ok());
    let date = header(DATE).and_then(retry_after::http_date);
    let wait = header(RETRY_AFTER).map(str::to_owned);
    let content_type = header(CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();

    let is_refusal = !(200..300).contains(&status);
    let mut body = Body::new(if is_refusal { REFUSAL.min(limit.bytes) } else { limit.bytes });
    let mut budget = None;
    let stopped = loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break body.finish().err(),
            Err(error) => break Some(Stop::Cut(describe(&error.without_url(), sanitizer))),
        };
        let mut rest = &chunk[..];
        let mut stop = None;
        while !rest.is_empty() && stop.is_none() {
            if budget.is_none() && body.may_exceed_what_is_free(rest.len()) {
                budget = Some(large.reserve(limit.bytes).await);
            }
            let next = body.step(budget.is_some()).min(rest.len());
            stop = body.take(&rest[..next]).err();
            rest = &rest[next..];
        }
        if stop.is_some() {
            break stop;
        }
    };
    let content = match stopped {
        None => Content::Whole(body.into_text(&content_type)),
        // The beginning of a page is enough.
        Some(Stop::TooLong) if is_refusal => Content::Whole(body.into_text(&content_type)),
        Some(Stop::TooLong) => Content::TooLong(limit),
        Some(Stop::Cut(why)) => Content::Cut(why),
        Some(Stop::Unpackable(why)) => Content::Unpackable(why),
    };
    let at = date.unwrap_or_else(now);
    let retry_after = wait.and_then(|wait| retry_after::header(&wait, at));
    let labelled_as_page = content_type.starts_with("text/html") || content_type.starts_with("application/xhtml");
    Answer { status, date, retry_after, labelled_as_page, content, _budget: budget }
}

/// Why reading ended early.
enum Stop {
    TooLong,
    Cut(String),
    Unpackable(&'static str),
}

/// What was read so far.
struct Body {
    limit: usize,
    /// How many bytes came over the wire.
    came: usize,
    /// The first byte, until the second one tells how to read both.
    first: Option<u8>,
    into: Into,
}

enum Into {
    Undecided,
    Plain(Vec<u8>),
    Packed(Box<MultiGzDecoder<Bounded>>),
}

/// A buffer that refuses to grow beyond its limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    overflowed: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            self.overflowed = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        append(&mut self.bytes, bytes, self.limit);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Appends, and never asks for more memory than the limit.
fn append(buffer: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    let needed = buffer.len() + bytes.len();
    if needed > buffer.capacity() {
        let grown = (buffer.capacity() * 2).clamp(needed, limit.max(needed));
        buffer.reserve_exact(grown - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

impl Body {
    fn new(limit: usize) -> Self {
        Self { limit, came: 0, first: None, into: Into::Undecided }
    }

    fn len(&self) -> usize {
        match &self.into {
            Into::Undecided => 0,
            Into::Plain(bytes) => bytes.len(),
            Into::Packed(decoder) => decoder.get_ref().bytes.len(),
        }
    }

    /// Whether the next bytes could make it larger than what needs no budget.
    fn may_exceed_what_is_free(&self, coming: usize) -> bool {
        let coming = if matches!(self.into, Into::Packed(_)) { FREE / 2 } else { coming };
        self.limit > FREE && self.len() + coming > FREE
    }

    fn step(&self, reserved: bool) -> usize {
        match self.into {
            // One byte more than is needed to decide.
            Into::Undecided => 2,
            Into::Plain(_) => usize::MAX,
            Into::Packed(_) if reserved => STEP,
            Into::Packed(_) => SMALL_STEP,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.came += bytes.len();
        match &mut self.into {
            Into::Undecided => self.decide(bytes),
            Into::Plain(buffer) => {
                let fits = bytes.len().min(self.limit - buffer.len());
                append(buffer, &bytes[..fits], self.limit);
                if fits < bytes.len() { Err(Stop::TooLong) } else { Ok(()) }
            }
            Into::Packed(decoder) => {
                let wrote = decoder.write_all(bytes).and_then(|()| decoder.flush());
                let unpacked = decoder.get_ref();
                if unpacked.overflowed {
                    return Err(Stop::TooLong);
                }
                if unpacked.bytes.len() > RATIO_FROM && unpacked.bytes.len() > self.came.saturating_mul(RATIO) {
                    return Err(Stop::Unpackable("a body that was compressed more than 200 times"));
                }
                wrote.map_err(|_| Stop::Unpackable("a body that claims to be gzip and is not"))
            }
        }
    }

    fn decide(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let start: Vec<u8> = self.first.take().into_iter().chain(bytes.iter().copied()).collect();
        if let [only] = start[..] {
            self.first = Some(only);
            return Ok(());
        }
        // The header `content-encoding` may lie in either direction; the first two bytes do not, for no JSON and no page begins so.
        self.into = if start.starts_with(&GZIP) {
            let unpacked = Bounded { bytes: Vec::new(), limit: self.limit, overflowed: false };
            Into::Packed(Box::new(MultiGzDecoder::new(unpacked)))
        } else {
            Into::Plain(Vec::new())
        };
        self.came = 0;
        self.take(&start)
    }

    fn finish(&mut self) -> Result<(), Stop> {
        match &mut self.into {
            Into::Undecided | Into::Plain(_) => Ok(()),
            Into::Packed(decoder) => decoder.try_finish().map_err(|_| Stop::Cut("the gzip stream is not complete".to_owned())),
        }
    }

    /// The bytes as UTF-8, as far as that is known to be possible.
    fn into_text(self, content_type: &str) -> Vec<u8> {
        let mut bytes = match self.into {
            Into::Undecided => self.first.into_iter().collect(),
            Into::Plain(bytes) => bytes,
            Into::Packed(mut decoder) => std::mem::take(&mut decoder.get_mut().bytes),
        };
        if bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        let latin = ["iso-8859-1", "latin1", "latin-1", "windows-1252"].iter().any(|name| content_type.contains(name));
        if latin && std::str::from_utf8(&bytes).is_err() {
            return bytes.into_iter().map(char::from).collect::<String>().into_bytes();
        }
        bytes
    }
}
