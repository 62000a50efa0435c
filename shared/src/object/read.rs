//! Reading ranges whole, and reading far ahead.
//!
//! A range that ends early, whether the body just stops, the connection breaks, or the bytes come much slower than those
//! of other ranges, is continued from the next byte on a fresh connection. [`ReadAhead`] keeps several ranges under way
//! at once and gives their bytes in order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Body, ObjectError, Source};
use crate::disposition::Disposition;
use crate::limits;
use crate::retry::Disposed as _;

/// The bytes of `range`, whole: for headers and JSON, never for layers.
///
/// Holds the range in memory; the caller bounds it.
///
/// # Errors
///
/// [`ObjectError`], after the continuations that [`limits::RANGE_CONTINUATIONS`] allows.
pub async fn read_exact(source: &impl Source, range: Range<u64>) -> Result<Bytes, ObjectError> {
    let chunks = read_range(source, range, &Pace::default()).await?;
    if let [only] = chunks.as_slice() {
        return Ok(only.clone());
    }
    let mut whole = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Reads several ranges ahead, within one budget over all that is read at once. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub struct ReadAhead {
    /// One for each range that is under way or waits to be taken.
    ranges: Arc<Semaphore>,
    /// Of those, how many one stream may have: half, so that no stream keeps others from beginning.
    ahead: usize,
    pace: Arc<Pace>,
}

impl ReadAhead {
    /// With up to `ranges_at_once` ranges of [`limits::RANGE_BYTES`] in memory, over all streams.
    pub fn new(ranges_at_once: usize) -> Self {
        let ahead = (ranges_at_once / 2).max(1);
        Self { ranges: Arc::new(Semaphore::new(ranges_at_once.max(1))), ahead, pace: Arc::default() }
    }

    /// The bytes of `range` in order. Dropping the stream ends the requests.
    pub fn stream<S: Source>(&self, source: &Arc<S>, range: Range<u64>) -> Body {
        let (source, budget, pace) = (Arc::clone(source), Arc::clone(&self.ranges), Arc::clone(&self.pace));
        cut(range, limits::RANGE_BYTES)
            .map(move |range| {
                let (source, budget, pace) = (Arc::clone(&source), Arc::clone(&budget), Arc::clone(&pace));
                async move {
                    // The semaphore is never closed; were it, there would be no budget to keep to.
                    let permit = budget.acquire_owned().await.ok();
                    let chunks = read_apart(source, range, pace).await?;
                    // A range has its place in the budget until the last of it is taken.
                    let chunks = stream::iter(chunks).zip(stream::repeat_with(move || permit.is_some()));
                    Ok::<_, ObjectError>(chunks.map(|(chunk, _)| Ok(chunk)))
                }
            })
            .buffered(self.ahead)
            .try_flatten()
            .boxed()
    }
}

/// The bytes of `range` in order, with up to `ahead` ranges of `range_bytes` under way, within no budget but that.
pub fn stream_by<S: Source>(source: &Arc<S>, range: Range<u64>, range_bytes: u64, ahead: usize) -> Body {
    let (source, pace) = (Arc::clone(source), Arc::new(Pace::default()));
    cut(range, range_bytes)
        .map(move |range| read_apart(Arc::clone(&source), range, Arc::clone(&pace)))
        .buffered(ahead)
        .map_ok(|chunks| stream::iter(chunks.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

/// `range` in pieces of `range_bytes`.
fn cut(range: Range<u64>, range_bytes: u64) -> impl futures::Stream<Item = Range<u64>> + Send {
    let starts = (range.start..range.end).step_by(usize::try_from(range_bytes).unwrap_or(usize::MAX));
    stream::iter(starts.map(move |start| start..range.end.min(start.saturating_add(range_bytes))))
}

/// Reads `range` in a task of its own, so that it goes on while others are awaited.
async fn read_apart<S: Source>(source: Arc<S>, range: Range<u64>, pace: Arc<Pace>) -> Result<Vec<Bytes>, ObjectError> {
    let task = AbortOnDropHandle::new(tokio::spawn(async move { read_range(&*source, range, &pace).await }));
    task.await.map_err(|error| ObjectError::Broken(Box::new(error)))?
}

/// How long ranges take here and now.
#[derive(Debug, Default)]
struct Pace {
    /// A moving average, in microseconds; 0 before the first.
    usual_us: AtomicU64,
}

impl Pace {
    /// How long a range is waited for that was given up `times` before.
    fn patience(&self, times: u32) -> Duration {
        let patience = match self.usual_us.load(Ordering::Relaxed) {
            0 => limits::RANGE_PATIENCE_FIRST,
            usual => limits::RANGE_PATIENCE.max(Duration::from_micros(usual) * limits::SLOW_RANGE),
        };
        // Where all are slow, patience grows until it is enough.
        patience.saturating_mul(1 << times.min(16))
    }

    /// A range took `time`. Others may say so at the same moment, and one of them may be lost: it is an estimate.
    fn note(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let next = match self.usual_us.load(Ordering::Relaxed) {
            0 => time,
            usual => (usual / 8).saturating_mul(7).saturating_add(time / 8).max(1),
        };
        self.usual_us.store(next, Ordering::Relaxed);
    }
}

/// The chunks of `range` as they came, all of it.
async fn read_range(source: &impl Source, range: Range<u64>, pace: &Pace) -> Result<Vec<Bytes>, ObjectError> {
    let started = Instant::now();
    let mut chunks = Vec::new();
    let mut next = range.start;
    let mut last_failure = None;
    let mut slow = 0;
    for continuation in 0..=limits::RANGE_CONTINUATIONS {
        if continuation > 0 {
            tracing::debug!(next, end = range.end, slow, "a range ended early; continuing it");
        }
        let before = next;
        let reading = read_some(source, &mut next, range.end, &mut chunks);
        // The last one is cut off by nobody but the connection's own limits.
        let outcome = if continuation == limits::RANGE_CONTINUATIONS {
            reading.await
        } else if let Ok(outcome) = timeout(pace.patience(slow), reading).await {
            outcome
        } else {
            slow += 1;
            continue;
        };
        match outcome {
            Ok(()) if next >= range.end => {
                pace.note(started.elapsed());
                return Ok(chunks);
            }
            Ok(()) => {}
            Err(error) if error.disposition() == Disposition::Transient => {
                // A continuation that brought bytes is progress, not another failure.
                if next == before {
                    tokio::time::sleep(limits::BACKOFF_FIRST).await;
                }
                last_failure = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    let times = limits::RANGE_CONTINUATIONS;
    Err(last_failure.unwrap_or(ObjectError::Short { ended_at: next, wanted_to: range.end, times }))
}

/// Appends what one request brings from `next` on, and moves `next` behind it, also where it breaks off.
async fn read_some(source: &impl Source, next: &mut u64, end: u64, chunks: &mut Vec<Bytes>) -> Result<(), ObjectError> {
    if *next >= end {
        return Ok(());
    }
    let mut body = source.get(*next, end - *next).await?;
    while *next < end {
        let Some(chunk) = body.next().await else { break };
        let mut chunk = chunk?;
        // More than asked for is not believed.
        chunk.truncate(usize::try_from(end - *next).unwrap_or(usize::MAX));
        *next += chunk.len() as u64;
        chunks.push(chunk);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Bytes that say their own offset, given in bodies that break off.
    struct Breaking {
        length_bytes: u64,
        /// Each body ends after this many bytes.
        body_bytes: u64,
        requests: AtomicUsize,
    }

    fn byte_at(offset: u64) -> u8 {
        (offset % 251) as u8
    }

    impl Source for Breaking {
        fn length_bytes(&self) -> u64 {
            self.length_bytes
        }

        async fn get(&self, offset: u64, length: u64) -> Result<Body, ObjectError> {
            let request = self.requests.fetch_add(1, Ordering::Relaxed);
            let given: Vec<u8> = (offset..offset + length.min(self.body_bytes)).map(byte_at).collect();
            let breaks = request % 2 == 1;
            let end = breaks.then(|| Err(ObjectError::Broken("reset".into())));
            Ok(stream::iter(std::iter::once(Ok(Bytes::from(given))).chain(end)).boxed())
        }
    }

    fn source(length_bytes: u64, body_bytes: u64) -> Arc<Breaking> {
        Arc::new(Breaking { length_bytes, body_bytes, requests: AtomicUsize::new(0) })
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_continued_from_the_next_byte() {
        for body_bytes in [100, 250, 999, 1_000, 5_000] {
            let source = source(2_000, body_bytes);
            let read = read_exact(&*source, 700..1_200).await.unwrap();
            assert_eq!(read, (700..1_200).map(byte_at).collect::<Vec<_>>(), "bodies of {body_bytes}");
        }
    }

    #[tokio::test]
    async fn a_body_that_always_ends_at_once_is_an_error() {
        let error = read_exact(&*source(2_000, 0), 0..10).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Transient);
    }

    #[tokio::test]
    async fn ranges_ahead_come_in_order() {
        let length = limits::RANGE_BYTES * 3 + 17;
        let source = source(length, limits::RANGE_BYTES / 2 + 1);
        let mut body = ReadAhead::new(4).stream(&source, 5..length);
        let mut offset = 5;
        while let Some(chunk) = body.next().await {
            for byte in chunk.unwrap() {
                assert_eq!(byte, byte_at(offset), "at {offset}");
                offset += 1;
            }
        }
        assert_eq!(offset, length);
    }

    /// Two streams, of which the second is taken only when the first is at its end: the budget is kept, and both end.
    #[tokio::test]
    async fn streams_share_a_budget_that_holds_and_lets_each_begin() {
        let length = limits::RANGE_BYTES * 9;
        let source = source(length, u64::MAX);
        let ahead = ReadAhead::new(4);
        let (mut first, mut second) = (ahead.stream(&source, 0..length), ahead.stream(&source, 0..length));
        second.next().await.unwrap().unwrap();
        let mut chunks = 0;
        while let Some(chunk) = first.next().await {
            chunk.unwrap();
            chunks += 1;
            let begun = source.requests.load(Ordering::Relaxed);
            assert!(begun <= chunks + 1 + 4, "{begun} ranges begun when {chunks} and one were taken");
        }
        assert_eq!(chunks, 9);
        assert_eq!(second.count().await, 8);
    }

    /// Bytes of which every `n`-th request gives none, or a few and then none.
    struct Stalling {
        every: usize,
        requests: AtomicUsize,
    }

    impl Source for Stalling {
        fn length_bytes(&self) -> u64 {
            u64::MAX
        }

        async fn get(&self, offset: u64, length: u64) -> Result<Body, ObjectError> {
            let request = self.requests.fetch_add(1, Ordering::Relaxed);
            // A range takes a while, which is what others are measured by.
            tokio::time::sleep(Duration::from_millis(80)).await;
            if request % self.every != self.every - 1 {
                return Ok(
                    stream::iter([Ok((offset..offset + length).map(byte_at).collect::<Vec<_>>().into())]).boxed()
                );
            }
            let few = (request / self.every) as u64 % 2 * 1_000;
            let given: Vec<u8> = (offset..offset + few).map(byte_at).collect();
            Ok(stream::iter([Ok(Bytes::from(given))]).chain(stream::pending()).boxed())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_range_is_continued_elsewhere_as_soon_as_it_is_slow() {
        let source = Arc::new(Stalling { every: 5, requests: AtomicUsize::new(0) });
        let started = Instant::now();
        let length = limits::RANGE_BYTES * 20;
        let mut body = ReadAhead::new(8).stream(&source, 0..length);
        let mut offset = 0;
        while let Some(chunk) = body.next().await {
            for byte in chunk.unwrap() {
                assert_eq!(byte, byte_at(offset), "at {offset}");
                offset += 1;
            }
        }
        assert_eq!(offset, length);
        // 20 ranges, and one request more for each of the stalls among them and among their continuations.
        assert_eq!(source.requests.load(Ordering::Relaxed), 24);
        let most = limits::RANGE_PATIENCE_FIRST + limits::RANGE_PATIENCE * 4;
        assert!(started.elapsed() < most, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_that_never_comes_is_given_up_in_time_and_where_all_are_slow_patience_grows() {
        let never = Stalling { every: 1, requests: AtomicUsize::new(0) };
        let reading = timeout(limits::STANDSTILL_TIMEOUT * 4, read_exact(&never, 0..limits::RANGE_BYTES)).await;
        assert!(reading.is_err(), "the last continuation is left to the connection's own limits");
        assert_eq!(never.requests.load(Ordering::Relaxed), 1 + limits::RANGE_CONTINUATIONS);
        let pace = Pace::default();
        pace.note(Duration::from_secs(64));
        assert_eq!(pace.patience(0).as_secs(), 256);
        pace.note(Duration::from_secs(32));
        assert_eq!((pace.patience(0).as_secs(), pace.patience(2).as_secs()), (240, 960));
    }
}
