//! The ledger of what was really applied, and the log of every exchange. Both keep the newest entries only.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::time;

/// A logged request body is kept up to this size; a larger one is logged as null.
const MAX_LOGGED_BODY: usize = 64 * 1024;
/// The request log keeps at most so many bytes of bodies.
const MAX_LOGGED_BYTES: usize = 64 * 1024 * 1024;

/// One change of the tenant that was really applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// When, by the sandbox's clock: RFC 3339 with milliseconds.
    pub at: String,
    /// What, tagged `kind` in JSON.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of [`Effect`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the field names are the ledger's own words")]
pub enum What {
    /// A run was started.
    RunSubmitted { run: String, workflow: String, by: String, endpoint: String, request_id: Option<String> },
    /// A run was stopped before its end.
    RunStopped { run: String, by: String },
    /// A workflow template was stored under a new name.
    WorkflowCreated { workflow: String, by: String },
    /// A workflow template was changed.
    WorkflowUpdated { workflow: String, by: String },
    /// A workflow template was archived.
    WorkflowArchived { workflow: String, by: String },
    /// A workflow has another owner.
    OwnerChanged { workflow: String, before: String, after: String, by: String },
    /// A connection was created; its creator is one of the admins.
    ConnectionCreated { connection: String, admins: Vec<String>, by: String },
    /// A connection's admin users were replaced through the metastore.
    AdminsReplaced { connection: String, before: Vec<String>, after: Vec<String>, by: String },
    /// A run of the token-admin package added an admin; `pruned` names admins dropped because they no longer exist.
    AdminGrantedByRun {
        connection: String,
        user: String,
        run: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pruned: Vec<String>,
    },
    /// A workflow was made of an app.
    AppCreated { slug: String, name: String, by: String },
    /// The inputs of an app's workflow were replaced.
    AppUpdated { slug: String, version: i64, by: String },
    /// An app's workflow was deleted.
    AppDeleted { slug: String, by: String },
    /// An app's workflow was given a schedule.
    AppScheduled { slug: String, trigger: String, cron: String, timezone: String, by: String },
    /// A schedule of an app's workflow was removed.
    AppUnscheduled { slug: String, trigger: String, by: String },
    /// A run of an app's workflow was started.
    AppRunSubmitted { run: String, slug: String, by: String, request_id: Option<String> },
    /// A run of an app's workflow was cancelled before its end.
    AppRunCancelled { run: String, slug: String, by: String },
    /// An OAuth client was created.
    #[serde(rename = "oauth_client_created")]
    OAuthClientCreated { client: String, display_name: String, by: String, request_id: Option<String> },
    /// The display name or description of an OAuth client was changed.
    #[serde(rename = "oauth_client_updated")]
    OAuthClientUpdated { client: String, by: String },
    /// An OAuth client was purged, and its tokens with it.
    #[serde(rename = "oauth_client_purged")]
    OAuthClientPurged { client: String, by: String },
    /// An API token was created.
    ApiTokenCreated { token: String, display_name: String, by: String },
    /// An API token was changed.
    ApiTokenUpdated { token: String, by: String },
    /// An API token was purged.
    ApiTokenPurged { token: String, by: String },
    /// A credential of a source was stored.
    CredentialCreated { credential: String, by: String },
    /// A credential of a source was changed.
    CredentialUpdated { credential: String, by: String },
    /// A credential of a source was purged.
    CredentialPurged { credential: String, by: String },
}

/// Effects, oldest first, bounded.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: VecDeque<Effect>,
    limit: usize,
}

impl Ledger {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), limit }
    }

    pub(super) fn record(&mut self, at: i64, what: What) {
        self.entries.push_back(Effect { at: time::precise(at), what });
        while self.entries.len() > self.limit {
            self.entries.pop_front();
        }
    }

    pub(super) fn snapshot(&self) -> Vec<Effect> {
        self.entries.iter().cloned().collect()
    }
}

