//! Getting every blob of every image into its repository: reused, mounted, or read, compressed and sent.
//!
//! Hash, compress and send are one pipeline with bounded windows; several blobs are under way at once. A blob that
//! fails for a transient reason is sent again from its first byte, in a new upload session.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::look_up::Standing;
use super::progress::{BlobProgress, Progress};
use super::source::{Copied, channel, copy_checked};
use super::{ImportError, Importer, ProgressReceipt, Ready, Report};
use crate::archive::{Blob, Content, DockerLayer, Extent, LayerBytes, Outer, Stored};
use crate::compress::{Compressor, LayerError, Spent, Sums};
use crate::disposition::Disposition;
use crate::image::manifest::Parsed;
use crate::image::{Descriptor, Digest, Manifest, MediaType, Repository};
use crate::limits;
use crate::object::{Body, S3Object};
use crate::plan::{Plan, PlannedImage, Profile};
use crate::receipt::{BlobReceipt, How};
use crate::retry::{Disposed as _, retry};
use crate::state::LayerRecord;

/// The ledger's format of layers that are passed through as they came.
const AS_IS: &str = "as-is-v1";

/// One blob that a repository must get; what several images share is one job.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) repository: &'a Repository,
    /// What its consumer takes.
    compressor: &'a Compressor,
    pub(super) what: What<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    /// A layer for which a descriptor is made, known by its diff ID.
    Layer { layer: &'a DockerLayer, extent: &'a Extent, stored: Stored },
    /// A config or layer whose digest is known.
    Blob(&'a Blob),
}

impl<'a> What<'a> {
    /// What tells jobs in one repository apart.
    pub(super) fn key(self) -> Digest {
        match self {
            Self::Layer { layer, .. } => layer.diff_id.0,
            Self::Blob(blob) => blob.descriptor.digest,
        }
    }

    pub(super) fn extent(self) -> &'a Extent {
        match self {
            Self::Layer { extent, .. } => extent,
            Self::Blob(blob) => &blob.extent,
        }
    }
}

/// What identifies a present blob: its repository and [`What::key`].
pub(super) type Key = (Repository, Digest);

impl Job<'_> {
    pub(super) fn key(&self) -> Key {
        (self.repository.clone(), self.what.key())
    }

    /// The ledger's name for what is done with a layer.
    fn format(&self, stored: Stored) -> String {
        match stored {
            Stored::Plain => self.compressor.format(),
            Stored::Gzip | Stored::Zstd => AS_IS.to_owned(),
            // Their entries have other sizes than the uncompressed bytes that the usual format is known by.
            Stored::Recompressed(codec) => format!("{}-from-{codec}", self.compressor.format()),
        }
    }
}

/// A blob that is in its repository now.
#[derive(Debug, Clone)]
pub(super) struct Present {
    descriptor: Descriptor,
    diff_id: Option<Digest>,
    how: How,
    read_bytes: u64,
}

/// A blob that was sent, and what the ledger is to know of it.
struct Sent {
    present: Present,
    record: Option<LayerRecord>,
}

pub(super) type PresentBlobs = HashMap<Key, Present>;

