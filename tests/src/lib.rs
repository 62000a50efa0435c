//! What the tests share: a stack in a temporary folder with the real function process, a client of its buckets, and
//! eyes that are not the library's own: receipts as plain JSON, images through the emulator's store, digests and
//! decompression by other crates.

pub mod look;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use emulator::account;
use emulator::faults::FaultPlan;
use emulator::host::LogLine;
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
    /// A folder that an earlier stack used.
    pub folder: Option<TempDir>,
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
            faults: faults.clone(),
            waits: Waits::Skipped,
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

    /// Every tag of `repository`, with the digest it names.
    pub fn tagged(&self, repository: &str) -> BTreeMap<String, String> {
        let Some(repository) = self.stack.images().repository(repository) else { return BTreeMap::new() };
        repository.tags.iter().map(|(tag, digest)| (tag.clone(), digest.to_string())).collect()
    }
}

fn client(endpoint: &str) -> Client {
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
