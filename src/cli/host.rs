//! The one file of the command line that knows which host there is: opens it, and puts activities, tenants and the door together.

#[cfg(feature = "temporal")]
mod cluster;
mod queue_file;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Clock, VerdictRecord, duration, shipped};

use super::exit::Problem;
use super::signals::Signals;
use super::{App, doctor, execute};
use crate::client::{ClientError, Enqueued, JobClient, Target};
use crate::config::{Config, HostKind};
use crate::embedded::{self, Embedded, EmbeddedOptions, WorkerOptions};
use crate::executor::{self, CancelPlans};
use crate::http::{self, Bound, Server};
use crate::intake::{Intake, JobRequest};
use crate::job::{NewJob, SEQUENCE};
use crate::sequence::{self, SequenceRequest};
use crate::telemetry::{self, Known, Metrics};

/// An open queue.
pub(crate) struct Host {
    kind: Kind,
    client: Arc<dyn JobClient>,
    /// The clock that its jobs run by.
    clock: Arc<dyn Clock>,
}

enum Kind {
    Embedded(Arc<Embedded>),
    #[cfg(feature = "temporal")]
    Temporal(Arc<crate::temporal::Temporal>),
}

/// A worker on whichever host.
pub(crate) enum Worker {
    Embedded(embedded::Worker),
    #[cfg(feature = "temporal")]
    Temporal(crate::temporal::Worker),
}

impl Worker {
    /// Ends when the worker cannot go on, with the reason.
    pub(crate) async fn failed(&self) -> ClientError {
        match self {
            Self::Embedded(worker) => worker.failed().await,
            #[cfg(feature = "temporal")]
            Self::Temporal(worker) => worker.failed().await,
        }
    }

    /// Takes no more jobs, lets attempts finish within the deadline, and gives the rest back.
    pub(crate) async fn drain(self) -> Result<(), ClientError> {
        match self {
            Self::Embedded(worker) => worker.drain().await,
            #[cfg(feature = "temporal")]
            Self::Temporal(worker) => worker.drain().await,
        }
    }

    fn readiness(&self) -> Arc<dyn http::Readiness> {
        match self {
            Self::Embedded(worker) => Arc::new(OfWorker(worker.readiness())),
            #[cfg(feature = "temporal")]
            Self::Temporal(worker) => Arc::new(cluster::OfWorker(worker.readiness())),
        }
    }
}

/// How `execute` ended.
pub(crate) enum Executed {
    /// The execution is closed.
    Verdict(Box<VerdictRecord>),
    /// The job is in the queue; this says why it is not closed.
    NotYet(String),
}

impl App {
    /// The door, which knows the activities, their configuration and the tenants' names. It needs neither queue nor tenant.
    pub(crate) fn intake(&self) -> anyhow::Result<Intake> {
        let registry = shipped(&Tenants::none());
        let known: Vec<&str> = registry.infos().map(|info| info.name).collect();
        if let Some(name) = self.config.activities.keys().find(|name| !known.contains(&name.as_str())) {
            let problem = Problem::usage(format!("configuration section [activities.{name}]: there is no such activity"));
            return Err(problem.hint(format!("the activities are {}", known.join(", "))).into());
        }
        if let Some(name) = self.config.limits.activities.keys().find(|name| !known.contains(&name.as_str())) {
            let problem = Problem::usage(format!("configuration section [limits.activities.{name}]: there is no such activity"));
            return Err(problem.hint(format!("the activities are {}", known.join(", "))).into());
        }
        let tenants = self.config.tenants.keys().cloned().collect();
        Ok(Intake::new(&registry, self.config.activities.clone(), tenants))
    }

    /// Lets a request through the door, or refuses it. The job carries the trace of its `send` span.
    pub(crate) fn admit(&self, intake: &Intake, request: JobRequest) -> anyhow::Result<NewJob> {
        let span = telemetry::send_span(&request.activity, request.tenant.as_deref().unwrap_or("default"));
        let job = intake.admit(request, telemetry::context_of(&span), self.clock.now())?;
        span.record(telemetry::names::attribute::JOB_ID, job.job_id.as_str());
        Ok(job)
    }

