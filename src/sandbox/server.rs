//! One exchange from its first byte to its last: read, count, hit by a fault or not, authenticate, route, answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Query;
use axum::http::Uri;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, DATE, HeaderValue};
use hyper::{Request, StatusCode};
use tower::ServiceExt;

use super::answer::{Refusal, respond};
use super::arrival::{Arrived, Cut, MAX_BODY};
use super::faults::{Action, Fault, Faults, Undated, accepts_gzip, encoded, faulty, rewrites, rewritten, with_headers};
use super::identity::Principal;
use super::ledger::{Effect, Exchange, RequestLog};
use super::rate::Rate;
use super::state::{Call, Directives, SharedTenant, lock};
use super::time::{self, Sleep, TimeSource};
use super::{AutomationAccess, CredentialChange, Generation, ManualRun, SandboxOptions};
use super::{
    admin, apps, automation, credentials, cron, identity, keycloak, manual_runs, metastore, oauth_clients, preflight, runs,
    stored_credentials, tokens, users, workflows,
};

/// Where one logs in, and so needs no bearer.
const LOGINS: [&str; 3] =
    ["/api/service/oauth-clients/token", "/oauth-clients/token", "/auth/realms/default/protocol/openid-connect/token"];

/// What all connections of one sandbox share.
pub(super) struct Shared {
    pub(super) tenant: SharedTenant,
    traffic: Mutex<Traffic>,
    clock: TimeSource,
    sleep: Sleep,
    clock_skew: i64,
    date_header: bool,
    tenant_routes: Router,
}

#[derive(Debug)]
struct Traffic {
    faults: Faults,
    log: RequestLog,
    rate: Rate,
}

impl Shared {
    pub(super) fn new(tenant: SharedTenant, options: SandboxOptions) -> Self {
        let tenant_routes = tenant_routes(&options).with_state(tenant.clone());
        let rate = Rate::new(options.requests_per_second);
        let traffic = Traffic { faults: Faults::default(), log: RequestLog::new(options.ledger_limit), rate };
        let SandboxOptions { clock, sleep, clock_skew, date_header, .. } = options;
        Self { tenant, traffic: Mutex::new(traffic), clock, sleep, clock_skew, date_header, tenant_routes }
    }

    /// The tenant's time, by which everything but the `Date` header goes.
    fn now(&self) -> i64 {
        (self.clock)().saturating_add(self.clock_skew)
    }

    /// Serves one request; `Err` closes the connection without an answer.
    pub(super) async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Response, Cut> {
        let arrived = Arrived::read(request).await?;
        let answer = if arrived.parts.uri.path().starts_with(admin::PREFIX) {
            self.administer(arrived).await
        } else {
            self.exchange(arrived).await?
        };
        Ok(self.dated(answer))
    }

    async fn administer(self: &Arc<Self>, arrived: Arrived) -> Response {
        if arrived.too_large {
            return too_large();
        }
        if let Some(refusal) = admin::cross_origin(&arrived.parts.headers) {
            return respond(Err(refusal));
        }
        let request = Request::from_parts(arrived.parts, Body::from(arrived.body));
        ask(admin::routes().with_state(self.clone()), request).await
    }

    /// An exchange of the tenant: numbered, logged, and open to faults.
    async fn exchange(&self, arrived: Arrived) -> Result<Response, Cut> {
        let (n, action, admitted) = self.arrive(&arrived);
        let gzip = accepts_gzip(&arrived.parts.headers);
        let answer = match action {
            None if !admitted => too_many(),
            None => self.apply(arrived, None).await,
            Some(action) => self.misbehave(arrived, &action).await?,
        };
        let answer = encoded(answer, gzip).await;
        lock(&self.traffic).log.answered(n, answer.status().as_u16());
        tracing::debug!(n, status = answer.status().as_u16(), "sandbox answered");
        Ok(answer)
    }

    /// Numbers and logs a request, and asks the faults whether it is hit, and the limit whether it is served.
    fn arrive(&self, arrived: &Arrived) -> (u64, Option<Action>, bool) {
        let now = self.now();
        let principal = arrived.bearer().and_then(|bearer| lock(&self.tenant).keys.holder(bearer, now));
        let mut traffic = lock(&self.traffic);
        let action = traffic.faults.hit(arrived.parts.method.as_str(), arrived.target());
        let admitted = traffic.rate.admits(now);
        let username = principal.map(|principal| principal.username.clone());
        let exchange = arrived.exchange(username, action.as_ref().map(Action::name));
        (traffic.log.arrive(exchange, arrived.body.len()), action, admitted)
    }

    async fn misbehave(&self, arrived: Arrived, action: &Action) -> Result<Response, Cut> {
        if let Some((answer, apply)) = faulty(action, &arrived) {
            if apply {
                self.apply(arrived, None).await;
            }
            return Ok(answer);
        }
        Ok(match action {
            Action::CutBeforeApplying => return Err(Cut),
            Action::CutAfterApplying => {
                self.apply(arrived, None).await;
                return Err(Cut);
            }
            Action::Delay { ms } => {
                let answer = self.apply(arrived, None).await;
                (self.sleep)(Duration::from_millis(*ms)).await;
                answer
            }
            Action::Hang => std::future::pending().await,
            rewriting if rewrites(rewriting) => rewritten(self.apply(arrived, None).await, rewriting).await,
            directive => self.apply(arrived, Some(directive)).await,
        })
    }

