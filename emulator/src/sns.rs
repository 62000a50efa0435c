//! SNS topics: what was published, kept for whoever asks, and the query protocol.
//!
//! Nothing is sent anywhere: a topic's messages are lines of JSON in `<topic>.jsonl`, and each is
//! also a record of the stack's log. A subscription is data, by which one can ask which messages it
//! would have got.

mod api;
mod error;
mod notification;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

pub use api::Sns;
pub(crate) use api::refuse;
pub use error::SnsError;
pub use notification::{Attribute, Notification, Publication};

use crate::{
    clock,
    events::{Pattern, PatternError},
    host::LogLine,
    template,
};

/// Why the topics could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// A folder or file could not be read or written.
    #[error("the topics' messages could not be read or written")]
    Io(#[from] io::Error),
    /// A subscription's filter policy cannot be used.
    #[error("the filter policy of the subscription {endpoint} of the topic {topic} cannot be used")]
    Filter {
        /// The topic's name.
        topic: String,
        /// The subscription's endpoint.
        endpoint: String,
        /// What is wrong with it.
        source: PatternError,
    },
}

/// The topics of the stack.
#[derive(Debug)]
pub struct Topics {
    root: PathBuf,
    slots: BTreeMap<String, Slot>,
    published: Mutex<BTreeMap<String, Vec<Notification>>>,
    log: broadcast::Sender<LogLine>,
    /// Counts messages, so that whoever waits for one looks again.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Slot {
    logical_id: String,
    arn: String,
    subscriptions: Vec<(template::Subscription, Option<Pattern>)>,
}

impl Topics {
    /// Opens the topics that `settings` describe by logical id, with the messages kept below `root`.
    ///
    /// # Errors
    ///
    /// [`TopicsError`].
    pub fn open(
        root: PathBuf,
        settings: &BTreeMap<String, template::Topic>,
        log: broadcast::Sender<LogLine>,
    ) -> Result<Self, TopicsError> {
        fs::create_dir_all(&root)?;
        let mut slots = BTreeMap::new();
        let mut published = BTreeMap::new();
        for (logical_id, topic) in settings {
            let subscriptions = topic
                .subscriptions
                .iter()
                .map(|subscription| {
                    let pattern = subscription.filter.as_ref().map(Pattern::parse).transpose();
                    let pattern = pattern.map_err(|source| TopicsError::Filter {
                        topic: topic.name.clone(),
                        endpoint: subscription.endpoint.clone(),
                        source,
                    })?;
                    Ok((subscription.clone(), pattern))
                })
                .collect::<Result<_, TopicsError>>()?;
            published.insert(topic.name.clone(), notification::read(&root.join(file(&topic.name)))?);
            let slot = Slot { logical_id: logical_id.clone(), arn: topic.arn.clone(), subscriptions };
            slots.insert(topic.name.clone(), slot);
        }
        Ok(Self { root, slots, published: Mutex::new(published), log, changes: watch::Sender::new(0) })
    }

    /// Publishes a message; on `Ok` it is on disk.
    ///
    /// # Errors
    ///
    /// [`SnsError::NotFound`], [`SnsError::Parameter`] and [`SnsError::Attribute`] for what SNS
    /// refuses, [`SnsError::Disk`].
    pub fn publish(&self, topic: &str, publication: Publication) -> Result<Notification, SnsError> {
        let (name, slot) = self.slot(topic)?;
        publication.check()?;
        let notification = Notification {
            id: Uuid::new_v4(),
            time: clock::now(),
            topic_arn: slot.arn.clone(),
            subject: publication.subject,
            message: publication.message,
            structure: publication.structure,
            attributes: publication.attributes,
        };
        let line = serde_json::to_string(&notification).map_err(io::Error::from)?;
        let mut published = self.lock();
        let mut kept = OpenOptions::new().create(true).append(true).open(self.root.join(file(name)))?;
        kept.write_all(format!("{line}\n").as_bytes())?;
        published.entry(name.clone()).or_default().push(notification.clone());
        drop(published);
        // Nobody may be listening.
        let _told = self.log.send(LogLine {
            function: slot.logical_id.clone(),
            request_id: None,
            time: notification.time,
            text: json!({ "time": notification.time, "type": "sns.publish", "record": notification }).to_string(),
        });
        self.changes.send_modify(|changes| *changes += 1);
        Ok(notification)
    }

    /// What machines got of all topics, oldest first, one line for each message that is JSON.
    pub fn machine_texts(&self) -> String {
        let published = self.lock();
        let mut all: Vec<&Notification> = published.values().flatten().collect();
        all.sort_by_key(|notification| notification.time);
        let texts = all.iter().filter_map(|one| serde_json::from_str::<Value>(&one.text_for("sqs")).ok());
        texts.flat_map(|text| [text.to_string(), "\n".to_owned()]).collect()
    }

    /// Everything that was published to the topic with this name or ARN, oldest first.
    ///
    /// # Errors
    ///
    /// [`SnsError::NotFound`].
    pub fn messages(&self, topic: &str) -> Result<Vec<Notification>, SnsError> {
        let (name, _) = self.slot(topic)?;
        Ok(self.lock().get(name).cloned().unwrap_or_default())
    }