    /// The same for a sequence.
    pub(crate) fn admit_sequence(&self, intake: &Intake, request: SequenceRequest) -> anyhow::Result<NewJob> {
        let span = telemetry::send_span(SEQUENCE, request.tenant.as_deref().unwrap_or("default"));
        let job = sequence::admit(intake, request, telemetry::context_of(&span), self.clock.now())?;
        span.record(telemetry::names::attribute::JOB_ID, job.job_id.as_str());
        Ok(job)
    }

    /// The tenants.
    pub(crate) fn tenants(&self) -> anyhow::Result<Arc<Tenants>> {
        self.tenants_by(self.clock.clone())
    }

    /// The same for what runs by another clock: intents of jobs and times of a tenant are compared.
    fn tenants_by(&self, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<Tenants>> {
        Ok(Tenants::new(self.config.tenants.clone(), clock)?)
    }

    /// Refuses to work jobs of a tenant that cannot be asked. Whoever only enqueues needs no credential.
    pub(crate) fn require_tenant(&self, name: &str) -> anyhow::Result<()> {
        match self.tenants()?.get(name)?.unset() {
            None => Ok(()),
            Some(setting) => {
                let problem = Problem::usage(format!("configuration key `tenants.{name}.{setting}` is not set"));
                Err(problem.hint(how_to_set(name, setting)).into())
            }
        }
    }

    /// The same, where a job that is executed is worked in this process.
    pub(crate) fn require_tenant_here(&self, name: &str) -> anyhow::Result<()> {
        if self.config.host.kind == HostKind::Embedded { self.require_tenant(name) } else { Ok(()) }
    }

    /// The same for a worker, which needs one tenant at least.
    pub(crate) fn require_any_tenant(&self) -> anyhow::Result<()> {
        let tenants = self.tenants()?;
        let mut usable = tenants.names().filter_map(|name| tenants.get(name).ok()).filter(|tenant| tenant.unset().is_none());
        if usable.next().is_some() { Ok(()) } else { self.require_tenant("default") }
    }

    /// The queue, opened.
    pub(crate) fn open(&self) -> Result<Host, ClientError> {
        Host::open(&self.config, self.clock.clone(), self.metrics())
    }

    /// What is counted, under the names of this build's activities and of the tenants that are configured.
    fn metrics(&self) -> Metrics {
        let registry = shipped(&Tenants::none());
        let activities = registry.infos().map(|info| info.name).chain([SEQUENCE]);
        let known = Known::new(activities, self.config.tenants.keys().map(String::as_str));
        Metrics::new(&self.meters, known.with_max_tenants(self.config.metrics.max_tenants))
    }
}

impl Host {
    fn open(config: &Config, clock: Arc<dyn Clock>, metrics: Metrics) -> Result<Self, ClientError> {
        if config.host.kind == HostKind::Temporal {
            return Self::open_cluster(config, clock, metrics);
        }
        let options = EmbeddedOptions {
            allow_network_filesystem: config.database.allow_network_filesystem,
            worker_timeout: config.worker.worker_timeout,
            retention: config.database.retention,
            max_waiting_bytes: config.database.max_waiting_bytes,
            enqueue_timeout: config.database.enqueue_timeout,
            write_timeout: config.database.write_timeout,
            max_deaths: config.worker.max_deaths,
            wal_warn_bytes: config.database.wal_warn_bytes,
            metrics,
            cancel_plans: CancelPlans::of(&shipped(&Tenants::none())),
            ..EmbeddedOptions::at(config.database.path.clone())
        };
        let embedded = Embedded::open(options, clock)?;
        let (client, clock) = (embedded.client(), embedded.clock());
        Ok(Self { kind: Kind::Embedded(embedded), client, clock })
    }

    #[cfg(feature = "temporal")]
    fn open_cluster(config: &Config, clock: Arc<dyn Clock>, metrics: Metrics) -> Result<Self, ClientError> {
        let temporal = crate::temporal::Temporal::new(cluster::options(config, metrics)?, clock.clone());
        let client = temporal.client();
        Ok(Self { kind: Kind::Temporal(temporal), client, clock })
    }

    /// The configuration refuses it before.
    #[cfg(not(feature = "temporal"))]
    fn open_cluster(_: &Config, _: Arc<dyn Clock>, _: Metrics) -> Result<Self, ClientError> {
        Err(ClientError::Unsupported { what: "a temporal host".to_owned(), host: "embedded" })
    }

