//! `iolaus sandbox`: how it is told to behave from the start.

use std::io::{BufRead, BufReader};

use super::harness::{CONNECTION, Place, Running, USER};

/// Starts a sandbox with these words and leads everything that follows to it.
fn started(place: &mut Place, words: &str) -> Running {
    let (sandbox, _) = started_at(place, words);
    sandbox
}

/// The same, with its address.
fn started_at(place: &mut Place, words: &str) -> (Running, String) {
    let mut sandbox = place.start(&format!("sandbox --listen 127.0.0.1:0 {words}"));
    let mut line = String::new();
    BufReader::new(sandbox.stdout()).read_line(&mut line).expect("a line");
    let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let url = said["ATLAN_BASE_URL"].as_str().expect("a URL").to_owned();
    place.set("ATLAN_BASE_URL", url.as_str());
    place.set("ATLAN_API_KEY", "sandbox-api-token");
    (sandbox, url)
}

#[test]
fn faults_stand_from_the_start_by_flag_and_by_file() {
    let mut place = Place::new();
    let file = place.file("faults.json", r#"[{"path":"oauth-clients","times":0,"action":{"kind":"status","status":404}}]"#);
    let flag = r#"{"path":"workflows","times":0,"action":{"kind":"status","status":403}}"#;
    let sandbox = started(&mut place, &format!("--faults {} --fault {flag}", file.display()));
    for (line, status) in [("oauth-clients get oauth-client-sandbox", "(404)"), ("workflows find snowflake", "(403)")] {
        let ran = place.run(line);
        assert!(ran.code == 3 && ran.stderr.contains(status), "{ran:?}");
    }
    assert_eq!(sandbox.terminate().code, 0);
}

#[test]
fn a_fault_that_cannot_stand_is_refused_before_anybody_is_served() {
    let place = Place::new();
    let file = place.file("faults.json", r#"{"action":{"kind":"hang"}}"#);
    for words in [
        "--fault {".to_owned(),
        r#"--fault {"action":{"kind":"nonsense"}}"#.to_owned(),
        r#"--fault {"action":{"kind":"status","status":99}}"#.to_owned(),
        "--faults none.json".to_owned(),
        format!("--faults {}", file.display()),
    ] {
        let ran = place.run(&format!("sandbox --listen 127.0.0.1:0 {words}"));
        assert!(ran.code == 2 && ran.stdout.is_empty(), "{words}: {ran:?}");
    }
}

#[test]
fn inside_a_cluster_a_service_account_of_keycloak_asks_the_services_themselves() {
    let mut place = Place::new();
    let (sandbox, url) = started_at(&mut place, "--in-cluster");
    assert_eq!(place.run("workflows find snowflake").code, 3, "there is no /api/service");
    place.set("ATLAN_BASE_URL", "INTERNAL");
    place.set("ATLAN_API_KEY", "");
    for service in ["HERACLES", "METASTORE", "KEYCLOAK"] {
        let path = if service == "METASTORE" { "/api/atlas/v2" } else { "" };
        place.set(&format!("IOLAUS_TENANTS__DEFAULT__{service}_URL"), format!("{url}{path}"));
    }
    place.set("IOLAUS_TENANTS__DEFAULT__KEYCLOAK_CLIENT_ID", "connector");
    place.set("IOLAUS_TENANTS__DEFAULT__KEYCLOAK_CLIENT_SECRET", "sandbox-connector-secret");
    let ran = place.run(&format!("execute publish_preflight {USER} {CONNECTION}"));
    assert_eq!((ran.code, &ran.json()["status"]), (0, &serde_json::json!("passed")), "{ran:?}");
    let ran = place.run("oauth-clients create --name ci --role Admin --persona Readers");
    assert!(ran.code == 2 && ran.stderr.contains("2 personas"), "the metastore answered: {ran:?}");
    sandbox.terminate();
}

#[test]
fn a_401_in_plain_text_is_a_401() {
    let mut place = Place::new();
    let sandbox = started(&mut place, "--plain-401");
    assert_eq!(place.run("workflows find snowflake").code, 0);
    place.set("ATLAN_API_KEY", "wrong");
    let ran = place.run("workflows find snowflake");
    assert!(ran.code == 3 && ran.stderr.contains("Unauthorized"), "{ran:?}");
    sandbox.terminate();
}

#[test]
fn a_strict_tenant_lets_only_the_named_grant_and_limits_and_lifetimes_are_kept() {
    let mut place = Place::new();
    let sandbox = started(&mut place, "--strict-admins --token-lifetime 30s --requests-per-second 200");
    let token = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99";
    let ran = place.run(&format!("execute token_admin_grant {CONNECTION} api_token_guid={token} method=direct"));
    let failure = ran.json()["failure"].clone();
    assert_eq!((ran.code, &failure["category"]), (3, &serde_json::json!("PERMISSION")), "{ran:?}");
    place.set("ATLAN_API_KEY", "sandbox-admin");
    assert_eq!(place.run(&format!("execute token_admin_grant {CONNECTION} api_token_guid={token} method=direct")).code, 0);
    let shown = place.run("oauth-clients get oauth-client-sandbox").json();
    assert_eq!(shown["token_expiry_seconds"], 30);
    sandbox.terminate();
}
