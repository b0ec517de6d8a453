//! The files of a queue: the database, its log, and what is beside them. Everything beside the database is opened by name in its
//! directory, which is held open, without following links, and is used only if no other user can write to it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::StoreError;
use super::permissions::{self, Entry, Owner};

/// Which file a path names: device and inode.
pub(super) type FileId = (u64, u64);

/// The first bytes of every SQLite database.
const SQLITE: &[u8; 16] = b"SQLite format 3\0";
/// Where SQLite's header keeps the application id.
const APPLICATION_ID_AT: usize = 68;
/// Its size in pages.
const PAGES_AT: usize = 28;
/// Whether it is vacuumed a few pages at a time.
const INCREMENTAL_AT: usize = 64;
const HEADER: usize = 100;

/// The files that a database is made of while it is in use. A process that has it open keeps each of them from being reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) database: FileId,
    pub(super) wal: Option<FileId>,
    pub(super) shm: Option<FileId>,
    /// The file `-open`, which its processes have locked.
    pub(super) open: Option<FileId>,
}

/// When the database and its log were created, in nanoseconds, where the file system tells: the number of an inode is used again.
pub(super) type Births = [Option<i64>; 2];

/// The directory of a database.
#[derive(Debug)]
pub(super) struct StateDirectory {
    handle: File,
    database: PathBuf,
    /// Whose the files are that are created here.
    owner: Owner,
}

