//! What the integration tests share.

pub(crate) mod child;
#[cfg(feature = "temporal")]
pub(crate) mod cluster;
pub(crate) mod host;
pub(crate) mod port;
pub(crate) mod probe;
pub(crate) mod python;
pub(crate) mod skip;
pub(crate) mod tenant;
pub(crate) mod watchdog;
