//! The client against a scripted server: what each status means, what is sent again, what became of an effect.

use std::time::Duration;

use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::SpanData;
use serde_json::{Value, json};

use super::classify::Effect;
use super::scripted::{Recorded, Reply, Scripted, clock, drive, hits, spans, tenants};
use super::send::{Call, Sent};
use super::*;

mod answers;
mod clock_offset;
mod failing;
mod logins;
mod marker;
mod oauth_clients;
mod searches;
mod trust;
mod unreached;

fn call() -> Call {
    Call::get("test.read", "api/service/thing").needs("the right to things")
}

async fn failure_of(reply: Reply, sends: usize) -> Failure {
    let clock = clock();
    let server = Scripted::script(vec![reply; sends]).await;
    drive(&clock, server.tenant(&clock).read::<Value>(&call())).await.expect_err("no success")
}

#[tokio::test]
async fn each_status_becomes_its_failure() {
    let body = json!({"code": 1006, "message": "because"});
    // (status, sends, code, category, retryable)
    let rows = [
        (302, 3, "tenant.redirected", Category::DependencyUnavailable, true),
        (400, 1, "tenant.refused", Category::InvalidInput, false),
        (401, 2, "tenant.unauthenticated", Category::Auth, false),
        (404, 1, "tenant.not_found", Category::NotFound, false),
        (405, 1, "tenant.unsupported", Category::Unimplemented, false),
        (408, 1, "tenant.timeout", Category::Timeout, true),
        (409, 1, "tenant.conflict", Category::AlreadyExists, false),
        (422, 1, "tenant.refused", Category::InvalidInput, false),
        (429, 3, "tenant.rate_limited", Category::RateLimited, true),
        (500, 1, "tenant.unavailable", Category::DependencyUnavailable, true),
        (502, 3, "tenant.unavailable", Category::DependencyUnavailable, true),
        (503, 3, "tenant.unavailable", Category::DependencyUnavailable, true),
        (504, 3, "tenant.timeout", Category::Timeout, true),
    ];
    for (status, sends, code, category, retryable) in rows {
        let failure = failure_of(Reply::json(status, &body), sends).await;
        assert_eq!((failure.code.as_ref(), failure.category, failure.retryable), (code, category, retryable), "{status}");
        assert_eq!(failure.source.http_status, Some(status));
        assert_eq!(failure.source.tenant_code.as_deref(), Some("1006"));
        assert_eq!(failure.source.operation.as_deref(), Some("test.read"));
        assert!(failure.source.request_id.is_some() && failure.message.contains("because"), "{failure}");
    }
}

#[tokio::test]
async fn a_denial_names_who_asked_for_what_and_what_is_needed() {
    let me = Reply::ok(&json!({"username": "jane", "roles": []}));
    for (whoami, who) in [(me, "jane"), (Reply::json(403, &json!({})), "the holder of this API key")] {
        let clock = clock();
        let denied = vec![Reply::json(403, &json!({})); 3];
        let whoami = vec![whoami.clone(); if who == "jane" { 1 } else { 3 }];
        let server = Scripted::script(denied.into_iter().chain(whoami)).await;
        let failure = drive(&clock, server.tenant(&clock).read::<Value>(&call())).await.expect_err("it is denied");
        assert_eq!((failure.code.as_ref(), failure.category, failure.retryable), ("tenant.forbidden", Category::Permission, false));
        for part in ["test.read", who, "the right to things"] {
            assert!(failure.message.contains(part), "{failure}");
        }
    }
    let failure = failure_of(Reply::json(401, &json!({})), 2).await;
    assert!(failure.suggested_action.is_some_and(|action| action.contains("ATLAN_API_KEY")));
}

