//! Random interleavings of several jobs for one workflow in two processes on one queue: a tenant that allows several active runs, an index
//! that lags, answers that are lost or late, cancels, and processes that die and come back. What the tenant's ledger shows is held
//! against what every job says. The same with the jobs of one queue in memory: `activities/src/workflow_rerun/tests/interleavings.rs`.
//!
//! `IOLAUS_INTERLEAVINGS` says how many seeds are tried, `IOLAUS_INTERLEAVINGS_SEED` which is the first.

mod killed;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use iolaus::intake::JobRequest;
use iolaus::sandbox::{Action, AlreadyActive, Fault, Sandbox, SandboxOptions, Sleep};
use iolaus_activities::tenant::{TenantSettings, Tenants};
use iolaus_activities::{Clock, ManualClock, Status, VerdictRecord, timestamp};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::containers::engine::say;
use crate::support::host::{TestHost, target};
use crate::support::tenant::{CRAWLER, request, sandbox_clock, settings, submitted_runs, with};
use effect_oracle::{Applied, Ended, Job, Ledger, check, random_input, seeds};

#[path = "../../activities/tests/support/effect_oracle.rs"]
mod effect_oracle;

/// So many interleavings are tried unless a variable says another number.
const USUAL: u64 = 200;
/// The clock moves in such steps, and stops within each at whatever is due.
const STEP: Duration = Duration::from_secs(1);
/// An answer that is to be so late never comes, and a process dies when it is asked for.
const DIES: Duration = Duration::from_secs(24 * 3600);
/// Keeps every intent that any checkpoint ever named.
const KEEP_INTENTS: &str = "
    CREATE TABLE seen_intents (job_id TEXT NOT NULL, request_id TEXT NOT NULL);
    CREATE TRIGGER seen_first AFTER INSERT ON job_checkpoints
      WHEN json_extract(NEW.checkpoint, '$.effort.intent.request_id') IS NOT NULL BEGIN
        INSERT INTO seen_intents
          SELECT job_id, json_extract(NEW.checkpoint, '$.effort.intent.request_id') FROM jobs WHERE id = NEW.id; END;
    CREATE TRIGGER seen_again AFTER UPDATE OF checkpoint ON job_checkpoints
      WHEN json_extract(NEW.checkpoint, '$.effort.intent.request_id') IS NOT NULL BEGIN
        INSERT INTO seen_intents
          SELECT job_id, json_extract(NEW.checkpoint, '$.effort.intent.request_id') FROM jobs WHERE id = NEW.id; END;";

fn keep_intents(file: &Path) {
    let file = rusqlite::Connection::open(file).unwrap();
    file.busy_timeout(Duration::from_secs(60)).unwrap();
    file.execute_batch(KEEP_INTENTS).unwrap();
}

/// The intents that each job saved.
fn kept_intents(file: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let file = rusqlite::Connection::open(file).unwrap();
    let mut statement = file.prepare("SELECT job_id, request_id FROM seen_intents").unwrap();
    let mut intents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap() {
        let (job, intent) = row.unwrap();
        intents.entry(job).or_default().insert(intent);
    }
    intents
}

/// What the sandbox really did; `lasts` is how long a run takes there.
fn ledger(sandbox: &Sandbox, lasts: Duration) -> Ledger {
    let submitted = submitted_runs(sandbox);
    let end = |n: usize| submitted[n].stopped.unwrap_or(submitted[n].at + lasts);
    let applied = submitted.iter().enumerate().map(|(n, own)| Applied {
        request_id: own.request_id.clone(),
        run: own.run.clone(),
        active_then: (0..n).filter(|earlier| end(*earlier) > own.at).map(|earlier| submitted[earlier].run.clone()).collect(),
    });
    let applied = applied.collect();
    let stopped = submitted.iter().filter(|run| run.stopped.is_some()).map(|run| run.run.clone()).collect();
    let ends = |stopped: Option<_>| if stopped.is_some() { "Failed" } else { "Succeeded" };
    let runs = submitted.into_iter().map(|run| (run.run, ends(run.stopped))).collect();
    Ledger { applied, runs, stopped }
}

/// What a verdict says.
fn ended(verdict: VerdictRecord) -> Ended {
    let (message, facts) = (verdict.message, verdict.facts);
    match verdict.status {
        Status::Passed | Status::Failed => {
            Ended::Verdict { passed: verdict.status == Status::Passed, message: message.unwrap_or_default(), facts }
        }
        Status::Cancelled => Ended::Cancelled { message, facts },
        Status::Unresolved => Ended::Unresolved { code: verdict.failure.unwrap().code.clone() },
    }
}

