//! What an answer of the tenant means. The one place that reads an HTTP status.
//!
//! Nothing is inferred from the wording of a message, with one exception that the tenant forces on everybody: "this workflow is already
//! active" is the code `AE-WF-409-03`, which the workflow service hides inside the message of a 500. The code is matched there, not
//! the words around it.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Tenant;
use super::answer::{Answer, Form, Problem, Refusal, Sanitizer};
use super::credentials::Credentials;
use super::send::{Call, Sent};
use crate::failure::{Category, Failure, FailureSource};

/// The workflow engine's "there is an active run already".
const ALREADY_ACTIVE: &str = "AE-WF-409-03";
/// A body above the limit.
const OVERSIZED: &str = "tenant.oversized";
/// After an answer that is too long, another one is not asked for sooner.
const OVERSIZED_WAIT: Duration = Duration::from_secs(30);
/// For how long an operation may refuse a token that the tenant accepts elsewhere before that is final: a new token, or a new right, can
/// take a while to reach every service of the tenant.
const PROPAGATION: Duration = Duration::from_secs(120);

/// What became of an effect.
pub(super) enum Effect<T> {
    /// It was carried out, and this is the answer.
    Applied(T),
    /// It was refused because a run of this workflow is active, as the tenant's own code says.
    AlreadyActive(Failure),
    /// It was refused because of something else that exists or happens already.
    Conflict(Failure),
    /// It was not carried out and may be tried again, as far as the failure admits that.
    NotApplied(Failure),
    /// It may have been carried out.
    UnknownFate(Failure),
}

impl<T> Effect<T> {
    /// The failure of what was not carried out, or may have been; for an effect whose success was dealt with.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::AlreadyActive(failure) | Self::Conflict(failure) | Self::NotApplied(failure) | Self::UnknownFate(failure) => {
                failure
            }
            Self::Applied(_) => Failure::new("tenant.unreadable", Category::Internal, "a success was taken for a failure"),
        }
    }
}

impl Tenant {
    /// The fields of an answer to a read, or why there are none.
    pub(super) fn read_answer<T: DeserializeOwned>(&self, call: &Call, answer: Answer) -> Result<T, Failure> {
        if !is_success(answer.status) {
            return Err(self.refusal(call, &answer));
        }
        if call.only_ok && answer.status != 200 {
            return Err(self.unexpected(call, &format!("status {}, and only 200 is an answer", answer.status)));
        }
        if call.only_ok && answer.claims_an_error(&self.sanitizer()) {
            return Err(self.unexpected(call, "an error under a status of success"));
        }
        self.readable(call, answer)
    }

