//! Odd, hostile and slow answers over a real connection: what is understood, what is refused, and what each failure says.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::super::measure::Status;
use super::super::scripted::{Recorded, Reply, Scripted, clock, drive, hits};
use super::super::*;
use crate::clock::ManualClock;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("it takes everything");
    encoder.finish().expect("it takes everything")
}

fn me(name: &str) -> Value {
    json!({"username": name, "roles": []})
}

async fn username(reply: Reply, sends: usize) -> Result<String, Failure> {
    let clock = clock();
    let server = Scripted::script(vec![reply; sends]).await;
    drive(&clock, server.tenant(&clock).whoami()).await.map(|identity| identity.username.clone())
}

#[tokio::test]
async fn gzip_a_byte_order_mark_and_latin_1_are_understood_asked_for_or_not() {
    let body = me("jané").to_string();
    let latin: Vec<u8> = body.chars().map(|c| u8::try_from(u32::from(c)).expect("it is latin")).collect();
    let marked = [b"\xEF\xBB\xBF", body.as_bytes()].concat();
    for reply in [
        Reply::bytes(200, &gzip(body.as_bytes())).header("content-encoding", "gzip"),
        Reply::bytes(200, &gzip(body.as_bytes())),
        Reply::bytes(200, &gzip(&marked)),
        Reply::bytes(200, &marked),
        // What claims to be compressed and is not.
        Reply::bytes(200, body.as_bytes()).header("content-encoding", "gzip"),
        Reply::bytes(200, &latin).header("content-type", "application/json; charset=ISO-8859-1"),
    ] {
        assert_eq!(username(reply, 1).await.expect("it is understood"), "jané");
    }
    let server = Scripted::script([Reply::ok(&me("jane"))]).await;
    server.tenant(&clock()).whoami().await.expect("an answer");
    assert_eq!(server.requests()[0].headers["accept-encoding"], "gzip");
}

#[tokio::test]
async fn a_compressed_answer_is_bounded_by_what_it_unpacks_to() {
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let half = gzip(me("jane").to_string().repeat(50).as_bytes());
    for (reply, sends, code) in [
        (Reply::bytes(200, &bomb), 1, "tenant.oversized"),
        (Reply::bytes(200, &gzip(&bomb)), 1, "tenant.unreadable"),
        (Reply::bytes(200, &half[..half.len() / 2]), 3, "tenant.connection_lost"),
        (Reply::bytes(200, b"\x1f\x8b but no more"), 1, "tenant.unreadable"),
    ] {
        assert_eq!(username(reply, sends).await.expect_err("it is refused").code, code);
    }
}

#[tokio::test]
async fn an_answer_about_one_user_is_not_read_at_any_length() {
    let failure = username(Reply::ok(&me(&"x".repeat(300_000))), 1).await.expect_err("it is too long");
    assert!(failure.code == "tenant.oversized" && !failure.message.contains("body_limit"), "{failure}");
    assert!(username(Reply::ok(&me(&"x".repeat(200_000))), 1).await.expect("it is short enough").len() <= 256);
}

/// A tenant whose documents have so many bytes each, and which ignores that only some fields are asked for.
async fn with_documents_of(bytes: usize, count: usize) -> Scripted {
    Scripted::answering(move |request| {
        let (from, size) = (request.body["from"].as_u64()?, request.body["size"].as_u64()?);
        let (from, size) = (usize::try_from(from).ok()?, usize::try_from(size).ok()?);
        let document = |n: usize| {
            json!({"metadata": {"name": format!("w-{n}"), "annotations": {"package.argoproj.io/name": "@atlan/snowflake"}},
                "spec": {"workflowTemplateRef": {"name": "w"}, "templates": "x".repeat(bytes)}})
        };
        let page: Vec<_> = (from..count.min(from + size)).map(document).collect();
        Some(Reply::ok(&hits(&page)))
    })
    .await
}

