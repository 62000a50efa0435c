//! What the page knows: plain data, read from receipts, listings and progress records.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry::receipt::{Receipt, State};
use gantry::uploads::Known;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::watch::BlobStep;

/// Rows of the page at most: a browser draws them in no time, and nobody reads further.
pub(super) const ROWS: usize = 100;

/// Blobs of one upload whose progress is kept; an image has at most 127 layers for most runtimes.
const LIVE_BLOBS: usize = 512;

/// What stays the same while the page is up.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The stack's name.
    pub(crate) stack: String,
    /// Where the stack listens.
    pub(crate) endpoint: String,
    /// The bucket that people write to.
    pub(crate) uploads: String,
}

/// One upload: the newest version of one key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Upload {
    /// The bucket.
    pub(crate) bucket: String,
    /// The key.
    pub(crate) key: String,
    /// Its version, once known.
    pub(crate) version_id: Option<String>,
    /// Its size, once known.
    pub(crate) size_bytes: Option<u64>,
    /// When it was there.
    pub(crate) uploaded_at: Option<Timestamp>,
    /// What became of it; without one, no delivery has begun.
    pub(crate) receipt: Option<Receipt>,
    /// How far each blob is in the delivery that runs, by its place.
    pub(crate) live: BTreeMap<usize, BlobStep>,
    /// Blobs of the delivery that runs.
    pub(crate) blobs: usize,
    /// Later uploads have higher numbers.
    pub(super) order: u64,
    /// The board's revision when this changed last.
    pub(super) revision: u64,
}

impl From<Known> for Upload {
    fn from(known: Known) -> Self {
        let receipt = known.receipt().cloned();
        Self {
            bucket: known.upload.bucket,
            key: known.upload.key,
            version_id: known.upload.version_id,
            size_bytes: Some(known.size_bytes),
            uploaded_at: Some(known.uploaded_at),
            receipt,
            ..Self::default()
        }
    }
}

impl Upload {
    /// What the receipt says; `None` before the first delivery.
    pub(crate) fn state(&self) -> Option<State> {
        self.receipt.as_ref().map(|receipt| receipt.state)
    }

    /// A name for the row that is an HTML id and a path segment, whatever the key.
    pub(super) fn id(&self) -> String {
        id(&self.key)
    }
}

pub(super) fn id(key: &str) -> String {
    use sha2::Digest as _;
    hex::encode(&sha2::Sha256::digest(key.as_bytes())[..8])
}

/// How many uploads are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) waiting: usize,
    pub(super) importing: usize,
    pub(super) imported: usize,
    pub(super) released: usize,
    pub(super) held: usize,
    pub(super) failed: usize,
    pub(super) superseded: usize,
}

/// What one look at the board gives.
#[derive(Debug)]
pub(super) struct Seen {
    /// The revision that was seen.
    pub(super) revision: u64,
    pub(super) counts: Counts,
    /// Newest first; all of them, or those that changed since.
    pub(super) rows: Vec<Upload>,
    /// The oldest row's order: rows below it are no longer shown.
    pub(super) oldest: u64,
}

/// The uploads of one stack. Rows are bounded; of all others only the state is kept.
#[derive(Debug, Default)]
pub(crate) struct Board {
    inner: Mutex<Inner>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    rows: HashMap<String, Upload>,
    states: HashMap<String, Option<State>>,
    /// Keys below which a look is under way, so that one look serves many events.
    looking: HashSet<String>,
    revision: u64,
    order: u64,
}

impl Board {
    /// Called for every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// A new version of `key` is there.
    pub(super) fn uploaded(&self, upload: Upload) {
        self.change(|inner| {
            inner.order += 1;
            let order = inner.order;
            inner.states.insert(upload.key.clone(), upload.state());
            let revision = inner.revision;
            inner.rows.insert(upload.key.clone(), Upload { order, revision, ..upload });
            if inner.rows.len() > ROWS {
                let oldest = inner.rows.values().min_by_key(|row| row.order).map(|row| row.key.clone());
                oldest.and_then(|oldest| inner.rows.remove(&oldest));
            }
            true
        });
    }

    /// The object is gone.
    pub(super) fn deleted(&self, key: &str) {
        self.change(|inner| inner.rows.remove(key).is_some() | inner.states.remove(key).is_some());
    }

    /// The receipt of `key` says this now.
    pub(super) fn receipt(&self, key: &str, receipt: Receipt) {
        self.change(|inner| {
            let revision = inner.revision;
            let Some(row) = inner.rows.get_mut(key) else {
                // Too old for a row; its state still counts.
                let known = inner.states.get_mut(key);
                return known.is_some_and(|state| state.replace(receipt.state) != Some(receipt.state));
            };
            let is_other = row.version_id.is_some() && receipt.upload.version_id != row.version_id;
            if is_other {
                return false;
            }
            let attempt = |receipt: &Receipt| receipt.import.attempt.n;
            if row.receipt.as_ref().is_some_and(|known| attempt(known) != attempt(&receipt)) {
                row.live.clear();
            }
            inner.states.insert(key.to_owned(), Some(receipt.state));
            row.size_bytes = receipt.import.size_bytes.or(row.size_bytes);
            row.receipt = Some(receipt);
            row.revision = revision;
            true
        });
    }

    /// A blob of `key` moved.
    pub(super) fn moved(&self, key: &str, step: BlobStep) {
        self.change(|inner| {
            let revision = inner.revision;
            let Some(row) = inner.rows.get_mut(key) else { return false };
            if row.live.len() >= LIVE_BLOBS && !row.live.contains_key(&step.at) {
                return false;
            }
            row.blobs = step.of;
            row.live.insert(step.at, step);
            row.revision = revision;
            true
        });
    }

    /// Whether the caller is to read the receipt of `key` now: somebody else may be about to.
    pub(super) fn begin_look(&self, key: &str) -> bool {
        self.lock().looking.insert(key.to_owned())
    }

    /// Whatever is written from now on needs another look.
    pub(super) fn end_wait(&self, key: &str) {
        self.lock().looking.remove(key);
    }

    /// What changed after `since`; everything for 0.
    pub(super) fn look(&self, since: u64) -> Seen {
        let inner = self.lock();
        let mut rows: Vec<Upload> = inner.rows.values().filter(|row| row.revision > since).cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.order));
        let mut counts = Counts::default();
        for state in inner.states.values() {
            *match state {
                None => &mut counts.waiting,
                Some(State::Importing) => &mut counts.importing,
                Some(State::Imported) => &mut counts.imported,
                Some(State::Released) => &mut counts.released,
                Some(State::Held) => &mut counts.held,
                Some(State::Failed) => &mut counts.failed,
                Some(State::Superseded) => &mut counts.superseded,
            } += 1;
        }
        let oldest = inner.rows.values().map(|row| row.order).min().unwrap_or(0);
        Seen { revision: inner.revision, counts, rows, oldest }
    }

    /// The row with this id.
    pub(super) fn row(&self, id: &str) -> Option<Upload> {
        self.lock().rows.values().find(|row| row.id() == id).cloned()
    }

    /// `change` says whether anything changed.
    fn change(&self, change: impl FnOnce(&mut Inner) -> bool) {
        let mut inner = self.lock();
        inner.revision += 1;
        if change(&mut inner) {
            self.revision.send_replace(inner.revision);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
