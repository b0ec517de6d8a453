//! SIGTERM, SIGINT (Ctrl-C) and SIGHUP. The first one asks a command that drains to stop in order; a later one ends the process at once.
//! Every other command ends at once, by the signal itself.
//!
//! [`install`] is the first thing that the program does: the kernel drops a signal that the first process of a container has no handler
//! for. A signal that arrives before it is known which command runs is remembered until then.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use iolaus_activities::{Clock, SystemClock};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals as Incoming;
use signal_hook::low_level::emulate_default_handler;
use tokio::sync::watch;

use super::exit::Exit;

/// Signals so close together are one request: `timeout` and some supervisors signal a process and then its group.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// What a signal does.
#[derive(Debug, Clone, Copy)]
enum Mode {
    /// It is kept until the command is known.
    Undecided(Option<i32>),
    /// It ends the process.
    Ends,
    /// It asks the command to stop.
    Drains,
}

struct Handler {
    mode: Mutex<Mode>,
    /// When (monotonic) this process was first asked to stop.
    asked: watch::Sender<Option<Duration>>,
    clock: SystemClock,
}

static HANDLER: OnceLock<Handler> = OnceLock::new();

/// Catches the signals from now on.
pub fn install() -> std::io::Result<()> {
    let mut fresh = false;
    let handler = HANDLER.get_or_init(|| {
        fresh = true;
        Handler { mode: Mutex::new(Mode::Undecided(None)), asked: watch::Sender::new(None), clock: SystemClock::new() }
    });
    if !fresh {
        return Ok(());
    }
    // With a handler for SIGXFSZ a write beyond the limit of a file's size fails, and is reported as any other.
    let mut incoming = Incoming::new([SIGTERM, SIGINT, SIGXFSZ])?;
    // `nohup` starts a program with SIGHUP ignored, and it stays ignored.
    if !is_ignored(SIGHUP) {
        incoming.add_signal(SIGHUP)?;
    }
    let listen = move || incoming.forever().filter(|signal| *signal != SIGXFSZ).for_each(|signal| handler.receive(signal));
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map(drop)
}

/// Says whether the command stops in order when a signal asks it to. A signal that has arrived already is obeyed now.
pub fn decide(drains: bool) {
    if let Some(handler) = HANDLER.get() {
        handler.decide(if drains { Mode::Drains } else { Mode::Ends });
    }
}

/// Waits for what may never come, such as the end of a pipe, before anything was done: meanwhile a signal ends the process.
pub(crate) fn ending<T>(wait: impl FnOnce() -> T) -> T {
    let Some(handler) = HANDLER.get() else { return wait() };
    let before = std::mem::replace(&mut *handler.mode.lock().unwrap_or_else(PoisonError::into_inner), Mode::Ends);
    let done = wait();
    *handler.mode.lock().unwrap_or_else(PoisonError::into_inner) = before;
    done
}

impl Handler {
    fn decide(&self, mode: Mode) {
        let before = std::mem::replace(&mut *self.mode.lock().unwrap_or_else(PoisonError::into_inner), mode);
        if let Mode::Undecided(Some(signal)) = before {
            self.receive(signal);
        }
    }

    fn receive(&self, signal: i32) {
        let mut mode = self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        match *mode {
            Mode::Undecided(first) => *mode = Mode::Undecided(first.or(Some(signal))),
            Mode::Ends => end_by(signal),
            Mode::Drains => {
                let now = self.clock.monotonic();
                let before = *self.asked.borrow();
                match before {
                    None => drop(self.asked.send_replace(Some(now))),
                    Some(first) if now.saturating_sub(first) < SAME_REQUEST => {}
                    // What was acknowledged is stored; attempts that still run are rescued like those of a dead worker.
                    Some(_) => std::process::exit(i32::from(Exit::NotYet.code())),
                }
            }
        }
    }
}

/// Ends as a program without a handler does. The first process of a container cannot be ended so, and exits.
fn end_by(signal: i32) -> ! {
    if std::process::id() != 1 {
        emulate_default_handler(signal).ok();
    }
    std::process::exit(i32::from(Exit::NotYet.code()))
}

/// Whether the parent has made this process ignore a signal.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// Whether this process was asked to stop.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    asked: watch::Receiver<Option<Duration>>,
}

impl Signals {
    /// From now on the first signal asks the command to stop, and does not end the process.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        install().context("signals cannot be listened for")?;
        let handler = HANDLER.get().context("signals are not listened for")?;
        handler.decide(Mode::Drains);
        Ok(Self { asked: handler.asked.subscribe() })
    }

    /// Ends when this process is asked to stop.
    pub(crate) async fn stopped(&self) {
        let mut asked = self.asked.clone();
        if asked.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
