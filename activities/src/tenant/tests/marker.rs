//! A marker, which is our own key with control characters around it, in every place where a tenant can put a text: values, keys, headers,
//! status lines, pages. It must not come out anywhere.

use std::fmt::Debug;

use marked_values::{marked, marker, places, refusal};
use serde_json::{Value, json};

use super::super::scripted::{Recorded, Reply, Scripted, clock, drive, hits, logs_with, spans, tenants};
use super::super::*;
use crate::activity::{Activity, ActivityError};
use crate::testing::TestHost;
use crate::{AwaitCompletion, PublishPreflight, TokenAdminGrant, WorkflowRerun};

const KEY: &str = "marker-0123456789-key";

#[path = "../../../tests/support/marked.rs"]
mod marked_values;

/// The answers to every operation as a healthy tenant gives them.
fn healthy(target: &str) -> Value {
    let run = json!({"metadata": {"name": "w-1-abcde", "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"workflows.argoproj.io/creator": "u-1"}, "annotations": {"package.argoproj.io/name": "@atlan/w"}},
        "spec": {"workflowTemplateRef": {"name": "w-1"}}, "status": {"phase": "Failed", "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:01:00Z", "message": "their words"}});
    let workflow = json!({"metadata": {"name": "w-1", "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"workflows.argoproj.io/creator": "u-1"}, "annotations": {"package.argoproj.io/name": "@atlan/w"}}});
    let path = target.split('?').next().unwrap_or_default();
    let is = |part: &str| path.contains(part);
    if is("/preflight/") {
        json!({"passed": false, "failed_checks": ["UserEnabled"], "message": "their words"})
    } else if is("/whoami") {
        json!({"userId": "u-1", "username": "jane", "roles": [{"name": "$admin", "id": "r"}]})
    } else if is("/workflows/indexsearch") {
        hits(&[workflow])
    } else if is("/runs/indexsearch") {
        hits(&[run])
    } else if is("/native-status/") {
        json!({"status": "Failed", "run_id": "r", "workflow_slug": "w-1", "dag_nodes": {"step": {"error_message": "their words"}}})
    } else if is("/v1/app/runs/") {
        json!({"run_id": "r", "status": "Failed", "slug": "w-1", "started_at": null, "cancelled": true})
    } else if is("/v1/app") {
        json!({"slug": "w-1", "run_id": "r"})
    } else if is("/oauth-clients") && target.contains("count=") || is("/roles") {
        json!({"totalRecord": 1, "filterRecord": 1, "records": [client(), {"name": "$admin", "description": "Admin"}]})
    } else if is("/oauth-clients") {
        client()
    } else if is("/apikeys") {
        let attributes = json!({"clientId": "apikey-1", "displayName": "ci"});
        json!({"totalRecord": 1, "records": [{"id": "t-1", "clientId": "apikey-1", "attributes": attributes}]})
    } else if is("/meta/search/") {
        let run = json!({"qualifiedName": "default/apps/automation_engine/workflows/w-1/r", "appWorkflowRunStatus": "Failed",
            "appWorkflowRunStartedAt": 1_767_225_600_000_i64, "appWorkflowRunStartedBy": "jane", "name": "Readers"});
        json!({"approximateCount": 1, "entities": [{"typeName": "X", "attributes": run}]})
    } else if is("/meta/entity/") {
        json!({"entity": {"guid": "g", "status": "ACTIVE", "attributes":
            {"qualifiedName": "default/snowflake/1", "name": "prod", "adminUsers": ["jane"]}}})
    } else {
        run
    }
}

fn client() -> Value {
    json!({"id": "i", "clientId": "c-1", "displayName": "ci", "description": "d", "role": "$admin", "personaQNs": ["default/p"],
        "tokenExpirySeconds": 600, "createdAt": "2026-01-01T00:00:00Z", "createdBy": "jane", "updatedAt": "1", "updatedBy": "jane"})
}

/// One way to put the marker into answers.
#[derive(Debug, Clone, Copy)]
enum Hostile {
    /// At the nth place of every healthy answer, as far as it has so many.
    Place(usize),
    /// In every field of an error of this status.
    Refusal(u16),
    /// In a page or text of this status.
    Text(u16, &'static str),
    /// An echo of the request, headers and all, under this status.
    Echo(u16),
    /// In every header.
    Headers,
}

impl Hostile {
    fn reply(self, request: &Recorded) -> Reply {
        let text = marker(KEY);
        let reply = match self {
            Self::Place(mut at) => Reply::ok(&marked(healthy(&request.target), &mut at, &text)),
            Self::Refusal(status) => Reply::json(status, &refusal(&text)),
            Self::Text(status, start) => Reply::text(status, &format!("{start}{text}")),
            Self::Echo(status) => Reply::text(status, &format!("{:#?}", request.headers)),
            Self::Headers => Reply::ok(&healthy(&request.target)).header("content-type", KEY).header("server", KEY),
        };
        // A header cannot hold a line break; that ends it.
        let in_header = format!("forged {KEY}");
        let reply = reply.reason(&in_header).header("date", in_header.clone()).header("retry-after", in_header.clone());
        reply.header("x-request-id", in_header.clone()).header("location", in_header.clone()).header("www-authenticate", in_header)
    }
}

fn all() -> Vec<Hostile> {
    let most = ["/preflight/", "/oauth-clients?count=true", "/runs/indexsearch", "/meta/search/", "/meta/entity/", "/whoami"];
    let most = most.iter().map(|target| places(&healthy(target))).max().unwrap_or_default();
    let statuses = [302, 400, 403, 404, 409, 422, 500, 502];
    let pages = [(200, ""), (200, "<html>"), (403, "<html>"), (404, ""), (500, ""), (502, "<html>")];
    (0..most)
        .map(Hostile::Place)
        .chain(statuses.map(Hostile::Refusal))
        .chain(pages.map(|(status, start)| Hostile::Text(status, start)))
        .chain([200, 400, 403, 500].map(Hostile::Echo))
        .chain([Hostile::Headers])
        .collect()
}

/// Looks at what came out of an operation, as it would be shown and as it would be stored.
fn check(hostile: Hostile, what: &str, shown: &impl Debug) {
    let shown = format!("{shown:?}");
    assert!(!shown.contains(KEY), "{what} under {hostile:?} shows our key: {shown}");
    for escaped in ["\\u{1b}", "\\r", "\\n", "\\u{202e}", "\\u001b", "\u{1b}", "\u{202e}"] {
        assert!(!shown.contains(escaped), "{what} under {hostile:?} shows control characters: {shown}");
    }
}

async fn every_operation(hostile: Hostile, tenant: &Tenant) {
    let jane = Identity { user_id: "u-1".into(), username: "jane".into(), roles: vec![] };
    let connection =
        Connection { guid: "g".into(), qualified_name: "default/snowflake/1".into(), name: "prod".into(), admin_users: vec![] };
    let new = NewOAuthClient { display_name: "ci".into(), description: String::new(), role: "$admin".into(), personas: vec![] };
    let workflow = token_admin_workflow("w-1", "default/snowflake/1", "t-1");
    check(hostile, "whoami", &tenant.ping().await);
    check(hostile, "probe", &tenant.probe().await);
    check(hostile, "preflight", &tenant.publish_preflight("u", "c").await);
    check(hostile, "workflow", &tenant.workflow("w-1").await);
    check(hostile, "stands", &tenant.stands(&workflow).await);
    check(hostile, "workflows_of_package", &tenant.workflows_of_package("w").await);
    check(hostile, "runs_of", &tenant.runs_of("w-1", None).await);
    check(hostile, "last_run", &tenant.last_run("w-1").await);
    check(hostile, "look", &tenant.look("w-1-abcde").await);
    check(hostile, "has_app", &tenant.has_app("w-1").await);
    check(hostile, "app_run", &tenant.app_run("r").await);
    check(hostile, "app_run_message", &tenant.app_run_message("r").await);
    check(hostile, "app_runs_of", &tenant.app_runs_of("w-1", None).await);
    check(hostile, "look_at_app_run", &tenant.look_at_app_run("r", Some("w-1")).await);
    check(hostile, "connection", &tenant.connection("default/snowflake/1").await);
    check(hostile, "api_token", &tenant.api_token("t-1").await);
    check(hostile, "roles", &tenant.roles().await);
    check(hostile, "personas", &tenant.personas_named("Readers").await);
    check(hostile, "oauth_clients", &tenant.oauth_clients(0, 20, None).await);
    check(hostile, "oauth_client", &tenant.oauth_client("c-1").await);
    check(hostile, "update_oauth_client", &tenant.update_oauth_client("c-1", Some("n"), None).await);
    check(hostile, "possibly_created", &tenant.possibly_created("ci", Timestamp::UNIX_EPOCH).await);
    check(hostile, "stop_run", &tenant.stop_run("w-1-abcde").await);
    check(hostile, "cancel_app_run", &tenant.cancel_app_run("r").await);
    check(hostile, "submit", &tenant.submit(tenant.permit().await, &jane, "w-1", "id").await);
    check(hostile, "submit_app", &tenant.submit_app(tenant.permit().await, "w-1", "id").await);
    check(hostile, "create", &tenant.create_and_submit(tenant.permit().await, &jane, &workflow, "id").await);
    let admins = ["jane".to_owned()];
    check(hostile, "write_admins", &tenant.write_admin_users(tenant.permit().await, &connection, &admins, "id").await);
    check(hostile, "create_oauth_client", &tenant.create_oauth_client(&new).await);
    check(hostile, "purge", &tenant.purge_oauth_client("c-1").await);
    check(hostile, "hold", &tenant.hold());
}

#[tokio::test]
async fn no_text_of_a_tenant_comes_out_of_any_operation_with_our_key_or_control_characters() {
    for hostile in all() {
        let clock = clock();
        let server = Scripted::answering(move |request| Some(hostile.reply(request))).await;
        let settings = TenantSettings { api_key: Some(KEY.into()), ..server.settings() };
        let tenant = tenants(settings, &clock).get("default").expect("it is configured");
        drive(&clock, every_operation(hostile, &tenant)).await;
    }
    assert_eq!(logs_with(KEY), Vec::<String>::new());
    assert_eq!(logs_with("\u{1b}"), Vec::<String>::new());
    assert!(!format!("{:?}", spans().get_finished_spans()).contains(KEY));
}

async fn attempt<A: Activity>(hostile: Hostile, make: impl Fn(Arc<Tenants>) -> A, input: Value) {
    let clock = clock();
    let server = Scripted::answering(move |request| Some(hostile.reply(request))).await;
    let settings = TenantSettings { api_key: Some(KEY.into()), ..server.settings() };
    let host = TestHost::new(clock.clone());
    let ended = drive(&clock, host.attempt(make(tenants(settings, &clock)), input)).await;
    check(hostile, A::NAME, &ended);
    match &ended {
        Ok(verdict) => check(hostile, A::NAME, &serde_json::to_string(verdict.facts())),
        Err(ActivityError::Failed(failure)) => check(hostile, A::NAME, &serde_json::to_string(&failure.record())),
        Err(_) => {}
    }
    check(hostile, "checkpoints", &host.saves());
    check(hostile, "progress", &host.progress());
}

#[tokio::test]
async fn no_text_of_a_tenant_reaches_a_verdict_a_checkpoint_or_progress_with_our_key_or_control_characters() {
    for hostile in all() {
        let preflight = json!({"user_id": "u", "connection_qualified_name": "c"});
        attempt(hostile, PublishPreflight::new, preflight).await;
        attempt(hostile, AwaitCompletion::new, json!({"run": "w-1-abcde", "timeout": "1m"})).await;
        attempt(hostile, AwaitCompletion::new, json!({"app_run": "r", "timeout": "1m"})).await;
        attempt(hostile, WorkflowRerun::new, json!({"workflow": "w-1", "timeout": "1m"})).await;
        attempt(hostile, WorkflowRerun::new, json!({"type": "w", "timeout": "1m", "pick": "newest"})).await;
        let grant = json!({"connection_qualified_name": "default/snowflake/1", "api_token_guid": "t-1", "method": "direct"});
        attempt(hostile, TokenAdminGrant::new, grant).await;
    }
    assert_eq!(logs_with(KEY), Vec::<String>::new());
}
