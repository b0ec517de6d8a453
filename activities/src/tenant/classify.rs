//! What an answer of the tenant means. The one place that reads an HTTP status.
//!
//! Nothing is inferred from the wording of a message, with one exception that the tenant forces on everybody: "this workflow is already
//! active" is the code `AE-WF-409-03`, which the workflow service hides inside the message of a 500. The code is matched there, not
//! the words around it.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Tenant;
use super::credentials::Credentials;
use super::send::{Answer, Body, Call, Sent};
use crate::failure::{Category, Failure, FailureSource};

/// The workflow engine's "there is an active run already".
const ALREADY_ACTIVE: &str = "AE-WF-409-03";
/// A body above the limit.
const OVERSIZED: &str = "tenant.oversized";
/// However long the tenant asks us to stay away, no longer than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// How much of a body that is no JSON is quoted.
const QUOTE: usize = 200;

/// What became of an effect.
pub(super) enum Effect {
    /// It was carried out, and this is the answer.
    Applied(Value),
    /// It was refused because of something that exists already: 409, or the code of an active run under any status.
    Conflict(Failure),
    /// It was not carried out and may be tried again, as far as the failure admits that.
    NotApplied(Failure),
    /// It may have been carried out.
    UnknownFate(Failure),
}

impl Tenant {
    /// The body of an answer to a read, or why there is none.
    pub(super) fn read_answer(&self, call: &Call, answer: Answer) -> Result<Value, Failure> {
        if is_success(answer.status) { self.readable(call, answer) } else { Err(self.refusal(call, &answer)) }
    }

    /// What became of an effect. Everything that does not prove the opposite is an unknown fate.
    pub(super) fn effect(&self, call: &Call, sent: Sent) -> Effect {
        let answer = match sent {
            Sent::NotDelivered(failure) => return Effect::NotApplied(failure),
            Sent::UnknownDelivery(failure) => return Effect::UnknownFate(failure),
            Sent::Answered(answer) => answer,
        };
        if is_success(answer.status) {
            return match self.readable(call, answer) {
                Ok(body) => Effect::Applied(body),
                Err(failure) => Effect::UnknownFate(failure),
            };
        }
        let failure = self.refusal(call, &answer);
        match answer.status {
            _ if answer.names(ALREADY_ACTIVE) => Effect::Conflict(failure),
            409 => Effect::Conflict(failure),
            408 => Effect::UnknownFate(failure),
            400..=499 => Effect::NotApplied(failure),
            _ => Effect::UnknownFate(failure),
        }
    }

    /// The same for an effect whose answer has no body that counts.
    pub(super) fn effect_without_body(&self, call: &Call, sent: Sent) -> Effect {
        match sent {
            Sent::Answered(answer) if is_success(answer.status) => Effect::Applied(Value::Null),
            other => self.effect(call, other),
        }
    }

    /// The failure that an answer is, if it says that the token was not accepted.
    pub(super) fn unauthenticated(&self, call: &Call, sent: &Sent) -> Option<Failure> {
        match sent {
            Sent::Answered(answer) if is_unauthenticated(sent) => Some(self.refusal(call, answer)),
            _ => None,
        }
    }

    /// The failure that an exchange is which was not answered well.
    pub(super) fn failure_of(&self, call: &Call, sent: &Sent) -> Failure {
        match sent {
            Sent::Answered(answer) => self.refusal(call, answer),
            Sent::NotDelivered(failure) | Sent::UnknownDelivery(failure) => failure.clone(),
        }
    }

    fn readable(&self, call: &Call, answer: Answer) -> Result<Value, Failure> {
        let (code, problem) = match answer.body {
            Body::Json(value) => return Ok(value),
            Body::Text(text) if text.trim().is_empty() => ("tenant.unreadable", "an empty body".to_owned()),
            // What was meant to be JSON says nothing to people, and may hold a token.
            Body::Text(text) if call.is_anonymous() || text.trim_start().starts_with(['{', '[']) => {
                ("tenant.unreadable", "a body that is no JSON".to_owned())
            }
            Body::Text(text) => ("tenant.unreadable", format!("a body that is no JSON: {}", quote(&text))),
            Body::TooLong => (OVERSIZED, format!("more than {} bytes", self.settings.body_limit)),
            Body::Cut(why) => ("tenant.connection_lost", format!("a body that broke off: {why}")),
        };
        let message = format!("tenant `{}` answered {} with {problem}", self.name, call.operation);
        let source = FailureSource { http_status: Some(answer.status), ..call.source() };
        Err(Failure::new(code, Category::DependencyUnavailable, message).with_source(source))
    }