#[tokio::test]
async fn a_page_that_is_too_long_is_asked_for_in_smaller_ones_and_that_is_remembered() {
    let clock = clock();
    let server = with_documents_of(200_000, 20).await;
    let tenant = tenants(TenantSettings { body_limit: 1 << 20, ..server.settings() }, &clock);
    let sizes = || server.requests().iter().map(|request| request.body["size"].as_u64().unwrap_or_default()).collect::<Vec<_>>();
    let runs = tenant.runs_of("w", Some(Timestamp::UNIX_EPOCH)).await.expect("smaller pages fit").runs;
    assert_eq!(runs.len(), 20);
    assert_eq!(sizes()[..4], [50, 25, 12, 6]);
    assert_eq!(sizes()[4..9], [3; 5], "the rest of the pages at once in the size that fits");
    let before = sizes().len();
    tenant.workflows_of_package("snowflake").await.expect("an answer");
    assert_eq!(sizes()[before..], [3], "other searches know it too");
    clock.advance(Duration::from_secs(3600)).await;
    let before = sizes().len();
    tenant.workflows_of_package("snowflake").await.expect("an answer");
    assert_eq!(sizes()[before], 50, "and it is tried again later");
}

#[tokio::test]
async fn one_result_that_is_too_long_names_the_setting_and_is_not_asked_for_again_at_once() {
    let clock = clock();
    let server = with_documents_of(3 << 20, 5).await;
    let tenant = tenants(TenantSettings { body_limit: 1 << 20, ..server.settings() }, &clock);
    let failure = tenant.runs_of("w", None).await.expect_err("not even one fits");
    assert!(failure.code == "tenant.oversized" && failure.message.contains("body_limit"), "{failure}");
    assert!(failure.suggested_action.is_some_and(|hint| hint.contains("tenants.default.body_limit")));
    assert!(failure.retry_after.is_some_and(|wait| wait >= Duration::from_secs(30)));
}

fn tenants(settings: TenantSettings, clock: &Arc<ManualClock>) -> Arc<Tenant> {
    super::super::scripted::tenants(settings, clock).get("default").expect("it is configured")
}

#[tokio::test]
async fn searches_ask_for_the_fields_that_are_read() {
    let server = Scripted::answering(|_| Some(Reply::ok(&hits(&[])))).await;
    let tenant = server.tenant(&clock());
    tenant.runs_of("w", None).await.expect("an answer");
    tenant.look("r").await.expect("an answer");
    tenant.workflow("w").await.expect("an answer");
    tenant.workflows_of_package("w").await.expect("an answer");
    tenant.stands(&json!({"metadata": {"name": "w"}})).await.expect("an answer");
    tenant.last_run("w").await.expect("an answer");
    tenant.list_runs(&RunFilter::default(), 1).await.expect("an answer");
    tenant.list_workflows(1).await.expect("an answer");
    assert_eq!(server.requests().len(), 8);
    for request in server.requests() {
        let fields = request.body["_source"].as_array().expect("a list").clone();
        assert!(fields.contains(&json!("metadata.name")) && !fields.contains(&json!("spec")), "{fields:?}");
    }
}

#[tokio::test]
async fn a_tenant_that_does_not_understand_which_fields_are_read_is_searched_without_them() {
    let server = Scripted::answering(|request: &Recorded| {
        let refused = request.body.get("_source").is_some();
        Some(if refused { Reply::json(400, &json!({"message": "unknown key"})) } else { Reply::ok(&hits(&[])) })
    })
    .await;
    let tenant = server.tenant(&clock());
    for _ in 0..2 {
        tenant.runs_of("w", None).await.expect("an answer");
        tenant.workflow("w").await.expect("an answer");
    }
    let asked: Vec<_> = server.requests().iter().map(|request| request.body.get("_source").is_some()).collect();
    assert_eq!(asked, [true, false, false, false, false], "it is tried once");
    let tenant = server.tenant(&clock());
    let (one, two, three) = tokio::join!(tenant.runs_of("w", None), tenant.workflow("w"), tenant.last_run("w"));
    assert!(one.is_ok() && two.is_ok() && three.is_ok(), "searches at the same time learn it together");
    // A search that is refused for another reason fails, and the next one asks for its fields again.
    let server = Scripted::answering(|_| Some(Reply::json(400, &json!({"message": "no"})))).await;
    let tenant = server.tenant(&clock());
    for _ in 0..2 {
        tenant.runs_of("w", None).await.expect_err("it is refused");
    }
    let asked: Vec<_> = server.requests().iter().map(|request| request.body.get("_source").is_some()).collect();
    assert_eq!(asked, [true, false, true, false]);
}

