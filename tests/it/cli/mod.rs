//! The command line as its users meet it: the real binary, its streams and its exit code.

pub(crate) mod harness;

mod bad_input;
mod demo;
mod jobs;
mod oauth_clients;
mod sandbox;
mod secrets;
mod surface;
mod traces;
