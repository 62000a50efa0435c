//! S3 → ECR, end to end: the order of it all.
//!
//! Look at the object; plan; look up every name; make the repositories; send the blobs; put the manifests by digest;
//! then, and only then, the tags; write the receipt, and tell. Each step can be repeated, and a step that was done is
//! found done. What becomes of the images once they are in ECR is the business of [`crate::react`].

mod error;
mod in_order;
mod look_up;
mod progress;
mod schedule;
mod send;
mod source;
mod tags;
mod tell;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::archive::{Archive, Start, StoredIndex};
use crate::compress::Compressor;
use crate::config::{Compression, DEFAULT_GZIP_LEVEL, ImportConfig, RepositorySettings};
use crate::disposition::{Disposition, chain};
use crate::ecr::{Registry, RegistryError, Repositories, Settings, TokenSource};
use crate::event::ObjectCreated;
use crate::image::{Digest, Manifest, Repository};
use crate::limits;
use crate::naming::{IMAGE_METADATA, Upload};
use crate::notify::Notifier;
use crate::object::{Current, ObjectId, ReadAhead, S3Object};
use crate::plan::{Applied, Consumer, PLATFORM_METADATA, PROFILE_METADATA, Plan, PlannedImage};
use crate::react::Clients;
use crate::receipt::{
    Attempt, BlobReceipt, ImageReceipt, ImportOutcome, ImportSection, LayersDone, Reason, Receipt, Receipts, UploadId,
};
use crate::resources::Resources;
use crate::retry::{Disposed as _, redelivery};
use crate::state::image_record::UploadRecord;
use crate::state::{Documents, ImageRecord, ImageRecords, Ledger, StateError};
use crate::timeouts::Timeouts;

pub use error::ImportError;
pub use progress::TARGET as PROGRESS_TARGET;

pub(crate) use tell::failed as failed_notice;

use look_up::Standing;

/// The metadata entry that names the commit an image was built from: `x-amz-meta-revision` on the wire.
const REVISION_METADATA: &str = "revision";

/// Imports uploads, one at a time or several at once; made once for each process.
#[derive(Debug)]
pub struct Importer {
    s3: aws_sdk_s3::Client,
    registry: Registry,
    repositories: Repositories,
    compressor: Compressor,
    /// For consumers that take nothing else.
    gzip: Compressor,
    read_ahead: ReadAhead,
    resources: Resources,
    state: Documents,
    ledger: Ledger,
    records: ImageRecords,
    receipts: Receipts,
    notifier: Notifier,
    settings: RepositorySettings,
    prefix: String,
    upload_bucket: String,
    timeouts: Timeouts,
    consumer: Consumer,
    failed_queue_arn: Option<String>,
    now: fn() -> Timestamp,
}

/// One delivery of an upload's event.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// Which one it is.
    pub attempt: Attempt,
    /// When the function will be stopped.
    pub deadline: Instant,
}

/// How a delivery ended. The receipt is written in every case.
#[derive(Debug)]
pub enum Outcome {
    /// In ECR; the receipt says what was done.
    Done(Box<Receipt>),
    /// Refused for good, or overtaken: the message is done with.
    Refused {
        /// What was written.
        receipt: Box<Receipt>,
        /// Why.
        error: ImportError,
    },
    /// To be delivered again.
    Later {
        /// Why.
        error: ImportError,
        /// When.
        after: Duration,
    },
}

/// What a delivery has found out and done; read for its receipt however it ends.
#[derive(Debug, Default)]
struct Report {
    size_bytes: Option<u64>,
    layers: Option<LayersDone>,
    images: Vec<ImageReceipt>,
    left_out: Vec<String>,
    profile: Option<Applied>,
    settings_differ: Vec<String>,
    /// Whether the repositories let anybody put a tag of this upload on another image.
    tags_may_move: bool,
}