    /// The verbs.
    pub(crate) fn client(&self) -> &Arc<dyn JobClient> {
        &self.client
    }

    /// Refuses to work the jobs of another user's queue in this process.
    pub(crate) fn check_may_work(&self) -> Result<(), ClientError> {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.check_may_work(),
            #[cfg(feature = "temporal")]
            Kind::Temporal(_) => Ok(()),
        }
    }

    /// Whether a worker of this name was started on this machine, or in this container.
    pub(crate) fn is_worker_here(name: &str) -> bool {
        executor::is_worker_here(name)
    }

    /// Whether a worker of this name, `host-pid-number`, is of this very process.
    pub(crate) fn is_worker_of_this_process(name: &str) -> bool {
        let process = name.rsplit('-').nth(1).and_then(|process| process.parse().ok());
        Self::is_worker_here(name) && process == Some(std::process::id())
    }

    /// Starts a worker for every activity of this build.
    pub(crate) async fn start_worker(&self, app: &App) -> anyhow::Result<Worker> {
        let tenants = app.tenants_by(self.clock.clone())?;
        warn_of_unserved(&tenants);
        let (configured, most) = (app.config.tenants.len(), app.config.metrics.max_tenants);
        if configured > most {
            let hint = "raise metrics.max_tenants";
            tracing::warn!(
                hint,
                "{most} of {configured} tenants have metrics of their own; the rest is counted as tenant=\"other\""
            );
        }
        for (problem, hint) in doctor::permissions::problems(&app.config) {
            tracing::warn!(hint, "{problem}");
        }
        Ok(match &self.kind {
            Kind::Embedded(embedded) => {
                Worker::Embedded(embedded::Worker::start(embedded, worker_options(&app.config, tenants)).await?)
            }
            #[cfg(feature = "temporal")]
            Kind::Temporal(temporal) => {
                if !app.config.limits.activities.is_empty() || !app.config.limits.tenants.is_empty() {
                    tracing::warn!("the section [limits] is not honoured on a cluster, whose task queues have limits of their own");
                }
                let options = cluster::worker_options(&app.config, tenants);
                Worker::Temporal(crate::temporal::Worker::start(temporal, options).await?)
            }
        })
    }

    /// Takes the address of the probes, where the configuration names one. Before a worker starts, so that none says that it is ready and
    /// then ends.
    pub(crate) fn bind_http(app: &App) -> anyhow::Result<Option<Bound>> {
        let http = &app.config.http;
        let Some(listen) = http.listen else { return Ok(None) };
        let limits = http::Limits {
            max_connections: http.max_connections,
            header_timeout: http.header_timeout,
            request_timeout: http.request_timeout,
            idle_timeout: http.idle_timeout,
        };
        match Bound::to(listen, limits) {
            Ok(bound) => Ok(Some(bound)),
            Err(error) if !http.chosen => {
                tracing::warn!(%listen, %error, "no probes and no metrics here: set http.listen to a free address, or to \"\"");
                Ok(None)
            }
            Err(error) => {
                let problem =
                    Problem::unusable(format!("configuration key `http.listen`: {listen} cannot be listened on: {error}"));
                Err(problem.hint("choose a free address, or \"\" for none").into())
            }
        }
    }

    /// Answers an operator's machines about a worker.
    pub(crate) fn serve_http(app: &App, bound: Bound, worker: &Worker) -> Server {
        let server = bound.serve(worker.readiness(), app.meters.clone(), app.clock.clone());
        tracing::info!(address = %server.address(), "answering /livez, /readyz and /metrics");
        server
    }

