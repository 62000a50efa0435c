//! The table and the folder agree, and each sample is read as its row says.

use std::collections::BTreeSet;
use std::fmt::Debug;

use emulator::account;
use gantry::event::push::ImagePushed;
use gantry::event::scan::ScanChanged;
use gantry::event::{self, Event, EventError, ObjectCreated, object, push, scan};
use serde_json::Value;

use crate::rows::{DIGEST, Function, Made, REPOSITORY, ROWS, Row, Shape};
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

/// The first word is the sender, or `sqs` for messages of a queue; the last one is what is expected.
#[test]
fn names_say_what_is_expected() {
    for Row { file, shape, made, .. } in ROWS {
        let ignored = made.iter().all(|made| matches!(made, Made::Ignored(_) | Made::NoUpload(_)));
        let unreadable = made.iter().any(|made| matches!(made, Made::Unreadable(_)));
        assert_eq!(file.ends_with("-ignored"), ignored, "{file}");
        assert_eq!(file.ends_with("-refused") || file.ends_with("-malformed"), unreadable, "{file}");
        let event = sample::read(file);
        let sender = match shape {
            Shape::Batch => "sqs".to_owned(),
            Shape::Bare => sender(&event),
        };
        assert_eq!(file.split('-').next(), Some(sender.as_str()), "{file}");
    }
}

fn sender(event: &Value) -> String {
    let record = event.pointer("/Records/0");
    let record = record.and_then(|record| record.get("eventSource").or_else(|| record.get("EventSource")));
    match (event["source"].as_str(), record.and_then(Value::as_str)) {
        (Some("aws.events"), _) => "scheduled".to_owned(),
        (Some(source), _) => source.trim_start_matches("aws.").to_owned(),
        (None, Some(record)) => record.trim_start_matches("aws:").to_owned(),
        (None, None) if event["Service"] == "Amazon S3" => "s3".to_owned(),
        (None, None) => "empty".to_owned(),
    }
}

#[test]
fn samples_are_read_as_their_rows_say() {
    for row in ROWS {
        let event = sample::read(row.file);
        match row.shape {
            Shape::Bare => {
                assert_eq!(row.made.len(), 1, "{}", row.file);
                check(row, &row.made[0], Ok(event));
            }
            Shape::Batch => {
                let records = sample::records(&event);
                assert_eq!(records.len(), row.made.len(), "{}", row.file);
                for (record, made) in records.iter().zip(row.made) {
                    check(row, made, event::json(record["body"].as_str().unwrap()));
                }
            }
        }
    }
}

fn check(Row { file, function, .. }: &Row, made: &Made, event: Result<Value, EventError>) {
    match function {
        Function::Import => created(file, made, event.and_then(object::parse)),
        Function::OnPush => pushed(file, made, event.and_then(|event| push::parse(&event))),
        Function::OnScan => changed(file, made, event.and_then(|event| scan::parse(&event, "state"))),
        // Whatever wakes it will do.
        Function::Reconcile => assert!(event.is_ok() && matches!(made, Made::Swept), "{file}"),
    }
}

fn created(file: &str, made: &Made, found: Result<Event<Vec<ObjectCreated>>, EventError>) {
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
        (made, found) => left_alone(file, made, found),
    }
}

fn pushed(file: &str, made: &Made, found: Result<Event<ImagePushed>, EventError>) {
    match (made, found) {
        (Made::Pushed(wanted_digest, wanted_tag), Ok(Event::Known(ImagePushed { repository, digest, tag }))) => {
            assert_eq!(repository.as_str(), REPOSITORY, "{file}");
            assert_eq!(digest.map(|digest| digest.to_string()).as_deref(), *wanted_digest, "{file}");
            assert_eq!(tag.as_ref().map(gantry::image::Tag::as_str), *wanted_tag, "{file}");
        }
        (made, found) => left_alone(file, made, found),
    }
}

fn changed(file: &str, made: &Made, found: Result<Event<ScanChanged>, EventError>) {
    match (made, found) {
        (Made::Scanned, Ok(Event::Known(ScanChanged::Image { repository, digest, at, .. }))) => {
            assert_eq!((repository.as_str(), digest.to_string().as_str()), (REPOSITORY, DIGEST), "{file}");
            assert_eq!(at.map(|at| at.to_string()).as_deref(), Some("2026-11-12T00:00:34Z"), "{file}");
        }
        (Made::ReleasedByHand, Ok(Event::Known(ScanChanged::Released { repository, digest }))) => {
            assert_eq!((repository.as_str(), digest.to_string().as_str()), (REPOSITORY, DIGEST), "{file}");
        }
        (Made::PolicyChanged, Ok(Event::Known(ScanChanged::Policy))) => {}
        (made, found) => left_alone(file, made, found),
    }
}

fn left_alone<T: Debug>(file: &str, made: &Made, found: Result<Event<T>, EventError>) {
    match (made, found) {
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
        of_one_account(row.file, &event);
        for record in sample::records(&event) {
            if let Some(body) = record["body"].as_str() {
                assert_eq!(record["md5OfBody"], sample::md5(body), "{}", row.file);
                if let Ok(event) = event::json(body) {
                    of_one_account(row.file, &event);
                }
            }
        }
    }
}

fn of_one_account(file: &str, event: &Value) {
    strings(event, &mut |text| {
        if let Some(arn) = text.strip_prefix("arn:aws:") {
            let account = arn.split(':').nth(2).unwrap_or_default();
            assert!(account.is_empty() || account == account::ID, "{file}: {text}");
        }
    });
    if let Some(account) = event.get("account") {
        assert_eq!(account, account::ID, "{file}");
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
