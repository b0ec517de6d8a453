//! Getting access tokens, and losing them: OAuth clients, Keycloak, revocation, rotation, the services inside a cluster.

use super::*;

const KEYCLOAK: &str = "/auth/realms/default/protocol/openid-connect/token";
const OAUTH: (&str, &str) = ("oauth-client-sandbox", "sandbox-oauth-secret");
const JANE: &str = "8c1e2d8a-1564-4e95-8b14-ea14522fcf61";
const DORA: &str = "0d15ab1e-d000-4000-8000-000000000001";

impl Harness {
    /// Without a bearer.
    async fn anonymous(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let answer = self.client.post(format!("{}{path}", self.sandbox.base_url())).json(body).send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }

    async fn oauth(&self, (client_id, secret): (&str, &str)) -> (StatusCode, Value) {
        let body = json!({ "clientId": client_id, "clientSecret": secret });
        self.anonymous("/api/service/oauth-clients/token", &body).await
    }

    async fn keycloak(&self, fields: &Value) -> (StatusCode, Value) {
        let request = self.client.post(format!("{}{KEYCLOAK}", self.sandbox.base_url()));
        let request = request.header("content-type", "application/x-www-form-urlencoded;charset=UTF-8").body(form(fields));
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }

    async fn service_account(&self, client_id: &str, secret: &str) -> Value {
        let fields =
            json!({ "grant_type": "client_credentials", "client_id": client_id, "client_secret": secret, "scope": "openid" });
        let (status, token) = self.keycloak(&fields).await;
        assert_eq!(status, 200, "{token}");
        token
    }

    pub(super) async fn whoami(&self, bearer: &str) -> (u16, Value) {
        let (status, who) = self.ask(bearer, Method::GET, "/api/service/whoami", &Value::Null).await;
        (status.as_u16(), json!([who["username"], who["roles"][0]["name"]]))
    }

    fn change(&self, change: Value) {
        let change = serde_json::from_value(change).expect("a change");
        self.sandbox.change_credentials(change).expect("it can be made");
    }
}

fn bearer(answer: &Value) -> String {
    let token = answer.get("accessToken").or_else(|| answer.get("access_token"));
    token.and_then(Value::as_str).expect("a token").to_owned()
}

#[tokio::test]
async fn an_oauth_client_gets_a_token_that_acts_with_its_role_until_it_expires() {
    let harness = Harness::start().await;
    let (status, token) = harness.oauth(OAUTH).await;
    assert_eq!((status.as_u16(), &token["expiresIn"], &token["tokenType"]), (200, &json!(600), &json!("Bearer")));
    let expected = (200, json!(["service-account-oauth-client-sandbox", "$admin"]));
    harness.pass(Duration::from_millis(599_999));
    assert_eq!(harness.whoami(&bearer(&token)).await, expected);
    harness.pass(Duration::from_millis(1));
    assert_eq!(harness.whoami(&bearer(&token)).await.0, 401);
    harness.change(json!({ "kind": "token_lifetime", "seconds": 30 }));
    assert_eq!(harness.oauth(OAUTH).await.1["expiresIn"], 30);
    harness.change(json!({ "kind": "token_lifetime", "seconds": 5, "client_id": "oauth-client-sandbox" }));
    assert_eq!(harness.oauth(OAUTH).await.1["expiresIn"], 5);
}

#[tokio::test]
async fn a_wrong_secret_is_a_json_401_and_no_secret_is_ever_logged() {
    let harness = Harness::start().await;
    for (client_id, secret) in [("oauth-client-sandbox", "wrong-secret"), ("oauth-client-none", "sandbox-oauth-secret")] {
        let (status, error) = harness.oauth((client_id, secret)).await;
        assert_eq!((status.as_u16(), &error["code"]), (401, &json!(401)));
    }
    harness.anonymous("/api/service/oauth-clients/token", &json!({ "client-id": "x", "client-secret": "misspelt-secret" })).await;
    let token = bearer(&harness.oauth(OAUTH).await.1);
    let service = bearer(&harness.service_account("connector", "sandbox-connector-secret").await);
    let exchange = json!({ "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "client_id": "connector",
        "client_secret": "sandbox-connector-secret", "subject_token": service, "requested_subject": JANE });
    assert_eq!(harness.keycloak(&exchange).await.0, 403, "it may not become anyone");
    harness.whoami(&token).await;
    let logged = serde_json::to_string(&harness.sandbox.requests()).expect("serializes");
    for secret in
        ["wrong-secret", "misspelt-secret", "sandbox-oauth-secret", "sandbox-connector-secret", token.as_str(), service.as_str()]
    {
        assert!(!logged.contains(secret), "{secret} stands in {logged}");
    }
    assert!(logged.contains(r#""client_id":"connector""#), "a form is readable: {logged}");
}

#[tokio::test]
async fn a_service_account_of_keycloak_may_ask_the_preflight() {
    let harness = Harness::start().await;
    let token = harness.service_account("connector", "sandbox-connector-secret").await;
    assert_eq!((&token["expires_in"], &token["scope"]), (&json!(300), &json!("openid email profile")));
    let (bearer, claims) = (bearer(&token), claims(&bearer(&token)));
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(START / 1_000), &json!(START / 1_000 + 300)));
    assert_eq!((&claims["azp"], &claims["preferred_username"]), (&json!("connector"), &json!("service-account-connector")));
    let asked = json!({ "user_id": JANE, "connection_qualified_name": PROD });
    let path = "/api/service/workflows/preflight/user-publish-check";
    assert_eq!(harness.ask(&bearer, Method::POST, path, &asked).await.1["passed"], true);
    harness.pass(Duration::from_secs(300));
    assert_eq!(harness.ask(&bearer, Method::POST, path, &asked).await.0, 401);
}

