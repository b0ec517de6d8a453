//! What can happen to jobs, at random.

use proptest::prelude::*;

use super::{COMMANDS, JOBS, TENANTS, WORKERS};
use crate::job::{IdConflictPolicy, IdReusePolicy};

#[derive(Debug, Clone)]
pub(super) enum Command {
    Enqueue(Wanted),
    Claim {
        worker: usize,
        free: usize,
    },
    Save {
        lease: usize,
        value: u8,
    },
    Finish {
        lease: usize,
        how: How,
    },
    Cancel {
        job: u8,
    },
    Retry {
        job: u8,
    },
    Beat {
        worker: usize,
    },
    /// By somebody who has seen the newest beat, or by somebody who has not.
    Rescue {
        worker: usize,
        saw_the_newest: bool,
    },
    Drain {
        worker: usize,
    },
    /// Time passes, or the clock is set back.
    Clock {
        seconds: i8,
    },
    Settle,
    Pause {
        tenant: usize,
    },
    Resume {
        tenant: usize,
    },
    /// The process ends in the middle of a transaction, and another one opens the file.
    Crash(Wanted),
}

#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) job: u8,
    pub(super) delay: u8,
    pub(super) whole: Option<u8>,
    pub(super) start: Option<u8>,
    pub(super) attempts: u8,
    pub(super) priority: u8,
    pub(super) tenant: usize,
    pub(super) conflict: IdConflictPolicy,
    pub(super) reuse: IdReusePolicy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Passed,
    Retryable,
    Final,
    Drained,
    TenantHeld,
    Cancelled,
}

pub(super) fn commands() -> impl Strategy<Value = Vec<Command>> {
    let worker = 0..WORKERS;
    let how = prop_oneof![
        2 => Just(How::Passed), 4 => Just(How::Retryable), 1 => Just(How::Final), 2 => Just(How::Drained), 2 => Just(How::TenantHeld), 1 => Just(How::Cancelled)
    ];
    let command = prop_oneof![
        6 => wanted().prop_map(Command::Enqueue),
        8 => (worker.clone(), 1..4_usize).prop_map(|(worker, free)| Command::Claim { worker, free }),
        3 => (0..64_usize, 0..4_u8).prop_map(|(lease, value)| Command::Save { lease, value }),
        8 => (0..64_usize, how).prop_map(|(lease, how)| Command::Finish { lease, how }),
        3 => (0..JOBS).prop_map(|job| Command::Cancel { job }),
        2 => (0..JOBS).prop_map(|job| Command::Retry { job }),
        1 => worker.clone().prop_map(|worker| Command::Beat { worker }),
        3 => (worker.clone(), prop::bool::weighted(0.8))
            .prop_map(|(worker, saw_the_newest)| Command::Rescue { worker, saw_the_newest }),
        1 => worker.prop_map(|worker| Command::Drain { worker }),
        6 => (-20..60_i8).prop_map(|seconds| Command::Clock { seconds }),
        3 => Just(Command::Settle),
        1 => (0..TENANTS.len()).prop_map(|tenant| Command::Pause { tenant }),
        1 => (0..TENANTS.len()).prop_map(|tenant| Command::Resume { tenant }),
        1 => wanted().prop_map(Command::Crash),
    ];
    prop::collection::vec(command, 1..COMMANDS)
}

pub(super) fn wanted() -> impl Strategy<Value = Wanted> {
    let conflict = prop_oneof![Just(IdConflictPolicy::Fail), Just(IdConflictPolicy::UseExisting)];
    let reuse = prop_oneof![Just(IdReusePolicy::Allow), Just(IdReusePolicy::AllowFailedOnly), Just(IdReusePolicy::Reject)];
    let seconds = || prop::option::weighted(0.3, 1..90_u8);
    (0..JOBS, prop_oneof![3 => Just(0), 1 => 1..40_u8], seconds(), seconds(), 0..4_u8, 1..6_u8, 0..TENANTS.len(), conflict, reuse)
        .prop_map(|(job, delay, whole, start, attempts, priority, tenant, conflict, reuse)| Wanted {
            job,
            delay,
            whole,
            start,
            attempts,
            priority,
            tenant,
            conflict,
            reuse,
        })
}
