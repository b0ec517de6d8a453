//! Tasks that a process cannot do without. One that panics would leave it alive and idle for ever: no lease is renewed, no job is
//! taken, and a supervisor sees a running process. The process ends instead, and its supervisor starts it again.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::store::{Store, StoreError};

/// Runs such a task. If it panics, this process stops using the file: see [`Store::failed`].
pub(super) fn spawn(store: &Arc<Store>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let watch = Watch { store: store.clone(), name };
    tokio::spawn(async move {
        let _watch = watch;
        task.await;
    })
}

struct Watch {
    store: Arc<Store>,
    name: &'static str,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Self { store, name } = self;
        store.hub().fail(StoreError::TaskLost { task: name });
        let store = store.clone();
        // The writer sees it after its next operation.
        tokio::spawn(async move { store.nudge(true).await });
    }
}

#[cfg(test)]
mod tests {
    use iolaus_activities::SystemClock;

    use super::*;
    use crate::embedded::{Embedded, EmbeddedOptions};

    #[tokio::test]
    async fn a_process_stops_using_the_file_when_a_task_that_it_cannot_do_without_panics() {
        let dir = tempfile::tempdir().unwrap();
        let host = Embedded::open(EmbeddedOptions::at(dir.path().join("q.db")), Arc::new(SystemClock::new())).unwrap();
        host.look_after();
        spawn(&host.store, "probe", async {}).await.unwrap();
        assert!(host.store.hub().failure().is_none());
        spawn(&host.store, "probe", async { panic!("as the test wants it") }).await.unwrap_err();
        let reason = host.store.failed().await;
        assert_eq!(reason.to_string(), "the task `probe` of this process panicked");
        assert!(host.store.write(|_| Ok(())).await.is_err());
    }
}