/// What a token says of itself; its signature is noise.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("three parts");
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'-' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for chunk in payload.as_bytes().chunks(4) {
        let bits = (0..4).fold(0, |bits, at| bits << 6 | chunk.get(at).copied().map_or(0, digit));
        bytes.extend(bits.to_be_bytes()[1..chunk.len()].iter().copied());
    }
    serde_json::from_slice(&bytes).expect("claims")
}

#[tokio::test]
async fn a_token_is_exchanged_for_that_of_a_user_who_is_enabled() {
    let harness = Harness::start().await;
    let subject = bearer(&harness.service_account("atlan-argo", "sandbox-argo-secret").await);
    let exchange = |token: &str, user: &str| {
        json!({ "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "client_id": "atlan-argo",
            "client_secret": "sandbox-argo-secret", "subject_token": token, "requested_subject": user })
    };
    let (status, token) = harness.keycloak(&exchange(&subject, JANE)).await;
    assert_eq!(status, 200, "{token}");
    assert_eq!(harness.whoami(&bearer(&token)).await, (200, json!(["jane", "$admin"])));
    let cases = [
        (exchange(&subject, DORA), 403, "User disabled"),
        (exchange(&subject, "nobody"), 403, "Client not allowed to exchange"),
        (exchange("sandbox-admin", JANE), 400, "Invalid token"),
        (
            json!({ "grant_type": "password", "client_id": "connector", "client_secret": "sandbox-connector-secret" }),
            400,
            "Unsupported",
        ),
        (json!({ "grant_type": "client_credentials", "client_id": "connector", "client_secret": "x" }), 401, "Invalid client"),
        (json!({ "grant_type": "client_credentials", "client_id": "connector" }), 400, "client_secret"),
    ];
    for (fields, expected, description) in cases {
        let (status, error) = harness.keycloak(&fields).await;
        assert_eq!(status, expected, "{error}");
        assert!(
            error["error"].is_string() && error["error_description"].as_str().is_some_and(|it| it.contains(description)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_api_token_logs_in_at_keycloak_with_the_secret_that_its_admin_reads() {
    let harness = Harness::start().await;
    let path = "/auth/admin/realms/default/clients/92588c67-5ddf-4a45-8b5c-dd92f4b84e99/client-secret";
    assert_eq!(harness.ask("sandbox-member", Method::GET, path, &Value::Null).await.0, 403);
    let (_, secret) = harness.ask("sandbox-admin", Method::GET, path, &Value::Null).await;
    let ci = "apikey-33333333-4444-5555-6666-777777777777";
    let token = harness.service_account(ci, secret["value"].as_str().expect("a secret")).await;
    assert_eq!(harness.whoami(&bearer(&token)).await, (200, json!([CI_USER, "$api-token-default-access"])));
    let users = |name: &str| format!("/auth/admin/realms/default/users?username={name}");
    let (_, found) = harness.ask("sandbox-admin", Method::GET, &users("dora"), &Value::Null).await;
    assert_eq!(found, json!([{ "id": DORA, "username": "dora", "enabled": false }]));
    let (_, found) = harness.ask("sandbox-admin", Method::GET, &users("service-account-connector"), &Value::Null).await;
    assert_eq!(found[0]["id"], "b0000000-0000-4000-8000-000000000002");
    assert_eq!(harness.ask("sandbox-admin", Method::GET, &users("none"), &Value::Null).await.1, json!([]));
    let (status, error) = harness.ask("unknown", Method::GET, &users("dora"), &Value::Null).await;
    assert_eq!((status.as_u16(), error["error"].is_string()), (401, true));
}

#[tokio::test]
async fn bearers_are_revoked_restored_and_rotated() {
    let harness = Harness::start().await;
    let token = bearer(&harness.oauth(OAUTH).await.1);
    let known = async |bearers: [&str; 3]| {
        let mut known = Vec::new();
        for bearer in bearers {
            known.push(harness.whoami(bearer).await.0 == 200);
        }
        known
    };
    let all = ["sandbox-api-token", "sandbox-admin", token.as_str()];
    harness.change(json!({ "kind": "revoke", "bearer": "sandbox-api-token" }));
    assert_eq!(known(all).await, [false, true, true]);
    harness.change(json!({ "kind": "revoke_all" }));
    assert_eq!(known(all).await, [false, false, false]);
    assert_eq!(harness.oauth(OAUTH).await.0, 200, "who has a client secret gets a new token");
    harness.change(json!({ "kind": "restore", "bearer": "sandbox-admin" }));
    assert_eq!(known(all).await, [false, true, false]);
    harness.change(json!({ "kind": "restore_all" }));
    harness.change(json!({ "kind": "expire_issued" }));
    assert_eq!(known(all).await, [true, true, false]);
    harness.change(json!({ "kind": "rotate", "username": "jane", "bearer": "janes-new-key" }));
    assert_eq!(known(["sandbox-admin", "janes-new-key", "sandbox-api-token"]).await, [false, true, true]);
    harness.change(json!({ "kind": "client_secret", "client_id": "oauth-client-sandbox", "secret": "new" }));
    assert_eq!(harness.oauth(OAUTH).await.0, 401);
    assert_eq!(harness.oauth(("oauth-client-sandbox", "new")).await.0, 200);
}

#[tokio::test]
async fn credentials_change_by_an_admin_route_too_and_an_impossible_change_says_why() {
    let harness = Harness::start().await;
    let path = "/sandbox/credentials";
    assert_eq!(harness.anonymous(path, &json!({ "kind": "revoke", "bearer": "sandbox-api-token" })).await.0, 200);
    assert_eq!(harness.whoami("sandbox-api-token").await.0, 401);
    let cases = [
        json!({ "kind": "revoke", "bearer": "none" }),
        json!({ "kind": "rotate", "username": "none", "bearer": "x" }),
        json!({ "kind": "rotate", "username": "jane", "bearer": "sandbox-member" }),
        json!({ "kind": "rotate", "username": "service-account-oauth-client-sandbox", "bearer": "x" }),
        json!({ "kind": "client_secret", "client_id": "none", "secret": "x" }),
        json!({ "kind": "token_lifetime", "seconds": 0 }),
        json!({ "kind": "unknown" }),
    ];
    for case in cases {
        let (status, error) = harness.anonymous(path, &case).await;
        assert_eq!((status.as_u16(), error["message"].is_string()), (400, true), "{case}");
    }
    assert!(harness.sandbox.requests().len() == 1, "it counts as no exchange");
}

#[tokio::test]
async fn a_401_is_plain_text_where_that_is_asked_for() {
    let harness = Harness::with(SandboxOptions { plain_401: true, ..SandboxOptions::default() }).await;
    harness.change(json!({ "kind": "plain_401", "on": false }));
    assert_eq!(harness.whoami("nobody").await.0, 401, "it is JSON");
    harness.change(json!({ "kind": "plain_401", "on": true }));
    let answer = harness.request("nobody", Method::GET, "/api/service/whoami").send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].as_bytes()), (401, &b"text/plain"[..]));
    assert_eq!(answer.text().await.expect("text"), "Unauthorized");
}

#[tokio::test]
async fn more_requests_than_a_second_admits_get_a_429_that_says_when_to_come_back() {
    let harness = Harness::with(SandboxOptions { requests_per_second: 2, ..SandboxOptions::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(harness.submit(CRAWLER).await.0.as_u16());
    }
    assert_eq!((statuses, harness.kinds().len()), (vec![200, 500, 429], 1));
    let answer = harness.request("sandbox-api-token", Method::GET, "/api/service/whoami").send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].as_bytes()), (429, &b"1"[..]));
    harness.pass(Duration::from_secs(1));
    assert_eq!(harness.whoami("sandbox-api-token").await.0, 200);
}

#[tokio::test]
async fn inside_a_cluster_each_service_has_its_own_prefix() {
    let harness = Harness::with(SandboxOptions { in_cluster: true, ..SandboxOptions::default() }).await;
    let (_, token) = harness.anonymous("/oauth-clients/token", &json!({ "clientId": OAUTH.0, "clientSecret": OAUTH.1 })).await;
    let bearer = bearer(&token);
    let entity = format!("/api/atlas/v2/entity/uniqueAttribute/type/Connection?attr:qualifiedName={PROD}");
    for (path, expected) in
        [("/whoami", 200), (entity.as_str(), 200), ("/api/service/whoami", 404), ("/api/meta/types/typedefs", 404)]
    {
        assert_eq!(harness.ask(&bearer, Method::GET, path, &Value::Null).await.0, expected, "{path}");
    }
    let (status, run) = harness.ask("sandbox-member", Method::POST, "/package-workflows/submit", &submission(CRAWLER)).await;
    assert_eq!(status, 200, "{run}");
    harness.service_account("connector", "sandbox-connector-secret").await;
}
