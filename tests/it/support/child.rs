//! Child processes with a bound: what they write is read all the time, and one that does not end in time fails the test with it.

use std::io::Read;
use std::process::{Child, ExitStatus, Output};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::watchdog::Patience;

/// Between two questions whether a child has ended whose pipes are closed already.
const PAUSE: Duration = Duration::from_millis(1);

/// What is read of a pipe, on a thread of its own.
struct Drained {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Drained {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (at_end, ended) = channel();
        let written = bytes.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                written.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..read]);
            }
            drop(at_end);
        });
        Self { bytes, ended }
    }

    /// Whether the pipe is closed by then.
    fn ends_within(&self, patience: &Patience) -> bool {
        self.ended.recv_timeout(patience.left()) == Err(RecvTimeoutError::Disconnected)
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Waits for the end of a child and answers with all that it wrote into pipes.
///
/// # Panics
/// If it does not end in time; it is killed then.
pub(crate) fn output(mut child: Child, what: &str) -> Output {
    let patience = Patience::long();
    let stdout = child.stdout.take().map(Drained::of);
    let stderr = child.stderr.take().map(Drained::of);
    let closed = [&stdout, &stderr].into_iter().flatten().all(|pipe| pipe.ends_within(&patience));
    let status = if closed { ends_within(&mut child, &patience) } else { None };
    let taken = |pipe: Option<Drained>| pipe.map(|pipe| pipe.take()).unwrap_or_default();
    let (stdout, stderr) = (taken(stdout), taken(stderr));
    if let Some(status) = status {
        return Output { status, stdout, stderr };
    }
    // It may have ended in this very moment.
    child.kill().ok();
    child.wait().ok();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    panic!("`{what}` did not end in time. stdout: {}\nstderr: {}", text(&stdout), text(&stderr));
}

/// Waits for the end of a child that writes into no pipe.
///
/// # Panics
/// If it does not end in time; it is killed then.
pub(crate) fn wait(child: &mut Child, what: &str) -> ExitStatus {
    ends_within(child, &Patience::long()).unwrap_or_else(|| {
        child.kill().ok();
        child.wait().ok();
        panic!("`{what}` did not end in time");
    })
}

fn ends_within(child: &mut Child, patience: &Patience) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if patience.is_over() {
            return None;
        }
        std::thread::park_timeout(PAUSE);
    }
}
