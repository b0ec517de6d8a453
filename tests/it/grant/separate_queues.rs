//! Direct grants of one connection by processes that know nothing of each other: each has a queue of its own, and the tenant replaces the
//! whole list of admins. `IOLAUS_GRANT_ROUNDS` says how often sixteen are started at once; how many of them were right is printed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use iolaus::sandbox::{Effect, SandboxOptions, What};
use iolaus_activities::{Status, VerdictRecord};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::harness::Place;
use crate::containers::engine::say;
use crate::support::child;
use crate::support::tenant::CONNECTION;

const PROCESSES: usize = 16;
/// The earliest second look after a read-back, by the settings that are the default.
const SECOND_LOOK: Duration = Duration::from_millis(2_250);
/// What the clocks of the processes and that of the sandbox differ by: they are one, cut to milliseconds.
const TOLERANCE: Duration = Duration::from_millis(50);

/// A new API token: its guid and its user.
fn token(place: &Place, n: usize) -> (String, String) {
    let mut stream = TcpStream::connect(place.sandbox().address()).unwrap();
    let body = json!({"displayName": format!("token-{n}"), "validitySeconds": 3_600}).to_string();
    let head = format!(
        "POST /api/service/apikeys HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\nauthorization: Bearer sandbox-admin\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let json = answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str::<Value>(body).ok());
    let token = json.filter(|json| json["id"].is_string()).unwrap_or_else(|| panic!("no token: {answer}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&token["id"]), format!("service-account-{}", text(&token["clientId"])))
}

/// Since when a user was an admin, and whether also at some time so long after or later.
fn still_admin(effects: &[Effect], user: &str, after: Duration) -> bool {
    let lists: Vec<(Timestamp, bool)> = effects
        .iter()
        .filter_map(|effect| match &effect.what {
            What::AdminsReplaced { after, .. } => Some((effect.at.parse().unwrap(), after.iter().any(|admin| admin == user))),
            _ => None,
        })
        .collect();
    let Some(first) = lists.iter().position(|(_, is_admin)| *is_admin) else { return false };
    let from = lists[first].0 + after - TOLERANCE;
    let until = |n: usize| lists.get(n + 1).map_or(Timestamp::MAX, |(at, _)| *at);
    (first..lists.len()).any(|n| lists[n].1 && until(n) >= from)
}

/// How many of one round said passed, and how many of those are no admin in the end.
fn round() -> (usize, usize) {
    let tenant = Place::with_tenant(SandboxOptions::default());
    let tokens: Vec<_> = (0..PROCESSES).map(|n| token(&tenant, n)).collect();
    let places: Vec<Place> = (0..PROCESSES)
        .map(|_| {
            let mut place = Place::new();
            place.set("ATLAN_BASE_URL", tenant.sandbox().base_url());
            place.set("ATLAN_API_KEY", "sandbox-api-token");
            place
        })
        .collect();
    let started: Vec<_> = places
        .iter()
        .zip(&tokens)
        .map(|(place, (guid, _))| {
            let words = format!("connection_qualified_name={CONNECTION} api_token_guid={guid} method=direct");
            place.spawn(&format!("execute token_admin_grant {words} --output json"), Stdio::piped())
        })
        .collect();
    let verdicts: Vec<VerdictRecord> =
        started.into_iter().map(|child| serde_json::from_slice(&child::output(child, "a direct grant").stdout).unwrap()).collect();
    let (effects, admins) = (tenant.sandbox().effects(), tenant.sandbox().admin_users(CONNECTION));
    assert!(admins.iter().any(|admin| admin == "jane"), "nobody took away who was there before: {admins:?}");
    let (mut passed, mut lost) = (0, 0);
    for (verdict, (_, user)) in verdicts.iter().zip(&tokens) {
        let is_admin = admins.contains(user);
        if verdict.status == Status::Passed {
            assert!(still_admin(&effects, user, SECOND_LOOK), "it was no admin at its second look: {verdict:#?}\n{effects:#?}");
            (passed, lost) = (passed + 1, lost + usize::from(!is_admin));
        } else {
            assert_eq!(verdict.status, Status::Failed, "it was asked and answered: {verdict:#?}");
        }
    }
    (passed, lost)
}

#[test]
fn every_direct_grant_that_passed_beside_fifteen_others_was_still_there_at_its_second_look() {
    let rounds = std::env::var("IOLAUS_GRANT_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let (mut passed, mut lost) = (0, 0);
    for _ in 0..rounds {
        let (said, gone) = round();
        (passed, lost) = (passed + said, lost + gone);
    }
    say(&format!("{passed} of {} passed, {lost} of them are no admin in the end", rounds * PROCESSES));
}
