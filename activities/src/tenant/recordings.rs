//! Our requests equal what the vendor's own Python client sends for the same operations, recorded from it. The recordings stand in
//! `tests/fixtures/recorded` at the root of the repository; in them only the requests are evidence.

use std::collections::BTreeSet;
use std::path::PathBuf;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::scripted::{Recorded, Reply, Scripted, clock};
use super::*;

const WORKFLOW: &str = "csa-api-token-connection-admin-1684500411";
const RUN: &str = "csa-api-token-connection-admin-1684500411-t7s8b";

const APP: &str = "bq-prod-3f9ab2c1";
const CONNECTION: &str = "default/snowflake/1234567890";
const TOKEN: &str = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99";

/// Operations of the vendor's client that we never send, and why.
const NEVER_SENT: [(&str, &str); 12] = [
    ("find_by_type", "a regexp on the name misses workflows that were named in the UI; we search by the package's annotation"),
    ("find_schedule_query", "schedules are not ours; only its term on the annotation is"),
    ("find_runs_by_status_and_time_range", "the runs of one workflow are read newest first instead"),
    ("get_runs", "a filter by phase would hide the run that a lost submission started"),
    ("monitor", "it follows the newest run of a workflow; we follow one run by its name"),
    ("re_run_schedule_query", "it runs with the owner's credentials"),
    ("add_schedule, remove_schedule, run with schedule", "schedules are not ours"),
    ("search of connections", "the index lags behind the entity, and an admin that it does not show yet would be dropped"),
    ("find a token by name or client id", "a job names its token by guid"),
    ("update, update_owner, archive", "we run workflows and do not change them"),
    ("describe, create, list and schedule apps", "we run what is there"),
    ("impersonation", "no worker should hold credentials that can become any user"),
];

/// What we send otherwise than recorded: where, what, and why.
struct Difference {
    at: &'static str,
    ours: Value,
    because: &'static str,
}

/// We ask for the fields that we read.
fn fields(fields: &[&str]) -> Difference {
    Difference { at: "/body/_source", ours: json!(fields), because: "documents can be large" }
}

fn fields_of_workflows() -> Difference {
    fields(&["metadata.name", "metadata.creationTimestamp", "metadata.labels", "metadata.annotations"])
}

fn fields_of_runs() -> Difference {
    fields(&[
        "metadata.name",
        "metadata.creationTimestamp",
        "metadata.labels",
        "spec.workflowTemplateRef",
        "status.phase",
        "status.startedAt",
        "status.finishedAt",
        "status.message",
    ])
}

async fn equals(recording: &str, exchange: usize, differences: &[Difference], operation: impl AsyncFnOnce(Arc<Tenant>)) {
    let clock = clock();
    let recorded = read(recording)["exchanges"][exchange].clone();
    let answer = &recorded["answer_given"];
    let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok()).expect("a status");
    let server = Scripted::script([Reply::json(status, &answer["body"])]).await;
    operation(server.tenant(&clock)).await;
    let [ours] = &server.requests()[..] else { panic!("{recording}: not exactly one request") };
    compare(recording, ours, recorded["request"].clone(), differences);
}

fn compare(recording: &str, ours: &Recorded, mut theirs: Value, differences: &[Difference]) {
    for Difference { at, ours, because } in differences {
        if let Some((whole, field)) = at.rsplit_once('/')
            && let Some(Value::Object(whole)) = theirs.pointer_mut(whole)
        {
            whole.entry(field).or_insert(Value::Null);
        }
        let place = theirs.pointer_mut(at).unwrap_or_else(|| panic!("{recording}: nothing at {at}"));
        assert_ne!(place, ours, "{recording}: no difference any more at {at}, which was because {because}");
        *place = ours.clone();
    }
    assert_eq!(ours.method, theirs["method"], "{recording}");
    assert_eq!(ours.target, theirs["target"], "{recording}");
    assert_eq!(ours.body, theirs["body"], "{recording}");
    for name in ["authorization", "accept", "content-type"] {
        assert_eq!(ours.headers[name], theirs["headers"][name].as_str().expect("a header"), "{recording}");
    }
    assert_eq!(ours.headers["user-agent"], concat!("iolaus/", env!("CARGO_PKG_VERSION")));
    assert_eq!(ours.headers["x-atlan-request-id"].len(), 36);
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/recorded")
}