impl Importer {
    /// Gets the blobs of every image of `plan` that is not there already, and makes the manifests that Docker
    /// archives lack.
    pub(super) async fn send_all<'a>(
        &self,
        object: &Arc<S3Object>,
        plan: &'a Plan,
        standings: &'a [Standing],
        report: &mut Report,
        receipt: &ProgressReceipt<'_>,
    ) -> Result<Vec<Ready<'a>>, ImportError> {
        let images = || plan.images.iter().zip(standings);
        let missing = images().filter(|(_, standing)| standing.stored.is_none()).map(|(planned, _)| planned);
        let jobs = jobs(missing, self.compressor(plan));
        let progress = Progress::new(jobs.len(), receipt.until);
        report.layers = Some(progress.so_far());
        let present = self.run_all(object, plan.outer, jobs, &progress, report, Some(receipt)).await?;
        images().map(|(planned, standing)| ready(planned, standing, &present)).collect()
    }

    /// Gets the blobs of one image again, after the registry said that some are gone.
    pub(super) async fn send_again<'a>(
        &self,
        object: &Arc<S3Object>,
        plan: &'a Plan,
        image: Ready<'a>,
        until: Instant,
    ) -> Result<Ready<'a>, ImportError> {
        let jobs = jobs(std::iter::once(image.planned), self.compressor(plan));
        let progress = Progress::new(jobs.len(), until);
        let present = self.run_all(object, plan.outer, jobs, &progress, &mut Report::default(), None).await?;
        ready(image.planned, image.standing, &present)
    }

    /// The bytes of `extent`: from memory where they are there, else by ranges.
    pub(super) fn body(&self, object: &Arc<S3Object>, extent: &Extent) -> Body {
        match &extent.content {
            Some(content) => in_memory(content.clone()),
            None => self.read_ahead.stream(object, extent.range()),
        }
    }

    /// What compresses for the consumer of `plan`.
    fn compressor(&self, plan: &Plan) -> &Compressor {
        match &plan.profile {
            Some(profile) if profile.name == Profile::Lambda => &self.gzip,
            _ => &self.compressor,
        }
    }

    /// Runs the jobs: all at once where the archive can be read anywhere, in the order of the stream where it has to be
    /// decoded from its beginning.
    async fn run_all(
        &self,
        object: &Arc<S3Object>,
        outer: Option<Outer>,
        jobs: Vec<Job<'_>>,
        progress: &Progress,
        report: &mut Report,
        receipt: Option<&ProgressReceipt<'_>>,
    ) -> Result<PresentBlobs, ImportError> {
        let mut told = Told { progress, report, receipt, at: Instant::now() };
        match outer {
            None => self.run_jobs(object, jobs, &mut told).await,
            // Boxed, as the future of an import is large enough with one way in it.
            Some(outer) => Box::pin(self.run_in_order(object, outer.codec, jobs, &mut told)).await,
        }
    }

    /// Runs the jobs, several at once. After a failure none is started any more, and those under way are finished,
    /// so that the ledger keeps what they did; the first error is returned. What there is no time for is left to the
    /// next delivery.
    async fn run_jobs(
        &self,
        object: &Arc<S3Object>,
        jobs: Vec<Job<'_>>,
        told: &mut Told<'_>,
    ) -> Result<PresentBlobs, ImportError> {
        let stop = AtomicBool::new(false);
        let stop = &stop;
        let progress = told.progress;
        // Collected before it is a stream: a closure kept in a stream would tie the future to one lifetime.
        let jobs: Vec<_> = jobs
            .into_iter()
            .enumerate()
            .map(|(at, job)| async move {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                let outcome = self.run_job(object, at, job, progress).await;
                if outcome.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                Some(outcome.map(|present| present.map(|present| (job.key(), present))))
            })
            .collect();
        let mut under_way = stream::iter(jobs).buffer_unordered(self.resources.blobs_at_once);
        let mut present = PresentBlobs::new();
        let mut failure = None;
        let mut left_over = 0_usize;
        while let Some(outcome) = under_way.next().await {
            match outcome {
                Some(Ok(Some((key, blob)))) => drop(present.insert(key, blob)),
                Some(Ok(None)) => left_over += 1,
                Some(Err(error)) => failure = failure.or(Some(error)),
                None => {}
            }
            told.moved().await?;
        }
        if left_over > 0 && failure.is_none() {
            tracing::info!(blobs = left_over, "left to the next delivery");
            return Err(ImportError::OutOfTime { layers: Some(progress.so_far()) });
        }
        failure.map_or(Ok(present), Err)
    }

    /// Gets one blob there; nothing when there is no time for it.
    async fn run_job(
        &self,
        object: &Arc<S3Object>,
        at: usize,
        job: Job<'_>,
        progress: &Progress,
    ) -> Result<Option<Present>, ImportError> {
        let blob_progress = progress.of(at, job);
        let present = match self.without_bytes(job).await? {
            Some(present) => present,
            None if !progress.schedule.admitted(&blob_progress).await => return Ok(None),
            None => {
                let sending = retry("sending a blob", limits::BLOB_ATTEMPTS, &self.timeouts, || async {
                    let body = self.body(object, job.what.extent());
                    self.send(job, body, &blob_progress).await
                });
                let sent = tokio::select! {
                    sent = sending => Some(sent),
                    () = progress.schedule.crowded_out(&blob_progress) => None,
                };
                progress.schedule.leave(&blob_progress, matches!(sent, Some(Ok(_))));
                match sent {
                    Some(sent) => self.remember(job, sent?).await?,
                    None => return Ok(None),
                }
            }
        };
        finished(job, &present, progress, &blob_progress);
        Ok(Some(present))
    }

    /// The blob, when the repository has it or gets it without its bytes. A layer is known by what the ledger says it
    /// becomes: the repository has that, or can take it over from one below the same first folder, since knowing a
    /// diff ID is not possession.
    pub(super) async fn without_bytes(&self, job: Job<'_>) -> Result<Option<Present>, ImportError> {
        let (layer, extent, stored) = match job.what {
            What::Layer { layer, extent, stored } => (layer, extent, stored),
            What::Blob(blob) => {
                let descriptor = blob.descriptor.clone();
                let digest = descriptor.digest;
                let there = self.registry.blob_size(job.repository, digest).await?;
                return Ok(there.map(|_| Present { descriptor, diff_id: None, how: How::Reused, read_bytes: 0 }));
            }
        };
        let format = job.format(stored);
        let known = self.ledger.find(&format, layer.diff_id).await?;
        let Some(known) = known.filter(|known| known.entry_bytes == extent.size_bytes) else { return Ok(None) };
        let Some(how) = self.without_sending(job.repository, &known).await? else { return Ok(None) };
        if how == How::Mounted {
            let repositories = vec![job.repository.clone()];
            self.ledger.record(&format, &LayerRecord { repositories, ..known.clone() }).await?;
        }
        let descriptor = Descriptor::new(known.media_type.as_str(), known.digest, known.size_bytes);
        Ok(Some(Present { descriptor, diff_id: Some(layer.diff_id.0), how, read_bytes: 0 }))
    }

    /// Sends the blob, once, and remembers it.
    pub(super) async fn with_bytes(
        &self,
        job: Job<'_>,
        body: Body,
        progress: &Arc<BlobProgress>,
    ) -> Result<Present, ImportError> {
        let sent = self.send(job, body, progress).await?;
        self.remember(job, sent).await
    }

    /// Writes a layer that was sent into the ledger: no reason to send it again when that fails.
    async fn remember(&self, job: Job<'_>, sent: Sent) -> Result<Present, ImportError> {
        if let (Some(record), What::Layer { stored, .. }) = (&sent.record, job.what) {
            self.ledger.record(&job.format(stored), record).await?;
        }
        Ok(sent.present)
    }

    /// Sends the blob, once. Before anything is repeated the registry is asked whether it is there by now.
    async fn send(&self, job: Job<'_>, body: Body, progress: &Arc<BlobProgress>) -> Result<Sent, ImportError> {
        match job.what {
            What::Layer { layer, extent, stored } => {
                let sums = self.send_layer(job, layer, extent, stored, body, progress).await?;
                let media_type = match stored {
                    Stored::Plain | Stored::Recompressed(_) => job.compressor.media_type(),
                    Stored::Gzip => MediaType::OCI_LAYER_GZIP,
                    Stored::Zstd => MediaType::OCI_LAYER_ZSTD,
                };
                let record = LayerRecord {
                    diff_id: sums.diff_id,
                    uncompressed_bytes: sums.uncompressed_bytes,
                    digest: sums.digest,
                    size_bytes: sums.size_bytes,
                    entry_bytes: extent.size_bytes,
                    media_type: media_type.into(),
                    repositories: vec![job.repository.clone()],
                };
                let descriptor = Descriptor::new(media_type, sums.digest, sums.size_bytes);
                let diff_id = Some(sums.diff_id.0);
                let present = Present { descriptor, diff_id, how: How::Sent, read_bytes: extent.size_bytes };
                Ok(Sent { present, record: Some(record) })
            }
            What::Blob(blob) => {
                let descriptor = blob.descriptor.clone();
                if let Err(error) = self.send_blob(job.repository, blob, body, progress).await {
                    // The answer may be lost and the blob there: ask before repeating anything.
                    let there = self.registry.blob_size(job.repository, descriptor.digest).await?;
                    if there.is_none() || error.disposition() == Disposition::Permanent {
                        return Err(error);
                    }
                }
                let read_bytes = descriptor.size_bytes;
                Ok(Sent { present: Present { descriptor, diff_id: None, how: How::Sent, read_bytes }, record: None })
            }
        }
    }

    /// Whether the repository has the blob, or gets it without its bytes.
    async fn without_sending(&self, repository: &Repository, known: &LayerRecord) -> Result<Option<How>, ImportError> {
        if self.registry.blob_size(repository, known.digest).await?.is_some() {
            return Ok(Some(How::Reused));
        }
        let may_give = |other: &&Repository| *other != repository && other.first_folder() == repository.first_folder();
        let Some(from) = known.repositories.iter().find(may_give) else { return Ok(None) };
        match self.registry.mount(repository, known.digest, from).await {
            Ok(true) => Ok(Some(How::Mounted)),
            Ok(false) => Ok(None),
            Err(error) => {
                // Whatever stands in the way of mounting, the bytes can be sent.
                let error = crate::disposition::chain(&error);
                tracing::warn!(ecr.repository = %repository, ecr.from = %from, error, "mounting failed");
                Ok(None)
            }
        }
    }

    /// Reads, compresses and sends a layer in one pass; it is committed only if its content is what the image
    /// config says.
    async fn send_layer(
        &self,
        job: Job<'_>,
        layer: &DockerLayer,
        extent: &Extent,
        stored: Stored,
        body: Body,
        progress: &Arc<BlobProgress>,
    ) -> Result<Sums, ImportError> {
        let repository = job.repository;
        let upload = self.registry.start(repository).await?;
        let (output, request) = channel();
        let compressor = job.compressor.clone();
        let told = Arc::clone(progress);
        let produce = async move {
            let failed = output.clone();
            let sums = compressor.run(body, stored, output, move |read, sent| told.moved(read, sent)).await;
            if sums.is_err() {
                // An end that is an error breaks the request, so the registry does not wait for more.
                failed.send(Err(std::io::ErrorKind::InvalidData.into())).await.ok();
            }
            sums
        };
        let producer = AbortOnDropHandle::new(tokio::spawn(produce.in_current_span()));
        let appended = self.registry.append(upload, request).await;
        let entry = || extent.path.clone();
        let sums = match (producer.await, appended) {
            // The registry ended it, or did not take the end of it; its error says why.
            (Ok(Err(LayerError::Abandoned) | Ok(_)), Err(error)) => return Err(error.into()),
            (Ok(Err(source)), _) => return Err(ImportError::Layer { entry: entry(), source }),
            (Err(source), _) => {
                return Err(ImportError::Layer { entry: entry(), source: LayerError::Thread(source) });
            }
            (Ok(Ok((sums, spent))), Ok(upload)) => {
                log_spent(&entry(), sums, spent);
                if sums.diff_id != layer.diff_id {
                    return Err(ImportError::WrongDiffId {
                        entry: entry(),
                        found: sums.diff_id.0,
                        wanted: layer.diff_id.0,
                    });
                }
                if let Err(error) = self.registry.commit(upload, sums.digest).await {
                    // The answer may be lost and the blob there: ask before repeating anything.
                    if self.registry.blob_size(repository, sums.digest).await?.is_none() {
                        return Err(error.into());
                    }
                }
                sums
            }
        };
        Ok(sums)
    }

    /// Sends a config or layer whose digest is known before it is read.
    async fn send_blob(
        &self,
        repository: &Repository,
        blob: &Blob,
        body: Body,
        progress: &Arc<BlobProgress>,
    ) -> Result<(), ImportError> {
        let (digest, size_bytes) = (blob.descriptor.digest, blob.descriptor.size_bytes);
        let upload = self.registry.start(repository).await?;
        let (output, request) = channel();
        let told = Arc::clone(progress);
        let copy = async move { copy_checked(body, digest, output, |sent| told.moved(sent, sent)).await };
        let copy = AbortOnDropHandle::new(tokio::spawn(copy.in_current_span()));
        let put = self.registry.put_blob(upload, digest, size_bytes, request).await;
        match (copy.await, put) {
            (Ok(Ok(Copied::Wrong(found))), _) => {
                Err(ImportError::WrongBlob { entry: blob.extent.path.clone(), found, wanted: digest })
            }
            (Ok(Err(error)), _) => Err(error.into()),
            (Err(error), _) => {
                Err(ImportError::Layer { entry: blob.extent.path.clone(), source: LayerError::Thread(error) })
            }
            (Ok(Ok(Copied::Whole | Copied::Abandoned)), put) => Ok(put?),
        }
    }
}

