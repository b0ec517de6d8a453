//! `doctor` names each mistake with a hint, and always makes the checks that are left.

use std::net::TcpListener;

use iolaus::sandbox::{Fault, SandboxOptions};
use serde_json::{Value, json};

use super::harness::{Place, Ran};

fn fault(place: &Place, fault: Value) {
    place.sandbox().add_fault(serde_json::from_value::<Fault>(fault).expect("a fault"));
}

/// The finding about this.
fn finding(ran: &Ran, what: &str) -> Value {
    let report = ran.json();
    let findings = report["findings"].as_array().expect("a list").clone();
    let found = findings.into_iter().find(|finding| finding["what"] == what);
    found.unwrap_or_else(|| panic!("no finding about {what} in {report}"))
}

#[test]
fn doctor_names_every_mistake_with_a_hint_and_goes_through_to_the_end() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let plain = place.sandbox().base_url().replace("http://", "https://");
    let file = place.file(
        "config.toml",
        format!(
            "[wrker]\nslots = 1\n[worker]\nslots_work = 0\n[activities.nothing]\nmaximum_attempts = 1\n\
             [tenants.a_no_url]\nbase_url = 'acme'\napi_key = 'k-hush-hush'\n\
             [tenants.b_closed]\nbase_url = 'http://{closed}'\napi_key = 'k-hush-hush'\n\
             [tenants.c_plain]\nbase_url = '{plain}'\napi_key = 'k-hush-hush'\n\
             [tenants.d_no_key]\nbase_url = '{}'\n\
             [tenants.e_no_file]\nbase_url = 'https://h'\napi_key_file = '/nowhere/key'\n\
             [tenants.f_stranger]\nbase_url = '{}'\napi_key = 'k-hush-hush'\n\
             [tenants.g_fine]\nbase_url = '{}'\napi_key = 'sandbox-api-token'\n\
             [tenants.h_path]\nbase_url = '{}/some/path'\napi_key = 'sandbox-api-token'\n",
            place.sandbox().base_url(),
            place.sandbox().base_url(),
            place.sandbox().base_url(),
            place.sandbox().base_url(),
        ),
    );
    place.set("IOLAUS_CONFIG", file.as_os_str());
    let ran = place.run("doctor");
    assert_eq!((ran.code, ran.json()["ok"].as_bool()), (2, Some(false)), "{ran:?}");
    for (what, message) in [
        ("tenant b_closed address", "could not be reached"),
        ("tenant c_plain address", "could not be reached"),
        ("tenant d_no_key credentials", "no credentials are set"),
        ("tenant e_no_file configuration", "api_key_file` names a file that cannot be read"),
        ("tenant f_stranger credentials", "does not know who asks"),
    ] {
        let found = finding(&ran, what);
        assert!(found["state"] == "fail" && found["message"].as_str().is_some_and(|text| text.contains(message)), "{found}");
        assert!(found["hint"].as_str().is_some_and(|hint| hint.len() > 10), "no hint: {found}");
    }
    for what in ["tenant g_fine address", "tenant g_fine workflow_rerun", "tenant default await_completion", "queue"] {
        assert_eq!(finding(&ran, what)["state"], "ok", "{what}");
    }
    let path = finding(&ran, "tenant h_path configuration");
    assert!(path["state"] == "warn" && path["message"].as_str().is_some_and(|text| text.contains("/some/path")), "{path}");
    let text = place.run("doctor --output text").stdout;
    let mistakes: Vec<_> = text.lines().filter(|line| line.starts_with("FAIL  configuration: ")).collect();
    assert_eq!(mistakes.len(), 4, "{text}");
    assert!(mistakes.iter().all(|line| line.contains("  -> ")), "{mistakes:#?}");
    assert!(
        ["wrker.slots", "worker.slots_work", "activities.nothing", "tenants.a_no_url.base_url"]
            .iter()
            .all(|key| text.contains(key)),
        "{text}"
    );
    assert!(!text.contains("k-hush-hush") && !ran.stdout.contains("k-hush-hush"), "no key is shown");
    assert_eq!(place.run("status").code, 2, "other commands refuse such a configuration");
}

