//! One queue's messages and who sees them when. Time is an argument.

use std::{collections::VecDeque, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use super::{error::SqsError, message::Message};
use crate::clock;

/// A message and the receipt by which its receiver deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The message, its receive count including this receive.
    pub message: Message,
    /// The receipt handle.
    pub receipt: String,
}

/// How many messages of a queue are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Can be received now.
    pub visible: usize,
    /// Received, and neither deleted nor visible again.
    pub in_flight: usize,
    /// Sent with a delay that is not over.
    pub delayed: usize,
}

/// What a look into the queue gave.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) received: Vec<Received>,
    /// Messages received too often; no longer in the queue.
    pub(super) dead: Vec<Message>,
}

/// The messages, in the order of sending.
#[derive(Debug)]
pub(super) struct State {
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    /// Until when nobody sees it.
    hidden_until: Option<Duration>,
    /// Whether somebody is working on it.
    held: bool,
}

impl Entry {
    fn is_hidden(&self, now: Duration) -> bool {
        self.hidden_until.is_some_and(|until| until > now)
    }

    fn receipt(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}#{}", self.message.id, self.message.receives))
    }
}

impl State {
    /// A queue with `messages`, all visible.
    pub(super) fn new(messages: Vec<Message>) -> Self {
        let entries = messages.into_iter().map(|message| Entry { message, hidden_until: None, held: false }).collect();
        Self { entries }
    }

    pub(super) fn push(&mut self, message: Message, hidden_until: Option<Duration>) {
        self.entries.push_back(Entry { message, hidden_until, held: false });
    }

    pub(super) fn take(
        &mut self,
        now: Duration,
        most: usize,
        visibility: Duration,
        most_receives: Option<u32>,
    ) -> Taken {
        let mut taken = Taken::default();
        let mut position = 0;
        while let Some(entry) = self.entries.get_mut(position) {
            if taken.received.len() == most {
                break;
            }
            if entry.is_hidden(now) {
                position += 1;
                continue;
            }
            if most_receives.is_some_and(|most| entry.message.receives >= most) {
                taken.dead.extend(self.entries.remove(position).map(|entry| entry.message));
                continue;
            }
            entry.message.receives += 1;
            entry.message.first_received.get_or_insert_with(clock::now);
            entry.hidden_until = Some(now + visibility);
            entry.held = true;
            taken.received.push(Received { receipt: entry.receipt(), message: entry.message.clone() });
            position += 1;
        }
        taken
    }

    /// The message, if `receipt` is its latest.
    pub(super) fn delete(&mut self, receipt: &str) -> Result<Option<Message>, SqsError> {
        let position = self.position(receipt)?;
        Ok(position.and_then(|position| self.entries.remove(position)).map(|entry| entry.message))
    }

    pub(super) fn change_visibility(
        &mut self,
        now: Duration,
        receipt: &str,
        visibility: Duration,
    ) -> Result<(), SqsError> {
        let position = self.position(receipt)?;
        let entry = position
            .and_then(|position| self.entries.get_mut(position))
            .filter(|entry| entry.is_hidden(now))
            .ok_or(SqsError::NotInFlight)?;
        entry.hidden_until = Some(now + visibility);
        Ok(())
    }

    pub(super) fn release(&mut self, receipt: &str) {
        if let Ok(Some(position)) = self.position(receipt)
            && let Some(entry) = self.entries.get_mut(position)
        {
            entry.held = false;
        }
    }

    pub(super) fn any_held(&self, now: Duration) -> bool {
        self.entries.iter().any(|entry| entry.held && entry.is_hidden(now))
    }

    pub(super) fn next_visible(&self, now: Duration) -> Option<Duration> {
        self.entries.iter().filter_map(|entry| entry.hidden_until).filter(|until| *until > now).min()
    }

    pub(super) fn counts(&self, now: Duration) -> Counts {
        let mut counts = Counts::default();
        for entry in &self.entries {
            match (entry.is_hidden(now), entry.message.receives) {
                (false, _) => counts.visible += 1,
                (true, 0) => counts.delayed += 1,
                (true, _) => counts.in_flight += 1,
            }
        }
        counts
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.entries.iter().map(|entry| &entry.message)
    }

