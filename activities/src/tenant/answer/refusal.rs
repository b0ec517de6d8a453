//! What an answer that is no success says: the tenant's code, its message, and how long it asks us to wait.

use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::containers::skip_sequence;
use super::fields::{Count, Flag, Plain};
use super::{Answer, Content, Form, Sanitizer, decode, quote, retry_after};
use crate::text::MESSAGE_LIMIT;

/// The longest code of a tenant, in bytes.
const CODE: usize = 128;

/// What a refusal says.
#[derive(Debug, Default, Clone)]
pub(in crate::tenant) struct Refusal {
    /// The tenant's own code.
    pub(in crate::tenant) code: Option<String>,
    /// The tenant's own words, or the beginning of a body that is no JSON.
    pub(in crate::tenant) message: Option<String>,
    /// How long it asks us to wait.
    pub(in crate::tenant) retry_after: Option<Duration>,
}

/// Every field of an error that any of the tenant's services is known to use.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Body {
    error_code: Plain<CODE>,
    code: Plain<CODE>,
    error_message: Plain<MESSAGE_LIMIT>,
    message: Plain<MESSAGE_LIMIT>,
    #[serde(rename = "error_description")]
    error_description: Plain<MESSAGE_LIMIT>,
    error: Said,
    detail: Said,
    data: Said,
    errors: Said,
    exception: Said,
    success: Flag,
    status: Count,
    retry_after: Count,
    #[serde(rename = "retry_after")]
    retry_after_in_snake_case: Count,
}

/// A text, or an object that says more.
#[derive(Debug, Default)]
struct Said {
    text: Option<String>,
    more: Box<More>,
    /// It is there, and neither null, false, zero nor empty.
    is_something: bool,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct More {
    code: Plain<CODE>,
    message: Plain<MESSAGE_LIMIT>,
    retry_after: Count,
    #[serde(rename = "retry_after")]
    retry_after_in_snake_case: Count,
}

impl Answer {
    /// What it says, if it is no success. `quoted`: a body that is no JSON may be quoted.
    pub(in crate::tenant) fn refusal(&self, sanitizer: &Sanitizer, quoted: bool) -> Refusal {
        let Content::Whole(bytes) = &self.content else {
            return Refusal { retry_after: self.retry_after, ..Refusal::default() };
        };
        match self.form() {
            Form::Object => {
                let body: Body = decode::decode(bytes, sanitizer).unwrap_or_default();
                let retry_after = self.retry_after.max(body.wait());
                Refusal { code: body.code(), message: body.message(), retry_after }
            }
            Form::Text | Form::Page if quoted => {
                Refusal { code: None, message: Some(quote(bytes, sanitizer)), retry_after: self.retry_after }
            }
            _ => Refusal { retry_after: self.retry_after, ..Refusal::default() },
        }
    }

    /// How long it asks us to wait.
    pub(in crate::tenant) fn wait(&self) -> Option<Duration> {
        self.refusal(&Sanitizer::default(), false).retry_after
    }

    /// Whether an answer under a success status says itself that it is an error. One that says so twice, or cannot be read for it, does.
    pub(in crate::tenant) fn claims_an_error(&self, sanitizer: &Sanitizer) -> bool {
        match (&self.content, self.form()) {
            (Content::Whole(bytes), Form::Object) => {
                decode::decode::<Body>(bytes, sanitizer).map_or(true, |body| body.claims_an_error())
            }
            _ => false,
        }
    }

    /// Whether a code stands, as a word of its own, in the message or in a text that is no web page.
    pub(in crate::tenant) fn mentions(&self, code: &str, sanitizer: &Sanitizer) -> bool {
        let said = match (&self.content, self.form()) {
            (Content::Whole(bytes), Form::Object) => decode::decode::<Body>(bytes, sanitizer).unwrap_or_default().message(),
            (Content::Whole(bytes), Form::Text) => Some(sanitizer.text(&String::from_utf8_lossy(bytes)).into_owned()),
            _ => None,
        };
        said.is_some_and(|said| is_word_of(code, &said))
    }
}

impl Body {
    fn claims_an_error(&self) -> bool {
        let texts = [&self.error_message.0, &self.error_description.0];
        let is_error_code =
            |code: &String| !matches!(code.to_ascii_lowercase().as_str(), "0" | "200" | "201" | "202" | "204" | "ok");
        self.error_code.0.is_some()
            || self.code.0.as_ref().is_some_and(is_error_code)
            || texts.into_iter().flatten().any(|text| !text.trim().is_empty())
            || [&self.error, &self.errors, &self.exception].into_iter().any(|said| said.is_something)
            || self.success.0 == Some(false)
            || self.status.0.is_some_and(|status| (400.0..600.0).contains(&status))
    }

    fn code(&self) -> Option<String> {
        [&self.error_code, &self.code, &self.error.more.code].into_iter().find_map(|code| code.0.clone())
    }

    fn message(&self) -> Option<String> {
        let said = [&self.error_message, &self.message, &self.error_description].map(|message| message.0.as_ref());
        let more = [&self.error, &self.detail].map(|said| said.text.as_ref().or(said.more.message.0.as_ref()));
        said.into_iter().chain(more).flatten().next().cloned()
    }

    fn wait(&self) -> Option<Duration> {
        let more = [&self.error, &self.detail, &self.data].map(|said| &said.more);
        let nested = more.into_iter().flat_map(|more| [more.retry_after, more.retry_after_in_snake_case]);
        let all = [self.retry_after, self.retry_after_in_snake_case].into_iter().chain(nested);
        all.filter_map(|wait| retry_after::seconds(wait.0?)).max()
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SaidVisitor)
    }
}

struct SaidVisitor;

impl Said {
    fn something(is_something: bool) -> Self {
        Self { is_something, ..Self::default() }
    }
}

impl<'de> Visitor<'de> for SaidVisitor {
    type Value = Said;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Said, E> {
        Ok(Said::something(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Said, E> {
        Ok(Said::something(number != 0))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Said, E> {
        Ok(Said::something(number != 0))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Said, E> {
        Ok(Said::something(number != 0.0))
    }

    fn visit_str<E>(self, text: &str) -> Result<Said, E> {
        let is_something = !text.trim().is_empty();
        let text = (!text.is_empty()).then(|| crate::text::clip(text.to_owned()));
        Ok(Said { text, is_something, ..Said::default() })
    }

    fn visit_unit<E>(self) -> Result<Said, E> {
        Ok(Said::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Said, A::Error> {
        skip_sequence(sequence).map(|count| Said::something(count > 0))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Said, A::Error> {
        let mut fields = 0;
        let counted = Counted { map, fields: &mut fields };
        let more = Box::new(More::deserialize(MapAccessDeserializer::new(counted))?);
        Ok(Said { text: None, more, is_something: fields > 0 })
    }
}

/// Counts the fields of an object.
struct Counted<'a, A> {
    map: A,
    fields: &'a mut usize,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Counted<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let key = self.map.next_key_seed(seed)?;
        *self.fields += usize::from(key.is_some());
        Ok(key)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Whether `code` stands in a text without a letter, digit or hyphen beside it.
fn is_word_of(code: &str, text: &str) -> bool {
    let joins = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.match_indices(code).any(|(at, _)| !text[..at].ends_with(joins) && !text[at + code.len()..].starts_with(joins))
}