/// What it takes to write a receipt in the middle of a delivery.
struct ProgressReceipt<'a> {
    importer: &'a Importer,
    upload: &'a UploadId,
    attempt: Attempt,
    started_at: Timestamp,
    /// When the work has to end.
    until: Instant,
}

impl ProgressReceipt<'_> {
    async fn write(&self, report: &Report) -> Result<(), StateError> {
        let outcome = ImportOutcome::Importing;
        let section = self.importer.section(outcome, self.attempt, self.started_at, report, None);
        self.importer.receipts.import(self.upload, &section).await.map(|_| ())
    }
}

/// An image whose blobs are all in its repository.
struct Ready<'a> {
    planned: &'a PlannedImage,
    standing: &'a Standing,
    /// In the order in which they are put; the root among them.
    manifests: Vec<Arc<Manifest>>,
    root: Arc<Manifest>,
    config: Option<Digest>,
    blobs: Vec<BlobReceipt>,
}

impl Importer {
    /// An importer for `config` on `cores` processors. `now` is the clock.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unreachable`] when the TLS stack cannot be set up.
    pub fn new(
        config: ImportConfig,
        clients: Clients,
        cores: usize,
        now: fn() -> Timestamp,
    ) -> Result<Self, RegistryError> {
        let Clients { s3, ecr, notifier, tls, timeouts } = clients;
        let ImportConfig {
            common,
            queue,
            upload_bucket,
            repository_prefix,
            repository,
            compression,
            consumer,
            memory_mib,
        } = config;
        let resources = Resources::of_function(memory_mib, cores);
        let tokens = TokenSource::new(ecr.clone(), common.registry_endpoint, now);
        let state = Documents::new(s3.clone(), common.state_bucket);
        Ok(Self {
            registry: Registry::new(tokens, tls, timeouts)?,
            repositories: Repositories::new(ecr, common.stack.clone()),
            gzip: Compressor::new(Compression::Gzip { level: DEFAULT_GZIP_LEVEL }, resources.cores),
            compressor: Compressor::new(compression, resources.cores),
            read_ahead: ReadAhead::new(resources.ranges_at_once),
            resources,
            ledger: Ledger::new(state.clone()),
            records: ImageRecords::new(state.clone()),
            state,
            receipts: Receipts::new(s3.clone(), common.stack),
            notifier,
            settings: repository,
            prefix: repository_prefix,
            upload_bucket,
            timeouts,
            consumer,
            failed_queue_arn: queue.failed_queue_arn,
            s3,
            now,
        })
    }

    /// The bucket whose objects are uploads. What lies in another is none, whoever says that it was created.
    pub fn upload_bucket(&self) -> &str {
        &self.upload_bucket
    }

