//! What a registry says no with.

use std::time::Duration;

use crate::aws::CallError;
use crate::disposition::Disposition;
use crate::image::{Digest, Repository};
use crate::retry::Disposed;

/// A registry request that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No token could be had.
    #[error("no registry token")]
    Token(#[from] CallError),
    /// `GetAuthorizationToken` answered without one.
    #[error("GetAuthorizationToken answered without a token that can be used")]
    NoToken,
    /// No answer: the connection did not come up, broke, or took too long. ECR also drops the connection when an
    /// upload is started in a repository that does not exist.
    #[error("no answer from the registry to {request}")]
    Unreachable {
        /// Method and path.
        request: String,
        /// Why, without the URL, which may be signed.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing moved: the registry neither took more of a body nor answered.
    #[error("the registry let {request} stand still for {} s", .longest.as_secs())]
    Stalled {
        /// Method and path.
        request: String,
        /// How long it was waited for.
        longest: Duration,
    },
    /// The function's role may not do it.
    #[error("the registry denied {request}, which needs {action}: {message}")]
    Denied {
        /// Method and path.
        request: String,
        /// The IAM action.
        action: &'static str,
        /// What ECR says.
        message: String,
    },
    /// The repository is not there.
    #[error("repository {repository} does not exist in the registry")]
    NoRepository {
        /// The repository.
        repository: Repository,
    },
    /// The tag is immutable and taken.
    #[error("{repository}:{tag} already exists and is immutable")]
    TagTaken {
        /// The repository.
        repository: Repository,
        /// The tag.
        tag: String,
    },
    /// Blobs that the manifest names are gone.
    #[error("the registry lacks blobs that the manifest {reference} names: {message}")]
    BlobsMissing {
        /// The reference that was put.
        reference: String,
        /// What ECR says.
        message: String,
    },
    /// The manifest does not pass ECR's validator.
    #[error("ECR refuses the manifest {reference} ({code}): {message}")]
    ManifestRefused {
        /// The reference that was put.
        reference: String,
        /// The error code.
        code: String,
        /// What ECR says.
        message: String,
    },
    /// The registry names another digest than we hashed.
    #[error("the registry stored {what} as {found}; wanted {wanted}")]
    WrongDigest {
        /// What was stored.
        what: &'static str,
        /// The registry's digest.
        found: String,
        /// Ours.
        wanted: Digest,
    },
    /// An upload's next address lies elsewhere; the token must not go there.
    #[error("the registry sends the upload to another host, {host:?}")]
    ForeignLocation {
        /// The host.
        host: String,
    },
    /// An answer that lacks what the specification wants.
    #[error("the registry's answer to {request} lacks {wanted}")]
    Malformed {
        /// Method and path.
        request: String,
        /// What is missing.
        wanted: &'static str,
    },
    /// More bytes than such an answer may have.
    #[error("the registry's answer to {request} has more than {limit_bytes} bytes")]
    TooLarge {
        /// Method and path.
        request: String,
        /// How many it may have.
        limit_bytes: u64,
    },
    /// Too many requests.
    #[error("the registry is throttling: {request} was answered 429")]
    Throttled {
        /// Method and path.
        request: String,
    },
    /// Any other refusal.
    #[error("the registry answered {status} to {request}{}", said(.code, .message))]
    Refused {
        /// Method and path.
        request: String,
        /// The HTTP status.
        status: u16,
        /// The error code, where there is one.
        code: String,
        /// What it says.
        message: String,
    },
}

fn said(code: &str, message: &str) -> String {
    match (code, message) {
        ("", "") => String::new(),
        ("", message) => format!(": {message}"),
        (code, message) => format!(" {code}: {message}"),
    }
}

impl RegistryError {
    /// The IAM action that the operator has to allow, when that is what is wrong.
    pub fn denied_action(&self) -> Option<&str> {
        match self {
            Self::Denied { action, .. } => Some(action),
            Self::Token(call) if call.is_denied() => Some(call.action),
            _ => None,
        }
    }
}

impl Disposed for RegistryError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::TagTaken { .. } | Self::ManifestRefused { .. } => Disposition::Permanent,
            Self::Token(_)
            | Self::NoToken
            | Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::Denied { .. }
            | Self::NoRepository { .. }
            | Self::BlobsMissing { .. }
            | Self::WrongDigest { .. }
            | Self::ForeignLocation { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Throttled { .. }
            | Self::Refused { .. } => Disposition::Transient,
        }
    }
}
