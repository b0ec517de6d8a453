//! The tenant's state behind every route, and how a route reaches it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Extension;
use axum::extract::{RawPathParams, State};
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::Value;

use super::answer::{Reply, respond};
use super::apps::Apps;
use super::connections::Connection;
use super::faults::Action;
use super::identity::{Principal, User};
use super::keycloak::KeycloakClient;
use super::keys::Keys;
use super::ledger::Ledger;
use super::oauth_clients::OAuthClient;
use super::personas::Persona;
use super::runs::{Ending, Runs};
use super::stored_credentials::StoredCredential;
use super::tokens::ApiToken;
use super::workflows::Workflow;
use super::{AlreadyActive, AutomationAccess, Generation, grant};

/// A stale index is the index as it was so long ago, in milliseconds.
const STALE_BY: i64 = 60_000;
/// Old versions of one document that are kept for a lagging index.
const KEPT_VERSIONS: usize = 64;

/// What a tenant knows. One lock guards it; no route awaits while holding it.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) settings: Settings,
    pub(super) principals: Vec<Arc<Principal>>,
    pub(super) keys: Keys,
    pub(super) oauth_clients: Vec<OAuthClient>,
    pub(super) keycloak: Vec<KeycloakClient>,
    pub(super) personas: Vec<Persona>,
    pub(super) users: Vec<User>,
    pub(super) tokens: Vec<ApiToken>,
    pub(super) credentials: Vec<StoredCredential>,
    pub(super) connections: BTreeMap<String, Connection>,
    pub(super) workflows: BTreeMap<String, Workflow>,
    pub(super) runs: Runs,
    pub(super) apps: Apps,
    pub(super) ledger: Ledger,
}

/// How the tenant behaves; all times in milliseconds.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) generation: Generation,
    pub(super) pending: i64,
    pub(super) running: i64,
    pub(super) index_lag: i64,
    pub(super) already_active: AlreadyActive,
    /// Whether only those named as admins of a connection, and connection admins, may administer it.
    pub(super) strict_admins: bool,
    /// How long issued access tokens live, in seconds, where a client has no lifetime of its own; `None`: as their service does it.
    pub(super) token_seconds: Option<i64>,
    pub(super) plain_401: bool,
    /// Whether the Automation Engine runs the workflows of an argo tenant.
    pub(super) native_engine: bool,
    pub(super) automation: AutomationAccess,
}

impl Tenant {
    /// Applies the ends of runs that lie in the past. Every look at the state comes after this.
    pub(super) fn advance(&mut self, now: i64) {
        while let Some(id) = self.runs.due(now) {
            grant::settle(self, id);
        }
    }

    /// The instant whose state a search sees.
    pub(super) fn index_time(&self, call: &Call) -> i64 {
        let behind = if call.directives.stale_index { STALE_BY } else { 0 };
        call.now.saturating_sub(self.settings.index_lag.max(behind))
    }
}

/// A tenant that the routes share.
pub(super) type SharedTenant = Arc<Mutex<Tenant>>;

/// Locks; a panic elsewhere does not take the sandbox with it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One authenticated request, as routes see it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) now: i64,
    pub(super) principal: Arc<Principal>,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Value,
    pub(super) request_id: Option<String>,
    pub(super) directives: Directives,
}

impl Call {
    /// The first value of a query parameter.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A whole number from the query, or `default` where it is absent.
    pub(super) fn query_number(&self, name: &str, default: usize) -> Result<usize, super::answer::Refusal> {
        let Some(text) = self.query(name) else {
            return Ok(default);
        };
        text.parse().map_err(|_| super::answer::Refusal::new(400, format!("{name} must be a whole number, not {text:?}")))
    }
}

/// What a fault tells the route that it hits.
#[derive(Debug, Default)]
pub(super) struct Directives {
    pub(super) swallow_grant: bool,
    pub(super) end_as: Option<Ending>,
    pub(super) stale_index: bool,
}

impl Directives {
    pub(super) fn of(action: Option<&Action>) -> Self {
        match action {
            Some(Action::SwallowGrant) => Self { swallow_grant: true, ..Self::default() },
            Some(Action::StaleIndex) => Self { stale_index: true, ..Self::default() },
            Some(Action::EndAs { phase, message }) => {
                let ending = Ending { phase: phase.clone(), message: message.clone() };
                Self { end_as: Some(ending), ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

/// One route: the tenant, the call, and the one parameter of its path (empty where there is none).
pub(super) type Handler = fn(&mut Tenant, &Call, &str) -> Reply;

/// Binds a handler to a method.
pub(super) fn route(method: MethodFilter, handler: Handler) -> MethodRouter<SharedTenant> {
    on(method, move |State(tenant): State<SharedTenant>, Extension(call): Extension<Arc<Call>>, params: RawPathParams| async move {
        let param = params.iter().next().map_or("", |(_, value)| value);
        let reply = handler(&mut lock(&tenant), &call, param);
        respond(reply)
    })
}

/// A value and what it was before, so that an index can lag behind it.
#[derive(Debug)]
pub(super) struct Versions<T> {
    kept: VecDeque<(i64, T)>,
}

impl<T> Versions<T> {
    pub(super) fn new(at: i64, value: T) -> Self {
        Self { kept: VecDeque::from([(at, value)]) }
    }

    /// The value as it is.
    pub(super) fn current(&self) -> &T {
        let (_, value) = self.kept.back().expect("there is always one version");
        value
    }

    /// The value as it was at an instant; `None` before its creation.
    pub(super) fn at(&self, instant: i64) -> Option<&T> {
        self.kept.iter().rev().find(|(since, _)| *since <= instant).map(|(_, value)| value)
    }

    /// Replaces the value. The oldest kept version then stands for all before it.
    pub(super) fn set(&mut self, at: i64, value: T) {
        let after = self.kept.back().map_or(at, |(since, _)| at.max(*since));
        self.kept.push_back((after, value));
        if self.kept.len() > KEPT_VERSIONS {
            let since = self.kept.pop_front().map(|(since, _)| since);
            if let (Some(since), Some(oldest)) = (since, self.kept.front_mut()) {
                oldest.0 = since;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_version_is_seen_from_an_earlier_instant() {
        let mut value = Versions::new(10, 'a');
        value.set(20, 'b');
        assert_eq!([value.at(9), value.at(19), value.at(20)], [None, Some(&'a'), Some(&'b')]);
        for step in 0..100 {
            value.set(30 + step, 'c');
        }
        assert_eq!((value.at(10), value.kept.len()), (Some(&'c'), KEPT_VERSIONS));
    }
}
