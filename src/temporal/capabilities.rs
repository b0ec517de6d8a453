//! What this host cannot do, or does otherwise than the embedded one. Each row has a test of its own.

/// A difference between the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// On the embedded host.
    pub embedded: &'static str,
    /// On a cluster.
    pub temporal: &'static str,
}

/// Every difference that a user can see.
pub const CAPABILITIES: &[Capability] = &[
    Capability {
        name: "finer_states",
        embedded: "lists filter by every state",
        temporal: "lists filter by open, completed, discarded and cancelled; a finer state is refused by name",
    },
    Capability {
        name: "list_by_tenant",
        embedded: "lists filter by tenant",
        temporal: "only where the namespace has a search attribute for it and temporal.tenant_attribute names it",
    },
    Capability {
        name: "lists_lag",
        embedded: "a list shows what was committed",
        temporal: "a list may be seconds behind; one job is shown as it is",
    },
    Capability {
        name: "pause",
        embedded: "an activity or a tenant can be paused",
        temporal: "refused by name; what the cluster's own tools pause is shown as paused, with the command that resumes it",
    },
    Capability {
        name: "run_id",
        embedded: "chosen by whoever enqueues",
        temporal: "chosen by the server; what was chosen here makes a repeated request one request",
    },
    Capability {
        name: "drain",
        embedded: "a drained attempt gives its number back",
        temporal: "a drain costs an attempt, worker.drained",
    },
    Capability {
        name: "held_tenant",
        embedded: "jobs of a tenant that cannot be asked wait and cost no attempt",
        temporal: "each try costs an attempt",
    },
    Capability {
        name: "undo_after_cancel",
        embedded: "a job that is cancelled between attempts, or whose worker dies then, gets one last attempt to undo",
        temporal: "the cluster closes it; the verdict says what was not undone",
    },
    Capability {
        name: "effects",
        embedded: "the jobs of one database know of each other's submissions",
        temporal: "the jobs of one worker process do, for as long as it lives",
    },
    Capability {
        name: "unknown_version",
        embedded: "an input of an unknown version waits for a worker that knows it",
        temporal: "it costs an attempt, activity.version_unknown, and is tried again",
    },
    Capability { name: "failures", embedded: "the newest failed attempts are kept", temporal: "the last failed attempt is kept" },
    Capability {
        name: "limits",
        embedded: "max_running and max_starts_per_second over all workers",
        temporal: "not honoured; the cluster's task queue limits are",
    },
    Capability {
        name: "workers",
        embedded: "a dead worker is known after worker_timeout",
        temporal: "known by its polls, which may be minutes old",
    },
    Capability {
        name: "sequence_ids",
        embedded: "a job and a sequence share one space of ids",
        temporal: "a workflow and an activity may have the same id; the activity is found first",
    },
    Capability {
        name: "steps",
        embedded: "a step is a job of its own",
        temporal: "a step is an activity of the sequence's workflow, shown from its history, and cannot be cancelled alone",
    },
    Capability {
        name: "sequence_cancel",
        embedded: "a sequence that waits is cancelled at once",
        temporal: "a worker has to live to cancel it",
    },
    Capability {
        name: "sequences_in_lists",
        embedded: "a sequence and its steps are in the list",
        temporal: "a list shows sequences behind the single jobs, and no steps",
    },
    Capability { name: "oldest_due", embedded: "status tells the oldest due job", temporal: "not known" },
];
