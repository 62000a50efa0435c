//! One message: what SNS takes, and what is kept of it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::SnsError;

/// The most bytes of a message with its attributes: 256 KiB (SNS API reference, `Publish`).
const MAX_BYTES: usize = 262_144;

/// A subject has fewer characters than this.
const SUBJECT_CHARS: usize = 100;

/// The longest name of a message attribute, in characters.
const MAX_NAME_CHARS: usize = 256;

/// What is asked to be published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Publication {
    /// The subject, which e-mail has.
    pub subject: Option<String>,
    /// The message, or with the structure `json` one message per protocol.
    pub message: String,
    /// `json` or nothing.
    pub structure: Option<String>,
    /// The message attributes, by which subscriptions filter.
    pub attributes: BTreeMap<String, Attribute>,
}

/// A message attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// `String`, `String.Array`, `Number` or `Binary`, or one of these with a suffix.
    pub data_type: String,
    /// The value; of a binary one the base64.
    pub value: String,
}

/// A published message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The message id.
    pub id: Uuid,
    /// When it was published.
    pub time: Timestamp,
    /// The topic's ARN.
    pub topic_arn: String,
    /// The subject.
    pub subject: Option<String>,
    /// The message as it was sent.
    pub message: String,
    /// `json` or nothing.
    pub structure: Option<String>,
    /// The message attributes.
    pub attributes: BTreeMap<String, Attribute>,
}

impl Notification {
    /// What a subscriber of `protocol` (`email`, `sqs`, `lambda`) is sent: of a message with the
    /// structure `json` its own text, or else the default.
    pub fn text_for(&self, protocol: &str) -> String {
        if self.structure.as_deref() != Some("json") {
            return self.message.clone();
        }
        let texts: Value = serde_json::from_str(&self.message).unwrap_or_default();
        let text = [protocol, "default"].into_iter().find_map(|protocol| texts.get(protocol)?.as_str());
        text.unwrap_or_default().to_owned()
    }

    /// The attributes as a filter policy sees them: numbers as numbers, lists as lists.
    pub(super) fn attributes_json(&self) -> Value {
        let values = self.attributes.iter().filter_map(|(name, attribute)| {
            let value = match attribute.data_type.as_str() {
                "String.Array" => serde_json::from_str(&attribute.value).ok()?,
                kind if kind.starts_with("Number") => serde_json::from_str(&attribute.value).ok()?,
                kind if kind.starts_with("Binary") => return None,
                _ => Value::String(attribute.value.clone()),
            };
            Some((name.clone(), value))
        });
        Value::Object(values.collect::<Map<_, _>>())
    }
}

impl Publication {
    /// Refuses what SNS refuses (SNS API reference, `Publish` and `MessageAttributeValue`).
    pub(super) fn check(&self) -> Result<(), SnsError> {
        let invalid = |what: &str| Err(SnsError::Parameter(what.to_owned()));
        if self.subject.as_deref().is_some_and(|subject| !is_subject(subject)) {
            return invalid("Subject");
        }
        if self.message.is_empty() {
            return invalid("Empty message");
        }
        let attributes = self.attributes.iter();
        let attribute_bytes: usize =
            attributes.map(|(name, attribute)| name.len() + attribute.data_type.len() + attribute.value.len()).sum();
        if self.message.len() + attribute_bytes > MAX_BYTES {
            return invalid("Message too long");
        }
        match self.structure.as_deref() {
            None => {}
            Some("json") => match serde_json::from_str::<Value>(&self.message) {
                Err(_) => return invalid("Message Structure - JSON message body failed to parse"),
                Ok(texts) if !texts.get("default").is_some_and(Value::is_string) => {
                    return invalid("Message Structure - No default entry in JSON message body");
                }
                Ok(_) => {}
            },
            Some(_) => return invalid("MessageStructure"),
        }
        self.attributes.iter().try_for_each(|(name, attribute)| attribute.check(name))
    }
}

