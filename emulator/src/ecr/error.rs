//! Exceptions of the control API.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    iam::Denied,
    images::{FindingsError, ImagesError, PutError, no_repository},
};

/// An exception: its name and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub name: &'static str,
    pub message: String,
}

impl ApiError {
    pub(super) fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, message: message.into() }
    }

    /// `InvalidParameterException` in ECR's usual wording.
    pub(super) fn invalid(parameter: &str, constraint: &str) -> Self {
        Self::new(
            "InvalidParameterException",
            format!("Invalid parameter at '{parameter}' failed to satisfy constraint: '{constraint}'"),
        )
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.name {
            "ServerException" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn body(&self) -> Value {
        json!({"__type": self.name, "message": self.message})
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self::new("AccessDeniedException", denied.to_string())
    }
}

impl From<ImagesError> for ApiError {
    fn from(error: ImagesError) -> Self {
        match error {
            ImagesError::NoRepository(name) => Self::new("RepositoryNotFoundException", no_repository(&name)),
            ImagesError::Exists(name) => Self::new(
                "RepositoryAlreadyExistsException",
                format!(
                    "The repository with name '{name}' already exists in the registry with id '{}'",
                    crate::account::ID
                ),
            ),
            ImagesError::Io(_) | ImagesError::Damaged { .. } => {
                tracing::error!(?error, "the image store failed");
                Self::new("ServerException", "Internal error")
            }
        }
    }
}

impl From<FindingsError> for ApiError {
    fn from(error: FindingsError) -> Self {
        match error {
            FindingsError::Images(error) => error.into(),
            // The person who edits the file finds out here.
            other => {
                let source = std::error::Error::source(&other).map(|source| format!(": {source}"));
                Self::new("ServerException", format!("{other}{}", source.unwrap_or_default()))
            }
        }
    }
}

impl From<PutError> for ApiError {
    fn from(error: PutError) -> Self {
        let name = match error {
            PutError::Throttled => "ThrottlingException",
            PutError::Refused(_) => "InvalidParameterException",
            PutError::DigestMismatch { .. } => "ImageDigestDoesNotMatchException",
            PutError::TagImmutable { .. } => "ImageTagAlreadyExistsException",
            PutError::LayersMissing { .. } => "LayersNotFoundException",
            PutError::ChildrenMissing { .. } => "ReferencedImagesNotFoundException",
            PutError::Store(error) => return error.into(),
        };
        Self::new(name, error.to_string())
    }
}
