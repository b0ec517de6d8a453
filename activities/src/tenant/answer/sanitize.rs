//! One text of a tenant: without our secrets in any spelling that a tenant or a proxy is likely to echo, and without characters that
//! move a terminal's cursor, forge a log line or reverse the direction of reading.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

use super::condensed::{self, Condensed, Tags};
use super::unwanted::is_unwanted;

/// What is shorter is no secret: it is part of many a word.
const LEAST_SECRET: usize = 6;
/// The beginning of a secret counts from half of it on, but at least, and at most, from so many bytes on.
const LEAST_BEGINNING: usize = 12;
const LONGEST_BEGINNING: usize = 32;
/// A part of a token that is shorter is not looked for by itself.
const LEAST_PART: usize = 16;
/// No field keeps more than a fraction of this, so the rest of a longer text is not even looked at.
const LONGEST: usize = 16 * 1024;
/// What a secret is replaced by.
const REMOVED: &str = "…";

/// Removes secrets and control characters.
#[derive(Default)]
pub(in crate::tenant) struct Sanitizer {
    /// The secrets themselves, whose beginnings are removed from the end of a text that was cut off.
    secrets: Vec<String>,
    /// Every spelling that is looked for, the longest first.
    spellings: Vec<String>,
    /// The same in their condensed form, for a search in a condensed text.
    condensed_secrets: Vec<String>,
    condensed_spellings: Vec<String>,
}

impl Sanitizer {
    pub(in crate::tenant) fn without<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let secrets: Vec<_> = secrets.into_iter().filter(|secret| secret.len() >= LEAST_SECRET).map(str::to_owned).collect();
        let mut spellings: Vec<_> = secrets.iter().flat_map(|secret| spellings(secret)).collect();
        spellings.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        spellings.dedup();
        let condensed = |texts: &[String]| -> Vec<String> {
            texts.iter().map(|text| condensed::form_of(text)).filter(|text| text.len() >= LEAST_SECRET).collect()
        };
        let (condensed_secrets, condensed_spellings) = (condensed(&secrets), condensed(&spellings));
        Self { secrets, spellings, condensed_secrets, condensed_spellings }
    }

    /// The text as it may be shown and stored. Control characters become spaces.
    pub(in crate::tenant) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = beginning(text, LONGEST);
        let mut text = replaced(text, self.secret_spans(text));
        if text.chars().any(is_unwanted) {
            text = Cow::Owned(text.chars().map(|c| if is_unwanted(c) { ' ' } else { c }).collect());
        }
        text
    }

    /// Where secrets are: in the text as it is, and in its condensed form, since an echo may be folded, padded, hyphenated, marked up,
    /// escaped or in other case.
    fn secret_spans(&self, text: &str) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        for spelling in &self.spellings {
            spans.extend(text.match_indices(spelling.as_str()).map(|(at, found)| at..at + found.len()));
        }
        let ending = self.secrets.iter().find_map(|secret| start_of_beginning(text, secret));
        spans.extend(ending.map(|start| start..text.len()));
        for tags in [Tags::Kept, Tags::Dropped] {
            if self.condensed_spellings.is_empty() || tags != Tags::Kept && !text.contains('<') {
                continue;
            }
            let view = Condensed::of(text, tags);
            for spelling in &self.condensed_spellings {
                spans.extend(view.matches(spelling));
            }
            let ending = self.condensed_secrets.iter().find_map(|secret| start_of_beginning(view.text(), secret));
            spans.extend(ending.map(|start| view.start(start)..text.len()));
        }
        spans.sort_by_key(|span| span.start);
        spans
    }
}

/// The text with the mark in place of each span, which are in the order of their starts and may overlap.
fn replaced(text: &str, spans: Vec<Range<usize>>) -> Cow<'_, str> {
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut kept, mut end) = (String::with_capacity(text.len()), 0);
    for (n, span) in spans.into_iter().enumerate() {
        if n == 0 || span.start >= end {
            kept.push_str(&text[end..span.start]);
            kept.push_str(REMOVED);
        }
        end = end.max(span.end);
    }
    kept.push_str(&text[end..]);
    Cow::Owned(kept)
}

/// The beginning of a text, cut between two characters.
fn beginning(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Where the beginning of a secret at the end of a text starts, if there is one. Less than half of a short secret does not count: names
/// of things often begin as the names of keys do.
fn start_of_beginning(text: &str, secret: &str) -> Option<usize> {
    let least = (secret.len() / 2).clamp(LEAST_BEGINNING, LONGEST_BEGINNING);
    let longest = secret.len().min(text.len() + 1);
    let mut beginnings = (least..longest).rev().filter_map(|end| secret.get(..end));
    beginnings.find_map(|beginning| text.strip_suffix(beginning)).map(str::len)
}

/// A secret as it is, as a query, as JSON and as HTML write it, in hexadecimal and in base64; and each long part of a token.
fn spellings(secret: &str) -> Vec<String> {
    let mut all = vec![secret.to_owned(), percent_encoded(secret, true), percent_encoded(secret, false)];
    if let Ok(json) = serde_json::to_string(secret) {
        let json = json[1..json.len() - 1].to_owned();
        all.push(json.replace('/', r"\/"));
        all.push(json);
    }
    all.push(secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"));
    all.push(hexadecimal(secret));
    all.extend((0..3).flat_map(|offset| base64(secret.as_bytes(), offset)));
    if secret.contains('.') {
        all.extend(secret.split('.').filter(|part| part.len() >= LEAST_PART).map(str::to_owned));
    }
    all.retain(|spelling| spelling.len() >= LEAST_SECRET);
    all
}

fn hexadecimal(secret: &str) -> String {
    secret.bytes().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        write!(hex, "{byte:02x}").unwrap_or_default();
        hex
    })
}

fn percent_encoded(secret: &str, upper: bool) -> String {
    let mut encoded = String::new();
    for byte in secret.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ if upper => write!(encoded, "%{byte:02X}").unwrap_or_default(),
            _ => write!(encoded, "%{byte:02x}").unwrap_or_default(),
        }
    }
    encoded
}

/// What base64 makes of a secret behind `offset` unknown bytes, in both alphabets, without the characters that its neighbours decide.
fn base64(secret: &[u8], offset: usize) -> [String; 2] {
    let alphabet =
        |symbols: [u8; 2]| (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(symbols).map(char::from).collect::<Vec<_>>();
    [alphabet(*b"+/"), alphabet(*b"-_")].map(|alphabet| {
        let padded: Vec<u8> = std::iter::repeat_n(0, offset).chain(secret.iter().copied()).collect();
        let digit = |at: usize| {
            let bit = at * 6;
            let two = u16::from(padded[bit / 8]) << 8 | u16::from(padded.get(bit / 8 + 1).copied().unwrap_or_default());
            alphabet[usize::from(two >> (10 - bit % 8) & 0x3F)]
        };
        let first = (offset * 8).div_ceil(6);
        let end = padded.len() * 8 / 6;
        (first..end).map(digit).collect()
    })
}
