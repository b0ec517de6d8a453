//! The faults of the main queue, in the order of the plan: its workers are killed, stopped for too long and told to end, the clock is
//! stepped under them and the disk is filled.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use super::machine::{Disk, WallClock};
use super::plan::{Kind, Random, Tally};
use crate::cli::harness::{Place, Running};

const WORKERS: usize = 3;
pub(super) const WORKER_TIMEOUT: Duration = Duration::from_secs(1);
/// Workers that are stopped at the same time, at most.
const FROZEN: usize = 2;
/// Seconds between the real clock and a stepped one, at most.
const LARGEST_STEP: u64 = 1_800;
/// Processes that had ended by themselves before the next one is given a free disk.
const TRIES: u32 = 10;
/// Milliseconds between two faults, at most.
const PAUSE: u64 = 80;

pub(super) struct Workers<'s> {
    place: &'s Place,
    tally: &'s Tally,
    wall: Option<&'s WallClock>,
    disk: Option<&'s Disk>,
    random: Random,
    running: Vec<Worker>,
    /// Workers that are stopped, each with a thread that continues it.
    frozen: Vec<JoinHandle<()>>,
    /// Disks that were filled.
    fills: u64,
    /// Faults after which the disk is freed again.
    full_for: u64,
}

/// A worker, and what it may give as the reason of its end.
pub(super) struct Worker {
    process: Running,
    born_at_fill: u64,
    born_on_full_disk: bool,
}

impl<'s> Workers<'s> {
    pub(super) fn new(
        place: &'s Place,
        tally: &'s Tally,
        wall: Option<&'s WallClock>,
        disk: Option<&'s Disk>,
        random: Random,
    ) -> Self {
        let mut workers = Self { place, tally, wall, disk, random, running: Vec::new(), frozen: Vec::new(), fills: 0, full_for: 0 };
        workers.running = (0..WORKERS).map(|_| workers.start()).collect();
        workers
    }

    /// The faults of a plan that are this queue's, one after the other.
    pub(super) fn suffer(&mut self, plan: &[Kind], over: &AtomicBool) {
        for kind in plan.iter().filter(|kind| !matches!(kind, Kind::KillProducer | Kind::RemoveLog)) {
            for tried in 1.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                if self.fault(*kind) {
                    break;
                }
                // None of them may be able to start.
                if tried % TRIES == 0 {
                    self.free_disk();
                }
            }
            self.tally.add(*kind);
            self.random.linger(PAUSE);
            self.full_for = self.full_for.saturating_sub(1);
            if self.full_for == 0 {
                self.free_disk();
            }
        }
    }

    /// The faults are over: the disk is free, and no process is stopped any more.
    pub(super) fn calm(&mut self) {
        self.free_disk();
        self.frozen.drain(..).for_each(|frozen| frozen.join().unwrap());
        for victim in 0..WORKERS {
            if self.running[victim].process.ended().is_some() {
                let successor = self.start();
                let ended = std::mem::replace(&mut self.running[victim], successor);
                self.take(ended);
            }
        }
    }

    /// Asks all of them to end.
    pub(super) fn stop(mut self) {
        for worker in std::mem::take(&mut self.running) {
            let (has_ended, worker) = self.take(worker);
            if !has_ended {
                self.ask(worker, Signal::TERM);
            }
        }
    }

    /// False: the process had ended before, and nothing happened to it.
    fn fault(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::StepClockForward | Kind::StepClockBack => self.step(kind == Kind::StepClockForward),
            Kind::FillDisk => {
                self.free_disk();
                self.disk.expect("a disk to fill").fill();
                self.fills += 1;
                // Other faults meet the full disk, too.
                self.full_for = 1 + self.random.below(3);
                self.random.linger(PAUSE);
            }
            _ => {
                let victim = self.random.index(WORKERS);
                let successor = self.start();
                let old = std::mem::replace(&mut self.running[victim], successor);
                let (has_ended, mut old) = self.take(old);
                if has_ended {
                    return false;
                }
                match kind {
                    Kind::Freeze => self.freeze(old),
                    Kind::Terminate => return self.ask(old, Signal::TERM),
                    Kind::HangUp => return self.ask(old, Signal::HUP),
                    _ => return old.process.kill().signal() == Some(Signal::KILL.as_raw()),
                }
            }
        }
        true
    }

    fn start(&self) -> Worker {
        let born_on_full_disk = self.disk.is_some_and(Disk::is_full);
        Worker { process: self.place.start("worker"), born_at_fill: self.fills, born_on_full_disk }
    }

    /// Whether it has ended by itself.
    fn take(&self, mut worker: Worker) -> (bool, Worker) {
        let Some(status) = worker.process.ended() else { return (false, worker) };
        let said = worker.process.said();
        let is_ready = said.contains("the worker is ready");
        assert!(!is_ready && self.may_refuse(&worker, status, &said), "a worker ended by itself ({status}):\n{said}");
        (true, worker)
    }

    /// It cannot start, or write that it ends, on a full disk or beside stopped processes that have the write lock one after the other. One
    /// that has started lives through both.
    fn may_refuse(&self, worker: &Worker, status: ExitStatus, said: &str) -> bool {
        let met_full_disk = worker.born_on_full_disk || worker.born_at_fill != self.fills;
        let met_lock = said.contains("the write lock");
        status.code() == Some(6) && (met_full_disk || met_lock)
    }

    /// Asks a worker to end. One that had no time for its handlers ends by the signal itself.
    fn ask(&self, mut worker: Worker, signal: Signal) -> bool {
        let ended = worker.process.stop_with(signal);
        let said = worker.process.said();
        let refused = self.may_refuse(&worker, ended, &said);
        let by_signal = ended.signal() == Some(signal.as_raw());
        assert!(ended.code() == Some(0) || by_signal || refused, "{signal:?}: {ended}\n{said}");
        !refused
    }

    /// Stops a worker for well beyond the time after which it is taken for dead. It wakes up with attempts that are another's by then, has
    /// a moment to do harm with them, and is killed. A thread sees to that: the storm waits for processes that wait for this one.
    fn freeze(&mut self, mut worker: Worker) {
        if self.frozen.len() == FROZEN {
            self.frozen.remove(0).join().unwrap();
        }
        worker.process.send(Signal::STOP);
        let stopped = WORKER_TIMEOUT * 2 + Duration::from_millis(self.random.below(1_000));
        let awake = Duration::from_millis(self.random.below(PAUSE));
        self.frozen.push(std::thread::spawn(move || {
            std::thread::park_timeout(stopped);
            worker.process.send(Signal::CONT);
            std::thread::park_timeout(awake);
            worker.process.kill();
        }));
    }

    /// By a second to half an hour, and never further from the real clock than that.
    fn step(&mut self, forward: bool) {
        let wall = self.wall.expect("a clock to step");
        let (now, most) = (wall.offset(), i64::try_from(LARGEST_STEP).unwrap());
        let left = if forward { most - now } else { most + now };
        let step = 1 + i64::try_from(self.random.below(u64::try_from(left.max(1)).unwrap())).unwrap();
        wall.set(if forward { now + step } else { now - step });
    }

    fn free_disk(&mut self) {
        self.full_for = 0;
        if let Some(disk) = self.disk.filter(|disk| disk.is_full()) {
            disk.free();
        }
    }
}