    /// Imports one object, and writes the receipt however it ends.
    ///
    /// Ends before the delivery's deadline, with a margin for the receipt; layers that were finished are in the
    /// ledger then, and the next delivery goes on from there.
    pub async fn import(&self, created: &ObjectCreated, delivery: Delivery) -> Outcome {
        let upload = UploadId::from(created);
        let started_at = (self.now)();
        let started = Instant::now();
        let left = delivery.deadline.saturating_duration_since(started);
        let margin = limits::DEADLINE_MARGIN.min(left / 5);
        let mut report = Report::default();
        let left = left.saturating_sub(margin);
        let run = Box::pin(self.run(&upload, delivery.attempt, started_at, left, &mut report));
        let result = match tokio::time::timeout(left, run).await {
            Ok(result) => result,
            Err(_) => Err(ImportError::OutOfTime { layers: report.layers }),
        };

        let error = result.err();
        let last = delivery.attempt.n >= delivery.attempt.of;
        let outcome = match &error {
            None => ImportOutcome::Imported,
            Some(error) if error.is_overtaken() => ImportOutcome::Superseded,
            Some(error) if error.disposition() == Disposition::Transient && !last => ImportOutcome::Importing,
            Some(_) => ImportOutcome::Failed,
        };
        let why = error.as_ref().map(|error| self.reason(error, last));
        let section = self.section(outcome, delivery.attempt, started_at, &report, why);
        let may_have_moved_tags = match outcome {
            ImportOutcome::Imported => report.tags_may_move,
            // An earlier delivery may have ended right after it put one.
            ImportOutcome::Superseded => true,
            ImportOutcome::Importing | ImportOutcome::Failed => false,
        };
        let finish = Box::pin(async {
            let receipt = self.receipts.import(&upload, &section).await?;
            if may_have_moved_tags {
                self.settle_tags(&upload).await?;
            }
            // Told only once it is written: the event makes others look at the receipt.
            self.tell(&upload, &receipt).await?;
            Ok(receipt)
        });
        // A last third is for handing the message back.
        let receipt = match tokio::time::timeout_at(delivery.deadline - margin / 3, finish).await {
            Ok(receipt) => receipt,
            Err(_) => Err(ImportError::OutOfTime { layers: report.layers }),
        };
        match (error, receipt) {
            (None, Ok(receipt)) => Outcome::Done(Box::new(receipt)),
            (Some(error), Ok(receipt)) if error.disposition() == Disposition::Permanent => {
                Outcome::Refused { receipt: Box::new(receipt), error }
            }
            (Some(error), written) => {
                if let Err(untold) = written {
                    tracing::error!(s3.key = upload.key, error = chain(&untold), "{}", untold_of(&untold));
                }
                let after = backoff(&error, delivery.attempt);
                Outcome::Later { error, after }
            }
            // Without its receipt, or untold, an upload is not finished.
            (None, Err(error)) => {
                let after = backoff(&error, delivery.attempt);
                Outcome::Later { error, after }
            }
        }
    }

    /// Why, in the receipt's words; after the last delivery of what was not the upload's fault, with the command that
    /// sends it round again.
    fn reason(&self, error: &ImportError, last: bool) -> Reason {
        let mut fix = error.fix();
        if let (true, Disposition::Transient, Some(arn)) = (last, error.disposition(), &self.failed_queue_arn) {
            fix.push_str(": aws sqs start-message-move-task --source-arn ");
            fix.push_str(arn);
        }
        Reason {
            kind: error.kind().to_owned(),
            text: chain(error),
            fix,
            upload_again_helps: error.upload_again_helps(),
        }
    }

    fn section(
        &self,
        outcome: ImportOutcome,
        attempt: Attempt,
        started_at: Timestamp,
        report: &Report,
        reason: Option<Reason>,
    ) -> ImportSection {
        let updated_at = (self.now)();
        ImportSection {
            outcome,
            attempt,
            started_at,
            updated_at,
            duration_ms: u64::try_from(updated_at.duration_since(started_at).as_millis()).unwrap_or(0),
            size_bytes: report.size_bytes,
            layers: report.layers,
            reason,
            images: report.images.clone(),
            left_out: report.left_out.clone(),
            profile: report.profile.clone(),
            settings_differ: report.settings_differ.clone(),
            told: false,
            resent: None,
        }
    }