    /// What the topic's subscription of `endpoint` would have got, by its filter policy.
    ///
    /// # Errors
    ///
    /// [`SnsError::NotFound`] for an unknown topic or subscription.
    pub fn received(&self, topic: &str, endpoint: &str) -> Result<Vec<Notification>, SnsError> {
        let (_, slot) = self.slot(topic)?;
        let (subscription, pattern) = slot
            .subscriptions
            .iter()
            .find(|(subscription, _)| subscription.endpoint == endpoint)
            .ok_or(SnsError::NotFound { what: "Subscription" })?;
        let mut messages = self.messages(topic)?;
        if let Some(pattern) = pattern {
            messages.retain(|message| match subscription.filter_scope {
                template::FilterScope::Attributes => pattern.matches(&message.attributes_json()),
                template::FilterScope::Body => {
                    serde_json::from_str(&message.message).is_ok_and(|body| pattern.matches(&body))
                }
            });
        }
        Ok(messages)
    }

    /// Waits until the topic has at least `count` messages, and returns all.
    ///
    /// # Errors
    ///
    /// [`SnsError::NotFound`].
    pub async fn wait_for(&self, topic: &str, count: usize) -> Result<Vec<Notification>, SnsError> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let messages = self.messages(topic)?;
            if messages.len() >= count {
                return Ok(messages);
            }
            // The sender lives as long as `self`.
            let _changed = changes.changed().await;
        }
    }

    fn slot(&self, topic: &str) -> Result<(&String, &Slot), SnsError> {
        self.slots
            .iter()
            .find(|(name, slot)| *name == topic || slot.arn == topic)
            .ok_or(SnsError::NotFound { what: "Topic" })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Notification>>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file(topic: &str) -> String {
    format!("{topic}.jsonl")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::{account, template::FilterScope};

    /// The topic `told` with a subscription for everything, and one for what is held.
    pub(crate) fn topics(folder: &Path) -> (Topics, broadcast::Receiver<LogLine>) {
        let subscription = |endpoint: &str, filter: Option<Value>, filter_scope| template::Subscription {
            protocol: "email".to_owned(),
            endpoint: endpoint.to_owned(),
            filter,
            filter_scope,
        };
        let topic = template::Topic {
            name: "told".to_owned(),
            arn: account::arn("sns", "told"),
            subscriptions: vec![
                subscription("all@example.com", None, FilterScope::Attributes),
                subscription(
                    "held@example.com",
                    Some(json!({ "state": ["held", { "prefix": "fail" }], "severity": [{ "anything-but": "LOW" }] })),
                    FilterScope::Attributes,
                ),
                subscription("body@example.com", Some(json!({ "state": ["held"] })), FilterScope::Body),
            ],
        };
        let (log, lines) = broadcast::channel(16);
        let settings = BTreeMap::from([("Told".to_owned(), topic)]);
        (Topics::open(folder.to_owned(), &settings, log).unwrap(), lines)
    }

    fn publication(message: &str, attributes: &[(&str, &str, &str)]) -> Publication {
        Publication {
            message: message.to_owned(),
            attributes: attributes
                .iter()
                .map(|(name, data_type, value)| {
                    let attribute = Attribute { data_type: (*data_type).to_owned(), value: (*value).to_owned() };
                    ((*name).to_owned(), attribute)
                })
                .collect(),
            ..Publication::default()
        }
    }

    #[tokio::test]
    async fn messages_are_kept_told_and_filtered() {
        let folder = tempfile::tempdir().unwrap();
        let (topics, mut lines) = topics(folder.path());
        let cases = [
            ("a", &[][..]),
            ("b", &[("state", "String", "held"), ("severity", "String", "CRITICAL")]),
            ("c", &[("state", "String", "held"), ("severity", "String", "LOW")]),
            ("d", &[("state", "String", "failed"), ("severity", "String.Array", r#"["LOW","HIGH"]"#)]),
            ("e", &[("state", "String", "held")]),
            (r#"{"state":"held"}"#, &[("severity", "Number", "7")]),
        ];
        for (message, attributes) in cases {
            topics.publish(&account::arn("sns", "told"), publication(message, attributes)).unwrap();
        }
        let got = |endpoint: &str| -> Vec<String> {
            topics.received("told", endpoint).unwrap().into_iter().map(|message| message.message).collect()
        };
        assert_eq!(got("all@example.com").len(), cases.len());
        assert_eq!(got("held@example.com"), ["b", "d"]);
        assert_eq!(got("body@example.com"), [r#"{"state":"held"}"#]);
        let line = lines.try_recv().unwrap();
        let record: Value = serde_json::from_str(&line.text).unwrap();
        assert_eq!((line.function.as_str(), &record["record"]["message"]), ("Told", &json!("a")));
        let again = self::topics(folder.path()).0;
        assert_eq!(again.messages("told").unwrap(), topics.wait_for("told", cases.len()).await.unwrap());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (topics, _) = topics(folder.path());
        let error = topics.publish("other", publication("a", &[])).unwrap_err();
        assert_eq!(error.to_string(), "Topic does not exist");
        let error = topics.received("told", "nobody").unwrap_err();
        assert_eq!(error.to_string(), "Subscription does not exist");
        let topic = template::Topic {
            name: "t".to_owned(),
            arn: String::new(),
            subscriptions: vec![template::Subscription {
                protocol: "sqs".to_owned(),
                endpoint: "q".to_owned(),
                filter: Some(json!({ "state": "held" })),
                filter_scope: FilterScope::Attributes,
            }],
        };
        let (log, _) = broadcast::channel(1);
        let settings = BTreeMap::from([("T".to_owned(), topic)]);
        let error = Topics::open(folder.path().to_owned(), &settings, log).unwrap_err();
        assert_eq!(error.to_string(), "the filter policy of the subscription q of the topic t cannot be used");
    }
}
