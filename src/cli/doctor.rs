//! `iolaus doctor`: what is wrong, one line each, with a hint. Whatever is wrong, the checks that follow are still made.

pub(super) mod permissions;
mod storage;
mod tenant;

use clap::Args;
use iolaus_activities::{shell_word, timestamp};
use serde::Serialize;

use super::App;
use super::exit::{self, Exit};
use super::input::utf8;
use super::out::OutputLost;
use super::render::plain_line;
use crate::client::{ClientError, HostStatus, Missing, PauseKind, TenantHold, WithoutWorker};

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus doctor
  iolaus doctor --tenant acme --output json

Exit codes: 0 all is well (warnings included), 2 the configuration is wrong, 3 trouble with a tenant,
6 the queue is unusable, or a row of it is broken";

/// A name that nothing has: asking for it proves that asking works.
const NOTHING: &str = "iolaus-doctor";

/// Check configuration, queue, tenants and permissions, and suggest fixes
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
    hint: Option<String>,
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
        Self { what: what.into(), state, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn line(&self) -> String {
        let state = match self.state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        let hint = self.hint.as_ref().map(|hint| format!("  -> {hint}")).unwrap_or_default();
        plain_line(&format!("{state}  {}: {}{hint}", self.what, self.message))
    }
}

/// What was found so far. For people each finding is written at once.
struct Report<'a> {
    app: &'a App,
    findings: Vec<Finding>,
    exit: Exit,
}

impl Report<'_> {
    /// Adds a finding; a failed one makes the command exit with `exit`, or with a worse code.
    fn add(&mut self, finding: Finding, exit: Exit) -> Result<(), OutputLost> {
        if !self.app.out.is_json() {
            self.app.out.line(&finding.line())?;
        }
        if finding.state == State::Fail {
            self.exit = self.exit.worst(exit);
        }
        self.findings.push(finding);
        Ok(())
    }
}

impl Doctor {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let mut report = Report { app, findings: Vec::new(), exit: Exit::Passed };
        for finding in configuration(app) {
            report.add(finding, Exit::Usage)?;
        }
        for finding in queue(app).await {
            report.add(finding, Exit::Unusable)?;
        }
        let (finding, disk) = storage::disk(app).await;
        if let Some(finding) = finding {
            report.add(finding, Exit::Unusable)?;
        }
        let names: Vec<&String> = match &self.tenant {
            Some(name) => vec![name],
            None => app.config.tenants.keys().collect(),
        };
        tenant::check(&names, &mut report).await?;
        if app.out.is_json() {
            let ok = report.exit == Exit::Passed;
            app.out.json(&serde_json::json!({"ok": ok, "findings": report.findings, "disk": disk}))?;
        }
        Ok(report.exit)
    }
}

/// Every mistake of the configuration, or where it comes from if there is none.
fn configuration(app: &App) -> Vec<Finding> {
    let wrong = |message: String, hint: Option<String>| Finding { hint, ..Finding::new("configuration", State::Fail, message) };
    let problems = app.config.problems.iter().map(|problem| wrong(problem.to_string(), Some(problem.hint.clone())));
    let mut findings: Vec<Finding> = problems.collect();
    if let Err(error) = app.intake() {
        let (_, hint) = exit::explain(&error);
        findings.push(wrong(error.to_string(), hint));
    }
    if findings.is_empty() {
        let message = match &app.config.file {
            Some(file) => format!("{} and the environment", file.display()),
            None => "the built-in defaults and the environment; there is no file".to_owned(),
        };
        findings.push(Finding::new("configuration", State::Ok, message));
    }
    let open = permissions::problems(&app.config).into_iter();
    findings.extend(open.map(|(message, fix)| Finding::new("permissions", State::Warn, message).hint(fix)));
    findings
}

async fn queue(app: &App) -> Vec<Finding> {
    let broken = |error: ClientError| {
        let finding = Finding::new("queue", State::Fail, error.to_string());
        match error {
            ClientError::Unavailable { hint: Some(hint), .. } => finding.hint(hint),
            _ => finding,
        }
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
    let health = match host.client().check().await {
        Ok(health) => storage::health(&health, app.config.database.retention),
        Err(error) => return vec![broken(error)],
    };
    let writable = Finding::new("queue", State::Ok, format!("{} is writable", host.client().place()));
    let rest = match host.client().status().await {
        Ok(status) => workers(&status),
        Err(error) => vec![broken(error)],
    };
    std::iter::once(writable).chain(health).chain(rest).collect()
}

fn workers(status: &HostStatus) -> Vec<Finding> {
    let mut findings = match status.presence.live().count() {
        0 => vec![
            Finding::new("workers", State::Warn, "no live worker; enqueued jobs wait")
                .hint("iolaus worker starts one; iolaus execute needs none"),
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
        Some(Finding::new("workers", State::Warn, message).hint(hint))
    }));
    findings.extend(status.presence.pauses.iter().map(|pause| {
        let (kind, name) = (pause.kind.as_str(), &pause.name);
        Finding::new("pauses", State::Warn, format!("{kind} {name} is paused"))
            .hint(format!("iolaus resume {kind} {}", shell_word(name)))
    }));
    findings.extend(status.presence.holds.iter().map(|hold| {
        let TenantHold { tenant, worker, reason, since, .. } = hold;
        let hint = "it goes on by itself once the tenant lets it; a worker with newer credentials need not wait for that";
        let since = timestamp::format(*since);
        Finding::new("holds", State::Warn, format!("worker {worker} asks nothing of tenant {tenant} since {since}: {reason}"))
            .hint(hint)
    }));
    findings
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
            job_id: None,
        };
        let count =
            StateCount { activity: "from_the_future".into(), tenant: "default".into(), state: JobState::Available, count: 1 };
        let presence = Presence {
            place: "q".into(),
            now: jiff::Timestamp::UNIX_EPOCH,
            workers: vec![worker],
            pauses: Vec::new(),
            holds: Vec::new(),
        };
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
    fn a_finding_is_one_line_with_its_hint() {
        let line = Finding::new("queue", State::Fail, "q:\nno").hint("fix it").line();
        assert_eq!(line, "FAIL  queue: q: no  -> fix it");
    }
}
