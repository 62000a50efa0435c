//! Retries inside one delivery: bounded in attempts, spaced by exponential backoff with jitter.

use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};

use crate::disposition::Disposition;
use crate::limits;
use crate::timeouts::Timeouts;

/// An error that knows whether trying again could help.
pub trait Disposed: std::error::Error {
    /// See [`Disposition`].
    fn disposition(&self) -> Disposition;
}

/// When a message comes back whose `n`-th delivery failed: later and later, from [`limits::REDELIVERY_FIRST`] to
/// [`limits::REDELIVERY_LONGEST`].
pub fn redelivery(n: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(n.saturating_sub(1).min(16));
    limits::REDELIVERY_FIRST.saturating_mul(doubled).min(limits::REDELIVERY_LONGEST)
}

/// Calls `attempt` until it succeeds, fails for good, or has been tried `attempts` times; the last error is
/// returned.
///
/// Only for what is safe to repeat from its beginning: `attempt` makes its own fresh start each time.
///
/// # Errors
///
/// The error of the last attempt, with its disposition unchanged.
pub async fn retry<T, E, F>(
    what: &'static str,
    attempts: usize,
    timeouts: &Timeouts,
    attempt: impl FnMut() -> F,
) -> Result<T, E>
where
    E: Disposed,
    F: Future<Output = Result<T, E>>,
{
    let backoff = ExponentialBuilder::default()
        .with_min_delay(timeouts.first_pause)
        .with_max_delay(timeouts.longest_pause)
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
