//! Waiting for a verdict, as `enqueue --wait` and `jobs wait` do: bounded, with a word about what the job waits for.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::{VerdictRecord, shell_word, timestamp};
use jiff::Timestamp;

use super::enqueue::Answered;
use super::exit::{Exit, Problem};
use super::host::Host;
use super::out::Out;
use super::signals::Signals;
use super::{App, render};
use crate::client::{
    AttemptFailure, ClientError, Enqueued, JobClient, JobDetail, Missing, Pause, PauseKind, Presence, StepDetail, Target,
    TenantHold, WorkerStatus,
};
use crate::job::{Job, JobState, Throttles};

/// At the latest after this long it is said what a job waits for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at a job that somebody watches.
const LOOK: Duration = Duration::from_secs(1);
/// What helps when there is no worker.
const START: &str = "iolaus worker";

/// Waits for verdicts through one client.
pub(crate) struct Waiting<'a> {
    pub(crate) app: &'a App,
    pub(crate) client: &'a Arc<dyn JobClient>,
    pub(crate) signals: &'a Signals,
    /// How long, at most.
    pub(crate) timeout: Option<Duration>,
}

impl Waiting<'_> {
    /// The verdict; None when the time is over or somebody asked this process to stop. The job goes on in any case.
    pub(crate) async fn verdict(&self, target: &Target) -> Result<Option<VerdictRecord>, ClientError> {
        let over = async {
            match self.timeout {
                Some(timeout) => self.app.clock.deadline(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            verdict = self.client.wait(target.clone()) => verdict.map(Some),
            () = over => Ok(None),
            () = self.signals.stopped() => Ok(None),
            never = watch(self.app, self.client, target, By::Others) => match never {},
        }
    }
}

/// Who is to work the job that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// This process.
    Us,
    /// Workers somewhere.
    Others,
}

/// Tells what an open job waits for, for as long as somebody polls this, each thing once; and to a person how it goes.
pub(crate) async fn watch(app: &App, client: &Arc<dyn JobClient>, target: &Target, by: By) -> Infallible {
    let (out, clock) = (app.out, &app.clock);
    let mut told = BTreeSet::new();
    let tell = async {
        // What nobody can change by waiting is said at once.
        if by == By::Others {
            for hold in look(app, client, target, by).await.into_iter().filter(|hold| hold.kind == Kind::Paused) {
                out.note(&render::plain_line(&hold.text));
                told.insert((hold.kind, hold.about));
            }
        }
        clock.sleep(PATIENCE).await;
        loop {
            for hold in look(app, client, target, by).await {
                if told.insert((hold.kind, hold.about)) {
                    out.note(&render::plain_line(&hold.text));
                }
            }
            // A worker that has died since looks alive until then.
            clock.sleep(app.config.worker.worker_timeout.max(LOOK)).await;
        }
    };
    let show = async {
        let (mut last, mut ended) = (String::new(), 0);
        while out.is_watched() {
            clock.sleep(LOOK).await;
            if let Ok((whole, detail)) = current(client, target).await {
                for line in steps_ended(&whole).skip(ended) {
                    out.progress(&render::plain_line(&line));
                    ended += 1;
                }
                let line = goes(&detail);
                if line != last {
                    out.progress(&render::plain_line(&line));
                    last = line;
                }
            }
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        never = tell => never,
        never = show => never,
    }
}

/// Something that a job waits for. `kind` and `about` tell one from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hold {
    kind: Kind,
    about: String,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Unknown,
    Paused,
    TenantHeld,
    Due,
    NoWorker,
    Held,
    Silent,
    Busy,
}

impl Hold {
    fn new(kind: Kind, about: impl Into<String>, text: String) -> Self {
        Self { kind, about: about.into(), text }
    }
}

/// What an open job waits for now, a line each.
pub(crate) async fn waits_for(app: &App, client: &Arc<dyn JobClient>, target: &Target) -> Vec<String> {
    look(app, client, target, By::Others).await.iter().map(|hold| render::plain_line(&hold.text)).collect()
}

async fn look(app: &App, client: &Arc<dyn JobClient>, target: &Target, by: By) -> Vec<Hold> {
    match (current(client, target).await, client.presence().await) {
        (Ok((_, detail)), Ok(status)) => holds(&detail, &status, &app.config.limits, by, status.now),
        // It is stored a moment later.
        (Err(ClientError::NotFound(_)), _) => Vec::new(),
        (Err(error), _) | (_, Err(error)) => {
            vec![Hold::new(Kind::Unknown, "", format!("it is unknown what the job waits for: {error}"))]
        }
    }
}