    /// The failure that any status but a success is.
    fn refusal(&self, call: &Call, answer: &Answer) -> Failure {
        let Kind { code, category, what } = kind(answer.status);
        let (tenant_code, said) = answer.error();
        let credentials = self.link.credentials.as_ref();
        let held = || credentials.map_or_else(|| "these credentials".to_owned(), Credentials::name);
        let who = self.known_name().unwrap_or_else(|| format!("the holder of {}", held()));
        let mut message = format!("tenant `{}` {what} {} ({})", self.name, call.operation, answer.status);
        if answer.status == 403 {
            message = format!("{message}: {who} needs {}", call.needs);
        }
        // The part of a text that is cut off could leave half of a secret.
        if let Some(said) = said.filter(|_| !(call.is_anonymous() && matches!(answer.body, Body::Text(_)))) {
            let said = credentials.map_or_else(|| said.clone(), |credentials| credentials.hush(&said));
            message = format!("{message}: {said}");
        }
        let source = FailureSource { http_status: Some(answer.status), tenant_code, ..call.source() };
        let failure = Failure::new(code, category, message).with_source(source).after(answer.retry_after());
        match answer.status {
            401 => {
                let mend = credentials.map_or_else(String::new, |credentials| credentials.mend(&self.name));
                Failure { tenant_held: self.is_locked_out(), ..failure.suggest(mend) }
            }
            403 => failure.suggest(format!("give {who} {}, or use another key", call.needs)),
            300..=399 => failure.suggest(format!("check tenants.{}.base_url: the tenant answers from another address", self.name)),
            _ => failure,
        }
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Decodes a body, and says by field what is wrong with it.
pub(super) fn decode<T: DeserializeOwned>(body: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(body).map_err(|error| error.to_string())
}

/// Whether a conflict is "a run of this workflow is active", and not "this exists already".
pub(super) fn is_already_active(failure: &Failure) -> bool {
    failure.source.tenant_code.as_deref() == Some(ALREADY_ACTIVE)
}

/// Whether a smaller request may do better: the tenant refused this one, or its answer was too long.
pub(super) fn is_about_size(failure: &Failure) -> bool {
    failure.category == Category::InvalidInput || failure.code == OVERSIZED
}

/// Whether the tenant forbade it, so that it is worth finding out who asked.
pub(super) fn is_denied(sent: &Sent) -> bool {
    matches!(sent, Sent::Answered(answer) if answer.status == 403)
}

/// Whether the tenant did not accept the token.
pub(super) fn is_unauthenticated(sent: &Sent) -> bool {
    matches!(sent, Sent::Answered(answer) if answer.status == 401)
}

/// Whether the tenant has made up its mind: it neither failed, nor put us off, nor sent us elsewhere.
pub(super) fn is_settled(sent: &Sent) -> bool {
    matches!(sent, Sent::Answered(answer) if matches!(answer.status, 200..=299 | 400..=407 | 409..=428 | 430..=499))
}

/// Whether it says that the tenant cannot answer now: no answer, a failure, a redirect. The refusal of a second run, hidden in a 500, is
/// an answer.
pub(super) fn is_failing(sent: &Sent) -> bool {
    match sent {
        Sent::Answered(answer) if matches!(answer.body, Body::Cut(_)) => true,
        Sent::Answered(answer) => !is_settled(sent) && !answer.names(ALREADY_ACTIVE),
        Sent::NotDelivered(_) | Sent::UnknownDelivery(_) => true,
    }
}

/// Whether something answered that may be the tenant. What redirects is at another address.
pub(super) fn is_reached(sent: &Sent) -> bool {
    matches!(sent, Sent::Answered(answer) if !matches!(answer.status, 300..=399))
}

/// How long the tenant asks everybody to stay away: only with a 429 or a 503 that names a time.
pub(super) fn asks_to_wait(sent: &Sent) -> Option<Duration> {
    match sent {
        Sent::Answered(answer) if matches!(answer.status, 429 | 503) => answer.retry_after().filter(|wait| !wait.is_zero()),
        _ => None,
    }
}

/// Whether a read that ended so may be sent again within the same attempt. One that took too long may not: it has cost enough time.
pub(super) fn worth_resending(sent: &Sent) -> bool {
    match sent {
        // One that was held back would be held back again.
        Sent::NotDelivered(failure) => failure.retryable && !(failure.tenant_held && failure.retry_after.is_none()),
        Sent::UnknownDelivery(failure) => failure.category != Category::Timeout,
        Sent::Answered(answer) => {
            matches!(answer.status, 429 | 502 | 503 | 504) || (is_success(answer.status) && matches!(answer.body, Body::Cut(_)))
        }
    }
}

struct Kind {
    code: &'static str,
    category: Category,
    what: &'static str,
}

fn kind(status: u16) -> Kind {
    use Category as C;
    let (code, category, what) = match status {
        300..=399 => ("tenant.redirected", C::DependencyUnavailable, "redirected"),
        401 => ("tenant.unauthenticated", C::Auth, "does not know who asks for"),
        403 => ("tenant.forbidden", C::Permission, "does not permit"),
        404 => ("tenant.not_found", C::NotFound, "found nothing for"),
        405 | 501 => ("tenant.unsupported", C::Unimplemented, "does not know the operation"),
        408 | 504 => ("tenant.timeout", C::Timeout, "took too long over"),
        409 => ("tenant.conflict", C::AlreadyExists, "sees a conflict in"),
        429 => ("tenant.rate_limited", C::RateLimited, "asks for fewer requests than"),
        400..=499 => ("tenant.refused", C::InvalidInput, "refused"),
        _ => ("tenant.unavailable", C::DependencyUnavailable, "failed at"),
    };
    Kind { code, category, what }
}

impl Answer {
    /// How long the tenant asks us to wait: the header in seconds or as a date, or the body's `retry_after`, whichever is longer.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let header = self.retry_after.as_deref().and_then(|text| {
            let seconds = text.trim().parse().ok().map(Duration::from_secs);
            seconds.or_else(|| {
                let date = DateTimeParser::new().parse_timestamp(text).ok()?;
                Some(Duration::try_from(date.duration_since(self.at)).unwrap_or(Duration::ZERO))
            })
        });
        let body = match &self.body {
            Body::Json(body) => body.get("retry_after").and_then(|value| {
                let seconds = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
                Duration::try_from_secs_f64(seconds).ok()
            }),
            _ => None,
        };
        header.max(body).map(|wanted| wanted.min(LONGEST_RETRY_AFTER))
    }

    /// Whether a code of the tenant stands anywhere in the body.
    fn names(&self, code: &str) -> bool {
        match &self.body {
            Body::Json(body) => body.to_string().contains(code),
            Body::Text(text) => text.contains(code),
            Body::Cut(_) | Body::TooLong => false,
        }
    }

    /// The tenant's code and message, from whichever of the known fields holds them.
    fn error(&self) -> (Option<String>, Option<String>) {
        let body = match &self.body {
            Body::Json(body) => body,
            Body::Text(text) if !text.trim().is_empty() => return (None, Some(quote(text))),
            _ => return (None, None),
        };
        let first = |names: &[&str]| names.iter().find_map(|name| plain(body.get(name)?));
        let code = if self.names(ALREADY_ACTIVE) {
            Some(ALREADY_ACTIVE.to_owned())
        } else {
            first(&["errorCode", "code"]).map(|code| quote(&code))
        };
        (code, first(&["errorMessage", "message", "error_description", "error"]))
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn quote(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(QUOTE).collect()
}
