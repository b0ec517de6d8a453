-- How many executions stand where, kept by every transaction: counting rows takes the longer the more there are.
CREATE TABLE job_counts (
  activity TEXT    NOT NULL,
  tenant   TEXT    NOT NULL,
  state    TEXT    NOT NULL,
  count    INTEGER NOT NULL,
  PRIMARY KEY (activity, tenant, state)
) STRICT, WITHOUT ROWID;
INSERT INTO job_counts SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3;
