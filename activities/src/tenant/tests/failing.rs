//! A tenant that fails at everything is asked by probes alone until it answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::super::scripted::{Reply, Scripted, clock, drive, hits, tenants};
use super::super::*;

const ALL: usize = 0;
const NOTHING: usize = 1;
const SEARCHES: usize = 2;

/// Answers with 503, without a time: to everything, to nothing, or to searches.
async fn failing() -> (Scripted, Arc<AtomicUsize>) {
    let fails = Arc::new(AtomicUsize::new(ALL));
    let at = fails.clone();
    let server = Scripted::answering(move |request| {
        let is_search = !request.target.ends_with("/whoami");
        let down = match at.load(Ordering::SeqCst) {
            ALL => true,
            SEARCHES => is_search,
            _ => false,
        };
        let me = json!({"userId": "u", "username": "service-account-x", "roles": []});
        Some(match (down, is_search) {
            (true, _) => Reply::json(503, &json!({"message": "upstream is down"})),
            (false, true) => Reply::ok(&hits(&[])),
            (false, false) => Reply::ok(&me),
        })
    })
    .await;
    (server, fails)
}

#[tokio::test]
async fn a_tenant_that_fails_at_everything_is_asked_by_probes_alone_until_one_is_answered() {
    let clock = clock();
    let (server, fails) = failing().await;
    let all = tenants(server.settings(), &clock);
    let (tenant, changes) = (all.get("default").expect("it is configured"), all.holds_changed());
    for _ in 0..4 {
        drive(&clock, tenant.workflow("w")).await.expect_err("it is down");
    }
    // Three calls of three sends, and one send of the fourth.
    assert_eq!(server.requests().len(), 10);
    let hold = tenant.hold().expect("it is held");
    assert!(
        hold.until.is_none() && hold.failure.message.contains("only probed") && hold.failure.message.contains("503"),
        "{hold:?}"
    );
    let before = clock.monotonic();
    let failure = tenant.workflow("w").await.expect_err("it is held");
    assert_eq!((failure.code.as_ref(), failure.tenant_held, failure.retryable), ("tenant.unavailable", true, true));
    assert!(tenant.ready("workflows.submit").await.is_err_and(|failure| failure.tenant_held), "no effect is begun");
    assert_eq!((server.requests().len(), clock.monotonic()), (10, before), "nothing is asked, and nothing waits");

    for interval in [1, 2, 4] {
        assert_eq!(tenant.probe_interval(), Some(Duration::from_secs(interval)));
        tenant.probe().await.expect_err("it is down");
    }
    assert_eq!(server.requests().len(), 13, "a probe is one request");
    fails.store(NOTHING, Ordering::SeqCst);
    tenant.probe().await.expect("it answers");
    assert_eq!((all.holds(), *changes.borrow(), tenant.probe_interval()), (vec![], 2, None));
    assert_eq!(tenant.workflow("w").await, Ok(None));
}

#[tokio::test]
async fn in_a_host_without_probes_one_request_at_a_time_takes_their_place() {
    let clock = clock();
    let (server, fails) = failing().await;
    let tenant = server.tenant(&clock);
    for _ in 0..4 {
        drive(&clock, tenant.workflow("w")).await.expect_err("it is down");
    }
    let asked = |sends: usize| assert_eq!(server.requests().len(), 10 + sends);
    clock.advance(Duration::from_secs(2)).await;
    drive(&clock, tenant.workflow("w")).await.expect_err("it is down");
    tenant.workflow("w").await.expect_err("it is held");
    asked(1);
    clock.advance(Duration::from_secs(4)).await;
    fails.store(NOTHING, Ordering::SeqCst);
    assert_eq!(tenant.workflow("w").await, Ok(None));
    asked(2);
    assert!(tenant.hold().is_none());
}

#[tokio::test]
async fn an_outage_of_searches_alone_is_asked_about_less_and_less() {
    let clock = clock();
    let (server, fails) = failing().await;
    let tenant = server.tenant(&clock);
    fails.store(SEARCHES, Ordering::SeqCst);
    let mut held_for = Vec::new();
    for _ in 0..4 {
        while tenant.hold().is_none() {
            drive(&clock, tenant.workflow("w")).await.expect_err("it is down");
        }
        held_for.push(tenant.probe_interval().expect("it is held").as_secs());
        tenant.probe().await.expect("it knows us");
    }
    assert_eq!(held_for, [1, 2, 4, 8]);
}

#[tokio::test]
async fn the_refusal_of_a_second_run_hidden_in_a_500_is_an_answer() {
    let clock = clock();
    let body = json!({"code": 1005, "message": "rpc error: AE-WF-409-03: workflow is already running"});
    let server = Scripted::answering(move |_| Some(Reply::json(500, &body))).await;
    let tenant = server.tenant(&clock);
    for _ in 0..20 {
        drive(&clock, tenant.workflow("w")).await.expect_err("it is refused");
    }
    assert!(tenant.hold().is_none());
}