fn read(recording: &str) -> Value {
    let path = directory().join(format!("{recording}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("it is JSON")
}

#[tokio::test]
async fn the_preflight_is_asked_as_recorded() {
    equals("preflight-user-publish", 0, &[], async |tenant| {
        let asked = tenant.publish_preflight("8c1e2d8a-1564-4e95-8b14-ea14522fcf61", "default/snowflake/1234567890").await;
        assert!(asked.expect("an answer").passed);
    })
    .await;
}

#[tokio::test]
async fn the_role_is_asked_as_recorded_and_chooses_the_same_path() {
    for (recording, path) in [
        ("role-check-api-token", Some("workflows")),
        ("role-check-admin-human", Some("workflows")),
        ("role-check-member", Some("package-workflows")),
        ("role-check-no-roles-key", None),
    ] {
        equals(recording, 0, &[], async |tenant| {
            let identity = tenant.whoami().await.ok();
            assert_eq!(identity.as_ref().map(|identity| identity.workflows_path()), path, "{recording}");
        })
        .await;
    }
}

#[tokio::test]
async fn workflows_are_searched_as_recorded() {
    equals("wf-find-by-id", 0, &[fields_of_workflows()], async |tenant| {
        let workflow = tenant.workflow(WORKFLOW).await.expect("an answer").expect("a workflow");
        assert_eq!(workflow.package.as_deref(), Some("@csa/api-token-connection-admin"));
    })
    .await;
    let filters = json!([{"nested": {"path": "metadata", "query":
        {"term": {"metadata.annotations.package.argoproj.io/name.keyword": {"value": "@csa/api-token-connection-admin"}}}}}]);
    let differences = [
        Difference { at: "/body/query/bool/filter", ours: filters, because: "only its second filter, for any package" },
        Difference { at: "/body/size", ours: json!(50), because: "several matches are listed" },
        fields_of_workflows(),
    ];
    equals("wf-find-schedule-query", 0, &differences, async |tenant| {
        let workflows = tenant.workflows_of_package("@csa/api-token-connection-admin").await.expect("an answer");
        assert_eq!(workflows[0].created_at.map(|at| at.to_string()).as_deref(), Some("2023-05-19T12:46:51Z"));
    })
    .await;
}

#[tokio::test]
async fn runs_are_searched_and_stopped_as_recorded() {
    equals("wf-find-current-run", 0, &[fields_of_runs()], async |tenant| {
        assert_eq!(tenant.runs_of(WORKFLOW, None).await.expect("an answer").runs[0].name, RUN);
    })
    .await;
    equals("wf-find-latest-run", 0, &[fields_of_runs()], async |tenant| {
        assert_eq!(tenant.last_run(WORKFLOW).await.expect("an answer").expect("a run").name, RUN);
    })
    .await;
    equals("wf-find-run-by-id", 0, &[fields_of_runs()], async |tenant| {
        let run = tenant.look(RUN).await.expect("an answer").expect("a run");
        assert_eq!((run.standing(), run.creator.as_deref()), (Standing::Succeeded, Some("u-9")));
        assert_eq!(run.finished_at.map(|at| at.to_string()).as_deref(), Some("2023-05-19T12:48:10Z"));
    })
    .await;
    equals("wf-stop", 0, &[], async |tenant| tenant.stop_run(RUN).await.expect("an answer")).await;
}

#[tokio::test]
async fn a_workflow_is_submitted_as_recorded() {
    for (recording, role) in [("wf-rerun-api-token", "$api-token-default-access"), ("wf-rerun-member", "$member")] {
        let identity = Identity { user_id: "u-1".into(), username: "jane".into(), roles: vec![role.into()] };
        equals(recording, 2, &[], async |tenant| {
            let submission = tenant.submit(tenant.permit().await, &identity, WORKFLOW, &new_request_id()).await;
            assert!(matches!(&submission, Submission::Applied(run) if run.name == RUN), "{submission:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn an_app_is_shown_submitted_and_cancelled_as_recorded() {
    equals("app-get", 0, &[], async |tenant| assert_eq!(tenant.has_app(APP).await, Ok(true))).await;
    equals("app-submit", 0, &[], async |tenant| {
        let submission = tenant.submit_app(tenant.permit().await, APP, &new_request_id()).await;
        assert!(matches!(&submission, Submission::Applied(run) if run.name == "run-2"), "{submission:?}");
    })
    .await;
    equals("app-submit-500-already-active", 0, &[], async |tenant| {
        let submission = tenant.submit_app(tenant.permit().await, APP, &new_request_id()).await;
        assert!(matches!(&submission, Submission::AlreadyActive(_)), "{submission:?}");
    })
    .await;
    equals("app-get-run", 0, &[], async |tenant| {
        let run = tenant.app_run("run-2").await.expect("an answer").expect("a run");
        assert_eq!((run.standing(), run.workflow.as_deref()), (Standing::Active, Some(APP)));
        assert_eq!(run.started_at.map(|at| at.to_string()).as_deref(), Some("2026-01-01T00:00:00Z"));
    })
    .await;
    equals("app-cancel", 0, &[], async |tenant| tenant.cancel_app_run("run-2").await.expect("an answer")).await;
}

#[tokio::test]
async fn the_runs_of_an_app_are_searched_as_recorded() {
    let attributes =
        json!(["appWorkflowRunStatus", "appWorkflowRunStartedAt", "appWorkflowRunCompletedAt", "appWorkflowRunStartedBy"]);
    let ended = json!(["Succeeded", "Failed", "Error", "Stopped", "Terminated", "Skipped", "Omitted", "Cancelled", "TimedOut"]);
    let not_ended = json!({"bool": {"must_not": [{"terms": {"appWorkflowRunStatus": ended}}]}});
    let counts = json!({"bool": {"should": [{"exists": {"field": "appWorkflowRunStartedAt"}}, not_ended]}});
    let newest_first = json!([{"appWorkflowRunStartedAt": {"order": "desc", "missing": "_first"}}]);
    let difference = |at, ours, because| Difference { at, ours, because };
    let differences = [
        difference("/body/attributes", attributes, "a lost submission is told by when a run started"),
        difference("/body/dsl/size", json!(50), "several runs may have started since"),
        difference("/body/dsl/query/bool/filter/3", counts, "the run that a lost submission started may have ended"),
        difference("/body/dsl/sort", newest_first, "pages are read until a run is too old"),
        difference("/body/requestMetadata/utmTags", json!(["project_iolaus"]), "we are another program"),
    ];
    equals("app-run-search-active", 0, &differences, async |tenant| {
        let runs = tenant.app_runs_of(APP, None).await.expect("an answer").runs;
        assert_eq!((runs.len(), runs[0].name.as_str(), runs[0].standing()), (1, "run-1", Standing::Active));
    })
    .await;
}

#[tokio::test]
async fn a_workflow_of_the_package_is_created_and_submitted_as_recorded() {
    for (recording, role) in
        [("wf-run-token-admin-api-token", "$api-token-default-access"), ("wf-run-token-admin-member", "$member")]
    {
        let identity = Identity { user_id: "u-1".into(), username: "jane".into(), roles: vec![role.into()] };
        let workflow = token_admin_workflow(&token_admin_name(1_795_296_982), CONNECTION, TOKEN);
        equals(recording, 1, &[], async |tenant| {
            let creation = tenant.create_and_submit(tenant.permit().await, &identity, &workflow, &new_request_id()).await;
            assert_eq!(creation, Creation::Applied(None), "the answer names the workflow and no run");
        })
        .await;
    }
}

#[tokio::test]
async fn a_token_is_found_as_recorded() {
    equals("token-get-by-guid", 0, &[], async |tenant| {
        let token = tenant.api_token(TOKEN).await.expect("an answer").expect("a token");
        assert_eq!(token.username(), "service-account-apikey-11111111-2222-3333-4444-555555555555");
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_read_and_given_an_admin_as_recorded() {
    let by_name = "/api/meta/entity/uniqueAttribute/type/Connection?attr:qualifiedName=default%2Fsnowflake%2F1234567890\
                   &minExtInfo=false&ignoreRelationships=true";
    let because = "a job names its connection by qualified name; both are reads of the entity";
    let differences = [Difference { at: "/target", ours: json!(by_name), because }];
    equals("connection-get-by-guid", 0, &differences, async |tenant| {
        let connection = tenant.connection(CONNECTION).await.expect("an answer").expect("a connection");
        assert_eq!((connection.guid.as_str(), connection.admin_users), ("c-guid-1", vec!["jane".to_owned()]));
    })
    .await;
    let guid =
        Difference { at: "/body/entities/0/guid", ours: json!("-1500000000000000"), because: "it is made up for each write" };
    equals("connection-add-admin", 0, &[guid], async |tenant| {
        let connection = Connection {
            guid: "c-guid-1".into(),
            qualified_name: CONNECTION.into(),
            name: "prod".into(),
            admin_users: vec!["jane".into()],
        };
        let admins = ["jane", "service-account-apikey-11111111-2222-3333-4444-555555555555"].map(str::to_owned);
        assert_eq!(
            tenant.write_admin_users(tenant.permit().await, &connection, &admins, &new_request_id()).await,
            AdminsWritten::Applied
        );
    })
    .await;
}

#[tokio::test]
async fn oauth_clients_are_managed_as_recorded() {
    const ID: &str = "oauth-client-abc123def456";
    for (recording, description, role, personas) in [
        ("oauth-create", "d", "Admin", vec!["default/personaxyz".to_owned()]),
        ("oauth-create-min-subrole", "", "admins (connections)", vec![]),
    ] {
        let mut role = role.to_owned();
        equals(recording, 0, &[], async |tenant| {
            let roles = tenant.roles().await.expect("an answer");
            role = role_named(&roles, &role).expect("it is there").name.clone();
        })
        .await;
        let new = NewOAuthClient { display_name: "ci".into(), description: description.into(), role: role.clone(), personas };
        equals(recording, 1, &[], async |tenant| match tenant.create_oauth_client(&new).await {
            OAuthCreation::Created(client, secret) => {
                assert_eq!((client.client_id.as_str(), secret.expose_secret()), (ID, "s3cr3t"));
                assert_eq!((client.created_by.as_deref(), client.token_seconds), (Some("jane"), Some(600)));
            }
            other => panic!("{other:?}"),
        })
        .await;
    }
    for (exchange, offset) in [(0, 0), (1, 2), (2, 4)] {
        equals("oauth-list-paged", exchange, &[], async |tenant| {
            let page = tenant.oauth_clients(offset, 2, Some("-createdAt")).await.expect("an answer");
            assert_eq!((page.total, page.clients.len()), (Some(3), usize::from(offset < 4)));
        })
        .await;
    }
    equals("oauth-get-by-id", 0, &[], async |tenant| {
        assert_eq!(tenant.oauth_client(ID).await.expect("an answer").role.as_deref(), Some("$admin"));
    })
    .await;
    equals("oauth-update", 0, &[], async |tenant| {
        assert_eq!(tenant.update_oauth_client(ID, Some("n"), Some("new")).await.expect("an answer").client_id, ID);
    })
    .await;
    equals("oauth-purge", 0, &[], async |tenant| tenant.purge_oauth_client(ID).await.expect("an answer")).await;
}

#[tokio::test]
async fn an_unknown_role_is_asked_for_as_recorded_and_answered_with_those_that_there_are() {
    let labels = ["Admin", "Admins (Connections)", "Guest", "Member"].map(str::to_owned);
    // Unlike the vendor's client, we take a role's own name too, of which this is the recording.
    equals("oauth-create-raw-role-name", 0, &[], async |tenant| {
        let roles = tenant.roles().await.expect("an answer");
        assert_eq!(role_named(&roles, "$admin").map(|role| role.label.as_str()), Ok("Admin"));
    })
    .await;
    equals("oauth-create-bad-role", 0, &[], async |tenant| {
        let roles = tenant.roles().await.expect("an answer");
        assert_eq!(role_named(&roles, "no such role"), Err(labels.to_vec()));
    })
    .await;
}

#[tokio::test]
async fn a_persona_is_searched_by_name_as_recorded() {
    let because = "it tells which program asked";
    let tags = Difference { at: "/body/requestMetadata/utmTags", ours: json!(["iolaus"]), because };
    equals("persona-find-by-name", 0, &[tags], async |tenant| {
        let personas = tenant.personas_named("Data Stewards").await.expect("an answer");
        assert_eq!(personas[0].qualified_name, "default/xS2hdJ7TWUqhVcZHC3zoVN");
    })
    .await;
}

#[test]
fn what_is_never_sent_has_a_reason() {
    let names: BTreeSet<_> = NEVER_SENT.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), NEVER_SENT.len());
    assert!(NEVER_SENT.iter().all(|(_, because)| !because.is_empty()));
}
