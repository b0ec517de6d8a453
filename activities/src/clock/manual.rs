//! The clock of tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{oneshot, watch};

use super::{BoxFuture, Clock};

/// A clock that a test moves by hand. Its randomness is always `0.5`.
///
/// It moves only when everything that runs beside the test has come to rest, so that whatever is about to wait does wait before
/// its time passes: a task that has yet to reach its `sleep` would otherwise sleep from the moved time on, and end late or never.
/// Tasks of a current-thread runtime come to rest as they are polled; work of other threads is made known by
/// [`observe`](Self::observe).
///
/// ```
/// # use iolaus_activities::{Clock, ManualClock};
/// # use std::time::Duration;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap());
/// clock.advance(Duration::from_secs(90)).await;
/// assert_eq!(clock.now().to_string(), "2026-01-01T00:01:30Z");
/// # });
/// ```
pub struct ManualClock {
    inner: Mutex<Manual>,
    registrations: watch::Sender<u64>,
    observers: Mutex<Vec<Observer>>,
}

/// Ends when the work that another thread had when it was called is done. Its answer differs from the one before if anything has
/// happened in between.
type Observer = Arc<dyn Fn() -> BoxFuture<'static, u64> + Send + Sync>;

/// Everything is at rest when so many looks in a row have found no change.
const UNCHANGED_LOOKS: u32 = 3;
/// Between two looks every task that is ready runs, and every socket is polled, so many times.
const YIELDS_PER_LOOK: u32 = 16;
/// After this many looks the test fails instead of hanging.
const MOST_LOOKS: u32 = 500_000;

#[derive(Debug)]
struct Manual {
    start: Timestamp,
    elapsed: Duration,
    skew: SignedDuration,
    next_id: u64,
    waits: BTreeMap<(Duration, u64), Wait>,
}

#[derive(Debug)]
struct Wait {
    wanted: bool,
    wake: oneshot::Sender<()>,
}

enum Step {
    Slept,
    Deadline,
    NothingSleeps,
}

