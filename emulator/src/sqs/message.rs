//! One message, as it is kept on disk, and its checksums.

use jiff::Timestamp;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::account;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its id, which stays when it moves to a dead-letter queue.
    pub id: Uuid,
    /// Its place in the order of sending, over all queues.
    pub(super) sequence: u64,
    /// Its body.
    pub body: String,
    /// Its attributes as the JSON protocol has them.
    pub attributes: Map<String, Value>,
    /// The sender's trace header.
    pub trace_header: Option<String>,
    /// When it was sent.
    pub sent: Timestamp,
    /// When it was received for the first time.
    pub first_received: Option<Timestamp>,
    /// How often it was received.
    pub receives: u32,
    /// The ARN of the queue whose redrive policy sent it here.
    pub dead_letter_source: Option<String>,
}

impl Message {
    /// The body's MD5 in hexadecimal, which SDKs check.
    pub fn body_md5(&self) -> String {
        hex::encode(Md5::digest(&self.body))
    }

    /// The attributes' MD5 in hexadecimal, which SDKs check; `None` without attributes.
    ///
    /// The SQS developer guide, "Calculating the MD5 message digest for message attributes":
    /// by name, each name, type and value with its length in four bytes, a byte for the value's
    /// transport (1 text, 2 binary) between.
    pub fn attributes_md5(&self) -> Option<String> {
        if self.attributes.is_empty() {
            return None;
        }
        let mut names: Vec<&String> = self.attributes.keys().collect();
        names.sort();
        let mut md5 = Md5::new();
        for name in names {
            let attribute = &self.attributes[name];
            let (transport, value) = value(attribute);
            absorb(&mut md5, name.as_bytes());
            absorb(&mut md5, data_type(attribute).as_bytes());
            md5.update([transport]);
            absorb(&mut md5, &value);
        }
        Some(hex::encode(md5.finalize()))
    }

    /// The system attributes that `ReceiveMessage` and Lambda's event give.
    pub fn system_attributes(&self) -> Map<String, Value> {
        let mut attributes = Map::from_iter([
            ("ApproximateReceiveCount".to_owned(), json!(self.receives.to_string())),
            ("SentTimestamp".to_owned(), json!(self.sent.as_millisecond().to_string())),
            ("SenderId".to_owned(), json!(account::ID)),
        ]);
        if let Some(first) = self.first_received {
            attributes.insert("ApproximateFirstReceiveTimestamp".to_owned(), json!(first.as_millisecond().to_string()));
        }
        if let Some(header) = &self.trace_header {
            attributes.insert("AWSTraceHeader".to_owned(), json!(header));
        }
        if let Some(source) = &self.dead_letter_source {
            attributes.insert("DeadLetterQueueSourceArn".to_owned(), json!(source));
        }
        attributes
    }
}

/// How many bytes attributes count towards a message's size: names, types and values.
pub(super) fn attribute_bytes(attributes: &Map<String, Value>) -> usize {
    attributes.iter().map(|(name, attribute)| name.len() + data_type(attribute).len() + value(attribute).1.len()).sum()
}

fn data_type(attribute: &Value) -> &str {
    attribute.get("DataType").and_then(Value::as_str).unwrap_or_default()
}

fn value(attribute: &Value) -> (u8, Vec<u8>) {
    use base64::{Engine, engine::general_purpose::STANDARD};

    let get = |name: &str| attribute.get(name).and_then(Value::as_str);
    match get("BinaryValue") {
        Some(encoded) => (2, STANDARD.decode(encoded).unwrap_or_default()),
        None => (1, get("StringValue").unwrap_or_default().as_bytes().to_vec()),
    }
}

fn absorb(md5: &mut Md5, bytes: &[u8]) {
    // A message is at most 1 MiB, so a length always fits.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    md5.update(length.to_be_bytes());
    md5.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: &Value) -> Message {
        Message {
            id: Uuid::nil(),
            sequence: 1,
            body: "hello".to_owned(),
            attributes: attributes.as_object().unwrap().clone(),
            trace_header: None,
            sent: Timestamp::UNIX_EPOCH,
            first_received: None,
            receives: 2,
            dead_letter_source: None,
        }
    }

    #[test]
    fn checksums_are_those_that_sdks_expect() {
        let plain = message(&json!({}));
        assert_eq!(plain.body_md5(), "5d41402abc4b2a76b9719d911017c592");
        assert_eq!(plain.attributes_md5(), None);
        // Computed with Python's hashlib over the layout of the developer guide.
        let attributed = message(&json!({
            "b": { "DataType": "Binary", "BinaryValue": "AAE=" },
            "a": { "DataType": "String", "StringValue": "x" },
        }));
        assert_eq!(attributed.attributes_md5().as_deref(), Some("fa20e2def088daf7b14bc51e836c5547"));
        assert_eq!(attribute_bytes(&attributed.attributes), 1 + 6 + 2 + 1 + 6 + 1);
    }

    #[test]
    fn system_attributes_are_strings() {
        let attributes = message(&json!({})).system_attributes();
        assert_eq!(attributes["ApproximateReceiveCount"], "2");
        assert_eq!(attributes["SentTimestamp"], "0");
        assert!(!attributes.contains_key("DeadLetterQueueSourceArn"));
    }
}
