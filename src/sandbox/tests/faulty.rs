//! Every fault, and what it leaves behind.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Submits over a bare connection and answers every byte that came back before it was closed.
async fn bytes_of_submit(harness: &Harness) -> Vec<u8> {
    let body = submission(CRAWLER).to_string();
    let request = format!(
        "POST /api/service/workflows/submit HTTP/1.1\r\nhost: sandbox\r\nauthorization: Bearer sandbox-api-token\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(harness.sandbox.address()).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.expect("closed in order");
    received
}

#[tokio::test]
async fn a_cut_closes_the_connection_without_a_byte_and_only_one_of_them_applies() {
    for (action, effects) in [(Action::CutBeforeApplying, 0), (Action::CutAfterApplying, 1)] {
        let harness = Harness::start().await;
        harness.sandbox.add_fault(Fault::new(action).on("/submit"));
        assert_eq!(bytes_of_submit(&harness).await, b"");
        assert_eq!(harness.kinds().len(), effects);
        let log = harness.sandbox.requests();
        assert_eq!(log[0].status, None, "there was no answer");
        assert!(log[0].fault.as_deref().is_some_and(|fault| fault.starts_with("cut_")));
        assert_eq!(harness.sandbox.faults_fired(), 1);
    }
}

#[tokio::test]
async fn a_status_is_answered_before_or_after_applying() {
    let harness = Harness::start().await;
    let headers = vec![("retry-after".to_owned(), "7".to_owned())];
    harness.sandbox.add_fault(Fault::new(Action::Status { status: 429, headers, body: Value::Null }).on("/submit"));
    harness
        .sandbox
        .add_fault(Fault::new(Action::StatusAfterApplying { status: 502, body: json!({ "message": "bad" }) }).on("/submit").nth(2));
    let (status, body) = harness.submit(CRAWLER).await;
    assert_eq!((status.as_u16(), &body["code"], harness.kinds().len()), (429, &json!(429), 0));
    let (status, body) = harness.submit(CRAWLER).await;
    assert_eq!((status.as_u16(), body, harness.kinds().len()), (502, json!({ "message": "bad" }), 1));
    let faults: Vec<_> = harness.sandbox.requests().into_iter().map(|exchange| (exchange.status, exchange.fault)).collect();
    assert_eq!(faults, [(Some(429), Some("status".into())), (Some(502), Some("status_after_applying".into()))]);
}

#[tokio::test]
async fn garbage_is_a_200_that_is_no_json_before_or_after_applying() {
    for (action, effects) in [(Action::Garbage, 0), (Action::GarbageAfterApplying, 1)] {
        let harness = Harness::start().await;
        harness.sandbox.add_fault(Fault::new(action));
        let request = harness.request("sandbox-api-token", Method::POST, "/api/service/workflows/submit");
        let answer = request.json(&submission(CRAWLER)).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert!(serde_json::from_str::<Value>(&answer.text().await.expect("text")).is_err());
        assert_eq!(harness.kinds().len(), effects);
    }
}

#[tokio::test]
async fn a_delayed_answer_is_applied_at_once_and_is_the_usual_one() {
    let harness = Harness::start().await;
    harness.sandbox.add_fault(Fault::new(Action::Delay { ms: 1 }));
    assert_eq!(harness.submit(CRAWLER).await.0, 200);
    harness.sandbox.add_fault(Fault::new(Action::Delay { ms: 3_600_000 }).on("/submit"));
    let request = harness.request("sandbox-api-token", Method::POST, "/api/service/workflows/submit");
    let waiting = tokio::spawn(request.json(&submission("atlan-snowflake-miner-1684500600")).send());
    while harness.kinds().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished(), "applied, and not yet answered");
    waiting.abort();
}

#[tokio::test]
async fn a_hanging_exchange_applies_nothing_and_does_not_hold_up_a_stop() {
    let harness = Harness::start().await;
    harness.sandbox.add_fault(Fault::new(Action::Hang));
    let request = harness.request("sandbox-api-token", Method::POST, "/api/service/workflows/submit").json(&submission(CRAWLER));
    let hanging = tokio::spawn(request.send());
    while harness.sandbox.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(harness.kinds().is_empty());
    assert_eq!(harness.sandbox.requests()[0].status, None);
    harness.sandbox.stop().await;
    assert!(hanging.await.expect("joins").is_err());
}

#[tokio::test]
async fn a_swallowed_grant_succeeds_and_grants_nothing() {
    let harness = Harness::start().await;
    harness.sandbox.add_fault(Fault::new(Action::SwallowGrant));
    harness.get("/api/service/whoami").await;
    let run = harness.started(GRANT).await;
    harness.pass(ALL_PHASES);
    assert_eq!(harness.phase(&run).await.as_deref(), Some("Succeeded"));
    assert_eq!(harness.sandbox.admin_users(PROD), ["jane"]);
    assert_eq!(harness.kinds(), ["run_submitted"]);
}

#[tokio::test]
async fn a_run_ends_in_the_phase_that_a_fault_gives_it() {
    let harness = Harness::start().await;
    harness.sandbox.add_fault(Fault::new(Action::EndAs { phase: "Omitted".into(), message: Some("never ran".into()) }));
    let run = harness.started(GRANT).await;
    harness.pass(ALL_PHASES);
    let ended = harness.found(&run).await.expect("found");
    assert_eq!((&ended["status"]["phase"], &ended["status"]["message"]), (&json!("Omitted"), &json!("never ran")));
    assert_eq!(harness.sandbox.admin_users(PROD), ["jane"]);
}

#[tokio::test]
async fn a_stale_index_omits_for_one_search_what_is_younger_than_a_minute() {
    let harness = Harness::start().await;
    let run = harness.started(CRAWLER).await;
    harness.pass(Duration::from_secs(59));
    harness.sandbox.add_fault(Fault::new(Action::StaleIndex).on("runs/"));
    assert_eq!(harness.phase(&run).await, None);
    assert_eq!(harness.phase(&run).await.as_deref(), Some("Succeeded"));
}

#[tokio::test]
async fn the_nth_exchange_of_all_can_be_broken_until_no_fault_fires() {
    let mut broken = 0;
    for nth in 1.. {
        let harness = Harness::start().await;
        harness.sandbox.add_fault(Fault::new(Action::Status { status: 503, headers: Vec::new(), body: Value::Null }).nth(nth));
        harness.get("/api/service/whoami").await;
        harness.submit(CRAWLER).await;
        if harness.sandbox.faults_fired() == 0 {
            break;
        }
        broken += 1;
    }
    assert_eq!(broken, 2);
}

#[tokio::test]
async fn a_dropped_sandbox_gives_its_port_back() {
    let harness = Harness::start().await;
    let address = harness.sandbox.address();
    drop(harness.sandbox);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
