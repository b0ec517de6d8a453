//! Wakes other processes on the same file within milliseconds, without a poll: each listener binds a datagram socket in a directory
//! beside the database, and whoever has committed something sends one byte to each. A lost wake costs a little time, never a job: the
//! worker's own rounds find everything again.

use std::io;
use std::path::{Path, PathBuf};

use super::files::{beside, create_private_dir};

#[cfg(unix)]
pub(super) use unix::{Listener, Waker};

#[cfg(unix)]
mod unix {
    use super::{Path, PathBuf, beside, create_private_dir, io};
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Sends wakes.
    pub(crate) struct Waker {
        dir: PathBuf,
        /// Keeps the directory open, so that long paths fit a socket address through `/proc/self/fd`.
        handle: Option<File>,
        socket: Option<UnixDatagram>,
        own: String,
    }

    /// Receives wakes until dropped.
    pub(crate) struct Listener {
        path: PathBuf,
        socket: tokio::net::UnixDatagram,
    }

    static NUMBER: AtomicU64 = AtomicU64::new(0);

    impl Waker {
        pub(crate) fn new(database: &Path) -> Self {
            let dir = beside(database, "wake");
            let created = create_private_dir(&dir);
            if let Err(error) = &created {
                tracing::warn!(dir = %dir.display(), %error, "other processes cannot be woken; they find jobs on their own rounds");
            }
            let handle = created.and_then(|()| File::open(&dir)).ok();
            let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket)).ok();
            let own = format!("{}-{}.sock", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
            Self { dir, handle, socket, own }
        }

        /// Starts to listen under this waker's own name, which it does not wake itself.
        pub(crate) fn listen(&self) -> io::Result<Listener> {
            let path = self.dir.join(&self.own);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = tokio::net::UnixDatagram::bind(self.address(&self.own))?;
            Ok(Listener { path, socket })
        }

        /// Wakes every other listener. Sockets of dead processes are removed.
        pub(crate) fn wake(&self) {
            let (Some(socket), Ok(entries)) = (&self.socket, std::fs::read_dir(&self.dir)) else { return };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|name| *name != self.own) else { continue };
                match socket.send_to(&[1], self.address(name)) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        // Its owner is dead. Somebody else may have removed it first.
                        std::fs::remove_file(entry.path()).ok();
                    }
                    // A full socket has a wake waiting already.
                    _ => {}
                }
            }
        }

        fn address(&self, name: &str) -> PathBuf {
            match &self.handle {
                Some(handle) if cfg!(target_os = "linux") => format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()).into(),
                _ => self.dir.join(name),
            }
        }
    }

    impl Listener {
        /// Ends when another process has committed something. Wakes that have piled up count once.
        pub(crate) async fn woken(&self) {
            let mut byte = [0_u8; 8];
            if self.socket.recv(&mut byte).await.is_err() {
                std::future::pending::<()>().await;
            }
            while self.socket.try_recv(&mut byte).is_ok() {}
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            // Otherwise the next waker removes it.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

#[cfg(not(unix))]
pub(super) use elsewhere::{Listener, Waker};

/// Where there are no such sockets, other processes are found on the worker's own rounds.
#[cfg(not(unix))]
mod elsewhere {
    use super::{Path, io};

    pub(crate) struct Waker;
    pub(crate) struct Listener;

    impl Waker {
        pub(crate) fn new(_: &Path) -> Self {
            Self
        }
        pub(crate) fn listen(&self) -> io::Result<Listener> {
            Ok(Listener)
        }
        pub(crate) fn wake(&self) {}
    }

    impl Listener {
        pub(crate) async fn woken(&self) {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wake_reaches_others_but_not_oneself_even_under_a_very_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let database = deep.join("t.db");
        let (one, other) = (Waker::new(&database), Waker::new(&database));
        let (at_one, at_other) = (one.listen().unwrap(), other.listen().unwrap());
        one.wake();
        one.wake();
        at_other.woken().await;
        other.wake();
        at_one.woken().await;
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_process_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let waker = Waker::new(&dir.path().join("t.db"));
        let stale = dir.path().join("t.db-wake/1-0.sock");
        drop(std::os::unix::net::UnixDatagram::bind(&stale).unwrap());
        assert!(stale.exists());
        waker.wake();
        assert!(!stale.exists());
    }
}
