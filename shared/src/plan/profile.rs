//! What the consumer of an image takes, met before the push instead of at its first start.
//!
//! `exact` changes nothing. `fargate` has no attestations beside the image. `lambda` has one image for one platform
//! under its tag, without an index around it, with layers in gzip (Lambda developer guide, "Create a Lambda function
//! using a container image": one manifest, no multi-architecture images).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::archive::{
    Archive, ArchiveError, ArchiveImage, Blob, Content, Contents, DockerImage, DockerLayer, LayerBytes, OciImage,
    OciManifest, Stored, rewritten,
};
use crate::decompress::Codec;
use crate::image::manifest::{ImageConfig, Parsed, Platform};
use crate::image::{Descriptor, Digest, Manifest, MediaType};
use crate::object::Source;

/// The metadata entry that chooses a profile: `x-amz-meta-profile` on the wire.
pub const PROFILE_METADATA: &str = "profile";

/// The metadata entry that chooses a platform: `x-amz-meta-platform` on the wire.
pub const PLATFORM_METADATA: &str = "platform";

/// Who is to run the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Anybody: as the archive has it.
    #[default]
    Exact,
    /// AWS Lambda.
    Lambda,
    /// AWS Fargate.
    Fargate,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Lambda => "lambda",
            Self::Fargate => "fargate",
        })
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        match text.trim() {
            "exact" => Ok(Self::Exact),
            "lambda" => Ok(Self::Lambda),
            "fargate" => Ok(Self::Fargate),
            _ => Err(ProfileError::Unknown { found: text.to_owned() }),
        }
    }
}

/// A profile, and the platform where it wants one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Who is to run the image.
    pub profile: Profile,
    /// On what; of no effect but with [`Profile::Lambda`].
    pub platform: Platform,
}

impl Consumer {
    /// What an upload asks for in its metadata, or else the stack's own.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Unknown`] and [`ProfileError::Platform`]
    pub fn of_upload(&self, profile: Option<&str>, platform: Option<&str>) -> Result<Self, ProfileError> {
        Ok(Self {
            profile: profile.map_or(Ok(self.profile), str::parse)?,
            platform: platform.map_or_else(|| Ok(self.platform.clone()), platform_of)?,
        })
    }
}

/// A platform as people write it: `linux/arm64`, `linux/arm/v7`, or the architecture alone, by any of its names.
///
/// # Errors
///
/// [`ProfileError::Platform`]
pub fn platform_of(text: &str) -> Result<Platform, ProfileError> {
    let refused = || ProfileError::Platform { found: text.to_owned() };
    let parts: Vec<&str> = text.trim().split('/').collect();
    let (os, architecture, variant) = match parts.as_slice() {
        [architecture] => ("linux", *architecture, None),
        [os, architecture] => (*os, *architecture, None),
        [os, architecture, variant] => (*os, *architecture, Some((*variant).to_owned())),
        _ => return Err(refused()),
    };
    if parts.iter().any(|part| part.is_empty()) {
        return Err(refused());
    }
    // What uname and Lambda call them is not what Go does (OCI image spec, `image-index.md`, "platform").
    let architecture = match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Ok(Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant, features: None })
}

/// Why an image cannot be given to its consumer; all permanent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No such profile.
    #[error("there is no profile {found:?}; wanted exact, lambda or fargate")]
    Unknown {
        /// The text.
        found: String,
    },
    /// No platform.
    #[error("{found:?} is no platform; wanted one such as linux/arm64")]
    Platform {
        /// The text.
        found: String,
    },
    /// The archive has no image for the platform.
    #[error("the profile lambda wants one image for {wanted}, and {image} has {}", list(.found))]
    NoImage {
        /// A name or digest.
        image: String,
        /// The platform.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
    /// Nothing that runs.
    #[error("the profile lambda wants an image, and {artifact} is an artifact ({media_type})")]
    Artifact {
        /// Its digest.
        artifact: Digest,
        /// Its config's media type.
        media_type: MediaType,
    },
}

fn list(platforms: &[String]) -> String {
    if platforms.is_empty() { "none that names its platform".to_owned() } else { platforms.join(", ") }
}