#[tokio::test]
async fn hits_that_are_null_beside_a_total_of_none_are_an_empty_list() {
    for (body, expected) in [
        (json!({"hits": {"total": {"value": 0}, "hits": null}}), Ok(0)),
        (json!({"hits": {"total": {"value": 0}}}), Ok(0)),
        (json!({"hits": {"total": {"value": 1}, "hits": null}}), Err("tenant.unreadable")),
        (json!({"hits": {"hits": null}}), Err("tenant.unreadable")),
        (json!({"hits": {"total": {"value": 0}, "hits": "none"}}), Err("tenant.unreadable")),
    ] {
        let server = Scripted::script([Reply::ok(&body)]).await;
        let runs = server.tenant(&clock()).runs_of("w", None).await.map(|shown| shown.runs);
        assert_eq!(runs.as_ref().map(Vec::len).map_err(|failure| failure.code.as_ref()), expected, "{body}");
    }
}

#[tokio::test]
async fn one_odd_element_does_not_lose_the_rest() {
    let run = json!({"_id": "w-a", "_source": {"spec": {"workflowTemplateRef": {"name": "w"}}}});
    let odd = [json!(null), json!(7), json!("x"), json!([]), json!({"_source": null}), json!({"_id": {}, "_source": []})];
    let all: Vec<_> = odd.iter().cloned().chain([run]).collect();
    let roles = json!({"roles": [null, {"name": null}, {"name": 5}, [], {"name": "$admin"}], "username": ["odd"]});
    let server = Scripted::script([Reply::ok(&json!({"hits": {"hits": all}})), Reply::ok(&roles)]).await;
    let tenant = server.tenant(&clock());
    let runs = tenant.runs_of("w", None).await.expect("an answer").runs;
    assert_eq!(runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>(), ["w-a"]);
    assert_eq!(tenant.whoami().await.expect("an answer").roles, ["$admin"]);
}

#[tokio::test]
async fn a_listing_is_read_until_its_total_however_short_its_pages_are() {
    let server = Scripted::answering(|request: &Recorded| {
        let offset: usize = request.target.split("offset=").nth(1)?.split('&').next()?.parse().ok()?;
        let role = |n: usize| if n == 3 { json!({"name": null}) } else { json!({"name": format!("$r{n}")}) };
        let records: Vec<_> = (offset..(offset + 7).min(20)).map(role).collect();
        Some(Reply::ok(&json!({"totalRecord": 20, "filterRecord": 20, "records": records})))
    })
    .await;
    let roles = server.tenant(&clock()).roles().await.expect("an answer");
    assert_eq!((roles.len(), server.requests().len()), (19, 3));
}

#[tokio::test]
async fn a_listing_that_counts_more_than_it_ever_shows_ends() {
    let server = Scripted::answering(|_| Some(Reply::ok(&json!({"totalRecord": 1_000_000, "records": []})))).await;
    // A role that was not shown would be taken for one that does not exist.
    let failure = server.tenant(&clock()).roles().await.expect_err("it is not whole");
    assert_eq!((failure.code.as_ref(), server.requests().len()), ("tenant.unreadable", 1));
}

