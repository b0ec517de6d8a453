//! Who may write to a file, and opening it without following links. A place that another user can write to is refused with the reason and
//! the command that fixes it, as ssh does.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use super::error::StoreError;
use super::files::FileId;

/// That a place cannot be trusted: `fix` is the command, without the path.
pub(super) fn unsafe_file(path: &Path, reason: String, fix: &str) -> StoreError {
    let fix = format!("{fix} {}", iolaus_activities::shell_word(&path.to_string_lossy()));
    StoreError::Unsafe { path: path.to_owned(), reason, fix }
}

/// Writable by the group or by others.
const WRITABLE: u32 = 0o022;
/// Writable by every user. A group may be the orchestrator's own.
const WRITABLE_BY_ALL: u32 = 0o002;
/// What the group and all others may do with a file.
const OF_OTHERS: u32 = 0o077;
/// In such a directory only the owner of a file may replace it.
const STICKY: u32 = 0o1000;

/// Whose files these are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    us: Uid,
    user: Uid,
    group: Gid,
}

impl Owner {
    /// Files that root creates beside another user's queue are that user's.
    pub(super) fn of_files(directory: &Entry, database: Option<&Entry>) -> Self {
        let us = rustix::process::geteuid();
        let model = database.unwrap_or(directory);
        if us.is_root() {
            return Self { us, user: Uid::from_raw(model.uid), group: Gid::from_raw(model.gid) };
        }
        Self { us, user: us, group: rustix::process::getegid() }
    }

    /// Gives a file that root has just created to the owner of the queue.
    pub(super) fn take(&self, file: &File, entry: &Entry) -> io::Result<()> {
        if self.us.is_root() && !self.user.is_root() && entry.uid == 0 && (entry.links == 1 || entry.kind == FileType::Directory) {
            rustix::fs::fchown(file, Some(self.user), Some(self.group))?;
        }
        Ok(())
    }

