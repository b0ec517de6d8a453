//! `iolaus sandbox`: how it is told to behave from the start.

use std::io::{BufRead, BufReader};

use super::harness::{Place, Running};

/// Starts a sandbox with these words and leads everything that follows to it.
fn started(place: &mut Place, words: &str) -> Running {
    let mut sandbox = place.start(&format!("sandbox --listen 127.0.0.1:0 {words}"));
    let mut line = String::new();
    BufReader::new(sandbox.stdout()).read_line(&mut line).expect("a line");
    let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    place.set("ATLAN_BASE_URL", said["ATLAN_BASE_URL"].as_str().expect("a URL"));
    place.set("ATLAN_API_KEY", "sandbox-api-token");
    sandbox
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
fn a_sandbox_of_a_cluster_is_asked_without_prefixes_and_a_plain_401_is_a_401() {
    let mut place = Place::new();
    let sandbox = started(&mut place, "--in-cluster --plain-401 --strict-admins --token-lifetime 30s --requests-per-second 50");
    assert_eq!(place.run("workflows find snowflake").code, 3, "there is no /api/service");
    sandbox.terminate();
    let sandbox = started(&mut place, "--plain-401");
    assert_eq!(place.run("workflows find snowflake").code, 0);
    place.set("ATLAN_API_KEY", "wrong");
    let ran = place.run("workflows find snowflake");
    assert!(ran.code == 3 && ran.stderr.contains("Unauthorized"), "{ran:?}");
    sandbox.terminate();
}