impl std::fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManualClock").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl ManualClock {
    /// A clock that reads `start`.
    pub fn at(start: Timestamp) -> Self {
        let inner = Manual { start, elapsed: Duration::ZERO, skew: SignedDuration::ZERO, next_id: 0, waits: BTreeMap::new() };
        Self { inner: Mutex::new(inner), registrations: watch::Sender::new(0), observers: Mutex::default() }
    }

    /// Moves both clocks forward by exactly so long, once everything is at rest. Each wait on the way ends at its own time, and what
    /// follows from it comes to rest before the clock moves on. At the end everything is at rest again.
    pub async fn advance(&self, by: Duration) {
        self.until_at_rest().await;
        let end = self.monotonic().saturating_add(by);
        while self.step_up_to(end) {
            self.until_at_rest().await;
        }
        self.until_at_rest().await;
    }

    /// Moves both clocks forward at once, as when the machine was suspended: every wait that is due by then ends late, at the same
    /// time. Like [`advance`](Self::advance) it begins and ends at rest.
    pub async fn leap(&self, by: Duration) {
        self.until_at_rest().await;
        self.advance_without_waiting(by);
        self.until_at_rest().await;
    }

    /// Moves both clocks forward and ends every wait that is due, without a look at what is about to wait. Only for code that cannot
    /// wait, such as a scripted answer that takes its time; a test that has other tasks uses [`advance`](Self::advance).
    pub fn advance_without_waiting(&self, by: Duration) {
        let mut inner = self.lock();
        inner.elapsed += by;
        inner.wake_due();
    }

    /// Moves only the wall clock, either way, as an administrator or NTP does.
    pub fn jump(&self, by: SignedDuration) {
        self.lock().skew += by;
    }

    /// Waits until everything is at rest and something sleeps, then moves time to the end of the shortest sleep. Deadlines on the way
    /// fire first, each at its own time, and may end that sleep: then time moves no further than needed.
    pub async fn advance_to_next_sleep(&self) {
        let mut registrations = self.registrations.subscribe();
        loop {
            registrations.borrow_and_update();
            self.until_at_rest().await;
            match self.step_towards_first_sleep() {
                Step::Slept => return,
                Step::NothingSleeps if registrations.changed().await.is_err() => return,
                Step::Deadline | Step::NothingSleeps => {}
            }
        }
    }

    /// Counts the work of another thread as something that must come to rest before the clock moves. The observer ends when the work
    /// that was under way when it was called is done; its answer differs from its last one if there has been any.
    pub fn observe(&self, observer: impl Fn() -> BoxFuture<'static, u64> + Send + Sync + 'static) {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(observer));
    }

    /// Ends when every task of this current-thread runtime and every observer is waiting for something that only the clock or the
    /// caller can bring.
    ///
    /// # Panics
    /// If that does not come about within a very large number of looks.
    pub async fn until_at_rest(&self) {
        let mut before = Vec::new();
        let mut unchanged = 0;
        for _ in 0..MOST_LOOKS {
            for _ in 0..YIELDS_PER_LOOK {
                tokio::task::yield_now().await;
            }
            // The kernel's own threads may have a packet of loopback in hand.
            std::thread::yield_now();
            let observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut seen = vec![*self.registrations.borrow()];
            for observer in observers {
                seen.push(observer().await);
            }
            unchanged = if seen == before { unchanged + 1 } else { 0 };
            if unchanged == UNCHANGED_LOOKS {
                return;
            }
            before = seen;
        }
        panic!(
            "the clock cannot move: something beside the test never comes to rest (registered waits, then observers: {before:?})"
        );
    }

    /// Moves to the next wait that is due by `end`, or else to `end`; false for the latter.
    fn step_up_to(&self, end: Duration) -> bool {
        let mut inner = self.lock();
        inner.forget_abandoned();
        let next = inner.waits.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= end);
        inner.elapsed = inner.elapsed.max(next.unwrap_or(end));
        inner.wake_due();
        next.is_some()
    }

    fn step_towards_first_sleep(&self) -> Step {
        let mut inner = self.lock();
        inner.forget_abandoned();
        if !inner.waits.values().any(|wait| wait.wanted) {
            return Step::NothingSleeps;
        }
        let Some(((at, _), wait)) = inner.waits.first_key_value() else { return Step::NothingSleeps };
        let (at, wanted) = (*at, wait.wanted);
        inner.elapsed = inner.elapsed.max(at);
        inner.wake_due();
        if wanted { Step::Slept } else { Step::Deadline }
    }

    fn wait(&self, duration: Duration, wanted: bool) -> BoxFuture<'static, ()> {
        let (wake, woken) = oneshot::channel();
        {
            let mut inner = self.lock();
            let key = (inner.elapsed.saturating_add(duration), inner.next_id);
            inner.next_id += 1;
            inner.waits.insert(key, Wait { wanted, wake });
            if duration.is_zero() {
                inner.wake_due();
            }
        }
        self.registrations.send_modify(|n| *n += 1);
        Box::pin(async move {
            // A clock that is dropped ends no wait.
            if woken.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Manual> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Manual {
    fn forget_abandoned(&mut self) {
        self.waits.retain(|_, wait| !wait.wake.is_closed());
    }

    fn wake_due(&mut self) {
        while let Some(entry) = self.waits.first_entry() {
            if entry.key().0 > self.elapsed {
                break;
            }
            // The sleeper may have gone away, which is fine.
            entry.remove().wake.send(()).ok();
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let inner = self.lock();
        let elapsed = SignedDuration::try_from(inner.elapsed).unwrap_or(SignedDuration::MAX);
        inner.start.saturating_add(elapsed + inner.skew).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.lock().elapsed
    }

    fn since_boot(&self) -> Duration {
        self.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.wait(duration, true)
    }

    fn deadline(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.wait(duration, false)
    }

    fn random(&self) -> f64 {
        0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn the_clock_moves_only_when_what_is_about_to_sleep_sleeps() {
        let clock = clock();
        let sleeper = clock.clone();
        let nap = tokio::spawn(async move {
            // It is late, as after an answer from elsewhere.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            sleeper.sleep(5 * SECOND).await;
            sleeper.monotonic()
        });
        clock.advance(5 * SECOND).await;
        assert_eq!(nap.await.expect("the sleeper ran"), 5 * SECOND);
    }

    #[tokio::test]
    async fn the_clock_waits_for_the_work_of_another_thread() {
        let clock = clock();
        let (done, slept_until) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let (ask, asked) = std::sync::mpsc::channel::<oneshot::Sender<()>>();
        let worker = std::thread::spawn(move || asked.into_iter().for_each(|answer| answer.send(()).unwrap_or_default()));
        let (observed, count) = (ask.clone(), done.clone());
        clock.observe(move || {
            let (observed, count) = (observed.clone(), count.clone());
            Box::pin(async move {
                let (answer, answered) = oneshot::channel();
                observed.send(answer).expect("the thread runs");
                answered.await.expect("the thread answers");
                count.load(Ordering::SeqCst)
            })
        });
        let (sleeper, noting) = (clock.clone(), slept_until.clone());
        let task = tokio::spawn(async move {
            for _ in 0..100 {
                let (answer, answered) = oneshot::channel();
                ask.send(answer).expect("the thread runs");
                answered.await.expect("the thread answers");
                done.fetch_add(1, Ordering::SeqCst);
            }
            sleeper.sleep(SECOND).await;
            *noting.lock().expect("no panic") = Some(sleeper.monotonic());
        });
        clock.advance(SECOND).await;
        assert_eq!(*slept_until.lock().expect("no panic"), Some(SECOND));
        task.await.expect("no panic");
        drop(clock);
        worker.join().expect("no panic");
    }

    #[tokio::test]
    async fn each_wait_on_the_way_ends_at_its_own_time() {
        let clock = clock();
        let ticking = clock.clone();
        let ticks = tokio::spawn(async move {
            let mut ticks = Vec::new();
            for _ in 0..3 {
                ticking.deadline(2 * SECOND).await;
                ticks.push(ticking.monotonic().as_secs());
            }
            ticks
        });
        clock.advance(7 * SECOND).await;
        assert_eq!((ticks.await.expect("no panic"), clock.monotonic()), (vec![2, 4, 6], 7 * SECOND));
    }

    #[tokio::test]
    async fn after_a_leap_every_due_wait_ends_at_the_new_time() {
        let clock = clock();
        let nap = clock.sleep(2 * SECOND);
        clock.leap(7 * SECOND).await;
        nap.await;
        assert_eq!(clock.monotonic(), 7 * SECOND);
    }

    #[tokio::test]
    async fn advancing_to_the_next_sleep_passes_over_deadlines_but_never_aims_at_one() {
        let clock = clock();
        let guard = clock.deadline(SECOND);
        let nap = clock.sleep(3 * SECOND);
        clock.advance_to_next_sleep().await;
        tokio::join!(guard, nap);
        assert_eq!(clock.monotonic(), 3 * SECOND);
    }

    #[test]
    fn a_wall_clock_jump_leaves_the_monotonic_clock_alone() {
        let clock = clock();
        clock.jump(SignedDuration::from_secs(-3600));
        assert_eq!(clock.now().as_second(), -3600);
        assert_eq!(clock.monotonic(), Duration::ZERO);
    }
}
