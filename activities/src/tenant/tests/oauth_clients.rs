//! OAuth clients: effects are sent once, a secret stands in no failure, and a lost answer leads to what it may have left.

use serde_json::{Value, json};

use super::super::scripted::{Reply, Scripted, clock};
use super::super::*;

fn new() -> NewOAuthClient {
    NewOAuthClient { display_name: "ci".into(), description: String::new(), role: "$admin".into(), personas: vec![] }
}

fn record(id: &str, name: &str, created_at: &Value) -> Value {
    json!({"clientId": id, "displayName": name, "createdAt": created_at})
}

#[tokio::test]
async fn a_creation_is_sent_once_and_its_fate_is_told_without_its_secret() {
    let half = "{\"clientSecret\": \"hush-hush\"";
    for (reply, fate) in [
        (Reply::cut(), "unknown"),
        (Reply::text(200, half), "unknown"),
        (Reply::ok(&json!({"clientSecret": "hush-hush"})), "unknown"),
        (Reply::ok(&json!({"clientId": "c", "clientSecret": {"of": "hush-hush"}})), "unknown"),
        (Reply::text(502, "{\"clientSecret\": \"hush-hush\"}"), "unknown"),
        (Reply::json(302, &json!({})), "unknown"),
        (Reply::json(503, &json!({"message": "later"})), "unknown"),
        (Reply::text(401, "<html>{\"clientSecret\": \"hush-hush\"}</html>"), "unknown"),
        (Reply::text(403, "<html>hush-hush</html>"), "unknown"),
        (Reply::text(403, ""), "unknown"),
        (Reply::text(404, "<html>hush-hush</html>"), "unknown"),
        (Reply::text(429, "<html>hush-hush</html>"), "unknown"),
        (Reply::text(429, ""), "not created"),
        (Reply::json(429, &json!({"message": "slower"})), "not created"),
        (Reply::json(400, &json!({"message": "no such role"})), "not created"),
        (Reply::json(409, &json!({"message": "there is one"})), "not created"),
        (Reply::ok(&json!({"clientId": "c", "clientSecret": "hush-hush"})), "created"),
    ] {
        let server = Scripted::script([reply]).await;
        let creation = server.tenant(&clock()).create_oauth_client(&new()).await;
        let told = match &creation {
            OAuthCreation::Created(..) => "created",
            OAuthCreation::NotCreated(_) => "not created",
            OAuthCreation::UnknownFate(_) => "unknown",
        };
        assert_eq!(told, fate, "{creation:?}");
        assert!(!format!("{creation:?}").contains("hush-hush"), "{creation:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn what_a_lost_creation_may_have_left_is_looked_for_by_name_and_time() {
    let since = "2026-01-01T00:00:00Z".parse().expect("a time");
    let records = [
        record("late", "ci", &json!("2026-01-01T00:00:00Z")),
        record("in milliseconds", "ci", &json!("1767225600001")),
        record("early", "ci", &json!("2025-12-31T23:59:59.999Z")),
        record("other", "cd", &json!("2026-01-01T00:00:01Z")),
        record("untold", "ci", &json!(null)),
        record("unreadable", "ci", &json!("yesterday")),
    ];
    let server = Scripted::script([Reply::ok(&json!({"totalRecord": 6, "records": records}))]).await;
    let found = server.tenant(&clock()).possibly_created("ci", since).await.expect("an answer");
    let found: Vec<_> = found.iter().map(|client| client.client_id.as_str()).collect();
    assert_eq!(found, ["late", "in milliseconds", "untold", "unreadable"]);
    assert_eq!(server.requests()[0].target, "/api/service/oauth-clients?count=true&offset=0&limit=100&sort=-createdAt");
}

#[tokio::test]
async fn a_purge_is_sent_once_and_is_done_only_if_the_api_itself_says_so() {
    for reply in [Reply::text(200, ""), Reply::text(200, "{}"), Reply::text(204, ""), Reply::ok(&json!(null))] {
        let server = Scripted::script([reply]).await;
        server.tenant(&clock()).purge_oauth_client("oauth client/1").await.expect("it is purged");
        assert_eq!(server.requests()[0].target, "/api/service/oauth-clients/oauth%20client%2F1");
    }
    for (reply, hint) in [
        (Reply::cut(), "iolaus oauth-clients get c-1"),
        (Reply::json(503, &json!({})), "iolaus oauth-clients get c-1"),
        (Reply::text(200, "<html>sign in</html>"), "iolaus oauth-clients get c-1"),
        (Reply::text(200, "").header("content-type", "text/html; charset=utf-8"), "iolaus oauth-clients get c-1"),
        (Reply::text(200, "gone"), "iolaus oauth-clients get c-1"),
        (Reply::text(401, "<html>"), "iolaus oauth-clients get c-1"),
        (Reply::text(403, "<html>"), "iolaus oauth-clients get c-1"),
        (Reply::text(403, ""), "iolaus oauth-clients get c-1"),
        (Reply::text(404, "<html>"), "iolaus oauth-clients get c-1"),
        (Reply::text(429, "<html>"), "iolaus oauth-clients get c-1"),
        (Reply::json(404, &json!({"message": "no such client"})), "iolaus oauth-clients list"),
    ] {
        let server = Scripted::script([reply]).await;
        let failure = server.tenant(&clock()).purge_oauth_client("c-1").await.expect_err("it is not known to be purged");
        assert_eq!(failure.suggested_action.as_deref(), Some(hint), "{failure:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn an_update_gives_only_what_shall_change() {
    for (name, description, body) in [
        (Some("n"), None, json!({"displayName": "n"})),
        (None, Some(""), json!({"description": ""})),
        (Some("n"), Some("d"), json!({"displayName": "n", "description": "d"})),
    ] {
        let server = Scripted::script([Reply::ok(&record("c-1", "n", &json!(null)))]).await;
        server.tenant(&clock()).update_oauth_client("c-1", name, description).await.expect("an answer");
        assert_eq!(server.requests()[0].body, body);
    }
}

#[tokio::test]
async fn the_roles_of_all_pages_can_be_chosen() {
    let page = |from: usize, count: usize| {
        let roles: Vec<_> =
            (from..from + count).map(|n| json!({"name": format!("$r{n}"), "description": format!("R {n}")})).collect();
        Reply::ok(&json!({"totalRecord": 101, "records": roles}))
    };
    let server = Scripted::script([page(0, 100), page(100, 1)]).await;
    let roles = server.tenant(&clock()).roles().await.expect("an answer");
    assert_eq!(role_named(&roles, "r 100").map(|role| role.name.as_str()), Ok("$r100"));
    assert!(server.requests()[1].target.contains("offset=100&limit=100"));
}

#[tokio::test]
async fn roles_are_read_until_the_total_and_one_without_a_name_loses_no_other() {
    let role = |name: Value| json!({"name": name, "description": "a role"});
    let page = |roles: &[Value]| Reply::ok(&json!({"totalRecord": 4, "records": roles}));
    let first = page(&[role(json!("$a")), role(json!(null))]);
    let server = Scripted::script([first, page(&[role(json!("$b"))]), page(&[role(json!("$c"))])]).await;
    let roles = server.tenant(&clock()).roles().await.expect("an answer");
    assert_eq!(roles.iter().map(|role| role.name.as_str()).collect::<Vec<_>>(), ["$a", "$b", "$c"]);
    let offsets = server.requests().into_iter().map(|request| request.target.contains("&offset=2&limit=100"));
    assert_eq!(offsets.collect::<Vec<_>>(), [false, true, false]);

    let server = Scripted::script([page(&[role(json!("$a"))]), page(&[])]).await;
    let failure = server.tenant(&clock()).roles().await.expect_err("a list that is cut off is no answer");
    assert!(failure.code == "tenant.unreadable" && failure.message.contains("1 of 4"), "{failure:?}");
}

#[tokio::test]
async fn one_client_without_an_id_loses_no_other_and_counts_for_the_next_page() {
    let records = [record("a", "ci", &json!(null)), json!({"displayName": "no id"}), record("b", "ci", &json!(null))];
    let server = Scripted::script([Reply::ok(&json!({"totalRecord": 3, "records": records}))]).await;
    let page = server.tenant(&clock()).oauth_clients(0, 20, Some("-displayName")).await.expect("an answer");
    assert_eq!((page.clients.len(), page.records, page.total), (2, 3, Some(3)));
    assert!(server.requests()[0].target.ends_with("&sort=-displayName"));
}

#[tokio::test]
async fn a_page_of_clients_that_is_too_long_is_asked_for_again_with_half_as_many() {
    let huge = "x".repeat(64 * 1024 * 1024);
    let records: Vec<_> = (0..10).map(|n| record(&n.to_string(), "ci", &json!(null))).collect();
    let server = Scripted::script([Reply::ok(&json!({"records": [], "pad": huge})), Reply::ok(&json!({"records": records}))]).await;
    let page = server.tenant(&clock()).oauth_clients(40, 20, None).await.expect("an answer");
    assert_eq!((page.clients.len(), page.records, page.asked), (10, 10, 10), "more may follow behind a full page");
    let targets: Vec<_> = server.requests().into_iter().map(|request| request.target).collect();
    let target = |limit| format!("/api/service/oauth-clients?count=true&offset=40&limit={limit}");
    assert_eq!(targets, [target(20), target(10)]);
}

#[tokio::test]
async fn a_persona_is_known_by_its_qualified_name_only_if_the_tenant_shows_that_one() {
    let entity = |name: &str, status: &str| {
        Reply::ok(&json!({"entity": {"status": status, "attributes": {"name": "Readers", "qualifiedName": name}}}))
    };
    for (reply, expected) in [
        (entity("default/x", "ACTIVE"), Ok(true)),
        (entity("default/x", "DELETED"), Ok(false)),
        (Reply::json(404, &json!({"errorCode": "ATLAS-404-00-009"})), Ok(false)),
        (entity("default/y", "ACTIVE"), Err("tenant.unreadable")),
        (Reply::ok(&json!({})), Err("tenant.unreadable")),
    ] {
        let server = Scripted::script([reply]).await;
        let found = server.tenant(&clock()).persona("default/x").await;
        assert_eq!(found.as_ref().map(Option::is_some).map_err(|failure| failure.code.as_ref()), expected);
    }
}

#[tokio::test]
async fn a_persona_of_another_name_is_not_taken_and_an_answer_without_entities_is_none() {
    let entity = |name| json!({"attributes": {"name": name, "qualifiedName": "default/x"}});
    for (body, expected) in [
        (json!({"approximateCount": 2, "entities": [entity("Readers"), entity("readers")]}), Ok(1)),
        (json!({"approximateCount": 0}), Ok(0)),
        (json!({}), Err("tenant.unreadable")),
    ] {
        let server = Scripted::script([Reply::ok(&body)]).await;
        let found = server.tenant(&clock()).personas_named("Readers").await;
        assert_eq!(found.as_ref().map(Vec::len).map_err(|failure| failure.code.as_ref()), expected, "{body}");
    }
}