#[tokio::test]
async fn a_refusal_by_something_in_between_is_no_refusal_of_the_tenant() {
    for (reply, foreign) in [
        (Reply::text(403, "<html>Request blocked</html>"), true),
        (Reply::text(403, "RBAC: access denied"), true),
        (Reply::text(403, ""), true),
        (Reply::text(403, "[]"), true),
        (Reply::json(403, &json!({"message": "no"})), false),
        (Reply::text(404, "<html>not here</html>"), true),
        (Reply::text(400, "<!DOCTYPE html>"), true),
        (Reply::text(400, "bad request"), false),
        (Reply::text(404, "404 page not found"), false),
        (Reply::json(422, &json!({})), false),
    ] {
        let shown = format!("{reply:?}");
        let clock = clock();
        let server = Scripted::answering(move |request: &Recorded| {
            Some(if request.target.ends_with("/whoami") { Reply::ok(&me("jane")) } else { reply.clone() })
        })
        .await;
        let failure = drive(&clock, server.tenant(&clock).runs_of("w", None)).await.expect_err("it is refused");
        let expected = (foreign, foreign, if foreign { Category::DependencyUnavailable } else { failure.category });
        assert_eq!((failure.code == "tenant.unavailable", failure.retryable, failure.category), expected, "{shown}: {failure}");
        assert_eq!(failure.message.contains("something in between"), foreign, "{failure}");
    }
}

#[tokio::test]
async fn a_redirect_or_a_denial_of_a_moment_does_not_fail_a_read_and_an_effect_is_never_repeated_for_it() {
    let odd = [Reply::json(302, &json!({})), Reply::json(403, &json!({"message": "no"})), Reply::text(403, "<html>")];
    for reply in odd {
        let clock = clock();
        let server = Scripted::script([reply.clone(), reply.clone(), Reply::ok(&hits(&[]))]).await;
        assert_eq!(drive(&clock, server.tenant(&clock).runs_of("w", None)).await.map(|shown| shown.runs), Ok(vec![]));
        assert!(clock.monotonic() < Duration::from_secs(2), "a gate has no more time than that");
        let server = Scripted::answering(move |request: &Recorded| {
            Some(if request.target.ends_with("/whoami") { Reply::ok(&me("jane")) } else { reply.clone() })
        })
        .await;
        let tenant = server.tenant(&clock);
        drive(&clock, tenant.stop_run("r")).await.expect_err("it is refused");
        assert_eq!(server.count("POST", "/stop"), 1);
    }
}

#[tokio::test]
async fn a_401_of_one_operation_is_retried_for_a_bounded_time_while_the_login_is_accepted_elsewhere() {
    let clock = clock();
    let server = Scripted::answering(|request: &Recorded| {
        Some(if request.target.ends_with("/whoami") { Reply::ok(&me("jane")) } else { Reply::json(401, &json!({})) })
    })
    .await;
    let tenant = server.tenant(&clock);
    for (later, retryable) in [(0, true), (60, true), (59, true), (2, false), (60, false), (1_000, true)] {
        clock.advance(Duration::from_secs(later)).await;
        let failure = tenant.runs_of("w", None).await.expect_err("it is refused");
        assert_eq!((failure.code.as_ref(), failure.retryable), ("tenant.unauthenticated", retryable), "{later} s later");
        assert!(tenant.hold().is_none());
    }
}

#[tokio::test]
async fn a_401_after_the_token_was_accepted_there_is_retried_for_the_whole_time_again() {
    let clock = clock();
    let refuses = Arc::new(AtomicBool::new(true));
    let told = refuses.clone();
    let server = Scripted::answering(move |request: &Recorded| {
        if request.target.ends_with("/whoami") {
            return Some(Reply::ok(&me("jane")));
        }
        Some(if told.load(Ordering::SeqCst) { Reply::json(401, &json!({})) } else { Reply::ok(&hits(&[])) })
    })
    .await;
    let tenant = server.tenant(&clock);
    // (seconds later, the operation refuses the token, the 401 is retryable)
    for (later, refused, retryable) in [(0, true, true), (60, false, false), (61, true, true), (119, true, true), (2, true, false)]
    {
        clock.advance(Duration::from_secs(later)).await;
        refuses.store(refused, Ordering::SeqCst);
        let asked = tenant.runs_of("w", None).await;
        assert_eq!(asked.as_ref().err().map(|failure| failure.retryable), refused.then_some(retryable), "{later} s later");
    }
}

