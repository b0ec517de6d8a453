-- What executions are about to do at a tenant, or did: kept longer than the executions themselves.
CREATE TABLE effects (
  id     INTEGER PRIMARY KEY,
  tenant TEXT    NOT NULL,
  key    TEXT    NOT NULL,  -- what it is about: for a submission, the workflow
  job_id TEXT    NOT NULL,
  run_id TEXT    NOT NULL,
  run    TEXT,              -- the tenant's run that came of it; NULL while it is an intent
  at     INTEGER NOT NULL   -- when the newest intent was saved
) STRICT;
CREATE UNIQUE INDEX effects_by_owner ON effects(tenant, key, run_id, job_id);
CREATE INDEX effects_by_time ON effects(tenant, key, at);
CREATE INDEX effects_by_run ON effects(tenant, key, run) WHERE run IS NOT NULL;
CREATE INDEX effects_old ON effects(at);

-- Attempts that a cancelled execution was given only to undo what it did.
ALTER TABLE jobs ADD COLUMN undo_attempts INTEGER NOT NULL DEFAULT 0;

-- Which tenants a worker serves, as a JSON list. A worker without a row takes the jobs of any tenant. Gone with the worker's row.
CREATE TABLE worker_tenants (
  worker_id INTEGER PRIMARY KEY,
  tenants   TEXT NOT NULL
) STRICT;
