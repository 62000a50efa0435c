//! Reading ranges whole, and reading far ahead.
//!
//! A range that ends early, whether the body just stops or the connection breaks, is continued from the next byte
//! on a fresh connection. [`stream()`] keeps several ranges under way at once and gives their bytes in order.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
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
    let chunks = read_range(source, range).await?;
    if let [only] = chunks.as_slice() {
        return Ok(only.clone());
    }
    let mut whole = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// The bytes of `range` in order, with up to [`limits::RANGES_AHEAD`] ranges of [`limits::RANGE_BYTES`] under way.
///
/// At most that many ranges are in memory. Dropping the stream ends the requests.
pub fn stream<S: Source>(source: &Arc<S>, range: Range<u64>) -> Body {
    stream_by(source, range, limits::RANGE_BYTES, limits::RANGES_AHEAD)
}

/// The bytes of `range` in order, with up to `ahead` ranges of `range_bytes` under way.
pub fn stream_by<S: Source>(source: &Arc<S>, range: Range<u64>, range_bytes: u64, ahead: usize) -> Body {
    let source = Arc::clone(source);
    let starts = (range.start..range.end).step_by(usize::try_from(range_bytes).unwrap_or(usize::MAX));
    let ranges = starts.map(move |start| start..range.end.min(start.saturating_add(range_bytes)));
    stream::iter(ranges)
        .map(move |range| {
            let source = Arc::clone(&source);
            let task = tokio::spawn(async move { read_range(&*source, range).await });
            let task = AbortOnDropHandle::new(task);
            async move { task.await.map_err(|error| ObjectError::Broken(Box::new(error)))? }
        })
        .buffered(ahead)
        .map_ok(|chunks| stream::iter(chunks.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

/// The chunks of `range` as they came, all of it.
async fn read_range(source: &impl Source, range: Range<u64>) -> Result<Vec<Bytes>, ObjectError> {
    let mut chunks = Vec::new();
    let mut next = range.start;
    let mut last_failure = None;
    for continuation in 0..=limits::RANGE_CONTINUATIONS {
        if next >= range.end {
            return Ok(chunks);
        }
        if continuation > 0 {
            tracing::debug!(next, end = range.end, "a range ended early; continuing it");
        }
        match read_some(source, next..range.end, &mut chunks).await {
            Ok(read) => next = next.saturating_add(read),
            Err((read, error)) if error.disposition() == Disposition::Transient => {
                next = next.saturating_add(read);
                // A continuation that brought bytes is progress, not another failure.
                if read == 0 {
                    tokio::time::sleep(limits::BACKOFF_FIRST).await;
                }
                last_failure = Some(error);
            }
            Err((_, error)) => return Err(error),
        }
    }
    if next >= range.end {
        return Ok(chunks);
    }
    let times = limits::RANGE_CONTINUATIONS;
    Err(last_failure.unwrap_or(ObjectError::Short { ended_at: next, wanted_to: range.end, times }))
}

/// Appends what one request brings; how many bytes that was, also where it broke off.
async fn read_some(
    source: &impl Source,
    range: Range<u64>,
    chunks: &mut Vec<Bytes>,
) -> Result<u64, (u64, ObjectError)> {
    let wanted = range.end - range.start;
    let mut body = source.get(range.start, wanted).await.map_err(|error| (0, error))?;
    let mut read = 0;
    while read < wanted {
        match body.next().await {
            Some(Ok(mut chunk)) => {
                // More than asked for is not believed.
                chunk.truncate(usize::try_from(wanted - read).unwrap_or(usize::MAX));
                read += chunk.len() as u64;
                chunks.push(chunk);
            }
            Some(Err(error)) => return Err((read, error)),
            None => break,
        }
    }
    Ok(read)
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
        let mut body = stream(&source, 5..length);
        let mut offset = 5;
        while let Some(chunk) = body.next().await {
            for byte in chunk.unwrap() {
                assert_eq!(byte, byte_at(offset), "at {offset}");
                offset += 1;
            }
        }
        assert_eq!(offset, length);
    }
}
