//! Getting every blob of every image into its repository: reused, mounted, or read, compressed and sent.
//!
//! Hash, compress and send are one pipeline with bounded windows; several blobs are under way at once. A blob that
//! fails for a transient reason is sent again from its first byte, in a new upload session.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::{self, StreamExt as _};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::look_up::Standing;
use super::progress::{BlobProgress, Progress};
use super::source::{Copied, channel, copy_checked};
use super::{ImportError, Importer, ProgressReceipt, Ready, Report};
use crate::archive::{Blob, Content, DockerLayer, Stored};
use crate::compress::{LayerError, Sums};
use crate::image::manifest::Parsed;
use crate::image::{Descriptor, Digest, Manifest, MediaType, Repository};
use crate::limits;
use crate::object::{S3Object, stream};
use crate::plan::{Plan, PlannedImage};
use crate::receipt::{BlobReceipt, How};
use crate::retry::retry;
use crate::state::LayerRecord;

/// The ledger's format of layers that are passed through as they came.
const AS_IS: &str = "as-is-v1";

/// One blob that a repository must get; what several images share is one job.
struct Job<'a> {
    repository: &'a Repository,
    what: What<'a>,
}

enum What<'a> {
    /// A layer of a Docker archive, known by its diff ID.
    Layer(&'a DockerLayer),
    /// A config or layer whose digest is known.
    Blob(&'a Blob),
}

impl What<'_> {
    /// What tells jobs in one repository apart.
    fn key(&self) -> Digest {
        match self {
            Self::Layer(layer) => layer.diff_id.0,
            Self::Blob(blob) => blob.descriptor.digest,
        }
    }

    fn entry(&self) -> (&str, u64) {
        let extent = match self {
            Self::Layer(layer) => &layer.extent,
            Self::Blob(blob) => &blob.extent,
        };
        (&extent.path, extent.size_bytes)
    }
}

/// A blob that is in its repository now.
#[derive(Debug, Clone)]
struct Present {
    descriptor: Descriptor,
    diff_id: Option<Digest>,
    how: How,
    read_bytes: u64,
}

