//! What SQS refuses, and how it says so.

use std::io;

use http::StatusCode;

use crate::iam::Denied;

/// A refused or failed call.
#[derive(Debug, thiserror::Error)]
pub enum SqsError {
    /// The queue does not exist.
    #[error("The specified queue does not exist.")]
    NoQueue,
    /// The receipt handle is none.
    #[error("The input receipt handle \"{receipt}\" is not a valid receipt handle.")]
    Receipt {
        /// What was given.
        receipt: String,
    },
    /// The message is not in flight.
    #[error("The specified message isn't in flight.")]
    NotInFlight,
    /// A parameter's value is refused.
    #[error("Value for parameter {parameter} is invalid. Reason: {reason}")]
    Parameter {
        /// The parameter.
        parameter: &'static str,
        /// SQS's reason.
        reason: String,
    },
    /// A parameter is missing.
    #[error("The request must contain the parameter {parameter}.")]
    Missing {
        /// The parameter.
        parameter: &'static str,
    },
    /// The body is no JSON.
    #[error("the request body is no JSON")]
    Body(#[source] serde_json::Error),
    /// The queue has no dead-letter source to move messages to.
    #[error("Source queue must be configured as a Dead Letter Queue.")]
    NotDeadLetter,
    /// The operation is not implemented.
    #[error("the operation {operation} is not known")]
    UnknownOperation {
        /// The operation.
        operation: String,
    },
    /// The caller's policy does not allow the call.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A message could not be kept.
    #[error("the message could not be kept on disk")]
    Disk(#[from] io::Error),
}

impl SqsError {
    /// The status, the `__type` and the code of the older query protocol, which SDKs still read.
    pub(super) fn wire(&self) -> (StatusCode, &'static str, &'static str) {
        let bad = StatusCode::BAD_REQUEST;
        match self {
            Self::NoQueue => (bad, "com.amazonaws.sqs#QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"),
            Self::Receipt { .. } => (bad, "com.amazonaws.sqs#ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid"),
            Self::NotInFlight => {
                (bad, "com.amazonaws.sqs#MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight")
            }
            Self::Parameter { .. } => {
                (bad, "com.amazon.coral.service#InvalidParameterValueException", "InvalidParameterValue")
            }
            Self::Missing { .. } => {
                (bad, "com.amazon.coral.service#MissingRequiredParameterException", "MissingParameter")
            }
            Self::Body(_) => (bad, "com.amazon.coral.service#SerializationException", "MalformedInput"),
            Self::NotDeadLetter => {
                (bad, "com.amazonaws.sqs#UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation")
            }
            Self::UnknownOperation { .. } => {
                (bad, "com.amazon.coral.service#UnknownOperationException", "InvalidAction")
            }
            Self::Denied(_) => {
                (StatusCode::FORBIDDEN, "com.amazon.coral.service#AccessDeniedException", "AccessDenied")
            }
            Self::Disk(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "com.amazon.coral.service#InternalFailure", "InternalFailure")
            }
        }
    }
}
