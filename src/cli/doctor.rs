//! `iolaus doctor`: what is wrong, one line each, with the mend.

use clap::Args;
use iolaus_activities::tenant::{Generation, Ping, Tenant};
use iolaus_activities::{Category, Failure, shell_word, timestamp};
use jiff::SignedDuration;
use serde::Serialize;

use super::App;
use super::exit::Exit;
use super::input::utf8;
use super::render::plain_line;
use crate::client::{ClientError, HostStatus, Missing, PauseKind, TenantHold, WithoutWorker};

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus doctor
  iolaus doctor --tenant acme --output json

Exit codes: 0 all is well (warnings included), 3 trouble with a tenant, 6 the queue is unusable";

/// Roles that may do everything that the shipped activities do.
const ROLES: [&str; 2] = ["$admin", "$api-token-default-access"];
/// A name that nothing has: asking for it proves that asking works.
const NOTHING: &str = "iolaus-doctor";

/// Check configuration, queue, tenants and permissions, and tell the mend of what is wrong
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Only this tenant; every configured one if absent
    #[arg(long, value_name = "NAME", value_parser = utf8())]
    tenant: Option<String>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    state: State,
    message: String,
    mend: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

impl Finding {
    fn new(what: impl Into<String>, state: State, message: impl Into<String>) -> Self {
        Self { what: what.into(), state, message: message.into(), mend: None }
    }

    fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    fn line(&self) -> String {
        let state = match self.state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        let mend = self.mend.as_ref().map(|mend| format!("  -> {mend}")).unwrap_or_default();
        plain_line(&format!("{state}  {}: {}{mend}", self.what, self.message))
    }
}

impl Doctor {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        app.intake()?;
        let mut findings = vec![configuration(app)];
        let tell = |finding: &Finding| if app.out.is_json() { Ok(()) } else { app.out.line(&finding.line()) };
        tell(&findings[0])?;
        let mut exit = Exit::Passed;
        for finding in queue(app).await {
            tell(&finding)?;
            if finding.state == State::Fail {
                exit = Exit::Unusable;
            }
            findings.push(finding);
        }
        let tenants = app.tenants()?;
        let names: Vec<String> = match &self.tenant {
            Some(name) => vec![name.clone()],
            None => tenants.names().map(String::from).collect(),
        };
        for name in names {
            for finding in of_tenant(app, &*tenants.get(&name)?).await {
                tell(&finding)?;
                if finding.state == State::Fail {
                    exit = exit.worst(Exit::Unresolved);
                }
                findings.push(finding);
            }
        }
        if app.out.is_json() {
            app.out.json(&serde_json::json!({"well": exit == Exit::Passed, "findings": findings}))?;
        }
        Ok(exit)
    }
}

fn configuration(app: &App) -> Finding {
    let message = match &app.config.file {
        Some(file) => format!("{} and the environment", file.display()),
        None => "the built-in defaults and the environment; there is no file".to_owned(),
    };
    Finding::new("configuration", State::Ok, message)
}

async fn queue(app: &App) -> Vec<Finding> {
    let broken = |error: ClientError| {
        let known = if let ClientError::Unavailable { mend, .. } = &error { *mend } else { None };
        let mend = "make the directory writable for this user, or set IOLAUS_DATABASE__PATH to an absolute path on a local disk";
        Finding::new("queue", State::Fail, error.to_string()).mend(known.unwrap_or(mend))
    };
    let host = match app.open() {
        Ok(host) => host,
        Err(error) => return vec![broken(error)],
    };
    // A real write transaction that changes nothing: what was never paused cannot be resumed.
    match host.client().resume(PauseKind::Activity, NOTHING.to_owned()).await {
        // A cluster is only asked: what it keeps, it checks itself.
        Ok(_) | Err(ClientError::Unsupported { .. }) => {}
        Err(error) => return vec![broken(error)],
    }
    if let Err(error) = host.client().check().await {
        return vec![broken(error)];
    }
    let writable = Finding::new("queue", State::Ok, format!("{} is writable and sound", host.client().place()));
    match host.client().status().await {
        Ok(status) => std::iter::once(writable).chain(workers(&status)).collect(),
        Err(error) => vec![broken(error)],
    }
}

fn workers(status: &HostStatus) -> Vec<Finding> {
    let live: Vec<_> = status.presence.workers.iter().filter(|worker| worker.live).collect();
    let mut findings = match live.len() {
        0 => vec![
            Finding::new("workers", State::Warn, "no live worker; enqueued jobs wait")
                .mend("iolaus worker starts one; iolaus execute needs none"),
        ],
        n => vec![Finding::new("workers", State::Ok, format!("{n} live"))],
    };
    findings.extend(status.without_worker.iter().filter_map(|waiting| {
        let WithoutWorker { activity, tenant, jobs, missing } = waiting;
        let (what, hint) = match missing {
            Missing::Worker => return None,
            Missing::Activity => ("runs it".to_owned(), "start a worker of a version that knows it".to_owned()),
            Missing::Tenant => {
                let hint = format!("set base_url and credentials of tenants.{tenant} where a worker runs, and restart that worker");
                (format!("has an address and credentials for tenant {tenant}"), hint)
            }
        };
        let message = format!("{jobs} open jobs of {activity} for tenant {tenant} have no live worker that {what}");
        Some(Finding::new("workers", State::Warn, message).mend(hint))
    }));
    findings.extend(status.presence.pauses.iter().map(|pause| {
        let (kind, name) = (pause.kind.as_str(), &pause.name);
        Finding::new("pauses", State::Warn, format!("{kind} {name} is paused"))
            .mend(format!("iolaus resume {kind} {}", shell_word(name)))
    }));
    findings.extend(status.presence.holds.iter().map(|hold| {
        let TenantHold { tenant, worker, reason, since, .. } = hold;
        let mend = "it goes on by itself once the tenant lets it; a worker with newer credentials need not wait for that";
        let since = timestamp::format(*since);
        Finding::new("holds", State::Warn, format!("worker {worker} asks nothing of tenant {tenant} since {since}: {reason}"))
            .mend(mend)
    }));
    findings
}

