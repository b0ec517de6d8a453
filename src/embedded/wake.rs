//! Wakes other processes on the same file within milliseconds, without a poll: each listener binds a datagram socket in a directory
//! beside the database, and whoever has committed something sends one byte to each whom it concerns. What concerns a listener is in the
//! name of its socket, so that hundreds who wait cost a working queue nothing. A lost wake costs a little time, never a job: every
//! process looks again every few seconds.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType};

use super::error::StoreError;
use super::files::{FileId, StateDirectory};
use super::permissions::{Entry, id_of};

const DIRECTORY: &str = "wake";
/// Hexadecimal digits of a listener's own name.
const OWN: usize = 32;

/// What a process wants to be woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// Everything: it runs jobs.
    Everything,
    /// Any execution that is closed: it waits for several.
    AnyClosed,
    /// That this one is closed.
    Closed(i64),
}

/// What was committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct News<'a> {
    pub(super) closed: &'a [i64],
}

impl Interest {
    fn in_this(self, news: News<'_>) -> bool {
        match self {
            Self::Everything => true,
            Self::AnyClosed => !news.closed.is_empty(),
            Self::Closed(id) => news.closed.contains(&id),
        }
    }

    /// The name of a socket.
    fn name(self, own: &str) -> String {
        match self {
            Self::Everything => format!("{own}.sock"),
            Self::AnyClosed => format!("{own}-closed.sock"),
            Self::Closed(id) => format!("{own}-{id:016x}.sock"),
        }
    }

    /// Whose name this is and what it asks for. None if it is no name of ours.
    fn of(name: &str) -> Option<(&str, Self)> {
        let (own, rest) = name.strip_suffix(".sock")?.split_at_checked(OWN)?;
        own.bytes().all(is_hex).then_some(())?;
        let interest = match rest.strip_prefix('-') {
            None if rest.is_empty() => Self::Everything,
            Some("closed") => Self::AnyClosed,
            Some(id) if id.len() == 16 && id.bytes().all(is_hex) => Self::Closed(i64::from_str_radix(id, 16).ok()?),
            _ => return None,
        };
        Some((own, interest))
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// Sends wakes.
pub(super) struct Waker {
    place: Arc<StateDirectory>,
    directory: Mutex<Arc<Directory>>,
    socket: Option<UnixDatagram>,
    own: String,
    bound: Arc<Mutex<Option<Bound>>>,
}

/// The directory of the sockets. It stays open, so that long paths fit a socket address through `/proc/self/fd`.
struct Directory {
    handle: File,
    id: FileId,
}

/// This process's socket.
struct Bound {
    directory: Arc<Directory>,
    name: String,
}

/// Receives wakes until dropped.
pub(super) struct Listener {
    bound: Arc<Mutex<Option<Bound>>>,
    place: Arc<StateDirectory>,
    socket: tokio::net::UnixDatagram,
}

impl Waker {
    pub(super) fn new(place: Arc<StateDirectory>) -> Result<Self, StoreError> {
        let directory = Mutex::new(Arc::new(Directory::open(&place)?));
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket)).ok();
        // Not the process id: every container's is 1.
        let own = uuid::Uuid::new_v4().simple().to_string();
        Ok(Self { place, directory, socket, own, bound: Arc::default() })
    }

    /// Starts to listen under this waker's own name, which it does not wake itself.
    pub(super) fn listen(&self, interest: Interest) -> io::Result<Listener> {
        let directory = self.directory()?;
        let mut bound = lock(&self.bound);
        let name = interest.name(&self.own);
        let socket = tokio::net::UnixDatagram::bind(directory.address(&name))?;
        self.place.owner().take_socket(&directory.handle, &name)?;
        *bound = Some(Bound { directory, name });
        Ok(Listener { bound: self.bound.clone(), place: self.place.clone(), socket })
    }

    /// This process wants to be woken for something else. `interest` is asked while no other change is under way.
    pub(super) fn change(&self, interest: impl FnOnce() -> Interest) {
        let mut bound = lock(&self.bound);
        let Some(Bound { directory, name }) = bound.as_mut() else { return };
        let wanted = interest().name(&self.own);
        if wanted != *name {
            match rustix::fs::renameat(&directory.handle, name.as_str(), &directory.handle, wanted.as_str()) {
                Ok(()) => *name = wanted,
                // Where it was removed, the listener binds again.
                Err(error) => tracing::debug!(%error, "the socket for wakes could not be renamed"),
            }
        }
    }

    /// Wakes every other listener whom this concerns. Sockets of dead processes are removed.
    pub(super) fn wake(&self, news: News<'_>) {
        let (Some(socket), Ok(directory)) = (&self.socket, self.directory()) else { return };
        let Ok(entries) = Dir::read_from(&directory.handle) else { return };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().to_str() else { continue };
            let Some((own, interest)) = Interest::of(name) else { continue };
            if own == self.own || !interest.in_this(news) || !matches!(entry.file_type(), FileType::Socket | FileType::Unknown) {
                continue;
            }
            match socket.send_to(&[1], directory.address(name)) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.remove(&directory, name),
                // A full socket has a wake waiting already.
                _ => {}
            }
        }
    }

    /// Removes the socket of a dead process, and nothing else.
    fn remove(&self, directory: &Directory, name: &str) {
        let entry = Entry::at(&directory.handle, name);
        if entry.is_ok_and(|entry| entry.is_some_and(|entry| entry.is_our_socket(self.place.owner()))) {
            // Another process may have removed it first.
            rustix::fs::unlinkat(&directory.handle, name, AtFlags::empty()).ok();
        }
    }

    /// The directory that is there now: it may have been removed, and made anew by another process.
    fn directory(&self) -> io::Result<Arc<Directory>> {
        let mut directory = lock(&self.directory);
        if self.place.id_beside(DIRECTORY)? != Some(directory.id) {
            *directory = Arc::new(Directory::open(&self.place).map_err(io::Error::other)?);
        }
        Ok(directory.clone())
    }
}