fn in_memory(content: Bytes) -> Body {
    stream::iter([Ok(content)]).boxed()
}

/// Says where the time of a layer went that was sent. What is large tells what to change: `compress_ms` the memory size or
/// `Compression`, `read_ms` and `send_ms` nothing, as they are the network.
fn log_spent(entry: &str, sums: Sums, spent: Spent) {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        entry,
        read_bytes = sums.uncompressed_bytes,
        sent_bytes = sums.size_bytes,
        read_ms = ms(spent.reading),
        hash_ms = ms(spent.hashing),
        compress_ms = ms(spent.compressing),
        wait_ms = ms(spent.waiting),
        send_ms = ms(spent.sending),
        "layer sent"
    );
}

/// Says that a blob is there, to whoever follows.
pub(super) fn finished(job: Job<'_>, present: &Present, progress: &Progress, blob_progress: &BlobProgress) {
    let sent_bytes = if present.how == How::Sent { present.descriptor.size_bytes } else { 0 };
    progress.finished(blob_progress, present.how, present.read_bytes, sent_bytes);
    tracing::info!(
        ecr.repository = %job.repository,
        blob.digest = %present.descriptor.digest,
        blob.size_bytes = present.descriptor.size_bytes,
        blob.how = ?present.how,
        "blob present"
    );
}

