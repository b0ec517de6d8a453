//! SIGTERM and Ctrl-C. The first asks to stop in order; a later one ends the process at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use iolaus_activities::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::exit::Exit;

/// Signals so close together are one wish: `timeout` and some supervisors signal a process and then its group.
const ONE_WISH: Duration = Duration::from_secs(1);

/// Whether somebody asked this process to stop.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    stop: watch::Receiver<bool>,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen(clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened for")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be listened for")?;
        let (ask, stop) = watch::channel(false);
        let clock = clock.clone();
        tokio::spawn(async move {
            either(&mut terminate, &mut interrupt).await;
            ask.send_replace(true);
            let mut over = clock.deadline(ONE_WISH);
            loop {
                tokio::select! {
                    biased;
                    () = either(&mut terminate, &mut interrupt) => {}
                    () = &mut over => break,
                }
            }
            either(&mut terminate, &mut interrupt).await;
            // What was acknowledged is stored; attempts that still run are rescued like those of a dead worker.
            std::process::exit(i32::from(Exit::NotYet.code()));
        });
        Ok(Self { stop })
    }

    /// Ends when somebody asks to stop.
    pub(crate) async fn stopped(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
