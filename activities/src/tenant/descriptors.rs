//! This process, or this machine, may open no more connections. That is no fault of the tenant, proves that nothing was sent, and passes:
//! so it is waited for, and costs a job no attempt.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::Tenant;
use super::send::{Call, Sent};
use crate::failure::{Category, Failure};

const CODE: &str = "worker.no_descriptors";
/// A job whose requests found no descriptor is not tried sooner.
const WAIT: Duration = Duration::from_secs(30);

impl Tenant {
    /// What a call gets that found none.
    pub(super) fn without_descriptor(&self, call: &Call) -> Failure {
        let message = format!(
            "this process may open no more connections (too many open files), so that tenant `{}` was not asked for {}",
            self.name, call.operation
        );
        let hint =
            format!("raise the limit of open files (`ulimit -n`) to 1024 or more, or lower tenants.{}.max_requests", self.name);
        let failure = Failure::new(CODE, Category::ResourceExhausted, message).with_source(call.source());
        failure.suggest(hint).after(Some(WAIT)).holding_tenant()
    }
}

/// Whether an exchange ended so, which says nothing about the tenant.
pub(super) fn is_local(sent: &Sent) -> bool {
    matches!(sent, Sent::NotDelivered(failure) if failure.code == CODE)
}

/// Whether no connection was made because no descriptor was left.
pub(super) fn lacks_descriptors(error: &reqwest::Error) -> bool {
    error.is_connect() && holds_errno(error)
}

fn holds_errno(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| matches!(Errno::from_io_error(io), Some(Errno::MFILE | Errno::NFILE))) {
            return true;
        }
        // The source of an I/O error is not what it wraps, but that one's source.
        next = match io {
            Some(io) => io.get_ref().map(|inner| -> &(dyn Error + 'static) { inner }),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_is_found_wherever_it_stands_among_the_causes() {
        for errno in [Errno::MFILE, Errno::NFILE] {
            assert!(holds_errno(&io::Error::other(io::Error::other(io::Error::from(errno)))));
        }
        assert!(!holds_errno(&io::Error::other(io::Error::from(Errno::CONNREFUSED))));
    }
}