    async fn run(
        &self,
        upload: &UploadId,
        attempt: Attempt,
        started_at: Timestamp,
        left: Duration,
        report: &mut Report,
    ) -> Result<(), ImportError> {
        let id =
            ObjectId { bucket: upload.bucket.clone(), key: upload.key.clone(), version_id: upload.version_id.clone() };
        let object = Arc::new(S3Object::open(&self.s3, id).await?);
        report.size_bytes = Some(object.head().length_bytes);
        still_wanted(&object).await?;
        let until = Instant::now() + left;
        let progress_receipt = ProgressReceipt { importer: self, upload, attempt, started_at, until };
        progress_receipt.write(report).await?;

        let metadata = |name: &str| object.head().metadata.get(name).map(String::as_str);
        let consumer = self.consumer.of_upload(metadata(PROFILE_METADATA), metadata(PLATFORM_METADATA))?;
        let image = metadata(IMAGE_METADATA);
        let naming = Upload { bucket: &upload.bucket, key: &upload.key, image, prefix: &self.prefix };
        let archive = Box::pin(self.archive(&object, left)).await?;
        let plan = Plan::of(&archive, &*object, naming, &consumer).await?;
        drop(archive);
        plan.refuse_what_takes_too_long(left, attempt.of)?;
        report.left_out.clone_from(&plan.left_out);
        report.profile.clone_from(&plan.profile);
        tracing::info!(s3.key = upload.key, layout = %plan.layout, images = plan.images.len(), "planned");

        let standings = self.look_up(&plan).await?;
        let mut repositories: BTreeMap<Repository, Settings> = BTreeMap::new();
        for planned in &plan.images {
            let repository = &planned.target.repository;
            if !repositories.contains_key(repository) {
                let settings = self.repositories.ensure(repository, &self.settings).await?;
                let differences = settings
                    .differences(&self.settings)
                    .into_iter()
                    .map(|difference| format!("{repository}: {difference}"));
                report.settings_differ.extend(differences);
                repositories.insert(repository.clone(), settings);
            }
            let settings = &repositories[repository];
            report.tags_may_move |= planned.target.tags.iter().any(|tag| !settings.is_immutable(tag));
        }

        let ready = self.send_all(&object, &plan, &standings, report, &progress_receipt).await?;
        // Asked again as late as possible: from here on tags move.
        still_wanted(&object).await?;
        let ready = self.put_by_digest(&object, &plan, &progress_receipt, ready).await?;
        for image in &ready {
            self.put_tags(image).await?;
        }
        // A newer version that came meanwhile may have put them before us. One that was deleted meanwhile is in ECR.
        if report.tags_may_move
            && let Current::Newer(version) = object.current().await?
        {
            return Err(ImportError::Superseded { version });
        }
        report.images = ready.iter().map(|image| image.receipt(&repositories)).collect();
        Ok(())
    }

    /// Where the files of the upload lie. What the first pass over a compressed archive found is kept in state, so that
    /// a later delivery of the same version skips it.
    async fn archive(&self, object: &Arc<S3Object>, left: Duration) -> Result<Archive, ImportError> {
        const WANTED: &str = "the index of a compressed archive";
        let start = Start::read(&**object).await?;
        if start.codec().is_none() {
            return Ok(Archive::open_at(object, start, left).await?);
        }
        let id = object.id();
        let version =
            [&id.bucket, &id.key, id.version_id.as_deref().unwrap_or_default(), &object.head().etag].join("\n");
        let key = format!("indexes/{}.json", Digest::of(version.as_bytes()).hex());
        let stored = self.state.read::<StoredIndex>(&key, WANTED).await?;
        if let Some(found) = stored.and_then(|stored| stored.value.read()) {
            return Ok(found);
        }
        let archive = Archive::open_at(object, start, left).await?;
        if let Some(stored) = StoredIndex::new(&archive) {
            self.state.put(&key, &stored).await?;
        }
        Ok(archive)
    }

