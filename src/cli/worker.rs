//! `iolaus worker`: works until told to stop.

use clap::Args;

use super::App;
use super::exit::Exit;
use super::host::Host;
use super::signals::Signals;

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus worker
  IOLAUS_WORKER__SLOTS_WORK=8 IOLAUS_LOG=debug iolaus worker --config /etc/iolaus.toml";

/// Work what others enqueue, until told to stop
#[derive(Debug, Clone, Args)]
#[command(
    after_help = EXAMPLES,
    long_about = "Work what others enqueue, until told to stop.\n\n\
        SIGTERM, SIGHUP or Ctrl-C: no more jobs are claimed, attempts may finish within worker.drain_deadline, the rest is given back. A second \
        one ends the process at once; what it held is rescued by another worker, or by the next."
)]
pub(crate) struct Worker {}

impl Worker {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let signals = Signals::listen()?;
        // A configuration that names an activity that is none should stop a worker, too.
        app.intake()?;
        app.require_any_tenant()?;
        let host = app.open()?;
        let bound = Host::bind_http(app)?;
        let worker = host.start_worker(app).await?;
        // Answers while the worker drains, too: that it is not ready is an answer.
        let _server = bound.map(|bound| Host::serve_http(app, bound, &worker));
        tokio::select! {
            biased;
            () = signals.stopped() => {}
            error = worker.failed() => {
                tracing::error!(%error, "the worker cannot go on: what runs may finish within worker.drain_deadline");
                worker.drain().await.ok();
                return Err(error.into());
            }
        }
        tracing::info!("asked to stop: finishing what runs, claiming nothing more");
        worker.drain().await?;
        Ok(Exit::Passed)
    }
}
