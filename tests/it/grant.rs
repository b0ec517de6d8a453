//! Grants against the sandbox: one effect for one intent, and only a token that was read back passes.

mod separate_queues;

use std::collections::BTreeSet;
use std::time::Duration;

use iolaus_activities::testing::TestHost as MemoryHost;
use iolaus_activities::{ActivityError, Clock, Status, TokenAdminGrant, Verdict, VerdictRecord};
use serde_json::{Value, json};

use crate::support::tenant::{CONNECTION, TOKEN, TOKEN_USER, TestTenant, grant};

const GRANT: &str = "token_admin_grant";
const CRM: &str = "default/postgres/1111111111";
const LOCKED: &str = "default/snowflake/9999999999";
/// A token that is an admin of `CRM` already.
const GRANTED: &str = "a11ead1e-0000-4000-8000-000000000003";

const BY_PACKAGE: [&str; 3] = ["workflow_created", "run_submitted", "admin_granted_by_run"];
const DIRECTLY: [&str; 1] = ["admins_replaced"];

fn grant_of(connection: &str, token: &str, method: &str) -> Value {
    json!({"connection_qualified_name": connection, "api_token_guid": token, "method": method})
}

fn code(verdict: &VerdictRecord) -> &str {
    verdict.failure.as_ref().map_or("", |failure| failure.code.as_str())
}

#[tokio::test]
async fn a_grant_by_the_package_is_read_back_and_found_the_next_time() {
    let tenant = TestTenant::new().await;
    let verdict = tenant.run(GRANT, grant("auto")).await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 1), "{verdict:#?}");
    assert_eq!((&verdict.facts["method"], &verdict.facts["token_user"]), (&json!("package"), &json!(TOKEN_USER)));
    assert_eq!((&verdict.facts["phase"], &verdict.facts["admin_users_count"]), (&json!("Succeeded"), &json!(2)));
    assert_eq!(tenant.submissions(), [verdict.facts["run"].as_str().unwrap()]);
    assert_eq!(
        (tenant.applied(), tenant.sandbox.admin_users(CONNECTION)),
        (BY_PACKAGE.map(str::to_owned).into(), vec!["jane".into(), TOKEN_USER.to_owned()])
    );
    let again = tenant.run(GRANT, grant("auto")).await;
    assert_eq!((again.status, &again.facts["already_admin"]), (Status::Passed, &json!(true)), "{again:#?}");
    assert_eq!(tenant.applied(), BY_PACKAGE, "nothing was sent");
}

#[tokio::test]
async fn a_direct_grant_leaves_the_other_admins_alone() {
    let tenant = TestTenant::new().await;
    let verdict = tenant.run(GRANT, grant_of(CRM, TOKEN, "direct")).await;
    assert_eq!((verdict.status, &verdict.facts["method"]), (Status::Passed, &json!("direct")), "{verdict:#?}");
    let admins = tenant.sandbox.admin_users(CRM);
    assert!(admins.len() == 3 && admins[0] == "jane" && admins[2] == TOKEN_USER, "{admins:?}");
    let there = tenant.run(GRANT, grant_of(CRM, GRANTED, "direct")).await;
    assert_eq!((there.status, &there.facts["already_admin"]), (Status::Passed, &json!(true)), "{there:#?}");
    assert_eq!(tenant.applied(), DIRECTLY);
}

#[tokio::test]
async fn an_outage_heals_by_itself_and_a_pause_that_is_asked_for_is_kept() {
    let tenant = TestTenant::new().await;
    let busy = json!({"kind": "status", "status": 429, "headers": [["retry-after", "90"]]});
    tenant.fault(json!({"path": "/entity/bulk/", "action": busy}));
    tenant.fault(json!({"path": "/entity/bulk/", "nth": 2, "times": 2, "action": {"kind": "cut_before_applying"}}));
    let begun = tenant.host.clock.now();
    let verdict = tenant.run(GRANT, grant("direct")).await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 4), "{verdict:#?}");
    assert!(tenant.host.clock.now().duration_since(begun).as_secs() >= 90);
    assert_eq!(tenant.applied(), DIRECTLY);
}

#[tokio::test]
async fn what_could_not_be_done_is_unresolved_and_says_what_is_missing() {
    let tenant = TestTenant::new().await;
    for (input, expected) in [
        (grant_of(LOCKED, TOKEN, "direct"), "grant.not_permitted"),
        (grant_of(CONNECTION, "none", "auto"), "token.not_found"),
        (grant_of("default/none/1", TOKEN, "auto"), "connection.not_found"),
    ] {
        let verdict = tenant.run(GRANT, input).await;
        assert_eq!((verdict.status, verdict.attempts, code(&verdict)), (Status::Unresolved, 1, expected), "{verdict:#?}");
        assert!(verdict.failure.is_some_and(|failure| failure.suggested_action.is_some()));
    }
    assert_eq!(tenant.applied(), [""; 0]);
}

