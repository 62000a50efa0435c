//! Objects that were created in a bucket.
//!
//! EventBridge's `Object Created` carries the key verbatim; S3's own notification records carry it
//! form-encoded (`+` is a space). The decoder therefore belongs to the event's shape.

use serde::Deserialize;
use serde_json::Value;

use super::{Event, EventError, detail, kind_of, other};

/// One object that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectCreated {
    /// The bucket.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// The version, on a versioned bucket.
    pub version_id: Option<String>,
    /// The entity tag without quotes.
    pub etag: Option<String>,
    /// Orders the versions of one key: hexadecimal, compared after padding on the left.
    pub sequencer: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct BusObject {
    key: String,
    etag: Option<String>,
    version_id: Option<String>,
    sequencer: Option<String>,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct BusDetail {
    bucket: Bucket,
    object: BusObject,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordObject {
    key: String,
    e_tag: Option<String>,
    version_id: Option<String>,
    sequencer: Option<String>,
}

#[derive(Deserialize)]
struct RecordEntity {
    bucket: Bucket,
    object: RecordObject,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    #[serde(default)]
    event_name: String,
    s3: RecordEntity,
}

/// Reads an EventBridge event or a set of S3 notification records; S3's records may name several objects.
///
/// # Errors
///
/// [`EventError`]; all of them permanent.
pub fn parse(event: Value) -> Result<Event<Vec<ObjectCreated>>, EventError> {
    if kind_of(&event) == Some(("aws.s3", "Object Created")) {
        return from_bus(&event);
    }
    match event.pointer("/Records/0/eventSource").and_then(Value::as_str) {
        Some("aws:s3") => from_records(event),
        _ => Ok(other(&event)),
    }
}

fn from_bus(event: &Value) -> Result<Event<Vec<ObjectCreated>>, EventError> {
    let detail: BusDetail = detail(event, "Object Created")?;
    Ok(Event::Known(vec![ObjectCreated {
        bucket: detail.bucket.name,
        key: detail.object.key,
        version_id: version(detail.object.version_id),
        etag: detail.object.etag.as_deref().map(unquoted),
        sequencer: detail.object.sequencer,
    }]))
}

fn from_records(mut event: Value) -> Result<Event<Vec<ObjectCreated>>, EventError> {
    let malformed = |source| EventError::Malformed { kind: "S3 notification records", source };
    let records = event.get_mut("Records").map(Value::take).unwrap_or_default();
    let records: Vec<Record> = serde_json::from_value(records).map_err(malformed)?;
    let names: Vec<String> = records.iter().map(|record| record.event_name.clone()).collect();
    let created: Vec<ObjectCreated> = records
        .into_iter()
        .filter(|record| record.event_name.starts_with("ObjectCreated:"))
        .map(|Record { s3, .. }| ObjectCreated {
            bucket: s3.bucket.name,
            key: form_decoded(&s3.object.key),
            version_id: version(s3.object.version_id),
            etag: s3.object.e_tag.as_deref().map(unquoted),
            sequencer: s3.object.sequencer,
        })
        .collect();
    if created.is_empty() { Ok(Event::Other(format!("S3 records of {names:?}"))) } else { Ok(Event::Known(created)) }
}

/// `null` is what S3 calls the version of an object put before versioning was switched on.
fn version(version_id: Option<String>) -> Option<String> {
    version_id.filter(|version| !version.is_empty() && version != "null")
}

fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

/// Undoes `application/x-www-form-urlencoded`: `+` is a space, then percent escapes.
fn form_decoded(key: &str) -> String {
    // A key has no `=` or `&` left unescaped, so the whole of it is the name of one pair.
    form_urlencoded::parse(key.as_bytes()).map(|(name, _)| name.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(name: &str, key: &str) -> Value {
        json!({"eventSource": "aws:s3", "eventName": name,
            "s3": {"bucket": {"name": "uploads"}, "object": {"key": key, "eTag": "\"ab\"", "versionId": null}}})
    }

    #[test]
    fn keys_are_decoded_as_their_shape_wants() {
        let bus = json!({"source": "aws.s3", "detail-type": "Object Created",
            "detail": {"bucket": {"name": "uploads"}, "object": {"key": "a+b%20c é.tar", "version-id": "v1"}}});
        let Event::Known(created) = parse(bus).unwrap() else { panic!("not understood") };
        assert_eq!((created[0].key.as_str(), created[0].version_id.as_deref()), ("a+b%20c é.tar", Some("v1")));
        for (encoded, key) in
            [("in/red+flower.tar", "in/red flower.tar"), ("a%2Bb.tar", "a+b.tar"), ("%C3%A9%3D%26.tar", "é=&.tar")]
        {
            let Event::Known(created) = parse(json!({"Records": [record("ObjectCreated:Put", encoded)]})).unwrap()
            else {
                panic!("not understood")
            };
            assert_eq!(created[0].key, key, "{encoded}");
            assert_eq!((created[0].etag.as_deref(), &created[0].version_id), (Some("ab"), &None));
        }
    }

    #[test]
    fn every_created_record_counts_and_no_other() {
        let records = json!({"Records": [record("ObjectCreated:Put", "a"), record("ObjectRemoved:Delete", "b"),
            record("ObjectCreated:CompleteMultipartUpload", "c")]});
        let Event::Known(created) = parse(records).unwrap() else { panic!("not understood") };
        assert_eq!(created.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn records_of_other_things_are_named() {
        let Event::Other(name) = parse(json!({"Records": [record("ObjectRemoved:Delete", "b")]})).unwrap() else {
            panic!("it was taken")
        };
        assert_eq!(name, r#"S3 records of ["ObjectRemoved:Delete"]"#);
    }

    #[test]
    fn an_event_that_lies_about_its_shape_is_an_error() {
        let event = json!({"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {}}});
        assert_eq!(parse(event).unwrap_err().to_string(), "the event is named Object Created but does not read as one");
    }
}
