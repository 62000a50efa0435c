//! One invocation: its events in, an answer for each message out.

use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use gantry::disposition::chain;
use gantry::event;
use gantry::receipt::Attempt;
use lambda_runtime::Diagnostic;
use serde_json::Value;
use tokio::time::Instant;

use crate::{Handler, Message};

/// A handler, with the queue that feeds it.
#[derive(Debug)]
pub(crate) struct Answerer<H> {
    pub(crate) handler: H,
    pub(crate) queue: Option<Queue>,
    pub(crate) max_receives: u32,
}

/// The queue that feeds the function, for giving messages back sooner than its visibility timeout.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) client: aws_sdk_sqs::Client,
    pub(crate) url: String,
}

impl<H: Handler> Answerer<H> {
    /// Answers a queue batch, or an event given bare. `deadline_ms` is when Lambda stops the function, in milliseconds
    /// since 1970.
    ///
    /// A batch is always answered message by message; only a bare event can fail the invocation.
    pub(crate) async fn answer(&self, payload: Value, deadline_ms: u64) -> Result<Value, Diagnostic> {
        let deadline = deadline(deadline_ms);
        if payload.pointer("/Records/0/eventSource").and_then(Value::as_str) == Some("aws:sqs") {
            let batch: SqsEvent =
                serde_json::from_value(payload).map_err(|error| diagnostic("MalformedBatch", chain(&error)))?;
            let answer = self.batch(batch, deadline).await;
            return serde_json::to_value(answer).map_err(|error| diagnostic("Answer", chain(&error)));
        }
        let bare = Message { event: Ok(payload), attempt: Attempt { n: 1, of: 1 } };
        match self.handler.handle(&[bare], deadline).await.into_iter().flatten().next() {
            Some(later) => Err(diagnostic(H::FAILURE, later.error)),
            None => Ok(Value::Null),
        }
    }

    async fn batch(&self, batch: SqsEvent, deadline: Instant) -> SqsBatchResponse {
        let messages: Vec<Message> = batch.records.iter().map(|message| self.read(message)).collect();
        let answers = self.handler.handle(&messages, deadline).await;
        let mut response = SqsBatchResponse::default();
        for (message, later) in batch.records.into_iter().zip(answers) {
            if let Some(later) = later {
                self.give_back(&message, later.after, deadline).await;
                // Lambda reads an empty identifier as "the whole batch failed", which is the safe side.
                response.add_failure(message.message_id.unwrap_or_default());
            }
        }
        response
    }

    fn read(&self, message: &SqsMessage) -> Message {
        let receives = message.attributes.get("ApproximateReceiveCount").and_then(|count| count.parse().ok());
        let attempt = Attempt { n: receives.unwrap_or(1), of: self.max_receives };
        Message { event: event::json(message.body.as_deref().unwrap_or_default()), attempt }
    }

    /// Makes the message visible again after a backoff; otherwise SQS would sit on it for the whole visibility
    /// timeout. Best effort, in half of the time that is left: without it the message still comes back.
    async fn give_back(&self, message: &SqsMessage, after: Duration, deadline: Instant) {
        let (Some(queue), Some(handle)) = (&self.queue, &message.receipt_handle) else { return };
        let seconds = i32::try_from(after.as_secs()).unwrap_or(i32::MAX);
        let change = queue.client.change_message_visibility().queue_url(&queue.url).receipt_handle(handle);
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match tokio::time::timeout(left / 2, change.visibility_timeout(seconds).send()).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => chain(&error),
            Err(slow) => slow.to_string(),
        };
        tracing::warn!(error, "the message keeps its visibility timeout");
    }
}

/// An error with a stable name, for alarms; the runtime logs it.
fn diagnostic(error_type: &str, error_message: String) -> Diagnostic {
    Diagnostic { error_type: error_type.to_owned(), error_message }
}

/// When Lambda stops the function, on the clock that timers use.
#[expect(clippy::disallowed_methods, reason = "the runtime gives the deadline as wall-clock time")]
fn deadline(deadline_ms: u64) -> Instant {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Instant::now() + Duration::from_millis(deadline_ms).saturating_sub(since_epoch)
}
