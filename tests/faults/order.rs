//! Events in any order, twice, late, or never: a model says what must be true in the end.
//!
//! The queues are left alone; the test hands their messages to the functions itself. Import's events come in any order
//! and several times, each at least once; those of pushes and scans come early, twice, out of order, or never, and
//! reconciliation does what they would have done.

use std::collections::{BTreeMap, BTreeSet};

use local::samples::{Image, layer};
use pipeline_tests::look::digest;
use pipeline_tests::{Pipeline, Setup, Uploaded};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::PROGRAM;
use crate::lab::{all_is_whole, seed, tarball};

/// Cases: each starts the functions anew.
const CASES: u32 = 6;

/// What people do: which repository, which release, which image.
#[derive(Debug, Clone, Copy)]
struct Upload {
    repository: u8,
    release: u8,
    image: u8,
}

/// What happens to the events.
#[derive(Debug, Clone)]
struct Story {
    uploads: Vec<Upload>,
    /// Which upload's event is delivered next; those that never are come at the end.
    deliveries: Vec<usize>,
    /// Of the events of pushes and scans: which are delivered early, and in which order.
    reactions: Vec<usize>,
}

fn stories() -> impl Strategy<Value = Story> {
    let upload = (0..2_u8, 0..3_u8, 0..3_u8);
    let upload = upload.prop_map(|(repository, release, image)| Upload { repository, release, image });
    let uploads = prop::collection::vec(upload, 2..7);
    let choices = || prop::collection::vec(0..64_usize, 0..10);
    (uploads, choices(), choices()).prop_map(|(uploads, deliveries, reactions)| Story {
        uploads,
        deliveries,
        reactions,
    })
}

/// What an upload must have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    Released,
    Failed,
    Superseded,
}

impl Upload {
    fn repository(self) -> String {
        format!("team/app-{}", self.repository)
    }

    fn tag(self) -> String {
        format!("1.{}.0", self.release)
    }

    fn key(self) -> String {
        format!("{}/{}.tar", self.repository(), self.tag())
    }

    fn image(self) -> Image {
        Image::new("amd64", vec![layer("app", seed().wrapping_add(u32::from(self.image)), 4_000)])
    }
}

/// What is true after deliveries in this order: the newest version of a key counts, and a tag stays with whom it was
/// first given to.
fn model(uploads: &[Upload], order: &[usize]) -> (Vec<Must>, BTreeMap<(String, String), u8>) {
    let mut tags: BTreeMap<(String, String), u8> = BTreeMap::new();
    let mut must = vec![Must::Superseded; uploads.len()];
    for &at in order {
        let upload = uploads[at];
        let is_newest = uploads[at + 1..].iter().all(|later| later.key() != upload.key());
        if !is_newest {
            continue;
        }
        let holder = *tags.entry((upload.repository(), upload.tag())).or_insert(upload.image);
        must[at] = if holder == upload.image { Must::Released } else { Must::Failed };
    }
    (must, tags)
}

/// The messages of a queue as Lambda gives them: one batch each.
fn batches(pipeline: &Pipeline, queue: &str) -> Vec<Value> {
    let messages = pipeline.stack.queues().messages(queue).expect("the queue is there");
    let batch = |message: &emulator::sqs::Message| {
        json!({"Records": [{"messageId": message.id, "receiptHandle": "none", "body": message.body,
            "attributes": {"ApproximateReceiveCount": "1"}, "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:queue", "awsRegion": "us-east-1"}]})
    };
    messages.iter().map(batch).collect()
}

/// Waits until the bus has put `count` messages into the queue.
async fn arrived(pipeline: &Pipeline, queue: &str, count: usize) {
    while batches(pipeline, queue).len() < count {
        // A round trip gives the bus its turn.
        pipeline.s3.head_bucket().bucket("uploads").send().await.expect("the bucket is there");
    }
}

async fn deliver(pipeline: &Pipeline, function: &str, batch: &Value) {
    let answer = pipeline.stack.invoke(function, batch).await.expect("the function answers");
    assert_eq!(answer, json!({"batchItemFailures": []}), "{batch:#}");
}

