//! The table and the folder agree, and each sample is read as its row says.

use std::collections::BTreeSet;

use emulator::account;
use gantry::event::{self, Event, EventError, ObjectCreated, object};
use serde_json::Value;

use crate::rows::{Made, ROWS, Row, Shape};
use crate::sample;

#[test]
fn every_sample_has_a_row_and_every_row_a_sample() {
    let files: BTreeSet<String> = std::fs::read_dir(sample::FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let rows: BTreeSet<String> = ROWS.iter().map(|row| format!("{}.json", row.file)).collect();
    assert_eq!(files, rows);
    let uploads: Vec<&str> = ROWS.iter().flat_map(Row::uploads).map(|upload| upload.key).collect();
    let distinct: BTreeSet<&str> = uploads.iter().copied().collect();
    assert_eq!(distinct.len(), uploads.len(), "{uploads:?}");
}

#[test]
fn names_say_what_is_expected() {
    for Row { file, shape, made } in ROWS {
        let ignored = made.iter().all(|made| matches!(made, Made::Ignored(_) | Made::NoUpload(_)));
        let unreadable = made.iter().any(|made| matches!(made, Made::Unreadable(_)));
        assert_eq!(file.ends_with("-ignored"), ignored, "{file}");
        assert_eq!(file.ends_with("-refused") || file.ends_with("-malformed"), unreadable, "{file}");
        assert_eq!(file.starts_with("sqs-"), *shape == Shape::Batch, "{file}");
    }
}

#[test]
fn samples_are_read_as_their_rows_say() {
    for row in ROWS {
        let event = sample::read(row.file);
        match row.shape {
            Shape::Bare => {
                assert_eq!(row.made.len(), 1, "{}", row.file);
                check(row.file, &row.made[0], object::parse(event));
            }
            Shape::Batch => {
                let records = sample::records(&event);
                assert_eq!(records.len(), row.made.len(), "{}", row.file);
                for (record, made) in records.iter().zip(row.made) {
                    check(row.file, made, event::json(record["body"].as_str().unwrap()).and_then(object::parse));
                }
            }
        }
    }
}

fn check(file: &str, made: &Made, found: Result<Event<Vec<ObjectCreated>>, EventError>) {
    match (made, found) {
        (Made::Uploads(uploads), Ok(Event::Known(created))) => {
            assert_eq!(created.len(), uploads.len(), "{file}");
            for (upload, created) in uploads.iter().zip(created) {
                assert_eq!((created.bucket.as_str(), created.key.as_str()), ("uploads", upload.key), "{file}");
                assert_eq!(created.version_id.as_deref(), upload.version, "{file}");
                let etag = created.etag.unwrap_or_default();
                assert!(!etag.is_empty() && !etag.contains('"'), "{file}: {etag}");
                assert!(created.sequencer.is_some(), "{file}");
            }
        }
        (Made::NoUpload(key), Ok(Event::Known(created))) => {
            assert_eq!(created.iter().map(|created| created.key.as_str()).collect::<Vec<_>>(), [*key], "{file}");
        }
        (Made::Ignored(name), Ok(Event::Other(found))) => assert_eq!(found, *name, "{file}"),
        (Made::Unreadable(text), Err(error)) => assert_eq!(error.to_string(), *text, "{file}"),
        // Of different kinds, so they differ.
        (made, found) => assert_eq!(format!("{found:?}"), format!("{made:?}"), "{file}"),
    }
}

#[test]
fn samples_are_of_one_account_and_carry_true_sums() {
    for row in ROWS {
        let event = sample::read(row.file);
        strings(&event, &mut |text| {
            if let Some(arn) = text.strip_prefix("arn:aws:") {
                let account = arn.split(':').nth(2).unwrap_or_default();
                assert!(account.is_empty() || account == account::ID, "{}: {text}", row.file);
            }
        });
        if let Some(account) = event.get("account") {
            assert_eq!(account, account::ID, "{}", row.file);
        }
        for record in sample::records(&event) {
            if let Some(body) = record["body"].as_str() {
                assert_eq!(record["md5OfBody"], sample::md5(body), "{}", row.file);
            }
        }
    }
}

fn strings(value: &Value, look: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => look(text),
        Value::Array(list) => list.iter().for_each(|value| strings(value, look)),
        Value::Object(map) => map.values().for_each(|value| strings(value, look)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
