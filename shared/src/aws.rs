//! What a failed call to an AWS API tells: the operation, the resource, the code, and whether to try again.

use std::error::Error;

use aws_sdk_s3::error::SdkError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::disposition::Disposition;

/// One failed call, after the SDK's own retries.
#[derive(Debug, thiserror::Error)]
#[error("{action} on {resource} {}", outcome(.code.as_deref(), *.status))]
pub struct CallError {
    /// The IAM action, such as `s3:PutObject`.
    pub action: &'static str,
    /// What it was called on, such as `s3://uploads/team/app.tar`.
    pub resource: String,
    /// The service's error code, where it answered.
    pub code: Option<String>,
    /// The HTTP status, where it answered.
    pub status: Option<u16>,
    /// What the SDK says.
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

fn outcome(code: Option<&str>, status: Option<u16>) -> String {
    match (code, status) {
        (Some(code), Some(403)) => format!("was denied ({code})"),
        (Some(code), Some(status)) => format!("was answered {status} {code}"),
        (None, Some(403)) => "was denied".to_owned(),
        (None, Some(status)) => format!("was answered {status}"),
        (Some(code), None) => format!("was answered {code}"),
        (None, None) => "got no answer".to_owned(),
    }
}

impl CallError {
    /// Keeps what `error` tells about a call of `action` on `resource`.
    pub fn new<E>(action: &'static str, resource: impl Into<String>, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let code = error.code().map(str::to_owned);
        let status = error.raw_response().map(|response| response.status().as_u16());
        let source: Box<dyn Error + Send + Sync> = match error.into_source() {
            Ok(source) => source,
            Err(error) => Box::new(error),
        };
        Self { action, resource: resource.into(), code, status, source }
    }

    /// Whether the service answered with this code.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Whether the caller's role lacks the right, which an operator can repair.
    pub fn is_denied(&self) -> bool {
        self.status == Some(403)
            || self
                .code
                .as_deref()
                .is_some_and(|code| matches!(code, "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation"))
    }

    /// Transient, always: what is wrong with a call is the network's, the service's or the operator's matter; the
    /// answers that speak of the upload itself are told apart before they become this error.
    pub fn disposition(&self) -> Disposition {
        Disposition::Transient
    }
}
