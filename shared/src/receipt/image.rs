//! One image in import's section: where it is now, what named it, and how each of its blobs got there.

use serde::{Deserialize, Serialize};

use crate::image::{Digest, Repository, Tag};
use crate::naming::NamedBy;

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReceipt {
    /// Where it is.
    pub repository: Repository,
    /// Under which tags.
    pub tags: Vec<Tag>,
    /// The manifest's digest.
    pub digest: Digest,
    /// Registry host, repository and first tag: what `docker pull` takes.
    pub uri: String,
    /// The repository's ARN, as far as ECR has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_arn: Option<String>,
    /// The config's digest, where it is one image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<Digest>,
    /// What it runs on.
    pub platforms: Vec<String>,
    /// What named it.
    pub named_by: NamedBy,
    /// Whether ECR had it under these tags already.
    pub unchanged: bool,
    /// Each config and layer.
    pub blobs: Vec<BlobReceipt>,
}

/// One config or layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobReceipt {
    /// Its digest in ECR.
    pub digest: Digest,
    /// Its size there.
    pub size_bytes: u64,
    /// The hash of its uncompressed bytes, where that was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// How it got there.
    pub how: How,
}

/// How a blob got into the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Its bytes were sent.
    Sent,
    /// The repository had it.
    Reused,
    /// ECR took it over from another repository.
    Mounted,
}
