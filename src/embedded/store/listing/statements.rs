//! The statements of lists. Each names its index: the planner would choose another one by what it guesses of the rows.

pub(super) const EVERY: &str = "SELECT id FROM jobs WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
pub(super) const NEWEST: &str = "SELECT id, activity, tenant, state FROM jobs WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
pub(super) const OWNED: &str =
    "SELECT id FROM jobs INDEXED BY jobs_by_owner WHERE activity = ?1 AND tenant = ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4";
pub(super) const OWNED_STATES: &str =
    "SELECT id, state FROM jobs INDEXED BY jobs_by_owner WHERE activity = ?1 AND tenant = ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4";
/// A closed execution has a verdict, and an open one has none.
pub(super) const CLOSED: &str = "SELECT id FROM job_verdicts WHERE id < ?1 ORDER BY id DESC LIMIT 1";
pub(super) const DELAYED_OR_DEAD: &str = "SELECT id FROM jobs INDEXED BY jobs_delayed_or_dead \
     WHERE state IN ('scheduled', 'retryable', 'discarded', 'cancelled') AND activity = ?1 AND tenant = ?2 AND state = ?3 AND id < ?4 \
     ORDER BY id DESC LIMIT ?5";
pub(super) const RUNNING: &str = "SELECT id, activity, tenant FROM jobs INDEXED BY jobs_running WHERE state = 'running'";
pub(super) const COUNT_RUNNING: &str = "SELECT coalesce(sum(count), 0) FROM job_counts WHERE state = 'running'";
pub(super) const READY: &str = "SELECT id FROM jobs INDEXED BY jobs_ready WHERE state = 'available' AND activity = ?1 AND activity_version = ?2 \
     AND slot_class = ?3 AND tenant = ?4";
/// The next version and slot class with due jobs of an activity. Two seeks: a comparison of row values would walk entry by entry.
pub(super) const READY_KIND: &str = "SELECT * FROM (SELECT activity_version, slot_class FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity = ?1 AND activity_version = ?2 AND slot_class > ?3 ORDER BY slot_class LIMIT 1) \
     UNION ALL SELECT * FROM (SELECT activity_version, slot_class FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity = ?1 AND activity_version > ?2 ORDER BY activity_version, slot_class LIMIT 1) \
     LIMIT 1";
