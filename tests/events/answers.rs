//! Each sample as a direct invocation of the function's real process.

use std::collections::BTreeSet;
use std::time::Duration;

use emulator::faults::{Action, Fault};
use emulator::host::{InvokeError, LogLine};
use local::samples::{Image, docker_archive, layer};
use pipeline_tests::Pipeline;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::rows::{Made, ROWS, Row, Shape, Upload};
use crate::sample;

const FUNCTION: &str = "ImportFunction";

async fn start() -> Pipeline {
    Pipeline::start(env!("CARGO_BIN_EXE_gantry-under-test")).await
}

/// The answer to an event with which everything is done.
fn all_done(shape: Shape) -> Value {
    match shape {
        Shape::Bare => Value::Null,
        Shape::Batch => json!({"batchItemFailures": []}),
    }
}

/// Every key of the upload bucket.
async fn keys(pipeline: &Pipeline) -> BTreeSet<String> {
    let list = pipeline.s3.list_objects_v2().bucket("uploads").send().await.expect("the bucket is listed");
    assert_eq!(list.is_truncated(), Some(false), "one page is enough");
    list.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect()
}

/// The rest of the log; only after the stack was stopped does it end.
async fn rest_of(mut log: Receiver<LogLine>) -> Vec<Value> {
    let reading = async {
        let mut lines = Vec::new();
        loop {
            match log.recv().await {
                Ok(line) => lines.push(serde_json::from_str(&line.text).expect("log lines are JSON")),
                Err(end) => {
                    assert_eq!(end, RecvError::Closed);
                    return lines;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("the log ends with the stack")
}

/// One environment answers all of them, each as done with: that an object is gone will not change, so nothing is left
/// to import. There is a receipt beside exactly the keys that were uploads, and the log names whatever was left alone.
#[tokio::test]
async fn one_process_survives_every_sample() {
    let pipeline = start().await;
    let log = pipeline.stack.log();
    for row in ROWS {
        let answer = pipeline.stack.invoke(FUNCTION, &sample::read(row.file)).await;
        assert_eq!(answer.expect(row.file), all_done(row.shape), "{}", row.file);
    }
    for upload in ROWS.iter().flat_map(Row::uploads) {
        let receipt = pipeline.receipt(upload.key).await.expect(upload.key);
        assert_eq!(receipt["state"], "superseded", "{}", upload.key);
        assert_eq!(receipt["import"]["reason"]["kind"], "superseded", "{}", upload.key);
        assert_eq!(receipt["upload"]["key"], upload.key);
        assert_eq!(receipt["upload"]["version_id"].as_str(), upload.version, "{}", upload.key);
    }
    let receipts = ROWS.iter().flat_map(Row::uploads).map(|upload| format!("{}.receipt.json", upload.key)).collect();
    assert_eq!(keys(&pipeline).await, receipts);

    drop(pipeline.stop().await);
    let lines = rest_of(log).await;
    let reports: Vec<&Value> = lines.iter().filter(|line| line["type"] == "platform.report").collect();
    assert_eq!(reports.len(), ROWS.len());
    let starts = reports.iter().filter(|report| report.pointer("/record/metrics/initDurationMs").is_some()).count();
    assert_eq!(starts, 1, "a process ended on the way");
    for (row, made) in ROWS.iter().flat_map(|row| row.made.iter().map(move |made| (row, made))) {
        let (field, text) = match made {
            Made::Uploads(_) | Made::NoUpload(_) => continue,
            Made::Ignored(name) => ("shape", name),
            Made::Unreadable(error) => ("error", error),
        };
        let named = lines.iter().any(|line| line[field].as_str().is_some_and(|found| found.starts_with(text)));
        assert!(named, "{}: no log line with {field} {text:?}", row.file);
    }
}

/// Where the object exists, a sample is one more delivery of an upload that was imported already: nothing is sent,
/// and the receipt stays beside exactly that key.
#[tokio::test]
async fn samples_import_the_objects_they_name() {
    let pipeline = start().await;
    let image = Image::new("amd64", vec![layer("hello", 1, 3_000)]);
    let tarball = docker_archive(&[(&image, &[])]);
    let mut expected = BTreeSet::new();
    for row in ROWS {
        let mut uploads = Vec::new();
        for (n, Upload { key, .. }) in row.uploads().enumerate() {
            // Keys that are no image names need one.
            let name = format!("team/odd:{}-{n}", row.file);
            let metadata = [("image", name.as_str())];
            let metadata = if key.starts_with("team/odd/") { &metadata[..] } else { &[] };
            let receipt = pipeline.import_with(key, &tarball, metadata).await;
            assert_eq!(receipt["state"], "released", "{receipt}");
            assert_eq!(receipt["import"]["images"][0]["unchanged"], false, "{receipt}");
            uploads.push(receipt["upload"].clone());
            expected.extend([(*key).to_owned(), format!("{key}.receipt.json")]);
        }
        if uploads.is_empty() {
            continue;
        }
        let mut event = sample::read(row.file);
        let mut left = uploads.iter();
        sample::aim(&mut event, &mut left);
        assert_eq!(left.next(), None, "{}", row.file);

        let answer = pipeline.stack.invoke(FUNCTION, &event).await;
        assert_eq!(answer.expect(row.file), all_done(row.shape), "{}", row.file);
        for (upload, Upload { key, version }) in uploads.iter().zip(row.uploads()) {
            let receipt = pipeline.receipt(key).await.expect(key);
            assert_eq!((&receipt["state"], &receipt["upload"]["key"]), (&json!("released"), &json!(key)));
            assert_eq!(receipt["import"]["images"][0]["unchanged"], true, "{receipt}");
            let version = version.map_or(&Value::Null, |_| &upload["version_id"]);
            assert_eq!(&receipt["upload"]["version_id"], version, "{key}");
        }
    }
    assert_eq!(keys(&pipeline).await, expected);
    drop(pipeline.stop().await);
}

/// What may succeed later is the one thing that is given back: a batch names that message and no other, a bare event
/// fails the invocation, and the process goes on.
#[tokio::test]
async fn only_what_may_succeed_later_is_given_back() {
    let pipeline = start().await;
    // Denied: the operator can repair that, and the SDK does not try it again.
    let denied = pipeline.faults.add(Fault {
        operation: "s3:HeadObject".to_owned(),
        resource: None,
        skip: 0,
        times: usize::MAX,
        action: Action::Status(403, String::new()),
    });

    let mut batch = sample::read("sqs-two-messages-second-malformed");
    let key = "team/my-app/3.1.0.tar";
    let first = json!({"batchItemFailures": [{"itemIdentifier": sample::records(&batch)[0]["messageId"]}]});
    for (receives, state) in [("1", "importing"), ("10", "failed")] {
        batch["Records"][0]["attributes"]["ApproximateReceiveCount"] = receives.into();
        let before = pipeline.faults.count("sqs:ChangeMessageVisibility");
        let answer = pipeline.stack.invoke(FUNCTION, &batch).await.expect("a batch is always answered");
        assert_eq!(answer, first, "delivery {receives}");
        let receipt = pipeline.receipt(key).await.expect("a receipt");
        assert_eq!(receipt["state"], state, "delivery {receives}");
        assert_eq!(receipt["import"]["reason"]["kind"], "operator", "{receipt}");
        // The sample's message is in no queue, which is the queue's to say and changes nothing.
        assert_eq!(pipeline.faults.count("sqs:ChangeMessageVisibility"), before + 1, "delivery {receives}");
    }

    let bare = pipeline.stack.invoke(FUNCTION, &sample::read("s3-two-records")).await;
    let Err(InvokeError::Function { error }) = bare else { panic!("a bare event has no other answer: {bare:?}") };
    assert_eq!(error["errorType"], "ImportFailed", "{error}");
    for upload in ["team/my-app/2.2.0.tar", "team/my-app/2.3.0.tar"] {
        assert_eq!(pipeline.receipt(upload).await.expect(upload)["state"], "failed", "{upload}");
    }
    assert_eq!(pipeline.faults.fired(denied), 4);

    let next = pipeline.stack.invoke(FUNCTION, &sample::read("empty-document-ignored")).await;
    assert_eq!(next.expect("the process goes on"), Value::Null);
    drop(pipeline.stop().await);
}
