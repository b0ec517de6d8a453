//! The job-lifecycle verbs on the embedded host.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iolaus_activities::{Clock as _, MESSAGE_LIMIT, VerdictRecord, shell_word};

use super::store::{self, Admission, JobRows, Retried, RetryCursor};
use super::{Embedded, Severity, StoreError, wal};
use crate::client::{
    BrokenRow, Cancelled, ClientError, Enqueued, Health, HostStatus, JobClient, JobDetail, JobPage, ListFilter, PauseKind,
    Presence, RetryFilter, RetryPage, Target, checks,
};
use crate::job::{NewJob, Refused, RunId, limits};
use crate::telemetry;

/// A write of unknown fate is sent again this often, with the same ids.
const REPEATS: usize = 3;

pub(super) struct EmbeddedClient {
    host: Arc<Embedded>,
}

impl EmbeddedClient {
    pub(super) fn new(host: Arc<Embedded>) -> Self {
        Self { host }
    }

    fn fail(&self, error: StoreError) -> ClientError {
        self.host.unavailable(error)
    }

    /// Stores jobs in one transaction. What may have been kept is sent again with the same ids.
    async fn store(&self, jobs: Vec<NewJob>) -> Result<Vec<Result<Enqueued, ClientError>>, ClientError> {
        let rows = jobs.into_iter().map(JobRows::new).collect::<Result<Vec<_>, _>>().map_err(|error| self.fail(error))?;
        let rows = Arc::new(rows);
        let began = self.host.clock.monotonic();
        let sent = |error| self.sent(&rows, began, error);
        let mut repeats = 0;
        let admissions = loop {
            match self.host.store.enqueue(&rows).await {
                Err(error) if error.is_unknown() && repeats < REPEATS => repeats += 1,
                Err(error) => {
                    sent(Some(if matches!(error, StoreError::Overloaded { .. }) { "overloaded" } else { "unavailable" }));
                    return Err(self.fail(error));
                }
                Ok(admissions) => break admissions,
            }
        };
        sent(None);
        self.host.maintain().await;
        let answer = |(rows, admission): (&JobRows, Admission)| {
            let job_id = rows.job.job_id.clone();
            match admission {
                Admission::Open { run_id, .. } => Ok(Enqueued::opened(job_id, run_id)),
                Admission::Existing { run_id, input_differs, .. } => Ok(Enqueued { job_id, run_id, existing: true, input_differs }),
                Admission::Other(other) => Err(ClientError::OtherJob(other)),
                Admission::Taken { run_id, state } => Err(ClientError::Conflict { job_id, run_id, state }),
            }
        };
        Ok(rows.iter().zip(admissions).map(answer).collect())
    }

    /// Counts what was asked to be stored, by activity.
    fn sent(&self, rows: &[JobRows], began: Duration, error: Option<&'static str>) {
        let took = self.host.clock.monotonic().saturating_sub(began);
        let mut jobs: BTreeMap<&str, u64> = BTreeMap::new();
        for rows in rows {
            *jobs.entry(&rows.job.activity).or_default() += 1;
        }
        for (activity, jobs) in jobs {
            self.host.options.metrics.sent(activity, jobs, took, error);
        }
    }

    async fn find(&self, target: Target) -> Result<i64, ClientError> {
        let job_id = target.job_id.clone();
        let found = self.host.store.read(move |conn| store::find(conn, &target)).await;
        found.map_err(|error| self.fail(error))?.ok_or(ClientError::NotFound(job_id))
    }
}

#[async_trait]
impl JobClient for EmbeddedClient {
    async fn enqueue(&self, job: NewJob) -> Result<Enqueued, ClientError> {
        self.store(vec![job]).await?.pop().unwrap_or_else(|| Err(self.fail(StoreError::Closed)))
    }

    async fn enqueue_many(&self, jobs: Vec<NewJob>) -> Result<Vec<Result<Enqueued, ClientError>>, ClientError> {
        self.store(jobs).await
    }

    async fn get(&self, target: Target) -> Result<JobDetail, ClientError> {
        let job_id = target.job_id.clone();
        let detail = self.host.store.read(move |conn| store::detail(conn, &target)).await;
        detail.map_err(|error| self.fail(error))?.ok_or(ClientError::NotFound(job_id))
    }

    async fn wait(&self, target: Target) -> Result<VerdictRecord, ClientError> {
        self.host.look_after();
        let job_id = target.job_id.clone();
        let id = self.find(target).await?;
        loop {
            let closed = self.host.store.hub().wait_for(id);
            let read = self.host.store.read(move |conn| Ok((store::is_open(conn, id)?, store::verdict(conn, id)?)));
            match read.await.map_err(|error| self.fail(error))? {
                (_, Some(verdict)) => return Ok(verdict),
                (false, None) => return Err(ClientError::NotFound(job_id)),
                (true, None) => {}
            }
            // Closed or not, the file says which.
            closed.await.ok();
        }
    }

