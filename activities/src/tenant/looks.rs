//! Looking at runs by their names, many in one request: all waits of this process on one tenant share their looks.
//!
//! Whoever wants to look puts a name into a queue. One of them at a time takes up to 500 names out and asks for all; the others find
//! their answers when they come. As long as 500 are waiting, the next request is made at once; fewer wait until a fifth of a
//! `poll_interval` has passed since the last one, so that more can join them. So N runs cost about N/500 requests in each interval, and
//! few of them never more than five. If the one that asks goes away, the others queue again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Notify, oneshot};

use super::runs::{Run, newest_created_first, search};
use super::{Kind, Tenant, classify};
use crate::failure::Failure;

/// How many runs one request asks for, unless the tenant turns out to bear only fewer.
const MOST: usize = 500;
/// For how long a refusal of so many is believed. Then twice as many are tried, so that one odd answer does not cost requests for ever.
const BELIEVED: Duration = Duration::from_secs(600);
/// How many requests there are at most in one `poll_interval`, as long as fewer than [`MOST`] runs are waiting in each.
const PER_INTERVAL: u32 = 5;

type Seen = Result<Option<Run>, Failure>;

/// The looks at the runs of one kind at one tenant.
pub(super) struct Looks {
    kind: Kind,
    queue: Mutex<Vec<Asked>>,
    /// Told when as many are waiting as one request asks for.
    full: Notify,
    /// Held by the one that asks; when (monotonic) the last request was made.
    turn: tokio::sync::Mutex<Option<Duration>>,
    most: Mutex<Most>,
}

/// How many runs one request asks for.
struct Most {
    runs: usize,
    /// Until when (monotonic) it is believed that the tenant bears no more.
    until: Duration,
}

struct Asked {
    run: String,
    answer: oneshot::Sender<Seen>,
}

