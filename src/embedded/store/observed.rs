//! What gauges read. Seeks and small tables only: nothing here walks the backlog.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use super::claim::MAX_LANES;
use super::rows::{Text, at_ms, optional_time};

/// Since when the oldest job of each activity and tenant is due.
pub(crate) fn oldest_due_of_each(conn: &Connection) -> Result<BTreeMap<(String, String), Timestamp>, StoreError> {
    let mut oldest = BTreeMap::new();
    let mut head = conn.prepare_cached(FIRST_HEAD)?.query_row([], Head::of).optional()?;
    let mut next = conn.prepare_cached(NEXT_HEAD)?;
    for _ in 0..MAX_HEADS {
        let Some(Head { activity, version, slot_class, tenant, priority, at }) = head else { break };
        head = next.query_row(params![activity, version, slot_class, tenant, priority], Head::of).optional()?;
        // A damaged row hides itself, and not those behind it.
        let (Some(activity), Some(tenant), Ok(at)) = (activity.as_str(), tenant.as_str(), at_ms(at)) else { continue };
        let of = oldest.entry((activity.to_owned(), tenant.to_owned())).or_insert(at);
        *of = at.min(*of);
    }
    Ok(oldest)
}

/// Heads that one look takes, a priority of a lane each.
const MAX_HEADS: usize = 2 * MAX_LANES;

/// The job that is due for longest among those of a lane and a priority.
struct Head {
    activity: Text,
    version: i64,
    slot_class: Text,
    tenant: Text,
    priority: i64,
    at: i64,
}

impl Head {
    fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let (activity, slot_class, tenant) = (Text::read(row, 0)?, Text::read(row, 2)?, Text::read(row, 3)?);
        Ok(Self { activity, version: row.get(1)?, slot_class, tenant, priority: row.get(4)?, at: row.get(5)? })
    }
}

const FIRST_HEAD: &str = "SELECT activity, activity_version, slot_class, tenant, priority, run_at FROM jobs INDEXED BY jobs_ready \
     WHERE state = 'available' ORDER BY activity, activity_version, slot_class, tenant, priority, run_at LIMIT 1";
/// As the next lane of a claim is found, and before it the next priority of the same lane.
const NEXT_HEAD: &str = "SELECT * FROM (SELECT activity, activity_version, slot_class, tenant, priority, run_at FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity = ?1 AND activity_version = ?2 AND slot_class = ?3 AND tenant = ?4 AND priority > ?5 \
       ORDER BY priority, run_at LIMIT 1) \
     UNION ALL SELECT * FROM (SELECT activity, activity_version, slot_class, tenant, priority, run_at FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity = ?1 AND activity_version = ?2 AND slot_class = ?3 AND tenant > ?4 \
       ORDER BY tenant, priority, run_at LIMIT 1) \
     UNION ALL SELECT * FROM (SELECT activity, activity_version, slot_class, tenant, priority, run_at FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity = ?1 AND activity_version = ?2 AND slot_class > ?3 \
       ORDER BY slot_class, tenant, priority, run_at LIMIT 1) \
     UNION ALL SELECT * FROM (SELECT activity, activity_version, slot_class, tenant, priority, run_at FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity = ?1 AND activity_version > ?2 \
       ORDER BY activity_version, slot_class, tenant, priority, run_at LIMIT 1) \
     UNION ALL SELECT * FROM (SELECT activity, activity_version, slot_class, tenant, priority, run_at FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity > ?1 \
       ORDER BY activity, activity_version, slot_class, tenant, priority, run_at LIMIT 1) \
     LIMIT 1";

/// When the oldest due job became due.
pub(crate) fn oldest_due(conn: &Connection) -> Result<Option<Timestamp>, StoreError> {
    Ok(oldest_due_of_each(conn)?.into_values().min())
}

/// When the job of each activity that runs for longest was started first.
pub(crate) fn longest_running(conn: &Connection) -> Result<Vec<(String, Timestamp)>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT activity, min(started_at) FROM jobs INDEXED BY jobs_running \
         WHERE state = 'running' AND worker_id IS NOT NULL AND started_at IS NOT NULL GROUP BY activity",
    )?;
    let mut rows = statement.query([])?;
    let mut running = Vec::new();
    while let Some(row) = rows.next()? {
        if let (Ok(activity), Ok(Some(at))) = (row.get(0), optional_time(row, 1)) {
            running.push((activity, at));
        }
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::super::backlog::{Backlog, fill};
    use super::super::counts::{COUNTS, counts};
    use super::super::model::new_job_for_tests;
    use super::*;
    use crate::embedded::Durability;

    /// What SQLite does for the gauges of so many tenants with so many jobs each, in steps of its machine.
    fn steps(tenants: u64, jobs: u64) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        fill(&path, &new_job_for_tests(), &[Backlog::due(tenants * jobs)], Timestamp::UNIX_EPOCH).unwrap();
        let conn = super::super::schema::open_writer(&path, Durability::Normal, Timestamp::UNIX_EPOCH).unwrap();
        let spread = format!(
            "UPDATE jobs SET tenant = printf('t-%05d', id % {tenants}); DELETE FROM job_counts; \
             INSERT INTO job_counts SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3"
        );
        conn.execute_batch(&spread).unwrap();
        assert_eq!(oldest_due_of_each(&conn).unwrap().len() as u64, tenants);
        assert_eq!(counts(&conn).unwrap().iter().map(|count| count.count).sum::<u64>(), tenants * jobs);
        let of = |sql| conn.prepare_cached(sql).unwrap().get_status(rusqlite::StatementStatus::VmStep).unsigned_abs();
        u64::from([NEXT_HEAD, COUNTS].map(of).iter().sum::<u32>())
    }

    #[test]
    fn a_scrape_costs_the_same_for_each_tenant_however_many_there_are_and_however_much_they_have() {
        let few = steps(100, 1);
        let (many, deep) = (steps(4_000, 1), steps(100, 40));
        assert!(few > 100, "{few} steps: these statements were not the ones that ran");
        assert!(many <= few * 41, "{few} steps for 100 tenants, {many} for 4,000");
        assert!(deep <= few * 2, "{few} steps for one job of each tenant, {deep} for 40");
    }
}
