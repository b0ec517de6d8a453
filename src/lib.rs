//! Iolaus: a durable activity worker for Atlan tenants. It takes jobs from a queue, runs retryable activities against a tenant, and
//! answers each job with one structured verdict and one trace.
//!
//! The rooms, from the outside in, and what always holds in each:
//!
//! | room | role | invariant |
//! |---|---|---|
//! | [`intake`] | turns a request into a job | what is refused names its field, and nothing is stored |
//! | [`cli`] | one file per command | exit codes in one place; data to stdout, all else to stderr |
//! | [`config`] | defaults, file, environment | an unknown key is an error that names key, source and hint |
//! | [`client`] | the verbs on jobs | no SQL, no protocol; every host implements the same |
//! | [`job`] | ids, states, policies, limits | what is stored is forever |
//! | [`sequence`] | jobs one after the other | a pure next-step function; a stored definition needs no activity to go on |
//! | [`executor`] | one attempt as named steps | pure decisions; time and jitter are arguments |
//! | [`http`] | probes and metrics for an operator's machines | reads only; says nothing of a job |
//! | [`embedded`] | the SQLite host | one writer; fenced writes; one verdict for each closed execution |
//! | `temporal` (a feature) | the host on a Temporal cluster | every write of an attempt is awaited and fenced by its task token |
//! | [`telemetry`] | spans, logs, export | store first, then emit; a lossy copy |
//! | [`mod@bench`] | what the host reaches on this machine | beside the bare thing that bounds it, in one run |
//! | [`sandbox`] | a simulated tenant | shares no type with the client that it judges |
//!
//! What the activities do lives in the crate `iolaus-activities`, which knows none of these rooms.

pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod embedded;
pub mod executor;
pub mod http;
pub mod intake;
pub mod job;
pub mod sandbox;
pub mod sequence;
pub mod telemetry;
#[cfg(feature = "temporal")]
pub mod temporal;

/// README's example of an activity, compiled and run by `cargo test`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
