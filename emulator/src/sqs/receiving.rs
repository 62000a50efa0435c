//! Receiving: long polling, redrive, and the jump over waits that nobody needs.

use std::time::Duration;

use tokio::time::Instant;

use super::{Queues, Received, SqsError, Waits};

/// How messages are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// The most messages to return.
    pub most: usize,
    /// How long they stay invisible; the queue's own timeout when `None`.
    pub visibility: Option<Duration>,
    /// How long to wait for a first message; for ever when `None`.
    pub wait: Option<Duration>,
}

impl Queues {
    /// Takes messages out of sight and returns them; empty when the wait is over.
    ///
    /// A message that was received too often moves to the dead-letter queue instead.
    ///
    /// # Errors
    ///
    /// [`SqsError::NoQueue`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken when the future is dropped.
    pub async fn receive(&self, queue: &str, ask: Ask) -> Result<Vec<Received>, SqsError> {
        let mut changes = self.changes.subscribe();
        let deadline = ask.wait.map(|wait| Instant::now() + wait);
        let _waiting = Waiting::new(self, queue)?;
        loop {
            changes.mark_unchanged();
            let (received, wake) = self.take(queue, ask)?;
            if !received.is_empty() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(received);
            }
            if self.jump() {
                continue;
            }
            let until = match (wake, deadline) {
                (Some(wake), Some(deadline)) => Some(wake.min(deadline)),
                (wake, deadline) => wake.or(deadline),
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// What is visible now, or else when the next message will be.
    fn take(&self, queue: &str, ask: Ask) -> Result<(Vec<Received>, Option<Instant>), SqsError> {
        let mut inner = self.lock();
        let now = self.now(&inner);
        let slot = inner.slot(queue)?;
        let visibility = ask.visibility.unwrap_or(slot.settings.visibility);
        let redrive = slot.settings.redrive.clone();
        let most_receives = redrive.as_ref().map(|redrive| redrive.max_receives);
        let taken = slot.state.take(now, ask.most, visibility, most_receives);
        let source = slot.settings.arn.clone();
        let wake = slot.state.next_visible(now);
        for received in &taken.received {
            self.keep_or_warn(queue, &received.message);
        }
        let moved = !taken.dead.is_empty();
        if let Some(redrive) = redrive {
            for mut message in taken.dead {
                message.dead_letter_source = Some(source.clone());
                let target = redrive.dead_letter_arn.rsplit(':').next().unwrap_or_default();
                // To disk in the new queue first: a crash in between doubles it rather than losing it.
                self.keep_or_warn(target, &message);
                self.forget(queue, &message);
                tracing::info!(
                    sqs.message_id = %message.id,
                    "a message was received too often and moved to {target}"
                );
                if let Ok(slot) = inner.slot(target) {
                    slot.state.push(message, None);
                }
            }
        }
        let wake = wake.map(|wake| self.started + wake.saturating_sub(inner.ahead));
        drop(inner);
        if moved || !taken.received.is_empty() {
            self.changed();
        }
        Ok((taken.received, wake))
    }

    /// Jumps to the next visible moment, if waits are skipped and nothing else can happen before it.
    fn jump(&self) -> bool {
        if self.waits == Waits::Real {
            return false;
        }
        let mut inner = self.lock();
        let now = self.now(&inner);
        if inner.queues.values().any(|slot| slot.state.any_held(now)) {
            return false;
        }
        let polled = || inner.queues.values().filter(|slot| slot.waiting > 0);
        if polled().any(|slot| slot.state.counts(now).visible > 0) {
            return false;
        }
        let Some(next) = polled().filter_map(|slot| slot.state.next_visible(now)).min() else {
            return false;
        };
        inner.ahead += next.saturating_sub(now);
        drop(inner);
        self.changed();
        true
    }
}

/// Counts a receiver as waiting for as long as it lives.
#[derive(Debug)]
struct Waiting<'a> {
    queues: &'a Queues,
    queue: &'a str,
}

impl<'a> Waiting<'a> {
    fn new(queues: &'a Queues, queue: &'a str) -> Result<Self, SqsError> {
        queues.lock().slot(queue)?.waiting += 1;
        Ok(Self { queues, queue })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Ok(slot) = self.queues.lock().slot(self.queue) {
            slot.waiting = slot.waiting.saturating_sub(1);
        }
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