#[test]
fn doctor_still_asks_a_tenant_that_does_not_say_who_we_are_for_the_rest() {
    for (status, part, hint) in [(302, "address", "base_url"), (500, "address", "base_url"), (403, "credentials", "")] {
        let place = Place::with_tenant(SandboxOptions::default());
        fault(&place, json!({"path": "/whoami", "times": 0, "action": {"kind": "status", "status": status}}));
        let ran = place.run("doctor");
        assert_eq!(ran.code, 3, "{status}: {ran:?}");
        let found = finding(&ran, &format!("tenant default {part}"));
        assert_eq!(found["state"], "fail", "{status}: {found}");
        assert!(found["hint"].as_str().is_some_and(|text| text.contains(hint)), "{status}: {found}");
        assert_eq!(finding(&ran, "tenant default workflow_rerun")["state"], "ok", "{status}");
        assert_eq!(finding(&ran, "tenant default await_completion")["state"], "ok", "{status}");
        assert_eq!(finding(&ran, "tenant default publish_preflight")["state"], "warn", "{status}");
    }
}

#[test]
fn doctor_asked_about_a_tenant_that_is_not_configured_names_those_that_are() {
    let place = Place::with_tenant(SandboxOptions::default());
    let ran = place.run("doctor --tenant nope");
    assert_eq!(ran.code, 3, "{ran:?}");
    let found = finding(&ran, "tenant nope configuration");
    assert!(found["message"].as_str().is_some_and(|message| message.contains("known: default")), "{found}");
    assert_eq!(finding(&ran, "queue")["state"], "ok");
}

#[test]
fn doctor_names_each_mistake_of_a_name_or_a_section_and_still_makes_the_other_checks() {
    let long = "n".repeat(201);
    let too_long = format!("[tenants.{long}]\nbase_url = 'https://a.example.com'");
    for (toml, parts) in [
        ("[tenants.\"../x\"]\nbase_url = 'x'", &["`tenants.\"../x\"`", "letters, digits, `-` and `_`"][..]),
        ("[tenants.\"a b\"]\nbase_url = 'https://a.example.com'", &["`tenants.\"a b\"`", "letters, digits, `-` and `_`"]),
        ("[tenants.\"\"]\nbase_url = 'https://a.example.com'", &["`tenants.\"\"`", "the name is empty"]),
        (&too_long, &["the name has 201 bytes"]),
        ("[limits.tenants.\"a.b\"]\nmax_running = 1", &["`limits.tenants.\"a.b\"`"]),
        ("[activities.\"a.b\"]\nmaximum_attempts = 1", &["`activities.\"a.b\"`"]),
        ("tenants = 'x'", &["`tenants`", "is a section"]),
        ("limits = 'x'", &["`limits`", "is a section"]),
        ("[temporal]\ntls_cert_file = '/c.pem'", &["`temporal.tls_key_file`", "set both, or neither"]),
        (
            "[tenants.\"../x\"]\nbase_url = 'x'\n[tenants.\"a b\"]\n[worker]\nslots_work = 0",
            &["`tenants.\"../x\"`", "`tenants.\"a b\"`", "`worker.slots_work`"],
        ),
    ] {
        let mut place = Place::with_tenant(SandboxOptions::default());
        let file = place.file("mine.toml", toml);
        place.set("IOLAUS_CONFIG", file.as_os_str());
        let ran = place.run("doctor --output text");
        assert_eq!(ran.code, 2, "{toml}: {ran:?}");
        for part in parts {
            let line = ran.stdout.lines().find(|line| line.starts_with("FAIL  configuration: ") && line.contains(part));
            assert!(line.is_some_and(|line| line.contains("  -> ")), "{toml}: `{part}`: {ran:?}");
        }
        assert!(ran.stdout.contains("ok    tenant default credentials"), "{toml}: {ran:?}");
        let refused = place.run("status");
        assert!(refused.code == 2 && refused.stderr.contains(parts[0]), "{toml}: {refused:?}");
    }
}
