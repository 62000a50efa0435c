//! What travels between the port and the services.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use serde_json::Value;
use std::convert::Infallible;
use std::io;
use uuid::Uuid;

/// The largest form of the query protocol that is read: several times what SNS takes, so that what is
/// too long is told so.
pub(crate) const MAX_FORM_BYTES: usize = 8 << 20;

/// A request's or an answer's body, streamed; an error ends the connection.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A request as the services see it, after fault injection and shaping.
pub type Request = http::Request<Body>;

/// A service's answer.
pub type Response = http::Response<Body>;

/// The connection is closed without an answer, as ECR does for an upload to an unknown repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed without an answer")]
pub struct Dropped;

/// An answer, or a closed connection.
pub type Answer = Result<Response, Dropped>;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Caller {
    /// The person at the laptop; may do everything.
    User,
    /// The role of the function with this logical id in the template.
    Role(String),
}

/// A body that holds `bytes`.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

/// A body without bytes.
pub fn empty() -> Body {
    Empty::new().map_err(never).boxed_unsync()
}

/// An answer of the JSON protocol, version 1.1.
pub(crate) fn json_1_1(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    if let Ok(id) = HeaderValue::try_from(Uuid::new_v4().to_string()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

fn never(infallible: Infallible) -> io::Error {
    match infallible {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_hold_what_they_are_given() {
        let read = full("abc").collect().await.unwrap().to_bytes();
        assert_eq!(read, "abc");
        assert_eq!(empty().collect().await.unwrap().to_bytes(), "");
    }
}