type PresentBlobs = HashMap<(Repository, Digest), Present>;

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
        let jobs = jobs(images().filter(|(_, standing)| standing.stored.is_none()).map(|(planned, _)| planned));
        let progress = Progress::new(jobs.len());
        report.layers = Some(progress.so_far());
        let present = self.run_jobs(object, jobs, &progress, report, Some(receipt)).await?;
        images().map(|(planned, standing)| ready(planned, standing, &present)).collect()
    }

    /// Gets the blobs of one image again, after the registry said that some are gone.
    pub(super) async fn send_again<'a>(
        &self,
        object: &Arc<S3Object>,
        image: Ready<'a>,
    ) -> Result<Ready<'a>, ImportError> {
        let jobs = jobs(std::iter::once(image.planned));
        let progress = Progress::new(jobs.len());
        let present = self.run_jobs(object, jobs, &progress, &mut Report::default(), None).await?;
        ready(image.planned, image.standing, &present)
    }

    /// Runs the jobs, several at once. After a failure none is started any more, and those under way are finished,
    /// so that the ledger keeps what they did; the first error is returned.
    async fn run_jobs(
        &self,
        object: &Arc<S3Object>,
        jobs: Vec<Job<'_>>,
        progress: &Progress,
        report: &mut Report,
        receipt: Option<&ProgressReceipt<'_>>,
    ) -> Result<PresentBlobs, ImportError> {
        let stop = AtomicBool::new(false);
        let stop = &stop;
        // Collected before it is a stream: a closure kept in a stream would tie the future to one lifetime.
        let jobs: Vec<_> = jobs
            .into_iter()
            .enumerate()
            .map(|(at, job)| async move {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                let outcome = self.run_job(object, at, &job, progress).await;
                if outcome.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                Some(outcome.map(|present| ((job.repository.clone(), job.what.key()), present)))
            })
            .collect();
        let mut under_way = stream::iter(jobs).buffer_unordered(limits::LAYERS_AT_ONCE);
        let mut present = PresentBlobs::new();
        let mut failure = None;
        let mut told = Instant::now();
        while let Some(outcome) = under_way.next().await {
            match outcome {
                Some(Ok((key, blob))) => drop(present.insert(key, blob)),
                Some(Err(error)) => failure = failure.or(Some(error)),
                None => {}
            }
            report.layers = Some(progress.so_far());
            if let Some(receipt) = receipt
                && told.elapsed() >= limits::PROGRESS_RECEIPT_EVERY
            {
                receipt.write(report).await?;
                told = Instant::now();
            }
        }
        failure.map_or(Ok(present), Err)
    }

    async fn run_job(
        &self,
        object: &Arc<S3Object>,
        at: usize,
        job: &Job<'_>,
        progress: &Progress,
    ) -> Result<Present, ImportError> {
        let (entry, entry_bytes) = job.what.entry();
        let blob_progress = Arc::new(progress.blob(at, entry, entry_bytes));
        let present = match job.what {
            What::Layer(layer) => self.layer(object, job.repository, layer, &blob_progress).await?,
            What::Blob(blob) => self.blob(object, job.repository, blob, &blob_progress).await?,
        };
        let sent_bytes = if present.how == How::Sent { present.descriptor.size_bytes } else { 0 };
        progress.finished(&blob_progress, present.how, present.read_bytes, sent_bytes);
        tracing::info!(
            ecr.repository = %job.repository,
            blob.digest = %present.descriptor.digest,
            blob.size_bytes = present.descriptor.size_bytes,
            blob.how = ?present.how,
            "blob present"
        );
        Ok(present)
    }

    /// A layer of a Docker archive. Not read at all when the ledger knows what it becomes and the repository has
    /// that, or can take it over from one below the same first folder: knowing a diff ID is not possession.
    async fn layer(
        &self,
        object: &Arc<S3Object>,
        repository: &Repository,
        layer: &DockerLayer,
        progress: &Arc<BlobProgress>,
    ) -> Result<Present, ImportError> {
        let format = match layer.stored {
            Stored::Plain => self.compressor.format(),
            Stored::Gzip => AS_IS.to_owned(),
        };
        let known = self.ledger.find(&format, layer.diff_id).await?;
        if let Some(known) = known.filter(|known| known.entry_bytes == layer.extent.size_bytes)
            && let Some(how) = self.without_sending(repository, &known).await?
        {
            if how == How::Mounted {
                let repositories = vec![repository.clone()];
                self.ledger.record(&format, &LayerRecord { repositories, ..known.clone() }).await?;
            }
            let descriptor = Descriptor::new(known.media_type.as_str(), known.digest, known.size_bytes);
            return Ok(Present { descriptor, diff_id: Some(layer.diff_id.0), how, read_bytes: 0 });
        }
        let sums =
            retry("sending a layer", limits::BLOB_ATTEMPTS, || self.send_layer(object, repository, layer, progress))
                .await?;
        let record = LayerRecord {
            diff_id: sums.diff_id,
            uncompressed_bytes: sums.uncompressed_bytes,
            digest: sums.digest,
            size_bytes: sums.size_bytes,
            entry_bytes: layer.extent.size_bytes,
            media_type: MediaType::OCI_LAYER_GZIP.into(),
            repositories: vec![repository.clone()],
        };
        self.ledger.record(&format, &record).await?;
        let descriptor = Descriptor::new(MediaType::OCI_LAYER_GZIP, sums.digest, sums.size_bytes);
        let read_bytes = layer.extent.size_bytes;
        Ok(Present { descriptor, diff_id: Some(sums.diff_id.0), how: How::Sent, read_bytes })
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
        object: &Arc<S3Object>,
        repository: &Repository,
        layer: &DockerLayer,
        progress: &Arc<BlobProgress>,
    ) -> Result<Sums, ImportError> {
        let upload = self.registry.start(repository).await?;
        let (output, request) = channel();
        let body = stream(object, layer.extent.range());
        let (compressor, stored) = (self.compressor.clone(), layer.stored);
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
        let entry = || layer.extent.path.clone();
        let sums = match (producer.await, appended) {
            // The registry ended it, or did not take the end of it; its error says why.
            (Ok(Err(LayerError::Abandoned) | Ok(_)), Err(error)) => return Err(error.into()),
            (Ok(Err(source)), _) => return Err(ImportError::Layer { entry: entry(), source }),
            (Err(source), _) => {
                return Err(ImportError::Layer { entry: entry(), source: LayerError::Thread(source) });
            }
            (Ok(Ok(sums)), Ok(upload)) => {
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

    /// A config or layer whose digest is known before it is read.
    async fn blob(
        &self,
        object: &Arc<S3Object>,
        repository: &Repository,
        blob: &Blob,
        progress: &Arc<BlobProgress>,
    ) -> Result<Present, ImportError> {
        let digest = blob.descriptor.digest;
        let how = retry("sending a blob", limits::BLOB_ATTEMPTS, || async {
            if self.registry.blob_size(repository, digest).await?.is_some() {
                return Ok(How::Reused);
            }
            self.send_blob(object, repository, blob, progress).await.map(|()| How::Sent)
        })
        .await?;
        let read_bytes = if how == How::Sent { blob.descriptor.size_bytes } else { 0 };
        Ok(Present { descriptor: blob.descriptor.clone(), diff_id: None, how, read_bytes })
    }

    async fn send_blob(
        &self,
        object: &Arc<S3Object>,
        repository: &Repository,
        blob: &Blob,
        progress: &Arc<BlobProgress>,
    ) -> Result<(), ImportError> {
        let (digest, size_bytes) = (blob.descriptor.digest, blob.descriptor.size_bytes);
        let upload = self.registry.start(repository).await?;
        let (output, request) = channel();
        let body = stream(object, blob.extent.range());
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

/// The blobs that `images` need, each once for each repository, in the order of the images.
fn jobs<'a>(images: impl Iterator<Item = &'a PlannedImage>) -> Vec<Job<'a>> {
    let mut jobs: Vec<Job<'a>> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for planned in images {
        let repository = &planned.target.repository;
        let whats: Vec<What<'a>> = match &planned.image.content {
            Content::Docker(image) => image.layers.iter().map(What::Layer).chain([What::Blob(&image.config)]).collect(),
            Content::Oci(image) => image.blobs.iter().map(What::Blob).collect(),
        };
        let new = whats.into_iter().filter(|what| known.insert((repository, what.key())));
        jobs.extend(new.map(|what| Job { repository, what }));
    }
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
            let layers: Vec<&Present> =
                image.layers.iter().map(|layer| found(layer.diff_id.0)).collect::<Result<_, _>>()?;
            let descriptors: Vec<Descriptor> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
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
