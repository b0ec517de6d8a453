-- How many starts an activity or a tenant has saved up, as of a time: shared by all workers, so that a rate is the queue's.
CREATE TABLE start_rates (
  kind   TEXT    NOT NULL,
  name   TEXT    NOT NULL,
  tokens REAL    NOT NULL,
  at     INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
