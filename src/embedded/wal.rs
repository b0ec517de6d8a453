//! Watches the write-ahead log. It is shortened when no one reads an older state of the file; a reader that never ends makes it grow
//! without bound, and only an operator can end that reader.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::Clock;

use super::files;
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
#[cfg(target_os = "linux")]
fn readers(database: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(shared) = std::fs::metadata(files::path_beside(database, "shm")) else { return Vec::new() };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let pids: std::collections::BTreeSet<u32> = locks.lines().filter_map(|line| reader(line, shared.ino())).collect();
    let name = |pid: u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{} (pid {pid})", if name.is_empty() { "process" } else { name.trim_end() })
    };
    pids.into_iter().filter(|pid| *pid != std::process::id()).map(name).collect()
}

#[cfg(not(target_os = "linux"))]
fn readers(_: &Path) -> Vec<String> {
    Vec::new()
}

/// The process that holds a read lock of this inode, if that is what a line of `/proc/locks` says:
/// `1: POSIX  ADVISORY  READ 4321 08:01:1234 123 123`.
#[cfg(target_os = "linux")]
fn reader(line: &str, inode: u64) -> Option<u32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, "READ", pid, file, start, _] = words[..] else { return None };
    let of_file = file.rsplit(':').next()?.parse::<u64>().ok()? == inode;
    (of_file && READ_LOCKS.contains(&start.parse().ok()?)).then_some(pid.parse().ok()?)
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

    #[cfg(target_os = "linux")]
    #[test]
    fn who_reads_is_found_by_its_lock_on_the_shared_memory() {
        assert_eq!(reader("1: POSIX  ADVISORY  READ 4321 fe:01:1234 124 124", 1234), Some(4321));
        assert_eq!(reader("1: POSIX  ADVISORY  READ 4321 fe:01:1234 128 128", 1234), None, "every connection has this lock");
        assert_eq!(reader("1: POSIX  ADVISORY  WRITE 4321 fe:01:1234 124 124", 1234), None);
        assert_eq!(reader("1: POSIX  ADVISORY  READ 4321 fe:01:99 124 124", 1234), None);
        assert_eq!(reader("1: -> POSIX  ADVISORY  READ 4321 fe:01:1234 124 124", 1234), None, "it waits for the lock");
    }
}
