//! The time of a queue: the wall clock as it was when the first of its processes opened it, carried on by the time since the machine
//! started. A step of the wall clock moves nothing that runs or is due. All processes that have the queue open share it: the first one
//! writes it into the file `-open`. When the last of them has ended, the next one starts from the wall clock again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use iolaus_activities::{BoxFuture, Clock, duration};
use jiff::{SignedDuration, Timestamp};

/// A smaller difference to the wall clock is no step: a leap second, or the time between two readings.
const LEAST_STEP: SignedDuration = SignedDuration::from_secs(2);

/// The clock of everything that the queue and its worker do.
pub(crate) struct QueueClock {
    machine: Arc<dyn Clock>,
    /// The queue's time when the machine started, in microseconds since 1970.
    origin: AtomicI64,
}

impl QueueClock {
    /// A clock that reads what the wall clock reads now.
    pub(crate) fn new(machine: Arc<dyn Clock>) -> Self {
        let origin = origin(machine.as_ref());
        Self { machine, origin: AtomicI64::new(origin) }
    }

    /// The queue's time when the machine started, in microseconds since 1970.
    pub(super) fn origin(&self) -> i64 {
        self.origin.load(Ordering::Relaxed)
    }

    /// Takes the time of the processes that have the queue open.
    pub(super) fn adopt(&self, origin: i64) {
        self.origin.store(origin, Ordering::Relaxed);
    }

    /// Takes the wall clock's time, as the first process does.
    pub(super) fn start_anew(&self) {
        self.adopt(origin(self.machine.as_ref()));
    }

    /// How far the wall clock is ahead of the queue: not zero after a step, negative after one back.
    pub(super) fn wall_is_ahead(&self) -> SignedDuration {
        let ahead = self.machine.now().duration_since(self.now());
        if ahead.abs() < LEAST_STEP { SignedDuration::ZERO } else { ahead }
    }
}

fn origin(machine: &dyn Clock) -> i64 {
    let since_boot = i64::try_from(machine.since_boot().as_micros()).unwrap_or(i64::MAX);
    machine.now().as_microsecond().saturating_sub(since_boot)
}

impl Clock for QueueClock {
    fn now(&self) -> Timestamp {
        let since_boot = i64::try_from(self.machine.since_boot().as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_microsecond(self.origin().saturating_add(since_boot)).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }

    fn since_boot(&self) -> Duration {
        self.machine.since_boot()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.machine.sleep(duration)
    }

    fn deadline(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.machine.deadline(duration)
    }

    fn random(&self) -> f64 {
        self.machine.random()
    }
}

/// Logs each step of the wall clock once.
#[derive(Default)]
pub(super) struct StepWatch {
    logged: SignedDuration,
}

impl StepWatch {
    /// True if it logged one.
    pub(super) fn check(&mut self, clock: &QueueClock) -> bool {
        let ahead = clock.wall_is_ahead();
        let step = ahead - self.logged;
        if step.abs() < LEAST_STEP {
            return false;
        }
        self.logged = ahead;
        tracing::warn!(
            wall_clock = describe(ahead),
            "the machine's wall clock was set; the queue keeps its own time, so no job starts or ends earlier or later for it"
        );
        true
    }
}

/// `2d ahead of the queue's time`, `1h behind the queue's time`.
pub(crate) fn describe(ahead: SignedDuration) -> String {
    // To the second: what is below it comes from the readings.
    let length = duration::format(Duration::from_secs(ahead.unsigned_abs().as_secs()));
    format!("{length} {} the queue's time", if ahead.is_negative() { "behind" } else { "ahead of" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use iolaus_activities::ManualClock;

    fn clocks() -> (Arc<ManualClock>, QueueClock) {
        let machine = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
        let queue = QueueClock::new(machine.clone());
        (machine, queue)
    }

    #[tokio::test]
    async fn a_step_of_the_wall_clock_does_not_reach_the_queue() {
        let (machine, queue) = clocks();
        machine.advance(Duration::from_secs(5)).await;
        for hours in [-1, 48] {
            machine.jump(SignedDuration::from_hours(hours));
            assert_eq!(queue.now().to_string(), "2026-01-01T00:00:05Z");
        }
        assert_eq!(queue.wall_is_ahead(), SignedDuration::from_hours(47));
        assert_eq!(describe(queue.wall_is_ahead()), "47h ahead of the queue's time");
        queue.start_anew();
        assert_eq!((queue.now(), queue.wall_is_ahead()), (machine.now(), SignedDuration::ZERO));
    }

    #[test]
    fn a_step_is_logged_once_and_its_correction_too() {
        let (machine, queue) = clocks();
        let mut watch = StepWatch::default();
        assert!(!watch.check(&queue));
        machine.jump(SignedDuration::from_secs(1));
        assert!(!watch.check(&queue), "too little to be a step");
        machine.jump(SignedDuration::from_secs(-3_601));
        assert_eq!([watch.check(&queue), watch.check(&queue)], [true, false]);
        machine.jump(SignedDuration::from_secs(3_600));
        assert_eq!([watch.check(&queue), watch.check(&queue)], [true, false]);
    }

    #[test]
    fn processes_that_share_an_origin_share_the_time_whatever_their_wall_clocks_say() {
        let (machine, first) = clocks();
        machine.jump(SignedDuration::from_hours(-1));
        let second = QueueClock::new(machine);
        assert_ne!(first.now(), second.now());
        second.adopt(first.origin());
        assert_eq!(first.now(), second.now());
    }
}
