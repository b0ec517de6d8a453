//! `token_admin_grant` against the simulated tenant: on the embedded host as a whole, and with every exchange and every save broken.

use std::time::Duration;

use iolaus::sandbox::{Action, Fault};
use iolaus_activities::testing::TestHost as MemoryHost;
use iolaus_activities::{ActivityError, Clock, Status, TokenAdminGrant, Verdict, VerdictRecord};
use serde_json::{Value, json};

use crate::support::tenant::{CONNECTION as PROD, TestTenant};

const CRM: &str = "default/postgres/1111111111";
const LOCKED: &str = "default/snowflake/9999999999";
const CI: &str = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99";
const CI_USER: &str = "service-account-apikey-33333333-4444-5555-6666-777777777777";
const GRANTED: &str = "a11ead1e-0000-4000-8000-000000000003";

const BY_PACKAGE: [&str; 3] = ["workflow_created", "run_submitted", "admin_granted_by_run"];
const DIRECTLY: [&str; 1] = ["admins_replaced"];

fn input(connection: &str, token: &str, method: &str) -> Value {
    json!({ "connection_qualified_name": connection, "api_token_guid": token, "method": method })
}

/// Searches lag two seconds behind, so that nothing here rests on a fresh index.
async fn tenant() -> TestTenant {
    TestTenant::with(|options| options.index_lag = Duration::from_secs(2)).await
}

async fn grant(tenant: &TestTenant, input: Value) -> VerdictRecord {
    tenant.run("token_admin_grant", input).await
}

fn code(verdict: &VerdictRecord) -> &str {
    verdict.failure.as_ref().map_or("", |failure| failure.code.as_str())
}

#[tokio::test]
async fn a_job_grants_by_the_package_reads_back_and_finds_it_granted_the_next_time() {
    let tenant = tenant().await;
    let verdict = grant(&tenant, input(PROD, CI, "auto")).await;
    assert_eq!((verdict.status, verdict.attempts, verdict.failure.as_ref()), (Status::Passed, 1, None));
    assert_eq!((&verdict.facts["method"], &verdict.facts["token_user"]), (&json!("package"), &json!(CI_USER)));
    assert_eq!((&verdict.facts["phase"], &verdict.facts["admin_users_count"]), (&json!("Succeeded"), &json!(2)));
    assert_eq!(tenant.kinds(), BY_PACKAGE);
    assert_eq!(tenant.sandbox.admin_users(PROD), ["jane", CI_USER]);
    let again = grant(&tenant, input(PROD, CI, "auto")).await;
    assert_eq!((again.status, &again.facts["already_admin"]), (Status::Passed, &json!(true)));
    assert_eq!(tenant.kinds(), BY_PACKAGE, "nothing was sent");
}

#[tokio::test]
async fn a_job_grants_directly_and_leaves_the_other_admins_alone() {
    let tenant = tenant().await;
    let verdict = grant(&tenant, input(CRM, CI, "direct")).await;
    assert_eq!((verdict.status, &verdict.facts["method"]), (Status::Passed, &json!("direct")));
    let admins = tenant.sandbox.admin_users(CRM);
    assert!(admins.len() == 3 && admins.contains(&"jane".to_owned()) && admins.contains(&CI_USER.to_owned()), "{admins:?}");
    let there = grant(&tenant, input(CRM, GRANTED, "direct")).await;
    assert_eq!((there.status, &there.facts["already_admin"]), (Status::Passed, &json!(true)));
    assert_eq!(tenant.kinds(), DIRECTLY);
}

#[tokio::test]
async fn an_outage_heals_by_itself_and_a_pause_is_kept() {
    let tenant = tenant().await;
    let busy = Action::Status { status: 429, headers: vec![("retry-after".into(), "90".into())], body: Value::Null };
    tenant.sandbox.add_fault(Fault::new(busy).on("/entity/bulk/"));
    tenant.sandbox.add_fault(Fault::new(Action::CutBeforeApplying).on("/entity/bulk/").nth(2).times(2));
    let begun = tenant.host.clock.now();
    let verdict = grant(&tenant, input(PROD, CI, "direct")).await;
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 4));
    assert!(tenant.host.clock.now().duration_since(begun).as_secs() >= 90);
    assert_eq!(tenant.kinds(), DIRECTLY);
}