    async fn list(&self, filter: ListFilter, limit: usize, cursor: Option<String>) -> Result<JobPage, ClientError> {
        checks::page(limit)?;
        let before = cursor
            .map(|cursor| cursor.parse().map_err(|_| Refused::new("cursor", "is not one that a list gave out")))
            .transpose()?;
        let page = self.host.store.read(move |conn| store::list(conn, &filter, limit, before)).await;
        page.map_err(|error| self.fail(error))
    }

    async fn cancel(&self, target: Target, reason: Option<String>) -> Result<Cancelled, ClientError> {
        checks::text("reason", reason.as_deref(), MESSAGE_LIMIT)?;
        let job_id = target.job_id.clone();
        let cancelled = self.host.store.write(move |tx| tx.cancel(&target, reason.clone())).await;
        cancelled.map_err(|error| self.fail(error))?.ok_or(ClientError::NotFound(job_id))
    }

    async fn retry(&self, target: Target, accept_duplicate: bool) -> Result<Enqueued, ClientError> {
        let job_id = target.job_id.clone();
        let run_id = RunId::generate(self.host.clock.now());
        let trace = telemetry::context_of(&tracing::Span::current());
        let retried = self.host.store.write(move |tx| tx.retry(&target, run_id, trace.clone(), accept_duplicate)).await;
        match retried.map_err(|error| self.fail(error))? {
            Retried::Open(run_id) => Ok(Enqueued::opened(job_id, run_id)),
            Retried::NotFound => Err(ClientError::NotFound(job_id)),
            Retried::StillOpen => Err(ClientError::StillOpen(job_id)),
            Retried::Step { sequence } => {
                let word = shell_word(&sequence);
                let reason = format!("`{job_id}` is a step, and is run again with its sequence: iolaus jobs retry {word}");
                Err(Refused::new("job_id", reason).into())
            }
            Retried::NeedsAcceptDuplicate(instead) => Err(ClientError::NeedsAcceptDuplicate { job_id, instead }),
        }
    }

    async fn retry_matching(&self, filter: RetryFilter, cursor: Option<String>) -> Result<RetryPage, ClientError> {
        checks::dead(&filter)?;
        let cursor = cursor.map(|cursor| retry_cursor(&cursor)).transpose()?;
        let retried = self.host.store.write(move |tx| tx.retry_matching(&filter, cursor)).await;
        let (mut page, next) = retried.map_err(|error| self.fail(error))?;
        page.next_cursor = next.map(|next| format!("{}-{}", next.after, next.up_to));
        Ok(page)
    }

    async fn pause(&self, kind: PauseKind, name: String, reason: Option<String>) -> Result<(), ClientError> {
        checks::text("name", Some(&name), limits::NAME)?;
        checks::text("reason", reason.as_deref(), MESSAGE_LIMIT)?;
        let paused = self.host.store.write(move |tx| tx.pause(kind, &name, reason.as_deref())).await;
        paused.map_err(|error| self.fail(error))
    }

    async fn resume(&self, kind: PauseKind, name: String) -> Result<bool, ClientError> {
        self.host.store.write(move |tx| tx.resume(kind, &name)).await.map_err(|error| self.fail(error))
    }

    async fn presence(&self) -> Result<Presence, ClientError> {
        let (place, now) = (self.place(), self.host.clock.now());
        let presence = self.host.store.read(move |conn| {
            Ok(Presence {
                place,
                now,
                workers: store::workers_status(conn, now)?,
                pauses: store::pauses(conn)?,
                holds: store::holds(conn)?,
            })
        });
        presence.await.map_err(|error| self.fail(error))
    }

    async fn check(&self) -> Result<Health, ClientError> {
        let (path, limit) = (self.host.store.path().to_owned(), self.host.options.wal_warn_bytes);
        let wall_clock_ahead = self.host.clock.wall_is_ahead();
        let looked = self.host.store.read(move |conn| {
            let (sampled, found) = store::sample(conn)?;
            let broken = found.into_iter().filter(|finding| finding.severity == Severity::Error).map(|finding| BrokenRow {
                code: finding.code,
                job_id: finding.job_id.unwrap_or_default(),
                run_id: finding.run_id.unwrap_or_default(),
                message: finding.message,
            });
            let (log, retention) = (Some(wal::look(&path, limit)), store::retention_of_workers(conn)?);
            Ok(Health { sampled, broken: broken.collect(), log, wall_clock_ahead, retention })
        });
        let health = looked.await.map_err(|error| self.fail(error))?;
        self.host.store.check_space().map_err(|error| self.fail(error))?;
        Ok(health)
    }

    async fn status(&self) -> Result<HostStatus, ClientError> {
        let presence = self.presence().await?;
        let status =
            self.host.store.read(move |conn| Ok(HostStatus::new(presence, store::counts(conn)?, store::oldest_due(conn)?)));
        status.await.map_err(|error| self.fail(error))
    }

    fn place(&self) -> String {
        self.host.store.path().display().to_string()
    }
}

fn retry_cursor(text: &str) -> Result<RetryCursor, Refused> {
    let parts = text.split_once('-').and_then(|(after, up_to)| Some((after.parse().ok()?, up_to.parse().ok()?)));
    let (after, up_to) = parts.ok_or_else(|| Refused::new("cursor", "is not one that a retry gave out"))?;
    Ok(RetryCursor { after, up_to })
}