/// Who hears how far the blobs are.
pub(super) struct Told<'a> {
    pub(super) progress: &'a Progress,
    report: &'a mut Report,
    receipt: Option<&'a ProgressReceipt<'a>>,
    at: Instant,
}

impl Told<'_> {
    /// Notes how far they are, and now and then writes it into the receipt.
    pub(super) async fn moved(&mut self) -> Result<(), ImportError> {
        self.report.layers = Some(self.progress.so_far());
        if let Some(receipt) = self.receipt
            && self.at.elapsed() >= limits::PROGRESS_RECEIPT_EVERY
        {
            receipt.write(self.report).await?;
            self.at = Instant::now();
        }
        Ok(())
    }
}

/// The blobs that `images` need, each once for each repository; the largest first, so that none is left at the end for
/// one core and one connection.
fn jobs<'a>(images: impl Iterator<Item = &'a PlannedImage>, compressor: &'a Compressor) -> Vec<Job<'a>> {
    let mut jobs: Vec<Job<'a>> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for planned in images {
        let repository = &planned.target.repository;
        let whats: Vec<What<'a>> = match &planned.image.content {
            Content::Docker(image) => {
                let layers = image.layers.iter().filter_map(|layer| match &layer.bytes {
                    LayerBytes::Here { extent, stored } => Some(What::Layer { layer, extent, stored: *stored }),
                    LayerBytes::Elsewhere(_) => None,
                });
                layers.chain([What::Blob(&image.config)]).collect()
            }
            Content::Oci(image) => image.blobs.iter().map(What::Blob).collect(),
        };
        let new = whats.into_iter().filter(|what| known.insert((repository, what.key())));
        jobs.extend(new.map(|what| Job { repository, compressor, what }));
    }
    jobs.sort_by_key(|job| std::cmp::Reverse(job.what.extent().size_bytes));
    jobs
}

