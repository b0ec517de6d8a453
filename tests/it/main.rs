//! One integration binary, linked once: a module for each concern.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod cancels;
#[cfg(feature = "temporal")]
mod capabilities;
mod cli;
mod clock_steps;
#[cfg(feature = "temporal")]
mod cluster_tls;
mod conformance;
mod containers;
mod crashes;
mod damage;
mod disks;
mod drains;
mod faults;
mod files;
mod fsck;
mod grant;
mod held;
mod http_server;
mod interleavings;
mod kills;
mod kubernetes;
mod lifecycle;
mod limits;
mod maintenance;
mod metrics;
mod mishaps;
mod outage;
#[cfg(feature = "temporal")]
mod partitions;
mod pressure;
mod processes;
mod pyatlan;
mod queue_files;
mod queue_identity;
mod queue_owners;
mod readme;
mod reruns;
mod retries;
mod sequences;
mod served;
mod signals;
mod storm;
mod support;
#[cfg(feature = "temporal")]
mod temporal_python;
mod tidy;
mod upgrades;
mod waits;
