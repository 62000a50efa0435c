//! The threads that compress, one for each core, and what they use again.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::member::Worker;
use super::spent::timed;
use crate::config::Compression;

/// A place among the members under way. A layer that has none under way needs none, so that whoever is slow to take
/// one layer's bytes never stops another.
pub(super) type Slot = Option<OwnedSemaphorePermit>;

/// A member that will be compressed. It comes to nothing when the thread that was to do it failed.
pub(super) type Member = oneshot::Receiver<io::Result<Done>>;

/// A member that is compressed.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) bytes: Bytes,
    /// Its place, until it is on its way.
    pub(super) slot: Slot,
    /// How long a core worked for it.
    pub(super) compressing: Duration,
}

/// Compresses members on so many cores, in the order in which they come. Cheap to clone; all clones share the cores.
///
/// A thread that is done with one member takes the next from the queue, with nobody between who would have to be woken
/// first: to wake somebody takes as long as a twentieth of a member, and a core would be idle meanwhile.
#[derive(Debug, Clone)]
pub(super) struct Cores {
    compression: Compression,
    /// How many threads.
    count: usize,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: VecDeque<Job>,
    /// Threads at work, or about to be.
    working: usize,
    /// What is used again instead of made anew: pages that the system has to find and clear cost as much as a copy.
    workers: Vec<Worker>,
    buffers: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Job {
    member: Vec<u8>,
    slot: Slot,
    done: oneshot::Sender<io::Result<Done>>,
}

impl Cores {
    pub(super) fn new(compression: Compression, count: usize) -> Self {
        Self { compression, count, shared: Arc::default() }
    }

    /// An empty buffer with room for `size` bytes.
    pub(super) fn buffer(&self, size: usize) -> Vec<u8> {
        let mut buffer = self.lock().buffers.pop().unwrap_or_else(|| Vec::with_capacity(size));
        buffer.clear();
        buffer
    }

    /// Has one member compressed after those that wait already. One that nobody waits for any more is left out.
    pub(super) fn start(&self, member: Vec<u8>, slot: Slot) -> Member {
        let (done, outcome) = oneshot::channel();
        let mut shared = self.lock();
        shared.waiting.push_back(Job { member, slot, done });
        if shared.working < self.count {
            shared.working += 1;
            drop(shared);
            let thread = Thread { cores: self.clone(), is_counted: true };
            tokio::task::spawn_blocking(move || thread.work());
        }
        outcome
    }

    /// A panic in another thread leaves the lists as they were.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of [`Shared::working`].
struct Thread {
    cores: Cores,
    is_counted: bool,
}

impl Thread {
    /// Compresses what waits, until nothing does.
    fn work(mut self) {
        while let Some(Job { member, slot, done }) = self.next() {
            // Nobody waits for it when its layer was given up.
            if !done.is_closed() {
                let compressed = self.compress(&member);
                done.send(compressed.map(|(bytes, compressing)| Done { bytes, slot, compressing })).ok();
            }
            self.cores.lock().buffers.push(member);
        }
    }

    /// The next that waits. Where there is none, this thread is counted out in the same step, so that whoever adds one
    /// starts another.
    fn next(&mut self) -> Option<Job> {
        let mut shared = self.cores.lock();
        let next = shared.waiting.pop_front();
        if next.is_none() {
            shared.working -= 1;
            self.is_counted = false;
        }
        next
    }

    fn compress(&self, member: &[u8]) -> io::Result<(Bytes, Duration)> {
        let worker = self.cores.lock().workers.pop();
        let mut worker = worker.map_or_else(|| Worker::new(self.cores.compression), Ok)?;
        let (compressed, compressing) = timed(|| worker.compress(member));
        self.cores.lock().workers.push(worker);
        Ok((compressed?, compressing))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if self.is_counted {
            // It panicked. What waits comes to nothing with it, so that nobody waits for ever.
            let mut shared = self.cores.lock();
            shared.working -= 1;
            shared.waiting.clear();
        }
    }
}
