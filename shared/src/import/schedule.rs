//! Which blobs a delivery begins in the time it has.
//!
//! What is begun and not finished is lost, so a delivery that shares its network among layers that do not all fit would
//! end with none of them, and so would the next. A blob is begun only if it can be finished beside those under way, at
//! the rate that was seen so far; when the rate turns out lower, the one that lacks most makes room. Every delivery so
//! finishes something, and two in a row together more than one can move: what did not fit into the first begins the
//! second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::progress::BlobProgress;
use crate::limits;

/// The blobs under way in one delivery.
#[derive(Debug)]
pub(super) struct Schedule {
    started: Instant,
    until: Instant,
    inner: Mutex<Inner>,
    /// Told when a blob leaves: there may be room for another.
    left: Notify,
}

/// Whether a blob may begin.
enum Admission {
    Granted,
    /// Not beside those under way.
    Later,
    /// Not in the time that is left.
    Refused,
}

#[derive(Debug, Default)]
struct Inner {
    under_way: Vec<Arc<BlobProgress>>,
    done_bytes: u64,
}

impl Inner {
    fn lacking_bytes(&self) -> u64 {
        self.under_way.iter().map(|blob| blob.lacking_bytes()).sum()
    }

    fn moved_bytes(&self) -> u64 {
        self.under_way.iter().map(|blob| blob.moved_bytes()).sum::<u64>() + self.done_bytes
    }
}

impl Schedule {
    /// A schedule of what ends by `until`.
    pub(super) fn new(until: Instant) -> Self {
        Self { started: Instant::now(), until, inner: Mutex::default(), left: Notify::new() }
    }

    /// Waits until `blob` may begin; `false` when this delivery has no time for it.
    ///
    /// What does not fit beside others may fit once they are done, and the rate is better known then: it begins with a
    /// standstill, when a token was long in coming, and then says little.
    pub(super) async fn admitted(&self, blob: &Arc<BlobProgress>) -> bool {
        loop {
            let left = self.left.notified();
            match self.admit(blob) {
                Admission::Granted => return true,
                Admission::Refused => return false,
                Admission::Later => left.await,
            }
        }
    }

    /// The first may begin in any case, as a delivery that begins nothing would be in vain; so may one that has
    /// everything to itself for half of the time.
    fn admit(&self, blob: &Arc<BlobProgress>) -> Admission {
        let mut inner = self.lock();
        let is_alone = inner.under_way.is_empty();
        let is_early = self.started.elapsed() < self.until.saturating_duration_since(Instant::now());
        let fits = inner.lacking_bytes().saturating_add(blob.lacking_bytes()) <= self.most_bytes(inner.moved_bytes());
        if fits || (is_alone && (inner.done_bytes == 0 || is_early)) {
            inner.under_way.push(Arc::clone(blob));
            return Admission::Granted;
        }
        if is_alone { Admission::Refused } else { Admission::Later }
    }

    /// Ends when `blob` has to make room for the others under way.
    pub(super) async fn crowded_out(&self, blob: &Arc<BlobProgress>) {
        loop {
            sleep(self.settling() / 2).await;
            let inner = self.lock();
            let is_alone = inner.under_way.len() < 2;
            if is_alone || self.started.elapsed() < self.settling() {
                continue;
            }
            // The last of those that lack the same, so that one goes and not all.
            let lacks_most = inner.under_way.iter().max_by_key(|blob| blob.lacking_bytes());
            let is_it = lacks_most.is_some_and(|most| Arc::ptr_eq(most, blob));
            if is_it && inner.lacking_bytes() > self.most_bytes(inner.moved_bytes()) {
                return;
            }
        }
    }

    /// `blob` is under way no more; `is_done` when it is in its repository.
    pub(super) fn leave(&self, blob: &Arc<BlobProgress>, is_done: bool) {
        let mut inner = self.lock();
        inner.under_way.retain(|other| !Arc::ptr_eq(other, blob));
        if is_done {
            inner.done_bytes = inner.done_bytes.saturating_add(blob.entry_bytes());
        }
        drop(inner);
        self.left.notify_waiters();
    }

    /// What can still be moved, at the rate of what was.
    fn most_bytes(&self, moved_bytes: u64) -> u64 {
        let elapsed = self.started.elapsed();
        let left = self.until.saturating_duration_since(Instant::now());
        // As long as nothing came there is no rate; after a third of the time that counts as one all the same.
        if elapsed < self.settling() || (moved_bytes == 0 && elapsed < left / 2) {
            return movable_bytes(left);
        }
        let most = u128::from(moved_bytes) * left.as_millis() / elapsed.as_millis().max(1);
        u64::try_from(most).unwrap_or(u64::MAX)
    }

    /// How long a rate must have been seen to be believed.
    fn settling(&self) -> Duration {
        limits::RATE_SETTLES.min(self.until.saturating_duration_since(self.started) / 10)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a delivery moves in `time`, as far as is known before it was seen.
fn movable_bytes(time: Duration) -> u64 {
    limits::DELIVERY_BYTES_A_SECOND.saturating_mul(time.as_secs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many deliveries it takes when each begins, in the layers' order, whatever still fits.
    fn deliveries(layers: &[u64], most_bytes: u64) -> usize {
        let mut waiting = layers.to_vec();
        let mut deliveries = 0;
        while !waiting.is_empty() {
            let mut left = most_bytes;
            waiting.retain(|layer| match left.checked_sub(*layer) {
                Some(less) => {
                    left = less;
                    false
                }
                None => true,
            });
            deliveries += 1;
        }
        deliveries
    }

    proptest! {
        /// What planning lets pass is done in ten deliveries, whatever its layers are: at most as much as five could
        /// move without waste, no layer larger than one can.
        #[test]
        fn ten_deliveries_are_enough(sizes in prop::collection::vec(1_u64..=1_000, 1..limits::LAYERS)) {
            let most_bytes = 1_000;
            let mut total = 0;
            let layers: Vec<u64> = sizes
                .into_iter()
                .take_while(|size| {
                    total += size;
                    total <= most_bytes * u64::from(limits::DELIVERIES.div_ceil(2))
                })
                .collect();
            let needed = deliveries(&layers, most_bytes);
            prop_assert!(needed <= limits::DELIVERIES as usize, "{needed} for {layers:?}");
        }
    }

    /// The worst there is: layers of a little more than half a delivery, so that each delivery wastes the other half.
    #[test]
    fn the_worst_layers_take_all_but_one_of_the_deliveries() {
        let layers = [501; 9];
        assert_eq!(deliveries(&layers, 1_000), 9);
        assert!(layers.iter().sum::<u64>() <= 5_000);
    }

    #[test]
    fn the_largest_upload_that_planning_lets_pass() {
        let delivery = Duration::from_mins(15).saturating_sub(limits::DEADLINE_MARGIN);
        let gib = |bytes: u64| bytes >> 30;
        assert_eq!(gib(movable_bytes(delivery)), 50, "the largest layer");
        assert_eq!(gib(movable_bytes(delivery) * u64::from(limits::DELIVERIES / 2)), 250, "the largest upload");
    }
}
