//! Tags: put when all that they name is there, and left where the newest version of a key wants them.

use super::{ImportError, Importer, Ready};
use crate::archive::Content;
use crate::ecr::RegistryError;
use crate::image::Tag;
use crate::receipt::{ImageReceipt, UploadId};
use crate::state::image_record::UploadRecord;

impl Importer {
    /// Puts the tags of an image that do not name it yet, and those of its companions.
    pub(super) async fn put_tags(&self, image: &Ready<'_>) -> Result<(), ImportError> {
        let repository = &image.planned.target.repository;
        for tag in image.standing.tags_to_put() {
            match self.registry.put_manifest(repository, tag.as_str(), &image.root).await {
                Ok(()) => {}
                Err(RegistryError::TagTaken { .. }) => {
                    // ECR answers so even when the digest is the same: whose is it?
                    let stored = self.registry.manifest(repository, tag.as_str()).await?;
                    let found = stored.map(|stored| stored.digest);
                    if found != Some(image.root.digest) {
                        return Err(ImportError::TagConflict {
                            repository: repository.clone(),
                            tag: tag.clone(),
                            found: found.map_or_else(|| "another image".to_owned(), |digest| digest.to_string()),
                            wanted: image.root.digest.to_string(),
                        });
                    }
                }
                Err(error) => return Err(error.into()),
            }
            tracing::info!(ecr.repository = %repository, ecr.tag = %tag, image.digest = %image.root.digest, "tagged");
        }
        self.put_companion_tags(image).await
    }

    /// Tags the signatures that are found by a tag made from their image's digest. One that is there already stays
    /// where the repository says so: the image is no worse for it.
    async fn put_companion_tags(&self, image: &Ready<'_>) -> Result<(), ImportError> {
        let Content::Oci(content) = &image.planned.image.content else { return Ok(()) };
        let repository = &image.planned.target.repository;
        if image.standing.is_unchanged() {
            return Ok(());
        }
        for (companion, tag) in content.manifests.iter().filter_map(|of| Some((&of.manifest, of.tag.as_ref()?))) {
            match self.registry.put_manifest(repository, tag.as_str(), companion).await {
                Ok(()) => {}
                Err(RegistryError::TagTaken { .. }) => {
                    tracing::warn!(ecr.repository = %repository, ecr.tag = %tag, "the tag is taken; left as it is");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Leaves tags that may move on the images of the newest version of `upload`'s key.
    ///
    /// S3 says which version counts, ECR takes the tags, and nothing makes both one step: an older version that asked
    /// just before a newer one came may put a tag after it. So who may have done that looks again: the older version as
    /// soon as it learns what it is, and the newest when its receipt is written, so that whichever looks last sees what
    /// the other did. One that has no room for a receipt is not found here.
    ///
    /// # Errors
    ///
    /// The registry's and the state's; then the delivery is not finished.
    pub(super) async fn settle_tags(&self, upload: &UploadId) -> Result<(), ImportError> {
        let mut settled: Option<UploadId> = None;
        while let Some(newest) = self.receipts.find(upload).await? {
            if settled.is_some_and(|settled| settled.is_version(&newest.upload)) {
                break;
            }
            let mut has_moved = false;
            for image in &newest.import.images {
                for tag in &image.tags {
                    has_moved |= self.take_back(tag, image, &newest.upload).await?;
                }
            }
            if !has_moved {
                break;
            }
            // Meanwhile another may have come, and looked before the tag was moved.
            settled = Some(newest.upload);
        }
        Ok(())
    }

    /// Puts `tag` on `image` of `newest` again, if it names one that another version of the same key brought. Whoever
    /// else moved it meant to. Gives whether it was moved.
    async fn take_back(&self, tag: &Tag, image: &ImageReceipt, newest: &UploadId) -> Result<bool, ImportError> {
        let ImageReceipt { repository, digest, .. } = image;
        let found = self.registry.manifest(repository, tag.as_str()).await?.map(|stored| stored.digest);
        let Some(found) = found.filter(|found| found != digest) else { return Ok(false) };
        let record = self.records.find(repository, found).await?;
        if !record.is_some_and(|record| record.uploads.iter().any(|known| is_another_version(known, newest))) {
            return Ok(false);
        }
        match self.registry.retag(repository, *digest, tag).await {
            Ok(true) => {
                tracing::warn!(ecr.repository = %repository, ecr.tag = %tag, image.digest = %digest, "taken back from an older version");
                Ok(true)
            }
            // Somebody deleted the image, or made the tag immutable.
            Ok(false) | Err(RegistryError::TagTaken { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether it is of the same key and no newer: nothing is newer than the newest. Where a bucket keeps no versions, all
/// of a key's are alike.
fn is_another_version(known: &UploadRecord, newest: &UploadId) -> bool {
    let same_version = newest.version_id.is_some() && known.version_id == newest.version_id;
    known.bucket == newest.bucket && known.key == newest.key && !same_version
}
