//! What happens once an image is in ECR: verified, judged, tagged, released, told of; whatever order events come in.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic, as tests do")]

mod again;
mod order;
mod policy;
mod pushes;
mod release;
mod tags;
mod trouble;

use emulator::host::LogLine;
use pipeline_tests::{Pipeline, Setup, Uploaded};
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;

use local::samples::{Image, docker_archive, layer};

/// The functions' process.
const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// A stack whose releases wait for a scan.
async fn gated() -> Pipeline {
    with(&[("ReleaseGate", "scan")]).await
}

/// A stack with these parameters.
async fn with(parameters: &[(&str, &str)]) -> Pipeline {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Pipeline::with(PROGRAM, Setup { parameters, ..Setup::default() }).await
}

/// A tarball of one image.
fn tarball(seed: u32) -> Vec<u8> {
    docker_archive(&[(&Image::new("amd64", vec![layer("app", seed, 20_000)]), &[])])
}

/// A finding as `findings.json` has it.
fn finding(name: &str, severity: &str) -> Value {
    json!({"name": name, "severity": severity, "package": "openssl", "version": "3.0.1", "fixed_in": "3.0.2"})
}

/// Uploads and waits until everything that follows has happened; the receipt.
async fn upload(pipeline: &Pipeline, key: &str, body: &[u8], metadata: &[(&str, &str)]) -> (Uploaded, Value) {
    let uploaded = pipeline.put_with(key, body, metadata).await;
    pipeline.quiet().await;
    let receipt = pipeline.receipt(key).await.unwrap();
    assert_eq!(receipt["upload"]["version_id"], uploaded.version_id);
    (uploaded, receipt)
}

/// How often functions called `operation`.
fn calls(pipeline: &Pipeline, operation: &str) -> usize {
    pipeline.faults.count(operation)
}

/// The texts of log lines so far that contain `words`.
fn lines(log: &mut Receiver<LogLine>, words: &str) -> Vec<String> {
    let mut found = Vec::new();
    while let Ok(line) = log.try_recv() {
        if line.text.contains(words) {
            found.push(line.text);
        }
    }
    found
}
