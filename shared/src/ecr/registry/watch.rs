//! Watching a request whose body may take as long as a layer is large: it is given up only when nothing moves.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep};

/// The connection asked for bytes and has none yet: the peer is not to blame.
const ASKED: u64 = u64::MAX;

/// When the connection last took something of a body.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    started: Instant,
    /// In milliseconds since `started`, or [`ASKED`].
    moved_ms: Arc<AtomicU64>,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), moved_ms: Arc::default() }
    }

    /// `body`, watched.
    pub(super) fn over(
        &self,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let watch = self.clone();
        let mut body = Box::pin(body);
        futures::stream::poll_fn(move |context| {
            watch.moved_ms.store(ASKED, Ordering::Relaxed);
            let next = body.poll_next_unpin(context);
            if next.is_ready() {
                watch.moved_ms.store(watch.now_ms(), Ordering::Relaxed);
            }
            next
        })
    }

    /// Ends once the connection has taken nothing for `longest`, and has not asked for anything either.
    pub(super) async fn stalled(&self, longest: Duration) {
        let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        loop {
            let (moved_ms, now_ms) = (self.moved_ms.load(Ordering::Relaxed), self.now_ms());
            let moved_ms = if moved_ms == ASKED { now_ms } else { moved_ms };
            let left_ms = longest_ms.saturating_sub(now_ms.saturating_sub(moved_ms));
            if left_ms == 0 {
                return;
            }
            sleep(Duration::from_millis(left_ms)).await;
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(ASKED - 1)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(1);

    /// A body that moves all the time may take for ever; one that nobody takes any more may not, and one whose bytes
    /// are not there yet is no fault of the registry.
    #[tokio::test]
    async fn only_what_stands_still_is_given_up() {
        let watch = Watch::new();
        let slow = stream::iter(0..10).then(|_| async {
            sleep(LONGEST / 10).await;
            Ok(Bytes::from_static(b"x"))
        });
        let taking = watch.over(slow).for_each(|_| sleep(LONGEST / 10));
        tokio::select! {
            () = taking => {}
            () = watch.stalled(LONGEST) => panic!("it moved"),
        }
        assert!(watch.started.elapsed() > LONGEST);
        let done = Instant::now();
        watch.stalled(LONGEST).await;
        assert!(done.elapsed() > LONGEST / 2, "after the last byte the answer has its time");
    }

    #[tokio::test]
    async fn bytes_that_are_not_there_yet_are_waited_for() {
        let watch = Watch::new();
        let mut taking = watch.over(stream::pending()).into_future();
        tokio::select! {
            _ = &mut taking => panic!("there is nothing"),
            () = watch.stalled(LONGEST / 10) => panic!("the connection asked"),
            () = sleep(LONGEST / 2) => {}
        }
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_given_up_without_a_body() {
        let watch = Watch::new();
        watch.stalled(LONGEST / 10).await;
        assert!(watch.started.elapsed() >= LONGEST / 10);
    }
}
