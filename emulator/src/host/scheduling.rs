//! Functions that run at a rate.

use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Hosted, Settings};
use crate::template::Schedule;

/// Invokes the function at the schedule's rate for as long as the host runs.
///
/// An invocation that fails is not tried again: the next one is not far. One that outlasts the rate
/// delays the next, as a reserved concurrency of one would.
pub(super) async fn run(hosted: Arc<Hosted>, schedule: Schedule, settings: Arc<Settings>) {
    let mut ticks = interval_at(Instant::now() + schedule.every, schedule.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = settings.stopping.cancelled() => return,
        }
        if let Err(error) = hosted.invoke(&settings, &schedule.event()).await {
            tracing::warn!(function = hosted.logical_id, "a scheduled invocation failed: {error}");
        }
    }
}
