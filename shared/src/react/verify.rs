//! Verification: reading back what the registry holds and comparing it with what was meant.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::facts::{self, Facts, Kind};
use crate::ecr::{Registry, RegistryError};
use crate::image::manifest::{ImageConfig, ImageManifest, Parsed};
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

/// What was found, and what the image says of itself where it could be read.
#[derive(Debug, Clone)]
pub struct Verified {
    /// What was found.
    pub verification: Verification,
    /// What the image says.
    pub facts: Option<Facts>,
}

/// Reads `digest` back from `repository`, with everything below it.
///
/// Each manifest must hash to its digest, each config and layer must be there in its size, and an image's config must
/// list as many layers as its manifest and name its platform. One request for each of them. `config` is what import
/// recorded as the image's ID, if it did.
///
/// # Errors
///
/// [`RegistryError`] (transient), when the registry could not be asked; a check that fails is no error.
pub async fn verify(
    registry: &Registry,
    repository: &Repository,
    digest: Digest,
    config: Option<Digest>,
    at: Timestamp,
) -> Result<Verified, RegistryError> {
    let mut checks = Checks { registry, repository, manifests: 0, blobs: Vec::new(), failures: Vec::new() };
    let mut open = Open::new(digest, limits::MANIFESTS);
    let mut root = None;
    let mut largest_bytes = 0;
    let mut artifacts: BTreeSet<Digest> = BTreeSet::new();
    while let Some(next) = open.next() {
        let Some((manifest, facts)) = checks.manifest(next).await? else { continue };
        if let Parsed::Index(index) = &manifest.parsed {
            open.add(index.manifests.iter().map(|child| child.digest));
        }
        if next == digest {
            checks.recorded(&manifest, config);
            root = Some(facts);
        } else {
            largest_bytes = largest_bytes.max(facts.size_bytes);
            if facts.kind == Kind::Artifact {
                artifacts.insert(next);
            }
        }
    }
    if open.is_cut {
        // What was not read back is not verified.
        checks.failed(format!("index {digest}"), format!("at most {} manifests", limits::MANIFESTS), "more");
    }
    let facts = root.map(|facts| {
        let size_bytes = facts.size_bytes.max(largest_bytes);
        Facts { size_bytes, ..facts }.without(&artifacts)
    });
    let (manifests, blobs, failures) = checks.finish().await?;
    let verification = Verification { passed: failures.is_empty(), at, manifests, blobs, failures };
    Ok(Verified { verification, facts })
}

/// Manifests that are to be read, each once and at most so many.
struct Open {
    next: Vec<Digest>,
    seen: BTreeSet<Digest>,
    most: usize,
    /// Whether there were more.
    is_cut: bool,
}

impl Open {
    fn new(first: Digest, most: usize) -> Self {
        Self { next: vec![first], seen: BTreeSet::new(), most, is_cut: false }
    }

    fn add(&mut self, digests: impl Iterator<Item = Digest>) {
        self.next.extend(digests);
    }

    fn next(&mut self) -> Option<Digest> {
        while let Some(next) = self.next.pop() {
            if self.seen.contains(&next) {
                continue;
            }
            if self.seen.len() == self.most {
                self.is_cut = true;
                return None;
            }
            self.seen.insert(next);
            return Some(next);
        }
        None
    }
}

/// Everything checked so far.
struct Checks<'a> {
    registry: &'a Registry,
    repository: &'a Repository,
    manifests: usize,
    blobs: Vec<Descriptor>,
    failures: Vec<Check>,
}