#[tokio::test]
async fn a_name_that_leads_to_another_path_is_refused_before_anything_is_sent() {
    let server = Scripted::answering(|_| None).await;
    let tenant = server.tenant(&clock());
    for name in ["", ".", "..", "a/../../x"] {
        for failure in [
            tenant.purge_oauth_client(name).await.expect_err("it is refused"),
            tenant.oauth_client(name).await.expect_err("it is refused"),
            tenant.update_oauth_client(name, Some("n"), None).await.expect_err("it is refused"),
            not_asked(tenant.stop_run(name).await),
            not_asked(tenant.cancel_app_run(name).await),
            tenant.app_run(name).await.expect_err("it is refused"),
            tenant.has_app(name).await.expect_err("it is refused"),
        ] {
            assert!(failure.category == Category::InvalidInput && !failure.retryable, "{failure:?}");
        }
        let submitted = tenant.submit_app(tenant.permit().await, name, "id").await;
        assert!(matches!(submitted, Submission::NotApplied(failure) if failure.category == Category::InvalidInput));
    }
    assert!(server.requests().is_empty());
    // Ids of runs hold colons and slashes.
    let server = Scripted::script([Reply::ok(&json!({"run_id": "a:b/c", "status": "Paused"}))]).await;
    let run = server.tenant(&clock()).app_run("a:b/c").await.expect("an answer").expect("a run");
    assert!(run.phase_is_known() && run.standing() == Standing::Active);
    assert_eq!(server.requests()[0].target, "/api/service/v1/app/runs/a%3Ab%2Fc");
}

fn not_asked(stopped: Result<(), StopError>) -> Failure {
    match stopped {
        Err(StopError::NotAsked(failure)) => failure,
        other => panic!("it was not asked: {other:?}"),
    }
}

#[tokio::test]
async fn a_run_is_asked_to_stop_by_an_empty_answer_and_not_by_one_about_another_run() {
    for (reply, asked) in [
        (Reply::text(200, ""), true),
        (Reply::ok(&json!({})), true),
        (Reply::ok(&json!({"metadata": {"name": "r"}})), true),
        (Reply::ok(&json!({"metadata": {"name": "other"}})), false),
        (Reply::text(200, "<html>sign in</html>"), false),
        (Reply::text(200, "ok"), false),
    ] {
        let server = Scripted::script([reply.clone()]).await;
        assert_eq!(server.tenant(&clock()).stop_run("r").await.is_ok(), asked, "{reply:?}");
    }
    let pages = [401, 403, 404, 429].map(|status| (Reply::text(status, "<html>blocked</html>"), true));
    for (reply, may_be_asked) in pages.into_iter().chain([
        (Reply::text(403, ""), true),
        (Reply::cut(), true),
        (Reply::ok(&json!({"metadata": {"name": "other"}, "run_id": "other"})), true),
        (Reply::json(400, &json!({"message": "it has ended"})), false),
        (Reply::text(404, "404 page not found"), false),
    ]) {
        let server = Scripted::script([reply.clone(), reply.clone()]).await;
        let tenant = server.tenant(&clock());
        for stopped in [tenant.stop_run("r").await, tenant.cancel_app_run("r").await] {
            let told = format!("{reply:?}: {stopped:?}");
            assert_eq!(matches!(stopped.expect_err("it is not known"), StopError::UnknownFate(_)), may_be_asked, "{told}");
        }
    }
    for (reply, asked) in [
        (Reply::ok(&json!({"run_id": "r", "cancelled": true})), true),
        (Reply::text(200, ""), true),
        (Reply::ok(&json!({"run_id": "r", "cancelled": false})), false),
        (Reply::ok(&json!({"run_id": "other", "cancelled": true})), false),
        (Reply::text(200, "<html>"), false),
    ] {
        let server = Scripted::script([reply.clone()]).await;
        assert_eq!(server.tenant(&clock()).cancel_app_run("r").await.is_ok(), asked, "{reply:?}");
    }
}