    /// The same for a socket in a directory of ours, which all who may write there may send to.
    pub(super) fn take_socket(&self, directory: &File, name: &str) -> io::Result<()> {
        rustix::fs::chmodat(directory, name, Mode::from_raw_mode(0o600), AtFlags::empty())?;
        if self.us.is_root() && !self.user.is_root() {
            rustix::fs::chownat(directory, name, Some(self.user), Some(self.group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn trusts(&self, uid: u32) -> bool {
        uid == 0 || uid == self.us.as_raw() || uid == self.user.as_raw()
    }
}

/// What is known of a file or directory.
pub(super) struct Entry {
    mode: u32,
    uid: u32,
    gid: u32,
    kind: FileType,
    /// A file of root with other names is not given away.
    links: u64,
}

impl From<Stat> for Entry {
    #[expect(clippy::useless_conversion, reason = "these types differ between systems")]
    fn from(stat: Stat) -> Self {
        Self {
            mode: u32::from(stat.st_mode),
            uid: stat.st_uid,
            gid: stat.st_gid,
            kind: FileType::from_raw_mode(stat.st_mode),
            links: stat.st_nlink.into(),
        }
    }
}

impl Entry {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(rustix::fs::fstat(file)?.into())
    }

    /// None if it is not there. A link is what it is, and not what it points to.
    pub(super) fn at(directory: &File, name: impl rustix::path::Arg) -> io::Result<Option<Self>> {
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it is a socket of somebody who may write to the queue.
    pub(super) fn is_our_socket(&self, owner: &Owner) -> bool {
        self.kind == FileType::Socket && owner.trusts(self.uid)
    }

    pub(super) fn check_directory(&self, path: &Path, owner: &Owner) -> Result<(), StoreError> {
        self.check_owner(path, owner, |user, word| format!("chown {user} {word}"))?;
        if self.mode & WRITABLE != 0 && self.mode & STICKY == 0 {
            return Err(writable(path, self.mode));
        }
        Ok(())
    }

    pub(super) fn check_file(&self, path: &Path, owner: &Owner) -> Result<(), StoreError> {
        if self.kind != FileType::RegularFile {
            let what = if self.kind == FileType::Symlink { "is a symbolic link" } else { "is not an ordinary file" };
            return Err(unsafe_file(path, what.to_owned(), "ls -l"));
        }
        // What another user has written may be planted: as a journal or a log, it would be merged with the database.
        self.check_owner(path, owner, |user, word| {
            format!("ls -l {word}; if that user may decide what jobs run here, chown {user} {word}, and else rm {word}")
        })?;
        if self.mode & WRITABLE != 0 {
            return Err(writable(path, self.mode));
        }
        Ok(())
    }

    /// Refuses a file beside the database that has other names: what is written to it would be written to another file.
    pub(super) fn check_own_name(&self, path: &Path) -> Result<(), StoreError> {
        if self.links > 1 {
            let reason =
                format!("has {} names (hard links), and what is written to it would be written to another file", self.links);
            return Err(unsafe_file(path, reason, "find / -xdev -samefile"));
        }
        Ok(())
    }

    /// Refuses a database that has other names: processes that come by different ones have different logs and locks.
    pub(super) fn check_only_name(&self, directory: &File, name: &OsStr, path: &Path) -> Result<(), StoreError> {
        if self.links > 1 {
            let reason = format!("has {} names (hard links), each with a log of its own: keep one of them", self.links);
            return Err(unsafe_file(path, reason, "find / -xdev -samefile"));
        }
        if is_mounted(directory, name) {
            let reason = "is mounted by itself, so that its log is not kept with it: mount its directory instead".to_owned();
            return Err(unsafe_file(path, reason, "findmnt"));
        }
        Ok(())
    }

    /// Refuses to act as root on what another user can write: that user would act with what only root may read.
    pub(super) fn check_may_work(&self, path: &Path) -> Result<(), StoreError> {
        let (user, group) = (self.uid, self.gid);
        if !rustix::process::geteuid().is_root() || user == 0 {
            return Ok(());
        }
        let reason = format!("belongs to the user with the id {user}, whose jobs are not run with the credentials of root");
        let word = iolaus_activities::shell_word(&path.to_string_lossy()).into_owned();
        let fix = format!(
            "run it as that user (`setpriv --reuid={user} --regid={group} --clear-groups iolaus …`), or, if its jobs are root's, `chown root {word}`"
        );
        Err(StoreError::Unsafe { path: path.to_owned(), reason, fix })
    }

    /// Takes the rights of the group and of others away from a file of ours, as a new one has none: who may read it may also lock it.
    pub(super) fn make_private(&self, directory: &File, name: &OsStr, path: &Path) {
        // One with another name may be another file of ours.
        if self.mode & OF_OTHERS == 0 || self.links > 1 {
            return;
        }
        match rustix::fs::chmodat(directory, name, Mode::from_raw_mode(0o600), AtFlags::empty()) {
            Ok(()) => tracing::info!(file = %path.display(), mode = format!("{:04o}", self.mode & 0o7777), "made private again"),
            // It is root's, or its file system has no modes.
            Err(error) => tracing::debug!(%error, file = %path.display(), "could not be made private"),
        }
    }

    /// `fix`: the command for the user that it should belong to, and its path.
    fn check_owner(&self, path: &Path, owner: &Owner, fix: impl FnOnce(u32, &str) -> String) -> Result<(), StoreError> {
        if owner.trusts(self.uid) {
            return Ok(());
        }
        let (theirs, us) = (self.uid, owner.us.as_raw());
        let reason = format!("belongs to the user with the id {theirs}, and this process runs as {us}");
        let fix = fix(owner.user.as_raw(), &iolaus_activities::shell_word(&path.to_string_lossy()));
        Err(StoreError::Unsafe { path: path.to_owned(), reason, fix })
    }
}

fn writable(path: &Path, mode: u32) -> StoreError {
    unsafe_file(path, format!("is writable by other users (mode {:04o})", mode & 0o7777), "chmod go-w")
}

/// Opens a directory to work in, without following a link.
pub(super) fn open_directory(within: Option<&File>, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match within {
        Some(directory) => rustix::fs::openat(directory, path, flags, Mode::empty()),
        None => rustix::fs::openat(CWD, path, flags, Mode::empty()),
    };
    Ok(opened?.into())
}

/// Opens a file that only its owner reads, creating it if it is not there.
pub(super) fn open_private(directory: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?.into())
}

/// Opens a file to read.
pub(super) fn open_to_read(directory: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?.into())
}

/// Creates a private directory, unless something of that name is there.
pub(super) fn create_directory(directory: &File, name: &OsStr) -> io::Result<()> {
    match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Creates a directory that only its owner reads, with its parents. What root creates belongs to the owner of the directory above it.
pub(super) fn create_private_directories(path: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && std::fs::symlink_metadata(path).is_err();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    for directory in missing.into_iter().rev() {
        match std::fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => continue,
            Ok(()) => {}
        }
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let above = std::fs::metadata(parent)?;
        if rustix::process::geteuid().is_root() && above.uid() != 0 {
            let created = open_directory(None, directory)?;
            rustix::fs::fchown(&created, Some(Uid::from_raw(above.uid())), Some(Gid::from_raw(above.gid())))?;
        }
    }
    Ok(())
}

/// Creates a file that only its owner reads, unless there is one. An existing file is not opened: closing it again would drop the locks
/// that SQLite holds on it for this whole process.
pub(super) fn create_private_file(path: &Path) -> io::Result<()> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// What it means that something could not be opened without following a link.
pub(super) fn refused(error: io::Error, path: &Path) -> StoreError {
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => unsafe_file(path, "is a symbolic link".to_owned(), "rm"),
        Some(Errno::NOTDIR) => unsafe_file(path, "is not a directory".to_owned(), "ls -l"),
        Some(Errno::ACCESS | Errno::PERM) if std::fs::symlink_metadata(path).is_ok() => {
            StoreError::Denied { path: path.to_owned(), error: Arc::new(error) }
        }
        _ => error.into(),
    }
}

/// Why this file may not be read and written, if it is there. It is not opened.
pub(super) fn denied(path: &Path) -> Option<StoreError> {
    match rustix::fs::accessat(CWD, path, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS) {
        Err(error @ (Errno::ACCESS | Errno::PERM)) => Some(refused(error.into(), path)),
        _ => None,
    }
}

/// The mode of a directory in which other users can create files, if it is one.
pub(super) fn mode_where_others_create(directory: &Path) -> Option<u32> {
    let mode = std::fs::metadata(directory).ok()?.mode() & 0o7777;
    (mode & WRITABLE != 0).then_some(mode)
}

/// The directories above one that every user may write to: there it can be replaced. A sticky one is none of them.
pub(super) fn replaceable_by_all(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mode = |path: &Path| std::fs::metadata(path).map_or(0, |above| above.mode() & 0o7777);
    let open = directory.ancestors().skip(1).map(|above| (above.to_owned(), mode(above)));
    open.filter(|(_, mode)| mode & WRITABLE_BY_ALL != 0 && mode & STICKY == 0).collect()
}

#[cfg(target_os = "linux")]
fn is_mounted(directory: &File, name: &OsStr) -> bool {
    use rustix::fs::{StatxAttributes, StatxFlags, statx};
    let found = statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    // An older kernel does not tell.
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mounted(_: &File, _: &OsStr) -> bool {
    false
}

/// When a file was created, in nanoseconds since 1970. None if it is not there, or the file system does not tell.
pub(super) fn birth(path: &Path) -> Option<i64> {
    let created = std::fs::symlink_metadata(path).ok()?.created().ok()?;
    created.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos().try_into().ok()
}

/// Whether another process has locked a part of this file with fcntl(2), as SQLite does.
pub(super) fn has_record_lock(file: &File) -> io::Result<bool> {
    let any = Flock { start: 0, length: 0, pid: None, typ: FlockType::WriteLock, offset_type: FlockOffsetType::Set };
    Ok(fcntl_getlk(file, &any)?.is_some())
}

/// Which file this is.
pub(super) fn id_of(file: &File) -> io::Result<FileId> {
    file.metadata().map(|file| (file.dev(), file.ino()))
}

/// Which file a path names now. None if it is not there.
pub(super) fn id(path: &Path) -> io::Result<Option<FileId>> {
    match std::fs::symlink_metadata(path) {
        Ok(file) => Ok(Some((file.dev(), file.ino()))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}
