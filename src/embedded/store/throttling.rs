//! How many jobs of an activity and of a tenant may start now, over all workers of the file. What runs is counted from rows, so that a
//! rescue frees what a dead worker held; what started is a bucket of tokens, written with the claim.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use super::counts::Counts;
use super::rows::ms;
use crate::client::PauseKind;
use crate::job::{SEQUENCE, Throttle, Throttles};

pub(super) const RUNNING: &str = "SELECT activity, tenant, count FROM job_counts WHERE state = 'running' AND count <> 0";

/// The room that one transaction has.
pub(super) struct Throttling<'a> {
    throttles: &'a Throttles,
    now: i64,
    /// By kind and name; what is not limited is not here.
    rooms: BTreeMap<(&'static str, String), Room>,
    /// What runs, read when it is asked for first.
    running: Option<Running>,
}

/// How many jobs of each activity and of each tenant run. Sequences run on no worker: their steps are what counts.
struct Running(HashMap<(&'static str, String), i64>);

impl Running {
    /// All of them in one walk through the counts: many lanes may be limited, and a walk for each would be one too many.
    fn read(conn: &Connection, counts: &Counts) -> Result<Self, StoreError> {
        let mut running = HashMap::new();
        let mut add = |activity: &str, tenant: &str, jobs: i64| {
            if activity != SEQUENCE && jobs != 0 {
                for key in [(PauseKind::Activity.as_str(), activity), (PauseKind::Tenant.as_str(), tenant)] {
                    let sum: &mut i64 = running.entry((key.0, key.1.to_owned())).or_default();
                    *sum = sum.saturating_add(jobs);
                }
            }
        };
        let mut statement = conn.prepare_cached(RUNNING)?;
        let mut stored = statement.query([])?;
        while let Some(row) = stored.next()? {
            // What cannot be read names no activity and no tenant.
            if let (Ok(activity), Ok(tenant)) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str()) {
                add(activity, tenant, row.get(2)?);
            }
        }
        for (activity, tenant, jobs) in counts.running_changed() {
            add(activity, tenant, jobs);
        }
        Ok(Self(running))
    }

    fn of(&self, key: &(&'static str, String)) -> u64 {
        self.0.get(key).copied().unwrap_or(0).max(0).unsigned_abs()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Room {
    running: Option<u64>,
    bucket: Option<Bucket>,
    taken: u64,
    /// The stored time of the bucket lies in the future: the clock was set back. Stored anew, or the bucket would stay as it is until
    /// the clock has caught up.
    from_future: bool,
}

/// So little below a whole start is one: the clock has milliseconds, and sums of fractions are not exact.
const HAIR: f64 = 1e-6;

/// Starts that are saved up.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    rate: f64,
    tokens: f64,
}

impl Bucket {
    /// The bucket as it stands now. A clock that went back brings nothing and takes nothing.
    fn filled(rate: f64, stored: Option<(f64, i64)>, now: i64) -> Self {
        let most = rate.max(1.0);
        let (tokens, at) = stored.unwrap_or((most, now));
        #[expect(clippy::cast_precision_loss, reason = "a bucket is full long before that matters")]
        let seconds = now.saturating_sub(at).max(0) as f64 / 1000.0;
        Self { rate, tokens: (tokens.max(0.0) + seconds * rate).min(most) }
    }

    /// Whole starts.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and a bucket is small")]
    fn starts(self) -> u64 {
        (self.tokens + HAIR) as u64
    }

    /// Milliseconds until there is a whole start.
    #[expect(clippy::cast_possible_truncation, reason = "bounded by what a rate may be")]
    fn next_in(self) -> i64 {
        ((1.0 - HAIR - self.tokens).max(0.0) / self.rate * 1000.0).ceil() as i64
    }
}

impl Room {
    fn left(self) -> u64 {
        self.running.into_iter().chain(self.bucket.map(Bucket::starts)).min().unwrap_or(u64::MAX)
    }

    fn take(&mut self) {
        self.taken += 1;
        self.running = self.running.map(|running| running.saturating_sub(1));
        if let Some(bucket) = &mut self.bucket {
            bucket.tokens = (bucket.tokens - 1.0).max(0.0);
        }
    }
}

impl<'a> Throttling<'a> {
    pub(super) fn new(throttles: &'a Throttles, now: Timestamp) -> Self {
        Self { throttles, now: ms(now), rooms: BTreeMap::new(), running: None }
    }

    /// How many jobs of an activity and a tenant may start now. `counts` is what this transaction has changed so far.
    pub(super) fn room(&mut self, conn: &Connection, counts: &Counts, activity: &str, tenant: &str) -> Result<usize, StoreError> {
        let mut left = u64::MAX;
        for (kind, name, throttle) in self.concerned(activity, tenant) {
            let key = (kind, name.to_owned());
            let room = if let Some(room) = self.rooms.get(&key) {
                *room
            } else {
                let room = self.read(conn, counts, &key, throttle)?;
                self.rooms.insert(key, room);
                room
            };
            left = left.min(room.left());
        }
        Ok(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Starts one, if there is room.
    pub(super) fn take(&mut self, activity: &str, tenant: &str) -> bool {
        let keys: Vec<_> = self.concerned(activity, tenant).into_iter().map(|(kind, name, _)| (kind, name.to_owned())).collect();
        if keys.iter().any(|key| self.rooms.get(key).is_some_and(|room| room.left() == 0)) {
            return false;
        }
        for key in keys {
            if let Some(room) = self.rooms.get_mut(&key) {
                room.take();
            }
        }
        true
    }

    /// Stores what was taken from the buckets, and brings times of the future back to now.
    pub(super) fn store(&self, conn: &Connection) -> Result<(), StoreError> {
        for ((kind, name), room) in self.rooms.iter().filter(|(_, room)| room.taken > 0 || room.from_future) {
            let Some(bucket) = room.bucket else { continue };
            conn.prepare_cached(
                "INSERT INTO start_rates(kind, name, tokens, at) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT(kind, name) DO UPDATE SET tokens = excluded.tokens, at = excluded.at",
            )?
            .execute(params![kind, name, bucket.tokens, self.now])?;
        }
        Ok(())
    }

    /// When the first bucket that is empty has a start again.
    pub(super) fn next_start(&self) -> Option<Timestamp> {
        let empty = self.rooms.values().filter_map(|room| room.bucket).filter(|bucket| bucket.starts() == 0);
        let next = empty.map(|bucket| self.now.saturating_add(bucket.next_in().max(1))).min()?;
        Timestamp::from_millisecond(next).ok()
    }

    fn read(
        &mut self,
        conn: &Connection,
        counts: &Counts,
        key: &(&'static str, String),
        throttle: Throttle,
    ) -> Result<Room, StoreError> {
        let running = if throttle.max_running == 0 {
            None
        } else {
            let running = match self.running.take() {
                Some(running) => running,
                None => Running::read(conn, counts)?,
            };
            Some(u64::from(throttle.max_running).saturating_sub(self.running.insert(running).of(key)))
        };
        let (now, mut from_future) = (self.now, false);
        let bucket = if throttle.max_starts_per_second > 0.0 {
            let mut statement = conn.prepare_cached("SELECT tokens, at FROM start_rates WHERE kind = ?1 AND name = ?2")?;
            let stored = statement.query_row(params![key.0, key.1], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            from_future = stored.is_some_and(|(_, at)| at > now);
            Some(Bucket::filled(throttle.max_starts_per_second, stored, now))
        } else {
            None
        };
        Ok(Room { running, bucket, taken: 0, from_future })
    }

    fn concerned<'n>(&self, activity: &'n str, tenant: &'n str) -> Vec<(&'static str, &'n str, Throttle)> {
        let activities =
            self.throttles.activities.get(activity).map(|throttle| (PauseKind::Activity.as_str(), activity, *throttle));
        let tenants = self.throttles.tenants.get(tenant).map(|throttle| (PauseKind::Tenant.as_str(), tenant, *throttle));
        activities.into_iter().chain(tenants).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_at_its_rate_up_to_a_second_and_never_by_a_clock_that_goes_back() {
        for (rate, stored, now, starts) in [
            (5.0, None, 0, 5),
            (0.5, None, 0, 1),
            (5.0, Some((0.0, 1_000)), 1_000, 0),
            (5.0, Some((0.0, 1_000)), 1_199, 0),
            (5.0, Some((0.0, 1_000)), 1_200, 1),
            (5.0, Some((0.0, 1_000)), 9_000_000, 5),
            (5.0, Some((2.0, 9_000)), 1_000, 2),
            (0.5, Some((0.0, 0)), 1_999, 0),
            (5.0, Some((f64::NEG_INFINITY, 0)), 200, 1),
            (0.5, Some((0.0, 0)), 2_000, 1),
            (5.0, Some((0.0, i64::MIN)), i64::MAX, 5),
        ] {
            assert_eq!(Bucket::filled(rate, stored, now).starts(), starts, "{rate} {stored:?} {now}");
        }
    }

    #[test]
    fn an_empty_bucket_says_when_it_has_a_start_again() {
        let next = |rate, tokens| Bucket { rate, tokens }.next_in();
        assert_eq!((next(5.0, 0.0), next(0.5, 0.0), next(2.0, 0.5), next(2.0, 1.0)), (200, 2_000, 250, 0));
        assert_eq!(next(2.0, 0.998), 1, "and not two, which 1.0 - 0.998 would make of it");
    }
}
