//! What SNS refuses, and how it says so.

use std::io;

use http::StatusCode;

use crate::iam::Denied;

/// A refused or failed call; the texts are SNS's.
#[derive(Debug, thiserror::Error)]
pub enum SnsError {
    /// The topic or subscription does not exist.
    #[error("{what} does not exist")]
    NotFound {
        /// `Topic` or `Subscription`.
        what: &'static str,
    },
    /// A parameter is missing or its value is refused.
    #[error("Invalid parameter: {0}")]
    Parameter(String),
    /// A message attribute is refused.
    #[error("The message attribute '{name}' {reason}")]
    Attribute {
        /// The attribute.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The operation is not implemented.
    #[error("The action {action} is not valid for this endpoint.")]
    UnknownAction {
        /// The operation.
        action: String,
    },
    /// The caller's policy does not allow the call.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The request has no credential, or one that nobody has.
    #[error("The security token included in the request is invalid.")]
    Stranger,
    /// A message could not be kept.
    #[error("the message could not be kept on disk")]
    Disk(#[from] io::Error),
}

impl SnsError {
    /// The status and the code of the query protocol.
    pub(super) fn wire(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound { .. } => (StatusCode::NOT_FOUND, "NotFound"),
            Self::Parameter(_) => (StatusCode::BAD_REQUEST, "InvalidParameter"),
            Self::Attribute { .. } => (StatusCode::BAD_REQUEST, "ParameterValueInvalid"),
            Self::UnknownAction { .. } => (StatusCode::BAD_REQUEST, "InvalidAction"),
            Self::Denied(_) => (StatusCode::FORBIDDEN, "AuthorizationError"),
            Self::Stranger => (StatusCode::FORBIDDEN, "InvalidClientTokenId"),
            Self::Disk(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        }
    }
}