impl ProfileError {
    /// What the uploader can do.
    pub fn fix(&self) -> String {
        match self {
            Self::Unknown { .. } => "upload it again with --metadata profile=exact, lambda or fargate".to_owned(),
            Self::Platform { .. } => "upload it again with --metadata platform=linux/arm64 or linux/amd64".to_owned(),
            Self::NoImage { wanted, found, .. } => match found.first() {
                Some(other) => format!(
                    "build the image for {wanted}, or upload it again with --metadata profile=lambda,platform={other}"
                ),
                None => format!("build the image for {wanted}"),
            },
            Self::Artifact { .. } => "upload it without the profile, or with --metadata profile=exact".to_owned(),
        }
    }
}

/// Why a profile could not be applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Makes `contents` what `consumer` takes; what was changed, in words.
pub(super) async fn apply(
    consumer: &Consumer,
    contents: &mut Contents,
    archive: &Archive,
    source: &impl Source,
) -> Result<Vec<String>, ApplyError> {
    let mut changes = Vec::new();
    for image in &mut contents.images {
        match consumer.profile {
            Profile::Exact => {}
            Profile::Fargate => {
                if let Content::Oci(oci) = &mut image.content {
                    without_attestations(oci, &mut changes)?;
                }
            }
            Profile::Lambda => for_lambda(&consumer.platform, image, archive, source, &mut changes).await?,
        }
    }
    Ok(changes)
}

/// Takes the attestations out of the image's indexes; an index that is left with one image gives way to it.
fn without_attestations(image: &mut OciImage, changes: &mut Vec<String>) -> Result<(), ArchiveError> {
    let by_digest: HashMap<Digest, Arc<Manifest>> =
        image.manifests.iter().map(|m| (m.manifest.digest, Arc::clone(&m.manifest))).collect();
    let mut kept = Vec::new();
    let before = changes.len();
    let Some(root) = stripped(image.root().digest, &by_digest, &mut kept, changes)? else { return Ok(()) };
    if changes.len() > before {
        let referrers: Vec<OciManifest> = image.manifests.drain(..).filter(|manifest| manifest.referrer).collect();
        replace(image, kept, &root, referrers, changes);
    }
    Ok(())
}

/// The manifest of `digest` without attestations, everything below it in `kept`, itself last; `None` when it is not
/// there.
fn stripped(
    digest: Digest,
    by_digest: &HashMap<Digest, Arc<Manifest>>,
    kept: &mut Vec<Arc<Manifest>>,
    changes: &mut Vec<String>,
) -> Result<Option<Arc<Manifest>>, ArchiveError> {
    let Some(manifest) = by_digest.get(&digest) else { return Ok(None) };
    let Parsed::Index(index) = &manifest.parsed else {
        kept.push(Arc::clone(manifest));
        return Ok(Some(Arc::clone(manifest)));
    };
    let before = changes.len();
    let mut children: HashMap<Digest, Arc<Manifest>> = HashMap::new();
    for child in &index.manifests {
        if child.is_attestation() {
            changes.push(format!("left out the attestation {}", child.digest));
        } else if let Some(top) = stripped(child.digest, by_digest, kept, changes)? {
            children.insert(child.digest, top);
        }
    }
    if changes.len() == before {
        kept.push(Arc::clone(manifest));
        return Ok(Some(Arc::clone(manifest)));
    }
    let mut tops = children.values();
    if let (Some(only), None) = (tops.next(), tops.next()) {
        changes.push(format!("took image {} instead of the index {digest} around it", only.digest));
        return Ok(Some(Arc::clone(only)));
    }
    let index = Arc::new(rewritten(manifest, &children)?);
    changes.push(format!("wrote the index {digest} again without them, as {}", index.digest));
    kept.push(Arc::clone(&index));
    Ok(Some(index))
}

