//! What a worker is called, `host-pid-number`, and whether a name is one of this machine.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many workers this process has named.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A name for one more worker of this process.
pub fn of_this_worker() -> String {
    format!("{}-{}-{}", machine(), std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Whether a worker of this name was started on this machine, or in this container.
pub fn is_worker_here(name: &str) -> bool {
    let rest = name.strip_prefix(&machine()).and_then(|rest| rest.strip_prefix('-'));
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    rest.and_then(|rest| rest.split_once('-')).is_some_and(|(process, number)| is_number(process) && is_number(number))
}

/// In a container this is its id, unless it was given a name.
fn machine() -> String {
    let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    host.as_deref().map(str::trim).filter(|host| !host.is_empty()).unwrap_or("localhost").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_here_if_its_name_says_this_machine_and_no_longer_one() {
        let machine = machine();
        assert!(is_worker_here(&of_this_worker()) && is_worker_here(&format!("{machine}-1-0")));
        for other in [format!("{machine}-1"), format!("{machine}-two-1-0"), format!("not-{machine}-1-0"), String::new()] {
            assert!(!is_worker_here(&other), "{other}");
        }
    }
}
