//! How long those we ask may take, and how long we wait before we ask again. No request is without a limit, so that no peer can hold a delivery.

use std::time::Duration;

use aws_smithy_types::timeout::TimeoutConfig;

use crate::limits;

/// How long a peer may take for one request, and the pauses between attempts; see the constants of [`limits`] for the reasons.
///
/// Functions use the default; tests of dying peers have no minutes to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection is up.
    pub connect: Duration,
    /// Of one small request to the registry, with all of its answer.
    pub answer: Duration,
    /// While nothing of a body is taken, or after its last byte.
    pub standstill: Duration,
    /// Of one attempt at a call of an AWS API.
    pub call_attempt: Duration,
    /// Of a call with the SDK's attempts.
    pub call: Duration,
    /// Between the first two attempts at something; it doubles.
    pub first_pause: Duration,
    /// Between any two attempts.
    pub longest_pause: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: limits::CONNECT_TIMEOUT,
            answer: limits::ANSWER_TIMEOUT,
            standstill: limits::STANDSTILL_TIMEOUT,
            call_attempt: limits::CALL_ATTEMPT_TIMEOUT,
            call: limits::CALL_TIMEOUT,
            first_pause: limits::BACKOFF_FIRST,
            longest_pause: limits::BACKOFF_LONGEST,
        }
    }
}

impl Timeouts {
    /// As the AWS SDK takes them. It ends an attempt once the answer's headers are there; the body of an object has its
    /// own time.
    pub fn of_calls(&self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .read_timeout(self.call_attempt)
            .operation_attempt_timeout(self.call_attempt)
            .operation_timeout(self.call)
            .build()
    }
}