/// What happens to one submission.
fn fault(random: &mut fastrand::Rng, nth: u64) -> Option<Fault> {
    let late = |most: u64, random: &mut fastrand::Rng| Action::Delay { ms: random.u64(..most) };
    let action = match random.u8(..11) {
        0 => Action::CutAfterApplying,
        1 => Action::CutBeforeApplying,
        2 => Action::StatusAfterApplying { status: 502, body: Value::Null },
        3 => Action::Status { status: 503, headers: Vec::new(), body: Value::Null },
        4 => Action::Status { status: 429, headers: vec![("retry-after".into(), "2".into())], body: Value::Null },
        // Within what a request may take, or beyond it.
        5 | 6 => late(40_000, random),
        7 => Action::Hang,
        _ => return None,
    };
    Some(Fault::new(action).on("/submit").nth(nth))
}

/// When a process dies: at this time, or at this exchange, which the tenant has then applied.
#[derive(Debug, Clone, Copy)]
enum Death {
    At(Duration),
    AtExchange(u64),
}

impl Death {
    fn random(random: &mut fastrand::Rng) -> Self {
        if random.bool() { Self::At(Duration::from_millis(random.u64(..60_000))) } else { Self::AtExchange(random.u64(1..=40)) }
    }
}

/// One process of the queue: a worker that dies whenever it is told to, and comes back after a while.
struct Process {
    client: Arc<TestHost>,
    tenant: TenantSettings,
    /// For how long it stays away after each death.
    pauses: Vec<Duration>,
    dies: mpsc::UnboundedReceiver<()>,
    over: watch::Receiver<bool>,
}

impl Process {
    async fn live(mut self) {
        for pause in std::mem::take(&mut self.pauses) {
            let host = self.client.another();
            let tenants = BTreeMap::from([("default".to_owned(), self.tenant.clone())]);
            let host = host.with_tenants(Tenants::new(tenants, self.client.clock.clone()).unwrap());
            let worker = host.worker().await;
            let dies = tokio::select! {
                told = self.dies.recv() => told.is_some(),
                _ = self.over.wait_for(|over| *over) => false,
            };
            if !dies {
                worker.drain().await.unwrap();
                return;
            }
            // No drain: whatever it was about to do is left as it is.
            drop((worker, host));
            self.client.clock.sleep(pause).await;
        }
        unreachable!("it comes back more often than it is told to die");
    }
}

/// How the jobs of one seed are worked.
struct Interleaving {
    client: Arc<TestHost>,
    sandbox: Sandbox,
    lasts: Duration,
    deaths: [mpsc::UnboundedSender<()>; 2],
    over: watch::Sender<bool>,
    processes: Vec<JoinHandle<()>>,
}

impl Interleaving {
    async fn start(random: &mut fastrand::Rng) -> Self {
        let client = Arc::new(TestHost::with_worker_timeout(Duration::from_secs(10)));
        keep_intents(&client.path());
        let (pending, running) = (Duration::from_millis(random.u64(..3_000)), Duration::from_millis(random.u64(1_000..40_000)));
        let (told, deaths_at_exchanges) = mpsc::unbounded_channel();
        let options = SandboxOptions {
            clock: sandbox_clock(&client.clock),
            sleep: sleep(&client.clock, told),
            already_active: AlreadyActive::Allow,
            index_lag: Duration::from_millis(random.u64(..=10_000)),
            date_header: random.u8(..100) < 80,
            pending,
            running,
            ..SandboxOptions::default()
        };
        let sandbox = Sandbox::start(options).await.unwrap();
        for nth in 1..=random.u64(..6) {
            if let Some(fault) = fault(random, nth) {
                sandbox.add_fault(fault);
            }
        }
        let over = watch::Sender::new(false);
        let mut processes = Vec::new();
        let deaths = [(); 2].map(|()| {
            let (tells, dies) = mpsc::unbounded_channel();
            let pauses = (0..20).map(|_| Duration::from_millis(random.u64(100..25_000))).collect();
            let tenant = TenantSettings { requests_per_second: 0, ..settings(&sandbox) };
            let process = Process { client: client.clone(), tenant, pauses, dies, over: over.subscribe() };
            processes.push(tokio::spawn(process.live()));
            tells
        });
        tokio::spawn(pass_on(deaths_at_exchanges, deaths.clone(), random.bool()));
        Self { client, sandbox, lasts: pending + running, deaths, over, processes }
    }

    /// Lets a process die then.
    fn plan(&self, process: usize, death: Death) {
        match death {
            Death::At(at) => {
                let (sleep, dies) = (self.client.clock.sleep(at), self.deaths[process].clone());
                tokio::spawn(async move {
                    sleep.await;
                    dies.send(()).ok();
                });
            }
            Death::AtExchange(nth) => {
                let ms = u64::try_from(DIES.as_millis()).unwrap();
                self.sandbox.add_fault(Fault::new(Action::Delay { ms }).nth(nth));
            }
        }
    }

