//! The queue that import is fed from: what may be in it, and sending an upload round again.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Known;
use crate::aws::CallError;
use crate::limits;
use crate::receipt::UploadId;

/// Import's queue.
#[derive(Debug, Clone)]
pub struct ImportQueue {
    client: Client,
    url: String,
}

/// Who sends an upload round again; the message says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Reconcile, for an upload that nothing was heard of.
    Reconcile,
    /// Somebody, by hand.
    Retry,
}

/// What a queue says of itself. The numbers are approximate: right within about a minute (SQS API reference,
/// `GetQueueAttributes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// Messages that wait for somebody to take them.
    pub waiting: u64,
    /// Messages that were taken, and neither deleted nor given back.
    pub in_flight: u64,
    /// How long a message that was taken stays out of sight.
    pub visibility: SignedDuration,
    /// How often a message is taken before it goes to the failed queue.
    pub max_receives: u32,
    /// How long a message is kept.
    pub retention: SignedDuration,
}

impl QueueState {
    /// Reads the attributes, as SQS names them. What is missing reads as the queue that is hardest to say anything of.
    fn read(attribute: impl Fn(QueueAttributeName) -> Option<String>) -> Self {
        let number = |name| attribute(name).and_then(|text| text.parse::<u64>().ok());
        let count = |name| number(name).unwrap_or(u64::MAX);
        let seconds = |name, longest: std::time::Duration| {
            let seconds = number(name).unwrap_or(longest.as_secs());
            SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
        };
        let redrive = attribute(QueueAttributeName::RedrivePolicy);
        let redrive = redrive.and_then(|policy| serde_json::from_str::<Value>(&policy).ok());
        // SQS writes the number as a number or as a text, as whoever set it did.
        let max_receives = redrive.as_ref().and_then(|policy| {
            let most = &policy["maxReceiveCount"];
            most.as_u64().or_else(|| most.as_str()?.parse().ok())
        });
        Self {
            waiting: count(QueueAttributeName::ApproximateNumberOfMessages)
                .saturating_add(count(QueueAttributeName::ApproximateNumberOfMessagesDelayed)),
            in_flight: count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
            visibility: seconds(QueueAttributeName::VisibilityTimeout, limits::VISIBILITY_LONGEST),
            max_receives: max_receives.and_then(|most| u32::try_from(most).ok()).unwrap_or(u32::MAX),
            retention: seconds(QueueAttributeName::MessageRetentionPeriod, limits::RETENTION_LONGEST),
        }
    }

    /// How long an upload may be silent whose delivery has begun: its message comes back at the latest when its
    /// visibility ends, and the next delivery says so in the receipt.
    pub fn longest_silence(&self) -> SignedDuration {
        self.visibility.saturating_add(SignedDuration::try_from(limits::UNSEEN).unwrap_or(SignedDuration::MAX))
    }

    /// Whether the queue may hold the message of an upload of which nothing was heard for `silent`, and that is not in
    /// the failed queue. `running` uploads have a receipt that says their message is in flight.
    ///
    /// No message is kept longer than the retention. One that waits may be any upload's. One that is in flight is
    /// some upload's whose receipt says so, unless receipts cannot be written; then it is in the failed queue once every
    /// delivery has had its time.
    pub fn may_hold(&self, silent: SignedDuration, running: u64) -> bool {
        if silent > self.retention {
            return false;
        }
        let receives = i32::try_from(self.max_receives).unwrap_or(i32::MAX);
        let all_deliveries = self.visibility.checked_mul(receives).unwrap_or(SignedDuration::MAX);
        self.waiting > 0 || (self.in_flight > running && silent <= all_deliveries)
    }
}

