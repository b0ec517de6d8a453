//! The publish preflight: `POST /api/service/workflows/preflight/user-publish-check`. It changes nothing, so it is sent like a read.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Tenant;
use super::answer::{Flag, Text, Verbatim};
use super::send::Call;
use crate::failure::{Category, Failure};
use crate::text::MESSAGE_LIMIT;

/// The tenant's answer: may this user publish to this connection?
#[derive(Debug, Clone, PartialEq)]
pub struct PreflightAnswer {
    /// The tenant's yes or no.
    pub passed: bool,
    /// The checks that failed, as they were sent, within limits; null when none did. Empty when `passed`.
    pub failed_checks: Value,
    /// The tenant's own words.
    pub message: Option<String>,
}

/// A field that comes twice makes the answer unreadable, which is what a contradiction is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answered {
    passed: Flag,
    failed_checks: Verbatim,
    message: Text<MESSAGE_LIMIT>,
}

impl Tenant {
    /// Asks whether a user may publish to a connection; an empty connection asks about the user alone.
    pub async fn publish_preflight(&self, user_id: &str, connection_qualified_name: &str) -> Result<PreflightAnswer, Failure> {
        let body = json!({"user_id": user_id, "connection_qualified_name": connection_qualified_name});
        let call = Call::post("preflight.user_publish_check", "api/service/workflows/preflight/user-publish-check", Some(body))
            .small()
            .only_ok()
            .needs("the API key of a service account (its user name starts with service-account-)");
        let Answered { passed, failed_checks, message } = self.read(&call).await.map_err(endpoint_absent)?;
        let passed = passed.0.ok_or_else(|| self.unexpected(&call, "`passed` is neither true nor false"))?;
        if passed && !is_empty(failed_checks.value()) {
            return Err(self.unexpected(&call, "it says that the preflight passed, and that checks failed"));
        }
        Ok(PreflightAnswer { passed, failed_checks: failed_checks.into_value(), message: message.0 })
    }
}

/// Whether a list of failed checks, in whatever form, holds none.
fn is_empty(failed_checks: &Value) -> bool {
    match failed_checks {
        Value::Null | Value::Bool(false) => true,
        Value::Array(checks) => checks.is_empty(),
        Value::Object(checks) => checks.is_empty(),
        Value::String(checks) => checks.trim().is_empty(),
        Value::Number(count) => count.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

/// "Not found" here speaks of the endpoint: a user who does not exist is a check that failed, under status 200.
fn endpoint_absent(failure: Failure) -> Failure {
    if !matches!(failure.code.as_ref(), "tenant.not_found" | "tenant.unsupported") {
        return failure;
    }
    let message =
        format!("the tenant has no publish preflight, or hides an unknown user behind the same answer: {}", failure.message);
    Failure::new("preflight.endpoint_absent", Category::Unimplemented, message)
        .suggest("check user_id, or ask the tenant's platform team for the endpoint workflows/preflight/user-publish-check")
        .with_source(failure.source)
}
