//! How many threads this process may start. Without enough of them the runtime and the log panic, or wait for each other for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::exit::Problem;

/// Threads of a command with a queue: those of the runtime, the writer, a few reads, the log, the exporters.
const NEEDED: usize = 12;
/// None of them does more than wait, in bytes.
const STACK: usize = 64 * 1024;

/// Refuses to run where too few can be started.
pub fn check() -> anyhow::Result<()> {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let start = |_| {
        let gate = gate.clone();
        thread::Builder::new().stack_size(STACK).spawn(move || drop(gate.lock()))
    };
    let started: std::io::Result<Vec<_>> = (0..NEEDED).map(start).collect();
    drop(closed);
    let error = match started {
        Ok(threads) => {
            for thread in threads {
                thread.join().ok();
            }
            return Ok(());
        }
        Err(error) => error,
    };
    let problem = Problem::unusable(format!("this process cannot start the {NEEDED} threads that it needs: {error}"));
    let hint = "raise the limit of processes and threads: `ulimit -u`, TasksMax= of its unit, the limit of its container";
    Err(problem.hint(hint).into())
}
