//! Logging in, being locked out and let in again, and keeping the pace that a tenant asks for.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::scripted::{Recorded, Reply, Scripted, clock, drive, tenants};
use super::super::*;
use crate::clock::ManualClock;
use serde_json::{Value, json};

fn me() -> Reply {
    Reply::ok(&json!({"userId": "u", "username": "service-account-x", "roles": []}))
}

fn token(number: usize, life: f64) -> Reply {
    Reply::ok(&json!({"accessToken": format!("token-{number}"), "tokenType": "Bearer", "expiresIn": life}))
}

fn is_login(request: &Recorded) -> bool {
    request.target.ends_with("/token")
}

fn oauth(server: &Scripted) -> TenantSettings {
    TenantSettings {
        api_key: None,
        oauth_client_id: "oauth-client-1".into(),
        oauth_client_secret: Some("s3cr3t".into()),
        ..server.settings()
    }
}

fn with(settings: TenantSettings, clock: &Arc<ManualClock>) -> Arc<Tenant> {
    tenants(settings, clock).get("default").expect("it is configured")
}

/// A tenant that hands out tokens of this life, one after the other, and accepts those that the closure accepts.
async fn handing_out(life: f64, accepts: impl Fn(&str) -> bool + Send + 'static) -> Scripted {
    let mut given = 0;
    Scripted::answering(move |request| {
        if is_login(request) {
            given += 1;
            return Some(token(given, life));
        }
        let bearer = request.headers.get("authorization").cloned().unwrap_or_default();
        Some(if accepts(&bearer) { me() } else { Reply::text(401, "who are you?") })
    })
    .await
}

