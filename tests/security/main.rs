//! What docs/security.md says: each thing that an uploader, a tarball or a registry may try, tried.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic, as tests do")]

mod secrets;
mod supply;
mod tarballs;
mod uploader;

use local::samples::{Image, layer};
use pipeline_tests::Pipeline;
use serde_json::Value;

/// The functions' process.
const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

fn image(seed: u32) -> Image {
    Image::new("amd64", vec![layer("app", seed, 50_000)])
}

/// Uploads, and gives the receipt, which has to say *failed* and `words`.
async fn refused(pipeline: &Pipeline, key: &str, body: &[u8], metadata: &[(&str, &str)], words: &str) -> Value {
    let receipt = pipeline.import_with(key, body, metadata).await;
    assert_eq!(receipt["state"], "failed", "{key} {metadata:?}: {receipt:#}");
    let summary = receipt["summary"].as_str().unwrap();
    assert!(summary.contains(words), "{key} {metadata:?}: {summary}");
    receipt
}

/// Every repository with its tags.
fn everything(pipeline: &Pipeline) -> Vec<(String, std::collections::BTreeMap<String, String>)> {
    let names = pipeline.stack.images().repositories();
    names.into_iter().map(|name| (name.clone(), pipeline.tagged(&name))).collect()
}
