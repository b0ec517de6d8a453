//! What an answer that is none says: gone, refused for good, or to be asked again.

use temporalio_client::tonic::{Code, Status};
use temporalio_common::protos::temporal::api::errordetails::v1::NamespaceNotFoundFailure;

use super::wire;

/// What was asked for is not there. That its namespace is not there says nothing of it.
pub(super) fn is_gone(status: &Status) -> bool {
    let namespace = || wire::detail::<NamespaceNotFoundFailure>(status.details(), "NamespaceNotFoundFailure").is_some();
    status.code() == Code::NotFound && !namespace()
}

/// The same request will be refused again, and nothing was done. Any other failure leaves open what was done.
pub(super) fn is_refused(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::Unauthenticated
    )
}

/// What was sent is at fault, and no other credentials would help.
pub(super) fn is_invalid(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::Unimplemented)
}

/// A server without Standalone Activities: older than 1.31, or with `activity.enableStandalone` off.
pub(super) fn is_without_activities(status: &Status) -> bool {
    status.code() == Code::Unimplemented
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_says_that_nothing_was_done() {
        for code in
            [Code::Unavailable, Code::DeadlineExceeded, Code::Internal, Code::Aborted, Code::Unknown, Code::ResourceExhausted]
        {
            assert!(!is_refused(&Status::new(code, "")), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::PermissionDenied, Code::Unauthenticated, Code::Unimplemented] {
            assert!(is_refused(&Status::new(code, "")), "{code:?}");
        }
    }

    #[test]
    fn a_job_that_is_not_there_is_gone() {
        assert!(is_gone(&Status::not_found("no such activity")));
        assert!(!is_gone(&Status::unavailable("")));
    }
}
