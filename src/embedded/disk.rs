//! Measures what the queue's disk gives: how long a sync takes alone, and beside another one. Every acknowledgement waits for a sync,
//! so that this bounds how many jobs a second the queue holds.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use iolaus_activities::Clock;
use serde::Serialize;

use super::error::StoreError;
use super::files::{self, StateDirectory};
use super::store::BATCH;

/// How long each of the two measurements takes, and syncs that it makes, at most.
const TIME: Duration = Duration::from_millis(400);
const SYNCS: usize = 1_000;
/// Files that are synced at once in the second one.
const OVERLAPPED: usize = 2;
/// A page of the log, as a commit writes it.
const PAGE: usize = 4096;
/// Pages that are written over again and again, as those of the log are.
const PAGES: usize = 64;
/// No disk is as quick: what syncs in less time keeps nothing over a power cut.
const IMPLAUSIBLE: Duration = Duration::from_micros(15);

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskSpeed {
    /// Microseconds of a page written and synced alone, the median.
    pub sync_us: u64,
    /// The same beside another file that is synced at the same time.
    pub overlapped_sync_us: u64,
    /// Syncs that were made.
    pub syncs: usize,
    /// Jobs a second when each waits for its own commits: one that stores it and one that ends it.
    pub jobs_per_second_alone: u64,
    /// Jobs a second that syncs allow when commits are full: processors set a lower limit on most machines.
    pub jobs_per_second_batched: u64,
    /// Why the syncs cannot be real, if they cannot.
    pub implausible: Option<String>,
}

/// Measures the directory of a database, with private files that are removed again.
pub(super) fn measure(database: &Path, clock: &dyn Clock) -> Result<DiskSpeed, StoreError> {
    let scratch: Vec<Scratch> = (0..OVERLAPPED).map(|n| Scratch::new(database, n)).collect::<Result<_, StoreError>>()?;
    let alone = scratch[0].syncs(clock)?;
    let overlapped = std::thread::scope(|scope| {
        let threads: Vec<_> = scratch.iter().map(|scratch| scope.spawn(|| scratch.syncs(clock))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a sync panicked"))));
        joined.collect::<io::Result<Vec<_>>>()
    })?;
    Ok(speed(alone, overlapped.concat(), super::filesystem::memory_kind(database.parent().unwrap_or(database))))
}

fn speed(alone: Vec<Duration>, overlapped: Vec<Duration>, memory: Option<&'static str>) -> DiskSpeed {
    let syncs = alone.len() + overlapped.len();
    let (alone, overlapped) = (median(alone), median(overlapped));
    let implausible =
        memory.map(|kind| format!("the file is on {kind}, which is memory: a power cut or a restart loses every job"));
    let implausible = implausible.or_else(|| {
        let too_quick = alone < IMPLAUSIBLE;
        too_quick.then(|| {
            format!("a sync takes {} µs, too quick to be true: the disk or its file system does not sync, and a power cut loses jobs that were acknowledged", alone.as_micros())
        })
    });
    let per_second = |jobs: u128| u64::try_from(jobs * 1_000_000 / alone.max(overlapped).as_micros().max(1)).unwrap_or(u64::MAX);
    DiskSpeed {
        sync_us: micros(alone),
        overlapped_sync_us: micros(overlapped),
        syncs,
        // Two commits for one job; and two operations of a full commit for one job.
        jobs_per_second_alone: per_second(1) / 2,
        jobs_per_second_batched: per_second(BATCH as u128 / 2),
        implausible,
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

/// A file of its own, removed when this is dropped.
struct Scratch {
    path: std::path::PathBuf,
    file: File,
}

impl Scratch {
    /// As large as it will ever be, and synced: from now on a sync is one of data alone, as it is in the log.
    fn new(database: &Path, n: usize) -> Result<Self, StoreError> {
        let name = format!("disk-{}-{n}", std::process::id());
        let place = StateDirectory::open(database)?;
        let file = place.beside(&name)?;
        let scratch = Self { file, path: files::path_beside(place.database(), &name) };
        for _ in 0..PAGES {
            (&scratch.file).write_all(&[0; PAGE])?;
        }
        scratch.file.sync_all()?;
        Ok(scratch)
    }

    fn syncs(&self, clock: &dyn Clock) -> io::Result<Vec<Duration>> {
        let (began, page) = (clock.monotonic(), [7; PAGE]);
        let mut times = Vec::new();
        while times.len() < SYNCS && clock.monotonic().saturating_sub(began) < TIME {
            let before = clock.monotonic();
            let mut file = &self.file;
            file.seek(SeekFrom::Start((times.len() % PAGES * PAGE) as u64))?;
            file.write_all(&page)?;
            file.sync_data()?;
            times.push(clock.monotonic().saturating_sub(before));
        }
        Ok(times)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(file = %self.path.display(), %error, "a temporary file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iolaus_activities::SystemClock;

    fn of(alone: u64, overlapped: u64, memory: Option<&'static str>) -> DiskSpeed {
        speed(vec![Duration::from_micros(alone); 3], vec![Duration::from_micros(overlapped); 3], memory)
    }

    #[test]
    fn the_slower_of_lone_and_overlapped_syncs_says_how_many_jobs_a_second_there_can_be() {
        let disk = of(500, 1_000, None);
        assert_eq!((disk.sync_us, disk.overlapped_sync_us, disk.syncs, disk.implausible), (500, 1_000, 6, None));
        assert_eq!((disk.jobs_per_second_alone, disk.jobs_per_second_batched), (500, 128_000));
    }

    #[test]
    fn syncs_that_no_disk_makes_and_memory_are_called_what_they_are() {
        assert!(of(3, 3, None).implausible.unwrap().contains("too quick to be true"));
        assert!(of(900, 900, Some("tmpfs")).implausible.unwrap().contains("tmpfs"));
        assert_eq!(of(15, 15, None).implausible, None);
    }

    #[test]
    fn a_measurement_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let disk = measure(&dir.path().join("t.db"), &SystemClock::new()).unwrap();
        assert!(disk.syncs > 2 && disk.jobs_per_second_batched > 0, "{disk:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
