//! One exchange with a tenant. Says what was answered or, when nothing was, whether the request can have arrived. Never sends twice,
//! and does not read the status: that is `classify`'s.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_http::HeaderInjector;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request};
use serde_json::Value;
use tokio::sync::SemaphorePermit;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::Tenant;
use super::answer::{self, Answer, Limit, Sanitizer};
use super::auth::Doubt;
use super::classify::{is_unauthenticated, refuses_token};
use super::credentials::Bearer;
use super::descriptors;
use super::link::Bases;
use super::measure;
use super::target::{encoded, leads_elsewhere};
use crate::failure::{Category, Failure, FailureSource};

/// A tenant that wants to be left alone for longer is not waited for within an attempt.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// No answer about one user, token or check is longer, in bytes.
const SMALL: usize = 256 * 1024;

/// The field of a search that names the fields to be shown.
const FIELDS: &str = "_source";

/// What a request carries.
enum Payload {
    None,
    Json(Value),
    /// `application/x-www-form-urlencoded`, already encoded.
    Form(String),
}

/// How a call stands to logins and holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It carries a token, and is not sent while the tenant is held.
    Usual,
    /// It carries a token, and finds out whether the tenant is still to be held.
    Probe,
    /// It carries no token: it asks for one.
    Anonymous,
}

/// One call of an operation. Its request id stays the same however often it is sent.
pub(super) struct Call {
    /// The operation, as in `workflows.submit`.
    pub(super) operation: &'static str,
    method: Method,
    /// What follows the base address, query included, already encoded.
    target: String,
    body: Payload,
    manner: Manner,
    /// Whether its answer is small by nature.
    is_small: bool,
    /// Whether success may come without a body.
    pub(super) or_empty: bool,
    /// Whether only a 200 that claims no error answers it.
    pub(super) only_ok: bool,
    pub(super) request_id: String,
    /// What a caller needs in order to be allowed this.
    pub(super) needs: &'static str,
}

impl Call {
    pub(super) fn get(operation: &'static str, target: impl Into<String>) -> Self {
        Self {
            operation,
            method: Method::GET,
            target: target.into(),
            body: Payload::None,
            manner: Manner::Usual,
            is_small: false,
            or_empty: false,
            only_ok: false,
            request_id: new_request_id(),
            needs: "a right that it lacks",
        }
    }

    pub(super) fn post(operation: &'static str, target: impl Into<String>, body: Option<Value>) -> Self {
        Self { method: Method::POST, body: body.map_or(Payload::None, Payload::Json), ..Self::get(operation, target) }
    }

    pub(super) fn put(operation: &'static str, target: impl Into<String>, body: Value) -> Self {
        Self { method: Method::PUT, ..Self::post(operation, target, Some(body)) }
    }

    pub(super) fn delete(operation: &'static str, target: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(operation, target) }
    }

    pub(super) fn form(operation: &'static str, target: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        Self { method: Method::POST, body: Payload::Form(fields.join("&")), ..Self::get(operation, target) }
    }

    /// A call that carries no token.
    pub(super) fn anonymous(self) -> Self {
        Self { manner: Manner::Anonymous, ..self.small() }
    }

    /// A call whose answer is small by nature.
    pub(super) fn small(self) -> Self {
        Self { is_small: true, ..self }
    }

    /// A call whose success may come without a body.
    pub(super) fn may_be_empty(self) -> Self {
        Self { or_empty: true, ..self }
    }

    /// A call that only a 200 answers, and only if it claims no error.
    pub(super) fn only_ok(self) -> Self {
        Self { only_ok: true, ..self }
    }

    /// Whether it is a search that says which fields it reads.
    pub(super) fn asks_for_fields(&self) -> bool {
        matches!(&self.body, Payload::Json(body) if body.get(FIELDS).is_some())
    }

    /// How long its answer may be.
    fn limit(&self, body_limit: usize) -> Limit {
        let is_the_setting = !self.is_small || body_limit <= SMALL;
        Limit { bytes: if is_the_setting { body_limit } else { SMALL }, is_the_setting }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.manner == Manner::Anonymous
    }

    pub(super) fn is_probe(&self) -> bool {
        self.manner == Manner::Probe
    }

    /// A call that is sent although the tenant is held.
    pub(super) fn probing(self) -> Self {
        Self { manner: Manner::Probe, ..self }
    }

    /// Sets the request id, for an effect whose id was saved before.
    pub(super) fn with_request_id(self, request_id: &str) -> Self {
        Self { request_id: request_id.to_owned(), ..self }
    }

    /// Says what a caller needs in order to be allowed this.
    pub(super) fn needs(self, needs: &'static str) -> Self {
        Self { needs, ..self }
    }

