//! What a fault does to an exchange.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The largest body that [`Action::Huge`] answers: 1 GiB.
const MAX_HUGE: u64 = 1 << 30;
/// The deepest nesting that [`Action::Deep`] answers.
const MAX_DEPTH: u32 = 1_000_000;

/// What happens to an exchange that a [`Fault`](super::Fault) hits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// This answer; the request is not applied.
    Status {
        /// HTTP status, 200 to 599.
        status: u16,
        /// Further headers, such as `retry-after`.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The JSON body; null: a body that names the status.
        #[serde(default)]
        body: Value,
    },
    /// The request is applied, then this answer is given in place of its own.
    StatusAfterApplying {
        /// HTTP status, 200 to 599.
        status: u16,
        /// The JSON body; null: a body that names the status.
        #[serde(default)]
        body: Value,
    },
    /// The connection is closed without a byte; the request is not applied.
    CutBeforeApplying,
    /// The request is applied, then the connection is closed without a byte.
    CutAfterApplying,
    /// 200 with a body that is no JSON; the request is not applied.
    Garbage,
    /// The request is applied, then 200 with a body that is no JSON.
    GarbageAfterApplying,
    /// The request is applied at once, its answer leaves so much later.
    Delay {
        /// Milliseconds: real time, unless [`SandboxOptions::sleep`](crate::sandbox::SandboxOptions::sleep) says otherwise.
        ms: u64,
    },
    /// 200 with a text page that shows every header of the request, as a debugging proxy does.
    EchoHeaders {
        /// Whether the request is applied.
        #[serde(default)]
        apply: bool,
    },
    /// A login page in HTML.
    WebPage {
        /// HTTP status, 200 to 599. Default 200.
        #[serde(default = "ok")]
        status: u16,
        /// Whether the request is applied.
        #[serde(default)]
        apply: bool,
    },
    /// This body as it is; the rest as for `status`.
    Raw {
        /// HTTP status, 200 to 599. Default 200.
        #[serde(default = "ok")]
        status: u16,
        /// Further headers; `content-type` is `application/json` unless it is here.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body, which need not be JSON.
        body: String,
        /// Whether the request is applied.
        #[serde(default)]
        apply: bool,
    },
    /// 200 with a JSON document of this size; the request is not applied.
    Huge {
        /// Size before compression, 1 to 2^30.
        bytes: u64,
        /// Whether it is compressed, asked or not.
        #[serde(default)]
        gzip: bool,
    },
    /// 200 with JSON arrays, one within the other; the request is not applied.
    Deep {
        /// How many, 1 to 1,000,000.
        depth: u32,
    },
    /// The route's own answer, compressed, asked or not.
    Gzip,
    /// The route's own answer after a byte order mark.
    Bom,
    /// The route's own answer in ISO 8859-1, and its content type says so.
    Latin1,
    /// The route's own answer, whose `content-length` is wrong by so much: the body seems cut, or its end is.
    WrongLength {
        /// What is added to the true length; never to less than 0.
        delta: i64,
    },
    /// The route's own answer, of which one half arrives and then nothing, while the connection stays open.
    Stall,
    /// The route's own answer below a key of its own, as some gateways wrap it.
    Wrap {
        /// The key.
        key: String,
    },
    /// The route's own answer without a `Date` header.
    NoDate,
    /// The route's own answer, in which a failed check stands beside `passed: true`.
    Contradiction,
    /// The route's own answer with half of the elements of its page (rounded up), while its totals stay.
    ShortPage,
    /// The route's own answer with null in place of a list of results, and totals of 0.
    NullHits,
    /// The route's own answer, in which the first role has no name but null.
    NullName,
    /// The route's own answer, changed by a JSON merge patch (RFC 7396).
    Patch {
        /// The patch.
        patch: Value,
    },
    /// Never an answer; the request is not applied. Ends when the client goes away or the sandbox stops.
    Hang,
    /// The package run that this submit starts succeeds and grants nothing.
    SwallowGrant,
    /// The run that this submit starts ends in this phase.
    EndAs {
        /// Any phase, also one that clients do not know.
        phase: String,
        /// What `status.message` then says.
        #[serde(default)]
        message: Option<String>,
    },
    /// This search is answered from the index as it was 60 s ago.
    StaleIndex,
}

fn ok() -> u16 {
    200
}

impl Action {
    /// The name under which a fired fault stands in the request log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::StatusAfterApplying { .. } => "status_after_applying",
            Self::CutBeforeApplying => "cut_before_applying",
            Self::CutAfterApplying => "cut_after_applying",
            Self::Garbage => "garbage",
            Self::GarbageAfterApplying => "garbage_after_applying",
            Self::Delay { .. } => "delay",
            Self::EchoHeaders { .. } => "echo_headers",
            Self::WebPage { .. } => "web_page",
            Self::Raw { .. } => "raw",
            Self::Huge { .. } => "huge",
            Self::Deep { .. } => "deep",
            Self::Gzip => "gzip",
            Self::Bom => "bom",
            Self::Latin1 => "latin1",
            Self::WrongLength { .. } => "wrong_length",
            Self::Stall => "stall",
            Self::Wrap { .. } => "wrap",
            Self::NoDate => "no_date",
            Self::Contradiction => "contradiction",
            Self::ShortPage => "short_page",
            Self::NullHits => "null_hits",
            Self::NullName => "null_name",
            Self::Patch { .. } => "patch",
            Self::Hang => "hang",
            Self::SwallowGrant => "swallow_grant",
            Self::EndAs { .. } => "end_as",
            Self::StaleIndex => "stale_index",
        }
    }

    /// A fault of runs is not spent on an exchange that starts none, nor a fault of searches on another.
    pub(super) fn concerns(&self, method: &str, target: &str) -> bool {
        let path = target.split('?').next().unwrap_or_default().trim_end_matches('/');
        match self {
            Self::SwallowGrant | Self::EndAs { .. } => {
                let starts = ["/submit", "/triggerAsOwner", "workflows", "/v1/app"];
                method == "POST" && starts.iter().any(|end| path.ends_with(end))
            }
            Self::StaleIndex => path.ends_with("/indexsearch"),
            _ => true,
        }
    }

    /// Whether the fault can be played at all.
    pub(in crate::sandbox) fn check(&self) -> Result<(), String> {
        match self {
            Self::Status { status, .. }
            | Self::StatusAfterApplying { status, .. }
            | Self::WebPage { status, .. }
            | Self::Raw { status, .. }
                if !(200..=599).contains(status) =>
            {
                Err(format!("status {status} is not between 200 and 599"))
            }
            Self::Status { headers, .. } | Self::Raw { headers, .. } => sendable(headers),
            Self::Huge { bytes, .. } if !(1..=MAX_HUGE).contains(bytes) => {
                Err(format!("bytes {bytes} is not between 1 and {MAX_HUGE}"))
            }
            Self::Deep { depth } if !(1..=MAX_DEPTH).contains(depth) => {
                Err(format!("depth {depth} is not between 1 and {MAX_DEPTH}"))
            }
            _ => Ok(()),
        }
    }
}

fn sendable(headers: &[(String, String)]) -> Result<(), String> {
    headers.iter().try_for_each(|(name, value)| {
        let named = hyper::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if named && hyper::header::HeaderValue::from_str(value).is_ok() {
            Ok(())
        } else {
            Err(format!("header {name:?} cannot be sent"))
        }
    })
}