#[tokio::test]
async fn a_success_that_cannot_be_read_is_no_success() {
    for (reply, sends, code) in [
        (Reply::text(200, "<html>"), 1, "tenant.unreadable"),
        (Reply::text(200, ""), 1, "tenant.unreadable"),
        (Reply::text(200, &"x".repeat(9 << 20)), 1, "tenant.oversized"),
        (Reply::cut_body(), 3, "tenant.connection_lost"),
        (Reply::cut(), 3, "tenant.connection_lost"),
    ] {
        assert_eq!(failure_of(reply, sends).await.code, code);
    }
}

#[tokio::test]
async fn a_retry_after_is_read_from_header_date_and_body_and_bounded() {
    let seconds = |reply: Reply| async move { failure_of(reply, 1).await.retry_after.map(|wait| wait.as_secs()) };
    assert_eq!(seconds(Reply::json(500, &json!({})).header("retry-after", "7")).await, Some(7));
    assert_eq!(seconds(Reply::json(500, &json!({"retry_after": 120})).header("retry-after", "7")).await, Some(120));
    assert_eq!(seconds(Reply::json(500, &json!({})).header("retry-after", "99999")).await, Some(3600));
    let date = Reply::json(500, &json!({}))
        .header("date", "Thu, 01 Jan 2026 05:00:00 GMT")
        .header("retry-after", "Thu, 01 Jan 2026 05:00:30 GMT");
    assert_eq!(seconds(date).await, Some(30));
    assert_eq!(seconds(Reply::json(500, &json!({"retry_after": -3}))).await, None);
}

