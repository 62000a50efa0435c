//! Refusals in the registry's JSON envelope.

use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::wire::{Response, full};

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned() }
    }

    /// `{"errors":[{"code":…,"message":…}]}`
    pub(super) fn into_response(self) -> Response {
        let body = json!({"errors": [{"code": self.code, "message": self.message}]});
        let mut response = Response::new(full(body.to_string()));
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        response
    }
}

/// Why a request is not answered as it would like.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Problem(Problem),
    /// The connection is closed.
    Dropped,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}
