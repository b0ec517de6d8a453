//! placeholder
pub mod client;
pub mod intake;
pub mod job;
pub mod telemetry;
