//! Which processes have a file locked, as the system's table of locks tells. It names those that this process can see: the ones of other
//! containers are missing.

use std::collections::BTreeSet;

use super::store::Holder;

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) process: u32,
    pub(super) kind: LockKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockKind {
    /// By flock(2).
    Whole,
    /// By fcntl(2), as SQLite's: to read, from this byte.
    Read(u64),
    /// By fcntl(2), to write.
    Write,
}

/// The locks of a file, by its inode.
#[cfg(target_os = "linux")]
pub(super) fn locks(inode: u64) -> Vec<Lock> {
    let table = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    table.lines().filter_map(|line| lock(line, inode)).collect()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn locks(_: u64) -> Vec<Lock> {
    Vec::new()
}

/// What a line of `/proc/locks` says, if it is about this inode: `1: POSIX  ADVISORY  READ 4321 08:01:1234 123 123`.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has this table"))]
fn lock(line: &str, inode: u64) -> Option<Lock> {
    let words: Vec<&str> = line.split_whitespace().collect();
    // One that waits for a lock has a word more.
    let [_, by, _, mode, process, file, start, _] = words[..] else { return None };
    if file.rsplit(':').next()?.parse::<u64>().ok()? != inode {
        return None;
    }
    let kind = match (by, mode) {
        ("FLOCK", _) => LockKind::Whole,
        (_, "READ") => LockKind::Read(start.parse().ok()?),
        _ => LockKind::Write,
    };
    Some(Lock { process: process.parse().ok()?, kind })
}

/// A program that has locked a database with flock(2) and does not use it with SQLite, as each of our processes does.
pub(super) fn other_program(locks: &[Lock]) -> Option<Holder> {
    let users: BTreeSet<u32> = locks.iter().filter(|lock| lock.kind != LockKind::Whole).map(|lock| lock.process).collect();
    let other = locks.iter().find(|lock| lock.kind == LockKind::Whole && !users.contains(&lock.process))?;
    Some(Holder { process: other.process, command: command(other.process), is_seen: true })
}

/// The name of a process's program.
pub(super) fn command(process: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    if name.trim().is_empty() { "process".to_owned() } else { name.trim_end().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_says_who_has_which_lock() {
        let of = |line, inode| lock(line, inode).map(|lock| (lock.process, lock.kind));
        assert_eq!(of("1: POSIX  ADVISORY  READ 4321 fe:01:1234 124 124", 1234), Some((4321, LockKind::Read(124))));
        assert_eq!(of("1: POSIX  ADVISORY  WRITE 4321 fe:01:1234 124 124", 1234), Some((4321, LockKind::Write)));
        assert_eq!(of("2: FLOCK  ADVISORY  READ 4321 fe:01:1234 0 EOF", 1234), Some((4321, LockKind::Whole)));
        assert_eq!(of("1: POSIX  ADVISORY  READ 4321 fe:01:99 124 124", 1234), None);
        assert_eq!(of("1: -> POSIX  ADVISORY  READ 4321 fe:01:1234 124 124", 1234), None, "it waits for the lock");
    }

    #[test]
    fn a_program_that_only_locks_a_database_is_none_of_ours() {
        let lock = |process, kind| Lock { process, kind };
        let ours = [lock(7, LockKind::Whole), lock(7, LockKind::Read(1_073_741_826))];
        assert_eq!(other_program(&ours), None);
        assert_eq!(other_program(&[lock(8, LockKind::Read(1))]), None);
        let theirs = [&ours[..], &[lock(u32::MAX, LockKind::Whole)]].concat();
        assert_eq!(other_program(&theirs), Some(Holder { process: u32::MAX, command: "process".into(), is_seen: true }));
    }
}
