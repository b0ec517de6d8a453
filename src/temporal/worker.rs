//! The worker on this host: an SDK worker for each slot class, whose tasks become attempts of ours; it drains when it is told to stop.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use iolaus_activities::{SlotClass, Stop};
use tokio::sync::watch;

use super::attempt::STOP_EXTENSION;
use super::generations::serve;
use super::shared::{Shared, WorkerOptions};
use super::{Temporal, connect, gauges};
use crate::client::ClientError;

/// After the deadline and the grace, attempts that end have this long to say so.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// A running worker. [`Worker::drain`] stops it in order; dropping it stops it as a crash would.
pub struct Worker {
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<Result<(), String>>>,
}

/// Whether a worker is there for jobs.
#[derive(Clone)]
pub struct Readiness {
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<Result<(), String>>>,
}

impl Worker {
    /// Connects and starts to poll.
    pub async fn start(host: &Arc<Temporal>, options: WorkerOptions) -> Result<Self, ClientError> {
        let client = host.connected().await?;
        let shared = Arc::new(Shared::new(host, client, options));
        gauges::watch(&shared, &host.options.metrics);
        let (telling, ended) = watch::channel(None);
        let (handle, serving) = (tokio::runtime::Handle::current(), shared.clone());
        // The SDK's workers are no `Send`: they stay on this thread, and their attempts run on the runtime's.
        let thread = std::thread::Builder::new().name("iolaus-temporal".into()).spawn(move || {
            let both = async {
                let serve = |class| serve(serving.clone(), class);
                tokio::try_join!(serve(SlotClass::Work), serve(SlotClass::Waits)).map(drop)
            };
            telling.send_replace(Some(handle.block_on(both)));
        });
        thread.map_err(|error| host.unavailable(error, false))?;
        let place = host.place();
        tracing::info!(%place, worker = %connect::identity(), "the worker is ready");
        Ok(Self { shared, ended })
    }

    /// Ends when the worker cannot go on, with the reason.
    pub async fn failed(&self) -> ClientError {
        let mut ended = self.ended.clone();
        let why = match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().and_then(Result::err),
            Err(_) => None,
        };
        self.shared.host.unavailable(why.unwrap_or_else(|| "the worker has ended".to_owned()), false)
    }

    /// Says whether it is there for jobs.
    pub fn readiness(&self) -> Readiness {
        Readiness { shared: self.shared.clone(), ended: self.ended.clone() }
    }

    /// Takes no more, lets attempts finish within the deadline, and gives the rest back.
    pub async fn drain(self) -> Result<(), ClientError> {
        let shared = &self.shared;
        shared.stopping.send_replace(true);
        // Waits would outlive any deadline, and resume from their checkpoints.
        shared.tell(Some(SlotClass::Waits), &Stop::Draining);
        let (deadline, grace) = (shared.options.drain_deadline, shared.options.cancel_grace);
        if within(shared, deadline, shared.until_idle()).await.is_none() {
            shared.tell(None, &Stop::Draining);
            within(shared, grace, shared.until_idle()).await;
            // An attempt that awaits the answer to an effect learns it, and saves it.
            within(shared, STOP_EXTENSION, shared.in_flight.none()).await;
            within(shared, LAST_CALLS, shared.until_idle()).await;
        }
        shared.give_up();
        let mut ended = self.ended.clone();
        // The SDK would wait for attempts for ever.
        within(shared, LAST_CALLS, ended.wait_for(Option::is_some)).await;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stopping.send_replace(true);
        self.shared.tell(None, &Stop::LeaseLost);
        self.shared.give_up();
    }
}

impl Readiness {
    /// Ok while the server answers and the worker polls.
    pub async fn ready(&self) -> Result<(), String> {
        if *self.shared.stopping.borrow() {
            return Err("the worker is draining".to_owned());
        }
        if let Some(ended) = self.ended.borrow().clone() {
            return Err(ended.err().unwrap_or_else(|| "the worker has ended".to_owned()));
        }
        self.shared.host.client().check().await.map(drop).map_err(|error| error.to_string())
    }
}

async fn within<T>(shared: &Shared, time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = shared.clock.deadline(time) => None,
    }
}
