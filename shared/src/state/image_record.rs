//! The image record: everything known of one manifest in one repository.
//!
//! Import writes it before it puts the manifest; whoever verifies, judges or tells finds here what was meant.

use serde::{Deserialize, Serialize};

use super::{Documents, StateError};
use crate::image::{Digest, Repository, Tag};
use crate::react::Verification;

/// Uploads remembered for one image, newest first.
const UPLOADS: usize = 100;

/// `images/<repository>/<digest>.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Where.
    pub repository: Repository,
    /// The manifest's digest.
    pub digest: Digest,
    /// The config's digest: the image ID, where this is one image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// The uploads it came from, newest first.
    pub uploads: Vec<UploadRecord>,
    /// The tags that uploads asked for.
    pub wanted_tags: Vec<Tag>,
    /// What was found when it was read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

/// One upload of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
}

/// The image records in the state bucket.
#[derive(Debug, Clone)]
pub struct ImageRecords {
    documents: Documents,
}

const WANTED: &str = "an image record";

fn key(repository: &Repository, digest: Digest) -> String {
    format!("images/{repository}/{digest}.json")
}

impl ImageRecords {
    /// The records kept in `documents`.
    pub fn new(documents: Documents) -> Self {
        Self { documents }
    }

    /// The record of one image, if there is one.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn find(&self, repository: &Repository, digest: Digest) -> Result<Option<ImageRecord>, StateError> {
        Ok(self.documents.read(&key(repository, digest), WANTED).await?.map(|read| read.value))
    }

    /// Notes that `upload` wants this image under `tags`; what is known already is kept.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn want(
        &self,
        repository: &Repository,
        digest: Digest,
        config: Option<Digest>,
        tags: &[Tag],
        upload: &UploadRecord,
    ) -> Result<(), StateError> {
        self.documents
            .update(&key(repository, digest), WANTED, |known: Option<ImageRecord>| {
                let mut record = known.unwrap_or_else(|| ImageRecord {
                    repository: repository.clone(),
                    digest,
                    config,
                    uploads: Vec::new(),
                    wanted_tags: Vec::new(),
                    verification: None,
                });
                record.config = record.config.or(config);
                record.uploads.retain(|known| known != upload);
                record.uploads.insert(0, upload.clone());
                record.uploads.truncate(UPLOADS);
                let new: Vec<Tag> = tags.iter().filter(|tag| !record.wanted_tags.contains(tag)).cloned().collect();
                record.wanted_tags.extend(new);
                Some(record)
            })
            .await
    }

    /// Writes down what verification found.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn verified(
        &self,
        repository: &Repository,
        digest: Digest,
        verification: &Verification,
    ) -> Result<(), StateError> {
        self.documents
            .update(&key(repository, digest), WANTED, |known: Option<ImageRecord>| {
                known.map(|record| ImageRecord { verification: Some(verification.clone()), ..record })
            })
            .await
    }
}