async fn run(story: &Story) {
    let pipeline = Pipeline::with(PROGRAM, Setup { unpolled: true, ..Setup::default() }).await;
    let mut put: Vec<Uploaded> = Vec::new();
    for (at, upload) in story.uploads.iter().enumerate() {
        put.push(pipeline.put(&upload.key(), &tarball(&upload.image())).await);
        arrived(&pipeline, "import-queue", at + 1).await;
    }
    let events = batches(&pipeline, "import-queue");
    let of = |put: &Uploaded| {
        let named =
            |event: &&Value| event["Records"][0]["body"].as_str().is_some_and(|body| body.contains(&put.version_id));
        events.iter().find(named).expect("every upload has its event")
    };
    let mut order: Vec<usize> = story.deliveries.iter().map(|choice| choice % put.len()).collect();
    let missing: Vec<usize> = (0..put.len()).filter(|at| !order.contains(at)).collect();
    order.extend(missing);
    for &at in &order {
        deliver(&pipeline, "ImportFunction", of(&put[at])).await;
        for choice in story.reactions.iter().filter(|choice| *choice % 3 == at % 3) {
            let (queue, function) =
                if choice % 2 == 0 { ("push-queue", "OnPushFunction") } else { ("scan-queue", "OnScanFunction") };
            let there = batches(&pipeline, queue);
            if !there.is_empty() {
                deliver(&pipeline, function, &there[choice % there.len()]).await;
            }
        }
    }
    // The rest of what was pushed and scanned is lost, and reconciliation finds it.
    for _ in 0..2 {
        pipeline.stack.run_scheduled("ReconcileFunction").await.expect("it runs");
    }

    let (must, tags) = model(&story.uploads, &order);
    let mut newest: BTreeMap<String, usize> = BTreeMap::new();
    for (at, (upload, put)) in story.uploads.iter().zip(&put).enumerate() {
        newest.insert(upload.key(), at);
        let word = pipeline.tags(put).await.remove("gantry").unwrap_or_default();
        let wanted = match must[at] {
            Must::Released => "released",
            Must::Failed => "failed",
            Must::Superseded => "superseded",
        };
        assert_eq!(word, wanted, "upload {at}, deliveries {order:?}");
    }
    for (key, at) in newest {
        let receipt = pipeline.receipt(&key).await.expect("a receipt");
        assert_eq!(receipt["upload"]["version_id"], put[at].version_id.as_str(), "{key}: the newest version's receipt");
    }
    let mut highest: BTreeMap<String, (String, String)> = BTreeMap::new();
    for ((repository, tag), image) in &tags {
        let config = digest(&Upload { repository: 0, release: 0, image: *image }.image().config());
        let found = pipeline_tests::look::check_image(pipeline.stack.images(), repository, tag);
        assert_eq!(found, config, "{repository}:{tag}");
        highest.insert(repository.clone(), (tag.clone(), config));
    }
    for (repository, (tag, config)) in highest {
        all_is_whole(&pipeline, &repository, "in the end");
        let found = pipeline_tests::look::check_image(pipeline.stack.images(), &repository, "latest");
        assert_eq!(found, config, "{repository}: latest is {tag}");
        let wanted: BTreeSet<String> = tags
            .keys()
            .filter(|(of, _)| *of == repository)
            .map(|(_, tag)| tag.clone())
            .chain(["latest".into()])
            .collect();
        assert_eq!(pipeline.tagged(&repository).into_keys().collect::<BTreeSet<_>>(), wanted, "{repository}");
    }
    let mut ids = BTreeSet::new();
    for (name, detail) in pipeline.told() {
        assert!(ids.insert(detail["id"].to_string()), "told twice: {name} {detail:#}");
    }
    pipeline.stop().await;
}

#[test]
fn any_order_of_events_comes_to_the_same_end() {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed().to_le_bytes());
    let config = Config { cases: CASES, max_shrink_iters: 20, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let outcome = runner.run(&stories(), |story| {
        let run = runtime.block_on(async { tokio::spawn(async move { run(&story).await }).await });
        run.map_err(|failed| TestCaseError::fail(crate::matrix::said(failed)))
    });
    if let Err(error) = outcome {
        panic!("GANTRY_SEED={}: {error}", seed());
    }
}
