//! Standard queues: visibility, receive counts, redrive, long polling, and the JSON protocol.
//!
//! Messages are files below one folder, so that a restart loses none. What was being worked on
//! when the process ended is visible again at the next start, with its receive count kept.

mod api;
mod error;
mod message;
mod queue;
mod receiving;

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

pub use api::Sqs;
pub use error::SqsError;
pub use message::Message;
pub use queue::{Counts, Received};
pub use receiving::Ask;

use crate::{clock, disk, template};
use queue::State;

/// The largest message, with its attributes: 1 MiB since 2025 (SQS quotas).
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The longest visibility timeout, 12 hours (SQS quotas).
pub const MAX_VISIBILITY: Duration = Duration::from_hours(12);

/// How time passes while messages are invisible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Waits {
    /// As on the clock.
    #[default]
    Real,
    /// Time jumps to the next moment at which a message becomes visible, whenever somebody waits
    /// for one, none is visible, and none is being worked on: a test never waits for a backoff.
    Skipped,
}

/// The queues of the stack.
#[derive(Debug)]
pub struct Queues {
    root: PathBuf,
    waits: Waits,
    started: Instant,
    inner: Mutex<Inner>,
    /// Counts changes, so that whoever waits for a message looks again.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    queues: BTreeMap<String, Slot>,
    /// How far [`Waits::Skipped`] is ahead of the clock.
    ahead: Duration,
    sequence: u64,
}

#[derive(Debug)]
struct Slot {
    settings: template::Queue,
    state: State,
    waiting: usize,
}

/// What a message is sent with, besides its body.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// How long it stays invisible; the queue's own delay when `None`.
    pub delay: Option<Duration>,
    /// Message attributes as the JSON protocol has them: name → `{DataType, StringValue | BinaryValue}`.
    pub attributes: Map<String, Value>,
    /// The sender's trace header.
    pub trace_header: Option<String>,
}

impl Queues {
    /// Opens the queues that `settings` describe, with the messages kept below `root`.
    ///
    /// # Errors
    ///
    /// When a folder cannot be made, or a kept message cannot be read.
    pub fn open(root: PathBuf, settings: impl IntoIterator<Item = template::Queue>, waits: Waits) -> io::Result<Self> {
        let mut queues = BTreeMap::new();
        let mut sequence = 0;
        for settings in settings {
            let folder = root.join(&settings.name);
            fs::create_dir_all(&folder)?;
            let mut messages: Vec<Message> = Vec::new();
            for path in disk::json_files(&folder)? {
                messages.push(serde_json::from_slice(&fs::read(path)?)?);
            }
            messages.sort_by_key(|message| message.sequence);
            sequence = messages.last().map_or(0, |message| message.sequence).max(sequence);
            let slot = Slot { state: State::new(messages), waiting: 0, settings };
            queues.insert(slot.settings.name.clone(), slot);
        }
        Ok(Self {
            root,
            waits,
            started: Instant::now(),
            inner: Mutex::new(Inner { queues, ahead: Duration::ZERO, sequence }),
            changes: watch::Sender::new(0),
        })
    }

    /// The name of the queue with this ARN, URL or name.
    ///
    /// # Errors
    ///
    /// [`SqsError::NoQueue`].
    pub fn name(&self, arn_or_url: &str) -> Result<String, SqsError> {
        let name = arn_or_url.rsplit([':', '/']).next().unwrap_or(arn_or_url);
        if self.lock().queues.contains_key(name) { Ok(name.to_owned()) } else { Err(SqsError::NoQueue) }
    }

    /// How time passes.
    pub fn waits(&self) -> Waits {
        self.waits
    }

    /// How long nobody had to wait, thanks to [`Waits::Skipped`]: the pauses until messages became visible.
    pub fn skipped(&self) -> Duration {
        self.lock().ahead
    }

    /// The settings of every queue, by name.
    pub fn settings(&self) -> Vec<template::Queue> {
        let inner = self.lock();
        inner.queues.values().map(|slot| slot.settings.clone()).collect()
    }

    /// Puts a message into the queue; on `Ok` it is on disk.
    ///
    /// # Errors
    ///
    /// [`SqsError::NoQueue`], [`SqsError::Parameter`] for an empty or too large message,
    /// [`SqsError::Disk`].
    pub fn send(&self, queue: &str, body: &str, extras: Extras) -> Result<Message, SqsError> {
        if body.is_empty() {
            return Err(SqsError::Missing { parameter: "MessageBody" });
        }
        if body.len() + message::attribute_bytes(&extras.attributes) > MAX_MESSAGE_BYTES {
            return Err(SqsError::Parameter {
                parameter: "MessageBody",
                reason: format!("Message must be shorter than {MAX_MESSAGE_BYTES} bytes."),
            });
        }
        let mut inner = self.lock();
        inner.sequence += 1;
        let message = Message {
            id: Uuid::new_v4(),
            sequence: inner.sequence,
            body: body.to_owned(),
            attributes: extras.attributes,
            trace_header: extras.trace_header,
            sent: clock::now(),
            first_received: None,
            receives: 0,
            dead_letter_source: None,
        };
        let now = self.now(&inner);
        let slot = inner.slot(queue)?;
        let delay = extras.delay.unwrap_or(slot.settings.delay);
        self.keep(queue, &message)?;
        slot.state.push(message.clone(), Some(now + delay).filter(|_| !delay.is_zero()));
        drop(inner);
        self.changed();
        Ok(message)
    }

