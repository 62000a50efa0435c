//! The network's shape: latency and rates, so that a laptop can be as slow as Lambda's network.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::io;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::wire::{Body, Caller};

/// How fast functions read from S3 and write to the registry. The default is no limit at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// How long S3 and the registry think before each answer; about 100 to 200 ms for S3 (its
    /// performance guidelines).
    pub first_byte: Duration,
    /// Bytes per second over one connection, each way; about 85 MB/s from S3.
    pub connection_bytes_per_second: Option<u64>,
    /// Bytes per second that one function reads over all its connections; 625 Mbit/s in Lambda.
    pub caller_read_bytes_per_second: Option<u64>,
    /// Bytes per second that one function writes over all its connections.
    pub caller_write_bytes_per_second: Option<u64>,
    /// How many bytes pass at full speed before a function's own rates hold.
    pub caller_burst_bytes: u64,
    /// How many manifests one registry takes per second before it throttles; 10 in ECR.
    pub put_images_per_second: Option<u32>,
}

/// Which way bytes go, seen from the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// The buckets of all callers.
#[derive(Debug)]
pub(crate) struct Shaper {
    shape: Shape,
    callers: Mutex<HashMap<(Caller, Direction), SharedBucket>>,
}

/// The buckets of one connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionShape {
    read: Option<SharedBucket>,
    write: Option<SharedBucket>,
}

type SharedBucket = Arc<Mutex<Bucket>>;

impl Shaper {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, callers: Mutex::default() }
    }

    /// How long an answer waits for its first byte.
    pub(crate) fn first_byte(&self) -> Duration {
        self.shape.first_byte
    }

    pub(crate) fn connection(&self) -> ConnectionShape {
        let bucket = || self.shape.connection_bytes_per_second.map(|rate| Bucket::shared(rate, 0));
        ConnectionShape { read: bucket(), write: bucket() }
    }

    /// `body` at the rate of `caller` and of the connection.
    pub(crate) fn pace(&self, body: Body, caller: &Caller, connection: &ConnectionShape, direction: Direction) -> Body {
        let (rate, own) = match direction {
            Direction::Read => (self.shape.caller_read_bytes_per_second, &connection.read),
            Direction::Write => (self.shape.caller_write_bytes_per_second, &connection.write),
        };
        let shared = rate.map(|rate| {
            let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
            let bucket = callers
                .entry((caller.clone(), direction))
                .or_insert_with(|| Bucket::shared(rate, self.shape.caller_burst_bytes));
            Arc::clone(bucket)
        });
        let buckets: Vec<SharedBucket> = own.iter().cloned().chain(shared).collect();
        if buckets.is_empty() {
            return body;
        }
        let rates = buckets.iter().map(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner).bytes_per_second);
        let slowest = rates.fold(f64::INFINITY, f64::min);
        Paced { body, piece_bytes: piece_bytes(slowest), buckets, rest: Bytes::new(), held: None }.boxed_unsync()
    }
}

/// A token bucket that lets bytes pass on credit and says how long to wait for it.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: f64,
    burst_bytes: f64,
    /// Below zero when more has passed than the rate allows.
    tokens: f64,
    filled: Option<Instant>,
}

impl Bucket {
    #[expect(
        clippy::cast_precision_loss,
        reason = "rates are far below the 2^52 bytes from which a float is no longer exact"
    )]
    fn shared(bytes_per_second: u64, burst_bytes: u64) -> SharedBucket {
        Arc::new(Mutex::new(Self {
            bytes_per_second: bytes_per_second.max(1) as f64,
            burst_bytes: burst_bytes as f64,
            tokens: burst_bytes as f64,
            filled: None,
        }))
    }

    /// When `bytes` that pass at `now` have been paid for.
    fn pass(&mut self, now: Instant, bytes: u32) -> Instant {
        let since = self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        self.filled = Some(now);
        self.tokens =
            (self.tokens + since.as_secs_f64() * self.bytes_per_second).min(self.burst_bytes) - f64::from(bytes);
        let debt = (-self.tokens).max(0.0) / self.bytes_per_second;
        now + Duration::from_secs_f64(debt)
    }
}

/// As much as passes in a fiftieth of a second: connections that share a rate take turns, and none has paid for much
/// when it is closed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive, and what is larger than a frame splits none"
)]
fn piece_bytes(bytes_per_second: f64) -> usize {
    ((bytes_per_second / 50.0) as usize).max(1 << 10)
}

/// A body that gives each frame, in pieces, when its bytes are paid for.
struct Paced {
    body: Body,
    piece_bytes: usize,
    buckets: Vec<SharedBucket>,
    /// Of the frame that is given in pieces.
    rest: Bytes,
    held: Option<(Pin<Box<Sleep>>, Frame<Bytes>)>,
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some((sleep, _)) = &mut self.held {
                ready!(sleep.as_mut().poll(context));
                return Poll::Ready(self.held.take().map(|(_, frame)| Ok(frame)));
            }
            if self.rest.is_empty() {
                match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => self.rest = data,
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                    other => return Poll::Ready(other),
                }
            }
            let length = self.rest.len().min(self.piece_bytes);
            let frame = Frame::data(self.rest.split_to(length));
            let bytes = length;
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let now = Instant::now();
            let until = self
                .buckets
                .iter()
                .map(|bucket| {
                    let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
                    bucket.pass(now, bytes)
                })
                .max()
                .unwrap_or(now);
            self.held = Some((Box::pin(sleep_until(until)), frame));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What is held is still to come too.
        if self.held.is_none() && self.rest.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::full;

    #[tokio::test]
    async fn a_bucket_lets_its_burst_pass_and_then_its_rate() {
        let bucket = Bucket::shared(100, 50);
        let mut bucket = bucket.lock().unwrap();
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(bucket.pass(start, 50), start, "the burst");
        assert_eq!(bucket.pass(start, 100), at(1000), "a second's worth");
        assert_eq!(bucket.pass(start, 100), at(2000), "on top of it");
        assert_eq!(bucket.pass(at(2500), 50), at(2500), "half a second was saved");
        assert_eq!(bucket.pass(at(9000), 150), at(10_000), "no more than the burst is saved");
    }

    #[tokio::test]
    async fn paced_bodies_lose_nothing_and_no_limit_means_no_wrapping() {
        let role = Caller::Role("Import".to_owned());
        for shape in [
            Shape::default(),
            Shape {
                connection_bytes_per_second: Some(1 << 40),
                caller_read_bytes_per_second: Some(1 << 40),
                ..Shape::default()
            },
        ] {
            let shaper = Shaper::new(shape);
            let body = shaper.pace(full("abc"), &role, &shaper.connection(), Direction::Read);
            assert_eq!(body.size_hint().exact(), Some(3), "Content-Length is kept");
            assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        }
    }
}
