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
}

/// Values of `messaging.operation.name` and `.type`.
pub mod operation {
    /// A job is enqueued.
    pub const SEND: &str = "send";
    /// An attempt runs.
    pub const PROCESS: &str = "process";
}
