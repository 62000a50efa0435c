//! What ECR says of the names before anything is sent: one conflict refuses the whole upload, and no tag is left
//! behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ImportError, Importer};
use crate::archive::{ArchiveImage, Content, LayerBytes, Stored};
use crate::ecr::{Settings, StoredManifest};
use crate::image::{Manifest, MediaType, Repository, Tag};
use crate::plan::{Plan, PlannedImage};

/// Where one image of the upload stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// The manifest under which ECR already has this image, whole.
    pub(super) stored: Option<Arc<Manifest>>,
    to_put: Vec<Tag>,
}

impl Standing {
    /// Whether there is nothing to do: every tag names this image, and all of it is there.
    pub(super) fn is_unchanged(&self) -> bool {
        self.stored.is_some() && self.to_put.is_empty()
    }

    /// The tags that do not name the image yet.
    pub(super) fn tags_to_put(&self) -> &[Tag] {
        &self.to_put
    }
}

impl Importer {
    /// Looks up every repository and every tag of the plan: two requests for each repository, one for each tag, and
    /// one for each blob of an image that is there already.
    pub(super) async fn look_up(&self, plan: &Plan) -> Result<Vec<Standing>, ImportError> {
        let mut known: BTreeMap<&Repository, Option<Settings>> = BTreeMap::new();
        for planned in &plan.images {
            let repository = &planned.target.repository;
            if !known.contains_key(repository) {
                known.insert(repository, self.repositories.find(repository).await?);
            }
        }
        let mut standings = Vec::with_capacity(plan.images.len());
        for planned in &plan.images {
            let settings = known.get(&planned.target.repository).and_then(Option::as_ref);
            standings.push(match settings {
                Some(settings) => self.standing(planned, settings).await?,
                None => Standing { stored: None, to_put: planned.target.tags.clone() },
            });
        }
        Ok(standings)
    }

    async fn standing(&self, planned: &PlannedImage, settings: &Settings) -> Result<Standing, ImportError> {
        let repository = &planned.target.repository;
        let mut standing = Standing::default();
        for tag in &planned.target.tags {
            let Some(stored) = self.registry.manifest(repository, tag.as_str()).await? else {
                standing.to_put.push(tag.clone());
                continue;
            };
            let found = stored.digest;
            match same_image(&planned.image, stored) {
                Some(manifest) if self.is_whole(repository, &planned.image, &manifest).await? => {
                    standing.stored.get_or_insert(manifest);
                }
                None if settings.is_immutable(tag) => {
                    return Err(ImportError::TagConflict {
                        repository: repository.clone(),
                        tag: tag.clone(),
                        found: found.to_string(),
                        wanted: planned.image.id().to_string(),
                    });
                }
                // Another image under a tag that may move, or this one with blobs that are gone: they are sent again,
                // under the same digests.
                Some(_) | None => standing.to_put.push(tag.clone()),
            }
        }
        Ok(standing)
    }

    /// Whether the repository has every blob, in its size.
    async fn is_whole(
        &self,
        repository: &Repository,
        image: &ArchiveImage,
        manifest: &Manifest,
    ) -> Result<bool, ImportError> {
        let blobs: Vec<_> = match (&image.content, manifest.as_image()) {
            (Content::Oci(image), _) => image.blobs.iter().map(|blob| &blob.descriptor).collect(),
            (Content::Docker(_), Some(stored)) => std::iter::once(&stored.config).chain(&stored.layers).collect(),
            (Content::Docker(_), None) => return Ok(false),
        };
        for blob in blobs {
            if self.registry.blob_size(repository, blob.digest).await?.is_none() {
                return Ok(false);
            }
        }
        // The manifests below an index are looked at by the verification that follows in any case.
        Ok(true)
    }
}

/// `stored` as a manifest, when it is the image of the archive: the same digest for an OCI layout; the same config
/// and as many layers for a Docker archive, whose compressed digests differ between settings and versions.
fn same_image(image: &ArchiveImage, stored: StoredManifest) -> Option<Arc<Manifest>> {
    match &image.content {
        Content::Oci(image) => {
            let root = image.manifests.iter().find(|manifest| manifest.manifest.digest == stored.digest)?;
            (root.manifest.digest == image.root().digest).then(|| Arc::clone(&root.manifest))
        }
        Content::Docker(image) => {
            let is_image = matches!(stored.media_type.as_str(), MediaType::OCI_MANIFEST | MediaType::DOCKER_MANIFEST);
            let manifest = Manifest::parse(stored.bytes, stored.media_type).ok().filter(|_| is_image)?;
            let parsed = manifest.as_image()?;
            // A consumer that takes no zstd is not served by an image that has it.
            let zstd = |layer: &LayerBytes| matches!(layer, LayerBytes::Here { stored: Stored::Zstd, .. });
            let served = parsed
                .layers
                .iter()
                .zip(&image.layers)
                .all(|(stored, layer)| !stored.media_type.is_zstd_layer() || zstd(&layer.bytes));
            let same =
                parsed.config.digest == image.config.descriptor.digest && parsed.layers.len() == image.layers.len();
            (same && served).then(|| Arc::new(manifest))
        }
    }
}
