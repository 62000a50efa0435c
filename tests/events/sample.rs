//! Reading a sample, and pointing it at objects that exist.

use std::path::Path;

use md5::{Digest as _, Md5};
use serde_json::Value;

/// Where the samples are.
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../events/in");

/// The sample in `FOLDER/<file>.json`.
pub(crate) fn read(file: &str) -> Value {
    let path = Path::new(FOLDER).join(format!("{file}.json"));
    let bytes = std::fs::read(&path).expect("the sample is there");
    serde_json::from_slice(&bytes).expect("a sample is JSON")
}

/// The members of `Records`.
pub(crate) fn records(event: &Value) -> &[Value] {
    event["Records"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What SQS gives beside a message's body.
pub(crate) fn md5(body: &str) -> String {
    hex::encode(Md5::digest(body))
}

/// Makes the objects of `event` those of `uploads`, in their order: the version, where the event gives one, the
/// entity tag and the sequencer. Each upload is what a receipt says of it.
pub(crate) fn aim(event: &mut Value, uploads: &mut dyn Iterator<Item = &Value>) {
    if event.get("detail").is_some() {
        point(&mut event["detail"]["object"], ["version-id", "etag", "sequencer"], uploads);
        return;
    }
    let Some(records) = event["Records"].as_array_mut() else { return };
    for record in records {
        match record["eventSource"].as_str() {
            Some("aws:s3") => point(&mut record["s3"]["object"], ["versionId", "eTag", "sequencer"], uploads),
            Some("aws:sqs") => {
                let body = record["body"].as_str().expect("a body");
                let Ok(mut inner) = serde_json::from_str::<Value>(body) else { continue };
                aim(&mut inner, uploads);
                let body = inner.to_string();
                record["md5OfBody"] = md5(&body).into();
                record["body"] = body.into();
            }
            _ => {}
        }
    }
}

/// `event` about the image `to` instead of `from`.
pub(crate) fn with_digest(event: &Value, from: &str, to: &str) -> Value {
    let mut event: Value = serde_json::from_str(&event.to_string().replace(from, to)).expect("it stays JSON");
    for record in event["Records"].as_array_mut().into_iter().flatten() {
        if let Some(body) = record["body"].as_str() {
            record["md5OfBody"] = md5(body).into();
        }
    }
    event
}

fn point(object: &mut Value, [version, etag, sequencer]: [&str; 3], uploads: &mut dyn Iterator<Item = &Value>) {
    let upload = uploads.next().expect("an upload for each object");
    for (field, value) in [(version, "version_id"), (etag, "etag"), (sequencer, "sequencer")] {
        if object.get(field).is_some_and(Value::is_string) {
            assert!(upload[value].is_string(), "{value} of {upload}");
            object[field] = upload[value].clone();
        }
    }
}