impl Checks<'_> {
    fn failed(&mut self, what: String, wanted: impl Into<String>, found: impl Into<String>) {
        self.failures.push(Check { what, wanted: wanted.into(), found: found.into() });
    }

    /// One manifest: there, with its digest, and understood.
    async fn manifest(&mut self, digest: Digest) -> Result<Option<(Manifest, Facts)>, RegistryError> {
        let what = format!("manifest {digest}");
        let stored = match self.registry.manifest(self.repository, &digest.to_string()).await {
            Ok(Some(stored)) => stored,
            Ok(None) => {
                self.failed(what, "in the repository", "not there");
                return Ok(None);
            }
            Err(RegistryError::TooLarge { limit_bytes, .. }) => {
                self.failed(what, format!("at most {limit_bytes} bytes"), "more");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if stored.digest != digest {
            self.failed(what, digest.to_string(), stored.digest.to_string());
            return Ok(None);
        }
        let manifest = match Manifest::parse(stored.bytes, stored.media_type) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.failed(what, "a manifest", error.to_string());
                return Ok(None);
            }
        };
        let config = match &manifest.parsed {
            Parsed::Index(_) => None,
            Parsed::Image(image) => {
                let present = image.layers.iter().filter(|layer| layer.urls.is_empty()).cloned();
                self.blobs.extend(std::iter::once(image.config.clone()).chain(present));
                if facts::has_image_config(image) { self.config(image).await? } else { None }
            }
        };
        self.manifests += 1;
        let facts = Facts::of(&manifest, config.as_ref());
        Ok(Some((manifest, facts)))
    }

    /// The config of an image: readable, and fitting its manifest.
    async fn config(&mut self, image: &ImageManifest) -> Result<Option<ImageConfig>, RegistryError> {
        let digest = image.config.digest;
        let what = format!("config {digest}");
        let bytes = match self.registry.small_blob(self.repository, digest).await {
            Ok(Some(bytes)) => bytes,
            // That it is not there is found with the other blobs.
            Ok(None) => return Ok(None),
            Err(RegistryError::TooLarge { limit_bytes, .. }) => {
                self.failed(what, format!("at most {limit_bytes} bytes"), "more");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let found = Digest::of(&bytes);
        if found != digest {
            self.failed(what, digest.to_string(), found.to_string());
            return Ok(None);
        }
        let config: ImageConfig = match serde_json::from_slice(&bytes) {
            Ok(config) => config,
            Err(error) => {
                self.failed(what, "an image config", error.to_string());
                return Ok(None);
            }
        };
        if let Some((part, wanted, found)) = facts::broken(image, &config) {
            self.failed(format!("{part} ({digest})"), wanted, found);
        }
        Ok(Some(config))
    }

    /// Whether the image is the one that import meant.
    fn recorded(&mut self, manifest: &Manifest, config: Option<Digest>) {
        if let (Some(wanted), Some(image)) = (config, manifest.as_image())
            && image.config.digest != wanted
        {
            let what = "the image ID that import recorded".to_owned();
            self.failed(what, wanted.to_string(), image.config.digest.to_string());
        }
    }

    /// Looks at every blob; gives manifests, blobs and failures.
    async fn finish(mut self) -> Result<(usize, usize, Vec<Check>), RegistryError> {
        self.blobs.sort_by_key(|blob| blob.digest);
        self.blobs.dedup_by_key(|blob| blob.digest);
        let (registry, repository) = (self.registry, self.repository);
        let checks: Vec<_> = std::mem::take(&mut self.blobs)
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
                found => {
                    let found = found.map_or_else(|| "not there".to_owned(), |size| format!("{size} bytes"));
                    self.failed(format!("blob {}", blob.digest), format!("{} bytes", blob.size_bytes), found);
                }
            }
        }
        Ok((self.manifests, available, self.failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_read_once_and_one_too_many_is_noticed() {
        let digest = |seed: u8| Digest::of(&[seed]);
        for (children, most, read, is_cut) in [(2, 3, 3, false), (3, 3, 3, true), (0, 1, 1, false)] {
            let mut open = Open::new(digest(0), most);
            let mut count = 0;
            while let Some(next) = open.next() {
                count += 1;
                if next == digest(0) {
                    // Each child is named twice, and one names its parent.
                    open.add((1..=children).chain(0..=children).map(digest));
                }
            }
            assert_eq!((count, open.is_cut), (read, is_cut), "{children} children, at most {most}");
        }
    }
}
