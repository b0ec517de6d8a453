//! Waiting for a verdict, as `enqueue --wait` and `jobs wait` do: bounded, with a word when nobody works.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::{Clock, VerdictRecord, shell_word};

use super::exit::{Exit, Problem};
use super::out::Out;
use super::render;
use super::signals::Signals;
use crate::client::{ClientError, JobClient, JobDetail, Pause, PauseKind, Target};
use crate::job::JobState;

/// After this long without a live worker, it is said.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at a job that somebody watches.
const LOOK: Duration = Duration::from_secs(1);
/// What helps when nobody works.
const START: &str = "iolaus worker";

/// Waits for verdicts through one client.
pub(crate) struct Waiting<'a> {
    pub(crate) client: &'a Arc<dyn JobClient>,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) out: Out,
    pub(crate) signals: &'a Signals,
    /// How long, at most.
    pub(crate) timeout: Option<Duration>,
}

impl Waiting<'_> {
    /// The verdict; None when the time is over or somebody asked this process to stop. The job goes on in any case.
    pub(crate) async fn verdict(&self, target: &Target, activity: Option<&str>) -> Result<Option<VerdictRecord>, ClientError> {
        let over = async {
            match self.timeout {
                Some(timeout) => self.clock.deadline(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            verdict = self.client.wait(target.clone()) => verdict.map(Some),
            () = over => Ok(None),
            () = self.signals.stopped() => Ok(None),
            never = self.tell(target, activity) => match never {},
        }
    }

    async fn tell(&self, target: &Target, activity: Option<&str>) -> Infallible {
        self.clock.sleep(PATIENCE).await;
        if let Some(activity) = activity
            && let Some(problem) = nobody(self.client, activity).await
        {
            self.out.note(&format!("{problem}; start one with: {START}"));
        }
        watch(self.client, self.clock, self.out, target).await
    }
}

/// Tells what becomes of an open job, for as long as somebody polls this: what holds it, and, to a person, how it goes.
pub(crate) async fn watch(client: &Arc<dyn JobClient>, clock: &Arc<dyn Clock>, out: Out, target: &Target) -> Infallible {
    clock.sleep(LOOK).await;
    if let (Ok(detail), Ok(status)) = (client.get(target.clone()).await, client.status().await) {
        let holds = |pause: &&Pause| match pause.kind {
            PauseKind::Activity => pause.name == detail.job.activity,
            PauseKind::Tenant => pause.name == detail.job.tenant,
        };
        for pause in status.pauses.iter().filter(holds).filter(|_| detail.job.state.is_open()) {
            let (kind, name) = (pause.kind.as_str(), &pause.name);
            out.note(&format!("{kind} {name} is paused; let it go on with: iolaus resume {kind} {}", shell_word(name)));
        }
    }
    let mut last = String::new();
    while out.is_watched() {
        if let Ok(detail) = client.get(target.clone()).await {
            let line = goes(&detail);
            if line != last {
                out.progress(&render::plain_line(&line));
                last = line;
            }
        }
        clock.sleep(LOOK).await;
    }
    std::future::pending().await
}

/// How an open job goes, in a line.
fn goes(detail: &JobDetail) -> String {
    let job = &detail.job;
    let more = match (job.state, &detail.progress, detail.failures.last()) {
        (JobState::Retryable, _, Some(failed)) => {
            format!("; attempt {} failed: {}; next at {}", failed.attempt, failed.failure.message, render::moment(Some(job.run_at)))
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
    target: &Target,
    verdict: Option<VerdictRecord>,
) -> anyhow::Result<Exit> {
    if let Some(verdict) = verdict {
        out.data(&verdict, || render::verdict(&verdict, out.has_colour()))?;
        return Ok(Exit::of_status(verdict.status));
    }
    let detail = client.get(target.clone()).await?;
    if let Some(verdict) = &detail.verdict {
        out.data(verdict, || render::verdict(verdict, out.has_colour()))?;
        return Ok(Exit::of_status(verdict.status));
    }
    out.data(&detail.job, || render::detail(&detail, out.has_colour()))?;
    out.note(&format!(
        "not yet: the job is stored and open; ask again with: iolaus jobs wait {}",
        shell_word(detail.job.job_id.as_str())
    ));
    Ok(Exit::NotYet)
}

/// Refuses to go on when no live worker runs an activity.
pub(crate) async fn require_worker(client: &Arc<dyn JobClient>, activity: &str) -> anyhow::Result<()> {
    match nobody(client, activity).await {
        None => Ok(()),
        Some(problem) => Err(Problem::unusable(problem).hint(START).into()),
    }
}

async fn nobody(client: &Arc<dyn JobClient>, activity: &str) -> Option<String> {
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => return Some(format!("it is unknown whether a worker is there: {error}")),
    };
    let works = status.workers.iter().any(|worker| worker.live && worker.activities.iter().any(|name| name == activity));
    (!works).then(|| format!("no live worker runs {activity} on {}", client.place()))
}
