//! The queue of messages that no delivery could finish: whose they are.

use std::collections::BTreeSet;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, Message};

use crate::aws::CallError;
use crate::event::{self, Event, ObjectCreated, object};
use crate::limits;

/// Messages asked for, or given back, at once: the most that SQS takes.
const BATCH: usize = 10;

/// The failed queue.
#[derive(Debug, Clone)]
pub struct FailedQueue {
    client: Client,
    url: String,
}

/// What was found in the failed queue.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Messages of uploads; those of pushes and scans are left out.
    pub(super) uploads: Vec<FailedUpload>,
    /// Whether every message was seen.
    pub(super) is_whole: bool,
}

/// A message of an upload that no delivery could finish.
#[derive(Debug, Clone)]
pub(super) struct FailedUpload {
    /// What it names; S3's own records may name several.
    pub(super) objects: Vec<ObjectCreated>,
    handle: String,
}

impl FailedQueue {
    /// The queue at `url`.
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self { client, url: url.into() }
    }

    /// Looks at the messages, at most [`limits::FAILED_MESSAGES`]. They are out of sight meanwhile, for
    /// [`limits::FAILED_HIDDEN`] at most; [`Self::give_back`] shows them again.
    ///
    /// # Errors
    ///
    /// [`CallError`], transient.
    pub(super) async fn look(&self) -> Result<Found, CallError> {
        let (mut found, mut seen) = (Found::default(), BTreeSet::new());
        let hidden = i32::try_from(limits::FAILED_HIDDEN.as_secs()).unwrap_or(i32::MAX);
        while seen.len() < limits::FAILED_MESSAGES {
            let receive = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
            // Asking for a second asks all of SQS's servers; a shorter question may miss messages (SQS guide, "Amazon
            // SQS short and long polling").
            let receive = receive.wait_time_seconds(1).visibility_timeout(hidden).send().await;
            let receive = receive.map_err(|error| CallError::new("sqs:ReceiveMessage", &self.url, error))?;
            let before = seen.len();
            for message in receive.messages() {
                if seen.insert(message.message_id().unwrap_or_default().to_owned()) {
                    found.uploads.extend(upload(message));
                }
            }
            if seen.len() == before {
                found.is_whole = true;
                break;
            }
        }
        Ok(found)
    }

    /// Shows `messages` again at once. Best effort: they come back by themselves.
    pub(super) async fn give_back(&self, messages: &[FailedUpload]) {
        for batch in messages.chunks(BATCH) {
            let entry = |(place, message): (usize, &FailedUpload)| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(place.to_string());
                entry.receipt_handle(&message.handle).visibility_timeout(0).build().ok()
            };
            let entries: Vec<_> = batch.iter().enumerate().filter_map(entry).collect();
            let back = self.client.change_message_visibility_batch().queue_url(&self.url).set_entries(Some(entries));
            if let Err(error) = back.send().await {
                let error = crate::disposition::chain(&error);
                tracing::warn!(error, "messages of the failed queue stay out of sight for a while");
            }
        }
    }

    /// Takes out a message whose work is done. One request.
    ///
    /// # Errors
    ///
    /// [`CallError`], transient.
    pub(super) async fn take_out(&self, message: &FailedUpload) -> Result<(), CallError> {
        let delete = self.client.delete_message().queue_url(&self.url).receipt_handle(&message.handle);
        delete.send().await.map_err(|error| CallError::new("sqs:DeleteMessage", &self.url, error))?;
        Ok(())
    }
}

/// The uploads that a message names, if it does.
fn upload(message: &Message) -> Option<FailedUpload> {
    let event = event::json(message.body()?).ok()?;
    let Ok(Event::Known(objects)) = object::parse(event) else { return None };
    Some(FailedUpload { objects, handle: message.receipt_handle()?.to_owned() })
}
