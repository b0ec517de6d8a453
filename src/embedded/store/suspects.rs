//! Jobs that were running when their last worker died. One of them may be what kills workers, and the others only ran beside it. The
//! more workers in a row died with a suspect, the fewer suspects a worker runs at once, and before the last death that is allowed each runs
//! without another one: so that those beside the guilty one outlive their time, and are cleared.

use std::time::Duration;

use jiff::SignedDuration;
use rusqlite::params;

use super::rows::ms;
use super::{StoreError, Tx, rows};
use crate::job::JobState;

/// The worker of a suspect lives for so long after it started: then it was not what killed those before, and is cleared.
pub(crate) const CLEARED_AFTER: Duration = Duration::from_secs(120);
/// A suspect that is not started beside others waits for so long.
pub(super) const SUSPECT_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// After each further death so many times fewer suspects run at once.
const NARROWING: u64 = 32;

/// How many suspects a worker may run at once when one of them was there at so many deaths in a row.
pub(super) fn at_once(deaths: u32, max_deaths: u32) -> u64 {
    NARROWING.saturating_pow(max_deaths.saturating_sub(deaths.saturating_add(1)))
}

/// The suspects that a worker runs, as one claim sees them.
#[derive(Default)]
pub(super) struct Suspects {
    /// How many, and the most deaths that one of them has; None: they were not counted yet.
    running: Option<(u32, u32)>,
}

impl Suspects {
    /// Whether one more may run beside them. If so it counts from now on.
    pub(super) fn admit(&mut self, tx: &Tx<'_>, worker_id: i64, deaths: u32) -> Result<bool, StoreError> {
        let (count, worst) = match self.running {
            Some(running) => running,
            None => tx
                .conn
                .prepare_cached(
                    "SELECT count(*), coalesce(max(deaths), 0) FROM jobs WHERE state = 'running' AND worker_id = ?1 AND deaths > 0",
                )?
                .query_row([worker_id], |row| Ok((row.get(0)?, row.get(1)?)))?,
        };
        let with_it = (count.saturating_add(1), worst.max(deaths));
        let admitted = u64::from(with_it.0) <= at_once(with_it.1, tx.max_deaths);
        self.running = Some(if admitted { with_it } else { (count, worst) });
        Ok(admitted)
    }
}

impl Tx<'_> {
    /// The deaths in a row of a job that may still be started; None if it expired.
    pub(super) fn deaths_of(&self, id: i64) -> Result<Option<u32>, StoreError> {
        let mut statement =
            self.conn.prepare_cached("SELECT deaths FROM jobs WHERE id = ?1 AND (expires_at IS NULL OR expires_at > ?2)")?;
        let mut found = statement.query(params![id, ms(self.now)])?;
        Ok(found.next()?.map(|row| row.get(0)).transpose()?)
    }

    /// Lets a suspect wait, so that it does not stand before the jobs behind it.
    pub(super) fn put_off(&mut self, id: i64) -> Result<(), StoreError> {
        let Some(stored) = rows::load(self.conn, id)? else { return Ok(()) };
        let at = self.now.saturating_add(SUSPECT_PAUSE).unwrap_or(self.now);
        self.conn
            .prepare_cached("UPDATE jobs SET state = 'retryable', run_at = ?2 WHERE id = ?1 AND state = 'available'")?
            .execute(params![id, ms(at)])?;
        let (activity, tenant) = (&stored.execution.activity, &stored.execution.tenant);
        self.counts.moved(activity, tenant, Some(JobState::Available), Some(JobState::Retryable));
        self.after.timers = true;
        Ok(())
    }

    /// Forgets the deaths of workers before this attempt, whose worker has lived long enough.
    pub(crate) fn clear_of_deaths(&mut self, id: i64, token: i64) -> Result<bool, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("UPDATE jobs SET deaths = 0 WHERE id = ?1 AND lease_token = ?2 AND state = 'running' AND deaths > 0")?;
        Ok(statement.execute(params![id, token])? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_workers_died_with_a_suspect_the_fewer_run_at_once_and_the_last_time_it_is_the_only_one() {
        assert_eq!([1, 2, 3, 4].map(|deaths| at_once(deaths, 5)), [32_768, 1_024, 32, 1]);
        assert_eq!([1, 2].map(|deaths| at_once(deaths, 2)), [1, 1], "also after the limit was lowered");
        assert_eq!((at_once(1, 1), at_once(1, 1_000)), (1, u64::MAX));
    }
}
