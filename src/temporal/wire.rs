//! How our values travel in Temporal's messages: JSON payloads, the header of a job, what a heartbeat carries. Stored by the server:
//! names and fields are forever.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use iolaus_activities::{ActivityOptions, timestamp};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use temporalio_common::protos::temporal::api::common::v1::{Header, Payload, Payloads};

use crate::job::TraceContext;

/// The header field that carries [`Meta`].
pub(super) const META: &str = "iolaus";
/// The header field in which Temporal's SDKs carry the W3C context of OpenTelemetry, as a JSON map.
pub(super) const TRACER: &str = "_tracer-data";
/// What the server's `start_to_close` has beyond ours, so that ours fires first and says why.
pub(super) const BEYOND: Duration = Duration::from_secs(30);

/// What a job has and Temporal has no field for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(expecting = "an object that says something about the job, as in {\"tenant\": \"default\"}")]
pub(super) struct Meta {
    /// The version of its input; the newest that the worker knows when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<u32>,
    /// The tenant's name; `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    /// The options as they were resolved; those of the call when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) options: Option<ActivityOptions>,
    /// Names and values for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    /// The trace it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trace: Option<TraceContext>,
    /// For how long it was delayed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "iolaus_activities::duration::optional")]
    pub(super) delay: Option<Duration>,
}

/// What a caller may say of a job as an argument, where a field that is not known is a mistake; in a header it is one of a newer build.
const SAID: [&str; 6] = ["version", "tenant", "options", "labels", "trace", "delay"];

impl Meta {
    /// Out of the second argument of a call.
    pub(super) fn said(argument: &Payload) -> Result<Option<Self>, String> {
        let value: Value = decoded(argument)?;
        if let Some(unknown) = value.as_object().and_then(|fields| fields.keys().find(|field| !SAID.contains(&field.as_str()))) {
            return Err(format!("unknown field `{unknown}`, expected one of {}", SAID.join(", ")));
        }
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    /// As a header, with the trace where other SDKs look for it, too.
    pub(super) fn header(&self) -> Header {
        let mut fields = HashMap::from([(META.to_owned(), payload(self))]);
        if let Some(trace) = &self.trace {
            fields.insert(TRACER.to_owned(), payload(&tracer_data(trace)));
        }
        Header { fields }
    }

    /// Out of a header: ours if it is there, and the trace of whoever called.
    pub(super) fn of(fields: &HashMap<String, Payload>) -> Result<Self, String> {
        let mut meta = match fields.get(META) {
            None => Self::default(),
            Some(found) => decoded(found).map_err(|error| format!("the header `{META}` does not decode: {error}"))?,
        };
        if meta.trace.is_none() {
            meta.trace = fields.get(TRACER).and_then(|found| decoded::<BTreeMap<String, String>>(found).ok()).and_then(trace_of);
        }
        Ok(meta)
    }
}

fn tracer_data(trace: &TraceContext) -> BTreeMap<&'static str, &str> {
    let state = trace.tracestate.as_deref().map(|state| ("tracestate", state));
    [("traceparent", trace.traceparent.as_str())].into_iter().chain(state).collect()
}

fn trace_of(mut fields: BTreeMap<String, String>) -> Option<TraceContext> {
    let traceparent = fields.remove("traceparent").filter(|parent| parent.split('-').nth(1).is_some_and(|id| id.len() == 32))?;
    Some(TraceContext { traceparent, tracestate: fields.remove("tracestate").filter(|state| !state.is_empty()) })
}

/// What a heartbeat carries: the checkpoint for the next attempt, and what people are shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Details {
    /// What the activity saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) checkpoint: Option<Value>,
    /// What it reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) progress: Option<Value>,
    /// Since when nothing has changed, if that is long.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::optional")]
    pub(super) stalled_since: Option<Timestamp>,
    /// When the first attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::optional")]
    pub(super) started_at: Option<Timestamp>,
}

/// A value as every SDK's default converter writes it.
pub(super) fn payload(value: &impl Serialize) -> Payload {
    Payload {
        metadata: HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]),
        // Plain data of our own always serialises.
        data: serde_json::to_vec(value).unwrap_or_default(),
        external_payloads: Vec::new(),
    }
}