    /// Ends both processes in order.
    async fn end(&mut self) {
        self.over.send_replace(true);
        for process in std::mem::take(&mut self.processes) {
            process.await.unwrap();
        }
    }
}

/// How late answers wait. One that shall never come tells that a process dies.
fn sleep(clock: &Arc<ManualClock>, dies: mpsc::UnboundedSender<()>) -> Sleep {
    let clock = clock.clone();
    Arc::new(move |duration| {
        if duration == DIES {
            dies.send(()).ok();
            return Box::pin(std::future::pending());
        }
        clock.sleep(duration)
    })
}

/// Lets the two processes die in turn.
async fn pass_on(mut told: mpsc::UnboundedReceiver<()>, deaths: [mpsc::UnboundedSender<()>; 2], begins: bool) {
    let mut next = usize::from(begins);
    while told.recv().await.is_some() {
        deaths[next].send(()).ok();
        next = 1 - next;
    }
}

/// What one job is, and what happens to it.
#[derive(Debug, Clone)]
struct Plan {
    input: Value,
    begins: Duration,
    cancelled: Option<Duration>,
}

impl Plan {
    fn random(random: &mut fastrand::Rng, now: &str) -> Self {
        Self {
            input: random_input(random, now),
            begins: if random.u8(..100) < 40 { Duration::ZERO } else { Duration::from_millis(random.u64(..15_000)) },
            cancelled: (random.u8(..100) < 20).then(|| Duration::from_millis(random.u64(..60_000))),
        }
    }

    /// Enqueues the job, cancels it where that is planned, and waits for its verdict.
    async fn carry_out(self, client: Arc<TestHost>, id: String) -> (Self, VerdictRecord) {
        client.clock.sleep(self.begins).await;
        let input = with(json!({"workflow": CRAWLER}), self.input.clone());
        client.enqueue(JobRequest { job_id: Some(id.clone()), ..request("workflow_rerun", input) }).await.unwrap();
        let cancel = async {
            let Some(at) = self.cancelled else { return std::future::pending().await };
            client.clock.sleep(at).await;
            // It may have ended already.
            client.client.cancel(target(&id), None).await.ok();
            std::future::pending::<()>().await;
        };
        let verdict = tokio::select! {
            verdict = client.client.wait(target(&id)) => verdict.unwrap(),
            () = cancel => unreachable!("it waits for the verdict"),
        };
        (self, verdict)
    }
}

async fn interleaving(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut one = Interleaving::start(&mut random).await;
    let client = one.client.clone();
    for process in 0..2 {
        for _ in 0..random.usize(..3) {
            one.plan(process, Death::random(&mut random));
        }
    }
    let now = timestamp::format(client.clock.now());
    let carried_out: Vec<_> = (0..random.usize(2..=8))
        .map(|n| tokio::spawn(Plan::random(&mut random, &now).carry_out(client.clone(), format!("job-{n}"))))
        .collect();
    let work = async {
        let mut ended = Vec::new();
        for task in carried_out {
            ended.push(task.await.unwrap());
        }
        one.end().await;
        ended
    };
    // Most of what a rescue waits for is no sleep that the clock could jump to.
    let verdicts = client.pass_time(STEP, work).await;
    let mut intents = kept_intents(&client.path());
    let job = |(n, (plan, verdict)): (usize, (Plan, VerdictRecord))| {
        let id = format!("job-{n}");
        let intents = intents.remove(&id).unwrap_or_default();
        Job { id, input: plan.input, cancelled: plan.cancelled.is_some(), intents, ended: ended(verdict) }
    };
    let jobs: Vec<_> = verdicts.into_iter().enumerate().map(job).collect();
    check(&ledger(&one.sandbox, one.lasts), &jobs, &format!("seed {seed}"));
}

/// Tries a quarter of the seeds, so that they are tried beside each other, and says which one fails.
async fn quarter(of: u64) {
    for seed in seeds(USUAL).filter(|seed| seed % 4 == of) {
        if let Err(error) = tokio::spawn(interleaving(seed)).await {
            say(&format!("IOLAUS_INTERLEAVINGS_SEED={seed} IOLAUS_INTERLEAVINGS=1 repeats it"));
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

#[tokio::test]
async fn whatever_interleaves_in_two_processes_effects_equal_intents_and_every_verdict_is_true() {
    quarter(0).await;
}

#[tokio::test]
async fn whatever_interleaves_in_two_processes_effects_equal_intents_and_every_verdict_is_true_second_quarter() {
    quarter(1).await;
}

#[tokio::test]
async fn whatever_interleaves_in_two_processes_effects_equal_intents_and_every_verdict_is_true_third_quarter() {
    quarter(2).await;
}

#[tokio::test]
async fn whatever_interleaves_in_two_processes_effects_equal_intents_and_every_verdict_is_true_last_quarter() {
    quarter(3).await;
}