impl Attribute {
    fn check(&self, name: &str) -> Result<(), SnsError> {
        let refused = |reason| Err(SnsError::Attribute { name: name.to_owned(), reason });
        let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
        let lower = name.to_ascii_lowercase();
        if !(1..=MAX_NAME_CHARS).contains(&name.len())
            || !name.chars().all(plain)
            || name.starts_with('.')
            || name.ends_with('.')
            || name.contains("..")
            || lower.starts_with("aws.")
            || lower.starts_with("amazon.")
        {
            return refused("has an invalid name.");
        }
        if self.value.is_empty() {
            return refused("must contain non-empty message attribute value.");
        }
        let kind = self.data_type.split('.').next().unwrap_or_default();
        let fits = match kind {
            "String" if self.data_type == "String.Array" => {
                serde_json::from_str::<Value>(&self.value).is_ok_and(|value| value.is_array())
            }
            "String" => true,
            "Number" => self.value.parse::<f64>().is_ok(),
            "Binary" => STANDARD.decode(&self.value).is_ok(),
            _ => {
                return refused(
                    "has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String.",
                );
            }
        };
        if fits { Ok(()) } else { refused("has a value that its type does not have.") }
    }
}

/// ASCII, fewer than 100 characters, no control characters, not beginning with a blank.
fn is_subject(subject: &str) -> bool {
    (1..SUBJECT_CHARS).contains(&subject.chars().count())
        && subject.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && !subject.starts_with(' ')
}

/// The messages of a topic's file; none where there is no file.
pub(super) fn read(path: &Path) -> io::Result<Vec<Notification>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(subject: Option<&str>, message: &str, structure: Option<&str>) -> Result<(), String> {
        let publication = Publication {
            subject: subject.map(str::to_owned),
            message: message.to_owned(),
            structure: structure.map(str::to_owned),
            attributes: BTreeMap::new(),
        };
        publication.check().map_err(|error| error.to_string())
    }

    #[test]
    fn subjects_messages_and_structures() {
        let (long, longest) = ("s".repeat(100), "s".repeat(99));
        let (large, largest) = ("m".repeat(MAX_BYTES + 1), "m".repeat(MAX_BYTES));
        let subject = Err("Invalid parameter: Subject");
        let cases = [
            (Some("[held] team/app"), "m", None, Ok(())),
            (Some(longest.as_str()), "m", None, Ok(())),
            (Some(long.as_str()), "m", None, subject),
            (Some(""), "m", None, subject),
            (Some(" a"), "m", None, subject),
            (Some("a\nb"), "m", None, subject),
            (Some("gr\u{fc}n"), "m", None, subject),
            (None, "", None, Err("Invalid parameter: Empty message")),
            (None, largest.as_str(), None, Ok(())),
            (None, large.as_str(), None, Err("Invalid parameter: Message too long")),
            (None, r#"{"default":"d"}"#, Some("json"), Ok(())),
            (None, r#"{"default":"d"}"#, Some("xml"), Err("Invalid parameter: MessageStructure")),
            (None, "d", Some("json"), Err("Invalid parameter: Message Structure - JSON message body failed to parse")),
            (
                None,
                r#"{"default":1}"#,
                Some("json"),
                Err("Invalid parameter: Message Structure - No default entry in JSON message body"),
            ),
        ];
        for (subject, message, structure, want) in cases {
            let got = check(subject, message, structure);
            assert_eq!(got.as_ref().map_err(String::as_str), want.as_ref().map_err(|text| *text), "{subject:?}");
        }
    }

    #[test]
    fn attributes() {
        let cases = [
            ("state", "String", "held", true),
            ("a-b_c.d", "String.custom", "x", true),
            ("list", "String.Array", "[1]", true),
            ("list", "String.Array", "1", false),
            ("n", "Number", "-1.5", true),
            ("n", "Number", "one", false),
            ("b", "Binary", "AAA=", true),
            ("b", "Binary", "!", false),
            ("a", "Boolean", "true", false),
            ("a", "String", "", false),
            ("", "String", "x", false),
            (".a", "String", "x", false),
            ("a..b", "String", "x", false),
            ("AWS.a", "String", "x", false),
            ("a b", "String", "x", false),
        ];
        for (name, data_type, value, want) in cases {
            let attribute = Attribute { data_type: data_type.to_owned(), value: value.to_owned() };
            assert_eq!(attribute.check(name).is_ok(), want, "{name} {data_type} {value}");
        }
    }

    #[test]
    fn a_structured_message_has_a_text_per_protocol() {
        let mut notification = Notification {
            id: Uuid::nil(),
            time: Timestamp::UNIX_EPOCH,
            topic_arn: String::new(),
            subject: None,
            message: r#"{"default":"d","email":"e"}"#.to_owned(),
            structure: Some("json".to_owned()),
            attributes: BTreeMap::new(),
        };
        assert_eq!(notification.text_for("email"), "e");
        assert_eq!(notification.text_for("sqs"), "d");
        notification.structure = None;
        assert_eq!(notification.text_for("email"), notification.message);
    }
}
