//! placeholder
pub mod client;
pub mod intake;
pub mod job;
