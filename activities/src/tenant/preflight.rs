//! The publish preflight: `POST /api/service/workflows/preflight/user-publish-check`. It changes nothing, so it is sent like a read.

use serde::Deserialize;
use serde_json::{Value, json};

use super::send::Call;
use super::{Tenant, classify};
use crate::failure::{Category, Failure};

/// The tenant's answer: may this user publish to this connection?
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PreflightAnswer {
    /// The tenant's yes or no. Without it there is no answer.
    pub passed: bool,
    /// The checks that failed, exactly as they were sent; null or absent when none did.
    #[serde(default)]
    pub failed_checks: Value,
    /// The tenant's own words.
    #[serde(default)]
    pub message: Option<String>,
}

impl Tenant {
    /// Asks whether a user may publish to a connection; an empty connection asks about the user alone.
    pub async fn publish_preflight(&self, user_id: &str, connection_qualified_name: &str) -> Result<PreflightAnswer, Failure> {
        let body = json!({"user_id": user_id, "connection_qualified_name": connection_qualified_name});
        let call = Call::post("preflight.user_publish_check", "api/service/workflows/preflight/user-publish-check", Some(body))
            .needs("the API key of a service account (its user name starts with service-account-)");
        let body = self.read(&call).await.map_err(endpoint_absent)?;
        classify::decode(&body).map_err(|problem| self.unexpected(&call, &problem))
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