    /// What became of an effect. Everything that does not prove the opposite is an unknown fate.
    pub(super) fn effect<T: DeserializeOwned>(&self, call: &Call, sent: Sent) -> Effect<T> {
        let answer = match sent {
            Sent::NotDelivered(failure) => return Effect::NotApplied(failure),
            Sent::UnknownDelivery(failure) => return Effect::UnknownFate(failure),
            Sent::Answered(answer) => answer,
        };
        if is_success(answer.status) {
            if answer.claims_an_error(&self.sanitizer()) {
                return Effect::UnknownFate(self.unexpected(call, "an error under a status of success"));
            }
            return match self.readable(call, answer) {
                Ok(answer) => Effect::Applied(answer),
                Err(failure) => Effect::UnknownFate(failure),
            };
        }
        let failure = self.refusal(call, &answer);
        match answer.status {
            _ if is_already_active(&failure) => Effect::AlreadyActive(failure),
            // It may stand in place of the tenant's answer to an effect that was applied. The tenant itself has not refused, so the
            // effect may be tried again once its fate is settled.
            400..=499 if !proves_refusal(&answer) => Effect::UnknownFate(failure.with_retryable(true)),
            409 => Effect::Conflict(failure),
            400..=499 => Effect::NotApplied(failure),
            _ => Effect::UnknownFate(failure),
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

    fn readable<T: DeserializeOwned>(&self, call: &Call, answer: Answer) -> Result<T, Failure> {
        let status = answer.status;
        // No call asks for a range. A part looks like a whole that lacks things.
        if status == 206 {
            return Err(self.unexpected(call, "a part of the answer (206), which was not asked for"));
        }
        let problem = match answer.decode(&self.sanitizer(), call.or_empty, !call.is_anonymous()) {
            Ok(decoded) => return Ok(decoded),
            Err(problem) => problem,
        };
        let (code, problem) = match problem {
            Problem::Unexpected(problem) => ("tenant.unreadable", problem),
            Problem::TooLong(limit) if limit.is_the_setting => {
                (OVERSIZED, format!("more than the {} bytes of the setting body_limit", limit.bytes))
            }
            Problem::TooLong(limit) => (OVERSIZED, format!("more than {} bytes, which no answer to it has", limit.bytes)),
            Problem::Cut(why) => ("tenant.connection_lost", format!("a body that broke off: {why}")),
        };
        let message = format!("tenant `{}` answered {} with {problem}", self.name, call.operation);
        let source = FailureSource { http_status: Some(status), ..call.source() };
        let failure = Failure::new(code, Category::DependencyUnavailable, message).with_source(source);
        if code != OVERSIZED {
            return Err(failure);
        }
        let hint = format!("raise tenants.{}.body_limit if the tenant's answers are really so long", self.name);
        Err(failure.after(Some(OVERSIZED_WAIT)).suggest(hint))
    }

    /// A success whose fields are not what the operation promises.
    pub(super) fn unexpected(&self, call: &Call, problem: &str) -> Failure {
        let message = format!("tenant `{}` answered {} with something unexpected: {problem}", self.name, call.operation);
        Failure::new("tenant.unreadable", Category::DependencyUnavailable, message).with_source(call.source())
    }

    /// The failure that any status but a success is.
    fn refusal(&self, call: &Call, answer: &Answer) -> Failure {
        let foreign = is_foreign(answer);
        let Kind { code, category, what } = if foreign { FOREIGN } else { kind(answer.status) };
        let sanitizer = self.sanitizer();
        let Refusal { code: mut tenant_code, message: said, retry_after } = answer.refusal(&sanitizer, !call.is_anonymous());
        // The workflow service hides the engine's code in the message of a 500.
        if matches!(answer.status, 409 | 500..) && answer.mentions(ALREADY_ACTIVE, &sanitizer) {
            tenant_code = Some(ALREADY_ACTIVE.to_owned());
        }
        let credentials = self.link.credentials.as_ref();
        let held = || credentials.map_or_else(|| "these credentials".to_owned(), Credentials::name);
        let who = self.known_name().unwrap_or_else(|| format!("the holder of {}", held()));
        let mut message = format!("tenant `{}` {what} {} ({})", self.name, call.operation, answer.status);
        if answer.status == 403 && !foreign {
            message = format!("{message}: {who} needs {}", call.needs);
        }
        if let Some(said) = said {
            message = format!("{message}: {said}");
        }
        let source = FailureSource { http_status: Some(answer.status), tenant_code, ..call.source() };
        let failure = Failure::new(code, category, message).with_source(source).after(retry_after);
        match answer.status {
            401 => {
                let hint = credentials.map_or_else(String::new, |credentials| credentials.hint(&self.name));
                let retryable = self.may_still_propagate(call.operation);
                Failure { tenant_held: self.is_locked_out(), retryable, ..failure.suggest(hint) }
            }
            _ if foreign => {
                failure.suggest("check what stands between this machine and the tenant: a firewall, a proxy, a login page")
            }
            403 => failure.suggest(format!("give {who} {}, or use another key", call.needs)),
            300..=399 => failure.suggest(format!("check tenants.{}.base_url: the tenant answers from another address", self.name)),
            _ => failure,
        }
    }

    /// An operation refuses a token that the tenant accepts elsewhere.
    pub(super) fn refused_at(&self, operation: &'static str) {
        let now = self.clock.monotonic();
        self.learned(|learned| {
            let (first, last) = learned.refused_at.entry(operation).or_insert((now, now));
            // One from long ago was about another token.
            if now.saturating_sub(*last) > PROPAGATION * 2 {
                *first = now;
            }
            *last = now;
        });
    }

    /// An operation accepts our token.
    pub(super) fn accepted_at(&self, operation: &'static str) {
        self.learned(|learned| learned.refused_at.remove(operation));
    }

    fn may_still_propagate(&self, operation: &str) -> bool {
        let since = self.learned(|learned| learned.refused_at.get(operation).map(|(first, _)| *first));
        since.is_some_and(|since| self.clock.monotonic().saturating_sub(since) < PROPAGATION)
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Whether a refusal comes from something between us and the tenant: a firewall or proxy sends a page, and the API's own refusals are
/// objects. A denial must be one to count; what else the API refuses may come as plain text, as from a router that knows no such path.
fn is_foreign(answer: &Answer) -> bool {
    match answer.status {
        401 | 408 | 413 | 429 => false,
        403 => answer.form() != Form::Object,
        400..=499 => answer.form() == Form::Page,
        _ => false,
    }
}

/// Whether a refusal proves that an effect was not applied. A firewall that inspects answers sends its page after the tenant has acted, so
/// a page proves nothing under any status, nor does a denial that is no object. A router or a rate limiter that gives no page has not
/// passed the request on.
fn proves_refusal(answer: &Answer) -> bool {
    match (answer.status, answer.form()) {
        (408, _) | (_, Form::Page | Form::Unread) => false,
        (403, form) => form == Form::Object,
        (status, _) => (400..=499).contains(&status),
    }
}

const FOREIGN: Kind = Kind {
    code: "tenant.unavailable",
    category: Category::DependencyUnavailable,
    what: "did not answer itself, but something in between refused",
};

/// Whether a conflict is "a run of this workflow is active", and not "this exists already".
fn is_already_active(failure: &Failure) -> bool {
    failure.source.tenant_code.as_deref() == Some(ALREADY_ACTIVE)
}

/// Whether an answer was too long.
pub(super) fn is_oversized(failure: &Failure) -> bool {
    failure.code == OVERSIZED
}

/// Whether a smaller request may do better: the tenant refused this one, or its answer was too long.
pub(super) fn is_about_size(failure: &Failure) -> bool {
    failure.category == Category::InvalidInput || is_oversized(failure)
}

/// Whether the tenant forbade it, so that it is worth finding out who asked.
pub(super) fn is_denied(sent: &Sent) -> bool {
    matches!(sent, Sent::Answered(answer) if answer.status == 403 && !is_foreign(answer))
}

/// Whether a part of the API is not there for us: refused to us, unknown to the tenant, or a web page stands in its place. What fails for
/// a moment is not that.
pub(super) fn is_out_of_reach(sent: &Sent) -> bool {
    matches!(sent, Sent::Answered(answer) if matches!(answer.status, 300..=399 | 401 | 403..=405 | 501)
        || (matches!(answer.status, 200..=299 | 400..=499) && answer.form() == Form::Page))
}

/// Whether the tenant does not understand the request.
pub(super) fn is_bad_request(sent: &Sent) -> bool {
    matches!(sent, Sent::Answered(answer) if answer.status == 400)
}

/// Whether the tenant did not accept the token.
pub(super) fn is_unauthenticated(sent: &Sent) -> bool {
    matches!(sent, Sent::Answered(answer) if answer.status == 401)
}

/// Whether the token was not accepted, so that an effect that carried it was not applied.
pub(super) fn refuses_token(sent: &Sent) -> bool {
    matches!(sent, Sent::Answered(answer) if answer.status == 401 && proves_refusal(answer))
}

/// Whether the tenant has made up its mind: it neither failed, nor put us off, nor sent us elsewhere.
pub(super) fn is_settled(sent: &Sent) -> bool {
    matches!(sent, Sent::Answered(answer)
        if matches!(answer.status, 200..=299 | 400..=407 | 409..=428 | 430..=499) && !is_foreign(answer))
}

/// Whether it says that the tenant cannot answer now: no answer, a failure, a redirect. The refusal of a second run, hidden in a 500, is
/// an answer.
pub(super) fn is_failing(sent: &Sent, sanitizer: &Sanitizer) -> bool {
    match sent {
        Sent::Answered(answer) => answer.is_cut() || (!is_settled(sent) && !answer.mentions(ALREADY_ACTIVE, sanitizer)),
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
        Sent::Answered(answer) if matches!(answer.status, 429 | 503) => answer.wait().filter(|wait| !wait.is_zero()),
        _ => None,
    }
}

/// Whether a read that ended so may be sent again within the same attempt. One that took too long may not: it has cost enough time. A
/// redirect or a denial may be a moment's: rights and routes take a while to reach every part of a tenant. A login that is denied is not
/// repeated: that would look like guessing.
pub(super) fn worth_resending(call: &Call, sent: &Sent) -> bool {
    match sent {
        // One that was held back would be held back again.
        Sent::NotDelivered(failure) => failure.retryable && !(failure.tenant_held && failure.retry_after.is_none()),
        Sent::UnknownDelivery(failure) => failure.category != Category::Timeout,
        Sent::Answered(answer) => {
            matches!(answer.status, 429 | 502..=504)
                || (!call.is_anonymous() && (matches!(answer.status, 302 | 403) || is_foreign(answer)))
                || (is_success(answer.status) && answer.is_cut())
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
