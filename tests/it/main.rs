//! One integration binary, linked once: a module for each concern.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod cli;
mod containers;
mod crashes;
mod drains;
mod faults;
mod grant;
mod held;
mod kills;
mod lifecycle;
mod mishaps;
mod outage;
mod processes;
mod pyatlan;
mod readme;
mod reruns;
mod support;
mod tidy;
mod upgrades;
mod waits;
