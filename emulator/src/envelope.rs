//! The envelope around every event that an AWS service puts on the bus.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{account, clock};

/// A new event of `source` (such as `aws.s3`), as EventBridge hands it to its rules.
///
/// The fields are those of the EventBridge event structure reference; `time` has whole seconds.
pub(crate) fn envelope(source: &str, detail_type: &str, resources: &[String], detail: &Value) -> Value {
    json!({
        "version": "0",
        "id": Uuid::new_v4().to_string(),
        "detail-type": detail_type,
        "source": source,
        "account": account::ID,
        "time": clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "region": account::REGION,
        "resources": resources,
        "detail": detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_fields_of_the_reference() {
        let event = envelope("aws.s3", "Object Created", &[], &json!({"version": "0"}));
        let mut fields: Vec<&String> = event.as_object().unwrap().keys().collect();
        fields.sort();
        assert_eq!(
            fields,
            ["account", "detail", "detail-type", "id", "region", "resources", "source", "time", "version"]
        );
        let time = event["time"].as_str().unwrap();
        assert_eq!(time.len(), 20, "{time}");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
}
