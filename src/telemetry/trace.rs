//! The spans of a job's life and the event of its end. Enqueueing is `send`, an attempt is `process`; the stored W3C context ties them
//! together, as the parent and as a link, so that both kinds of viewers find the way.

use std::collections::HashMap;

use iolaus_activities::{Status, VerdictRecord};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::names::{self, attribute, operation};
use crate::job::{JobId, RunId, TraceContext, cut, limits};

/// The root of a command that enqueues. Its parent is the caller's trace, if `TRACEPARENT` names one.
pub fn command_span(command: &str) -> Span {
    let span = info_span!("command", otel.name = format!("iolaus {command}"), otel.kind = "internal");
    adopt(&span, caller().as_ref());
    span
}

/// Enqueueing. A child of the current span; without one, of the caller's trace, if `TRACEPARENT` names one. Its context is what the
/// job carries.
pub fn send_span(activity: &str, tenant: &str) -> Span {
    // Nothing was checked yet: what is refused in a moment may be of any length.
    let (activity, tenant) = (&*cut(activity, limits::NAME), &*cut(tenant, limits::NAME));
    let inherited = if Span::current().is_none() { caller() } else { None };
    let span = info_span!(
        "send",
        otel.name = format!("send {activity}"),
        otel.kind = "producer",
        { attribute::SYSTEM } = names::SERVICE,
        { attribute::OPERATION_NAME } = operation::SEND,
        { attribute::OPERATION_TYPE } = operation::SEND,
        { attribute::DESTINATION } = activity,
        { attribute::TENANT } = tenant,
        { attribute::JOB_ID } = Empty,
        { attribute::ERROR_TYPE } = Empty,
        otel.status_code = Empty,
    );
    adopt(&span, inherited.as_ref());
    span
}

/// One attempt. Parent and link is the context that the job carries. How it ended is told by [`record_outcome`].
pub fn process_span(trace: &TraceContext, activity: &str, tenant: &str, job_id: &JobId, run_id: RunId, attempt: u32) -> Span {
    let span = info_span!(
        parent: None,
        "process",
        otel.name = format!("process {activity}"),
        otel.kind = "consumer",
        { attribute::SYSTEM } = names::SERVICE,
        { attribute::OPERATION_NAME } = operation::PROCESS,
        { attribute::OPERATION_TYPE } = operation::PROCESS,
        { attribute::DESTINATION } = activity,
        { attribute::TENANT } = tenant,
        { attribute::JOB_ID } = %job_id,
        { attribute::RUN_ID } = %run_id,
        { attribute::ATTEMPT } = attempt,
        { attribute::OUTCOME } = Empty,
        { attribute::ERROR_TYPE } = Empty,
        otel.status_code = Empty,
    );
    let context = remote(trace);
    span.add_link(context.span().span_context().clone());
    adopt(&span, Some(trace));
    span
}

/// Says how an attempt ended. `error_type` is an HTTP status or a failure code, and only given on failure.
pub fn record_outcome(span: &Span, outcome: &str, error_type: Option<&str>) {
    span.record(attribute::OUTCOME, outcome);
    if let Some(error_type) = error_type {
        span.record(attribute::ERROR_TYPE, error_type);
        span.record("otel.status_code", "ERROR");
    }
}

/// Says how long a job waited, from being due to this attempt. Nobody executes the wait, so it is no span.
pub fn record_wait(span: &Span, waited: std::time::Duration) {
    span.set_attribute(attribute::WAIT, waited.as_secs_f64());
}

/// The W3C context of a span; one of its own when nothing traces.
pub fn context_of(span: &Span) -> TraceContext {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    let tracestate = carrier.remove("tracestate").filter(|state| !state.is_empty());
    match carrier.remove("traceparent") {
        Some(traceparent) => TraceContext { traceparent, tracestate },
        None => TraceContext::generate(),
    }
}

/// The one event of a closed job, with its whole verdict, also as JSON. Emitted after the verdict was stored.
pub fn verdict_event(verdict: &VerdictRecord, json: &str) {
    macro_rules! emit {
        ($level:ident) => {
            tracing::$level!(
                name: names::VERDICT_EVENT,
                target: names::VERDICT_TARGET,
                {
                    { attribute::JOB_ID } = verdict.job_id,
                    { attribute::RUN_ID } = verdict.run_id,
                    { attribute::DESTINATION } = verdict.activity,
                    { attribute::TENANT } = verdict.tenant,
                    { attribute::STATUS } = verdict.status.as_str(),
                    { attribute::ATTEMPTS } = verdict.attempts,
                    { attribute::TRACE_ID } = verdict.trace_id,
                    { attribute::VERDICT } = json,
                },
                "{}: {} {} is {}", names::VERDICT_EVENT, verdict.activity, verdict.job_id, verdict.status.as_str()
            )
        };
    }
    if verdict.status == Status::Unresolved { emit!(warn) } else { emit!(info) }
}

/// The trace that whoever started this process is in, by the W3C's environment variables.
fn caller() -> Option<TraceContext> {
    let traceparent = std::env::var("TRACEPARENT").ok()?;
    Some(TraceContext { traceparent, tracestate: std::env::var("TRACESTATE").ok() })
}

fn remote(trace: &TraceContext) -> Context {
    let mut carrier = HashMap::from([("traceparent".to_owned(), trace.traceparent.clone())]);
    carrier.extend(trace.tracestate.clone().map(|state| ("tracestate".to_owned(), state)));
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

fn adopt(span: &Span, parent: Option<&TraceContext>) {
    let Some(context) = parent.map(remote) else { return };
    if context.span().span_context().is_valid() {
        // It fails when nothing traces, and then there is no parent to set.
        span.set_parent(context).ok();
    }
}
