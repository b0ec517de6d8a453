-- Which tenants a worker serves, as a JSON list. A worker without a row takes the jobs of any tenant. Gone with the worker's row.
CREATE TABLE worker_tenants (
  worker_id INTEGER PRIMARY KEY,
  tenants   TEXT NOT NULL
) STRICT;
