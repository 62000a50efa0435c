//! Docker archives: `manifest.json` lists, for each image, the config's path, the layers' paths and the names (Docker
//! image spec v1.2, "Combined Image JSON + Filesystem Changeset Format").
//!
//! Written by `docker save`, podman, skopeo, kaniko, crane, ko, jib, bazel and nix. Layers are plain tars or, from
//! some writers, compressed files, in one image side by side; which is told by their first bytes, not by their names.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ArchiveError;
use super::contents::{ArchiveImage, Blob, Content, Contents, DockerImage, DockerLayer, Files, LayerBytes, Layout};
use crate::image::manifest::{ImageConfig, null_as_default};
use crate::image::{Descriptor, DiffId, Digest, MediaType};
use crate::limits;
use crate::naming::ArchiveName;
use crate::object::Source;

pub(super) const MANIFEST: &str = "manifest.json";

/// One image of `manifest.json`. Old jib versions wrote the keys in lower case, which Go does not mind.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    #[serde(rename = "Config", alias = "config")]
    config: String,
    #[serde(
        rename = "RepoTags",
        alias = "repoTags",
        alias = "repotags",
        default,
        deserialize_with = "null_as_default"
    )]
    repo_tags: Vec<String>,
    #[serde(rename = "Layers", alias = "layers", default, deserialize_with = "null_as_default")]
    layers: Vec<String>,
    /// Descriptors of layers by diff ID: those of foreign ones have URLs, and their files may be absent.
    #[serde(rename = "LayerSources", alias = "layerSources", default, deserialize_with = "null_as_default")]
    layer_sources: BTreeMap<String, Descriptor>,
}

/// What `manifest.json` lists; at least one image.
pub(super) async fn listed<S: Source>(files: &Files<'_, S>) -> Result<Vec<Listed>, ArchiveError> {
    let bytes = files.json(MANIFEST, "a Docker archive").await?;
    let listed: Option<Vec<Listed>> = serde_json::from_slice(&bytes).map_err(|source| ArchiveError::BadJson {
        entry: MANIFEST.to_owned(),
        wanted: "a list of images with Config, RepoTags and Layers",
        source,
    })?;
    let listed = listed.unwrap_or_default();
    if listed.is_empty() {
        return Err(ArchiveError::NamesNothing { entry: MANIFEST.to_owned() });
    }
    if listed.len() > limits::IMAGES {
        return Err(ArchiveError::OverLimit {
            what: "the number of images in manifest.json".to_owned(),
            offset: files.file(MANIFEST, "a Docker archive")?.offset,
            found: listed.len() as u64,
            limit: limits::IMAGES as u64,
        });
    }
    Ok(listed)
}

pub(super) async fn read<S: Source>(files: &Files<'_, S>) -> Result<Contents, ArchiveError> {
    let listed = listed(files).await?;
    let mut images: Vec<ArchiveImage> = Vec::with_capacity(listed.len());
    for image in listed {
        let image = read_image(files, image).await?;
        // One entry for each name: the same image again.
        match images.iter_mut().find(|known| known.id() == image.id()) {
            Some(known) => {
                let new: Vec<_> = image.names.into_iter().filter(|name| !known.names.contains(name)).collect();
                known.names.extend(new);
            }
            None => images.push(image),
        }
    }
    Ok(Contents { layout: Layout::Docker, images, left_out: Vec::new() })
}

/// Gives images of an OCI layout the full names that `manifest.json` beside it has, by their config.
pub(super) fn add_names(images: &mut [ArchiveImage], listed: &[Listed]) {
    for listed in listed {
        let Some(config) = digest_in_name(&listed.config) else { continue };
        let image = images.iter_mut().find(|image| match &image.content {
            Content::Oci(image) => {
                image.manifests.iter().any(|m| m.manifest.as_image().is_some_and(|m| m.config.digest == config))
            }
            Content::Docker(_) => false,
        });
        let Some(image) = image else { continue };
        for name in listed.repo_tags.iter().filter_map(|name| ArchiveName::of_image(name)) {
            if image.names.contains(&name) {
                continue;
            }
            // A tag alone says less than the full name with the same tag.
            image.names.retain(|known| known.repository.is_some() || known.tag != name.tag);
            image.names.push(name);
        }
    }
}

