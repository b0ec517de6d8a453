//! What is sent to the writer thread, with the way back for the answer.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::claim::Claimer;
use super::{StoreError, Tx};

/// What the writer runs.
pub(super) trait Run: Send {
    /// Changes the file. May be called again after what it did was undone.
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;
    /// Tells whoever asked, once it is durable or has failed.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Typed<F, T> {
    apply: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Run for Typed<F, T>
where
    F: FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.result = None;
        self.result = Some((self.apply)(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        // Whoever asked may have gone away; what was committed stays.
        reply.send(committed.and_then(|()| result.ok_or(StoreError::Closed))).ok();
    }
}

/// Something for the writer to do.
pub(crate) struct Operation(Kind);

/// What it is.
pub(super) enum Kind {
    Run(Box<dyn Run>),
    Nudge { ready: bool },
    AddClaimer(Arc<dyn Claimer>),
}

impl Operation {
    pub(super) fn new<T: Send + 'static>(
        apply: impl FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        reply: oneshot::Sender<Result<T, StoreError>>,
    ) -> Self {
        Self(Kind::Run(Box::new(Typed { apply, result: None, reply })))
    }

    pub(super) fn into_kind(self) -> Kind {
        self.0
    }

    pub(super) fn nudge(ready: bool) -> Self {
        Self(Kind::Nudge { ready })
    }

    pub(super) fn add_claimer(claimer: Arc<dyn Claimer>) -> Self {
        Self(Kind::AddClaimer(claimer))
    }
}