#[tokio::test]
async fn what_the_tenant_refuses_is_unresolved_and_what_it_swallows_is_a_no() {
    let tenant = tenant().await;
    let locked = grant(&tenant, input(LOCKED, CI, "direct")).await;
    assert_eq!((locked.status, locked.attempts, code(&locked)), (Status::Unresolved, 1, "grant.not_permitted"));
    assert!(locked.failure.unwrap().message.contains("service-account-apikey-11111111"));
    let unknown = grant(&tenant, input(PROD, "none", "auto")).await;
    assert_eq!((unknown.status, code(&unknown)), (Status::Unresolved, "token.not_found"));
    let nowhere = grant(&tenant, input("default/none/1", CI, "auto")).await;
    assert_eq!((nowhere.status, code(&nowhere)), (Status::Unresolved, "connection.not_found"));
    assert!(tenant.kinds().is_empty());

    tenant.sandbox.add_fault(Fault::new(Action::SwallowGrant));
    let swallowed = grant(&tenant, input(PROD, CI, "package")).await;
    assert_eq!((swallowed.status, &swallowed.facts["phase"]), (Status::Failed, &json!("Succeeded")));
    assert!(swallowed.message.unwrap().contains("succeeded, but"));
    let failed = grant(&tenant, input(LOCKED, CI, "package")).await;
    assert_eq!((failed.status, &failed.facts["phase"]), (Status::Failed, &json!("Failed")));
    assert!(failed.message.unwrap().contains("is not permitted to administer"));
}

#[tokio::test]
async fn jobs_that_start_in_one_second_get_names_and_runs_of_their_own() {
    let tenant = tenant().await;
    let jobs: Vec<_> = [(PROD, CI), (CRM, CI), (PROD, GRANTED)]
        .into_iter()
        .map(|(connection, token)| {
            let (host, tenants) = (MemoryHost::new(tenant.host.clock.clone()), tenant.host.tenants.clone());
            tokio::spawn(async move { host.attempt(TokenAdminGrant::new(tenants), input(connection, token, "package")).await })
        })
        .collect();
    let mut workflows = std::collections::BTreeSet::new();
    for job in jobs {
        let verdict = tenant.host.drive(job).await.unwrap().unwrap();
        assert!(verdict.is_passed(), "{verdict:?}");
        workflows.insert(verdict.facts()["workflow"].to_string());
    }
    assert_eq!((workflows.len(), tenant.kinds().len()), (3, 9));
}

#[tokio::test]
async fn breaking_any_exchange_or_dying_at_any_save_leaves_exactly_one_effect() {
    let faults = [
        Action::CutBeforeApplying,
        Action::CutAfterApplying,
        Action::Status { status: 503, headers: Vec::new(), body: Value::Null },
        Action::StatusAfterApplying { status: 500, body: Value::Null },
        Action::GarbageAfterApplying,
    ];
    for (method, saves, expected) in [("package", 3, BY_PACKAGE.as_slice()), ("direct", 1, DIRECTLY.as_slice())] {
        for (fault, death) in faults.iter().map(|fault| (Some(fault), 0)).chain((1..=saves).map(|save| (None, save))) {
            for nth in 1.. {
                let fired = broken(method, fault, nth, death, expected).await;
                if !fired {
                    break;
                }
            }
        }
    }
}

/// One grant with a fault at the `nth` exchange or a death at a save, attempted until there is a verdict. Whether the fault fired.
async fn broken(method: &str, fault: Option<&Action>, nth: u64, death: usize, expected: &[&str]) -> bool {
    let tenant = tenant().await;
    let host = MemoryHost::new(tenant.host.clock.clone());
    if let Some(action) = fault {
        tenant.sandbox.add_fault(Fault::new(action.clone()).nth(nth));
    }
    if death > 0 {
        host.die_at_save(death);
    }
    let at = format!("{method}, {fault:?} at exchange {nth}, death at save {death}");
    let verdict = to_the_verdict(&host, &tenant, method).await;
    assert!(verdict.is_passed(), "{at}: {verdict:?}");
    assert_eq!(tenant.kinds(), expected, "{at}");
    assert_eq!(tenant.sandbox.admin_users(PROD), ["jane", CI_USER], "{at}");
    tenant.sandbox.faults_fired() > 0
}

async fn to_the_verdict(host: &MemoryHost, tenant: &TestTenant, method: &str) -> Verdict {
    for _ in 0..10 {
        let activity = TokenAdminGrant::new(tenant.host.tenants.clone());
        match tenant.host.drive(host.attempt(activity, input(PROD, CI, method))).await {
            Ok(verdict) => return verdict,
            Err(ActivityError::Failed(failure)) if failure.retryable => {
                tenant.host.clock.advance(failure.retry_after.unwrap_or_default());
            }
            Err(ActivityError::Interrupted) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("no verdict after ten attempts");
}
