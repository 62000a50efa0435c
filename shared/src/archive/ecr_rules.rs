//! What ECR's manifest validator is known to refuse that other registries take, found before a byte is sent.
//!
//! Known from issues 2306 (parameters in media types) and 2439 (`platform.features`) of its public roadmap, from its
//! answer to an image without layers, from the limit of `PutImage`, and from its refusal of empty uploads. Annotations
//! on the config's descriptor were refused once too (an issue of 2023); whether they still are is not known, so they
//! are sent, and the registry's own answer counts.

use super::ArchiveError;
use crate::image::manifest::Parsed;
use crate::image::{Descriptor, Manifest};
use crate::limits;

/// Refuses `manifest` if ECR would.
pub(super) fn check(manifest: &Manifest) -> Result<(), ArchiveError> {
    let kind = match &manifest.parsed {
        Parsed::Image(image) if image.config.media_type.is_image_config() => "image",
        Parsed::Image(_) => "artifact",
        Parsed::Index(_) => "index",
    };
    match refusal(manifest) {
        None => Ok(()),
        Some(why) => Err(ArchiveError::EcrRefuses { image: format!("{kind} {}", manifest.digest), why }),
    }
}

fn refusal(manifest: &Manifest) -> Option<String> {
    let size = manifest.bytes.len() as u64;
    if size > limits::MANIFEST_BYTES {
        return Some(format!("its manifest has {size} bytes, and at most {} are taken", limits::MANIFEST_BYTES));
    }
    if manifest.media_type.manifest_kind().is_none() {
        return Some(format!(
            "it is no manifest of a type that it stores ({}); wanted an OCI or Docker (schema 2) manifest or index",
            manifest.media_type
        ));
    }
    let (named, artifact_type, subject): (Vec<&Descriptor>, _, _) = match &manifest.parsed {
        Parsed::Image(image) if image.layers.is_empty() => {
            return Some("it has no layers, and an image in ECR has to have at least one; add a file to it".to_owned());
        }
        Parsed::Image(image) => {
            let named: Vec<&Descriptor> = std::iter::once(&image.config).chain(&image.layers).collect();
            if let Some(empty) = named.iter().find(|blob| blob.size_bytes == 0) {
                return Some(format!("the blob {} has 0 bytes, which it does not take; leave it out", empty.digest));
            }
            (named, &image.artifact_type, &image.subject)
        }
        Parsed::Index(index) => {
            let features = |child: &&Descriptor| child.platform.as_ref().is_some_and(|p| p.features.is_some());
            if let Some(child) = index.manifests.iter().find(features) {
                let digest = child.digest;
                return Some(format!("platform.features of {digest} is not accepted in an index; leave it out"));
            }
            (index.manifests.iter().collect(), &index.artifact_type, &index.subject)
        }
    };
    if let Some(untyped) = named.iter().find(|named| named.media_type.as_str().is_empty()) {
        return Some(format!("the descriptor of {} has no media type; write it again with one", untyped.digest));
    }
    let described = named.into_iter().chain(subject);
    let types = described.flat_map(|named| [Some(named.media_type.as_str()), named.artifact_type.as_deref()]);
    let mut types = types.chain([artifact_type.as_deref()]).flatten();
    types.find(|written| written.contains(';')).map(|written| {
        format!("the media type {written:?} has a parameter, which it does not take; leave out what follows the ;")
    })
}
