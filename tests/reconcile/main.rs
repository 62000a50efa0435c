//! Uploads of which nothing is heard: events are dropped on purpose, receipts cannot be written, messages end in the
//! failed queue; the schedule makes up for it.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic, as tests do")]

mod failed_queue;
mod lost;
mod tags;

use std::path::Path;

use local::samples::{Image, docker_archive, layer};
use pipeline_tests::{Pipeline, Setup, now};
use serde_json::{Value, json};

/// The functions' process.
const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// Import's queue.
const QUEUE: &str = "import-queue";

/// The queue of messages that no delivery could finish.
const FAILED: &str = "failed-messages";

/// A tarball of one image.
fn tarball(seed: u32) -> Vec<u8> {
    docker_archive(&[(&Image::new("amd64", vec![layer("app", seed, 20_000)]), &[])])
}

/// A stack without import: what is uploaded waits, and may be dropped.
async fn without_import() -> Pipeline {
    Pipeline::with(PROGRAM, Setup { without: vec!["ImportFunction"], ..Setup::default() }).await
}

/// The same stack after hours: every upload is older, and `without` says which functions do not run.
async fn hours_later(pipeline: Pipeline, without: Vec<&'static str>) -> Pipeline {
    let folder = pipeline.stop().await;
    age_uploads(folder.path(), 2);
    Pipeline::with(PROGRAM, Setup { without, folder: Some(folder), ..Setup::default() }).await
}

/// Makes every upload, receipts left out, `hours` older than it is.
fn age_uploads(folder: &Path, hours: i64) {
    let (mut folders, mut aged) = (vec![folder.join("s3/uploads/keys")], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            if kept["key"].as_str().unwrap().ends_with(".receipt.json") {
                continue;
            }
            for version in kept["versions"].as_array_mut().unwrap() {
                let modified: jiff::Timestamp = version["modified"].as_str().unwrap().parse().unwrap();
                version["modified"] = json!(modified - jiff::SignedDuration::from_hours(hours));
                aged += 1;
            }
            std::fs::write(&path, kept.to_string()).unwrap();
        }
    }
    assert!(aged > 0, "there is nothing to age");
}

/// Makes the receipt beside `key` as old as `hours`.
async fn age_receipt(pipeline: &Pipeline, key: &str, hours: i64) {
    let mut receipt = pipeline.receipt(key).await.unwrap();
    receipt["import"]["updated_at"] = json!(now() - jiff::SignedDuration::from_hours(hours));
    put_receipt(pipeline, key, &receipt).await;
}

async fn put_receipt(pipeline: &Pipeline, key: &str, receipt: &Value) {
    let put = pipeline.s3.put_object().bucket("uploads").key(format!("{key}.receipt.json"));
    put.body(receipt.to_string().into_bytes().into()).send().await.unwrap();
}

/// Runs the schedule once, and gives what it says of uploads: its line of the log.
async fn reconcile(pipeline: &Pipeline) -> Value {
    let mut log = pipeline.stack.log();
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    loop {
        let line = log.recv().await.unwrap();
        if line.text.contains("uploads reconciled") {
            return serde_json::from_str(&line.text).unwrap();
        }
    }
}

/// How many messages lie in `queue`.
fn messages(pipeline: &Pipeline, queue: &str) -> usize {
    pipeline.stack.queues().messages(queue).unwrap().len()
}

/// How often people were told that an upload came to nothing.
fn told_of_failures(pipeline: &Pipeline) -> usize {
    pipeline.told().iter().filter(|(name, _)| name == "Import Failed").count()
}
