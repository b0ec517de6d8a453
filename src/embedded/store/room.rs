//! Room for what waits to be stored: a bound on its bytes and on its number, so that an overloaded process says so, with a time to come
//! back, instead of growing. What a worker writes about its own attempts has room of its own, which no enqueue can take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::StoreError;

/// The smallest part of it that is counted.
const UNIT: usize = 1024;
/// Nobody is asked to come back sooner than this, nor later.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How much there is, and how long an enqueue waits for it.
pub(super) struct Room {
    units: Arc<Semaphore>,
    all_units: u32,
    operations: Arc<Semaphore>,
    patience: Duration,
    /// How long the last one that was stored took to get through, in microseconds.
    last: AtomicU64,
}

/// A part of the room, until this is dropped.
pub(crate) struct Taken {
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Room {
    pub(super) fn new(bytes: usize, operations: usize, patience: Duration) -> Self {
        let all_units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3);
        Self {
            units: Arc::new(Semaphore::new(all_units as usize)),
            all_units,
            operations: Arc::new(Semaphore::new(operations)),
            patience,
            last: AtomicU64::new(0),
        }
    }

    /// Takes room for so many bytes. What is larger than all of it gets all of it.
    pub(super) async fn take(&self, bytes: usize) -> Result<Taken, StoreError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.all_units);
        let asked = Instant::now();
        let taken = async {
            let operation = self.operations.clone().acquire_owned().await;
            Ok::<_, tokio::sync::AcquireError>((operation?, self.units.clone().acquire_many_owned(units).await?))
        };
        // Real time, whatever the clock: this is about how fast the disk is.
        match tokio::time::timeout(self.patience, taken).await {
            Ok(taken) => Ok(Taken { _permits: taken.map_err(|_| StoreError::Closed)? }),
            Err(_) => Err(StoreError::Overloaded { retry_after: self.retry_after(asked.elapsed()) }),
        }
    }

    /// One got through, so long after it had room.
    pub(super) fn got_through(&self, took: Duration) {
        self.last.store(took.as_micros().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// All that waits now is stored after about as long as the last one took, or as long as this one has waited in vain.
    fn retry_after(&self, waited: Duration) -> Duration {
        let (soonest, latest) = RETRY;
        Duration::from_micros(self.last.load(Ordering::Relaxed)).max(waited).clamp(soonest, latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_overloaded(taken: &Result<Taken, StoreError>) -> bool {
        matches!(taken, Err(StoreError::Overloaded { .. }))
    }

    #[tokio::test]
    async fn bytes_and_operations_are_bounded_and_what_is_given_back_can_be_taken() {
        let room = Room::new(8 * UNIT, 3, Duration::ZERO);
        let large = room.take(7 * UNIT).await.expect("there is room");
        assert!(is_overloaded(&room.take(UNIT + 1).await), "two units of one");
        let small = room.take(0).await.expect("what has no bytes takes one unit");
        assert!(is_overloaded(&room.take(1).await), "no unit is left");
        drop((large, small));
        let all = [room.take(1).await, room.take(1).await, room.take(1).await];
        assert!(all.iter().all(Result::is_ok), "what was refused keeps no room");
        assert!(is_overloaded(&room.take(1).await), "a fourth operation");
        drop(all);
        assert!(room.take(1000 * UNIT).await.is_ok(), "what is larger than all of it gets all of it");
    }

    #[tokio::test]
    async fn the_time_to_come_back_is_what_the_last_one_took_within_bounds() {
        let room = Room::new(UNIT, 1, Duration::ZERO);
        let _all = room.take(UNIT).await.expect("there is room");
        let mut told = Vec::new();
        for took in [0, 2_500, 600_000] {
            room.got_through(Duration::from_millis(took));
            let Err(StoreError::Overloaded { retry_after }) = room.take(1).await else { panic!("it is full") };
            told.push(retry_after);
        }
        assert_eq!(told, [RETRY.0, Duration::from_millis(2_500), RETRY.1]);
    }
}