/// The image's manifests, now that every blob is there.
fn ready<'a>(
    planned: &'a PlannedImage,
    standing: &'a Standing,
    present: &PresentBlobs,
) -> Result<Ready<'a>, ImportError> {
    let repository = &planned.target.repository;
    let found = |digest: Digest| present.get(&(repository.clone(), digest)).ok_or(ImportError::Nothing);
    if let Some(stored) = &standing.stored {
        let root = Arc::clone(stored);
        let (manifests, config, blobs) = match &planned.image.content {
            Content::Oci(image) => (
                image.manifests.iter().map(|manifest| Arc::clone(&manifest.manifest)).collect(),
                image.config,
                image.blobs.iter().map(|blob| reused(&blob.descriptor)).collect(),
            ),
            Content::Docker(image) => {
                (vec![Arc::clone(&root)], Some(image.config.descriptor.digest), all_reused(&root))
            }
        };
        return Ok(Ready { planned, standing, manifests, root, config, blobs });
    }
    let receipt = |present: &Present| BlobReceipt {
        digest: present.descriptor.digest,
        size_bytes: present.descriptor.size_bytes,
        diff_id: present.diff_id,
        how: present.how,
    };
    match &planned.image.content {
        Content::Docker(image) => {
            let config = found(image.config.descriptor.digest)?;
            let mut layers = Vec::new();
            let mut descriptors = Vec::with_capacity(image.layers.len());
            for layer in &image.layers {
                match &layer.bytes {
                    LayerBytes::Here { .. } => {
                        let present = found(layer.diff_id.0)?;
                        layers.push(present);
                        descriptors.push(present.descriptor.clone());
                    }
                    LayerBytes::Elsewhere(descriptor) => descriptors.push(descriptor.clone()),
                }
            }
            // Serialising plain records does not fail; were it to, nothing would have been put.
            let manifest = Manifest::build(&config.descriptor, &descriptors).map_err(|_never| ImportError::Nothing)?;
            let root = Arc::new(manifest);
            let blobs = std::iter::once(config).chain(layers).map(receipt).collect();
            let config = Some(config.descriptor.digest);
            Ok(Ready { planned, standing, manifests: vec![Arc::clone(&root)], root, config, blobs })
        }
        Content::Oci(image) => {
            let blobs: Vec<BlobReceipt> =
                image.blobs.iter().map(|blob| found(blob.descriptor.digest).map(receipt)).collect::<Result<_, _>>()?;
            let manifests: Vec<Arc<Manifest>> =
                image.manifests.iter().map(|manifest| Arc::clone(&manifest.manifest)).collect();
            let root = manifests.get(image.root_at).map(Arc::clone).ok_or(ImportError::Nothing)?;
            Ok(Ready { planned, standing, manifests, root, config: image.config, blobs })
        }
    }
}

fn reused(descriptor: &Descriptor) -> BlobReceipt {
    let Descriptor { digest, size_bytes, .. } = *descriptor;
    BlobReceipt { digest, size_bytes, diff_id: None, how: How::Reused }
}

fn all_reused(manifest: &Manifest) -> Vec<BlobReceipt> {
    match &manifest.parsed {
        Parsed::Image(image) => std::iter::once(&image.config).chain(&image.layers).map(reused).collect(),
        Parsed::Index(_) => Vec::new(),
    }
}
