//! Names of spans, attributes and events. They stand in dashboards and alerts: changed as rarely as a column name.

/// The instrumentation scope, and the default `service.name`.
pub const SERVICE: &str = "iolaus";

/// The event of a closed job, which carries its whole verdict.
pub const VERDICT_EVENT: &str = "iolaus.job.verdict";
/// The log target of [`VERDICT_EVENT`], so that verdicts can be filtered on their own.
pub const VERDICT_TARGET: &str = "iolaus::verdict";

/// Attribute names: semantic conventions where they have one, `iolaus.` otherwise.
pub mod attribute {
    /// Always `iolaus`.
    pub const SYSTEM: &str = "messaging.system";
    /// `send` or `process`.
    pub const OPERATION_NAME: &str = "messaging.operation.name";
    /// `send` or `process`.
    pub const OPERATION_TYPE: &str = "messaging.operation.type";
    /// The activity.
    pub const DESTINATION: &str = "messaging.destination.name";
    /// The tenant's name.
    pub const TENANT: &str = "iolaus.tenant";
    /// The caller's business id.
    pub const JOB_ID: &str = "iolaus.job.id";
    /// The execution.
    pub const RUN_ID: &str = "iolaus.run.id";
    /// Which attempt, counted from 1.
    pub const ATTEMPT: &str = "iolaus.attempt";
    /// Seconds from being due to the start of an attempt.
    pub const WAIT: &str = "iolaus.job.wait.duration";
    /// How the attempt ended: `completed`, `retry_scheduled`, `discarded`, `timed_out`, `cancelled`, `lost`, `drained` or
    /// `tenant_held`.
    pub const OUTCOME: &str = "iolaus.outcome";
    /// An HTTP status or a failure code; only on failure.
    pub const ERROR_TYPE: &str = "error.type";
    /// The verdict's status.
    pub const STATUS: &str = "iolaus.status";
    /// Attempts started and counted.
    pub const ATTEMPTS: &str = "iolaus.attempts";
    /// The verdict as JSON.
    pub const VERDICT: &str = "iolaus.verdict";
    /// The trace that enqueueing started or joined.
    pub const TRACE_ID: &str = "trace_id";
    /// On metrics: the activity.
    pub const ACTIVITY: &str = "activity";
    /// On metrics: the tenant's name.
    pub const TENANT_NAME: &str = "tenant";
    /// On metrics: how the attempt ended, in the same words as [`OUTCOME`].
    pub const OUTCOME_NAME: &str = "outcome";
    /// On metrics: the verdict's status.
    pub const VERDICT_STATUS: &str = "verdict";
    /// On metrics: a job's state.
    pub const STATE: &str = "state";
    /// On metrics: `work` or `waits`.
    pub const SLOT_CLASS: &str = "slot_class";
    /// On metrics: what a claim brought: `jobs`, `empty` or `error`.
    pub const RESULT: &str = "result";
    /// On metrics: the name of a check.
    pub const CHECK: &str = "check";
    /// On metrics: whether the check passed.
    pub const PASSED: &str = "passed";
    /// On metrics: why a tenant's jobs wait: `operator` or `tenant`.
    pub const REASON: &str = "reason";
}

/// Values of `messaging.operation.name` and `.type`.
pub mod operation {
    /// A job is enqueued.
    pub const SEND: &str = "send";
    /// An attempt runs.
    pub const PROCESS: &str = "process";
    /// A worker is given a job.
    pub const RECEIVE: &str = "receive";
    /// The end of an attempt is stored.
    pub const ACK: &str = "ack";
}

