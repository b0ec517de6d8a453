//! What is done with the embedded host's file itself: it is checked, and its disk is measured.

use crate::cli::App;
use crate::client::ClientError;
use crate::config::HostKind;
use crate::embedded::{self, DiskSpeed, FsckOptions, FsckReport};

impl App {
    /// Checks the queue's file, and repairs it if that is asked for.
    pub(crate) async fn fsck(&self, repair: bool) -> Result<FsckReport, ClientError> {
        if self.config.host.kind != HostKind::Embedded {
            return Err(ClientError::Unsupported { what: "fsck".to_owned(), host: "temporal" });
        }
        let options = FsckOptions {
            path: self.config.database.path.clone(),
            repair,
            worker_timeout: self.config.worker.worker_timeout,
            retention: self.config.database.retention,
        };
        let (clock, place) = (self.clock.clone(), options.path.display().to_string());
        let checked = tokio::task::spawn_blocking(move || embedded::fsck(&options, clock)).await;
        checked.unwrap_or_else(|error| Err(panicked(place, error)))
    }

    /// Measures the disk that the queue's file is on; `None` for a queue that is no file here.
    pub(crate) async fn measure_disk(&self) -> Option<Result<DiskSpeed, ClientError>> {
        if self.config.host.kind != HostKind::Embedded {
            return None;
        }
        let (clock, path) = (self.clock.clone(), self.config.database.path.clone());
        let place = path.display().to_string();
        let measured = tokio::task::spawn_blocking(move || embedded::measure_disk(&path, clock.as_ref())).await;
        Some(measured.unwrap_or_else(|error| Err(panicked(place, error))))
    }
}

fn panicked(place: String, error: tokio::task::JoinError) -> ClientError {
    ClientError::Unavailable { place, unknown: false, hint: None, source: Box::new(error) }
}