#[tokio::test]
async fn a_run_that_granted_nothing_is_a_no_whether_it_says_so_or_not() {
    let tenant = TestTenant::new().await;
    tenant.fault(json!({"action": {"kind": "swallow_grant"}}));
    let swallowed = tenant.run(GRANT, grant("package")).await;
    assert_eq!((swallowed.status, &swallowed.facts["phase"]), (Status::Failed, &json!("Succeeded")), "{swallowed:#?}");
    assert!(swallowed.message.is_some_and(|message| message.contains("succeeded, but")));
    let refused = tenant.run(GRANT, grant_of(LOCKED, TOKEN, "package")).await;
    assert_eq!((refused.status, &refused.facts["phase"]), (Status::Failed, &json!("Failed")), "{refused:#?}");
    assert!(refused.message.is_some_and(|message| message.contains("is not permitted to administer")));
}

#[tokio::test]
async fn an_index_that_lags_hides_no_creation_that_was_cut_off() {
    for lag in [0, 9, 30] {
        let tenant = TestTenant::with(|options| options.index_lag = Duration::from_secs(lag)).await;
        tenant.fault(json!({"path": "submit=true", "action": {"kind": "cut_after_applying"}}));
        let verdict = tenant.run(GRANT, grant("package")).await;
        assert_eq!((verdict.status, tenant.applied()), (Status::Passed, BY_PACKAGE.map(str::to_owned).into()), "{verdict:#?}");
    }
}

#[tokio::test]
async fn grants_that_start_in_one_second_get_workflows_and_runs_of_their_own() {
    let tenant = TestTenant::new().await;
    let tenants = tenant.tenants();
    let attempts: Vec<_> = [(CONNECTION, TOKEN), (CRM, TOKEN), (CONNECTION, GRANTED)]
        .into_iter()
        .map(|(connection, token)| {
            let (host, tenants) = (MemoryHost::new(tenant.host.clock.clone()), tenants.clone());
            let input = grant_of(connection, token, "package");
            tokio::spawn(async move { host.attempt(TokenAdminGrant::new(tenants), input).await })
        })
        .collect();
    let mut workflows = BTreeSet::new();
    for attempt in attempts {
        let verdict = tenant.host.drive(attempt).await.unwrap().unwrap();
        assert!(verdict.is_passed(), "{verdict:?}");
        workflows.insert(verdict.facts()["workflow"].to_string());
    }
    assert_eq!((workflows.len(), tenant.applied().len()), (3, 9));
}

#[tokio::test]
async fn dying_at_any_save_with_any_answer_lost_leaves_exactly_one_effect() {
    for (method, saves, expected) in [("package", 3, BY_PACKAGE.as_slice()), ("direct", 1, DIRECTLY.as_slice())] {
        for save in 1..=saves {
            for nth in 1.. {
                let tenant = TestTenant::with(|options| options.index_lag = Duration::from_secs(2)).await;
                tenant.fault(json!({"nth": nth, "action": {"kind": "cut_after_applying"}}));
                let verdict = dying_at(save, &tenant, method).await;
                let case = format!("{method}, exchange {nth} cut, death at save {save}");
                assert!(verdict.is_passed(), "{case}: {verdict:?}");
                assert_eq!(tenant.applied(), expected, "{case}");
                assert_eq!(tenant.sandbox.admin_users(CONNECTION), ["jane", TOKEN_USER], "{case}");
                if tenant.sandbox.faults_fired() == 0 {
                    break;
                }
            }
        }
    }
}

/// Attempts until there is a verdict; one of them dies at a save.
async fn dying_at(save: usize, tenant: &TestTenant, method: &str) -> Verdict {
    let host = MemoryHost::new(tenant.host.clock.clone());
    host.die_at_save(save);
    let tenants = tenant.tenants();
    for _ in 0..10 {
        match tenant.host.drive(host.attempt(TokenAdminGrant::new(tenants.clone()), grant(method))).await {
            Ok(verdict) => return verdict,
            Err(ActivityError::Failed(failure)) if failure.retryable => tenant.host.clock.advance(Duration::from_secs(1)).await,
            Err(ActivityError::Interrupted) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("no verdict after ten attempts");
}