#[tokio::test]
async fn an_answer_to_a_submission_that_names_another_workflow_leaves_its_fate_unknown() {
    let document = |of: &str| json!({"metadata": {"name": "w-1-abcde"}, "spec": {"workflowTemplateRef": {"name": of}}});
    let nameless = json!({"run_id": "w-1-abcde", "spec": {"workflowTemplateRef": {"name": "w-2"}}});
    let replies = [document("w-1"), document("w-2"), nameless].map(|answer| Reply::ok(&answer));
    let server = Scripted::script(replies).await;
    let tenant = server.tenant(&clock());
    let jane = Identity { user_id: "u-1".into(), username: "jane".into(), roles: vec![] };
    let submitted = tenant.submit(tenant.permit().await, &jane, "w-1", "id").await;
    assert!(matches!(submitted, Submission::Applied(run) if run.workflow.as_deref() == Some("w-1")));
    for _ in 0..2 {
        let submitted = tenant.submit(tenant.permit().await, &jane, "w-1", "id").await;
        assert!(matches!(&submitted, Submission::UnknownFate(failure) if failure.code == "tenant.unreadable"), "{submitted:?}");
    }
}

#[tokio::test]
async fn a_run_that_only_an_id_names_is_followed_where_the_engine_shows_it() {
    let member = Identity { user_id: String::new(), username: "jane".into(), roles: vec![] };
    for (body, kind) in [
        (json!({"run_id": "0190-ab"}), Kind::App),
        (json!({"data": {"run_id": "0190-ab"}}), Kind::App),
        (json!({"run_id": "w-1-abcde"}), Kind::Workflow),
        (json!({"metadata": {"name": "w-1-abcde"}, "run_id": "0190-ab"}), Kind::Workflow),
    ] {
        let server = Scripted::script([Reply::ok(&body)]).await;
        let tenant = server.tenant(&clock());
        let submitted = tenant.submit(tenant.permit().await, &member, "w-1", "id").await;
        let Submission::Applied(run) = submitted else { panic!("{body}: {submitted:?}") };
        assert_eq!((run.kind, run.workflow.as_deref()), (kind, Some("w-1")), "{body}");
    }
    let status = json!({"run_id": "0190-ab", "workflow_slug": "w-1", "status": "Succeeded", "dag_nodes": {}});
    let server = Scripted::answering(move |request: &Recorded| {
        Some(if request.target.contains("/native-status/0190-ab") { Reply::ok(&status) } else { Reply::json(404, &json!({})) })
    })
    .await;
    let run = server.tenant(&clock()).look_at_app_run("0190-ab", None).await.expect("an answer").expect("a run");
    assert_eq!((run.standing(), run.workflow.as_deref()), (Standing::Succeeded, Some("w-1")));
}

#[tokio::test]
async fn admins_that_cannot_be_written_back_exactly_are_not_read() {
    for (admins, readable) in [
        (json!(["jane"]), true),
        (json!(["jane", "a\u{1b}[31mb"]), false),
        (json!(["jane", "x".repeat(2_000)]), false),
        (json!(["jane", "test-api-key"]), false),
        (json!(vec!["u"; 6_000]), false),
    ] {
        let entity = json!({"entity": {"guid": "g", "attributes": {"qualifiedName": "q", "name": "n", "adminUsers": admins}}});
        let server = Scripted::script([Reply::ok(&entity)]).await;
        assert_eq!(server.tenant(&clock()).connection("q").await.is_ok(), readable);
    }
}

#[test]
fn a_status_that_http_does_not_know_is_no_label_of_its_own() {
    let labels: std::collections::BTreeSet<_> = (100..=999).map(super::super::measure::known_status).collect();
    assert_eq!(labels.len(), 47, "46 and `other`");
    assert!(labels.contains(&Status::Other) && labels.contains(&Status::Known(503)) && !labels.contains(&Status::Known(599)));
}
