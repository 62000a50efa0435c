//! Import in this process, against a stack whose queues are left alone: each delivery is made by the test, with a
//! deadline and timeouts of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_smithy_http_client::Builder;
use emulator::account;
use emulator::wire::Caller;
use gantry::config::ImportConfig;
use gantry::event::ObjectCreated;
use gantry::import::{Delivery, Importer, Outcome};
use gantry::notify::Notifier;
use gantry::react::Clients;
use gantry::receipt::Attempt;
use gantry::timeouts::Timeouts;
use local::samples::{Image, docker_archive, layer};
use pipeline_tests::look::{check_image, digest};
use pipeline_tests::{Pipeline, Setup, Uploaded, now};
use tokio::time::Instant;

use crate::PROGRAM;

/// As short as a busy machine allows.
pub(crate) const IMPATIENT: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    answer: Duration::from_millis(1_500),
    standstill: Duration::from_secs(2),
    call_attempt: Duration::from_millis(1_500),
    call: Duration::from_secs(6),
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(200),
};

/// Deliveries that the template allows.
pub(crate) const DELIVERIES: u32 = 10;

/// A stack, and import as its function would be.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) pipeline: Pipeline,
    repositories: AtomicUsize,
}

/// Which addresses differ from the stack's.
#[derive(Debug, Default, Clone)]
pub(crate) struct Elsewhere {
    pub(crate) s3: Option<String>,
    pub(crate) registry: Option<String>,
    pub(crate) ecr: Option<String>,
    pub(crate) events: Option<String>,
}

/// The seed of this run: `GANTRY_SEED`, or always the same.
#[expect(clippy::disallowed_methods, reason = "whoever runs the test chooses it")]
pub(crate) fn seed() -> u32 {
    std::env::var("GANTRY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Numbers that follow from a seed alone (splitmix64), for choices that should differ from seed to seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u32) -> Self {
        Self(u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// A number below `most`.
    pub(crate) fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % most.max(1) as u64).unwrap_or(0)
    }
}

/// An image that no other has a layer of.
pub(crate) fn image(number: usize, layers: usize, layer_bytes: usize) -> Image {
    let of = |at: usize| {
        let number = u32::try_from(number * 64 + at).expect("few images");
        layer("app", seed().wrapping_mul(1_000_003).wrapping_add(number), layer_bytes + at)
    };
    Image::new("amd64", (0..layers).map(of).collect())
}

/// The SDK's usual attempts, with the pauses that everything else has.
fn retries(timeouts: Timeouts) -> RetryConfig {
    let usual = RetryConfig::standard();
    usual.with_initial_backoff(timeouts.first_pause).with_max_backoff(timeouts.longest_pause)
}

/// `docker save` of it.
pub(crate) fn tarball(image: &Image) -> Vec<u8> {
    docker_archive(&[(image, &[])])
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let pipeline = Pipeline::with(PROGRAM, Setup { no_functions: true, ..setup }).await;
        Self { pipeline, repositories: AtomicUsize::new(0) }
    }

    /// A repository that was not named yet.
    pub(crate) fn repository(&self) -> String {
        format!("team/app-{}", self.repositories.fetch_add(1, Ordering::Relaxed))
    }

    /// Import as the function makes it: its environment from the template, its role's key.
    pub(crate) fn importer(&self, timeouts: Timeouts, elsewhere: &Elsewhere) -> Importer {
        let stack = &self.pipeline.stack;
        let environment = &stack.template().functions["ImportFunction"].environment;
        let mut config = ImportConfig::from_lookup(|name| environment.get(name).cloned()).expect("the template's");
        if let Some(registry) = &elsewhere.registry {
            config.common.registry_endpoint = Some(registry.parse().expect("an address"));
        }
        let key = stack.gate().key_of(&Caller::Role("ImportFunction".to_owned())).expect("the function's role");
        let credentials = Credentials::new(key.id, key.secret, key.session_token, None, "tests");
        let endpoint = |other: &Option<String>| other.clone().unwrap_or_else(|| stack.endpoint().to_owned());
        // One client for each service, made alike.
        macro_rules! client {
            ($sdk:ident, $other:expr, $builder:expr) => {
                $sdk::Client::from_conf(
                    $builder
                        .behavior_version(BehaviorVersion::v2026_01_12())
                        .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
                        .endpoint_url(endpoint($other))
                        .http_client(Builder::new().build_http())
                        .timeout_config(timeouts.of_calls())
                        .retry_config(retries(timeouts))
                        // As in a function's process: what other cells use up is not its own.
                        .retry_partition($sdk::config::retry::RetryPartition::custom("one function").build())
                        .region(Region::new(account::REGION))
                        .build(),
                )
            };
        }
        let s3 = client!(aws_sdk_s3, &elsewhere.s3, aws_sdk_s3::Config::builder().force_path_style(true));
        let ecr = client!(aws_sdk_ecr, &elsewhere.ecr, aws_sdk_ecr::Config::builder());
        let events = client!(aws_sdk_eventbridge, &elsewhere.events, aws_sdk_eventbridge::Config::builder());
        let sns = client!(aws_sdk_sns, &elsewhere.events, aws_sdk_sns::Config::builder());
        let notifier = Notifier::new(events, sns, &config.common);
        rustls::crypto::ring::default_provider().install_default().ok();
        Importer::new(config, Clients { s3, ecr, notifier, tls: None, timeouts }, 1, now).expect("an importer")
    }

    /// One delivery of the upload's event.
    pub(crate) async fn deliver(&self, importer: &Importer, uploaded: &Uploaded, n: u32, time: Duration) -> Outcome {
        let created = ObjectCreated {
            bucket: "uploads".to_owned(),
            key: uploaded.key.clone(),
            version_id: Some(uploaded.version_id.clone()),
            etag: None,
            sequencer: None,
        };
        let attempt = Attempt { n, of: DELIVERIES };
        importer.import(&created, Delivery { attempt, deadline: Instant::now() + time }).await
    }

    /// See [`all_is_whole`].
    pub(crate) fn all_is_whole(&self, repository: &str, label: &str) {
        all_is_whole(&self.pipeline, repository, label);
    }

    /// How often people were told that something of `repository` is in ECR.
    pub(crate) fn told_imported(&self, repository: &str) -> usize {
        self.pipeline.told_of(repository).iter().filter(|told| told.starts_with("Image Imported")).count()
    }
}

/// Everything that can be seen in a repository is whole: each manifest's blobs and children are there, and each
/// blob is what it is called.
pub(crate) fn all_is_whole(pipeline: &Pipeline, repository: &str, label: &str) {
    let images = pipeline.stack.images();
    let Some(stored) = images.repository(repository) else { return };
    for (manifest, image) in &stored.images {
        let bytes = images.manifest_bytes(manifest).expect("the manifest is readable");
        assert_eq!(digest(&bytes), manifest.to_string(), "{label}");
        for child in &image.children {
            assert!(stored.images.contains_key(child), "{label}: {manifest} names {child}, which is not there");
        }
        for blob in &image.blobs {
            assert!(stored.blobs.contains(blob), "{label}: {manifest} names {blob}, which is not there");
        }
    }
    for blob in &stored.blobs {
        let bytes = std::fs::read(images.blob_path(blob)).expect("the blob is readable");
        assert_eq!(digest(&bytes), blob.to_string(), "{label}");
    }
    for (tag, manifest) in &stored.tags {
        assert!(stored.images.contains_key(manifest), "{label}: {tag} names {manifest}, which is not there");
        // An index has no layers of its own; its children were looked at above.
        if stored.images[manifest].children.is_empty() {
            check_image(images, repository, tag);
        }
    }
}