/// Makes `root` and what is below it the image; referrers of what is gone go too.
fn replace(
    image: &mut OciImage,
    manifests: Vec<Arc<Manifest>>,
    root: &Arc<Manifest>,
    referrers: Vec<OciManifest>,
    changes: &mut Vec<String>,
) {
    let mut known: HashSet<Digest> = HashSet::new();
    let mut all: Vec<OciManifest> = manifests
        .into_iter()
        .filter(|manifest| known.insert(manifest.digest))
        .map(|manifest| OciManifest { manifest, referrer: false, tag: None })
        .collect();
    image.root_at = all.iter().position(|m| m.manifest.digest == root.digest).unwrap_or(0);
    for referrer in referrers {
        let holds = match subject(&referrer.manifest) {
            Some(subject) => known.contains(&subject),
            // cosign's tag names its image.
            None => referrer.tag.as_ref().is_some_and(|tag| tag.as_str().contains(&root.digest.hex())),
        };
        if holds {
            known.insert(referrer.manifest.digest);
            all.push(referrer);
        } else {
            changes.push(format!("left out the referrer {}, whose subject is left out", referrer.manifest.digest));
        }
    }
    let named: HashSet<Digest> = all
        .iter()
        .filter_map(|m| m.manifest.as_image())
        .flat_map(|image| std::iter::once(&image.config).chain(&image.layers))
        .map(|blob| blob.digest)
        .collect();
    image.blobs.retain(|blob| named.contains(&blob.descriptor.digest));
    image.config = root.as_image().map(|image| image.config.digest);
    image.manifests = all;
}

fn subject(manifest: &Manifest) -> Option<Digest> {
    let subject = match &manifest.parsed {
        Parsed::Image(image) => image.subject.as_ref(),
        Parsed::Index(index) => index.subject.as_ref(),
    };
    subject.map(|subject| subject.digest)
}

/// One image for one platform, with gzip layers.
async fn for_lambda(
    wanted: &Platform,
    image: &mut ArchiveImage,
    archive: &Archive,
    source: &impl Source,
    changes: &mut Vec<String>,
) -> Result<(), ApplyError> {
    let id = image.id();
    let no_image =
        |found: Vec<String>| ProfileError::NoImage { image: format!("image {id}"), wanted: wanted.to_string(), found };
    match &mut image.content {
        Content::Docker(docker) => {
            if !docker.platform.as_ref().is_some_and(|platform| runs_on(platform, wanted)) {
                return Err(no_image(docker.platform.iter().map(ToString::to_string).collect()).into());
            }
            recompress(docker, changes);
        }
        Content::Oci(oci) => {
            let root = one_image(oci, wanted, archive, source).await?.map_err(no_image)?;
            if root.digest != oci.root().digest {
                let index = oci.root().digest;
                changes.push(format!("took {wanted}, image {}, out of the index {index}", root.digest));
                let referrers: Vec<OciManifest> = oci.manifests.drain(..).filter(|m| m.referrer).collect();
                replace(oci, vec![Arc::clone(&root)], &root, referrers, changes);
                oci.platforms = vec![wanted.clone()];
            }
            if let Some(mut docker) = rebuilt(oci, archive, source).await? {
                recompress(&mut docker, changes);
                for referrer in oci.manifests.iter().filter(|manifest| manifest.referrer) {
                    let digest = referrer.manifest.digest;
                    changes.push(format!("left out the referrer {digest}, whose subject is written again"));
                }
                image.content = Content::Docker(Box::new(docker));
            }
        }
    }
    Ok(())
}

/// Marks layers that Lambda does not take for compression with gzip.
fn recompress(image: &mut DockerImage, changes: &mut Vec<String>) {
    for layer in &mut image.layers {
        if let LayerBytes::Here { extent, stored } = &mut layer.bytes
            && *stored == Stored::Zstd
        {
            *stored = Stored::Recompressed(Codec::Zstd);
            changes.push(format!("compressed the layer {:?} with gzip instead of zstd", extent.path));
        }
    }
}

fn runs_on(platform: &Platform, wanted: &Platform) -> bool {
    let variant = |platform: &Platform| platform.variant.clone().filter(|variant| !variant.is_empty());
    platform.os == wanted.os
        && platform.architecture == wanted.architecture
        && (variant(wanted).is_none() || variant(platform) == variant(wanted))
}

