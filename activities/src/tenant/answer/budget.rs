//! How much memory the answers of all tenants may take at once, however many come and whatever they hold.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Answers up to this many bytes are free: nearly all are smaller.
pub(super) const FREE: usize = 64 * 1024;
/// The bytes of larger answers that may be in memory at once in this process. A buffer that grows and the texts that are unescaped from
/// it can take four times as much, which keeps 32 answers of 8 MiB below 200 MB.
const BUDGET: usize = 40 * 1024 * 1024;
/// Large answers of one tenant at once, so that a tenant that sends slowly leaves the budget to others.
const PER_TENANT: usize = 2;
const UNIT: usize = 1024;

static LEFT: Semaphore = Semaphore::const_new(BUDGET / UNIT);

/// The large answers of one tenant that are being read.
pub(in crate::tenant) struct Large(Arc<Semaphore>);

/// The right to keep one large answer in memory.
pub(super) struct Reservation {
    _own: Option<OwnedSemaphorePermit>,
    _shared: Option<SemaphorePermit<'static>>,
}

impl Default for Large {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PER_TENANT)))
    }
}

impl Large {
    /// Waits until an answer of up to `limit` bytes may be read. The whole is reserved at once, so nothing waits for more while it holds
    /// a part; the wait ends with the request's own timeout.
    pub(super) async fn reserve(&self, limit: usize) -> Reservation {
        // Neither semaphore is ever closed.
        let own = self.0.clone().acquire_owned().await.ok();
        let units = u32::try_from(limit.min(BUDGET).div_ceil(UNIT)).unwrap_or(u32::MAX);
        Reservation { _own: own, _shared: LEFT.acquire_many(units).await.ok() }
    }
}
