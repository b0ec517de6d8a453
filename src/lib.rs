//! placeholder
pub mod client;
pub mod embedded;
pub mod executor;
pub mod intake;
pub mod job;
pub mod telemetry;