#[tokio::test]
async fn an_oauth_client_logs_in_once_however_many_ask() {
    let clock = clock();
    let server = handing_out(600.0, |bearer| bearer == "Bearer token-1").await;
    let tenant = with(oauth(&server), &clock);
    let (one, two, three) = tokio::join!(tenant.ping(), tenant.ping(), tenant.ping());
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    let logins: Vec<_> = server.requests().into_iter().filter(is_login).collect();
    assert_eq!(logins.len(), 1);
    assert_eq!(logins[0].body, json!({"clientId": "oauth-client-1", "clientSecret": "s3cr3t"}));
    assert!(!logins[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_token_is_replaced_before_it_expires_also_a_very_short_lived_one() {
    // (life, still used after, replaced after), in seconds
    for (life, used, replaced) in [(600.0, 539, 541), (10.0, 7, 9), (3600.0, 3539, 3541)] {
        for (passed, logins) in [(used, 1), (replaced, 2)] {
            let clock = clock();
            let server = handing_out(life, |_| true).await;
            let tenant = with(oauth(&server), &clock);
            tenant.ping().await.expect("it is let in");
            clock.advance(Duration::from_secs(passed)).await;
            tenant.ping().await.expect("it is let in");
            assert_eq!(server.count("POST", "/token"), logins, "a life of {life} s after {passed} s");
        }
    }
}

#[tokio::test]
async fn a_401_gets_one_new_token_and_one_replay_whatever_its_body_is() {
    let clock = clock();
    let server = handing_out(600.0, |bearer| bearer != "Bearer token-1").await;
    let tenant = with(oauth(&server), &clock);
    assert_eq!(tenant.ping().await.expect("the second token does").identity.username, "service-account-x");
    let shown: Vec<_> = server.requests().into_iter().map(|request| request.target).collect();
    let (login, whoami) = ("/api/service/oauth-clients/token", "/api/service/whoami");
    assert_eq!(shown, [login, whoami, login, whoami]);
    let ids: Vec<_> =
        server.requests().iter().filter(|it| !is_login(it)).map(|it| it.headers["x-atlan-request-id"].clone()).collect();
    assert_eq!(ids[0], ids[1], "a replay is the same call");
}

#[tokio::test]
async fn an_effect_is_sent_again_with_a_new_token_only_after_a_401_that_is_no_page() {
    for (body, sends) in [("who are you?", 2), ("{}", 2), ("<html>sign in</html>", 1)] {
        let mut given = 0;
        let server = Scripted::answering(move |request| {
            if is_login(request) {
                given += 1;
                return Some(token(given, 600.0));
            }
            let is_old = request.headers.get("authorization").is_some_and(|bearer| bearer == "Bearer token-1");
            Some(if is_old { Reply::text(401, body) } else { Reply::text(200, "") })
        })
        .await;
        let tenant = with(oauth(&server), &clock());
        let stopped = tenant.stop_run("r").await;
        assert_eq!((server.count("POST", "/stop"), server.count("POST", "/token")), (sends, 2), "{body}");
        assert_eq!(stopped.is_ok(), sends == 2, "{body}: {stopped:?}");
        tenant.stop_run("r").await.expect("the login was renewed");
    }
}

#[tokio::test]
async fn a_401_that_survives_holds_the_tenant_and_only_a_probe_asks_until_it_is_let_in() {
    let clock = clock();
    let open = Arc::new(AtomicUsize::new(0));
    let opens = open.clone();
    let server = handing_out(600.0, move |_| opens.load(Ordering::SeqCst) == 1).await;
    let all = tenants(oauth(&server), &clock);
    let changes = all.holds_changed();
    let tenant = all.get("default").expect("it is configured");
    let failure = tenant.whoami().await.expect_err("it is not let in");
    assert!(failure.tenant_held && !failure.retryable && failure.category == Category::Auth, "{failure:?}");
    let asked = server.requests().len();
    let held = tenant.workflow("w").await.expect_err("it is held");
    assert!(held.tenant_held && held.message == failure.message && held.source.operation.as_deref() == Some("workflows.show"));
    assert_eq!(server.requests().len(), asked, "nothing is asked of a tenant that is held");
    assert_eq!(all.holds().len(), 1);

    assert!(tenant.probe().await.is_err_and(|failure| failure.tenant_held));
    assert_eq!(all.holds().len(), 1);
    open.store(1, Ordering::SeqCst);
    tenant.probe().await.expect("it is let in");
    assert_eq!((all.holds(), *changes.borrow()), (vec![], 2));
    tenant.whoami().await.expect("it is let in");
}

#[tokio::test]
async fn a_401_for_one_call_of_an_identity_that_the_tenant_knows_holds_nothing() {
    let clock = clock();
    let server = Scripted::answering(|request| {
        Some(if request.target.ends_with("/whoami") { me() } else { Reply::json(401, &json!({"message": "not you"})) })
    })
    .await;
    let tenant = server.tenant(&clock);
    let failure = tenant.workflow("w").await.expect_err("it is refused");
    assert!(failure.category == Category::Auth && !failure.tenant_held, "{failure:?}");
    assert!(tenant.hold().is_none());
    tenant.whoami().await.expect("it is known");
}

#[tokio::test]
async fn a_401_from_just_before_the_tenant_knew_us_again_is_asked_once_more() {
    let mut knows = false;
    let server = Scripted::answering(move |request| {
        let is_whoami = request.target.ends_with("/whoami");
        let reply = match (is_whoami, knows) {
            (true, _) => me(),
            (false, true) => Reply::ok(&json!({"hits": {"hits": []}})),
            (false, false) => Reply::json(401, &json!({"message": "not you"})),
        };
        knows = true;
        Some(reply)
    })
    .await;
    let tenant = server.tenant(&clock());
    assert_eq!(tenant.workflow("w").await, Ok(None));
    let ids: Vec<_> = server.requests().iter().map(|it| it.headers["x-atlan-request-id"].clone()).collect();
    assert!(ids.len() == 3 && ids[0] == ids[2], "it is the same call: {ids:?}");
}

#[tokio::test]
async fn a_401_is_not_final_while_nobody_can_say_whether_the_tenant_knows_us() {
    let clock = clock();
    let server = Scripted::answering(|request| {
        Some(if request.target.ends_with("/whoami") { Reply::text(503, "") } else { Reply::json(401, &json!({})) })
    })
    .await;
    let tenant = server.tenant(&clock);
    let failure = drive(&clock, tenant.workflow("w")).await.expect_err("it is refused");
    assert!(failure.category == Category::Auth && failure.retryable && !failure.tenant_held, "{failure:?}");
    assert!(tenant.hold().is_none());
}

#[tokio::test]
async fn an_answer_to_a_login_is_never_quoted() {
    let clock = clock();
    for reply in [
        Reply::text(200, "access_token=a-s3cr3t&expires_in=600"),
        Reply::text(200, "{\"accessToken\": \"a-s3cr3t\""),
        Reply::text(400, "no client has the secret s3cr3t"),
        Reply::json(401, &json!({"message": "no client has the secret s3cr3t"})),
    ] {
        let server = Scripted::answering(move |_| Some(reply.clone())).await;
        let tenant = with(oauth(&server), &clock);
        let failure = drive(&clock, tenant.whoami()).await.expect_err("no token can be read");
        assert!(!format!("{failure:?} {:?}", tenant.hold()).contains("s3cr3t"), "{failure:?}");
    }
}

#[tokio::test]
async fn a_token_that_the_tenant_quotes_is_not_passed_on() {
    let server = Scripted::answering(|request| {
        let quoted = &request.headers["authorization"];
        Some(Reply::json(403, &json!({"message": format!("may not: {quoted}")})))
    })
    .await;
    let at = clock();
    let failure = drive(&at, server.tenant(&at).workflow("w")).await.expect_err("it is denied");
    assert!(!failure.message.contains("test-api-key") && failure.message.contains("may not"), "{failure}");

    let server = Scripted::answering(|request| {
        let quoted = &request.headers["authorization"];
        Some(Reply::text(403, &format!("{}: {quoted}", "x".repeat(180))))
    })
    .await;
    let at = clock();
    let failure = drive(&at, server.tenant(&at).workflow("w")).await.expect_err("it is denied");
    assert!(!failure.message.contains("test-a"), "half of it: {failure}");
}

#[tokio::test]
async fn a_login_that_the_tenant_refuses_holds_it_and_never_shows_the_secret() {
    for status in [400, 401, 403] {
        let clock = clock();
        let server = Scripted::answering(move |_| Some(Reply::json(status, &json!({"message": "invalid client"})))).await;
        let tenant = with(oauth(&server), &clock);
        let failure = tenant.whoami().await.expect_err("it is refused");
        assert_eq!((failure.code.as_ref(), failure.category, failure.tenant_held), ("credentials.refused", Category::Auth, true));
        assert!(failure.message.contains("oauth-client-1") && !format!("{failure:?}").contains("s3cr3t"), "{failure:?}");
        assert_eq!(server.requests().len(), 1);
        assert!(tenant.whoami().await.is_err() && server.requests().len() == 1);
    }
}

#[tokio::test]
async fn a_login_is_retried_with_care_and_who_waited_for_it_does_not_try_again_at_once() {
    let clock = clock();
    let script = [Reply::text(503, ""), Reply::text(429, "").header("retry-after", "3"), token(1, 600.0), me()];
    let server = Scripted::script(script).await;
    let tenant = with(oauth(&server), &clock);
    drive(&clock, tenant.ping()).await.expect("the third login is answered");
    assert_eq!(clock.monotonic(), Duration::from_millis(3_150), "150 ms of its own, then 3 s as asked");

    let clock = crate::tenant::scripted::clock();
    let server = Scripted::answering(|_| Some(Reply::text(502, ""))).await;
    let tenant = with(oauth(&server), &clock);
    let (one, two) = drive(&clock, async { tokio::join!(tenant.whoami(), tenant.whoami()) }).await;
    let (one, two) = (one.expect_err("it is down"), two.expect_err("it is down"));
    assert!(one.retryable && !one.tenant_held && two.code == one.code, "{one:?}");
    assert!(tenant.hold().is_none());
}

#[tokio::test]
async fn a_service_account_logs_in_at_keycloak_with_a_form() {
    let clock = clock();
    let server = Scripted::script([Reply::ok(&json!({"access_token": "kc-1", "expires_in": 300})), me()]).await;
    let settings = TenantSettings {
        api_key: None,
        keycloak_client_id: "atlan-argo".into(),
        keycloak_client_secret: Some("s3&cr=t".into()),
        ..server.settings()
    };
    with(settings, &clock).ping().await.expect("it is let in");
    let requests = server.requests();
    assert_eq!(requests[0].target, "/auth/realms/default/protocol/openid-connect/token");
    assert_eq!(requests[0].headers["content-type"], "application/x-www-form-urlencoded;charset=UTF-8");
    let form = "grant_type=client_credentials&client_id=atlan-argo&client_secret=s3%26cr%3Dt&scope=openid";
    assert_eq!(requests[0].body, form);
    assert_eq!(requests[1].headers["authorization"], "Bearer kc-1");
}

#[tokio::test]
async fn the_file_of_a_secret_is_read_again_before_a_401_is_final() {
    let clock = clock();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "old-key").expect("it is written");
    let server = Scripted::answering(|request| {
        Some(if request.headers["authorization"] == "Bearer new-key" { me() } else { Reply::json(401, &json!({})) })
    })
    .await;
    let settings = TenantSettings { api_key: None, api_key_file: Some(file.path().into()), ..server.settings() };
    let tenant = with(settings, &clock);
    std::fs::write(file.path(), "new-key\n").expect("it is written");
    tenant.ping().await.expect("the new key does");
    assert_eq!(server.requests().len(), 2);
    // While it is held a probe reads it, too.
    std::fs::write(file.path(), "third-key").expect("it is written");
    let other = with(
        TenantSettings { api_key: None, api_key_file: Some(file.path().into()), ..server.settings() },
        &crate::tenant::scripted::clock(),
    );
    assert!(other.ping().await.expect_err("a wrong key").suggested_action.expect("a hint").contains("valid now"));
    std::fs::write(file.path(), "new-key").expect("it is written");
    other.probe().await.expect("the new key does");
}

#[tokio::test]
async fn whoever_is_asked_to_wait_keeps_all_others_waiting_too() {
    let clock = clock();
    let server = Scripted::script([Reply::text(429, "").header("retry-after", "60"), me()]).await;
    let tenant = server.tenant(&clock);
    let first = tenant.ping().await.expect_err("it is asked to wait");
    assert_eq!((first.retry_after, first.tenant_held), (Some(Duration::from_secs(60)), false));
    clock.advance(Duration::from_secs(20)).await;
    let second = tenant.ping().await.expect_err("it is still to wait");
    assert_eq!((second.retry_after, second.tenant_held), (Some(Duration::from_secs(40)), true));
    assert!(second.retryable && server.requests().len() == 1);
    // A wait that is short enough is waited for.
    clock.advance(Duration::from_secs(32)).await;
    drive(&clock, tenant.ping()).await.expect("the time has passed");
    assert_eq!(clock.monotonic(), Duration::from_secs(60));
}

#[tokio::test]
async fn no_more_requests_are_sent_in_a_second_than_the_settings_allow() {
    let clock = clock();
    let server = Scripted::answering(|_| Some(me())).await;
    let settings = TenantSettings { requests_per_second: 10, request_burst: 5, ..server.settings() };
    let tenant = with(settings, &clock);
    let asking = (0..25).map(|_| tenant.ping());
    let answers = drive(&clock, async {
        let mut answers = Vec::new();
        for asked in asking {
            answers.push(asked.await.is_ok());
        }
        answers
    })
    .await;
    assert!(answers.iter().all(|fine| *fine));
    assert_eq!(clock.monotonic(), Duration::from_secs(2), "five at once, then ten a second");
}

#[tokio::test]
async fn a_request_goes_through_the_proxy_that_is_set() {
    let clock = clock();
    let proxy = Scripted::script([me()]).await;
    let address = proxy.settings().base_url;
    let settings = TenantSettings {
        base_url: "http://tenant.example.com".into(),
        allow_cleartext: true,
        proxy: Some(address.replace("http://", "http://user:pass@").into()),
        ..proxy.settings()
    };
    with(settings, &clock).ping().await.expect("the proxy answers");
    let request = &proxy.requests()[0];
    assert_eq!(request.target, "http://tenant.example.com/api/service/whoami");
    assert_eq!(request.headers["proxy-authorization"], "Basic dXNlcjpwYXNz");
}

#[tokio::test]
async fn inside_the_cluster_the_workflow_service_is_asked_without_its_prefix() {
    let clock = clock();
    let server = Scripted::script([me(), Reply::ok(&json!({"hits": {"hits": []}}))]).await;
    let heracles_url = server.settings().base_url;
    let settings = TenantSettings { base_url: "INTERNAL".into(), heracles_url, ..server.settings() };
    let tenant = with(settings, &clock);
    tenant.ping().await.expect("it answers");
    tenant.workflow("w").await.expect("it answers");
    let targets: Vec<Value> = server.requests().into_iter().map(|request| request.target.into()).collect();
    assert_eq!(targets, ["/whoami", "/workflows/indexsearch"]);
}
