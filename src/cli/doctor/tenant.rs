//! What `doctor` asks of one tenant: whether it is configured, there, knows us, and lets us do what the activities do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use iolaus_activities::tenant::{self, Generation, Ping, SettingsError, Tenant, Tenants};
use iolaus_activities::{Category, Failure};
use jiff::SignedDuration;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::{Finding, NOTHING, Report, State};
use crate::cli::App;
use crate::cli::exit::Exit;
use crate::cli::out::OutputLost;

/// Roles that may do everything that the shipped activities do.
const ROLES: [&str; 2] = ["$admin", "$api-token-default-access"];

/// Tenants that are asked at the same time. Findings are reported in the order of the tenants all the same.
const MAX_ASKED: usize = 16;

/// What was found, and what a failed check makes the command exit with.
type Findings = Vec<(Finding, Exit)>;

/// Makes all checks of these tenants that can be made.
pub(super) async fn check(names: &[&String], report: &mut Report<'_>) -> Result<(), OutputLost> {
    let app = report.app;
    let settings = names.iter().filter_map(|name| Some(((*name).clone(), app.config.tenant(name)?.clone()))).collect();
    let mut tenants: BTreeMap<_, _> = Tenants::each(settings, app.clock.clone()).collect();
    let mut asked: VecDeque<JoinHandle<Findings>> = VecDeque::new();
    let others = app.config.tenants.len() > 1;
    for name in names {
        if asked.len() >= MAX_ASKED {
            add_first(&mut asked, report).await?;
        }
        let tenant = open(app, name, tenants.remove(*name));
        asked.push_back(tokio::spawn(of_one(tenant, others).in_current_span()));
    }
    while !asked.is_empty() {
        add_first(&mut asked, report).await?;
    }
    Ok(())
}

async fn add_first(asked: &mut VecDeque<JoinHandle<Findings>>, report: &mut Report<'_>) -> Result<(), OutputLost> {
    let Some(task) = asked.pop_front() else { return Ok(()) };
    let findings = task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    findings.into_iter().try_for_each(|(finding, exit)| report.add(finding, exit))
}

async fn of_one(tenant: Result<Arc<Tenant>, (Finding, Exit)>, others: bool) -> Findings {
    let tenant = match tenant {
        Ok(tenant) => tenant,
        Err(refused) => return vec![refused],
    };
    let mut findings = Vec::new();
    if let Some(SettingsError { key, problem, hint, .. }) = tenant.warning() {
        let name = tenant.name();
        let finding =
            Finding::new(format!("tenant {name} configuration"), State::Warn, format!("`tenants.{name}.{key}` {problem}"));
        findings.push((finding.hint(hint), Exit::Passed));
    }
    findings.extend(of_tenant(&tenant, others).await.into_iter().map(|finding| (finding, Exit::Unresolved)));
    findings
}

fn open(app: &App, name: &str, tenant: Option<Result<Arc<Tenant>, SettingsError>>) -> Result<Arc<Tenant>, (Finding, Exit)> {
    let what = || format!("tenant {name} configuration");
    match tenant {
        Some(Ok(tenant)) => Ok(tenant),
        Some(Err(SettingsError { key, problem, hint, .. })) => {
            Err((Finding::new(what(), State::Fail, format!("`tenants.{name}.{key}` {problem}")).hint(hint), Exit::Usage))
        }
        None => {
            let known = tenant::few(app.config.tenants.keys().map(String::as_str));
            let finding = Finding::new(what(), State::Fail, format!("no tenant is named `{name}` (known: {known})"));
            let hint = format!("add a section [tenants.{name}] to the configuration, or choose another with --tenant");
            Err((finding.hint(hint), Exit::Unresolved))
        }
    }
}

async fn of_tenant(tenant: &Tenant, others: bool) -> Vec<Finding> {
    let what = |part: &str| format!("tenant {} {part}", tenant.name());
    let ping = match tenant.ping().await {
        Ok(ping) => ping,
        Err(failure) => return without_ping(tenant, &failure, others).await,
    };
    let address = &tenant.settings().base_url;
    let reached = format!("{address} answered in {} ms", ping.round_trip.as_millis());
    let who = &ping.identity;
    let roles = if who.roles.is_empty() { "no role".to_owned() } else { who.roles.join(", ") };
    let accepted = format!("accepted as {} with {roles}", if who.username.is_empty() { "(no name)" } else { &who.username });
    let mut findings = vec![
        Finding::new(what("address"), State::Ok, reached),
        Finding::new(what("credentials"), State::Ok, accepted),
        clock(&what("clock"), tenant, ping.clock_ahead),
    ];
    findings.extend(abilities(tenant, &ping).await);
    findings
}