impl Directory {
    fn open(place: &StateDirectory) -> Result<Self, StoreError> {
        let handle = place.directory_beside(DIRECTORY)?;
        let id = id_of(&handle)?;
        Ok(Self { handle, id })
    }

    fn address(&self, name: &str) -> PathBuf {
        if cfg!(target_os = "linux") {
            return format!("/proc/self/fd/{}/{name}", self.handle.as_raw_fd()).into();
        }
        // Elsewhere a descriptor has no path.
        format!("/dev/fd/{}/{name}", self.handle.as_raw_fd()).into()
    }
}

impl Listener {
    /// Ends when another process has committed something. Wakes that have piled up count once.
    pub(super) async fn woken(&self) {
        let mut byte = [0_u8; 8];
        if self.socket.recv(&mut byte).await.is_err() {
            std::future::pending::<()>().await;
        }
        while self.socket.try_recv(&mut byte).is_ok() {}
    }

    /// Whether others can find it: its directory may have been removed.
    pub(super) fn is_in_place(&self) -> bool {
        let bound = lock(&self.bound);
        bound.as_ref().is_some_and(|Bound { directory, name }| {
            let there = self.place.id_beside(DIRECTORY).is_ok_and(|id| id == Some(directory.id));
            there && Entry::at(&directory.handle, name.as_str()).is_ok_and(|entry| entry.is_some())
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(Bound { directory, name }) = lock(&self.bound).take() {
            // Otherwise the next waker removes it.
            rustix::fs::unlinkat(&directory.handle, name.as_str(), AtFlags::empty()).ok();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const NOTHING: News<'static> = News { closed: &[] };

    fn waker(database: &Path) -> Waker {
        Waker::new(StateDirectory::open(database).unwrap()).unwrap()
    }

    fn is_woken(listener: &Listener) -> bool {
        listener.socket.try_recv(&mut [0]).is_ok()
    }

    #[tokio::test]
    async fn a_wake_reaches_others_but_not_oneself_even_under_a_very_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        let database = deep.join("t.db");
        let (one, other) = (waker(&database), waker(&database));
        let (at_one, at_other) = (one.listen(Interest::Everything).unwrap(), other.listen(Interest::Everything).unwrap());
        one.wake(NOTHING);
        one.wake(NOTHING);
        at_other.woken().await;
        other.wake(NOTHING);
        at_one.woken().await;
    }

    #[tokio::test]
    async fn a_process_that_waits_is_woken_for_what_it_waits_for_and_for_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("t.db");
        let (sender, one, many) = (waker(&database), waker(&database), waker(&database));
        let (at_one, at_many) = (one.listen(Interest::AnyClosed).unwrap(), many.listen(Interest::AnyClosed).unwrap());
        one.change(|| Interest::Closed(7));
        for (closed, wakes_one, wakes_many) in [(&[][..], false, false), (&[8][..], false, true), (&[8, 7][..], true, true)] {
            sender.wake(News { closed });
            // Datagrams of one machine are there when they are sent; only the runtime has to hear of them.
            at_one.socket.writable().await.unwrap();
            if wakes_one {
                at_one.woken().await;
            }
            if wakes_many {
                at_many.woken().await;
            }
            assert!(!is_woken(&at_one) && !is_woken(&at_many), "{closed:?}");
        }
        one.change(|| Interest::Everything);
        sender.wake(NOTHING);
        at_one.woken().await;
    }

    #[test]
    fn names_are_read_as_they_were_written_and_others_are_none_of_ours() {
        let own = "0123456789abcdef0123456789abcdef";
        for interest in [Interest::Everything, Interest::AnyClosed, Interest::Closed(1), Interest::Closed(i64::MAX)] {
            assert_eq!(Interest::of(&interest.name(own)), Some((own, interest)));
        }
        for name in ["id_rsa", "1-0.sock", &format!("{own}-7.sock"), &format!("{own}.socket"), &format!("x{own}.sock"), "é.sock"] {
            assert_eq!(Interest::of(name), None, "{name}");
        }
    }

    #[test]
    fn the_socket_of_a_dead_process_is_removed_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let waker = waker(&dir.path().join("t.db"));
        let at = |name: &str| dir.path().join("t.db-wake").join(name);
        let stale = at(&Interest::Everything.name(&"0".repeat(OWN)));
        let foreign = at("foreign.sock");
        for path in [&stale, &foreign] {
            drop(UnixDatagram::bind(path).unwrap());
        }
        let (key, like_ours) = (at("id_rsa"), at(&Interest::Everything.name(&"1".repeat(OWN))));
        for path in [&key, &like_ours] {
            std::fs::write(path, "a private key").unwrap();
        }
        waker.wake(NOTHING);
        assert!(!stale.exists(), "a dead process's");
        assert!(foreign.exists() && key.exists() && like_ours.exists());
    }

    #[tokio::test]
    async fn a_directory_that_was_removed_is_made_anew_and_the_listener_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("t.db");
        let (one, other) = (waker(&database), waker(&database));
        let listener = other.listen(Interest::Everything).unwrap();
        assert!(listener.is_in_place());
        std::fs::remove_dir_all(dir.path().join("t.db-wake")).unwrap();
        assert!(!listener.is_in_place());
        one.wake(NOTHING);
        assert!(!listener.is_in_place(), "it is another directory");
        drop(listener);
        let listener = other.listen(Interest::Everything).unwrap();
        one.wake(NOTHING);
        listener.woken().await;
    }
}
