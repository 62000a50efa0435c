//! What speaks of an image without being part of it: signatures, SBOMs, attestations.
//!
//! A referrer names its image as `subject` (OCI image spec, `manifest.md`). `index.json` lists it, or, as cosign 3
//! writes layouts, nothing does, and it lies among the blobs. Older signatures have no subject: cosign marks them in
//! `index.json` with `kind`, and finds them in a registry under the tag `sha256-<hex of the image>.sig`.

use std::collections::HashSet;

use serde::Deserialize;

use super::ArchiveError;
use super::contents::{ArchiveImage, Content, Files, OciImage, OciManifest};
use super::oci::{Reader, Tree, extend_blobs};
use crate::image::manifest::sniffed_media_type;
use crate::image::{Descriptor, Digest, Tag};
use crate::limits;
use crate::naming::ArchiveName;
use crate::object::Source;

/// Something that belongs to an image of the archive.
pub(super) struct Companion {
    pub(super) of: Of,
    pub(super) tree: Tree,
}

/// Which image it belongs to.
pub(super) enum Of {
    /// The one with this manifest.
    Subject(Digest),
    /// The one of this name, or the only one; the tag's ending.
    Named(Option<ArchiveName>, &'static str),
}

/// The ending of the tag under which cosign finds what it marks with this `kind`.
pub(super) fn cosign_ending(entry: &Descriptor) -> Option<&'static str> {
    let kind = entry.annotations.get("kind")?;
    match kind.rsplit('/').next()? {
        "sigs" => Some("sig"),
        "atts" => Some("att"),
        "sboms" => Some("sbom"),
        _ => None,
    }
}

/// Puts each companion behind the image that it belongs to.
pub(super) fn attach(images: &mut [ArchiveImage], companions: Vec<Companion>, left_out: &mut Vec<String>) {
    for Companion { of, tree } in companions {
        let alone = images.len() == 1;
        let holder = images.iter_mut().find_map(|image| {
            let holds = match (&of, &image.content) {
                (Of::Subject(subject), Content::Oci(image)) => has(image, *subject),
                (Of::Named(name, _), Content::Oci(_)) => {
                    alone || name.as_ref().is_some_and(|name| image.names.contains(name))
                }
                (_, Content::Docker(_)) => false,
            };
            match &mut image.content {
                Content::Oci(image) if holds => Some(image),
                _ => None,
            }
        });
        let Some(image) = holder else {
            left_out.push(match of {
                Of::Subject(subject) => format!("a referrer of {subject}, which the archive does not hold"),
                Of::Named(_, ending) => format!("a cosign .{ending} of an image that the archive does not hold"),
            });
            continue;
        };
        let tag = match &of {
            Of::Subject(_) => None,
            Of::Named(_, ending) => format!("sha256-{}.{ending}", image.root().digest.hex()).parse::<Tag>().ok(),
        };
        let last = tree.manifests.len().saturating_sub(1);
        for (at, manifest) in tree.manifests.into_iter().enumerate() {
            if !has(image, manifest.digest) {
                let tag = tag.clone().filter(|_| at == last);
                image.manifests.push(OciManifest { manifest, referrer: true, tag });
            }
        }
        extend_blobs(&mut image.blobs, tree.blobs);
    }
}

fn has(image: &OciImage, digest: Digest) -> bool {
    image.manifests.iter().any(|manifest| manifest.manifest.digest == digest)
}

/// Only whose subject it is.
#[derive(Deserialize)]
struct Referrer {
    subject: Option<Descriptor>,
}

/// Finds referrers that no index lists, by looking at the small JSON blobs that nothing names; a referrer of a
/// referrer too.
pub(super) async fn unindexed<S: Source>(
    files: &Files<'_, S>,
    reader: &mut Reader<'_, '_, S>,
    images: &mut [ArchiveImage],
) -> Result<(), ArchiveError> {
    let mut named: HashSet<Digest> = HashSet::new();
    for image in images.iter() {
        if let Content::Oci(image) = &image.content {
            named.extend(image.manifests.iter().map(|manifest| manifest.manifest.digest));
            named.extend(image.blobs.iter().map(|blob| blob.descriptor.digest));
        }
    }
    let mut open: Vec<Digest> = files
        .paths()
        .filter_map(|path| path.strip_prefix("blobs/sha256/"))
        .filter_map(|hex| format!("sha256:{hex}").parse().ok())
        .filter(|digest| !named.contains(digest) && !reader.met.contains(digest))
        .collect();
    open.sort_unstable();
    let mut found: Vec<(Digest, Descriptor)> = Vec::new();
    let mut looked_at = 0_usize;
    for digest in open {
        let Ok(extent) = files.file(&reader.path(digest), "an OCI layout") else { continue };
        let may_be_json = extent.magic.is_none_or(|magic| magic.first().is_some_and(|first| *first == b'{'));
        if !may_be_json || extent.size_bytes > limits::REFERRER_BYTES {
            continue;
        }
        looked_at = looked_at.saturating_add(1);
        if looked_at > limits::REFERRERS {
            reader.left_out.push(format!("blobs that no index names, beyond the first {}", limits::REFERRERS));
            break;
        }
        let Ok(bytes) = files.small(&extent).await else { continue };
        let Ok(Referrer { subject: Some(subject) }) = serde_json::from_slice(&bytes) else { continue };
        let Ok(media_type) = sniffed_media_type(&bytes) else { continue };
        found.push((subject.digest, Descriptor::new(media_type.as_str(), digest, extent.size_bytes)));
    }
    // Each round attaches what speaks of something that is there by now.
    loop {
        let (ready, waiting): (Vec<_>, Vec<_>) = found.into_iter().partition(|(subject, _)| {
            images.iter().any(|image| matches!(&image.content, Content::Oci(image) if has(image, *subject)))
        });
        found = waiting;
        if ready.is_empty() {
            break;
        }
        let mut companions = Vec::new();
        for (subject, entry) in ready {
            if let Some(tree) = reader.companion(&entry).await? {
                companions.push(Companion { of: Of::Subject(subject), tree });
            }
        }
        let mut left_out = Vec::new();
        attach(images, companions, &mut left_out);
        reader.left_out.append(&mut left_out);
    }
    for (subject, entry) in found {
        reader.left_out.push(format!("{}, a referrer of {subject}, which the archive does not hold", entry.digest));
    }
    Ok(())
}