    pub(super) fn source(&self) -> FailureSource {
        FailureSource {
            operation: Some(self.operation.to_owned()),
            request_id: Some(self.request_id.clone()),
            ..FailureSource::default()
        }
    }
}

/// A fresh id for one call.
pub fn new_request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The right to have one more request in flight.
pub struct Permit<'a> {
    _held: Option<SemaphorePermit<'a>>,
}

/// How an exchange ended.
pub(super) enum Sent {
    /// A status came back.
    Answered(Answer),
    /// The request cannot have arrived.
    NotDelivered(Failure),
    /// The request may have arrived, and may have been carried out.
    UnknownDelivery(Failure),
}

impl Tenant {
    /// Waits until one more request may be in flight, and no sooner than the tenant and the settings allow one.
    pub async fn permit(&self) -> Permit<'_> {
        let early = self.pace.take(self.clock.monotonic());
        if !early.is_zero() {
            self.clock.sleep(early).await;
        }
        // The semaphore is never closed, so this waits and does not fail.
        let permit = Permit { _held: self.permits.acquire().await.ok() };
        if let Some(left) = self.left_alone_for().filter(|left| *left <= LONGEST_WAIT) {
            self.clock.sleep(left).await;
        }
        permit
    }

    /// What an effect waits for before its intent is saved, so that nothing stands between that and the request: a permit, and a token
    /// that is valid for a while. A failure if the tenant is held.
    pub async fn ready(&self, operation: &'static str) -> Result<Permit<'_>, Failure> {
        let permit = self.permit().await;
        let call = Call::get(operation, "");
        match self.held_back(&call) {
            Some(failure) => Err(failure),
            None => self.bearer(&call).await.map(|_| permit),
        }
    }

    /// Sends a call that changes nothing, or that may be repeated. After a 401 it is sent once more with another token, if there is one.
    pub(super) async fn send(&self, call: &Call) -> Sent {
        if call.is_anonymous() {
            // Whoever asks for a token has a permit already; waiting for a second one could wait for ever.
            return self.exchange(call, None).await;
        }
        let _permit = self.permit().await;
        // Boxed for the same reason as reads are.
        Box::pin(self.deliver(call, is_unauthenticated)).await
    }

    /// Sends an effect. Only after a 401 that proves that nothing was carried out is it sent once more, with another token.
    pub(super) async fn send_effect(&self, _permit: Permit<'_>, call: &Call) -> Sent {
        Box::pin(self.deliver(call, refuses_token)).await
    }

    /// `may_resend`: whether an answer allows that the call is sent with another token.
    async fn deliver(&self, call: &Call, may_resend: fn(&Sent) -> bool) -> Sent {
        if leads_elsewhere(&call.target) {
            let message = format!("{} cannot be asked: a name in its address is empty or consists of dots", call.operation);
            let failure = Failure::new("request.invalid", Category::InvalidInput, message).with_source(call.source());
            return Sent::NotDelivered(failure);
        }
        if let Some(failure) = self.refuses(call) {
            return Sent::NotDelivered(failure);
        }
        let bearer = match self.bearer(call).await {
            Ok(bearer) => bearer,
            Err(failure) => return Sent::NotDelivered(failure),
        };
        let mut sent = self.exchange(call, Some(&bearer)).await;
        if is_unauthenticated(&sent) {
            match self.renew(call, &bearer).await {
                _ if !may_resend(&sent) => {}
                Ok(Some(newer)) => sent = self.exchange(call, Some(&newer)).await,
                Ok(None) => {}
                Err(failure) => return Sent::NotDelivered(failure),
            }
        }
        let Some(failure) = self.unauthenticated(call, &sent) else {
            self.accepted_at(call.operation);
            return sent;
        };
        if !may_resend(&sent) {
            return sent;
        }
        match self.doubt(call, &failure).await {
            Doubt::Unknown => Sent::NotDelivered(failure.holding_tenant()),
            // It may have been let in again since.
            Doubt::Known(bearer) => {
                let sent = self.exchange(call, Some(&bearer)).await;
                if is_unauthenticated(&sent) {
                    self.refused_at(call.operation);
                } else {
                    self.accepted_at(call.operation);
                }
                sent
            }
            Doubt::Unsettled => Sent::NotDelivered(failure.with_retryable(true)),
        }
    }

    /// One exchange in a span of its own. Whatever time the tenant asks for is heeded by all that follow.
    pub(super) async fn exchange(&self, call: &Call, bearer: Option<&Bearer>) -> Sent {
        let request = match self.request(call, bearer) {
            Ok(request) => request,
            Err(failure) => return Sent::NotDelivered(failure),
        };
        let span = tracing::info_span!(
            "tenant.request",
            otel.name = format!("{} {}", call.method, call.operation),
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = %call.method,
            server.address = request.url().host_str(),
            url.path = request.url().path(),
            http.response.status_code = Empty,
            error.type = Empty,
        );
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let began = self.clock.monotonic();
        let sent = self.bounded(call, request).instrument(span.clone()).await;
        let outcome = measure::outcome(&span, &sent);
        measure::exchange(&call.method, host, outcome, self.clock.monotonic().saturating_sub(began));
        self.heed(call, &sent);
        sent
    }

    async fn bounded(&self, call: &Call, mut request: Request) -> Sent {
        let context = Span::current().context();
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut HeaderInjector(request.headers_mut()));
        });
        tokio::select! {
            biased;
            sent = self.transfer(call, request) => sent,
            () = self.clock.deadline(self.settings.request_timeout) => {
                let limit = crate::duration::format(self.settings.request_timeout);
                let message = format!("tenant `{}` gave no answer to {} within {limit}", self.name, call.operation);
                Sent::UnknownDelivery(Failure::new("tenant.timeout", Category::Timeout, message).with_source(call.source()))
            }
        }
    }

    async fn transfer(&self, call: &Call, request: Request) -> Sent {
        let sent = self.clock.monotonic();
        let response = match self.execute(request).await {
            Ok(response) => response,
            Err(error) => return self.undelivered(call, &error.without_url()),
        };
        let (received, took) = (self.clock.now(), self.clock.monotonic().saturating_sub(sent));
        let (limit, sanitizer) = (call.limit(self.settings.body_limit), self.sanitizer());
        let answer = answer::receive(response, limit, &self.large, &sanitizer, || self.clock.now()).await;
        // Who hands out tokens may have another clock than what dates the runs.
        if let Some(date) = answer.date.filter(|_| !call.is_anonymous()) {
            self.learn_clock(date, received, took);
        }
        Sent::Answered(answer)
    }

    /// What removes our secrets from a text of the tenant.
    pub(super) fn sanitizer(&self) -> Arc<Sanitizer> {
        self.link.credentials.as_ref().map_or_else(Arc::default, super::credentials::Credentials::sanitizer)
    }

    fn undelivered(&self, call: &Call, error: &reqwest::Error) -> Sent {
        let failure = |code, what: &str| {
            let message =
                format!("tenant `{}` {what} ({}): {}", self.name, call.operation, answer::describe(error, &self.sanitizer()));
            self.diagnosed(Failure::new(code, Category::DependencyUnavailable, message).with_source(call.source()), error)
        };
        if descriptors::lacks_descriptors(error) {
            Sent::NotDelivered(self.without_descriptor(call))
        } else if error.is_connect() {
            Sent::NotDelivered(failure("tenant.unreachable", "could not be reached"))
        } else if error.is_builder() {
            Sent::NotDelivered(failure("tenant.unreachable", "cannot be asked"))
        } else {
            Sent::UnknownDelivery(failure("tenant.connection_lost", "broke off before it answered"))
        }
    }

    /// Where to send a call.
    pub(super) fn bases(&self, call: &Call) -> Result<&Bases, Failure> {
        self.link.bases.as_ref().ok_or_else(|| {
            Failure::new("tenant.unconfigured", Category::Precondition, format!("tenant `{}` has no base_url", self.name))
                .suggest(format!("set tenants.{}.base_url (ATLAN_BASE_URL for the tenant `default`)", self.name))
                .with_source(call.source())
        })
    }

    fn request(&self, call: &Call, bearer: Option<&Bearer>) -> Result<Request, Failure> {
        let bases = self.bases(call)?;
        let broken = |error: &dyn Error| {
            Failure::new("request.invalid", Category::Internal, format!("{} cannot be asked: {error}", call.operation))
                .with_source(call.source())
        };
        let url = bases.resolve(&call.target).map_err(|error| broken(&error))?;
        let mut request = Request::new(call.method.clone(), url);
        let request_id = HeaderValue::from_str(&call.request_id).map_err(|error| broken(&error))?;
        request.headers_mut().insert("x-atlan-request-id", request_id);
        if let Some(bearer) = bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.header.clone());
        }
        match &call.body {
            Payload::None => {}
            Payload::Json(body) => {
                let mut body = std::borrow::Cow::Borrowed(body);
                if call.asks_for_fields() && self.searches_are_plain() {
                    body.to_mut().as_object_mut().and_then(|body| body.remove(FIELDS));
                }
                *request.body_mut() = Some(serde_json::to_vec(&*body).map_err(|error| broken(&error))?.into());
            }
            Payload::Form(form) => {
                let form_type = HeaderValue::from_static("application/x-www-form-urlencoded;charset=UTF-8");
                request.headers_mut().insert(CONTENT_TYPE, form_type);
                *request.body_mut() = Some(form.clone().into());
            }
        }
        Ok(request)
    }
}
