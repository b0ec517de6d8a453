-- The first schema, for good: later files only add. Times are Unix milliseconds, UTC. Ids of executions are rowids of `jobs`.

-- One row an execution, slim: everything large stands in a table of its own.
CREATE TABLE jobs (
  id                  INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: leases are fenced by it
  job_id              TEXT    NOT NULL,
  run_id              TEXT    NOT NULL,
  activity            TEXT    NOT NULL,
  activity_version    INTEGER NOT NULL,
  slot_class          TEXT    NOT NULL,
  tenant              TEXT    NOT NULL,
  state               TEXT    NOT NULL
    CHECK (state IN ('scheduled', 'available', 'running', 'retryable', 'completed', 'discarded', 'cancelled')),
  priority            INTEGER NOT NULL CHECK (priority BETWEEN 1 AND 5),
  attempt             INTEGER NOT NULL DEFAULT 0,  -- started and counted
  drains              INTEGER NOT NULL DEFAULT 0,  -- given back to shutdowns
  lease_token         INTEGER NOT NULL DEFAULT 0,  -- +1 at every claim
  worker_id           INTEGER,                     -- holds the lease while running
  parent_id           INTEGER,                     -- the sequence that it is a step of
  run_at              INTEGER NOT NULL,            -- when it is due
  expires_at          INTEGER,                     -- when it closes if no attempt is running by then
  close_by            INTEGER,                     -- schedule_to_close, absolute
  enqueued_at         INTEGER NOT NULL,
  started_at          INTEGER,
  finished_at         INTEGER,
  cancel_requested_at INTEGER
) STRICT;

-- Verbs address the newest execution of a job id.
CREATE INDEX jobs_by_job_id ON jobs(job_id, id);
-- Due now. A claim seeks to the head of each lane (activity, version, slot class, tenant) and never looks at run_at as a filter.
CREATE INDEX jobs_ready ON jobs(activity, activity_version, slot_class, tenant, priority, run_at, id) WHERE state = 'available';
-- Due later: promoted to available by one range read, so that no claim ever steps over them.
CREATE INDEX jobs_due ON jobs(run_at) WHERE state IN ('scheduled', 'retryable');
CREATE INDEX jobs_expiring ON jobs(expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX jobs_running ON jobs(worker_id) WHERE state = 'running';
-- Closed, for retention, and the few that people look for.
CREATE INDEX jobs_closed ON jobs(finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_dead ON jobs(id) WHERE state IN ('discarded', 'cancelled');
CREATE INDEX jobs_by_parent ON jobs(parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE job_inputs (
  id            INTEGER PRIMARY KEY,
  input         TEXT NOT NULL,
  options       TEXT NOT NULL,
  labels        TEXT,
  traceparent   TEXT NOT NULL,
  tracestate    TEXT,
  cancel_reason TEXT
) STRICT;

CREATE TABLE job_checkpoints (
  id            INTEGER PRIMARY KEY,
  checkpoint    TEXT,
  progress      TEXT,
  stalled_since INTEGER
) STRICT;

CREATE TABLE job_verdicts (
  id      INTEGER PRIMARY KEY,
  status  TEXT NOT NULL,
  code    TEXT,
  verdict TEXT NOT NULL
) STRICT;

-- The newest failed attempts of each execution.
CREATE TABLE job_failures (
  id          INTEGER NOT NULL,
  lease_token INTEGER NOT NULL,
  attempt     INTEGER NOT NULL,
  at          INTEGER NOT NULL,
  failure     TEXT    NOT NULL,
  PRIMARY KEY (id, lease_token)
) STRICT, WITHOUT ROWID;

-- Liveness is the worker's, not the job's: beat is a counter, and only whether it changes has a meaning.
CREATE TABLE workers (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  name       TEXT    NOT NULL,
  version    TEXT    NOT NULL,
  activities TEXT    NOT NULL,
  beat       INTEGER NOT NULL DEFAULT 0,
  beat_at    INTEGER NOT NULL,
  started_at INTEGER NOT NULL
) STRICT;

CREATE TABLE pauses (
  kind      TEXT    NOT NULL,
  name      TEXT    NOT NULL,
  reason    TEXT,
  paused_at INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
