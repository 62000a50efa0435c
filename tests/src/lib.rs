//! What the tests share: a stack in a temporary folder with the real function process, a client of its buckets, and
//! eyes that are not the library's own: receipts as plain JSON, images through the emulator's store, digests and
//! decompression by other crates.

pub mod look;
pub mod push;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use emulator::account;
use emulator::faults::FaultPlan;
use emulator::host::LogLine;
use emulator::shape::Shape;
use emulator::sqs::Waits;
use emulator::stack::{Stack, StackOptions};
use local::session::functions;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;

/// The project's template.
pub const TEMPLATE: &str = include_str!("../../template.yaml");

/// What no test should ever take; a test that meets it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(90);

/// The time, for events that say when they were sent.
#[expect(clippy::disallowed_methods, reason = "tests make events as AWS does, at the time they happen")]
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Says something of a test that passes: what it checked, or could not. Past the test harness, which keeps what passing
/// tests print to itself.
pub fn say(text: &str) {
    use std::io::Write as _;

    writeln!(std::io::stderr(), "{text}").ok();
}

/// How a test's stack differs from the usual one.
#[derive(Debug, Default)]
pub struct Setup {
    /// Template parameters.
    pub parameters: BTreeMap<String, String>,
    /// Text of the template to be replaced, and by what; each must occur.
    pub edits: Vec<(String, String)>,
    /// Whether the queues are left alone.
    pub no_functions: bool,
    /// Functions whose queues are left alone, by their logical ids.
    pub without: Vec<&'static str>,
    /// Whether functions run, and their queues are left alone: they are invoked directly.
    pub unpolled: bool,
    /// A folder that an earlier stack used.
    pub folder: Option<TempDir>,
    /// How slow the network is.
    pub shape: Shape,
}

/// A running stack and a client of it.
#[derive(Debug)]
pub struct Pipeline {
    /// The stack.
    pub stack: Stack,
    /// The user's client.
    pub s3: Client,
    /// What goes wrong.
    pub faults: FaultPlan,
    folder: TempDir,
}

/// One version of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The key.
    pub key: String,
    /// The version.
    pub version_id: String,
}

impl Pipeline {
    /// The usual stack; `program` is the test binary's `env!("CARGO_BIN_EXE_gantry-under-test")`.
    pub async fn start(program: &str) -> Self {
        Self::with(program, Setup::default()).await
    }

    /// A stack that differs as `setup` says. Messages do not wait for their time.
    pub async fn with(program: &str, setup: Setup) -> Self {
        let folder = setup.folder.unwrap_or_else(|| tempfile::tempdir().expect("a temporary folder"));
        let faults = FaultPlan::new();
        let mut template = TEMPLATE.to_owned();
        for (from, to) in setup.edits {
            assert!(template.contains(&from), "the template has no {from:?}");
            template = template.replace(&from, &to);
        }
        let mut functions = functions(Path::new(program));
        functions.retain(|logical_id, _| !setup.without.contains(&logical_id.as_str()));
        if setup.no_functions {
            functions.clear();
        }
        let stack = Stack::start(StackOptions {
            data: folder.path().to_owned(),
            template,
            parameters: setup.parameters,
            functions,
            queues_left_alone: setup.unpolled,
            faults: faults.clone(),
            waits: Waits::Skipped,
            shape: setup.shape,
            ..StackOptions::default()
        });
        let stack = stack.await.expect("the stack starts");
        Self { s3: client(stack.endpoint()), stack, faults, folder }
    }

    /// Stops the stack; its folder can be used by another.
    pub async fn stop(self) -> TempDir {
        self.stack.stop().await;
        self.folder
    }

    /// The data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts an object into the upload bucket.
    pub async fn put(&self, key: &str, body: &[u8]) -> Uploaded {
        self.put_with(key, body, &[]).await
    }

    /// Puts an object with user metadata.
    pub async fn put_with(&self, key: &str, body: &[u8], metadata: &[(&str, &str)]) -> Uploaded {
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let put = self.s3.put_object().bucket("uploads").key(key).set_metadata(Some(metadata));
        let put = put.body(ByteStream::from(body.to_vec())).send().await.expect("the upload succeeds");
        Uploaded { key: key.to_owned(), version_id: put.version_id().expect("a version").to_owned() }
    }

    /// Puts an object and waits for its final receipt.
    pub async fn import(&self, key: &str, body: &[u8]) -> Value {
        self.import_with(key, body, &[]).await
    }

    /// Puts an object with user metadata and waits for its final receipt.
    pub async fn import_with(&self, key: &str, body: &[u8], metadata: &[(&str, &str)]) -> Value {
        let mut log = self.stack.log();
        let uploaded = self.put_with(key, body, metadata).await;
        self.decided(&mut log, &uploaded).await
    }

    /// Waits until the upload's receipt is final; it is looked at whenever an invocation ends. `log` was opened
    /// before the upload.
    pub async fn decided(&self, log: &mut Receiver<LogLine>, uploaded: &Uploaded) -> Value {
        let waiting = async {
            loop {
                if let Some(receipt) = self.receipt(&uploaded.key).await
                    && receipt["upload"]["version_id"] == uploaded.version_id
                    && matches!(receipt["state"].as_str(), Some("released" | "held" | "failed" | "superseded"))
                {
                    return receipt;
                }
                loop {
                    let line = log.recv().await.expect("the log goes on");
                    if line.text.contains("platform.report") {
                        break;
                    }
                }
            }
        };
        let decided = tokio::time::timeout(PATIENCE, waiting).await;
        decided.expect("the upload is decided in time")
    }

