//! Watches the write-ahead log. It is shortened when no one reads an older state of the file; a reader that never ends makes it grow
//! without bound, and only an operator can end that reader.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::Clock;

use super::files;
use super::lock_table::{self, LockKind};
use crate::client::LogSize;

/// At most one warning in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);
/// Bytes of the shared-memory file that readers lock, one for each state of the file: `WAL_READ_LOCK(0)` to `(4)`.
const READ_LOCKS: std::ops::RangeInclusive<u64> = 123..=127;

/// How large the log of a database is, and who keeps it from being shortened.
pub(super) fn look(database: &Path, limit: u64) -> LogSize {
    let bytes = size(database);
    LogSize { bytes, limit, readers: if bytes > limit { readers(database) } else { Vec::new() } }
}

/// Bytes of the log.
pub(super) fn size(database: &Path) -> u64 {
    std::fs::metadata(files::path_beside(database, "wal")).map_or(0, |file| file.len())
}

/// Warns when the log has grown over its limit, and not again for a while.
pub(super) struct WalWatch {
    clock: Arc<dyn Clock>,
    limit: u64,
    warned: Option<Duration>,
}

impl WalWatch {
    pub(super) fn new(limit: u64, clock: Arc<dyn Clock>) -> Self {
        Self { clock, limit, warned: None }
    }

    /// True if it warned.
    pub(super) fn check(&mut self, database: &Path) -> bool {
        let now = self.clock.monotonic();
        if size(database) <= self.limit || self.warned.is_some_and(|at| now.saturating_sub(at) < WARNING_INTERVAL) {
            return false;
        }
        self.warned = Some(now);
        let LogSize { bytes, limit, readers } = look(database, self.limit);
        let readers = if readers.is_empty() { "unknown".to_owned() } else { readers.join(", ") };
        tracing::warn!(
            file = %files::path_beside(database, "wal").display(), bytes, limit, readers,
            hint = "end the process that keeps a read transaction open, such as a backup or a database shell; iolaus doctor names it",
            "the write-ahead log grows: a reader of an older state keeps it from being shortened"
        );
        true
    }
}

/// The other processes that read the file at this moment, where the system tells.
fn readers(database: &Path) -> Vec<String> {
    let Ok(shared) = std::fs::metadata(files::path_beside(database, "shm")) else { return Vec::new() };
    let locks = lock_table::locks(shared.ino()).into_iter();
    let reading = locks.filter(|lock| is_reading(lock.kind)).map(|lock| lock.process);
    let pids: BTreeSet<u32> = reading.filter(|pid| *pid != std::process::id()).collect();
    pids.into_iter().map(|pid| format!("{} (pid {pid})", lock_table::command(pid))).collect()
}

/// Whether this lock of the shared memory is one of who reads.
fn is_reading(kind: LockKind) -> bool {
    matches!(kind, LockKind::Read(byte) if READ_LOCKS.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use iolaus_activities::ManualClock;

    #[tokio::test]
    async fn a_log_over_its_limit_is_warned_of_once_in_ten_minutes() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("t.db");
        let clock = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
        let mut watch = WalWatch::new(100, clock.clone());
        assert!(!watch.check(&database), "there is no log");
        std::fs::write(files::path_beside(&database, "wal"), [0; 100]).unwrap();
        assert!(!watch.check(&database), "it is at its limit");
        std::fs::write(files::path_beside(&database, "wal"), [0; 101]).unwrap();
        assert!(watch.check(&database) && !watch.check(&database));
        clock.advance(WARNING_INTERVAL).await;
        assert!(watch.check(&database));
    }

    #[test]
    fn who_reads_is_found_by_its_lock_on_the_shared_memory() {
        assert!(is_reading(LockKind::Read(124)));
        assert!(!is_reading(LockKind::Read(128)), "every connection has this lock");
        assert!(!is_reading(LockKind::Write) && !is_reading(LockKind::Whole));
    }
}
