//! Which faults a storm has, and in which order: the seed decides. What really happened is counted apart from the plan.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A generator of our own, so that a seed means the same for ever (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    /// Real time passes for the processes of the storm; nothing is decided by how long it took.
    pub(super) fn linger(&mut self, most: u64) {
        std::thread::park_timeout(Duration::from_millis(self.below(most) + 1));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    KillWorker,
    KillProducer,
    Freeze,
    Terminate,
    HangUp,
    StepClockForward,
    StepClockBack,
    FillDisk,
    RemoveLog,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::KillWorker,
        Self::KillProducer,
        Self::Freeze,
        Self::Terminate,
        Self::HangUp,
        Self::StepClockForward,
        Self::StepClockBack,
        Self::FillDisk,
        Self::RemoveLog,
    ];

    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::KillWorker => "workers killed",
            Self::KillProducer => "producers killed",
            Self::Freeze => "workers stopped beyond worker_timeout",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
            Self::StepClockForward => "clock steps forward",
            Self::StepClockBack => "clock steps back",
            Self::FillDisk => "full disks",
            Self::RemoveLog => "logs removed",
        }
    }

    /// Of a hundred faults.
    fn share(self) -> u64 {
        match self {
            Self::KillWorker => 32,
            Self::KillProducer => 22,
            Self::Freeze => 5,
            Self::Terminate | Self::HangUp => 10,
            Self::StepClockForward | Self::StepClockBack | Self::FillDisk => 6,
            Self::RemoveLog => 3,
        }
    }
}

/// This many faults in an order of the seed. Each kind has at least half of its share, and one; the seed deals out the rest.
pub(super) fn plan(faults: u64, kinds: &[Kind], random: &mut Random) -> Vec<Kind> {
    let faults = usize::try_from(faults).unwrap();
    let at_least = |kind: &Kind| usize::try_from(kind.share()).unwrap() * faults / 200 + 1;
    let mut plan: Vec<Kind> = kinds.iter().flat_map(|kind| std::iter::repeat_n(*kind, at_least(kind))).collect();
    let shares = kinds.iter().map(|kind| kind.share()).sum();
    while plan.len() < faults {
        let mut dealt = random.below(shares);
        let kind = kinds.iter().find(|kind| match dealt.checked_sub(kind.share()) {
            Some(rest) => {
                dealt = rest;
                false
            }
            None => true,
        });
        plan.push(*kind.unwrap());
    }
    for last in (1..plan.len()).rev() {
        plan.swap(last, random.index(last + 1));
    }
    plan
}

/// How many faults of a kind are in a plan.
pub(super) fn count(plan: &[Kind], kind: Kind) -> u64 {
    plan.iter().filter(|planned| **planned == kind).count() as u64
}

/// What really happened.
#[derive(Default)]
pub(super) struct Tally([AtomicU64; Kind::ALL.len()]);

impl Tally {
    pub(super) fn add(&self, kind: Kind) {
        self.0[kind as usize].fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize].load(Ordering::SeqCst)
    }

    pub(super) fn describe(&self) -> String {
        let each = Kind::ALL.map(|kind| format!("{} {}", self.of(kind), kind.describe()));
        format!("{} faults: {}", Kind::ALL.into_iter().map(|kind| self.of(kind)).sum::<u64>(), each.join(", "))
    }
}

#[test]
fn a_plan_has_every_kind_and_is_that_of_its_seed() {
    for faults in [9, 40, 500] {
        for seed in 0..50 {
            let of = |seed| plan(faults, &Kind::ALL, &mut Random(seed));
            assert_eq!(of(seed), of(seed));
            assert!(of(seed).len() as u64 >= faults);
            for kind in Kind::ALL {
                assert!(count(&of(seed), kind) > kind.share() * faults / 200, "{kind:?} of {faults}, seed {seed}");
            }
        }
    }
    assert_ne!(plan(500, &Kind::ALL, &mut Random(1)), plan(500, &Kind::ALL, &mut Random(2)));
}
