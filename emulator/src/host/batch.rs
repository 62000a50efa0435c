//! A batch of messages: the event that Lambda makes of it, and what the answer does to it.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::{
    account,
    sqs::{Queues, Received},
    template::QueueSource,
};

/// The event for a function, as the Lambda developer guide shows it.
pub(super) fn event(queue_arn: &str, received: &[Received]) -> Value {
    let records: Vec<Value> = received
        .iter()
        .map(|received| {
            let message = &received.message;
            json!({
                "messageId": message.id,
                "receiptHandle": received.receipt,
                "body": message.body,
                "attributes": message.system_attributes(),
                "messageAttributes": attributes(&message.attributes),
                "md5OfBody": message.body_md5(),
                "eventSource": "aws:sqs",
                "eventSourceARN": queue_arn,
                "awsRegion": account::REGION,
            })
        })
        .collect();
    json!({ "Records": records })
}

/// In Lambda's event the attributes' keys begin with a small letter.
fn attributes(attributes: &Map<String, Value>) -> Value {
    let attributes: Map<String, Value> = attributes
        .iter()
        .map(|(name, attribute)| {
            let mut event = json!({
                "dataType": attribute.get("DataType"),
                "stringListValues": [],
                "binaryListValues": [],
            });
            for (from, to) in [("StringValue", "stringValue"), ("BinaryValue", "binaryValue")] {
                if let Some(value) = attribute.get(from) {
                    event[to] = value.clone();
                }
            }
            (name.clone(), event)
        })
        .collect();
    attributes.into()
}

/// Deletes what was done; the rest stays invisible until its visibility timeout ends.
///
/// `answer` is the function's, or `None` when it failed.
pub(super) fn settle(
    queues: &Queues,
    queue: &str,
    source: &QueueSource,
    received: &[Received],
    answer: Option<&Value>,
) {
    let ids: HashSet<String> = received.iter().map(|received| received.message.id.to_string()).collect();
    let failed = match answer {
        None => ids,
        Some(_) if !source.reports_failures => HashSet::new(),
        Some(answer) => failures(answer, &ids).unwrap_or_else(|| {
            tracing::warn!(
                sqs.queue = queue,
                "the answer is no list of batch item failures, so the whole batch has failed"
            );
            ids
        }),
    };
    for received in received {
        if failed.contains(&received.message.id.to_string()) {
            queues.release(queue, &received.receipt);
        } else if let Err(error) = queues.delete(queue, &received.receipt) {
            tracing::error!(sqs.queue = queue, %error, "a finished message could not be deleted");
        }
    }
}

/// The ids of the failed messages; `None` when the answer is malformed and all have failed.
///
/// The Lambda developer guide, "Implementing partial batch responses": a null or empty answer and a
/// null or empty list mean success; an empty or unknown id, or a wrong key, means that all failed.
fn failures(answer: &Value, ids: &HashSet<String>) -> Option<HashSet<String>> {
    let list = match answer {
        Value::Null => return Some(HashSet::new()),
        Value::Object(map) if map.is_empty() => return Some(HashSet::new()),
        answer => answer.get("batchItemFailures")?,
    };
    if list.is_null() {
        return Some(HashSet::new());
    }
    list.as_array()?
        .iter()
        .map(|failure| {
            let id = failure.get("itemIdentifier")?.as_str()?;
            ids.contains(id).then(|| id.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        sqs::{Ask, Extras, Waits},
        template,
    };

    fn source(reports_failures: bool) -> QueueSource {
        QueueSource {
            queue_arn: account::arn("sqs", "jobs"),
            batch_size: 10,
            batching_window: Duration::ZERO,
            maximum_concurrency: None,
            reports_failures,
        }
    }

    async fn check(reports: bool, answer: impl Fn(&str) -> Option<Value>) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let queue = template::Queue {
            name: "jobs".to_owned(),
            arn: account::arn("sqs", "jobs"),
            url: String::new(),
            visibility: Duration::from_secs(30),
            delay: Duration::ZERO,
            redrive: None,
            policy: Vec::new(),
        };
        let queues = Queues::open(folder.path().to_owned(), [queue], Waits::Real).unwrap();
        for body in ["a", "b"] {
            queues.send("jobs", body, Extras::default()).unwrap();
        }
        let ask = Ask { most: 10, visibility: None, wait: None };
        let received = queues.receive("jobs", ask).await.unwrap();
        let answer = answer(&received[1].message.id.to_string());
        settle(&queues, "jobs", &source(reports), &received, answer.as_ref());
        queues.messages("jobs").unwrap().into_iter().map(|message| message.body).collect()
    }

    #[tokio::test]
    async fn answers_delete_what_they_say_is_done() {
        type Answer = fn(&str) -> Option<Value>;
        let all: &[&str] = &["a", "b"];
        let cases: [(&str, bool, Answer, &[&str]); 11] = [
            ("empty list", true, |_| Some(json!({ "batchItemFailures": [] })), &[]),
            ("null list", true, |_| Some(json!({ "batchItemFailures": null })), &[]),
            ("null", true, |_| Some(Value::Null), &[]),
            ("empty answer", true, |_| Some(json!({})), &[]),
            ("one failed", true, |id| Some(json!({ "batchItemFailures": [{ "itemIdentifier": id }] })), &["b"]),
            ("not reported", false, |id| Some(json!({ "batchItemFailures": [{ "itemIdentifier": id }] })), &[]),
            ("the invocation failed", true, |_| None, all),
            ("empty id", true, |_| Some(json!({ "batchItemFailures": [{ "itemIdentifier": "" }] })), all),
            ("unknown id", true, |_| Some(json!({ "batchItemFailures": [{ "itemIdentifier": "x" }] })), all),
            ("wrong key", true, |_| Some(json!({ "failures": [] })), all),
            ("text", true, |_| Some(json!("ok")), all),
        ];
        for (label, reports, answer, want) in cases {
            assert_eq!(check(reports, answer).await, want, "{label}");
        }
    }
}