async fn read_image<S: Source>(files: &Files<'_, S>, listed: Listed) -> Result<ArchiveImage, ArchiveError> {
    let bytes = files.json(&listed.config, MANIFEST).await?;
    let digest = Digest::of(&bytes);
    if let Some(wanted) = digest_in_name(&listed.config)
        && wanted != digest
    {
        return Err(ArchiveError::WrongDigest { entry: listed.config, found: digest, wanted });
    }
    let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|source| ArchiveError::BadJson {
        entry: listed.config.clone(),
        wanted: "an image config with rootfs.diff_ids",
        source,
    })?;
    let diff_ids = config.rootfs.diff_ids;
    if listed.layers.len() != diff_ids.len() {
        return Err(ArchiveError::LayerCount {
            config: listed.config,
            layers: listed.layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    if diff_ids.is_empty() {
        return Err(ArchiveError::EcrRefuses {
            image: format!("image {}", listed.repo_tags.first().unwrap_or(&listed.config)),
            why: "it has no layers, and an image in ECR has to have at least one; add a file to it".to_owned(),
        });
    }
    if diff_ids.len() > limits::LAYERS {
        return Err(ArchiveError::OverLimit {
            what: format!("the number of layers of image {}", listed.config),
            offset: files.file(&listed.config, MANIFEST)?.offset,
            found: diff_ids.len() as u64,
            limit: limits::LAYERS as u64,
        });
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (path, diff_id) in listed.layers.iter().zip(diff_ids) {
        let bytes = layer_bytes(files, path, listed.layer_sources.get(&diff_id.to_string())).await?;
        layers.push(DockerLayer { diff_id, bytes });
    }
    let extent = files.file(&listed.config, MANIFEST)?;
    // Docker's config is a valid OCI config; only the media type differs (OCI image spec, "compatibility matrix").
    let descriptor = Descriptor::new(MediaType::OCI_CONFIG, digest, bytes.len() as u64);
    Ok(ArchiveImage {
        names: listed.repo_tags.iter().filter_map(|name| ArchiveName::of_image(name)).collect(),
        content: Content::Docker(Box::new(DockerImage {
            config: Blob { descriptor, extent },
            platform: (!config.platform.architecture.is_empty()).then_some(config.platform),
            layers,
        })),
    })
}

/// The layer's file, or the descriptor of a foreign layer whose bytes were left where they are.
async fn layer_bytes<S: Source>(
    files: &Files<'_, S>,
    path: &str,
    described: Option<&Descriptor>,
) -> Result<LayerBytes, ArchiveError> {
    let extent = match (files.file(path, MANIFEST), described) {
        (Ok(extent), _) => extent,
        (Err(ArchiveError::Missing { why: None, .. }), Some(described))
            if described.media_type.is_foreign_layer() && !described.urls.is_empty() =>
        {
            return Ok(LayerBytes::Elsewhere(described.clone()));
        }
        (Err(error), _) => return Err(error),
    };
    let stored = files.stored(&extent).await?;
    Ok(LayerBytes::Here { extent, stored })
}

/// Most writers name the config after its digest: `<hex>.json`, `sha256:<hex>` or `blobs/sha256/<hex>`.
fn digest_in_name(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let hex = name.strip_suffix(".json").unwrap_or(name);
    let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
    format!("sha256:{hex}").parse().ok()
}

/// Whether `path` is what an image config is called: in a Docker archive it goes with a `manifest.json`.
pub(super) fn is_config_name(path: &str) -> bool {
    path.strip_suffix(".json").is_some_and(|hex| format!("sha256:{hex}").parse::<Digest>().is_ok())
}

/// The diff ID of a layer that is stored uncompressed.
pub(super) async fn hash_plain<S: Source>(
    files: &Files<'_, S>,
    extent: &super::Extent,
) -> Result<DiffId, ArchiveError> {
    if let Some(hash) = extent.hash {
        return Ok(DiffId(hash));
    }
    if let Some(content) = &extent.content {
        return Ok(DiffId(Digest::of(content)));
    }
    let mut hasher = crate::image::Hasher::default();
    let mut next = extent.offset;
    let end = extent.range().end;
    while next < end {
        let to = next.saturating_add(limits::RANGE_BYTES).min(end);
        hasher.update(&crate::object::read_exact(files.source, next..to).await?);
        next = to;
    }
    Ok(DiffId(hasher.finish()))
}