    /// Puts every manifest of every image by its digest, children first.
    async fn put_by_digest<'a>(
        &self,
        object: &Arc<S3Object>,
        plan: &'a Plan,
        progress_receipt: &ProgressReceipt<'_>,
        ready: Vec<Ready<'a>>,
    ) -> Result<Vec<Ready<'a>>, ImportError> {
        let ProgressReceipt { upload, until, .. } = *progress_receipt;
        let record = UploadRecord {
            bucket: upload.bucket.clone(),
            key: upload.key.clone(),
            version_id: upload.version_id.clone(),
        };
        let mut done = Vec::with_capacity(ready.len());
        let revision = object.head().metadata.get(REVISION_METADATA).map(String::as_str);
        for mut image in ready {
            let target = &image.planned.target;
            let repository = &target.repository;
            let want = |known: &mut ImageRecord| known.want(image.config, &target.tags, revision, &record);
            self.records.update(repository, image.root.digest, want).await?;
            match self.put_manifests(&image).await {
                Err(ImportError::Registry(RegistryError::BlobsMissing { message, .. })) => {
                    // ECR may clean up a blob that no manifest names yet: send what is gone, once more.
                    tracing::warn!(ecr.repository = %repository, message, "blobs are gone; sending them again");
                    image = self.send_again(object, plan, image, until).await?;
                    self.put_manifests(&image).await?;
                }
                result => result?,
            }
            done.push(image);
        }
        Ok(done)
    }

    async fn put_manifests(&self, image: &Ready<'_>) -> Result<(), ImportError> {
        let repository = &image.planned.target.repository;
        if image.standing.is_unchanged() {
            return Ok(());
        }
        for manifest in &image.manifests {
            let digest = manifest.digest.to_string();
            match self.registry.put_manifest(repository, &digest, manifest).await {
                // A repository may call even a digest immutable; the same bytes are there then.
                Ok(()) | Err(RegistryError::TagTaken { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Ready<'_> {
    fn receipt(&self, repositories: &BTreeMap<Repository, Settings>) -> ImageReceipt {
        let target = &self.planned.target;
        let settings = repositories.get(&target.repository);
        let uri = settings.map_or_else(|| target.repository.to_string(), |settings| settings.uri.clone());
        let repository_arn = settings.map(|settings| settings.arn.clone()).filter(|arn| !arn.is_empty());
        let tag = target.tags.first().map(|tag| format!(":{tag}")).unwrap_or_default();
        ImageReceipt {
            repository: target.repository.clone(),
            tags: target.tags.clone(),
            digest: self.root.digest,
            uri: format!("{uri}{tag}"),
            repository_arn,
            image_id: self.config,
            platforms: self.planned.image.platforms(),
            named_by: target.named_by,
            unchanged: self.standing.is_unchanged(),
            blobs: self.blobs.clone(),
        }
    }
}

/// Whether this version is still the newest of its key.
async fn still_wanted(object: &S3Object) -> Result<(), ImportError> {
    match object.current().await? {
        Current::Yes => Ok(()),
        Current::Newer(version) => Err(ImportError::Superseded { version }),
        Current::Deleted => Err(ImportError::Deleted { object: object.id().clone() }),
    }
}

/// What could not be done at the end of a delivery that failed.
fn untold_of(error: &ImportError) -> &'static str {
    match error {
        ImportError::Notify(_) => "nobody could be told",
        _ => "the receipt could not be written",
    }
}

/// When a delivery that failed comes back: soon after progress, later and later otherwise. Who waited in vain for a
/// peer until the end made none.
fn backoff(error: &ImportError, attempt: Attempt) -> Duration {
    match error {
        ImportError::OutOfTime { layers: Some(layers) } if layers.sent_bytes > 0 => limits::CONTINUE_AFTER,
        ImportError::BeingTold => limits::CLAIM,
        _ => redelivery(attempt.n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_delivery_waits_longer_each_time_and_progress_does_not_wait() {
        let failed = ImportError::Nothing;
        let waits: Vec<u64> = (1..=10).map(|n| backoff(&failed, Attempt { n, of: 10 }).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
        for (sent_bytes, wait) in [(1, limits::CONTINUE_AFTER), (0, redelivery(7))] {
            let layers = Some(LayersDone { done: 1, of: 2, read_bytes: 0, sent_bytes });
            assert_eq!(backoff(&ImportError::OutOfTime { layers }, Attempt { n: 7, of: 10 }), wait, "{sent_bytes}");
        }
        assert_eq!(backoff(&ImportError::OutOfTime { layers: None }, Attempt { n: 1, of: 10 }), redelivery(1));
    }
}