/// The one manifest for the platform; otherwise the platforms that there are.
async fn one_image(
    image: &OciImage,
    wanted: &Platform,
    archive: &Archive,
    source: &impl Source,
) -> Result<Result<Arc<Manifest>, Vec<String>>, ApplyError> {
    let mut found = Vec::new();
    let mut described: HashMap<Digest, Descriptor> = HashMap::new();
    for manifest in image.manifests.iter().filter(|manifest| !manifest.referrer) {
        if let Parsed::Index(index) = &manifest.manifest.parsed {
            described.extend(index.manifests.iter().map(|child| (child.digest, child.clone())));
        }
    }
    for OciManifest { manifest, referrer, .. } in &image.manifests {
        let Some(parsed) = manifest.as_image().filter(|_| !referrer) else { continue };
        let entry = described.get(&manifest.digest);
        if entry.is_some_and(Descriptor::is_attestation) {
            continue;
        }
        if !parsed.config.media_type.is_image_config() {
            // Beside images in an index it is passed over; alone it is what was uploaded.
            if manifest.digest == image.root().digest {
                let media_type = parsed.config.media_type.clone();
                return Err(ProfileError::Artifact { artifact: manifest.digest, media_type }.into());
            }
            continue;
        }
        let platform = match entry.and_then(|entry| entry.platform.clone()) {
            Some(platform) => platform,
            None => config_of(image, &parsed.config, archive, source).await?.platform,
        };
        if runs_on(&platform, wanted) {
            return Ok(Ok(Arc::clone(manifest)));
        }
        found.push(platform.to_string());
    }
    Ok(Err(found))
}

/// Reads the config that `descriptor` names.
async fn config_of(
    image: &OciImage,
    descriptor: &Descriptor,
    archive: &Archive,
    source: &impl Source,
) -> Result<ImageConfig, ArchiveError> {
    let blob = image.blobs.iter().find(|blob| blob.descriptor.digest == descriptor.digest);
    let blob = blob.ok_or_else(|| ArchiveError::Missing {
        named_by: "the manifest".to_owned(),
        entry: descriptor.digest.to_string(),
        why: None,
    })?;
    let bytes = archive.small(source, &blob.extent).await?;
    serde_json::from_slice(&bytes).map_err(|source| ArchiveError::BadJson {
        entry: blob.extent.path.clone(),
        wanted: "an image config",
        source,
    })
}

/// The image as one for which a manifest is to be made, when its own names layers that Lambda does not take.
async fn rebuilt(
    image: &OciImage,
    archive: &Archive,
    source: &impl Source,
) -> Result<Option<DockerImage>, ArchiveError> {
    let root = image.root();
    let Some(parsed) = root.as_image() else { return Ok(None) };
    let mut layers = Vec::with_capacity(parsed.layers.len());
    let mut all_gzip = true;
    for descriptor in &parsed.layers {
        let blob = image.blobs.iter().find(|blob| blob.descriptor.digest == descriptor.digest);
        layers.push(match blob {
            Some(Blob { extent, .. }) => {
                let stored = archive.how_stored(source, extent).await?;
                all_gzip &= stored == Stored::Gzip && !descriptor.media_type.is_zstd_layer();
                LayerBytes::Here { extent: extent.clone(), stored }
            }
            None => LayerBytes::Elsewhere(descriptor.clone()),
        });
    }
    if all_gzip {
        return Ok(None);
    }
    let config = config_of(image, &parsed.config, archive, source).await?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        return Err(ArchiveError::LayerCount {
            config: parsed.config.digest.to_string(),
            layers: layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    let blob = image.blobs.iter().find(|blob| blob.descriptor.digest == parsed.config.digest).cloned();
    let Some(Blob { extent, .. }) = blob else { return Ok(None) };
    let descriptor = Descriptor::new(MediaType::OCI_CONFIG, parsed.config.digest, parsed.config.size_bytes);
    Ok(Some(DockerImage {
        config: Blob { descriptor, extent },
        platform: (!config.platform.architecture.is_empty()).then_some(config.platform),
        layers: diff_ids.into_iter().zip(layers).map(|(diff_id, bytes)| DockerLayer { diff_id, bytes }).collect(),
    }))
}
