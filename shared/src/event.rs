//! What woke us, as domain values.
//!
//! Each function understands events of its own: [`object`] for import, [`push`] for on-push, [`scan`] for on-scan.
//! Whatever else comes is named for the log and acknowledged, since the same bytes would come again.

pub mod object;
pub mod push;
pub mod scan;

mod image_name;

use serde_json::Value;

pub use object::ObjectCreated;

/// An event that parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<T> {
    /// One that the function is there for.
    Known(T),
    /// Something else, named for the log; it is acknowledged, since delivering it again could never help.
    Other(String),
}

/// An event of a known kind whose content makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// A field is missing or of another type.
    #[error("the event is named {kind} but does not read as one")]
    Malformed {
        /// What it says it is.
        kind: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A queue message whose body is no JSON.
    #[error("the message is no JSON")]
    NotJson(#[source] serde_json::Error),
}

/// Reads the body of a queue message.
///
/// # Errors
///
/// [`EventError::NotJson`], permanent.
pub fn json(body: &str) -> Result<Value, EventError> {
    serde_json::from_str(body).map_err(EventError::NotJson)
}

/// `source` and `detail-type` of an event that came over the bus.
fn kind_of(event: &Value) -> Option<(&str, &str)> {
    let text = |field: &str| event.get(field).and_then(Value::as_str);
    Some((text("source").unwrap_or_default(), text("detail-type")?))
}

/// The event's `detail` as a `T`.
fn detail<T: serde::de::DeserializeOwned>(event: &Value, kind: &'static str) -> Result<T, EventError> {
    let detail = event.get("detail").cloned().unwrap_or(Value::Null);
    serde_json::from_value(detail).map_err(|source| EventError::Malformed { kind, source })
}

/// Names an event that the function is not there for.
fn other<T>(event: &Value) -> Event<T> {
    if let Some((source, detail_type)) = kind_of(event) {
        return Event::Other(format!("{detail_type:?} from {source:?}"));
    }
    if event.get("Event").and_then(Value::as_str) == Some("s3:TestEvent") {
        return Event::Other("the test message S3 sends when notifications are configured".to_owned());
    }
    // SNS alone spells it with a capital.
    let first = event.pointer("/Records/0");
    let first_source = first.and_then(|record| record.get("eventSource").or_else(|| record.get("EventSource")));
    if let Some(source) = first_source.and_then(Value::as_str) {
        return Event::Other(format!("records from {source:?}"));
    }
    let mut fields: Vec<&str> =
        event.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default();
    fields.truncate(8);
    Event::Other(format!("a document with the fields {fields:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_shapes_are_named() {
        for (event, name) in [
            (json!({"source": "aws.ecr", "detail-type": "ECR Image Action"}), r#""ECR Image Action" from "aws.ecr""#),
            (json!({"Service": "Amazon S3", "Event": "s3:TestEvent"}), "the test message S3 sends"),
            (json!({"Records": [{"EventSource": "aws:sns"}]}), r#"records from "aws:sns""#),
            (json!({"hello": 1}), r#"a document with the fields ["hello"]"#),
            (json!([1]), "a document with the fields []"),
        ] {
            let Event::<()>::Other(found) = other(&event) else { panic!("{name} was taken") };
            assert!(found.contains(name), "{found}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_is_an_error() {
        assert_eq!(json("{").unwrap_err().to_string(), "the message is no JSON");
    }
}
