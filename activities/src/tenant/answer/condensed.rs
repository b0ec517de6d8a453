//! A text in the form in which secrets are searched for: without what does not show, only lays it out or marks it up, with escapes
//! resolved, in small letters. Each of its bytes knows where it was in the text.

use std::ops::Range;

use super::unwanted::is_unwanted;

/// A tag or an entity that is longer is none: it is text.
const LONGEST_TAG: usize = 256;
const LONGEST_ENTITY: usize = 12;
/// Elements that may stand within a word.
const TAGS: [&str; 28] = [
    "a", "abbr", "b", "bdi", "bdo", "big", "br", "cite", "code", "del", "dfn", "em", "font", "i", "ins", "kbd", "mark", "q", "s",
    "samp", "small", "span", "strong", "sub", "sup", "u", "var", "wbr",
];
/// Escapes of escapes are resolved this often.
const PASSES: usize = 3;

/// The condensed form of a text.
pub(super) struct Condensed {
    text: String,
    /// Where in the original each byte came from.
    origins: Vec<Range<usize>>,
}

/// What a text begins with.
enum Token {
    /// Nothing of it is seen.
    Nothing,
    Char(char),
}

/// What becomes of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tags {
    /// They are text: a secret may be in one.
    Kept,
    /// They are left out: a secret may be around them.
    Dropped,
}

/// The condensed form of a text, without its places.
pub(super) fn form_of(text: &str) -> String {
    Condensed::of(text, Tags::Kept).text
}

impl Condensed {
    pub(super) fn of(text: &str, tags: Tags) -> Self {
        let mut condensed = Self { text: text.to_owned(), origins: (0..text.len()).map(|at| at..at + 1).collect() };
        for pass in 0..PASSES {
            let before = condensed.text.len();
            // What looks like a tag only then may be part of the secret.
            condensed = condensed.pass(if pass == 0 { tags } else { Tags::Kept });
            if condensed.text.len() == before {
                break;
            }
        }
        condensed.text.make_ascii_lowercase();
        condensed
    }

    fn pass(&self, tags: Tags) -> Self {
        let mut next = Self { text: String::with_capacity(self.text.len()), origins: Vec::with_capacity(self.text.len()) };
        let mut at = 0;
        while let Some((token, len)) = token(&self.text[at..], tags) {
            if let Token::Char(c) = token
                && !is_layout(c)
            {
                let origin = self.origins[at].start..self.origins[at + len - 1].end;
                next.text.push(c);
                next.origins.extend(std::iter::repeat_n(origin, c.len_utf8()));
            }
            at += len;
        }
        next
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where a part of the original began.
    pub(super) fn start(&self, at: usize) -> usize {
        self.origins[at].start
    }

    /// Where a condensed text, which is not empty, is in the original.
    pub(super) fn matches<'a>(&'a self, part: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        self.text.match_indices(part).map(|(at, found)| self.origins[at].start..self.origins[at + found.len() - 1].end)
    }
}

/// What a text begins with, and how many bytes of it that is.
fn token(text: &str, tags: Tags) -> Option<(Token, usize)> {
    let first = text.chars().next()?;
    let special = match first {
        '<' if tags == Tags::Dropped => tag(text).map(|len| (Token::Nothing, len)),
        '&' => entity(text),
        '%' => hex(text, 1, 2),
        '\\' => escape(text),
        _ => None,
    };
    Some(special.unwrap_or((Token::Char(first), first.len_utf8())))
}

/// The length of the tag or comment that a text begins with. One that is cut off counts.
fn tag(text: &str) -> Option<usize> {
    let name = text[1..].trim_start_matches('/').split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    let is_cut = name.len() + 1 >= text.len();
    let is_known = |tag: &str| tag.eq_ignore_ascii_case(name) || is_cut && tag.starts_with(&name.to_ascii_lowercase());
    if !text.starts_with("<!") && !TAGS.iter().any(|tag| is_known(tag)) {
        return None;
    }
    match text.bytes().take(LONGEST_TAG).enumerate().skip(1).find(|(_, byte)| matches!(byte, b'<' | b'>')) {
        Some((end, b'>')) => Some(end + 1),
        Some(_) => None,
        None => (text.len() < LONGEST_TAG).then_some(text.len()),
    }
}

/// `&amp;`, `&#90;`, `&#x5a;`, `&nbsp;`; one that is not known is not seen.
fn entity(text: &str) -> Option<(Token, usize)> {
    let end = text.bytes().take(LONGEST_ENTITY).position(|byte| byte == b';')?;
    let name = &text[1..end];
    let token = if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        Token::Char(char::from_u32(code.ok()?)?)
    } else if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        match name {
            "amp" => Token::Char('&'),
            "lt" => Token::Char('<'),
            "gt" => Token::Char('>'),
            "quot" => Token::Char('"'),
            "apos" => Token::Char('\''),
            _ => Token::Nothing,
        }
    } else {
        return None;
    };
    Some((token, end + 1))
}

/// `\u005a`, `\x5a`, `\n`, `\/`.
fn escape(text: &str) -> Option<(Token, usize)> {
    match text.as_bytes().get(1)? {
        b'u' => hex(text, 2, 4),
        b'x' => hex(text, 2, 2),
        b'n' | b'r' | b't' => Some((Token::Nothing, 2)),
        mark @ (b'/' | b'\\' | b'"' | b'\'') => Some((Token::Char(char::from(*mark)), 2)),
        _ => None,
    }
}

/// A character that is written as so many hexadecimal digits behind a mark. Parts of longer characters are left as they are.
fn hex(text: &str, mark: usize, digits: usize) -> Option<(Token, usize)> {
    let written = text.get(mark..mark + digits)?;
    let is_hex = written.bytes().all(|byte| byte.is_ascii_hexdigit());
    let code = is_hex.then(|| u32::from_str_radix(written, 16).ok()).flatten().filter(|code| digits > 2 || *code < 0x80)?;
    Some((Token::Char(char::from_u32(code)?), mark + digits))
}

/// What can stand within a word without being seen, or only breaks it.
fn is_layout(c: char) -> bool {
    c.is_whitespace()
        || is_unwanted(c)
        || matches!(c,
            '-' | '\u{AD}' | '\u{34F}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{200C}'
            | '\u{200D}' | '\u{2010}' | '\u{2011}' | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFA0}'
            | '\u{1D173}'..='\u{1D17A}' | '\u{E0100}'..='\u{E01EF}')
}