/// One value as arguments or as a result.
pub(super) fn payloads(value: &impl Serialize) -> Payloads {
    Payloads { payloads: vec![payload(value)] }
}

/// A value out of JSON, whoever wrote it.
pub(super) fn decoded<T: DeserializeOwned>(payload: &Payload) -> Result<T, String> {
    match payload.metadata.get("encoding").map(Vec::as_slice) {
        Some(b"json/plain") => serde_json::from_slice(&payload.data).map_err(|error| error.to_string()),
        Some(b"binary/null") => serde_json::from_value(Value::Null).map_err(|error| error.to_string()),
        other => {
            let found = other.map_or_else(|| "none".into(), String::from_utf8_lossy);
            Err(format!("its encoding is {found}, and json/plain is expected"))
        }
    }
}

/// The first of some payloads.
pub(super) fn first<T: DeserializeOwned>(payloads: Option<&Payloads>) -> Option<T> {
    payloads.and_then(|all| all.payloads.first()).and_then(|first| decoded(first).ok())
}

/// A detail of a refused call.
pub(super) fn detail<T: prost::Message + Default>(details: &[u8], name: &str) -> Option<T> {
    use prost::Message as _;
    let status = temporalio_common::protos::google::rpc::Status::decode(details).ok()?;
    let found = status.details.iter().find(|any| any.type_url.ends_with(name))?;
    T::decode(found.value.as_slice()).ok()
}

/// A length of time as the server takes it.
pub(super) fn proto(duration: Duration) -> prost_wkt_types::Duration {
    // Everything that passed the door fits.
    prost_wkt_types::Duration::try_from(duration).unwrap_or_default()
}

/// A length of time as the server gives it; zero is none.
pub(super) fn length(duration: Option<&prost_wkt_types::Duration>) -> Option<Duration> {
    duration.and_then(|duration| Duration::try_from(*duration).ok()).filter(|duration| !duration.is_zero())
}

/// A moment as the server gives it, to the millisecond.
pub(super) fn moment(at: Option<&prost_wkt_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()).and_then(|at| Timestamp::from_millisecond(at.as_millisecond()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_has_of_its_own_comes_out_of_its_header_as_it_went_in() {
        let meta = Meta {
            version: Some(2),
            tenant: Some("acme".into()),
            options: Some(ActivityOptions::default()),
            labels: BTreeMap::from([("team".to_owned(), "data".to_owned())]),
            trace: Some(TraceContext::generate()),
            delay: Some(Duration::from_secs(3)),
        };
        assert_eq!(Meta::of(&meta.header().fields).unwrap(), meta);
    }

    #[test]
    fn the_trace_of_another_sdk_is_joined_and_nonsense_is_none() {
        let of = |data: Value| Meta::of(&HashMap::from([(TRACER.to_owned(), payload(&data))])).unwrap().trace;
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let found = of(serde_json::json!({"traceparent": parent, "tracestate": "a=b"})).unwrap();
        assert_eq!((found.traceparent.as_str(), found.tracestate.as_deref()), (parent, Some("a=b")));
        assert_eq!(of(serde_json::json!({"traceparent": "nonsense"})), None);
        assert_eq!(of(serde_json::json!([1])), None);
    }

    #[test]
    fn a_header_of_ours_that_does_not_decode_is_told() {
        let of = |value: Value| Meta::of(&HashMap::from([(META.to_owned(), payload(&value))]));
        assert!(of(serde_json::json!({"tenant": 7})).unwrap_err().contains("iolaus"));
        // A newer build may say more.
        assert_eq!(of(serde_json::json!({"tenant": "acme", "later": 1})).unwrap().tenant.as_deref(), Some("acme"));
        assert!(Meta::said(&payload(&serde_json::json!({"tennant": "acme"}))).unwrap_err().contains("tennant"));
        assert_eq!(Meta::said(&payload(&Value::Null)).unwrap(), None);
        let foreign = Payload { metadata: HashMap::from([("encoding".into(), b"binary/plain".to_vec())]), ..Payload::default() };
        assert!(decoded::<Value>(&foreign).unwrap_err().contains("binary/plain"));
    }
}