/// One request and how it was answered. The value of a bearer or a secret is never kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// Number of the exchange, counted from 1 over the sandbox's life.
    pub n: u64,
    /// HTTP method.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// User name behind the bearer; null: none, or an unknown one.
    pub principal: Option<String>,
    /// Whether there was an `authorization` header at all.
    pub authorization: bool,
    /// Header `user-agent`.
    pub user_agent: Option<String>,
    /// Header `x-atlan-request-id`.
    pub request_id: Option<String>,
    /// Header `traceparent`.
    pub traceparent: Option<String>,
    /// Header `content-type`.
    pub content_type: Option<String>,
    /// Header `accept`.
    pub accept: Option<String>,
    /// Header `accept-encoding`.
    #[serde(default)]
    pub accept_encoding: Option<String>,
    /// The JSON body, or a form as an object of strings; secrets in it are struck out. Null: none, neither, or larger than 64 KiB.
    pub body: Value,
    /// Status answered; null while there is no answer, and when the connection was cut.
    pub status: Option<u16>,
    /// Name of the fault that hit this exchange.
    pub fault: Option<String>,
}

/// Exchanges, oldest first, bounded in number and bytes.
#[derive(Debug)]
pub(super) struct RequestLog {
    entries: VecDeque<(Exchange, usize)>,
    bytes: usize,
    limit: usize,
    count: u64,
}

impl RequestLog {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit, count: 0 }
    }

    /// Logs an exchange under the next number and answers that number.
    pub(super) fn arrive(&mut self, mut exchange: Exchange, body_bytes: usize) -> u64 {
        self.count += 1;
        exchange.n = self.count;
        let kept = if body_bytes > MAX_LOGGED_BODY {
            exchange.body = Value::Null;
            0
        } else {
            body_bytes
        };
        self.bytes += kept;
        self.entries.push_back((exchange, kept));
        while self.entries.len() > self.limit || self.bytes > MAX_LOGGED_BYTES {
            let Some((_, freed)) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= freed;
        }
        self.count
    }

    /// Notes the answer of exchange `n`, if it is still kept.
    pub(super) fn answered(&mut self, n: u64, status: u16) {
        let Some(first) = self.entries.front().map(|(exchange, _)| exchange.n) else {
            return;
        };
        let Some(index) = n.checked_sub(first).and_then(|index| usize::try_from(index).ok()) else {
            return;
        };
        if let Some((exchange, _)) = self.entries.get_mut(index) {
            exchange.status = Some(status);
        }
    }

    pub(super) fn snapshot(&self) -> Vec<Exchange> {
        self.entries.iter().map(|(exchange, _)| exchange.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_the_newest_and_still_finds_them_by_number() {
        let mut log = RequestLog::new(2);
        for _ in 0..3 {
            log.arrive(Exchange::default(), 10);
        }
        log.answered(1, 500);
        log.answered(3, 200);
        let kept: Vec<_> = log.snapshot().iter().map(|exchange| (exchange.n, exchange.status)).collect();
        assert_eq!(kept, [(2, None), (3, Some(200))]);
    }

    #[test]
    fn a_large_body_is_logged_as_null() {
        let mut log = RequestLog::new(2);
        log.arrive(Exchange { body: Value::Bool(true), ..Exchange::default() }, MAX_LOGGED_BODY + 1);
        assert_eq!(log.snapshot()[0].body, Value::Null);
    }

    #[test]
    fn an_effect_is_tagged_with_its_kind() {
        let mut ledger = Ledger::new(1);
        ledger.record(0, What::RunStopped { run: "a".into(), by: "jane".into() });
        let json = serde_json::to_value(ledger.snapshot()).expect("serializes");
        assert_eq!(json[0]["kind"], "run_stopped");
        assert_eq!(json[0]["at"], "1970-01-01T00:00:00.000Z");
    }
}
