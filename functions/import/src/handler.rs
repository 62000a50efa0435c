//! One invocation: parse, import, answer for each message.

use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use gantry::disposition::chain;
use gantry::event::{self, Event, ObjectCreated};
use gantry::import::{Delivery, ImportError, Importer, Outcome};
use gantry::receipt::Attempt;
use lambda_runtime::Diagnostic;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{Instrument as _, info_span};

/// Everything an invocation needs.
#[derive(Debug)]
pub(crate) struct Handler {
    pub(crate) importer: Importer,
    pub(crate) queue: Option<Queue>,
    pub(crate) max_receives: u32,
}

/// The queue that feeds the function, for giving messages back sooner than its visibility timeout.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) client: aws_sdk_sqs::Client,
    pub(crate) url: String,
}

/// When and why something is to be delivered again.
struct Later {
    error: ImportError,
    after: Duration,
}

impl Handler {
    /// Handles a queue batch, or an event given bare. `deadline_ms` is when Lambda stops the function, in
    /// milliseconds since 1970.
    ///
    /// A batch is always answered message by message; only a bare event can fail the invocation.
    pub(crate) async fn handle(&self, payload: Value, deadline_ms: u64) -> Result<Value, Diagnostic> {
        let deadline = deadline(deadline_ms);
        if payload.pointer("/Records/0/eventSource").and_then(Value::as_str) == Some("aws:sqs") {
            let batch: SqsEvent =
                serde_json::from_value(payload).map_err(|error| diagnostic("MalformedBatch", &error))?;
            let answer = self.batch(batch, deadline).await;
            return serde_json::to_value(answer).map_err(|error| diagnostic("Answer", &error));
        }
        let parsed = event::parse(payload);
        // A bare event has no queue behind it: this delivery is the only one that can be counted on.
        let delivery = Delivery { attempt: Attempt { n: 1, of: 1 }, deadline };
        match self.event(parsed, delivery).await {
            Some(later) => Err(diagnostic("ImportFailed", &later.error)),
            None => Ok(Value::Null),
        }
    }

    async fn batch(&self, batch: SqsEvent, deadline: Instant) -> SqsBatchResponse {
        let mut answer = SqsBatchResponse::default();
        for message in batch.records {
            // Lambda reads an empty identifier as "the whole batch failed", which is the safe side.
            let id = message.message_id.clone().unwrap_or_default();
            let span = info_span!("message", sqs.message_id = id);
            let later = self.message(&message, deadline).instrument(span).await;
            if let Some(later) = later {
                self.give_back(&message, later.after).await;
                answer.add_failure(id);
            }
        }
        answer
    }

    async fn message(&self, message: &SqsMessage, deadline: Instant) -> Option<Later> {
        let receives = message.attributes.get("ApproximateReceiveCount").and_then(|count| count.parse().ok());
        let attempt = Attempt { n: receives.unwrap_or(1), of: self.max_receives };
        let parsed = event::parse_text(message.body.as_deref().unwrap_or_default());
        self.event(parsed, Delivery { attempt, deadline }).await
    }

    /// Imports every object that the event names; a failed first one does not hide a good second one. What cannot
    /// be understood is named in the log and done with, since the same bytes would come again.
    async fn event(&self, parsed: Result<Event, event::EventError>, delivery: Delivery) -> Option<Later> {
        let created = match parsed {
            Ok(Event::Created(created)) => created,
            Ok(Event::Other(shape)) => {
                tracing::warn!(shape, "not an object that was created; acknowledged");
                return None;
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "not an event that can be read; acknowledged");
                return None;
            }
        };
        let mut worst = None;
        for object in created {
            let span = info_span!("upload", s3.bucket = object.bucket, s3.key = object.key);
            worst = self.import(&object, delivery).instrument(span).await.or(worst);
        }
        worst
    }

    async fn import(&self, object: &ObjectCreated, delivery: Delivery) -> Option<Later> {
        if object.key.ends_with('/') || object.key.ends_with(gantry::receipt::SUFFIX) {
            tracing::info!("a folder or a receipt, not an upload; acknowledged");
            return None;
        }
        let Attempt { n, of } = delivery.attempt;
        match self.importer.import(object, delivery).await {
            Outcome::Done(receipt) => {
                let duration_ms = receipt.import.duration_ms;
                tracing::info!(state = %receipt.state, duration_ms, summary = receipt.summary, "done");
                None
            }
            Outcome::Refused { receipt, error } => {
                tracing::error!(state = %receipt.state, kind = error.kind(), error = chain(&error), "refused");
                None
            }
            Outcome::Later { error, after } => {
                let after_s = after.as_secs();
                let kind = error.kind();
                tracing::error!(attempt = n, of, kind, after_s, error = chain(&error), "to be delivered again");
                Some(Later { error, after })
            }
        }
    }

    /// Makes the message visible again after a backoff; otherwise SQS would sit on it for the whole visibility
    /// timeout. Best effort: without it the message still comes back.
    async fn give_back(&self, message: &SqsMessage, after: Duration) {
        let (Some(queue), Some(handle)) = (&self.queue, &message.receipt_handle) else { return };
        let seconds = i32::try_from(after.as_secs()).unwrap_or(i32::MAX);
        let change = queue.client.change_message_visibility().queue_url(&queue.url).receipt_handle(handle);
        if let Err(error) = change.visibility_timeout(seconds).send().await {
            tracing::warn!(error = chain(&error), "the message keeps its visibility timeout");
        }
    }
}

/// An error with a stable name, for alarms; the runtime logs it.
fn diagnostic(error_type: &str, error: &(dyn std::error::Error + 'static)) -> Diagnostic {
    Diagnostic { error_type: error_type.to_owned(), error_message: chain(error) }
}

/// When Lambda stops the function, on the clock that timers use.
#[expect(clippy::disallowed_methods, reason = "the runtime gives the deadline as wall-clock time")]
fn deadline(deadline_ms: u64) -> Instant {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Instant::now() + Duration::from_millis(deadline_ms).saturating_sub(since_epoch)
}
