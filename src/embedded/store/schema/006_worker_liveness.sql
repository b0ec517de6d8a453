-- How long a worker may be silent before it is dead, in milliseconds: its own setting, whoever looks.
ALTER TABLE workers ADD COLUMN timeout_ms INTEGER NOT NULL DEFAULT 10000;
-- The one job that a worker works, as `iolaus execute` does. It is no worker for other jobs.
ALTER TABLE workers ADD COLUMN job_id TEXT;
-- Workers in a row that died while they ran it.
ALTER TABLE jobs ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;

-- Beats that did not change, as processes have seen them that live too short to wait for the next one. Gone with the worker's row.
CREATE TABLE silent_workers (
  worker_id INTEGER PRIMARY KEY,
  beat      INTEGER NOT NULL,
  times     INTEGER NOT NULL,  -- it was seen so often, each time at least `timeout_ms` after the last
  seen_at   INTEGER NOT NULL
) STRICT;
