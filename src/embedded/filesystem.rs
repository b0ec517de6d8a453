//! What the operating system says of the place of a queue: whether it is on a network file system, where SQLite's shared memory does not
//! reach the other hosts; how much space is left; whether this process may open more files.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// A connection opens three files, a listener and its directory two.
const DESCRIPTORS: u64 = 8;

/// What statfs(2) says of every file system in user space: sshfs, s3fs, virtiofs and many others. What they do with shared
/// memory differs.
#[cfg(target_os = "linux")]
const FUSE: &str = "FUSE";
/// Those of them that are on a disk of this machine: of a block device, and the root of a container of a rootless engine.
#[cfg(target_os = "linux")]
const LOCAL_FUSE: [&str; 2] = ["fuseblk", "fuse.fuse-overlayfs"];

/// The name of the network file system that `dir` is on, if it is one and that can be told.
#[cfg(target_os = "linux")]
#[expect(clippy::useless_conversion, reason = "the type of f_type differs between architectures")]
pub(super) fn network_kind(dir: &Path) -> Option<&'static str> {
    let kind = kind_of(rustix::fs::statfs(dir).ok()?.f_type.into())?;
    if kind == FUSE && is_local_fuse(dir) { None } else { Some(kind) }
}

/// Elsewhere nothing can be told.
#[cfg(not(target_os = "linux"))]
pub(super) fn network_kind(_: &Path) -> Option<&'static str> {
    None
}

/// The name of the file system in memory that `dir` is on, if it is one and that can be told.
#[cfg(target_os = "linux")]
#[expect(clippy::useless_conversion, reason = "the type of f_type differs between architectures")]
pub(super) fn memory_kind(dir: &Path) -> Option<&'static str> {
    let magic: i64 = rustix::fs::statfs(dir).ok()?.f_type.into();
    match magic & 0xFFFF_FFFF {
        0x0102_1994 => Some("tmpfs"),
        0x8584_58F6 => Some("ramfs"),
        _ => None,
    }
}

/// Elsewhere nothing can be told.
#[cfg(not(target_os = "linux"))]
pub(super) fn memory_kind(_: &Path) -> Option<&'static str> {
    None
}

/// How many bytes are free for this user on the file system of a directory.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether an error means that this process, or this machine, may open no more files.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether this process may open some more files. SQLite says only that it could not open one.
pub(super) fn has_descriptors_left() -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return true };
    match std::fs::read_dir("/proc/self/fd") {
        Ok(open) => open.count() as u64 + DESCRIPTORS < limit,
        Err(error) => !is_out_of_descriptors(&error),
    }
}

/// Whether a file system in user space is known to be on a disk of this machine.
#[cfg(target_os = "linux")]
fn is_local_fuse(dir: &Path) -> bool {
    let Ok(stat) = rustix::fs::stat(dir) else { return false };
    let device = format!("{}:{}", rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_type(&mounts, &device).is_some_and(|kind| LOCAL_FUSE.contains(&kind))
}

/// The type of the file system on a device, `major:minor`, out of /proc/self/mountinfo.
#[cfg(target_os = "linux")]
fn mount_type<'a>(mounts: &'a str, device: &str) -> Option<&'a str> {
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    mount.split_once(" - ")?.1.split(' ').next()
}

/// The magic numbers of statfs(2).
#[cfg(target_os = "linux")]
fn kind_of(magic: i64) -> Option<&'static str> {
    Some(match magic & 0xFFFF_FFFF {
        0x6969 => "NFS",
        0x517B => "SMB",
        0xFF53_4D42 => "CIFS",
        0xFE53_4D42 => "SMB2",
        0x5346_414F => "AFS",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD0 => "Lustre",
        0x0102_1997 => "9p",
        0x7461_636F => "OCFS2",
        0x0116_1970 => "GFS2",
        0x6573_5546 => FUSE,
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0x2003_0528 => "OrangeFS",
        0x7375_7245 => "Coda",
        0x6B41_4653 => "kAFS",
        0x564C => "NCP",
        0xBACB_ACBC => "VMware shared folders",
        0x786F_4256 => "VirtualBox shared folders",
        0x7C7C_6673 => "Parallels shared folders",
        0xAAD7_AAEA => "PanFS",
        _ => return None,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_in_user_space_is_told_by_its_mount() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      612 560 0:52 / / rw,nodev,relatime - fuse.fuse-overlayfs fuse-overlayfs rw,user_id=0\n\
                      613 560 0:53 / /mnt rw,nosuid shared:9 master:2 - fuse.sshfs host:/ rw\n";
        assert_eq!(mount_type(mounts, "0:52"), Some("fuse.fuse-overlayfs"));
        assert_eq!(mount_type(mounts, "0:53"), Some("fuse.sshfs"));
        assert_eq!(mount_type(mounts, "0:5"), None);
    }

    #[test]
    fn network_file_systems_are_known_by_name_and_local_ones_are_not() {
        assert_eq!(kind_of(0x6969), Some("NFS"));
        // A 32-bit f_type is sign-extended.
        assert_eq!(kind_of(i64::from(0xFF53_4D42_u32.cast_signed())), Some("CIFS"));
        assert_eq!(kind_of(0x6573_5546), Some("FUSE"));
        assert_eq!(kind_of(0xEF53), None, "ext4");
        assert_eq!(network_kind(Path::new("/dev/shm")), None, "tmpfs");
    }
}
