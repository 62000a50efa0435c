//! What an upload would become: which images, under which names, from which bytes. Nothing is changed by planning,
//! and a dry run is a printed plan.

mod profile;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::archive::{Archive, ArchiveError, ArchiveImage, Content, Contents, LayerBytes, Layout, Outer, Stored};
use crate::decompress::Codec;
use crate::image::{Digest, Repository, Tag};
use crate::limits;
use crate::naming::{self, NamedBy, NamingError, Target, Upload};
use crate::object::Source;

pub use profile::{Consumer, PLATFORM_METADATA, PROFILE_METADATA, Profile, ProfileError, platform_of};

use profile::ApplyError;

/// A whole upload, understood and named.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which of the two forms the archive has.
    pub layout: Layout,
    /// Each image and where it goes, in the archive's order.
    pub images: Vec<PlannedImage>,
    /// What the archive names and does not hold.
    pub left_out: Vec<String>,
    /// The upload's size.
    pub size_bytes: u64,
    /// The compression around the whole archive.
    pub outer: Option<Outer>,
    /// What was made of it for its consumer; absent where it stays as it is.
    pub profile: Option<Applied>,
}

/// What a profile made of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The profile.
    pub name: Profile,
    /// The platform, where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// What was changed, in words; nothing when the archive was right already.
    pub changes: Vec<String>,
}

/// One image and where it goes.
#[derive(Debug, Clone)]
pub struct PlannedImage {
    /// What it is made of.
    pub image: ArchiveImage,
    /// Where it goes.
    pub target: Target,
}

/// Why an upload cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The names.
    #[error(transparent)]
    Naming(#[from] NamingError),
    /// The consumer.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

impl From<ApplyError> for PlanError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Profile(error) => Self::Profile(error),
            ApplyError::Archive(error) => Self::Archive(error),
        }
    }
}

impl Plan {
    /// Finds the files of the archive, then its images, and names them; a delivery has the time `delivery`.
    ///
    /// # Errors
    ///
    /// [`PlanError`]; permanent unless the archive could not be read.
    pub async fn read<S: Source>(
        source: &Arc<S>,
        upload: Upload<'_>,
        consumer: &Consumer,
        delivery: Duration,
    ) -> Result<Self, PlanError> {
        let archive = Archive::open(source, delivery).await?;
        let plan = Self::of(&archive, &**source, upload, consumer).await?;
        plan.refuse_what_takes_too_long(delivery, limits::DELIVERIES)?;
        Ok(plan)
    }

    /// Refuses a layer that no delivery of the time `delivery` can finish, and an upload that `deliveries` of them
    /// cannot: any two in a row move what one could without waste.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::LayerTooSlow`] and [`ArchiveError::UploadTooSlow`], with the arithmetic; permanent.
    pub fn refuse_what_takes_too_long(&self, delivery: Duration, deliveries: u32) -> Result<(), ArchiveError> {
        let layer_bytes = limits::DELIVERY_BYTES_A_SECOND.saturating_mul(delivery.as_secs());
        let mut found_bytes = 0_u64;
        let mut known = BTreeSet::new();
        let extents = |planned: &'_ PlannedImage| {
            let repository = planned.target.repository.clone();
            planned
                .image
                .extents()
                .into_iter()
                .cloned()
                .map(move |extent| (repository.clone(), extent))
                .collect::<Vec<_>>()
        };
        for (repository, extent) in self.images.iter().flat_map(extents) {
            // What is in memory already is small; what goes to two repositories may have to be sent to both.
            if extent.content.is_some() || !known.insert((repository, extent.offset)) {
                continue;
            }
            if extent.size_bytes > layer_bytes {
                let (entry, found_bytes) = (extent.path, extent.size_bytes);
                return Err(ArchiveError::LayerTooSlow { entry, found_bytes, most_bytes: layer_bytes, delivery });
            }
            found_bytes = found_bytes.saturating_add(extent.size_bytes);
        }
        let most_bytes = layer_bytes.saturating_mul(u64::from(deliveries.div_ceil(2)));
        if found_bytes > most_bytes {
            return Err(ArchiveError::UploadTooSlow { found_bytes, most_bytes, deliveries, delivery });
        }
        Ok(())
    }

    /// Reads the JSON entries of an archive whose files are found, finds the images, and names them.
    ///
    /// # Errors
    ///
    /// [`PlanError`]; permanent unless the archive could not be read.
    pub async fn of(
        archive: &Archive,
        source: &impl Source,
        upload: Upload<'_>,
        consumer: &Consumer,
    ) -> Result<Self, PlanError> {
        let mut contents = Contents::read(source, archive).await?;
        let changes = profile::apply(consumer, &mut contents, archive, source).await?;
        let profile = (consumer.profile != Profile::Exact).then(|| Applied {
            name: consumer.profile,
            platform: (consumer.profile == Profile::Lambda).then(|| consumer.platform.to_string()),
            changes,
        });
        refuse_huge_layers(&contents.images)?;
        let targets = naming::resolve(upload, &contents.images)?;
        let images =
            contents.images.into_iter().zip(targets).map(|(image, target)| PlannedImage { image, target }).collect();
        let Contents { layout, left_out, .. } = contents;
        Ok(Self { layout, images, left_out, size_bytes: source.length_bytes(), outer: archive.outer, profile })
    }

    /// The plan as people and programs read it.
    pub fn view(&self) -> PlanView {
        PlanView {
            layout: self.layout.to_string(),
            size_bytes: self.size_bytes,
            compressed_with: self.outer.map(|outer| outer.codec),
            images: self.images.iter().map(PlannedImage::view).collect(),
            left_out: self.left_out.clone(),
            profile: self.profile.clone(),
        }
    }
}