    /// Authenticates and routes.
    async fn apply(&self, arrived: Arrived, action: Option<&Action>) -> Response {
        let now = self.now();
        let path = arrived.parts.uri.path();
        let (principal, plain) = {
            let mut tenant = lock(&self.tenant);
            tenant.advance(now);
            let holder = arrived.bearer().and_then(|bearer| tenant.keys.holder(bearer, now));
            (holder.or_else(|| LOGINS.contains(&path).then(Principal::nobody)), tenant.settings.plain_401)
        };
        let Some(principal) = principal else {
            return unauthenticated(path, plain);
        };
        if arrived.too_large {
            return too_large();
        }
        let request_id = arrived.request_id();
        let Some(body) = arrived.json else {
            return respond(Err(Refusal::new(400, "the body is no JSON")));
        };
        let uri = &arrived.parts.uri;
        let query = Query::<Vec<(String, String)>>::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default();
        let call =
            Call { now, principal, path: uri.path().to_owned(), query, body, request_id, directives: Directives::of(action) };
        let mut request = Request::from_parts(arrived.parts, Body::empty());
        request.extensions_mut().insert(Arc::new(call));
        ask(self.tenant_routes.clone(), request).await
    }

    fn dated(&self, mut answer: Response) -> Response {
        let undated = answer.extensions_mut().remove::<Undated>().is_some();
        if self.date_header
            && !undated
            && let Ok(date) = HeaderValue::from_str(&time::http_date((self.clock)()))
        {
            answer.headers_mut().insert(DATE, date);
        }
        answer
    }

    pub(super) fn effects(&self) -> Vec<Effect> {
        let mut tenant = lock(&self.tenant);
        tenant.advance(self.now());
        tenant.ledger.snapshot()
    }

    pub(super) fn admin_users(&self, connection: &str) -> Vec<String> {
        let mut tenant = lock(&self.tenant);
        tenant.advance(self.now());
        tenant.connections.get(connection).map(|connection| connection.admins().users.clone()).unwrap_or_default()
    }

    pub(super) fn requests(&self) -> Vec<Exchange> {
        lock(&self.traffic).log.snapshot()
    }

    pub(super) fn add_fault(&self, fault: Fault) -> Result<(), String> {
        lock(&self.traffic).faults.add(fault)
    }

    pub(super) fn clear_faults(&self) {
        lock(&self.traffic).faults.clear();
    }

    pub(super) fn standing_faults(&self) -> (u64, Vec<Fault>) {
        let traffic = lock(&self.traffic);
        (traffic.faults.fired(), traffic.faults.standing())
    }

    pub(super) fn change_credentials(&self, change: CredentialChange) -> Result<(), String> {
        credentials::apply(&mut lock(&self.tenant), change, self.now())
    }

    pub(super) fn start_manual_run(&self, manual: &ManualRun) -> Result<String, String> {
        let now = self.now();
        let mut tenant = lock(&self.tenant);
        tenant.advance(now);
        manual_runs::start(&mut tenant, manual, now)
    }

    pub(super) fn set_automation_access(&self, access: AutomationAccess) {
        lock(&self.tenant).settings.automation = access;
    }

    pub(super) fn set_index_lag(&self, lag: Duration) {
        lock(&self.tenant).settings.index_lag = time::millis(lag);
    }
}

/// The routes of the tenant, one file per area. Inside the cluster each service has a host of its own, and other prefixes.
fn tenant_routes(options: &SandboxOptions) -> Router<SharedTenant> {
    let mut heracles = identity::routes()
        .merge(preflight::routes())
        .merge(workflows::routes())
        .merge(runs::routes())
        .merge(tokens::routes())
        .merge(users::routes())
        .merge(stored_credentials::routes())
        .merge(oauth_clients::routes())
        .merge(cron::routes());
    if options.generation == Generation::Native {
        heracles = heracles.merge(apps::routes());
    }
    if options.generation == Generation::Native || options.native_engine {
        heracles = heracles.merge(automation::passed_on());
    }
    let services = if options.in_cluster {
        heracles.nest("/api/atlas/v2", metastore::routes())
    } else {
        let services = Router::new().nest("/api/service", heracles).nest("/api/meta", metastore::routes());
        services.nest("/automation/api/v1", automation::routes())
    };
    services
        .nest("/auth", keycloak::routes())
        .fallback(async |uri: Uri| respond(Err(Refusal::new(404, format!("no route for {}", uri.path())))))
        .method_not_allowed_fallback(async |uri: Uri| {
            respond(Err(Refusal::new(405, format!("method not allowed on {}", uri.path()))))
        })
}

/// A 401 in the shape of the service that was asked.
fn unauthenticated(path: &str, plain: bool) -> Response {
    if plain {
        let mut answer = Response::new(Body::from("Unauthorized"));
        *answer.status_mut() = StatusCode::UNAUTHORIZED;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return answer;
    }
    let message = "the bearer is missing, unknown, expired or revoked";
    let keycloak = path.starts_with("/auth/");
    respond(Err(if keycloak { Refusal::keycloak(401, "HTTP 401 Unauthorized", message) } else { Refusal::new(401, message) }))
}

/// More requests in this second than the tenant serves.
fn too_many() -> Response {
    let refusal = Refusal::new(429, "too many requests in this second");
    with_headers(respond(Err(refusal)), &[("retry-after".to_owned(), "1".to_owned())])
}

async fn ask(routes: Router, request: Request<Body>) -> Response {
    match routes.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

fn too_large() -> Response {
    respond(Err(Refusal::new(413, format!("the body is larger than {MAX_BODY} bytes"))))
}