#[tokio::test]
async fn a_resend_never_comes_sooner_than_the_tenant_asks_and_keeps_its_request_id() {
    let clock = clock();
    let script = [Reply::text(429, "").header("retry-after", "6"), Reply::cut(), Reply::ok(&json!({"fine": 1}))];
    let server = Scripted::script(script).await;
    let tenant = server.tenant(&clock);
    let body = drive(&clock, tenant.read::<Value>(&call())).await.expect("the third answer is fine");
    assert_eq!(body["fine"], 1);
    // 6 s as asked, then 400 ms with the clock's jitter of 0.5.
    assert_eq!(clock.monotonic(), Duration::from_millis(6_300));
    let ids: Vec<_> = server.requests().iter().map(|request| request.headers["x-atlan-request-id"].clone()).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn a_wait_that_is_too_long_for_an_attempt_is_left_to_the_schedule() {
    let failure = failure_of(Reply::text(503, "").header("retry-after", "11"), 1).await;
    assert_eq!(failure.retry_after, Some(Duration::from_secs(11)));
}

#[tokio::test]
async fn a_request_that_gets_no_answer_in_time_may_have_arrived() {
    let clock = clock();
    let moving = clock.clone();
    let server = Scripted::answering(move |_| {
        moving.advance_without_waiting(Duration::from_secs(30));
        Some(Reply::hang())
    })
    .await;
    let Sent::UnknownDelivery(failure) = server.tenant(&clock).send(&call()).await else { panic!("another outcome") };
    assert_eq!(failure.code, "tenant.timeout");
}

#[tokio::test]
async fn nobody_there_means_not_delivered() {
    let clock = clock();
    let settings =
        TenantSettings { base_url: "http://127.0.0.1:1".into(), api_key: Some("secret-key".into()), ..TenantSettings::default() };
    let tenant = tenants(settings, &clock).get("default").expect("it is configured");
    let Sent::NotDelivered(failure) = tenant.send(&call()).await else { panic!("another outcome") };
    assert!(failure.code == "tenant.unreachable" && failure.retryable, "{failure}");
    assert!(!format!("{failure:?}").contains("secret-key"));
}

#[tokio::test]
async fn what_is_not_configured_is_said_and_nothing_is_sent() {
    let clock = clock();
    let code = |settings| {
        let tenant = tenants(settings, &clock).get("default").expect("it is configured");
        async move { tenant.whoami().await.expect_err("it fails").code }
    };
    assert_eq!(code(TenantSettings::default()).await, "tenant.unconfigured");
    let keyless = TenantSettings { base_url: "http://127.0.0.1:1".into(), ..TenantSettings::default() };
    assert_eq!(code(keyless).await, "credentials.missing");
    assert_eq!(Tenants::none().get("acme").err().expect("it fails").code, "tenant.unknown");
}

#[tokio::test]
async fn only_proof_makes_an_effect_applied_or_not_applied() {
    let active = json!({"message": "rpc error: 409 AE-WF-409-03: an active run exists"});
    let plain = json!({"message": "m"});
    let rows = [
        (Reply::ok(&plain), "applied"),
        (Reply::text(200, "<html>"), "unknown"),
        (Reply::cut_body(), "unknown"),
        (Reply::cut(), "unknown"),
        (Reply::json(302, &plain), "unknown"),
        (Reply::json(408, &plain), "unknown"),
        (Reply::json(500, &plain), "unknown"),
        (Reply::json(503, &plain), "unknown"),
        (Reply::json(409, &plain), "conflict"),
        (Reply::json(500, &active), "already active"),
        (Reply::json(409, &active), "already active"),
        (Reply::json(409, &json!({"code": "AE-WF-409-03"})), "already active"),
        (Reply::json(500, &json!({"error": {"code": "AE-WF-409-03"}})), "already active"),
        (Reply::text(502, "upstream said AE-WF-409-03"), "already active"),
        (Reply::json(409, &json!({"message": "object has been modified"})), "conflict"),
        (Reply::json(409, &json!({"message": "AE-WF-409-031"})), "conflict"),
        (Reply::json(409, &json!({"info": "AE-WF-409-03"})), "conflict"),
        (Reply::json(400, &json!({"message": "AE-WF-409-03 is no name"})), "not applied"),
        (Reply::text(500, "<html>AE-WF-409-03</html>"), "unknown"),
        (Reply::ok(&plain).header("content-type", "text/html"), "applied"),
        (Reply::text(200, "signed out").header("content-type", "text/html"), "unknown"),
        (Reply::text(200, "done"), "unknown"),
        (Reply::text(200, ""), "unknown"),
        (Reply::json(200, &json!({"errorCode": "X-1", "errorMessage": "no"})), "unknown"),
        (Reply::text(400, "<!DOCTYPE html>"), "unknown"),
        (Reply::text(401, "<html>sign in</html>"), "unknown"),
        (Reply::text(401, "sign in").header("content-type", "text/html"), "unknown"),
        (Reply::text(403, "<html>blocked</html>"), "unknown"),
        (Reply::text(403, "RBAC: access denied"), "unknown"),
        (Reply::text(403, ""), "unknown"),
        (Reply::json(403, &json!(["no"])), "unknown"),
        (Reply::text(404, "<html>not here</html>"), "unknown"),
        (Reply::bytes(404, &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff, 0xff]).header("content-encoding", "gzip"), "unknown"),
        (Reply::text(409, "<html>AE-WF-409-03</html>"), "unknown"),
        (Reply::text(413, "<html>too large</html>"), "unknown"),
        (Reply::text(429, "<html>slower</html>"), "unknown"),
        (Reply::text(400, "bad request"), "not applied"),
        (Reply::text(401, ""), "not applied"),
        (Reply::text(401, "who are you?"), "not applied"),
        (Reply::text(404, "404 page not found"), "not applied"),
        (Reply::text(405, ""), "not applied"),
        (Reply::text(429, ""), "not applied"),
        (Reply::json(400, &plain), "not applied"),
        (Reply::json(401, &plain), "not applied"),
        (Reply::json(403, &plain), "not applied"),
        (Reply::json(404, &plain), "not applied"),
        (Reply::json(422, &plain), "not applied"),
        (Reply::json(429, &plain), "not applied"),
    ];
    for (reply, expected) in rows {
        let clock = clock();
        let shown = format!("{reply:?}");
        let me = Reply::ok(&json!({"username": "jane", "roles": []}));
        let answer = move |request: &Recorded| if request.target.ends_with("/whoami") { me.clone() } else { reply.clone() };
        let server = Scripted::answering(move |request| Some(answer(request))).await;
        let tenant = server.tenant(&clock);
        let call = Call::post("test.act", "api/service/act", None);
        let sent = tenant.send_effect(tenant.permit().await, &call).await;
        let became = match tenant.effect::<Value>(&call, sent) {
            Effect::Applied(_) => "applied",
            Effect::AlreadyActive(_) => "already active",
            Effect::Conflict(_) => "conflict",
            Effect::NotApplied(_) => "not applied",
            Effect::UnknownFate(_) => "unknown",
        };
        assert_eq!(became, expected, "{shown}");
        let times = server.count("POST", "/act");
        assert!(times == 1 || became == "not applied", "sent {times} times, and may have been applied: {shown}");
    }
}

