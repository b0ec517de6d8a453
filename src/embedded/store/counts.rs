//! How many executions stand where, by activity, tenant and state. Every transaction adds what it changed, so that nobody has to walk
//! the table for it.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::StoreError;
use super::rows::parsed;
use crate::client::StateCount;
use crate::job::JobState;

/// What a transaction changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(HashMap<(String, String), Changes>);

/// By state, in the order of [`JobState::ALL`].
type Changes = [i64; JobState::ALL.len()];

impl Counts {
    /// An execution went from one state to another; `None` is: not in the table.
    pub(super) fn moved(&mut self, activity: &str, tenant: &str, from: Option<JobState>, to: Option<JobState>) {
        self.moved_many(activity, tenant, from, to, 1);
    }

    /// So many executions did.
    pub(super) fn moved_many(&mut self, activity: &str, tenant: &str, from: Option<JobState>, to: Option<JobState>, many: i64) {
        let changes = self.of(activity, tenant);
        for (state, change) in [(from, -many), (to, many)] {
            if let Some(state) = state {
                changes[position(state)] += change;
            }
        }
    }

    /// By how many executions more of each activity and tenant run than before this transaction.
    pub(super) fn running_changed(&self) -> impl Iterator<Item = (&str, &str, i64)> {
        let running = position(JobState::Running);
        self.0.iter().map(move |((activity, tenant), changes)| (activity.as_str(), tenant.as_str(), changes[running]))
    }

    fn of(&mut self, activity: &str, tenant: &str) -> &mut Changes {
        self.0.entry((activity.to_owned(), tenant.to_owned())).or_default()
    }

    /// Adds the changes to the table.
    pub(super) fn store(&self, conn: &Connection) -> Result<(), StoreError> {
        // Within what can be added to, whatever is stored.
        for ((activity, tenant), changes) in &self.0 {
            for (state, change) in JobState::ALL.iter().zip(changes).filter(|(_, change)| **change != 0) {
                conn.prepare_cached(
                    "INSERT INTO job_counts(activity, tenant, state, count) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT(activity, tenant, state) DO UPDATE SET count = \
                       max(-4611686018427387904, min(count, 4611686018427387904)) + excluded.count",
                )?
                .execute(params![activity, tenant, state.as_str(), change])?;
            }
        }
        Ok(())
    }
}

fn position(state: JobState) -> usize {
    JobState::ALL.iter().position(|other| *other == state).unwrap_or_default()
}

pub(super) const COUNTS: &str = "SELECT activity, tenant, state, count FROM job_counts WHERE count <> 0 ORDER BY 1, 2, 3";

/// How many executions stand where.
pub(crate) fn counts(conn: &Connection) -> Result<Vec<StateCount>, StoreError> {
    let mut statement = conn.prepare_cached(COUNTS)?;
    let mut stored = statement.query([])?;
    let mut counts = Vec::new();
    while let Some(row) = stored.next()? {
        // A row that cannot be read counts nothing: iolaus fsck finds it, and counts again.
        let (Ok(activity), Ok(tenant), Ok(state)) = (row.get(0), row.get(1), parsed(row, 2)) else { continue };
        counts.push(StateCount { activity, tenant, state, count: row.get::<_, i64>(3)?.unsigned_abs() });
    }
    Ok(counts)
}
