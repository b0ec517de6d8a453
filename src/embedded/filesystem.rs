//! Whether a directory is on a network file system, where SQLite's shared memory does not reach the other hosts.

use std::path::Path;

/// The name of the network file system that `dir` is on, if it is one and that can be told.
#[cfg(target_os = "linux")]
#[expect(clippy::useless_conversion, reason = "the type of f_type differs between architectures")]
pub(super) fn network_kind(dir: &Path) -> Option<&'static str> {
    kind_of(rustix::fs::statfs(dir).ok()?.f_type.into())
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
        _ => return None,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_name_and_local_ones_are_not() {
        assert_eq!(kind_of(0x6969), Some("NFS"));
        // A 32-bit f_type is sign-extended.
        assert_eq!(kind_of(i64::from(0xFF53_4D42_u32.cast_signed())), Some("CIFS"));
        assert_eq!(kind_of(0xEF53), None, "ext4");
        assert_eq!(network_kind(Path::new("/dev/shm")), None, "tmpfs");
    }
}