    /// Deletes the message of a receipt. An outdated receipt deletes nothing, as with SQS.
    ///
    /// # Errors
    ///
    /// [`SqsError::NoQueue`], [`SqsError::Receipt`] when the handle is none.
    pub fn delete(&self, queue: &str, receipt: &str) -> Result<(), SqsError> {
        let mut inner = self.lock();
        let deleted = inner.slot(queue)?.state.delete(receipt)?;
        drop(inner);
        if let Some(message) = deleted {
            self.forget(queue, &message);
            self.changed();
        }
        Ok(())
    }

    /// Sets how long from now the message of a receipt stays invisible.
    ///
    /// # Errors
    ///
    /// [`SqsError::NoQueue`], [`SqsError::Receipt`], [`SqsError::NotInFlight`] when the message is
    /// visible, gone, or was received again; [`SqsError::Parameter`] beyond 12 hours.
    pub fn change_visibility(&self, queue: &str, receipt: &str, visibility: Duration) -> Result<(), SqsError> {
        if visibility > MAX_VISIBILITY {
            return Err(SqsError::Parameter {
                parameter: "VisibilityTimeout",
                reason: "Must be between 0 and 43200, if provided.".to_owned(),
            });
        }
        let mut inner = self.lock();
        let now = self.now(&inner);
        inner.slot(queue)?.state.change_visibility(now, receipt, visibility)?;
        drop(inner);
        self.changed();
        Ok(())
    }

    /// Says that nobody works on the message of a receipt any more; it stays invisible until its time.
    ///
    /// Only [`Waits::Skipped`] asks. Whatever the receipt is, this does not fail.
    pub fn release(&self, queue: &str, receipt: &str) {
        let mut inner = self.lock();
        if let Ok(slot) = inner.slot(queue) {
            slot.state.release(receipt);
        }
        drop(inner);
        self.changed();
    }

    /// How many messages are visible, in flight and delayed.
    ///
    /// # Errors
    ///
    /// [`SqsError::NoQueue`].
    pub fn counts(&self, queue: &str) -> Result<Counts, SqsError> {
        let mut inner = self.lock();
        let now = self.now(&inner);
        Ok(inner.slot(queue)?.state.counts(now))
    }

    /// Every message of the queue, whatever its visibility, without receiving it.
    ///
    /// # Errors
    ///
    /// [`SqsError::NoQueue`].
    pub fn messages(&self, queue: &str) -> Result<Vec<Message>, SqsError> {
        Ok(self.lock().slot(queue)?.state.messages().cloned().collect())
    }

    /// Waits until the queue holds no message at all, neither visible nor invisible.
    ///
    /// # Errors
    ///
    /// [`SqsError::NoQueue`].
    pub async fn drained(&self, queue: &str) -> Result<(), SqsError> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if self.messages(queue)?.is_empty() {
                return Ok(());
            }
            // The sender lives as long as `self`.
            let _changed = changes.changed().await;
        }
    }

    /// Deletes every message of the queue.
    ///
    /// # Errors
    ///
    /// [`SqsError::NoQueue`].
    pub fn purge(&self, queue: &str) -> Result<(), SqsError> {
        let purged = self.lock().slot(queue)?.state.drain(|_| true);
        for message in purged {
            self.forget(queue, &message);
        }
        self.changed();
        Ok(())
    }

    /// Sends the messages of a dead-letter queue back to where they came from, as new messages.
    ///
    /// Only messages that came from an SQS queue move: what EventBridge could not deliver stays.
    ///
    /// # Errors
    ///
    /// [`SqsError::NoQueue`], [`SqsError::Disk`].
    pub fn redrive(&self, queue: &str, target: Option<&str>) -> Result<usize, SqsError> {
        let moved = self.lock().slot(queue)?.state.drain(|message| message.dead_letter_source.is_some());
        let count = moved.len();
        for message in moved {
            let source = message.dead_letter_source.as_deref();
            let target = self.name(target.or(source).unwrap_or_default())?;
            let extras = Extras {
                delay: None,
                attributes: message.attributes.clone(),
                trace_header: message.trace_header.clone(),
            };
            self.send(&target, &message.body, extras)?;
            self.forget(queue, &message);
        }
        Ok(count)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queues' own time since they were opened.
    fn now(&self, inner: &Inner) -> Duration {
        self.started.elapsed() + inner.ahead
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn path(&self, queue: &str, message: &Message) -> PathBuf {
        self.root.join(queue).join(format!("{}.json", message.id))
    }

    fn keep(&self, queue: &str, message: &Message) -> io::Result<()> {
        disk::write_json(&self.path(queue, message), message)
    }

    fn keep_or_warn(&self, queue: &str, message: &Message) {
        if let Err(error) = self.keep(queue, message) {
            tracing::warn!(sqs.queue = queue, %error, "a message's receive count could not be kept");
        }
    }

    fn forget(&self, queue: &str, message: &Message) {
        if let Err(error) = fs::remove_file(self.path(queue, message)) {
            tracing::warn!(sqs.queue = queue, %error, "a deleted message's file could not be removed");
        }
    }
}

impl Inner {
    fn slot(&mut self, queue: &str) -> Result<&mut Slot, SqsError> {
        self.queues.get_mut(queue).ok_or(SqsError::NoQueue)
    }
}

#[cfg(test)]
mod tests;