/// The checks of a tenant that does not say who we are. One that answers at all is still asked for what the activities need.
async fn without_ping(tenant: &Tenant, failure: &Failure, others: bool) -> Vec<Finding> {
    let name = tenant.name();
    let part = match failure.category {
        Category::Auth | Category::Permission => "credentials",
        _ => "address",
    };
    let hint = || format!("check tenants.{name}.base_url, and that this machine reaches it (name, port, proxy, firewall)");
    let first = Finding::new(format!("tenant {name} {part}"), State::Fail, failure.to_string());
    let mut first = first.hint(failure.suggested_action.clone().unwrap_or_else(hint));
    // The section that is always there may stay empty beside others.
    if tenant.settings().base_url.trim().is_empty() && name == "default" && others {
        first.state = State::Warn;
        return vec![first];
    }
    if matches!(failure.source.http_status, None | Some(401)) {
        let message = "not checked: no request gets past the check above";
        return vec![first, Finding::new(format!("tenant {name} activities"), State::Warn, message)];
    }
    let unknown = |activity: &str| {
        let message = "not checked: the tenant does not say who these credentials are";
        Finding::new(format!("tenant {name} {activity}"), State::Warn, message)
    };
    let (find, look) = reads(tenant, "may search workflows").await;
    vec![first, look, unknown("publish_preflight"), unknown("token_admin_grant"), find]
}

fn clock(what: &str, tenant: &Tenant, ahead: Option<SignedDuration>) -> Finding {
    let Some(ahead) = ahead else {
        return Finding::new(what, State::Warn, "the tenant shows no Date header; its clock is taken to be ours");
    };
    let seconds = ahead.as_secs();
    let tolerance = tenant.settings().clock_tolerance;
    if ahead.unsigned_abs() > tolerance {
        let hint = format!("synchronise this machine's clock (NTP), or raise tenants.{}.clock_tolerance", tenant.name());
        return Finding::new(what, State::Warn, format!("{seconds} s ahead of ours; times are moved by that")).hint(hint);
    }
    Finding::new(what, State::Ok, format!("{seconds} s ahead of ours"))
}

/// What each activity needs of the tenant and of these credentials, and whether it is there.
async fn abilities(tenant: &Tenant, ping: &Ping) -> Vec<Finding> {
    let who = &ping.identity;
    let what = |activity: &str| format!("tenant {} {activity}", tenant.name());
    let privileged = who.roles.iter().any(|role| ROLES.contains(&role.as_str()));
    let preflight = if who.username.starts_with("service-account-") {
        Finding::new(what("publish_preflight"), State::Ok, "needs a service account, and this is one")
    } else {
        Finding::new(what("publish_preflight"), State::Fail, "needs credentials of a service account, and this is a person")
            .hint("use an API token of the tenant: its user name begins with service-account-")
    };
    let grant = if privileged {
        Finding::new(what("token_admin_grant"), State::Ok, "needs an administrator of the connection; the role allows to try")
    } else {
        Finding::new(what("token_admin_grant"), State::Warn, "needs an administrator of the connection; no role here makes one")
            .hint("use an API token that administers the connection, or one of a tenant's admin")
    };
    let endpoint = if privileged { "workflows/submit" } else { "package-workflows/submit" };
    let (find, look) = reads(tenant, &format!("may search workflows; submits by {endpoint}")).await;
    vec![look, preflight, grant, find]
}

/// Whether workflows or apps may be found, and runs looked at.
async fn reads(tenant: &Tenant, may_search_workflows: &str) -> (Finding, Finding) {
    let what = |activity: &str| format!("tenant {} {activity}", tenant.name());
    let (may_search, may_look) = (what("workflow_rerun"), what("await_completion"));
    if tenant.settings().generation == Generation::Native {
        let find = asked(may_search, "may see apps".to_owned(), tenant.has_app(NOTHING).await);
        (find, asked(may_look, "may see runs of apps".to_owned(), tenant.app_run(NOTHING).await))
    } else {
        let find = asked(may_search, may_search_workflows.to_owned(), tenant.workflow(NOTHING).await);
        (find, asked(may_look, "may search runs".to_owned(), tenant.look(NOTHING).await))
    }
}

fn asked<T>(what: String, fine: String, answer: Result<T, Failure>) -> Finding {
    match answer {
        Ok(_) => Finding::new(what, State::Ok, fine),
        Err(failure) => {
            let finding = Finding::new(what, State::Fail, failure.to_string());
            match failure.suggested_action {
                Some(hint) => finding.hint(hint),
                None => finding,
            }
        }
    }
}