#[tokio::test]
async fn a_submission_is_applied_only_if_the_answer_names_the_run() {
    let member = Identity { user_id: String::new(), username: "jane".into(), roles: vec!["$member".into()] };
    let rows = [
        (json!({"metadata": {"name": "w-1-abcde"}}), Some("w-1-abcde")),
        (json!({"data": {"run_id": "r-9"}}), Some("r-9")),
        (json!({"metadata": {"name": "w-1"}}), None),
        (json!({}), None),
    ];
    for (body, expected) in rows {
        let clock = clock();
        let server = Scripted::script([Reply::ok(&body)]).await;
        let tenant = server.tenant(&clock);
        let submission = tenant.submit(tenant.permit().await, &member, "w-1", "id-1").await;
        match expected {
            Some(name) => assert!(matches!(&submission, Submission::Applied(run) if run.name == name), "{submission:?}"),
            None => assert!(matches!(&submission, Submission::UnknownFate(_)), "{submission:?}"),
        }
        let request = &server.requests()[0];
        assert_eq!(
            (request.target.as_str(), &*request.headers["x-atlan-request-id"]),
            ("/api/service/package-workflows/submit", "id-1")
        );
    }
}

#[tokio::test]
async fn an_answer_without_a_list_of_hits_is_never_nothing_found() {
    let clock = clock();
    let server = Scripted::script([Reply::ok(&json!({"hits": null}))]).await;
    assert_eq!(server.tenant(&clock).look("r-1").await.expect_err("no answer").code, "tenant.unreadable");
}

fn run(name: &str, created: &str) -> serde_json::Value {
    json!({"metadata": {"name": name, "creationTimestamp": created}, "spec": {"workflowTemplateRef": {"name": "w"}}, "status": null})
}

#[tokio::test]
async fn runs_are_read_page_by_page_until_one_is_older_than_the_bound() {
    let clock = clock();
    let page = |from: usize, created: &str| hits(&(from..from + 50).map(|n| run(&format!("w-{n}"), created)).collect::<Vec<_>>());
    // The second page repeats one run of the first, as happens when a run starts meanwhile.
    let script = [page(0, "2026-01-01T00:00:09Z"), page(49, "2026-01-01T00:00:01Z")];
    let server = Scripted::script(script.iter().map(Reply::ok)).await;
    let bound = Some("2026-01-01T00:00:05Z".parse().expect("a time"));
    let runs = server.tenant(&clock).runs_of("w", bound).await.expect("both pages are fine").runs;
    assert_eq!(runs.len(), 99);
    let from: Vec<_> = server.requests().iter().map(|request| request.body["from"].clone()).collect();
    assert_eq!(from, [json!(0), json!(50)]);
}

#[tokio::test]
async fn a_tenant_that_ignores_paging_does_not_make_us_read_forever() {
    let clock = clock();
    let page = hits(&(0..50).map(|n| run(&format!("w-{n}"), "2026-01-01T00:00:09Z")).collect::<Vec<_>>());
    let server = Scripted::script([Reply::ok(&page), Reply::ok(&page)]).await;
    let runs = server.tenant(&clock).runs_of("w", Some(Timestamp::UNIX_EPOCH)).await.expect("the pages are fine").runs;
    assert_eq!(runs.len(), 50);
}

