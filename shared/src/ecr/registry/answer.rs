//! What a registry's refusal says, and which error that is. Decisions rest on status and code, never on the
//! message, which is for people.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use reqwest::Response;
use serde::Deserialize;

use super::super::RegistryError;
use crate::disposition::Disposition;
use crate::image::Repository;
use crate::limits;
use crate::retry::Disposed;

/// An answer that is no success, or the reason why there is none.
#[derive(Debug, thiserror::Error)]
#[error("{}", .failure.as_ref().map_or_else(|| format!("{} {}: {}", .status, .code, .message), ToString::to_string))]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) message: String,
    /// Set when there was no answer at all.
    failure: Option<RegistryError>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Diagnosis>,
}

#[derive(Deserialize)]
struct Diagnosis {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    /// There was no answer, for this reason.
    pub(super) fn before_sending(failure: RegistryError) -> Self {
        Self { status: StatusCode::OK, code: String::new(), message: String::new(), failure: Some(failure) }
    }

    /// Reads the body, JSON or not: ECR answers 401 in plain text.
    pub(super) async fn read(answer: Response, request: &str) -> Self {
        let status = answer.status();
        let body = limited_body(answer, limits::ERROR_BODY_BYTES, request).await.unwrap_or_default();
        let (code, message) = if let Ok(Errors { errors }) = serde_json::from_slice(&body) {
            errors.into_iter().next().map(|first| (first.code, first.message)).unwrap_or_default()
        } else {
            (String::new(), String::from_utf8_lossy(&body).trim().chars().take(200).collect())
        };
        Self { status, code, message, failure: None }
    }

    /// Whether another token might help: an expired one is refused with 401 or 403.
    pub(super) fn is_about_the_token(&self) -> bool {
        self.failure.is_none() && matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }

    /// The error of a request about `repository`.
    pub(super) fn into_error(self, request: String, action: &'static str, repository: &Repository) -> RegistryError {
        if let Some(failure) = self.failure {
            return failure;
        }
        let Self { status, code, message, .. } = self;
        match (status, code.as_str()) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => RegistryError::Denied { request, action, message },
            (StatusCode::TOO_MANY_REQUESTS, _) | (_, "TOOMANYREQUESTS") => RegistryError::Throttled { request },
            (_, "NAME_UNKNOWN") => RegistryError::NoRepository { repository: repository.clone() },
            _ => RegistryError::Refused { request, status: status.as_u16(), code, message },
        }
    }

    /// The error of a request to a signed address, which is not named.
    pub(super) fn into_address_error(self, request: &str) -> RegistryError {
        let Self { status, code, message, failure } = self;
        let request = request.to_owned();
        failure.unwrap_or(RegistryError::Refused { request, status: status.as_u16(), code, message })
    }

    /// The error of putting a manifest under `reference`.
    pub(super) fn into_manifest_error(
        self,
        request: String,
        repository: &Repository,
        reference: &str,
    ) -> RegistryError {
        let reference = reference.to_owned();
        match self.code.as_str() {
            "TAG_INVALID" => RegistryError::TagTaken { repository: repository.clone(), tag: reference },
            "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN" | "LayersNotFoundException" => {
                RegistryError::BlobsMissing { reference, message: self.message }
            }
            "UNSUPPORTED" | "MANIFEST_INVALID" => {
                RegistryError::ManifestRefused { reference, code: self.code, message: self.message }
            }
            _ => self.into_error(request, "ecr:PutImage", repository),
        }
    }
}

impl Disposed for Refusal {
    /// Whether the same small request is worth repeating right away.
    fn disposition(&self) -> Disposition {
        if let Some(failure) = &self.failure {
            return match failure {
                // The SDK has retried already.
                RegistryError::Token(_) | RegistryError::NoToken => Disposition::Permanent,
                other => other.disposition(),
            };
        }
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Disposition::Transient,
            status if status.is_server_error() => Disposition::Transient,
            _ => Disposition::Permanent,
        }
    }
}

/// A body of at most `limit` bytes, whole.
pub(super) async fn limited_body(mut answer: Response, limit: u64, request: &str) -> Result<Bytes, RegistryError> {
    let failed = |source: reqwest::Error| RegistryError::Unreachable {
        request: request.to_owned(),
        source: source.without_url(),
    };
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(RegistryError::TooLarge { request: request.to_owned(), limit_bytes: limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