impl ImportQueue {
    /// The queue at `url`.
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self { client, url: url.into() }
    }

    /// What is in it. One request.
    ///
    /// # Errors
    ///
    /// [`CallError`], transient.
    pub async fn state(&self) -> Result<QueueState, CallError> {
        let asked = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(QueueAttributeName::All);
        let answer = asked.send().await.map_err(|error| CallError::new("sqs:GetQueueAttributes", &self.url, error))?;
        Ok(QueueState::read(|name| answer.attributes().and_then(|all| all.get(&name)).cloned()))
    }

    /// Sends `known` round again, as the event did when it was put. One request.
    ///
    /// # Errors
    ///
    /// [`CallError`], transient.
    pub async fn send(&self, known: &Known, why: Why, now: Timestamp) -> Result<(), CallError> {
        let body = message(&known.upload, known.size_bytes, why, now).to_string();
        let send = self.client.send_message().queue_url(&self.url).message_body(body).send().await;
        send.map_err(|error| CallError::new("sqs:SendMessage", &self.url, error))?;
        Ok(())
    }
}

/// EventBridge's `Object Created` (EventBridge user guide, "Amazon S3 Object Created event"), without what only S3
/// knows.
fn message(upload: &UploadId, size_bytes: u64, why: Why, now: Timestamp) -> Value {
    let mut object = json!({"key": upload.key, "size": size_bytes});
    let known = [("etag", &upload.etag), ("version-id", &upload.version_id), ("sequencer", &upload.sequencer)];
    for (name, value) in known {
        if let Some(value) = value {
            object[name] = json!(value);
        }
    }
    let reason = match why {
        Why::Reconcile => "gantry reconcile",
        Why::Retry => "gantry retry",
    };
    json!({
        "version": "0",
        "source": "aws.s3",
        "detail-type": "Object Created",
        "time": now,
        "detail": {"version": "0", "bucket": {"name": upload.bucket}, "object": object, "reason": reason},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, object};

    fn queue(waiting: u64, in_flight: u64) -> QueueState {
        QueueState::read(|name| {
            Some(match name {
                QueueAttributeName::ApproximateNumberOfMessages => waiting.to_string(),
                QueueAttributeName::ApproximateNumberOfMessagesNotVisible => in_flight.to_string(),
                QueueAttributeName::ApproximateNumberOfMessagesDelayed => "0".to_owned(),
                QueueAttributeName::VisibilityTimeout => "5400".to_owned(),
                QueueAttributeName::MessageRetentionPeriod => "1209600".to_owned(),
                QueueAttributeName::RedrivePolicy => r#"{"maxReceiveCount":"10"}"#.to_owned(),
                _ => return None,
            })
        })
    }

    #[test]
    fn a_message_may_be_in_the_queue_as_long_as_nothing_says_that_it_is_not() {
        for (waiting, in_flight, running, hours, may) in [
            (0, 0, 0, 1, false),
            // Somebody's message waits: it may be this one.
            (1, 0, 0, 1, true),
            (1, 0, 9, 300, true),
            // In flight, and a receipt says whose it is.
            (0, 2, 2, 1, false),
            (0, 2, 3, 1, false),
            // In flight, and no receipt says whose.
            (0, 2, 1, 1, true),
            (0, 2, 1, 14, true),
            // Ten deliveries of 90 minutes are over.
            (0, 2, 1, 16, false),
            // SQS keeps no message so long.
            (1, 2, 0, 337, false),
        ] {
            let found = queue(waiting, in_flight).may_hold(SignedDuration::from_hours(hours), running);
            assert_eq!(found, may, "{waiting} wait, {in_flight} in flight, {running} run, {hours} h");
        }
    }

    #[test]
    fn a_queue_that_says_nothing_may_hold_anything() {
        let queue = QueueState::read(|_| None);
        assert!(queue.may_hold(SignedDuration::from_hours(1), 9), "{queue:?}");
        assert!(!queue.may_hold(SignedDuration::from_hours(337), 9), "{queue:?}");
    }

    #[test]
    fn the_message_reads_as_the_event_does() {
        for version_id in [Some("v1".to_owned()), None] {
            let upload = UploadId {
                bucket: "uploads".into(),
                key: "team/Größe 1+1 100%20.tar".into(),
                version_id,
                etag: Some("ab".into()),
                sequencer: None,
            };
            let message = message(&upload, 5, Why::Retry, Timestamp::UNIX_EPOCH);
            let Event::Known(created) = object::parse(message).unwrap() else { panic!("not understood") };
            assert_eq!(created.iter().map(UploadId::from).collect::<Vec<_>>(), [upload]);
        }
    }
}