    /// The receipt beside `key`, if there is one.
    pub async fn receipt(&self, key: &str) -> Option<Value> {
        let bytes = self.object("uploads", &format!("{key}.receipt.json")).await?;
        Some(serde_json::from_slice(&bytes).expect("a receipt is JSON"))
    }

    /// The bytes of an object, if there is one.
    pub async fn object(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let mut body = self.s3.get_object().bucket(bucket).key(key).send().await.ok()?.body;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.expect("the body goes on"));
        }
        Some(bytes)
    }

    /// The tags of one version.
    pub async fn tags(&self, uploaded: &Uploaded) -> BTreeMap<String, String> {
        let tags = self.s3.get_object_tagging().bucket("uploads").key(&uploaded.key);
        let tags = tags.version_id(&uploaded.version_id).send().await.expect("the tags are readable");
        tags.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
    }

    /// Sets what scans find: the text of `findings.json`.
    pub fn findings(&self, findings: &Value) {
        std::fs::write(self.folder().join("findings.json"), findings.to_string()).expect("the findings are written");
    }

    /// Makes a repository that belongs to the stack, as an operator who adopts one does.
    pub fn adopt(&self, repository: &str) {
        let settings = emulator::images::Settings {
            mutability: emulator::images::Mutability::ImmutableWithExclusion,
            exclusion_filters: vec!["latest*".to_owned()],
            scan_on_push: true,
            ..emulator::images::Settings::default()
        };
        let tags = [("gantry:stack".to_owned(), "gantry".to_owned())].into();
        let made = emulator::images::Repository::new(repository, settings, tags);
        self.stack.images().create(made).expect("there is no such repository yet");
    }

    /// Puts an object into the state bucket, as the policy's administrators do.
    pub async fn put_state(&self, key: &str, body: &str) {
        let put = self.s3.put_object().bucket("state").key(key).body(ByteStream::from(body.as_bytes().to_vec()));
        put.send().await.expect("the state bucket takes it");
    }

    /// The record of an image.
    pub async fn record(&self, repository: &str, digest: &str) -> Option<Value> {
        let bytes = self.object("state", &format!("images/{repository}/{digest}.json")).await?;
        Some(serde_json::from_slice(&bytes).expect("a record is JSON"))
    }

    /// Makes an image, and its record, as old as months: time passes.
    pub async fn age(&self, repository: &str, digest: &str) {
        const LONG_AGO: &str = "2026-01-01T00:00:00Z";
        let (image, at) = (digest.parse().expect("a digest"), LONG_AGO.parse().expect("a time"));
        self.stack.images().set_pushed_at(repository, &image, at).expect("the repository is there");
        let mut record = self.record(repository, digest).await.expect("the image has a record");
        record["pushed_at"] = LONG_AGO.into();
        self.put_state(&format!("images/{repository}/{digest}.json"), &record.to_string()).await;
    }

    /// Waits until nothing is left to do: no message in any queue of a function, and no request of one since the last
    /// look.
    pub async fn quiet(&self) {
        self.quiet_in(PATIENCE).await;
    }

    /// The same, of a crowd that takes longer.
    pub async fn quiet_in(&self, patience: Duration) {
        let quiet = async {
            let mut requests = None;
            loop {
                for queue in ["import-queue", "push-queue", "scan-queue"] {
                    self.stack.queues().drained(queue).await.expect("the queue is there");
                }
                // A round trip of our own gives the bus its turn.
                self.s3.head_bucket().bucket("uploads").send().await.expect("the bucket is there");
                let now = self.faults.count("*");
                if requests.replace(now) == Some(now) {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, quiet).await.expect("it becomes quiet in time");
    }

    /// What was told so far, in its order: name and detail, as machines get them.
    pub fn told(&self) -> Vec<(String, Value)> {
        let topic = self.stack.topic_arn("Topic").expect("the template has a topic");
        let messages = self.stack.topics().messages(topic).expect("the topic is there");
        let read = |text: String| serde_json::from_str::<Value>(&text).expect("the machine's form is JSON");
        let events = messages.iter().map(|message| read(message.text_for("sqs")));
        events
            .map(|event| (event["detail-type"].as_str().expect("a name").to_owned(), event["detail"].clone()))
            .collect()
    }

    /// The names of what was told of `repository`, in their order, with the tags.
    pub fn told_of(&self, repository: &str) -> Vec<String> {
        let of = |detail: &Value| detail["image"]["repository"] == repository;
        let tags = |detail: &Value| {
            let tags = detail["image"]["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
            tags.collect::<Vec<_>>().join(",")
        };
        let told = self.told().into_iter().filter(|(_, detail)| of(detail));
        told.map(|(name, detail)| format!("{name} {}", tags(&detail))).collect()
    }

    /// Every tag of `repository`, with the digest it names.
    pub fn tagged(&self, repository: &str) -> BTreeMap<String, String> {
        let Some(repository) = self.stack.images().repository(repository) else { return BTreeMap::new() };
        repository.tags.iter().map(|(tag, digest)| (tag.clone(), digest.to_string())).collect()
    }
}

/// The user's client of the buckets at `endpoint`.
pub fn client(endpoint: &str) -> Client {
    let credentials = Credentials::new(account::USER_ACCESS_KEY_ID, account::USER_SECRET, None, None, "tests");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(credentials)
        .endpoint_url(endpoint)
        .force_path_style(true)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new(account::REGION))
        .build();
    Client::from_conf(config)
}
