//! What the integration tests share.

#[cfg(feature = "temporal")]
pub(crate) mod cluster;
pub(crate) mod host;
pub(crate) mod probe;
pub(crate) mod python;
pub(crate) mod tenant;
pub(crate) mod watchdog;
