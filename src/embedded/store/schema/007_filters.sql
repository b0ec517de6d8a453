-- What `jobs list` and `jobs retry` filter by. Executions of an activity and a tenant, newest first: written once for each, because no
-- column of it ever changes.
CREATE INDEX jobs_by_owner ON jobs(activity, tenant);
-- The same by state, for the states that a job which passes at once never has.
CREATE INDEX jobs_delayed_or_dead ON jobs(activity, tenant, state) WHERE state IN ('scheduled', 'retryable', 'discarded', 'cancelled');
