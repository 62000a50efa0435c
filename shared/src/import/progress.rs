//! How far the layers are, as log records: `gantry` turns them into bars, and at debug level they are in CloudWatch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::schedule::Schedule;
use super::send::Job;
use crate::receipt::{How, LayersDone};

/// The target of the records, so that a subscriber can choose them.
pub const TARGET: &str = "gantry::progress";

/// Between two records of one layer; finer than a bar can show.
const EVERY: Duration = Duration::from_millis(100);

/// All blobs of one delivery.
#[derive(Debug)]
pub(super) struct Progress {
    /// Which of them may begin.
    pub(super) schedule: Schedule,
    blobs: usize,
    done: AtomicU64,
    read_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Progress {
    /// Of `blobs`, in a delivery that has to end by `until`.
    pub(super) fn new(blobs: usize, until: Instant) -> Self {
        Self {
            schedule: Schedule::new(until),
            blobs,
            done: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn so_far(&self) -> LayersDone {
        LayersDone {
            done: usize::try_from(self.done.load(Ordering::Relaxed)).unwrap_or(usize::MAX),
            of: self.blobs,
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    /// Follows the `at`-th blob.
    pub(super) fn of(&self, at: usize, job: Job<'_>) -> Arc<BlobProgress> {
        let extent = job.what.extent();
        Arc::new(BlobProgress {
            at,
            of: self.blobs,
            entry: extent.path.clone(),
            entry_bytes: extent.size_bytes,
            started: Instant::now(),
            last_ms: AtomicU64::new(0),
            moved_bytes: AtomicU64::new(0),
        })
    }

    /// One more is done.
    pub(super) fn finished(&self, blob: &BlobProgress, how: How, read_bytes: u64, sent_bytes: u64) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(read_bytes, Ordering::Relaxed);
        self.sent_bytes.fetch_add(sent_bytes, Ordering::Relaxed);
        let how = match how {
            How::Sent => "sent",
            How::Reused => "reused",
            How::Mounted => "mounted",
        };
        blob.record(how, read_bytes, sent_bytes);
    }
}

/// One blob on its way.
#[derive(Debug)]
pub(super) struct BlobProgress {
    at: usize,
    of: usize,
    entry: String,
    entry_bytes: u64,
    started: Instant,
    last_ms: AtomicU64,
    moved_bytes: AtomicU64,
}

impl BlobProgress {
    /// The size of its entry.
    pub(super) fn entry_bytes(&self) -> u64 {
        self.entry_bytes
    }

    /// How much of its entry was read.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.moved_bytes.load(Ordering::Relaxed)
    }

    /// How much of it was not.
    pub(super) fn lacking_bytes(&self) -> u64 {
        self.entry_bytes.saturating_sub(self.moved_bytes())
    }

    /// So many bytes were read and sent until now.
    pub(super) fn moved(&self, read_bytes: u64, sent_bytes: u64) {
        self.moved_bytes.store(read_bytes, Ordering::Relaxed);
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let every_ms = u64::try_from(EVERY.as_millis()).unwrap_or(u64::MAX);
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(last_ms) >= every_ms {
            self.last_ms.store(now_ms, Ordering::Relaxed);
            self.record("sending", read_bytes, sent_bytes);
        }
    }

    fn record(&self, how: &'static str, read_bytes: u64, sent_bytes: u64) {
        tracing::debug!(
            target: "gantry::progress",
            at = self.at,
            of = self.of,
            entry = self.entry,
            entry_bytes = self.entry_bytes,
            read_bytes,
            sent_bytes,
            how,
            "blob"
        );
    }
}
