//! Verification: reading back what the registry holds and comparing it with what was meant.
//!
//! Until a function of its own does so for every push, import does it for what it pushed.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ecr::{Registry, RegistryError};
use crate::image::manifest::Parsed;
use crate::image::{Descriptor, Digest, Manifest, Repository};
use crate::limits;

/// Existence checks under way at once; ECR allows 1,000 a second for the whole account.
const CHECKS_AT_ONCE: usize = 8;

/// What was found when an image was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Whether everything was as it should be.
    pub passed: bool,
    /// When, in UTC.
    pub at: Timestamp,
    /// Manifests that were read back and hash to their digests.
    pub manifests: usize,
    /// Configs and layers that are there in their full size.
    pub blobs: usize,
    /// What was not as it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Check>,
}

/// One check that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub what: String,
    /// What it should be.
    pub wanted: String,
    /// What it is.
    pub found: String,
}

/// Reads `digest` back from `repository`, with everything below it: each manifest must hash to its digest, each
/// config and layer must be there in its size. One request for each of them.
///
/// # Errors
///
/// [`RegistryError`] (transient), when the registry could not be asked; a check that fails is no error.
pub async fn verify(
    registry: &Registry,
    repository: &Repository,
    digests: &[Digest],
    at: Timestamp,
) -> Result<Verification, RegistryError> {
    let mut failures = Vec::new();
    let mut blobs: Vec<Descriptor> = Vec::new();
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    let mut open: Vec<Digest> = digests.to_vec();
    let mut manifests = 0;
    while let Some(digest) = open.pop() {
        if !seen.insert(digest) || seen.len() > limits::MANIFESTS {
            continue;
        }
        let what = format!("manifest {digest}");
        let mut failed = |wanted: String, found: String| {
            failures.push(Check { what: what.clone(), wanted, found });
        };
        let Some(stored) = registry.manifest(repository, &digest.to_string()).await? else {
            failed("in the repository".to_owned(), "not there".to_owned());
            continue;
        };
        if stored.digest != digest {
            failed(digest.to_string(), stored.digest.to_string());
            continue;
        }
        match Manifest::parse(stored.bytes, stored.media_type) {
            Ok(Manifest { parsed: Parsed::Index(index), .. }) => {
                open.extend(index.manifests.iter().map(|child| child.digest));
            }
            Ok(Manifest { parsed: Parsed::Image(image), .. }) => {
                let present = image.layers.into_iter().filter(|layer| layer.urls.is_empty());
                blobs.extend(std::iter::once(image.config).chain(present));
            }
            Err(error) => {
                failed("a manifest".to_owned(), error.to_string());
                continue;
            }
        }
        manifests += 1;
    }
    blobs.sort_by_key(|blob| blob.digest);
    blobs.dedup_by_key(|blob| blob.digest);
    let checks: Vec<_> = blobs
        .into_iter()
        .map(|blob| async move {
            let size = registry.blob_size(repository, blob.digest).await?;
            Ok::<_, RegistryError>((blob, size))
        })
        .collect();
    let sizes: Vec<(Descriptor, Option<u64>)> = stream::iter(checks).buffered(CHECKS_AT_ONCE).try_collect().await?;
    let mut available = 0;
    for (blob, size) in sizes {
        match size {
            // 0: the registry redirects to the bytes without naming their size.
            Some(size) if size == blob.size_bytes || size == 0 => available += 1,
            found => failures.push(Check {
                what: format!("blob {}", blob.digest),
                wanted: format!("{} bytes", blob.size_bytes),
                found: found.map_or_else(|| "not there".to_owned(), |size| format!("{size} bytes")),
            }),
        }
    }
    Ok(Verification { passed: failures.is_empty(), at, manifests, blobs: available, failures })
}