    /// Removes the messages that `wanted` chooses.
    pub(super) fn drain(&mut self, wanted: impl Fn(&Message) -> bool) -> Vec<Message> {
        let (gone, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.entries).into_iter().partition(|entry| wanted(&entry.message));
        self.entries = kept;
        gone.into_iter().map(|entry| entry.message).collect()
    }

    /// Where the message is whose latest receipt this is.
    fn position(&self, receipt: &str) -> Result<Option<usize>, SqsError> {
        let invalid = || SqsError::Receipt { receipt: receipt.to_owned() };
        let decoded =
            URL_SAFE_NO_PAD.decode(receipt).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(invalid)?;
        let (id, receives) = decoded.split_once('#').ok_or_else(invalid)?;
        let id: Uuid = id.parse().ok().ok_or_else(invalid)?;
        let receives: u32 = receives.parse().ok().ok_or_else(invalid)?;
        Ok(self.entries.iter().position(|entry| entry.message.id == id && entry.message.receives == receives))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Map;

    use super::*;

    const VISIBILITY: Duration = Duration::from_secs(30);

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn state(bodies: &[&str]) -> State {
        let messages = bodies
            .iter()
            .map(|body| Message {
                id: Uuid::new_v4(),
                sequence: 1,
                body: (*body).to_owned(),
                attributes: Map::new(),
                trace_header: None,
                sent: Timestamp::UNIX_EPOCH,
                first_received: None,
                receives: 0,
                dead_letter_source: None,
            })
            .collect();
        State::new(messages)
    }

    fn bodies(taken: &Taken) -> Vec<&str> {
        taken.received.iter().map(|received| received.message.body.as_str()).collect()
    }

    #[test]
    fn a_received_message_is_invisible_until_its_time() {
        let mut state = state(&["a", "b", "c"]);
        assert_eq!(bodies(&state.take(second(0), 2, VISIBILITY, None)), ["a", "b"]);
        assert_eq!(bodies(&state.take(second(1), 9, VISIBILITY, None)), ["c"]);
        assert_eq!(state.next_visible(second(1)), Some(second(30)));
        assert!(bodies(&state.take(second(29), 9, VISIBILITY, None)).is_empty());
        assert_eq!(state.counts(second(30)), Counts { visible: 2, in_flight: 1, delayed: 0 });
        let again = state.take(second(30), 9, VISIBILITY, None);
        assert_eq!(bodies(&again), ["a", "b"]);
        assert_eq!(again.received[0].message.receives, 2);
    }

    #[test]
    fn only_the_latest_receipt_works() {
        let mut state = state(&["a"]);
        let first = state.take(second(0), 1, VISIBILITY, None).received.remove(0).receipt;
        let latest = state.take(second(40), 1, VISIBILITY, None).received.remove(0).receipt;
        assert_eq!(state.delete(&first).unwrap(), None);
        assert!(matches!(state.change_visibility(second(40), &first, VISIBILITY), Err(SqsError::NotInFlight)));
        assert!(matches!(state.delete("nonsense"), Err(SqsError::Receipt { .. })));
        state.change_visibility(second(41), &latest, second(5)).unwrap();
        assert_eq!(state.next_visible(second(41)), Some(second(46)));
        assert!(matches!(state.change_visibility(second(46), &latest, VISIBILITY), Err(SqsError::NotInFlight)));
        assert!(state.delete(&latest).unwrap().is_some());
        assert_eq!(state.messages().count(), 0);
    }

    #[test]
    fn a_message_received_too_often_is_dead() {
        let mut state = state(&["a"]);
        for time in [0, 30] {
            assert_eq!(bodies(&state.take(second(time), 1, VISIBILITY, Some(2))), ["a"]);
        }
        let taken = state.take(second(60), 1, VISIBILITY, Some(2));
        assert!(taken.received.is_empty());
        assert_eq!(taken.dead.len(), 1);
        assert_eq!(state.messages().count(), 0);
    }

    #[test]
    fn held_ends_with_release_or_visibility() {
        let mut state = state(&["a"]);
        assert!(!state.any_held(second(0)));
        let receipt = state.take(second(0), 1, VISIBILITY, None).received.remove(0).receipt;
        assert!(state.any_held(second(1)));
        assert!(!state.any_held(second(30)));
        state.release(&receipt);
        assert!(!state.any_held(second(1)));
        assert_eq!(state.counts(second(1)).in_flight, 1);
    }
}
