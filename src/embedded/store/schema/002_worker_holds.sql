-- What a worker does not ask of a tenant for now, and why: for people. Gone with the worker's row.
CREATE TABLE worker_holds (
  worker_id INTEGER NOT NULL,
  tenant    TEXT    NOT NULL,
  reason    TEXT    NOT NULL,
  since     INTEGER NOT NULL,
  until     INTEGER,                 -- when it ends by itself
  PRIMARY KEY (worker_id, tenant)
) STRICT, WITHOUT ROWID;