    /// Works an open job here, until it is closed or this process is asked to stop. A cluster's workers work it there.
    pub(crate) async fn execute(&self, app: &App, enqueued: &Enqueued, signals: Signals) -> anyhow::Result<Executed> {
        let target = Target::run(enqueued.job_id.clone(), enqueued.run_id);
        match &self.kind {
            Kind::Embedded(embedded) => {
                let options = worker_options(&app.config, app.tenants_by(self.clock.clone())?);
                let (tenants, why) = (options.tenants.clone(), OnceLock::new());
                let stop = async {
                    let stopped = self.stopped(app, &target, &tenants, &signals).await;
                    why.set(stopped.unwrap_or_else(|| "this process was asked to stop and gave the job back".to_owned())).ok();
                };
                Ok(match embedded::work(embedded, options, enqueued, stop).await? {
                    embedded::Executed::Verdict(verdict) => Executed::Verdict(verdict),
                    embedded::Executed::NotYet => Executed::NotYet(why.into_inner().unwrap_or_default()),
                })
            }
            #[cfg(feature = "temporal")]
            Kind::Temporal(_) => {
                let tenants = Tenants::none();
                tokio::select! {
                    biased;
                    verdict = self.client.wait(target.clone()) => Ok(Executed::Verdict(Box::new(verdict?))),
                    why = self.stopped(app, &target, &tenants, &signals) => {
                        let asked = "this process was asked to stop; the cluster's workers continue";
                        Ok(Executed::NotYet(why.unwrap_or_else(|| asked.to_owned())))
                    }
                }
            }
        }
    }

    /// Ends when this process should stop to wait for a job: it was asked to, or no attempt reaches the tenant, which is then the answer.
    async fn stopped(&self, app: &App, target: &Target, tenants: &Tenants, signals: &Signals) -> Option<String> {
        let limit = app.config.worker.unreached_timeout;
        tokio::select! {
            biased;
            () = signals.stopped() => None,
            failure = execute::unreached(&self.client, target, tenants, limit, app.clock.as_ref()) => {
                let hint = failure.suggested_action.map(|hint| format!("; hint: {hint}")).unwrap_or_default();
                let limit = duration::format(limit);
                Some(format!("no attempt reached the tenant for {limit}: {}{hint}; the job is open in the queue", failure.message))
            }
        }
    }

    /// Whether what was just stored may be missing in a list.
    pub(crate) fn lists_lag(&self) -> bool {
        !matches!(self.kind, Kind::Embedded(_))
    }

    /// Whether jobs that are executed here are worked in this process.
    pub(crate) fn works_here(&self) -> bool {
        matches!(self.kind, Kind::Embedded(_))
    }
}

/// Names what is unusual about a tenant's settings, and the tenants whose jobs this worker leaves to others. The section `default` is always there, and may stay empty.
fn warn_of_unserved(tenants: &Tenants) {
    for tenant in tenants.names().filter_map(|name| tenants.get(name).ok()) {
        let (name, is_empty) = (tenant.name(), tenant.settings().base_url.trim().is_empty());
        if let Some(warning) = tenant.warning() {
            tracing::warn!(tenant = name, "{warning}");
        }
        if let Some(setting) = tenant.unset().filter(|_| !(name == "default" && is_empty)) {
            let hint = how_to_set(name, setting);
            tracing::warn!(tenant = name, hint, "tenants.{name}.{setting} is not set: this worker serves no job of this tenant");
        }
    }
}

/// A worker, as the probes see it.
struct OfWorker(embedded::Readiness);

#[async_trait]
impl http::Readiness for OfWorker {
    async fn ready(&self) -> Result<(), String> {
        self.0.ready().await
    }
}

/// How the setting of a tenant is set.
pub(crate) fn how_to_set(tenant: &str, setting: &str) -> String {
    let vendors = match (tenant, setting) {
        ("default", "base_url") => "set ATLAN_BASE_URL=https://acme.atlan.com, or",
        ("default", _) => "set ATLAN_API_KEY, or ATLAN_OAUTH_CLIENT_ID and ATLAN_OAUTH_CLIENT_SECRET, or",
        _ => "set",
    };
    let file = if setting == "api_key" { " (or api_key_file)" } else { "" };
    format!("{vendors} {setting}{file} in the section [tenants.{tenant}] of the configuration; iolaus doctor checks it")
}

fn worker_options(config: &Config, tenants: Arc<Tenants>) -> WorkerOptions {
    let worker = &config.worker;
    WorkerOptions {
        registry: shipped(&tenants),
        tenants,
        throttles: Arc::new(config.limits.clone()),
        slots_work: worker.slots_work,
        slots_waits: worker.slots_waits,
        drain_deadline: worker.drain_deadline,
        cancel_grace: worker.cancel_grace,
        stall_after: worker.stall_after,
    }
}