#[tokio::test]
async fn a_search_by_package_keeps_only_exact_matches() {
    let clock = clock();
    let of = |name: &str, package: &str| json!({"metadata": {"name": name, "annotations": {"package.argoproj.io/name": package}}});
    let found = hits(&[of("atlan-snowflake-1", "@atlan/snowflake"), of("atlan-snowflake-miner-1", "@atlan/snowflake-miner")]);
    let server = Scripted::script([Reply::ok(&found)]).await;
    let workflows = server.tenant(&clock).workflows_of_package("snowflake").await.expect("the answer is fine");
    assert_eq!(workflows.iter().map(|workflow| workflow.name.as_str()).collect::<Vec<_>>(), ["atlan-snowflake-1"]);
}

#[tokio::test]
async fn who_we_are_is_asked_once_in_ten_minutes() {
    let clock = clock();
    let me = Reply::ok(&json!({"userId": "u", "username": "service-account-x", "roles": [{"name": "$admin"}]}));
    let server = Scripted::script([me.clone(), me]).await;
    let tenant = server.tenant(&clock);
    for _ in 0..3 {
        assert_eq!(tenant.whoami().await.expect("it answers").workflows_path(), "workflows");
    }
    assert_eq!(server.requests().len(), 1);
    clock.advance(Duration::from_secs(600)).await;
    tenant.whoami().await.expect("it answers");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn what_would_be_a_path_of_its_own_stays_one_segment() {
    let clock = clock();
    let server = Scripted::script([Reply::ok(&json!({}))]).await;
    server.tenant(&clock).stop_run("a/b?c").await.expect("it answers");
    assert_eq!(server.requests()[0].target, "/api/service/runs/a%2Fb%3Fc/stop");
}

#[tokio::test]
async fn each_exchange_is_a_client_span_that_the_tenant_can_join() {
    let clock = clock();
    let server = Scripted::script([Reply::cut(), Reply::json(500, &json!({}))]).await;
    drive(&clock, server.tenant(&clock).read::<Value>(&call())).await.expect_err("it fails");

    let all = spans().get_finished_spans().expect("spans");
    let joined = |request: &Recorded| {
        let traceparent = request.headers["traceparent"].clone();
        all.iter().find(|span| traceparent.contains(&span.span_context.span_id().to_string())).expect("a span").clone()
    };
    let spans: Vec<_> = server.requests().iter().map(joined).collect();
    assert_ne!(spans[0].span_context, spans[1].span_context, "one for each time it was sent");
    for (span, request) in spans.iter().zip(server.requests()) {
        let (trace, id) = (span.span_context.trace_id(), span.span_context.span_id());
        assert_eq!(request.headers["traceparent"], format!("00-{trace}-{id}-01"));
        assert_eq!((span.name.as_ref(), &span.span_kind), ("GET test.read", &SpanKind::Client));
    }
    let attribute = |span: &SpanData, key: &str| {
        span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| attribute.value.to_string())
    };
    assert_eq!(attribute(&spans[0], "error.type").as_deref(), Some("tenant.connection_lost"));
    assert_eq!(attribute(&spans[1], "http.response.status_code").as_deref(), Some("500"));
    assert_eq!(attribute(&spans[1], "url.path").as_deref(), Some("/api/service/thing"));
    assert_eq!(attribute(&spans[1], "server.address").as_deref(), Some("127.0.0.1"));
    assert!(!format!("{spans:?}").contains("test-api-key"));
}

#[tokio::test]
async fn a_role_without_a_name_does_not_hide_who_we_are() {
    let me = json!({"userId": "u", "username": "jane", "roles": [{"id": "r", "name": null}, {"name": "$admin"}, {"id": "s"}]});
    let server = Scripted::script([Reply::ok(&me)]).await;
    assert_eq!(server.tenant(&clock()).whoami().await.expect("it answers").roles, ["$admin"]);
}