impl StateDirectory {
    /// Opens the directory of a database, which is created if it is not there. The path is resolved first, so that all processes agree on it
    /// whichever links they came by.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, StoreError> {
        let database = resolve(path)?;
        let parent = database.parent().unwrap_or(Path::new("/"));
        let handle = permissions::open_directory(None, parent)?;
        let directory = Entry::of(&handle)?;
        let file = Entry::at(&handle, file_name(&database))?;
        let owner = Owner::of_files(&directory, file.as_ref());
        directory.check_directory(parent, &owner)?;
        let place = Self { handle, database, owner };
        for suffix in ["", "-wal", "-shm", "-journal"] {
            if let Some(entry) = Entry::at(&place.handle, place.name(suffix))? {
                entry.check_file(&place.path(suffix), &place.owner)?;
                if !suffix.is_empty() {
                    entry.check_own_name(&place.path(suffix))?;
                }
                entry.make_private(&place.handle, &place.name(suffix), &place.path(suffix));
            }
        }
        if let Some(file) = file {
            file.check_only_name(&place.handle, &place.name(""), &place.database)?;
        }
        Ok(Arc::new(place))
    }

    /// The database, its path resolved.
    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    pub(super) fn directory(&self) -> &Path {
        self.database.parent().unwrap_or(Path::new("/"))
    }

    /// `iolaus.db` -> `/DIRECTORY/iolaus.dbSUFFIX`.
    fn path(&self, suffix: &str) -> PathBuf {
        let mut path = self.database.as_os_str().to_owned();
        path.push(suffix);
        path.into()
    }

    fn name(&self, suffix: &str) -> OsString {
        let mut name = file_name(&self.database).to_owned();
        name.push(suffix);
        name
    }

    /// Refuses a file that is not ours before anything is created beside it. `application_id` is that of our files.
    pub(super) fn check_kind(&self, application_id: u32) -> Result<(), StoreError> {
        // Closing the database drops the locks that SQLite holds on it for this whole process: it is not opened where it may be in use.
        if Entry::at(&self.handle, self.name("-write"))?.is_some() || Entry::at(&self.handle, self.name(""))?.is_none() {
            return Ok(());
        }
        let mut header = Vec::new();
        let file = permissions::open_to_read(&self.handle, &self.name(""))?;
        io::Read::read_to_end(&mut io::Read::take(file, HEADER as u64), &mut header)?;
        if header.is_empty() {
            return Ok(());
        }
        if header.len() < HEADER || !header.starts_with(SQLITE) {
            return Err(StoreError::NoDatabase);
        }
        let number = |at: usize| header[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        // One that was begun and has no table yet: opening it to write takes a closer look.
        let is_begun = number(APPLICATION_ID_AT) == 0 && number(PAGES_AT) <= 1 && number(INCREMENTAL_AT) != 0;
        if number(APPLICATION_ID_AT) == application_id || is_begun { Ok(()) } else { Err(StoreError::Foreign) }
    }

    /// Opens the database to lock it.
    pub(super) fn open_database(&self) -> Result<File, StoreError> {
        let opened = permissions::open_to_read(&self.handle, &self.name(""));
        opened.map_err(|error| permissions::refused(error, &self.database))
    }

    /// Which file the database is now.
    pub(super) fn database_id(&self) -> io::Result<Option<FileId>> {
        permissions::id(&self.database)
    }

    /// When the database and its log were created.
    pub(super) fn births(&self) -> Births {
        ["", "-wal"].map(|suffix| permissions::birth(&self.path(suffix)))
    }

    /// The path of the log.
    pub(super) fn log(&self) -> PathBuf {
        self.path("-wal")
    }

    /// Which of the files that SQLite opens may not be read and written, if one is to blame for this error.
    pub(super) fn blame(&self, error: StoreError) -> StoreError {
        if !error.is_denied() {
            return error;
        }
        let denied = ["", "-wal", "-shm", "-journal"].map(|suffix| permissions::denied(&self.path(suffix)));
        denied.into_iter().flatten().next().unwrap_or(error)
    }

    /// Refuses to do the work of another user's queue with what only root may do.
    pub(super) fn check_may_work(&self) -> Result<(), StoreError> {
        let (directory, file) = (Entry::of(&self.handle)?, Entry::at(&self.handle, self.name(""))?);
        directory.check_may_work(self.directory())?;
        file.map_or(Ok(()), |file| file.check_may_work(&self.database))
    }

    /// Creates the database, empty and private, unless it is there.
    pub(super) fn create_database(&self) -> Result<(), StoreError> {
        if Entry::at(&self.handle, self.name(""))?.is_none() {
            self.private_file("")?;
        }
        Ok(())
    }

    /// Opens the file `-NAME` beside the database, private to the owner of the queue. It is created if it is not there.
    pub(super) fn beside(&self, name: &str) -> Result<File, StoreError> {
        self.private_file(&format!("-{name}"))
    }

    fn private_file(&self, suffix: &str) -> Result<File, StoreError> {
        let path = self.path(suffix);
        let file =
            permissions::open_private(&self.handle, &self.name(suffix)).map_err(|error| permissions::refused(error, &path))?;
        let entry = Entry::of(&file)?;
        self.owner.take(&file, &entry)?;
        entry.check_file(&path, &self.owner)?;
        if !suffix.is_empty() {
            entry.check_own_name(&path)?;
        }
        entry.make_private(&self.handle, &self.name(suffix), &path);
        Ok(file)
    }

    /// Opens the directory `-NAME` beside the database, private to the owner of the queue. It is created if it is not there.
    pub(super) fn directory_beside(&self, name: &str) -> Result<File, StoreError> {
        let (name, path) = (self.name(&format!("-{name}")), self.path(&format!("-{name}")));
        permissions::create_directory(&self.handle, &name)?;
        let directory = permissions::open_directory(Some(&self.handle), Path::new(&name));
        let directory = directory.map_err(|error| permissions::refused(error, &path))?;
        let entry = Entry::of(&directory)?;
        self.owner.take(&directory, &entry)?;
        entry.check_directory(&path, &self.owner)?;
        Ok(directory)
    }

    /// Whose the files of this queue are.
    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Which file or directory `-NAME` beside the database is now.
    pub(super) fn id_beside(&self, name: &str) -> io::Result<Option<FileId>> {
        permissions::id(&self.path(&format!("-{name}")))
    }

    /// The files that the database is made of now.
    pub(super) fn identity(&self) -> io::Result<Option<Identity>> {
        let Some(database) = permissions::id(&self.database)? else { return Ok(None) };
        let [wal, shm, open] = ["-wal", "-shm", "-open"].map(|suffix| permissions::id(&self.path(suffix)));
        Ok(Some(Identity { database, wal: wal?, shm: shm?, open: open? }))
    }

    /// Refuses to go on with files that are not those that were opened.
    pub(super) fn verify(&self, opened: &Identity) -> Result<(), StoreError> {
        let now = self.identity()?;
        if now.as_ref() == Some(opened) {
            return Ok(());
        }
        let what = match now {
            Some(now) if now.database == opened.database && now.wal != opened.wal => "-wal",
            Some(now) if now.database == opened.database && now.shm != opened.shm => "-shm",
            Some(now) if now.database == opened.database => "-open",
            _ => "",
        };
        Err(StoreError::Replaced { path: self.path(what) })
    }
}

/// `iolaus.db` -> `iolaus.db-NAME`.
pub(super) fn path_beside(database: &Path, name: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-");
    path.push(name);
    path.into()
}

fn file_name(database: &Path) -> &std::ffi::OsStr {
    database.file_name().unwrap_or_default()
}

/// The path without links. The file need not be there; its directory is created.
fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not name a file").into());
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    permissions::create_private_directories(parent)?;
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let resolved = std::fs::canonicalize(parent)?.join(name);
            // Anything else was created meanwhile.
            if std::fs::symlink_metadata(&resolved).is_ok_and(|found| found.is_symlink()) {
                let reason = "is a symbolic link to a file that is not there".to_owned();
                return Err(permissions::unsafe_file(&resolved, reason, "rm"));
            }
            Ok(resolved)
        }
        resolved => Ok(resolved?),
    }
}

#[cfg(test)]
mod tests;
