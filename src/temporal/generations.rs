//! The SDK's workers, one for each slot class, and how our activities are registered with them.
//!
//! An SDK worker keeps something of every task that it ever had, so each is replaced after a number of tasks (`RECYCLED_AFTER` in what
//! its parts share): a new one polls, and the old one ends with its last attempt.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use iolaus_activities::SlotClass;
use temporalio_common::ActivityDefinition;
use temporalio_common::data_converters::RawValue;
use temporalio_common::telemetry::TelemetryOptions;
use temporalio_common::worker::{VersioningBehavior, WorkerDeploymentOptions, WorkerDeploymentVersion};
use temporalio_sdk::activities::{ActivityContext, ActivityDefinitions, ActivityError, ActivityImplementer, ExecutableActivity};
use temporalio_sdk::runtime::worker_tuner::{FixedSizeSlotSupplier, TunerHolder};
use temporalio_sdk::runtime::{PollerBehavior, RuntimeOptions};
use temporalio_sdk::{Runtime, Worker as SdkWorker, WorkerOptions as SdkOptions};

use super::sequence::SequenceWorkflow;
use super::shared::Shared;
use super::{attempt, connect};

/// Workflow tasks at once, of each SDK worker. They take no time.
const WORKFLOW_TASKS: usize = 20;
/// Before another try to build the next worker.
const NEXT_PAUSE: Duration = Duration::from_secs(5);

/// Serves a slot class's task queue until the worker stops.
pub(super) async fn serve(shared: Arc<Shared>, class: SlotClass) -> Result<(), String> {
    let mut generations = FuturesUnordered::new();
    let mut stopping = shared.stopping.subscribe();
    let newest = generation(&shared, class).await?;
    let mut stop: Box<dyn Fn()> = Box::new(newest.shutdown_handle());
    generations.push(run(newest));
    let mut next = next(&shared, class).boxed_local();
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => break,
            newest = &mut next => {
                // The new one polls before the old one stops to.
                stop();
                stop = Box::new(newest.shutdown_handle());
                generations.push(run(newest));
                next = self::next(&shared, class).boxed_local();
                tracing::info!(slot_class = class.as_str(), "the SDK's worker is replaced by a new one");
            }
            Some(ended) = generations.next() => {
                // An old one ends with its last attempt; the newest only with an error.
                ended?;
                if generations.is_empty() {
                    return Err("the SDK's worker has ended".to_owned());
                }
            }
        }
    }
    stop();
    drop(next);
    while let Some(ended) = generations.next().await {
        ended?;
    }
    Ok(())
}

fn run(mut worker: SdkWorker) -> LocalBoxFuture<'static, Result<(), String>> {
    async move { worker.run().await.map_err(|error| error.to_string()) }.boxed_local()
}

/// The next worker, as soon as the one before has had its tasks. While there is none, the one before goes on.
async fn next(shared: &Arc<Shared>, class: SlotClass) -> SdkWorker {
    shared.recycled(class).await;
    loop {
        match generation(shared, class).await {
            Ok(worker) => return worker,
            Err(error) => {
                tracing::warn!(slot_class = class.as_str(), %error, "no new SDK worker yet; the old one goes on");
                shared.clock.sleep(NEXT_PAUSE).await;
            }
        }
    }
}

/// A new SDK worker, on a connection of its own: two on one connection may not poll the same queue.
async fn generation(shared: &Arc<Shared>, class: SlotClass) -> Result<SdkWorker, String> {
    let client = connect::connect(&shared.host.options.connecting).await.map_err(|error| error.to_string())?;
    let runtime = RuntimeOptions::builder().telemetry_options(TelemetryOptions::builder().build()).build()?;
    let runtime = Runtime::from_current_tokio(runtime).map_err(|error| error.to_string())?;
    let tuner = TunerHolder::builder()
        .workflow_task_slot_supplier(FixedSizeSlotSupplier::new(WORKFLOW_TASKS))
        .activity_task_slot_supplier(FixedSizeSlotSupplier::new(shared.slots(class)))
        .local_activity_task_slot_supplier(FixedSizeSlotSupplier::new(1))
        .nexus_task_slot_supplier(FixedSizeSlotSupplier::new(1))
        .build();
    let deployment = match &shared.options.version {
        None => WorkerDeploymentOptions::from_build_id(env!("CARGO_PKG_VERSION").to_owned()),
        Some((name, build)) => {
            let version = WorkerDeploymentVersion::builder().deployment_name(name.clone()).build_id(build.clone()).build();
            // A sequence goes on with the current version, whose steps do the same: were it of no version, the server would look for
            // one of each step's, again and again.
            WorkerDeploymentOptions::new(version)
                .use_worker_versioning(true)
                .default_versioning_behavior(VersioningBehavior::AutoUpgrade)
                .build()
        }
    };
    let options = SdkOptions::new(shared.host.options.queue(class))
        .register_activities(Activities { shared: shared.clone(), class })
        .tuner(tuner)
        .activity_task_poller_behavior(PollerBehavior::SimpleMaximum(shared.options.pollers))
        .deployment_options(deployment)
        .client_identity_override(connect::identity());
    let mut options = options.build();
    if class == SlotClass::Work {
        // The steps of a sequence go to both queues; the sequence itself is work, and takes no slot of it.
        options.register_workflow::<SequenceWorkflow>().map_err(|error| error.to_string())?;
    }
    SdkWorker::new(&runtime, client, options).map_err(|error| error.to_string())
}

thread_local! {
    /// The activity that is being registered: the SDK asks a type for its activity's name, and ours are known only now.
    static REGISTERING: RefCell<String> = const { RefCell::new(String::new()) };
}

/// An activity by its name.
struct ByName(String);

impl ActivityDefinition for ByName {
    type Input = RawValue;
    type Output = RawValue;

    fn name(&self) -> &str {
        &self.0
    }
}

impl ExecutableActivity for ByName {
    type Implementer = Activities;
    const REQUIRES_INSTANCE: bool = true;

    fn definition() -> Self {
        Self(REGISTERING.with_borrow(Clone::clone))
    }

    fn execute(
        receiver: Option<Arc<Activities>>,
        ctx: ActivityContext,
        input: RawValue,
    ) -> BoxFuture<'static, Result<RawValue, ActivityError>> {
        async move {
            if let Some(of) = receiver {
                attempt::attempt(of.shared.clone(), ctx, input, of.class).await;
            }
            // The server has been told, by us.
            Err(ActivityError::WillCompleteAsync)
        }
        .boxed()
    }
}

/// Everything that is registered.
struct Activities {
    shared: Arc<Shared>,
    class: SlotClass,
}

impl ActivityImplementer for Activities {
    fn register_all(self: Arc<Self>, definitions: &mut ActivityDefinitions) {
        for info in self.shared.options.registry.infos() {
            REGISTERING.set(info.name.to_owned());
            definitions.register_activity::<ByName>(self.clone());
        }
    }
}
