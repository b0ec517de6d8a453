//! What a route answers: JSON with 200, or a refusal in the shape of the service that it plays.

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

/// What every route answers.
pub(super) type Reply = Result<Value, Refusal>;

/// An error answer: its status and the body that clients read.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Refusal {
    /// As Heracles writes errors: `code` and `message`.
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self::coded(status, json!(status), message)
    }

    /// As Heracles does, with a code of its own.
    pub(super) fn coded(status: u16, code: impl Into<Value>, message: impl Into<String>) -> Self {
        let body = json!({ "code": code.into(), "message": message.into() });
        Self { status: status_code(status), body }
    }

    /// As the metastore writes errors: `errorCode` and `errorMessage`.
    pub(super) fn atlas(status: u16, code: &str, message: impl Into<String>) -> Self {
        let body = json!({ "errorCode": code, "errorMessage": message.into() });
        Self { status: status_code(status), body }
    }

    /// As Keycloak writes errors: `error` and `error_description`.
    pub(super) fn keycloak(status: u16, error: &str, description: impl Into<String>) -> Self {
        let body = json!({ "error": error, "error_description": description.into() });
        Self { status: status_code(status), body }
    }
}

/// A status that HTTP knows; anything else is a fault of the sandbox itself.
pub(super) fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json_response(self.status, &self.body)
    }
}

/// A JSON answer with its content type.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(body.to_string().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer of a route, ready to send.
pub(super) fn respond(reply: Reply) -> Response {
    match reply {
        Ok(body) => json_response(StatusCode::OK, &body),
        Err(refusal) => refusal.into_response(),
    }
}