/// Metrics: name, unit, description. Prometheus writes `_` for `.`, adds the unit `seconds`, and `_total` to counters.
pub mod metric {
    /// Name, unit, description.
    pub type Name = (&'static str, &'static str, &'static str);

    /// Jobs that were enqueued through this process.
    pub const SENT: Name = ("messaging.client.sent.messages", "{message}", "Jobs that were enqueued through this process");
    /// Jobs that were given to its worker, once for each attempt.
    pub const CONSUMED: Name =
        ("messaging.client.consumed.messages", "{message}", "Jobs that were given to the worker, once for each attempt");
    /// How long it took to store a job, and to store the end of an attempt.
    pub const OPERATION_DURATION: Name = (
        "messaging.client.operation.duration",
        "s",
        "How long it took to store a job (send) and to store the end of an attempt (ack), until it was durable",
    );
    /// How long attempts ran.
    pub const PROCESS_DURATION: Name = ("messaging.process.duration", "s", "How long attempts ran");
    /// How long jobs waited from being due to the start of an attempt.
    pub const WAIT_DURATION: Name =
        ("iolaus.job.wait.duration", "s", "How long jobs waited from being due to the start of an attempt");
    /// How long jobs took from being enqueued to their verdict.
    pub const JOB_DURATION: Name = ("iolaus.job.duration", "s", "How long jobs took from being enqueued to their verdict");
    /// Attempts that ended.
    pub const ATTEMPTS: Name = ("iolaus.job.attempts", "{attempt}", "Attempts that ended, by outcome");
    /// Jobs that were closed.
    pub const VERDICTS: Name = ("iolaus.job.verdicts", "{job}", "Jobs that were closed, by the status of their verdict");
    /// Checks that were answered.
    pub const CHECKS: Name = ("iolaus.check.verdicts", "{check}", "Checks of verdicts, by name and whether they passed");
    /// Looks for jobs.
    pub const CLAIMS: Name = ("iolaus.worker.claims", "{claim}", "Transactions that looked for jobs, by what they brought");
    /// When a look for jobs last worked.
    pub const CLAIM_TIME: Name = ("iolaus.worker.claim.time", "s", "Unix time of the last look for jobs that worked");
    /// Leases that this worker lost.
    pub const LEASES_LOST: Name = ("iolaus.lease.lost", "{lease}", "Attempts of this worker that lost their lease");
    /// Jobs that were taken from dead workers.
    pub const RESCUES: Name = ("iolaus.worker.rescues", "{job}", "Jobs that this process took from dead workers");
    /// Durable transactions.
    pub const COMMITS: Name = ("iolaus.store.commits", "{commit}", "Transactions of this process that became durable");
    /// How long they took.
    pub const COMMIT_DURATION: Name =
        ("iolaus.store.commit.duration", "s", "How long transactions of this process took until they were durable");
    /// How many operations they had.
    pub const COMMIT_SIZE: Name = ("iolaus.store.commit.size", "{operation}", "Operations of one transaction");
    /// The size of the write-ahead log.
    pub const WAL_SIZE: Name =
        ("iolaus.store.wal.size", "By", "Size of the write-ahead log; it grows while a reader holds an old state of the file");
    /// Jobs that stand in the queue.
    pub const JOBS: Name = ("iolaus.jobs", "{job}", "Jobs in the queue by state; the same in every process on the file");
    /// How long the oldest due job has waited.
    pub const OLDEST_AGE: Name = (
        "iolaus.jobs.oldest.age",
        "s",
        "How long the job that is due for longest has waited; the same in every process on the file",
    );
    /// Slots with an attempt.
    pub const SLOTS_USED: Name = ("iolaus.worker.slots.used", "{slot}", "Slots of this worker that run an attempt");
    /// All slots.
    pub const SLOTS_LIMIT: Name = ("iolaus.worker.slots.limit", "{slot}", "Slots of this worker");
    /// How long the oldest running job has been running.
    pub const RUNNING_AGE: Name = (
        "iolaus.job.running.age.max",
        "s",
        "How long ago the job that runs for longest was started first; the same in every process on the file",
    );
    /// Tenants and activities whose jobs wait.
    pub const TENANT_PAUSED: Name = (
        "iolaus.tenant.paused",
        "{tenant}",
        "Tenants whose jobs wait: by an operator's pause, or because the tenant let no one in; 1 for each that is named",
    );
}
