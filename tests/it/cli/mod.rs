//! The command line as its users meet it: the real binary, its streams and its exit code.

pub(crate) mod harness;

mod bad_input;
#[cfg(feature = "temporal")]
mod cluster;
mod demo;
mod doctor;
mod hostile;
mod jobs;
mod lost_output;
pub(crate) mod metrics;
mod named_files;
mod oauth_clients;
mod process_limits;
mod sandbox;
mod secrets;
mod sequences;
mod surface;
mod tenant;
mod traces;
