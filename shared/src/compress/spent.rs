//! Where the time of a layer goes.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Where the time of one layer went: work in time of a core, waiting in time that passed.
///
/// Layers are under way beside each other, and members on several cores, so the parts of a delivery add up to more than
/// it took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Work: hashing what came and what goes.
    pub hashing: Duration,
    /// Work: compressing, on whatever core.
    pub compressing: Duration,
    /// Waiting for bytes to be read.
    pub reading: Duration,
    /// Waiting for a core.
    pub waiting: Duration,
    /// Waiting for the registry to take what is to be sent.
    pub sending: Duration,
}

/// Does `work`, and returns what it gives and how long this thread worked for that.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = worked();
    let done = work();
    (done, worked().saturating_sub(before))
}

/// Awaits `work`, and adds how long that took to `spent`.
pub(super) async fn awaited<T>(spent: &mut Duration, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = work.await;
    *spent += started.elapsed();
    done
}

/// How long this thread has worked since it began.
fn worked() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