async fn of_tenant(app: &App, tenant: &Tenant) -> Vec<Finding> {
    let what = |part: &str| format!("tenant {} {part}", tenant.name());
    let ping = match tenant.ping().await {
        Ok(ping) => ping,
        Err(failure) => return unreachable(app, tenant, &failure),
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

fn unreachable(app: &App, tenant: &Tenant, failure: &Failure) -> Vec<Finding> {
    let part = match failure.category {
        Category::Auth | Category::Permission => "credentials",
        _ => "address",
    };
    let mut finding = Finding::new(format!("tenant {} {part}", tenant.name()), State::Fail, failure.to_string());
    finding.mend.clone_from(&failure.suggested_action);
    // The section that is always there may stay empty beside others.
    if tenant.settings().base_url.trim().is_empty() && tenant.name() == "default" && app.config.tenants.len() > 1 {
        finding.state = State::Warn;
    }
    vec![finding]
}

fn clock(what: &str, tenant: &Tenant, ahead: Option<SignedDuration>) -> Finding {
    let Some(ahead) = ahead else {
        return Finding::new(what, State::Warn, "the tenant shows no Date header; its clock is taken to be ours");
    };
    let seconds = ahead.as_secs();
    let tolerance = tenant.settings().clock_tolerance;
    if ahead.unsigned_abs() > tolerance {
        let mend = format!("synchronise this machine's clock (NTP), or raise tenants.{}.clock_tolerance", tenant.name());
        return Finding::new(what, State::Warn, format!("{seconds} s ahead of ours; times are moved by that")).mend(mend);
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
            .mend("use an API token of the tenant: its user name begins with service-account-")
    };
    let grant = if privileged {
        Finding::new(what("token_admin_grant"), State::Ok, "needs an administrator of the connection; the role allows to try")
    } else {
        Finding::new(what("token_admin_grant"), State::Warn, "needs an administrator of the connection; no role here makes one")
            .mend("use an API token that administers the connection, or one of a tenant's admin")
    };
    let endpoint = if privileged { "workflows/submit" } else { "package-workflows/submit" };
    let (may_search, may_look) = (what("workflow_rerun"), what("await_completion"));
    let (find, look) = if tenant.settings().generation == Generation::Native {
        let find = asked(may_search, "may see apps".to_owned(), tenant.has_app(NOTHING).await);
        (find, asked(may_look, "may see runs of apps".to_owned(), tenant.app_run(NOTHING).await))
    } else {
        let find = asked(may_search, format!("may search workflows; submits by {endpoint}"), tenant.workflow(NOTHING).await);
        (find, asked(may_look, "may search runs".to_owned(), tenant.look(NOTHING).await))
    };
    vec![look, preflight, grant, find]
}

fn asked<T>(what: String, fine: String, answer: Result<T, Failure>) -> Finding {
    match answer {
        Ok(_) => Finding::new(what, State::Ok, fine),
        Err(failure) => Finding { mend: failure.suggested_action.clone(), ..Finding::new(what, State::Fail, failure.to_string()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Presence;
    use crate::client::{StateCount, WorkerStatus};
    use crate::job::{JobState, SEQUENCE};
    use jiff::Timestamp;

    fn status(live: bool) -> HostStatus {
        let worker = WorkerStatus {
            name: "here-1-0".into(),
            version: "0.1.0".into(),
            activities: vec!["publish_preflight".into()],
            tenants: Some(vec!["default".into()]),
            started_at: Timestamp::UNIX_EPOCH,
            last_beat: Timestamp::UNIX_EPOCH,
            running: 0,
            live,
        };
        let count =
            StateCount { activity: "from_the_future".into(), tenant: "default".into(), state: JobState::Available, count: 1 };
        let presence = Presence { place: "q".into(), workers: vec![worker], pauses: Vec::new(), holds: Vec::new() };
        HostStatus::new(presence, vec![count], None)
    }

    #[test]
    fn jobs_that_no_live_worker_can_run_are_shown() {
        let findings = workers(&status(true));
        assert!(findings.iter().any(|finding| finding.state == State::Warn && finding.message.contains("from_the_future")));
        assert!(workers(&status(false)).iter().any(|finding| finding.message.contains("no live worker")));
    }

    #[test]
    fn a_sequence_waits_for_no_worker_that_runs_it() {
        let HostStatus { presence, mut counts, .. } = status(true);
        SEQUENCE.clone_into(&mut counts[0].activity);
        assert!(workers(&HostStatus::new(presence, counts, None)).iter().all(|finding| finding.state == State::Ok));
    }

    #[test]
    fn a_finding_is_one_line_with_its_mend() {
        let line = Finding::new("queue", State::Fail, "q:\nno").mend("mend it").line();
        assert_eq!(line, "FAIL  queue: q: no  -> mend it");
    }
}