/// A job, and what is current of it: itself, or the open step of a sequence.
pub(crate) async fn current(client: &Arc<dyn JobClient>, target: &Target) -> Result<(JobDetail, JobDetail), ClientError> {
    let whole = client.get(target.clone()).await?;
    let job = whole.at_hand();
    if job.run_id == whole.job.run_id {
        return Ok((whole.clone(), whole));
    }
    let step = client.get(Target::run(job.job_id.clone(), job.run_id)).await?;
    Ok((whole, step))
}

/// The steps of a sequence that have ended, a line each.
fn steps_ended(detail: &JobDetail) -> impl Iterator<Item = String> {
    let ended = |step: &StepDetail| {
        let (job, status) = (step.job.as_ref()?, step.status?);
        Some(format!("{} {}: {}", job.job_id, step.name, status.as_str()))
    };
    detail.steps.iter().filter_map(ended)
}

/// What an open job waits for.
fn holds(detail: &JobDetail, status: &Presence, limits: &Throttles, by: By, now: Timestamp) -> Vec<Hold> {
    let job = &detail.job;
    if !job.state.is_open() {
        return Vec::new();
    }
    let mut holds = Vec::new();
    if let Some(pause) = &job.paused {
        holds.push(Hold::new(Kind::Paused, job.job_id.to_string(), format!("{} is paused {}", job.job_id, render::paused(pause))));
    }
    let is_it = |pause: &&Pause| match pause.kind {
        PauseKind::Activity => pause.name == job.activity,
        PauseKind::Tenant => pause.name == job.tenant,
    };
    if job.state != JobState::Running {
        for pause in status.pauses.iter().filter(is_it) {
            let (kind, name) = (pause.kind.as_str(), &pause.name);
            let why = pause.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let text = format!("{kind} {name} is paused{why}; let it go on with: iolaus resume {kind} {}", shell_word(name));
            holds.push(Hold::new(Kind::Paused, format!("{kind} {name}"), text));
        }
    }
    let live = |hold: &&TenantHold| status.workers.iter().any(|worker| worker.live && worker.name == hold.worker);
    if job.state == JobState::Available && by == By::Others {
        for hold in status.holds.iter().filter(|hold| hold.tenant == job.tenant).filter(live) {
            let TenantHold { tenant, worker, reason, since, .. } = hold;
            let since = timestamp::format(*since);
            let text = format!("worker {worker} takes no job of tenant {tenant} since {since}, and goes on by itself: {reason}");
            holds.push(Hold::new(Kind::TenantHeld, worker, text));
        }
    }
    let (id, due) = (&job.job_id, timestamp::format(job.run_at));
    match (job.state, detail.failures.last()) {
        (JobState::Scheduled, _) if job.run_at > now => {
            holds.push(Hold::new(Kind::Due, due.clone(), format!("{id} waits until it is due, at {due}")));
        }
        (JobState::Retryable, Some(failed)) if job.run_at > now => {
            let why = format!("attempt {} failed: {}{}", failed.attempt, failed.failure.message, hint(failed));
            holds.push(Hold::new(Kind::Due, due.clone(), format!("{id} waits for its next attempt, at {due}; {why}")));
        }
        (JobState::Running, _) if by == By::Us => holds.extend(holder(job, status)),
        _ => {}
    }
    if by == By::Others && job.state != JobState::Running && !status.is_executed(job.job_id.as_str()) {
        holds.extend(no_worker(status, &job.activity, &job.tenant).map(|(text, hint)| {
            let text = if hint == START { format!("{text}; start one with: {START}") } else { format!("{text}; {hint}") };
            Hold::new(Kind::NoWorker, "", text)
        }));
    }
    if holds.is_empty() && job.state == JobState::Available {
        let within = match limits.keys_of(&job.activity, &job.tenant) {
            keys if keys.is_empty() => String::new(),
            keys => format!(", within {}", keys.join(" and ")),
        };
        holds.push(Hold::new(Kind::Busy, "", format!("{id} is due and waits for a worker to have a free slot for it{within}")));
    }
    holds
}