impl Looks {
    pub(super) fn at(kind: Kind) -> Self {
        let (queue, full, turn) = Default::default();
        Self { kind, queue, full, turn, most: Mutex::new(Most { runs: MOST, until: Duration::ZERO }) }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<Asked>) -> T) -> T {
        f(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn most(&self, now: Duration) -> usize {
        let mut most = self.most.lock().unwrap_or_else(PoisonError::into_inner);
        while most.runs < MOST && now >= most.until {
            *most = Most { runs: (most.runs * 2).min(MOST), until: most.until.saturating_add(BELIEVED) };
        }
        most.runs
    }

    fn bears_only(&self, runs: usize, now: Duration) {
        *self.most.lock().unwrap_or_else(PoisonError::into_inner) = Most { runs, until: now.saturating_add(BELIEVED) };
    }

    fn ask(&self, run: &str, now: Duration) -> oneshot::Receiver<Seen> {
        let (answer, answered) = oneshot::channel();
        let waiting = self.with(|queue| {
            queue.push(Asked { run: run.to_owned(), answer });
            queue.len()
        });
        if waiting >= self.most(now) {
            self.full.notify_one();
        }
        answered
    }

    fn is_full(&self, now: Duration) -> bool {
        self.with(|queue| queue.len()) >= self.most(now)
    }

    fn take(&self, now: Duration) -> Vec<Asked> {
        let most = self.most(now);
        self.with(|queue| {
            queue.retain(|asked| !asked.answer.is_closed());
            queue.drain(..queue.len().min(most)).collect()
        })
    }
}

impl Tenant {
    /// One look at one run of a workflow; None while the index does not show it.
    pub async fn look(&self, run: &str) -> Result<Option<Run>, Failure> {
        self.look_with_others(&self.looks, run).await
    }

    /// One look at one run of a workflow in a request of its own.
    pub async fn look_alone(&self, run: &str) -> Result<Option<Run>, Failure> {
        Ok(Box::pin(self.ask_for(Kind::Workflow, &BTreeSet::from([run]))).await?.remove(run))
    }

    /// One look at what the index shows of one run, together with all others who want to look.
    pub(super) async fn look_with_others(&self, looks: &Looks, run: &str) -> Result<Option<Run>, Failure> {
        loop {
            let now = self.clock.monotonic();
            if looks.most(now) == 1 {
                return Ok(Box::pin(self.ask_for(looks.kind, &BTreeSet::from([run]))).await?.remove(run));
            }
            let mut answered = looks.ask(run, now);
            let seen = tokio::select! {
                biased;
                seen = &mut answered => seen.ok(),
                // Boxed: all others wait without room for what only one does.
                mut turn = looks.turn.lock() => Box::pin(self.lead(looks, &mut turn, &mut answered)).await,
            };
            if let Some(seen) = seen {
                return seen;
            }
        }
    }

    /// Asks on behalf of everybody until our own answer is there; None if it must be asked for again.
    async fn lead(&self, looks: &Looks, last: &mut Option<Duration>, answered: &mut oneshot::Receiver<Seen>) -> Option<Seen> {
        loop {
            match answered.try_recv() {
                Ok(seen) => return Some(seen),
                Err(oneshot::error::TryRecvError::Closed) => return None,
                Err(oneshot::error::TryRecvError::Empty) => self.look_together(looks, last).await,
            }
        }
    }

    /// Lets names gather, unless there are enough.
    async fn gather(&self, looks: &Looks, last: Option<Duration>) {
        let Some(last) = last else { return };
        let next = last.saturating_add(self.settings.poll_interval / PER_INTERVAL);
        let early = next.saturating_sub(self.clock.monotonic());
        if early.is_zero() {
            return;
        }
        let mut sleep = self.clock.sleep(early);
        while !looks.is_full(self.clock.monotonic()) {
            tokio::select! {
                () = &mut sleep => return,
                () = looks.full.notified() => {}
            }
        }
    }

    async fn look_together(&self, looks: &Looks, last: &mut Option<Duration>) {
        self.gather(looks, *last).await;
        let now = self.clock.monotonic();
        *last = Some(now);
        let asked = looks.take(now);
        let names: BTreeSet<_> = asked.iter().map(|asked| asked.run.as_str()).collect();
        let seen = self.ask_for(looks.kind, &names).await;
        if let Err(failure) = &seen
            && names.len() > 1
            && classify::is_about_size(failure)
        {
            tracing::warn!(tenant = self.name, runs = names.len(), %failure, "too many runs for one look; looking at fewer at once");
            looks.bears_only(names.len() / 2, self.clock.monotonic());
            return;
        }
        for Asked { run, answer } in asked {
            // Who went away meanwhile needs no answer.
            answer.send(seen.as_ref().map(|found| found.get(&run).cloned()).map_err(Failure::clone)).ok();
        }
    }

    async fn ask_for(&self, kind: Kind, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Run>, Failure> {
        if kind == Kind::App {
            return self.indexed_by_name(names).await;
        }
        let filter = match names.first() {
            Some(name) if names.len() == 1 => json!({"term": {"_id": {"value": name}}}),
            _ => json!({"terms": {"_id": names}}),
        };
        let call = search("runs.look", 0, names.len(), &filter, &newest_created_first());
        let found = self.runs(&call).await?;
        Ok(found.into_iter().map(|run| (run.name.clone(), run)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::clock::Clock;
    use crate::tenant::scripted::{Reply, Scripted, clock, drive, hits};

    fn named(name: &Value) -> Value {
        json!({"metadata": {"name": name}})
    }

    /// Shows whatever is asked for, up to so many runs at once.
    async fn tenant_that_bears(most: usize, refusal: Reply) -> Scripted {
        Scripted::answering(move |request| {
            let filter = &request.body["query"]["bool"]["filter"][0];
            let names = match &filter["terms"]["_id"] {
                Value::Array(names) => names.clone(),
                _ => vec![filter["term"]["_id"]["value"].clone()],
            };
            let shown: Vec<_> = names.iter().filter(|name| *name != "missing").map(named).collect();
            Some(if names.len() > most { refusal.clone() } else { Reply::ok(&hits(&shown)) })
        })
        .await
    }

    async fn looks_of(server: &Scripted, runs: impl IntoIterator<Item = String>) -> Vec<Seen> {
        let clock = clock();
        let tenant = server.tenant(&clock);
        let looks: Vec<_> = runs
            .into_iter()
            .map(|run| {
                let tenant = Arc::clone(&tenant);
                tokio::spawn(async move { tenant.look(&run).await })
            })
            .collect();
        let mut seen = Vec::new();
        for look in looks {
            seen.push(drive(&clock, look).await.expect("no panic"));
        }
        seen
    }

    fn shows(seen: &Seen, name: &str) -> bool {
        seen.as_ref().is_ok_and(|run| run.as_ref().is_some_and(|run| run.name == name))
    }

    #[tokio::test]
    async fn a_thousand_looks_take_three_requests() {
        let server = tenant_that_bears(500, Reply::text(400, "")).await;
        let names: Vec<_> = (0..1000).map(|n| format!("run-{n}")).collect();
        let seen = looks_of(&server, names.clone()).await;
        assert!(seen.iter().zip(&names).all(|(seen, name)| shows(seen, name)));
        assert!(server.requests().len() <= 3, "{}", server.requests().len());
    }

    /// How many runs each request asked for, and when.
    async fn asked_for(looks: usize) -> Vec<(usize, Duration)> {
        let clock = clock();
        let (at, asked) = (clock.clone(), Arc::new(Mutex::new(Vec::new())));
        let noting = asked.clone();
        let server = Scripted::answering(move |request| {
            let names =
                request.body["query"]["bool"]["filter"][0]["terms"]["_id"].as_array().cloned().unwrap_or(vec![json!("one")]);
            noting.lock().expect("no panic").push((names.len(), at.monotonic()));
            Some(Reply::ok(&hits(&names.iter().map(named).collect::<Vec<_>>())))
        })
        .await;
        let tenant = server.tenant(&clock);
        tenant.look("one").await.expect("an answer");
        let looks: Vec<_> = (0..looks)
            .map(|n| {
                let tenant = Arc::clone(&tenant);
                tokio::spawn(async move { tenant.look(&format!("run-{n}")).await })
            })
            .collect();
        clock.until_at_rest().await;
        for look in looks {
            drive(&clock, look).await.expect("no panic").expect("an answer");
        }
        asked.lock().expect("no panic").split_off(1)
    }

    #[tokio::test]
    async fn five_hundred_are_asked_for_at_once_and_fewer_wait_for_more() {
        let (at_once, later) = (Duration::ZERO, Duration::from_secs(1));
        assert_eq!(asked_for(3).await, [(3, later)]);
        assert_eq!(asked_for(499).await, [(499, later)]);
        assert_eq!(asked_for(500).await, [(500, at_once)]);
        assert_eq!(asked_for(2_100).await, [(500, at_once), (500, at_once), (500, at_once), (500, at_once), (100, later)]);
    }

    #[tokio::test]
    async fn everybody_gets_their_own_answer_and_the_missing_none() {
        let server = tenant_that_bears(500, Reply::text(400, "")).await;
        let seen = looks_of(&server, ["a", "missing", "b", "a"].map(str::to_owned)).await;
        assert!(shows(&seen[0], "a") && shows(&seen[2], "b") && shows(&seen[3], "a"));
        assert_eq!(seen[1], Ok(None));
    }

    #[tokio::test]
    async fn a_tenant_that_bears_fewer_at_once_is_asked_for_fewer() {
        for refusal in [Reply::json(400, &json!({})), Reply::text(200, &"x".repeat(9 << 20))] {
            let server = tenant_that_bears(1, refusal).await;
            let names: Vec<_> = (0..8).map(|n| format!("run-{n}")).collect();
            let seen = looks_of(&server, names.clone()).await;
            assert!(seen.iter().zip(&names).all(|(seen, name)| shows(seen, name)), "{seen:?}");
        }
    }

    #[tokio::test]
    async fn a_tenant_that_once_refused_a_long_look_is_asked_for_many_again_later() {
        let clock = clock();
        let mut refusals = 2;
        let server = Scripted::answering(move |request| {
            let names = request.body["query"]["bool"]["filter"][0]["terms"]["_id"].as_array().cloned().unwrap_or_default();
            let refused = names.len() > 1 && refusals > 0;
            refusals -= i32::from(refused);
            Some(if refused {
                Reply::json(413, &json!({}))
            } else {
                Reply::ok(&hits(&names.iter().map(named).collect::<Vec<_>>()))
            })
        })
        .await;
        let tenant = server.tenant(&clock);
        let all = |tenant: Arc<Tenant>| async move {
            let looks = (0..8).map(|n| {
                let tenant = Arc::clone(&tenant);
                tokio::spawn(async move { tenant.look(&format!("run-{n}")).await })
            });
            for look in looks.collect::<Vec<_>>() {
                look.await.expect("no panic").expect("an answer");
            }
        };
        drive(&clock, all(tenant.clone())).await;
        clock.advance(Duration::from_secs(3600)).await;
        let before = server.requests().len();
        drive(&clock, all(tenant.clone())).await;
        let asked = server.requests().len() - before;
        assert!(asked <= 4, "{asked} requests for 8 runs");
    }

    #[tokio::test]
    async fn a_failure_is_everybodys() {
        let server = Scripted::answering(|_| Some(Reply::json(500, &json!({})))).await;
        let seen = looks_of(&server, ["a", "b"].map(str::to_owned)).await;
        assert!(seen.iter().all(|seen| seen.as_ref().is_err_and(|failure| failure.code == "tenant.unavailable")));
    }

    #[tokio::test]
    async fn if_the_one_that_asks_goes_away_the_others_ask_again() {
        let clock = clock();
        let mut hung = false;
        let server = Scripted::answering(move |_| {
            let reply = if hung { Reply::ok(&hits(&[named(&json!("b"))])) } else { Reply::hang() };
            hung = true;
            Some(reply)
        })
        .await;
        let tenant = server.tenant(&clock);
        let (first, second) = (tenant.clone(), tenant.clone());
        let first = tokio::spawn(async move { first.look("a").await });
        clock.until_at_rest().await;
        assert_eq!(server.requests().len(), 1);
        let second = tokio::spawn(async move { second.look("b").await });
        clock.until_at_rest().await;
        first.abort();
        assert!(shows(&drive(&clock, second).await.expect("no panic"), "b"));
    }
}
