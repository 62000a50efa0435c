//! Docker archives: `manifest.json` lists, for each image, the config's path, the layers' paths and the names.
//!
//! Written by `docker save`, podman, skopeo, kaniko, crane, ko, jib, bazel and nix. Layers are plain tars or, from
//! some writers, gzip files; which one is told by their first bytes, not by their names.

use serde::Deserialize;

use super::ArchiveError;
use super::contents::{ArchiveImage, Blob, Content, Contents, DockerImage, DockerLayer, Files, Layout};
use crate::image::manifest::{ImageConfig, null_as_default};
use crate::image::{Descriptor, Digest, MediaType};
use crate::limits;
use crate::naming::ArchiveName;
use crate::object::Source;

const MANIFEST: &str = "manifest.json";

/// One image of `manifest.json`. Old jib versions wrote the keys in lower case, which Go does not mind.
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "Config", alias = "config")]
    config: String,
    #[serde(rename = "RepoTags", alias = "repoTags", default, deserialize_with = "null_as_default")]
    repo_tags: Vec<String>,
    #[serde(rename = "Layers", alias = "layers", default, deserialize_with = "null_as_default")]
    layers: Vec<String>,
}

pub(super) async fn read<S: Source>(files: &Files<'_, S>) -> Result<Contents, ArchiveError> {
    let bytes = files.json(MANIFEST, "a Docker archive").await?;
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ArchiveError::Unsupported {
            layout: "a `dir:` layout of skopeo or podman (manifest.json is an object, not a list)",
        });
    }
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
    let mut images = Vec::with_capacity(listed.len());
    for image in listed {
        images.push(read_image(files, image).await?);
    }
    Ok(Contents { layout: Layout::Docker, images, left_out: Vec::new() })
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
            image: listed.repo_tags.first().cloned().unwrap_or(listed.config),
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
        let extent = files.file(path, MANIFEST)?;
        layers.push(DockerLayer { diff_id, stored: files.stored(extent).await?, extent: extent.clone() });
    }
    let extent = files.file(&listed.config, MANIFEST)?.clone();
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

/// Most writers name the config after its digest: `<hex>.json`, `sha256:<hex>` or `blobs/sha256/<hex>`.
fn digest_in_name(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let hex = name.strip_suffix(".json").unwrap_or(name);
    let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
    format!("sha256:{hex}").parse().ok()
}
