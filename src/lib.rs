//! placeholder
pub mod client;
pub mod config;
pub mod intake;
pub mod job;
pub mod sandbox;
pub mod telemetry;