/// The worker of another process that holds a job.
fn holder(job: &Job, status: &Presence) -> Option<Hold> {
    let name = job.worker.as_ref().filter(|name| !Host::is_worker_of_this_process(name))?;
    let worker = status.workers.iter().find(|worker| &worker.name == name)?;
    let id = &job.job_id;
    Some(if worker.live {
        Hold::new(Kind::Held, name, format!("{id} is held by the live worker {name}; its verdict is waited for here"))
    } else {
        let last = timestamp::format(worker.last_beat);
        Hold::new(
            Kind::Silent,
            name,
            format!("{id} is held by worker {name}, silent since {last}; it is taken over once that is dead"),
        )
    })
}

/// The hint of a failed attempt, to be added to what is said of it.
fn hint(failed: &AttemptFailure) -> String {
    failed.failure.suggested_action.as_ref().map(|hint| format!("; hint: {hint}")).unwrap_or_default()
}

/// How an open job goes, in a line.
fn goes(detail: &JobDetail) -> String {
    let job = &detail.job;
    let more = match (job.state, &detail.progress, detail.failures.last()) {
        (JobState::Retryable, _, Some(failed)) => {
            let next = render::moment(Some(job.run_at));
            format!("; attempt {} failed: {}; next at {next}{}", failed.attempt, failed.failure.message, hint(failed))
        }
        (JobState::Running, Some(progress), _) => format!(", attempt {}, {progress}", job.attempts),
        (JobState::Running, None, _) => format!(", attempt {}", job.attempts),
        _ => String::new(),
    };
    format!("{}: {}{more}", job.job_id, job.state)
}

/// Shows a verdict, or that there is none yet, and gives the exit code.
pub(crate) async fn conclude(
    client: &Arc<dyn JobClient>,
    out: Out,
    enqueued: &Enqueued,
    verdict: Option<VerdictRecord>,
) -> anyhow::Result<Exit> {
    let concluded = |verdict: &VerdictRecord| {
        out.outcome(&Answered::new(verdict, enqueued), || render::verdict(verdict, out.has_colour()));
        Exit::of_status(verdict.status)
    };
    if let Some(verdict) = verdict {
        return Ok(concluded(&verdict));
    }
    let detail = client.get(Target::run(enqueued.job_id.clone(), enqueued.run_id)).await?;
    if let Some(verdict) = &detail.verdict {
        return Ok(concluded(verdict));
    }
    out.outcome(&Answered::new(&detail.job, enqueued), || render::detail(&detail, out.has_colour()));
    out.note(&format!(
        "not yet: the job is stored and open; ask again with: iolaus jobs wait {}",
        shell_word(detail.job.job_id.as_str())
    ));
    Ok(Exit::NotYet)
}

/// Refuses to continue when no live worker takes jobs of an activity and a tenant.
pub(crate) async fn require_worker(client: &Arc<dyn JobClient>, activity: &str, tenant: &str) -> anyhow::Result<()> {
    match no_worker(&client.presence().await?, activity, tenant) {
        None => Ok(()),
        Some((problem, hint)) => Err(Problem::unusable(problem).hint(hint).into()),
    }
}

/// That no live worker takes jobs of an activity and a tenant, and a hint.
fn no_worker(status: &Presence, activity: &str, tenant: &str) -> Option<(String, String)> {
    if status.missing(activity, tenant)? == Missing::Tenant {
        let live = status.live().filter_map(|worker| worker.tenants.as_deref());
        let served = live.flatten().map(String::as_str).collect::<BTreeSet<_>>();
        let served = if served.is_empty() { "none".to_owned() } else { served.into_iter().collect::<Vec<_>>().join(", ") };
        let problem = format!("no live worker on {} has an address and credentials for tenant {tenant}", status.place);
        let hint = format!("the workers serve {served}; set tenants.{tenant} in the configuration of a worker and restart it");
        return Some((problem, hint));
    }
    let runs = |worker: &&WorkerStatus| worker.activities.iter().any(|name| name == activity);
    let silent = status.workers.iter().filter(|worker| !worker.live && worker.job_id.is_none()).rfind(runs);
    let silent = silent.map(|worker| {
        let last = timestamp::format(worker.last_beat);
        format!(" ({} is registered, and silent since {last})", worker.name)
    });
    let problem = format!("no live worker runs {activity} on {}{}", status.place, silent.unwrap_or_default());
    Some((problem, START.to_owned()))
}

#[cfg(test)]
mod tests;
