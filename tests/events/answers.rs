//! Each sample as a direct invocation of the functions' real processes.

use std::collections::BTreeSet;
use std::time::Duration;

use emulator::faults::{Action, Fault};
use emulator::host::{InvokeError, LogLine};
use local::samples::{Image, docker_archive, layer};
use pipeline_tests::Pipeline;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::rows::{DIGEST, Function, Made, REPOSITORY, ROWS, Row, Shape, Upload};
use crate::sample;

const FUNCTION: &str = "ImportFunction";

/// What no step should ever take.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// The rest of the log, each line with its function; only after the stack was stopped does it end.
async fn rest_of(mut log: Receiver<LogLine>) -> Vec<(String, Value)> {
    let reading = async {
        let mut lines = Vec::new();
        loop {
            match log.recv().await {
                Ok(line) => lines.push((line.function, serde_json::from_str(&line.text).expect("log lines are JSON"))),
                Err(end) => {
                    assert_eq!(end, RecvError::Closed);
                    return lines;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the log ends with the stack")
}

/// What a function's log says of an event that it leaves alone, or that comes to nothing where nothing is there yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    /// What it is called.
    Shape(String),
    /// Why it cannot be read, without the causes.
    Error(String),
    /// The line itself.
    Line(&'static str),
}

const NO_UPLOAD: &str = "a folder or a receipt, not an upload; acknowledged";
const GONE: &str = "the image or its repository is gone; acknowledged";
const REJUDGED: &str = "judged by the new policy";
const RECONCILED: &str = "reconciled";
const UNREADABLE: &str = "not an event that can be read; acknowledged";

impl Said {
    /// What a line of the log says, if it is of this kind.
    fn in_line(line: &Value) -> Option<Self> {
        if let Some(shape) = line["shape"].as_str() {
            return Some(Self::Shape(shape.to_owned()));
        }
        let message = line["message"].as_str()?;
        if message == UNREADABLE {
            let error = line["error"].as_str()?;
            return Some(Self::Error(error.split(": ").next()?.to_owned()));
        }
        [NO_UPLOAD, GONE, REJUDGED, RECONCILED].into_iter().find(|known| *known == message).map(Self::Line)
    }

    /// What `function` says of the sample of `row`.
    fn of(function: Function, row: &Row) -> Vec<Self> {
        if function == Function::Reconcile {
            return vec![Self::Line(RECONCILED)];
        }
        if function != row.function {
            return Self::elsewhere(function, row);
        }
        let mut said: Vec<Self> = row
            .made
            .iter()
            .filter_map(|made| {
                Some(match made {
                    Made::Uploads(_) => return None,
                    Made::NoUpload(_) => Self::Line(NO_UPLOAD),
                    Made::Pushed(..) | Made::Scanned | Made::ReleasedByHand => Self::Line(GONE),
                    Made::PolicyChanged => Self::Line(REJUDGED),
                    Made::Swept => Self::Line(RECONCILED),
                    Made::Ignored(name) => Self::Shape((*name).to_owned()),
                    Made::Unreadable(error) => Self::Error((*error).to_owned()),
                })
            })
            .collect();
        // However many events there are of one image, it is looked at once.
        said.dedup();
        said
    }

    /// What a function says of a sample that is for another one.
    fn elsewhere(function: Function, row: &Row) -> Vec<Self> {
        let event = sample::read(row.file);
        let events: Vec<Value> = match row.shape {
            Shape::Bare => vec![event],
            Shape::Batch => sample::records(&event).iter().map(|record| record["body"].clone()).collect(),
        };
        let named = |event: &Value| match event {
            Value::String(body) => match serde_json::from_str(body) {
                Ok(event) => Self::of_event(function, row, &event),
                Err(_) => Self::Error("the message is no JSON".to_owned()),
            },
            event => Self::of_event(function, row, event),
        };
        events.iter().map(named).collect()
    }

    fn of_event(function: Function, row: &Row, event: &Value) -> Self {
        if let (Some(source), Some(kind)) = (event["source"].as_str(), event["detail-type"].as_str()) {
            return match (function, kind) {
                (Function::OnScan, "Object Created") if event["detail"]["object"]["key"].is_null() => {
                    Self::Error("the event is named Object Created but does not read as one".to_owned())
                }
                (Function::OnScan | Function::Import, "Object Created") => {
                    Self::Shape("an object of another bucket".to_owned())
                }
                _ => Self::Shape(format!("{kind:?} from {source:?}")),
            };
        }
        if let Some(record) = event.pointer("/Records/0") {
            let source = record.get("eventSource").unwrap_or(&record["EventSource"]);
            return Self::Shape(format!("records from {source}"));
        }
        let ignored = row.made.iter().find_map(|made| if let Made::Ignored(name) = made { Some(name) } else { None });
        Self::Shape((*ignored.expect("what is no event is nobody's")).to_owned())
    }
}

/// One environment of each function answers all of them, those for the other functions as well, each as done with:
/// that an object is gone, or an image at the third delivery of its push, will not change, so nothing is left to do.
/// There is a receipt beside exactly the keys that were uploads, and one line of the log names each event that was left
/// alone.
#[tokio::test]
async fn one_process_survives_every_sample() {
    let pipeline = start().await;
    let log = pipeline.stack.log();
    for function in Function::ALL {
        for row in ROWS {
            let what = format!("{} for {function:?}", row.file);
            let answer = pipeline.stack.invoke(function.logical_id(), &sample::read(row.file)).await;
            assert_eq!(answer.expect(&what), all_done(row.shape), "{what}");
        }
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
    for function in Function::ALL {
        let of_function = |(name, _): &&(String, Value)| name == function.logical_id();
        let lines: Vec<&Value> = lines.iter().filter(of_function).map(|(_, line)| line).collect();
        let reports: Vec<&&Value> = lines.iter().filter(|line| line["type"] == "platform.report").collect();
        assert_eq!(reports.len(), ROWS.len(), "{function:?}");
        let starts = reports.iter().filter(|report| report.pointer("/record/metrics/initDurationMs").is_some()).count();
        assert_eq!(starts, 1, "{function:?}: a process ended on the way");

        let mut said: Vec<Said> = lines.iter().filter_map(|line| Said::in_line(line)).collect();
        let mut wanted: Vec<Said> = ROWS.iter().flat_map(|row| Said::of(function, row)).collect();
        said.sort();
        wanted.sort();
        assert_eq!(said, wanted, "{function:?}");
    }
}

/// Where the image exists, a sample is one more look at it, which changes nothing.
#[tokio::test]
async fn samples_look_at_the_images_they_name() {
    let pipeline = start().await;
    let image = Image::new("amd64", vec![layer("hello", 1, 3_000)]);
    let receipt = pipeline.import("team/my-app/1.0.0.tar", &docker_archive(&[(&image, &[])])).await;
    let digest = receipt["import"]["images"][0]["digest"].as_str().expect("a digest").to_owned();
    let tags = pipeline.tagged(REPOSITORY);
    assert_eq!(tags.get("1.0.0"), Some(&digest));

    for function in [Function::OnPush, Function::OnScan, Function::Reconcile] {
        for row in Row::of(function) {
            let wanted = row.made.iter().find_map(|made| match made {
                Made::Pushed(..) | Made::Scanned | Made::ReleasedByHand => Some("looked"),
                Made::PolicyChanged => Some(REJUDGED),
                Made::Swept => Some(RECONCILED),
                Made::Uploads(_) | Made::NoUpload(_) | Made::Ignored(_) | Made::Unreadable(_) => None,
            });
            let Some(wanted) = wanted else { continue };
            let mut log = pipeline.stack.log();
            let event = sample::with_digest(&sample::read(row.file), DIGEST, &digest);
            let answer = pipeline.stack.invoke(function.logical_id(), &event).await;
            assert_eq!(answer.expect(row.file), all_done(row.shape), "{}", row.file);
            let found = async {
                loop {
                    let line = log.recv().await.expect("the log goes on");
                    let text: Value = serde_json::from_str(&line.text).expect("log lines are JSON");
                    if line.function == function.logical_id() && text["message"] == wanted {
                        return text;
                    }
                }
            };
            let line = tokio::time::timeout(PATIENCE, found).await.expect(row.file);
            if row.file == "sqs-two-pushes-of-one-image" {
                assert_eq!(line["events"], 2, "{line}");
            }
        }
    }
    assert_eq!(pipeline.receipt("team/my-app/1.0.0.tar").await.expect("a receipt")["state"], "released");
    let mut wanted = tags;
    wanted.insert("latest".to_owned(), digest);
    assert_eq!(pipeline.tagged(REPOSITORY), wanted);
    drop(pipeline.stop().await);
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

    let mut batch = sample::read("sqs-s3-object-created-second-malformed");
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

    let bare = pipeline.stack.invoke(FUNCTION, &sample::read("s3-records-two-objects-created")).await;
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
