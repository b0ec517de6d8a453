//! Ports for programs that cannot be asked which one they got.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which the kernel gives out ports, so that no connection and no other listener takes one in between.
const FIRST: u32 = 12_000;
const PORTS: u32 = 18_000;

/// A port of loopback on which nothing listens, and which no other test of this process is given.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Two runs of the tests at once start at different places.
    let start = std::process::id().wrapping_mul(911);
    for _ in 0..PORTS {
        let n = start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + n % PORTS).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of loopback is free");
}