/// ECR would take all of a layer before it refused it.
fn refuse_huge_layers(images: &[ArchiveImage]) -> Result<(), ArchiveError> {
    for image in images {
        if let Some(extent) = image.extents().into_iter().find(|extent| extent.size_bytes > limits::LAYER_BYTES) {
            return Err(ArchiveError::OverLimit {
                what: format!("the layer {:?}", extent.path),
                offset: extent.offset,
                found: extent.size_bytes,
                limit: limits::LAYER_BYTES,
            });
        }
    }
    Ok(())
}

/// A plan for printing.
#[derive(Debug, Clone, Serialize)]
pub struct PlanView {
    /// `Docker archive` or `OCI layout`.
    pub layout: String,
    /// The upload's size.
    pub size_bytes: u64,
    /// The compression around the whole archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compressed_with: Option<Codec>,
    /// The images.
    pub images: Vec<ImageView>,
    /// What the archive names and does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What was made of it for its consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Applied>,
}

/// One image of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct ImageView {
    /// Where it goes.
    pub repository: Repository,
    /// Under which tags.
    pub tags: Vec<Tag>,
    /// What named it.
    pub named_by: NamedBy,
    /// The config's digest: what `docker images` calls the image ID.
    pub image_id: Digest,
    /// The manifest's digest, where it is known before the layers are compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What it runs on.
    pub platforms: Vec<String>,
    /// What would be read and sent, unless ECR has it.
    pub blobs: Vec<BlobView>,
}

/// One config or layer of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct BlobView {
    /// The entry of the archive.
    pub entry: String,
    /// Where its bytes begin in the archive.
    pub offset: u64,
    /// How many there are.
    pub size_bytes: u64,
    /// What they hash to: the diff ID of a layer to be compressed, the digest of anything else.
    pub digest: Digest,
    /// What is done with them.
    pub action: Action,
}

/// What is done with the bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Compressed, then sent.
    Compress,
    /// Decompressed, compressed with gzip, then sent.
    Recompress,
    /// Sent as they are.
    Send,
    /// Left where its URLs say: a foreign layer.
    Leave,
}

impl PlannedImage {
    fn view(&self) -> ImageView {
        let (digest, blobs) = match &self.image.content {
            Content::Docker(image) => {
                let config = BlobView {
                    entry: image.config.extent.path.clone(),
                    offset: image.config.extent.offset,
                    size_bytes: image.config.extent.size_bytes,
                    digest: image.config.descriptor.digest,
                    action: Action::Send,
                };
                let layers = image.layers.iter().map(|layer| match &layer.bytes {
                    LayerBytes::Here { extent, stored } => BlobView {
                        entry: extent.path.clone(),
                        offset: extent.offset,
                        size_bytes: extent.size_bytes,
                        digest: layer.diff_id.0,
                        action: match stored {
                            Stored::Plain => Action::Compress,
                            Stored::Gzip | Stored::Zstd => Action::Send,
                            Stored::Recompressed(_) => Action::Recompress,
                        },
                    },
                    LayerBytes::Elsewhere(descriptor) => BlobView {
                        entry: descriptor.urls.first().cloned().unwrap_or_default(),
                        offset: 0,
                        size_bytes: descriptor.size_bytes,
                        digest: descriptor.digest,
                        action: Action::Leave,
                    },
                });
                (None, std::iter::once(config).chain(layers).collect())
            }
            Content::Oci(image) => {
                let blobs = image.blobs.iter().map(|blob| BlobView {
                    entry: blob.extent.path.clone(),
                    offset: blob.extent.offset,
                    size_bytes: blob.extent.size_bytes,
                    digest: blob.descriptor.digest,
                    action: Action::Send,
                });
                (Some(image.root().digest), blobs.collect())
            }
        };
        ImageView {
            repository: self.target.repository.clone(),
            tags: self.target.tags.clone(),
            named_by: self.target.named_by,
            image_id: self.image.id(),
            digest,
            platforms: self.image.platforms(),
            blobs,
        }
    }
}
