//! Retries inside one delivery: bounded in attempts, spaced by exponential backoff with jitter.

use std::future::Future;

use backon::{ExponentialBuilder, Retryable as _};

use crate::disposition::Disposition;
use crate::limits;

/// An error that knows whether trying again could help.
pub trait Disposed: std::error::Error {
    /// See [`Disposition`].
    fn disposition(&self) -> Disposition;
}

/// Calls `attempt` until it succeeds, fails for good, or has been tried `attempts` times; the last error is
/// returned.
///
/// Only for what is safe to repeat from its beginning: `attempt` makes its own fresh start each time.
///
/// # Errors
///
/// The error of the last attempt, with its disposition unchanged.
pub async fn retry<T, E, F>(what: &'static str, attempts: usize, attempt: impl FnMut() -> F) -> Result<T, E>
where
    E: Disposed,
    F: Future<Output = Result<T, E>>,
{
    let backoff = ExponentialBuilder::default()
        .with_min_delay(limits::BACKOFF_FIRST)
        .with_max_delay(limits::BACKOFF_LONGEST)
        .with_max_times(attempts.saturating_sub(1))
        .with_jitter();
    attempt
        .retry(backoff)
        .when(|error| error.disposition() == Disposition::Transient)
        .notify(|error, pause| {
            let error = crate::disposition::chain(error);
            let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(pause_ms, error, "{what} failed; trying again");
        })
        .await
}
