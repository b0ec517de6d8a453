//! An activity that does nothing, and a queue to run it on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::tenant::Tenants;
use iolaus_activities::{Activity, ActivityContext, ActivityError, Clock, Registry, SystemClock, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Scratch, Settings};
use crate::embedded::{Embedded, EmbeddedOptions, WorkerOptions};
use crate::intake::{Intake, JobRequest};
use crate::job::{NewJob, TraceContext};

/// Does nothing. Repeat story: nothing happens twice, either.
#[derive(Default)]
pub(super) struct Noop {
    /// Whom to tell how long it took from the enqueue call to here.
    telling: Option<(Arc<dyn Clock>, mpsc::UnboundedSender<Duration>)>,
}

impl Noop {
    pub(super) fn telling(clock: Arc<dyn Clock>, told: mpsc::UnboundedSender<Duration>) -> Self {
        Self { telling: Some((clock, told)) }
    }
}

/// Bytes of the text that every job carries.
const PAYLOAD: usize = 136;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoopInput {
    /// When it was sent, in nanoseconds of this machine's clock, where that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent: Option<i64>,
    payload: String,
}

impl Activity for Noop {
    const NAME: &'static str = "noop";
    type Input = NoopInput;

    async fn run(&self, _: &ActivityContext, input: NoopInput) -> Result<Verdict, ActivityError> {
        if let (Some((clock, told)), Some(sent)) = (&self.telling, input.sent) {
            let nanos = u64::try_from(nanos(clock.as_ref()).saturating_sub(sent)).unwrap_or(0);
            // Whoever listens has stopped to.
            told.send(Duration::from_nanos(nanos)).ok();
        }
        Ok(Verdict::passed("nothing was done"))
    }
}

/// All processes of a machine read the same clock.
fn nanos(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// An input of 160 bytes, as the peers are measured with.
fn input() -> Value {
    json!({ "payload": "x".repeat(PAYLOAD) })
}

fn input_sent_at(nanos: i64) -> Value {
    json!({ "sent": nanos, "payload": "x".repeat(PAYLOAD) })
}

/// A queue in a file of its own.
pub(super) struct Queue {
    pub(super) path: PathBuf,
    pub(super) host: Arc<Embedded>,
    pub(super) clock: Arc<dyn Clock>,
    intake: Intake,
}

impl Queue {
    pub(super) fn open(scratch: &Scratch, settings: &Settings) -> anyhow::Result<Self> {
        Self::at(scratch.file(), settings)
    }

    /// The same file as another process has.
    pub(super) fn at(path: PathBuf, settings: &Settings) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let options = EmbeddedOptions { durability: settings.durability, ..EmbeddedOptions::at(path.clone()) };
        let host = Embedded::open(options, clock.clone())?;
        let intake = Intake::new(&Registry::default().with(Noop::default()), BTreeMap::default(), vec!["default".into()]);
        Ok(Self { path, host, clock, intake })
    }

    /// A job, as it comes through the door.
    pub(super) fn job(&self) -> anyhow::Result<NewJob> {
        self.admit(input())
    }

    /// A job that tells when this was called.
    pub(super) fn job_sent_now(&self) -> anyhow::Result<NewJob> {
        self.admit(input_sent_at(nanos(self.clock.as_ref())))
    }

    fn admit(&self, input: Value) -> anyhow::Result<NewJob> {
        let request = JobRequest { activity: Noop::NAME.into(), input, ..JobRequest::default() };
        Ok(self.intake.admit(request, TraceContext::generate(), self.clock.now())?)
    }
}

pub(super) fn worker_options(registry: Registry, slots: usize) -> WorkerOptions {
    WorkerOptions {
        registry,
        tenants: Tenants::none(),
        throttles: Arc::default(),
        slots_work: slots,
        slots_waits: 1,
        drain_deadline: Duration::from_secs(600),
        cancel_grace: Duration::from_secs(10),
        stall_after: Duration::from_secs(600),
    }
}
