//! What the integration tests share.

pub(crate) mod host;
pub(crate) mod probe;
pub(crate) mod tenant;
pub(crate) mod watchdog;
